//! The list of parts and the licences name what is linked.

use std::collections::{BTreeMap, BTreeSet};

use leads_api::broker;
use leads_dist::{bom, notices};
use serde_json::Value;

use crate::{parts, release};

fn document() -> Value {
    let text = bom::document(&release(), parts()).expect("the document");
    serde_json::from_str(&text).expect("JSON")
}

fn components(document: &Value) -> &[Value] {
    document["components"].as_array().expect("components")
}

fn text<'a>(component: &'a Value, field: &str) -> &'a str {
    component[field].as_str().unwrap_or_else(|| panic!("{field}: {component}"))
}

fn is_a_package(component: &Value) -> bool {
    component["purl"].as_str().is_none_or(|purl| purl.starts_with("pkg:cargo/"))
}

#[test]
fn libraries_of_other_languages_are_listed_with_the_version_that_is_linked() {
    let document = document();
    let native = components(&document).iter().filter(|component| !is_a_package(component));
    let versions: BTreeMap<_, _> =
        native.map(|component| (text(component, "name"), text(component, "version"))).collect();
    let names: Vec<_> = versions.keys().copied().collect();
    assert_eq!(names, ["librdkafka", "openssl", "rust-std", "swagger-ui", "zlib", "zstd"]);
    assert_eq!(versions["librdkafka"], broker::librdkafka_version());
    assert_eq!(versions["openssl"], leads_postgres::openssl_version());
    for (name, version) in versions {
        assert!(version.starts_with(|c: char| c.is_ascii_digit()), "{name} {version}");
    }
}

#[test]
fn packages_are_those_that_are_linked_with_their_checksums() {
    let document = document();
    let packages: Vec<_> = components(&document).iter().filter(|part| is_a_package(part)).collect();
    let names: BTreeSet<_> = packages.iter().map(|package| text(package, "name")).collect();
    for name in ["leads-api", "leads-consumer", "leads-shared", "rdkafka", "openssl", "actix-web"] {
        assert!(names.contains(name), "{name}");
    }
    // Builds, tests and other systems have these; the binaries don't.
    for name in
        ["openssl-src", "cc", "clap_derive", "leads-testkit", "proptest", "insta", "leads-dist"]
    {
        assert!(!names.contains(name), "{name}");
    }
    for package in packages {
        let (name, version) = (text(package, "name"), text(package, "version"));
        assert!(package["licenses"][0]["expression"].is_string(), "{package}");
        if name.starts_with("leads-") {
            assert!(package["purl"].is_null(), "{name} is on no registry");
            continue;
        }
        let purl = format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"));
        assert_eq!(text(package, "purl"), purl);
        let checksum = &package["hashes"][0];
        assert_eq!(text(checksum, "alg"), "SHA-256");
        assert_eq!(text(checksum, "content").len(), 64, "{name}");
    }
}

#[test]
fn the_parts_hang_together() {
    let document = document();
    let refs: Vec<_> = components(&document).iter().map(|part| text(part, "bom-ref")).collect();
    let known: BTreeSet<_> = refs.iter().copied().chain(["leads@0.1.0"]).collect();
    assert_eq!(known.len(), refs.len() + 1, "no name twice");
    let mut uses = BTreeMap::new();
    for entry in document["dependencies"].as_array().expect("dependencies") {
        let on = entry["dependsOn"].as_array().cloned().unwrap_or_default();
        let on: Vec<_> = on.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
        assert!(on.iter().all(|name| known.contains(name.as_str())), "{entry}");
        assert!(uses.insert(text(entry, "ref").to_owned(), on).is_none(), "{entry}");
    }
    // From the product every part is reached.
    let mut reached = BTreeSet::new();
    let mut next = vec!["leads@0.1.0".to_owned()];
    while let Some(name) = next.pop() {
        next.extend(uses[&name].iter().filter(|name| !reached.contains(*name)).cloned());
        reached.insert(name);
    }
    let left: Vec<_> = known.iter().filter(|name| !reached.contains(**name)).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_list_is_the_same_for_the_same_sources() {
    let write = |commit: &str| {
        let release = leads_dist::Release { commit: commit.to_owned(), ..release() };
        bom::document(&release, parts()).expect("the document")
    };
    assert_eq!(write("a"), write("a"));
    let numbers = ["a", "b"].map(|commit| {
        let document: Value = serde_json::from_str(&write(commit)).expect("JSON");
        text(&document, "serialNumber").to_owned()
    });
    assert_ne!(numbers[0], numbers[1], "another build is another document");
    assert!(numbers[0].starts_with("urn:uuid:"));
    let document = document();
    assert_eq!(document["metadata"]["timestamp"], "2026-11-22T00:00:00Z");
}

#[test]
fn every_part_of_others_is_among_the_licences_with_its_text() {
    let text = notices::text(parts()).expect("the text");
    let (list, texts) = text.split_once("\n====").expect("a list, then texts");
    for part in parts().crates.iter().filter(|part| !part.is_ours()) {
        let title = format!("{} {} (", part.name, part.version);
        let line = list.lines().position(|line| line.starts_with(&title));
        let line = line.unwrap_or_else(|| panic!("{title}"));
        let says_none =
            list.lines().nth(line + 1).is_some_and(|next| next.starts_with("    no text"));
        let titled = texts.lines().any(|line| line.starts_with(&title));
        assert_ne!(says_none, titled, "{title}: its text, or that there is none");
    }
    for (name, phrase) in [
        ("librdkafka", "Magnus Edenhill"),
        ("openssl", "Apache License"),
        ("zlib", "Jean-loup Gailly"),
        ("zstd", "Facebook"),
    ] {
        let native = parts().native.iter().find(|native| native.name == name).expect("it");
        let title = format!("{name} {} (", native.version);
        let block = texts.split("\n====").find(|block| block.contains(&title)).expect("its text");
        assert!(block.contains(phrase), "{name}: {phrase}");
    }
    assert!(!text.contains(env!("CARGO_MANIFEST_DIR")), "no path of the builder's");
}
