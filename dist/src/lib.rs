//! What a release has beside its binaries: man pages and completions from their command lines, the
//! parts they are made of, and the licences of those.

pub mod bom;
pub mod completions;
pub mod manual;
pub mod native;
pub mod notices;
pub mod parts;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use parts::Parts;

/// The version of all that is released.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The binaries of a release.
pub const BINARIES: [&str; 2] = ["leads-api", "leads-consumer"];

/// What is released; see [`VERSION`] for the rest of it.
#[derive(Debug, Clone)]
pub struct Release {
    /// The commit, as the binaries tell it.
    pub commit: String,
    /// The commit's day, as in `2026-11-22`.
    pub date: String,
    /// What it is built for, as in `x86_64-unknown-linux-gnu`.
    pub target: String,
    /// The compiler's version, as in `1.95.0`: its library is part of the binaries.
    pub rustc: String,
}

impl Release {
    /// Whether the commit's day is known.
    pub(crate) fn has_a_day(&self) -> bool {
        self.date.starts_with(|first: char| first.is_ascii_digit())
    }
}

/// The command lines of [`BINARIES`].
pub fn commands() -> [clap::Command; 2] {
    [leads_api::cli::Cli::command(), leads_consumer::cli::Cli::command()]
}

/// Writes it all into `out`, laid out as below `/usr`, and the legal part at the top.
///
/// # Errors
/// A file that can't be written, a part that can't be found out about.
pub fn write(release: &Release, out: &Path) -> Result<()> {
    for command in commands() {
        for page in manual::pages(command.clone(), release)? {
            put(out, &format!("share/man/man1/{}", page.file), &page.text)?;
        }
        for (file, text) in completions::scripts(command) {
            put(out, &file, &text)?;
        }
    }
    let parts = Parts::of(release)?;
    put(out, "sbom.cdx.json", &bom::document(release, &parts)?)?;
    put(out, "THIRD-PARTY-LICENSES.txt", &notices::text(&parts)?)
}

fn put(out: &Path, file: &str, text: &str) -> Result<()> {
    let path = out.join(file);
    let folder = path.parent().unwrap_or(out);
    fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    fs::write(&path, text).with_context(|| format!("{}", path.display()))
}
