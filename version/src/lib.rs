//! What the binaries tell of themselves, settled when they are built.
//!
//! The commit is `LEADS_COMMIT` where it is set, else git's in a release build, else that of the
//! archive that git made, else `unknown`. A commit whose sources were changed ends in `-dirty`.

#[cfg(test)]
mod origin;

/// The version, as in `0.1.0`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit, as in `fab2f8312a9b` or `fab2f8312a9b-dirty`; `unknown` when nothing told it.
pub const COMMIT: &str = env!("LEADS_BUILD_COMMIT");
/// The commit's day, as in `2026-11-22`; `unknown` when nothing told it.
pub const DATE: &str = env!("LEADS_BUILD_DATE");
/// The compiler, as in `1.95.0 (59807616e 2026-04-14)`.
pub const RUSTC: &str = env!("LEADS_BUILD_RUSTC");
/// The platform it was built for, as in `x86_64-unknown-linux-gnu`.
pub const TARGET: &str = env!("LEADS_BUILD_TARGET");

/// What `--version` prints behind the binary's name: the version, and a line for each other fact;
/// `libraries` are the linked ones and their versions.
///
/// ```
/// let text = leads_version::long(&[("librdkafka", "2.12.1")]);
/// assert!(text.starts_with(leads_version::VERSION));
/// assert!(text.ends_with("\nlibrdkafka: 2.12.1"));
/// ```
pub fn long(libraries: &[(&str, &str)]) -> String {
    let facts = [("commit", COMMIT), ("date", DATE), ("rustc", RUSTC), ("target", TARGET)];
    let lines = facts.iter().chain(libraries).map(|(name, value)| format!("\n{name}: {value}"));
    VERSION.to_owned() + &lines.collect::<String>()
}
