//! What a release has beside its binaries, and what these tell of themselves.

mod archive;
mod completions;
mod deny;
mod manual;
mod parts;
mod version;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use leads_dist::Release;
use leads_dist::parts::Parts;

/// The folder of the workspace's binaries.
fn binaries() -> PathBuf {
    let test = std::env::current_exe().expect("this test's own path");
    let folder = test.ancestors().nth(2).expect("the build's folder");
    assert!(folder.join("leads-api").exists(), "cargo build --workspace first");
    folder.to_owned()
}

fn release() -> Release {
    Release {
        commit: "0123456789ab".to_owned(),
        date: "2026-11-22".to_owned(),
        target: leads_version::TARGET.to_owned(),
        rustc: "1.95.0".to_owned(),
    }
}

/// Cargo is asked once for all tests.
fn parts() -> &'static Parts {
    static PARTS: LazyLock<Parts> = LazyLock::new(|| Parts::of(&release()).expect("the parts"));
    &PARTS
}

fn root() -> &'static Path {
    leads_dist::parts::root()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Standard output of a command that has to succeed.
fn answer(command: &mut Command) -> String {
    let output = run(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

/// Whether a program is on this machine. What only some machines have is looked at there.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        println!("{program} is not here: what it would have looked at was not");
    }
    found
}
