//! Answers are compressed as the client takes them, where it pays; what is inside stays the same.

use std::io::Read;

use leads_testkit::{Key, KeySpec, Method, Response, System};
use serde_json::json;

use crate::shared::{Shared, assert_error, call, eventually_lead, post_with, run, shared};

const LISTED: usize = 20;

/// The body as its coding says.
pub(crate) fn decoded(answer: &Response) -> Vec<u8> {
    let mut body = Vec::new();
    let bytes = answer.body.as_slice();
    match answer.header("content-encoding") {
        None => body.extend_from_slice(bytes),
        Some("gzip") => {
            flate2::read::GzDecoder::new(bytes).read_to_end(&mut body).expect("gzip");
        }
        Some("zstd") => body = zstd::decode_all(bytes).expect("zstd"),
        Some("br") => {
            brotli::Decompressor::new(bytes, 4096).read_to_end(&mut body).expect("brotli");
        }
        Some(other) => panic!("{other} is no coding of ours"),
    }
    body
}

fn names_accept_encoding(answer: &Response) -> bool {
    let mut values = answer.headers.get_all("vary").iter().filter_map(|it| it.to_str().ok());
    values.any(|value| value.eq_ignore_ascii_case("accept-encoding"))
}

async fn get(shared: &Shared, key: &Key, path: &str, accept: &str) -> Response {
    let headers = [("x-api-key", key.secret.as_str()), ("accept-encoding", accept)];
    call(&shared.api, "GET", path, &headers).await
}

/// A key of a workspace with a list that is worth it.
async fn with_leads(shared: &Shared) -> Key {
    let key = shared.key().await;
    let items: Vec<_> = (0..LISTED).map(|n| json!({"code": format!("c{n}")})).collect();
    let body = json!(items).to_string();
    let request = shared.api.json(Method::POST, "/api/v1/leads/batch", &key, &body);
    let answer = shared.api.send(request).await.json();
    for item in answer["data"].as_array().expect("outcomes") {
        let id = item["id"].as_str().expect("an id");
        eventually_lead(&shared.api, &key, id, |answer| answer.status == 200).await;
    }
    key
}

#[test]
fn a_list_comes_as_the_client_likes_it_best() {
    run(async {
        let shared = shared().await;
        let key = with_leads(shared).await;
        let list = "/api/v1/leads";
        let plain = call(&shared.api, "GET", list, &[("x-api-key", &key.secret)]).await;
        assert_eq!((plain.status, plain.header("content-encoding")), (200, None));
        assert!(names_accept_encoding(&plain), "a cache has to know: {plain:?}");
        for (accept, coding) in [
            ("gzip", Some("gzip")),
            ("br", Some("br")),
            ("zstd", Some("zstd")),
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("zstd;q=0.2, gzip;q=0.8", Some("gzip")),
            ("*;q=0.5, zstd;q=0", Some("br")),
            ("identity;q=0, gzip", Some("gzip")),
            ("identity, gzip;q=0.5", None),
            ("gzip;q=0", None),
            ("deflate", None),
            // Nothing is left to choose from: better an answer than none.
            ("*;q=0", None),
        ] {
            let answer = get(shared, &key, list, accept).await;
            assert_eq!(
                (answer.status, answer.header("content-encoding")),
                (200, coding),
                "{accept}"
            );
            assert!(names_accept_encoding(&answer), "{accept}");
            assert_eq!(decoded(&answer), plain.body, "{accept}");
            let length = answer.header("content-length").map(str::to_owned);
            assert_eq!(length, Some(answer.body.len().to_string()), "{accept}");
            assert_eq!(answer.header("content-type"), Some("application/json"));
            assert!(coding.is_none() || answer.body.len() * 2 < plain.body.len(), "{accept}");

            let headers = [("x-api-key", key.secret.as_str()), ("accept-encoding", accept)];
            let head = call(&shared.api, "HEAD", list, &headers).await;
            assert_eq!(head.body, b"", "{accept}");
            for name in ["content-encoding", "content-length", "vary", "content-type"] {
                assert_eq!(head.header(name), answer.header(name), "{name}, {accept}");
            }
        }
    });
}

/// Its entity tag names these very bytes, and is what `If-Match` takes.
#[test]
fn a_lead_comes_as_it_is_with_its_tag() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let all = ("accept-encoding", "gzip, br, zstd, identity;q=0");
        let body = json!({"properties": {"text": "compressible ".repeat(1000)}}).to_string();
        let posted = post_with(&shared.api, &key, body, &[all]).await;
        let id = posted.lead_id();
        let read = eventually_lead(&shared.api, &key, &id, |answer| answer.status == 200).await;
        let path = format!("/api/v1/leads/{id}");
        let again = get(shared, &key, &path, all.1).await;
        for answer in [&posted, &again] {
            assert_eq!(answer.header("content-encoding"), None, "{answer:?}");
            assert_eq!(answer.header("etag"), Some("\"1\""));
        }
        assert_eq!(again.body, read.body);

        let headers = [("x-api-key", key.secret.as_str()), all, ("if-none-match", "\"1\"")];
        let unchanged = call(&shared.api, "GET", &path, &headers).await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        assert_eq!(unchanged.header("content-encoding"), None);
        assert_eq!(unchanged.header("etag"), Some("\"1\""));

        let update = shared.api.json(Method::PATCH, &path, &key, r#"{"code":"x"}"#);
        let update = update.header("if-match", "\"1\"").header(all.0, all.1);
        let patched = shared.api.send(update).await;
        assert_eq!((patched.status, patched.header("etag")), (200, Some("\"2\"")));
        assert_eq!(patched.header("content-encoding"), None);
    });
}

#[test]
fn a_batch_is_compressed_where_it_pays() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let post = async |items: usize, accept: &str, prefer: &str| {
            let items: Vec<_> = (0..items).map(|n| json!({"code": format!("c{n}")})).collect();
            let body = json!(items).to_string();
            let request = shared.api.json(Method::POST, "/api/v1/leads/batch", &key, &body);
            let request = request.header("accept-encoding", accept).header("prefer", prefer);
            shared.api.send(request).await
        };
        for (items, accept, prefer, coding) in [
            (1, "gzip", "return=minimal", None),
            (1, "gzip, identity;q=0", "return=minimal", Some("gzip")),
            (50, "gzip", "return=minimal", Some("gzip")),
            (50, "br", "return=representation", Some("br")),
            // Above what is done where the request is served.
            (400, "zstd", "return=representation", Some("zstd")),
        ] {
            let answer = post(items, accept, prefer).await;
            assert_eq!(
                (answer.status, answer.header("content-encoding")),
                (201, coding),
                "{items}"
            );
            let body: serde_json::Value = serde_json::from_slice(&decoded(&answer)).unwrap();
            assert_eq!(body["data"].as_array().map(Vec::len), Some(items));
        }
        let refused = call(&shared.api, "GET", "/nowhere", &[("accept-encoding", "gzip")]).await;
        assert_error(&refused, 404, "route_not_found");
    });
}

#[test]
fn the_pages_are_compressed_once_and_are_the_same_each_time() {
    run(async {
        let api = &shared().await.api;
        for path in ["/openapi.json", "/docs/", "/docs/swagger-ui-bundle.js"] {
            let plain = api.get_open(path).await;
            assert_eq!((plain.status, plain.header("content-encoding")), (200, None), "{path}");
            for coding in ["gzip", "br", "zstd", "gzip"] {
                let answer = call(api, "GET", path, &[("accept-encoding", coding)]).await;
                let small = plain.body.len() < 1024;
                let expected = (!small).then_some(coding);
                assert_eq!(answer.header("content-encoding"), expected, "{path}");
                assert_eq!(decoded(&answer), plain.body, "{path} {coding}");
                let head = call(api, "HEAD", path, &[("accept-encoding", coding)]).await;
                assert_eq!(head.header("content-length"), answer.header("content-length"));
                assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            }
        }
        let missing = call(api, "GET", "/docs/nothing.js", &[]).await;
        assert_error(&missing, 404, "route_not_found");
        let posted = call(api, "POST", "/docs/index.html", &[]).await;
        assert_error(&posted, 405, "method_not_allowed");
    });
}

/// A body that grows without end is refused at the bound, and costs no more than one that doesn't.
#[test]
fn bombs_are_refused_with_flat_memory() {
    const MEBIBYTE: usize = 1024 * 1024;
    run(async {
        let system = System::builder().without_migrations().build().await;
        let key = system.create_key(KeySpec { rate_limit: Some(0), ..KeySpec::default() }).await;
        let api = system.start_api().await;
        api.wait_ready().await;
        let zeros = vec![0; MEBIBYTE];
        let many = |one: Vec<u8>| one.repeat(200 * 1024 / one.len());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut gzip, &zeros).expect("memory takes it");
        let gzip = gzip.finish().expect("memory takes it");
        let zstd = zstd::encode_all(&zeros[..], 1).expect("memory takes it");
        let one = zstd::bulk::compress(&vec![0; 300 * MEBIBYTE], 1).expect("memory takes it");
        let mut wide = zstd::Encoder::new(Vec::new(), 1).expect("memory takes it");
        wide.window_log(27).expect("a window of 128 MiB");
        std::io::Write::write_all(&mut wide, b"{}").expect("memory takes it");
        let wide = wide.finish().expect("memory takes it");
        // An error for each name, were they all kept.
        let names = format!("{{{}\"\":1}}", "\"\":1,".repeat(52_000));
        let names = names.as_bytes();
        assert!(names.len() > 250 * 1024 && names.len() <= 256 * 1024, "{}", names.len());
        let names = zstd::encode_all(names, 1).expect("memory takes it");
        // 200 MiB and more each, the last one but a window of 128 MiB.
        let bombs = [
            ("gzip", many(gzip), 413, "payload_too_large"),
            ("zstd", many(zstd), 413, "payload_too_large"),
            ("zstd", one, 413, "payload_too_large"),
            ("zstd", wide, 400, "malformed_encoding"),
            ("zstd", names, 400, "validation_failed"),
        ];
        for (_, bytes, ..) in &bombs {
            assert!(bytes.len() < 256 * 1024, "small on the wire: {}", bytes.len());
        }
        // Once through everything, so that what is needed anyway is there.
        post_with(&api, &key, vec![b' '; 200 * 1024], &[]).await;
        let before = api.peak_memory();
        for (encoding, bytes, status, code) in &bombs {
            let headers = [("content-encoding", *encoding)];
            let post = async |_| post_with(&api, &key, bytes.clone(), &headers).await;
            for answer in futures_util::future::join_all((0..16).map(post)).await {
                assert_error(&answer, *status, code);
            }
        }
        assert_eq!(system.records().await.len(), 0);
        let (Some(before), Some(after)) = (before, api.peak_memory()) else {
            return eprintln!("skipped: this system does not tell how much memory a process held");
        };
        let grown = after.saturating_sub(before) / MEBIBYTE;
        assert!(grown < 96, "{grown} MiB more than before");
    });
}
