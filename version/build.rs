//! Settles what the binaries tell of themselves.

#[path = "src/origin.rs"]
mod origin;

use std::env;
use std::path::Path;
use std::process::Command;

use origin::Origin;

fn main() {
    let manifest = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&manifest).parent().unwrap_or(Path::new("."));
    // A build for the tests names no commit: it would be built anew with each one.
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    println!("cargo::rerun-if-env-changed=LEADS_COMMIT");
    println!("cargo::rerun-if-env-changed=LEADS_COMMIT_DATE");
    println!("cargo::rerun-if-changed=build.rs");
    match Origin::find(root, is_release, |name| env::var(name).ok()) {
        Ok(Origin { commit, date, watch }) => {
            println!("cargo::rustc-env=LEADS_BUILD_COMMIT={commit}");
            println!("cargo::rustc-env=LEADS_BUILD_DATE={date}");
            for path in watch {
                println!("cargo::rerun-if-changed={}", path.display());
            }
        }
        Err(why) => println!("cargo::error={why}"),
    }
    println!("cargo::rustc-env=LEADS_BUILD_RUSTC={}", rustc());
    println!("cargo::rustc-env=LEADS_BUILD_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// As in `1.95.0 (59807616e 2026-04-14)`.
fn rustc() -> String {
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler).arg("--version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    text.trim().strip_prefix("rustc ").unwrap_or(origin::UNKNOWN).to_owned()
}
