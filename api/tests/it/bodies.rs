//! A body is one JSON object, bounded in size before and after decompression.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use leads_testkit::DEADLINE;

use crate::shared::{assert_error, post_with, run, shared};

const LIMIT: usize = 256 * 1024;

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(body).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn what_is_not_one_json_object_is_malformed_with_its_place() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let bodies: [(&[u8], u64, u64); 14] = [
            (b"", 1, 0),
            (b" \n ", 2, 1),
            (b"null", 1, 4),
            (b"[]", 1, 0),
            (b"\"text\"", 1, 6),
            (b"1", 1, 1),
            (b"{} x", 1, 4),
            (b"{}{}", 1, 3),
            (b"{\n\"code\":}", 2, 8),
            (b"{\"code\":\"x\",}", 1, 13),
            (b"{'code':1}", 1, 2),
            (b"\xEF\xBB\xBF{}", 1, 1),
            (b"{\n\"a\":\"\xFF\"}", 2, 6),
            (b"{\"properties\":{\"a\":01}}", 1, 21),
        ];
        for (body, line, column) in bodies {
            let answer = post_with(&shared.api, &key, body, &[]).await;
            let shown = String::from_utf8_lossy(body);
            let details = &assert_error(&answer, 400, "malformed_json")["details"];
            assert_eq!(details["line"].as_u64(), Some(line), "{shown}: {details}");
            assert_eq!(details["column"].as_u64(), Some(column), "{shown}: {details}");
        }
    });
}

#[test]
fn an_error_does_not_quote_the_body() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        for body in [
            r#""MARKER""#,
            r#"{"code":MARKER}"#,
            r#"{"code":{"MARKER":1}}"#,
            r#"{"visitor_id":"MARKER"}"#,
            r#"{"properties":{"MARKER":"\u0000"}}"#,
        ] {
            let answer = shared.api.post_lead(&key, body).await;
            assert_eq!(answer.status, 400, "{body}");
            assert!(!answer.text().contains("MARKER"), "{}", answer.text());
        }
    });
}

#[test]
fn gzip_and_zstd_are_taken() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body = br#"{"source":"compressed"}"#;
        let zstd = zstd::encode_all(&body[..], 1).expect("memory takes it");
        for (encoding, bytes) in [
            ("gzip", gzip(body)),
            ("zstd", zstd),
            ("identity", body.to_vec()),
            ("GZIP", gzip(body)),
        ] {
            let answer =
                post_with(&shared.api, &key, bytes, &[("content-encoding", encoding)]).await;
            assert_eq!(answer.status, 201, "{encoding}: {}", answer.text());
            assert_eq!(answer.json()["data"]["source"], "compressed");
        }
    });
}

#[test]
fn other_encodings_and_broken_ones_are_refused() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let post = async |bytes: &[u8], encoding: &str| {
            post_with(&shared.api, &key, bytes, &[("content-encoding", encoding)]).await
        };
        for encoding in ["br", "deflate", "gzip, gzip", "gzip, zstd", "compress", "x", ""] {
            let answer = post(b"{}", encoding).await;
            let body = assert_error(&answer, 415, "unsupported_content_encoding");
            assert_eq!(answer.header("accept-encoding"), Some("gzip, zstd"), "{encoding}");
            assert!(body["message"].as_str().is_some_and(|text| text.contains("gzip or zstd")));
        }
        let whole = gzip(br#"{"source":"compressed"}"#);
        for encoding in ["gzip", "zstd"] {
            assert_error(&post(b"{}", encoding).await, 400, "malformed_encoding");
            assert_error(&post(b"", encoding).await, 400, "malformed_encoding");
        }
        let framed = zstd::encode_all(&br#"{"source":"compressed"}"#[..], 1).expect("it fits");
        for (encoding, whole) in [("gzip", &whole), ("zstd", &framed)] {
            for cut in [1, 9, whole.len() - 1] {
                let answer = post(&whole[..whole.len() - cut], encoding).await;
                assert_error(&answer, 400, "malformed_encoding");
            }
            let trailing = [whole, &b"trailing"[..]].concat();
            assert_error(&post(&trailing, encoding).await, 400, "malformed_encoding");
            let mut broken = whole.clone();
            let middle = broken.len() / 2;
            broken[middle] ^= 0x55;
            let answer = post(&broken, encoding).await;
            assert_eq!(answer.status, 400, "{encoding}: {}", answer.text());
        }
    });
}

/// Both formats allow it: what is inside is put together.
#[test]
fn members_and_frames_may_follow_each_other() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).expect("memory takes it");
        for (encoding, parts) in [
            ("gzip", [gzip(br#"{"source":"#), gzip(b""), gzip(br#""parts"}"#)]),
            ("zstd", [frame(br#"{"source":"#), frame(b""), frame(br#""parts"}"#)]),
        ] {
            let headers = [("content-encoding", encoding)];
            let answer = post_with(&shared.api, &key, parts.concat(), &headers).await;
            assert_eq!(answer.status, 201, "{encoding}: {}", answer.text());
            assert_eq!(answer.json()["data"]["source"], "parts");
            let answer = post_with(&shared.api, &key, parts[..2].concat(), &headers).await;
            assert_error(&answer, 400, "malformed_json");
        }
    });
}

fn of_length(length: usize) -> String {
    let frame = r#"{"properties":{"a":""}}"#.len();
    format!(r#"{{"properties":{{"a":"{}"}}}}"#, "x".repeat(length - frame))
}

#[test]
fn the_limit_holds_to_the_byte() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let answer = shared.api.post_lead(&key, &of_length(LIMIT)).await;
        assert_eq!(answer.status, 201);
        assert_eq!(shared.api.get_lead(&key, &answer.lead_id()).await.json(), answer.json());

        let answer = shared.api.post_lead(&key, &of_length(LIMIT + 1)).await;
        let body = assert_error(&answer, 413, "payload_too_large");
        assert!(body["message"].as_str().unwrap().contains("262144"), "the limit is named: {body}");
        assert_eq!(body["details"]["limit_bytes"], LIMIT);
    });
}

#[test]
fn the_limit_holds_after_decompression() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let bomb = vec![b' '; 20 << 20];
        let zstd = zstd::encode_all(&bomb[..], 1).expect("memory takes it");
        for (encoding, bytes) in
            [("gzip", gzip(&bomb)), ("zstd", zstd), ("gzip", gzip(of_length(LIMIT + 1).as_bytes()))]
        {
            assert!(bytes.len() < LIMIT);
            let answer =
                post_with(&shared.api, &key, bytes, &[("content-encoding", encoding)]).await;
            assert_error(&answer, 413, "payload_too_large");
        }
        let fits = gzip(of_length(LIMIT).as_bytes());
        let answer = post_with(&shared.api, &key, fits, &[("content-encoding", "gzip")]).await;
        assert_eq!(answer.status, 201);
    });
}

/// The declared length alone is enough: nothing of the body has to arrive.
#[test]
fn a_declared_length_above_the_limit_is_refused_unread() {
    run(async {
        let api = &shared().await.api;
        let mut raw = api.raw().await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
            LIMIT + 1
        );
        raw.write(head.as_bytes()).await.unwrap();
        let answer = raw.read_response(DEADLINE).await.expect("an answer");
        assert_error(&answer, 413, "payload_too_large");
    });
}

/// Without a declared length it is the reading that stops.
#[test]
fn an_endless_chunked_body_is_refused_at_the_limit() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let mut raw = shared.api.raw().await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            key.secret
        );
        raw.write(head.as_bytes()).await.unwrap();
        let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
        for _ in 0..5 {
            // The answer may be there, and the connection closed, before all is written.
            if raw.write(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
        let answer = raw.read_response(DEADLINE).await.expect("an answer");
        assert_error(&answer, 413, "payload_too_large");
    });
}

#[test]
fn a_chunked_body_within_the_limit_is_taken() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let mut raw = shared.api.raw().await;
        let request = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\n{{\"cod\r\n6\r\ne\":\"x\"\r\n1\r\n}}\r\n0\r\n\r\n",
            key.secret
        );
        raw.write(request.as_bytes()).await.unwrap();
        let answer = raw.read_response(DEADLINE).await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["data"]["code"]), (201, &"x".into()));
    });
}
