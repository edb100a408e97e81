//! The console: its files as they are served.

use std::collections::BTreeMap;
use std::path::Path;

use leads_testkit::{KeySpec, Response};

use crate::compress::decoded;
use crate::shared::{assert_error, call, run, shared};

/// Every file of the folder.
fn folder() -> BTreeMap<String, Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("console");
    let files = std::fs::read_dir(&folder).expect("api/console");
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        (name, std::fs::read(&path).expect("a file, no folder"))
    };
    files.map(read).collect()
}

#[track_caller]
fn assert_safe(answer: &Response) {
    let policy = answer.header("content-security-policy").expect("a policy");
    let directives: Vec<_> = policy.split(';').map(str::trim).collect();
    for wanted in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ] {
        assert!(directives.contains(&wanted), "{wanted}: {policy}");
    }
    assert!(!policy.contains("unsafe") && directives.len() == 10, "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cache-control", "no-cache"),
        ("vary", "accept-encoding"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
}

#[test]
fn every_file_is_served_as_it_is_and_safely() {
    run(async {
        let api = &shared().await.api;
        let files = folder();
        assert!(files.contains_key("index.html"), "{:?}", files.keys());
        for (name, bytes) in &files {
            let path = format!("/console/{name}");
            let answer = api.get_open(&path).await;
            assert_eq!(answer.status, 200, "{name} has to stand in the list of routes/console.rs");
            assert_eq!(&answer.body, bytes, "{name}");
            assert_safe(&answer);
            let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
            let expected = match ending {
                "html" => "text/html; charset=utf-8",
                "css" => "text/css; charset=utf-8",
                "js" => "text/javascript; charset=utf-8",
                "svg" => "image/svg+xml",
                "png" => "image/png",
                other => panic!("{name}: which content type is .{other}?"),
            };
            assert_eq!(answer.header("content-type"), Some(expected));
            let head = call(api, "HEAD", &path, &[]).await;
            assert_eq!((head.status, head.body.len()), (200, 0));
            assert_safe(&head);
        }
        let page = api.get_open("/console").await;
        assert_eq!((page.status, &page.body), (200, &files["index.html"]));
        assert_safe(&page);
    });
}

#[test]
fn a_tag_names_the_bytes_of_each_coding() {
    run(async {
        let api = &shared().await.api;
        for (name, bytes) in folder() {
            let path = format!("/console/{name}");
            let mut tags = Vec::new();
            for accept in ["identity", "gzip", "br", "zstd"] {
                let get = async |tag: &str| {
                    let headers = [("accept-encoding", accept), ("if-none-match", tag)];
                    call(api, "GET", &path, &headers).await
                };
                let whole = get("\"another\"").await;
                assert_eq!(
                    (whole.status, decoded(&whole) == bytes),
                    (200, true),
                    "{name} {accept}"
                );
                let worth_it = accept != "identity" && bytes.len() >= 1024;
                assert_eq!(whole.header("content-encoding"), worth_it.then_some(accept));
                let tag = whole.header("etag").expect("a tag").to_owned();
                assert!(tag.starts_with('"') && tag.ends_with('"'), "strong: {tag}");
                let same = get(&tag).await;
                assert_eq!((same.status, same.body.len()), (304, 0), "{name} {accept}");
                assert_eq!(same.header("etag"), Some(tag.as_str()));
                assert_safe(&same);
                if worth_it || accept == "identity" {
                    tags.push(tag);
                }
            }
            let count = tags.len();
            tags.dedup();
            assert_eq!(tags.len(), count, "{name}: {tags:?}");
        }
    });
}

#[test]
fn nothing_else_is_there() {
    run(async {
        let shared = shared().await;
        for path in ["/console/", "/console/nope.js", "/console/../Cargo.toml", "/console/a/b"] {
            let answer = shared.api.get_open(path).await;
            assert_error(&answer, 404, "route_not_found");
        }
        for path in ["/console", "/console/index.html"] {
            let answer = call(&shared.api, "POST", path, &[]).await;
            assert_error(&answer, 405, "method_not_allowed");
            assert_eq!(answer.header("allow"), Some("GET, HEAD"));
        }
        // A key that comes along is not looked at.
        let key = shared.key_like(KeySpec { rate_limit: Some(1), ..KeySpec::default() }).await;
        for _ in 0..3 {
            let answer = shared.api.get(&key, "/console").await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.header("x-ratelimit-limit"), None);
        }
    });
}
