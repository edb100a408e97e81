//! `--version`.

use std::process::Command;

use leads_dist::{BINARIES, VERSION};

use crate::{answer, binaries, root};

#[test]
fn the_short_version_is_name_and_number() {
    for name in BINARIES {
        let text = answer(Command::new(binaries().join(name)).arg("-V"));
        assert_eq!(text, format!("{name} {VERSION}\n"));
    }
}

#[test]
fn the_long_version_tells_the_build_and_what_is_linked() {
    for name in BINARIES {
        let text = answer(Command::new(binaries().join(name)).arg("--version"));
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some(format!("{name} {VERSION}").as_str()));
        let facts: Vec<_> = lines.map(|line| line.split_once(": ").expect("a fact")).collect();
        let names: Vec<_> = facts.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["commit", "date", "rustc", "target", "librdkafka", "openssl"]);
        let told = |name: &str| facts.iter().find(|fact| fact.0 == name).map(|fact| fact.1);
        let expected = std::env::var("LEADS_COMMIT").ok().filter(|commit| !commit.is_empty());
        assert_eq!(told("commit"), Some(expected.as_deref().unwrap_or("unknown")), "a debug build");
        assert_eq!(told("target"), Some(leads_version::TARGET));
        let toolchain = std::fs::read_to_string(root().join("rust-toolchain.toml")).expect("it");
        let channel =
            toolchain.split("channel = \"").nth(1).and_then(|rest| rest.split('"').next());
        assert_eq!(told("rustc").and_then(|text| text.split(' ').next()), channel);
    }
}
