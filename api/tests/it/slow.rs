//! Slow, silent and malformed clients: what they are told, and that they are cut off.

use std::time::{Duration, Instant};

use leads_testkit::{DEADLINE, System, eventually};
use uuid::Uuid;

use crate::shared::{Own, assert_error, call, run, shared};

#[test]
fn slow_clients_are_cut_off() {
    run(async {
        let system = System::new().await;
        let limits = [("BODY_TIMEOUT", "300ms"), ("HEADER_TIMEOUT", "1s"), ("KEEP_ALIVE", "1s")];
        let own = Own::start(system, &limits).await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ncontent-length: 20\r\n\r\n",
            own.key.secret
        );

        let mut slow_body = own.api.raw().await;
        slow_body.write(head.as_bytes()).await.unwrap();
        slow_body.write(b"{").await.unwrap();
        let answer = slow_body.read_response(DEADLINE).await.expect("an answer");
        assert_error(&answer, 408, "request_timeout");
        slow_body.read_to_close(DEADLINE).await;

        let mut slow_head = own.api.raw().await;
        slow_head.write(&head.as_bytes()[..30]).await.unwrap();
        let rest = slow_head.read_to_close(DEADLINE).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{rest:?}");

        let mut silent = own.api.raw().await;
        let rest = silent.read_to_close(DEADLINE).await;
        assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 408 "), "{rest:?}");

        let mut idle = own.api.raw().await;
        idle.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(idle.read_response(DEADLINE).await.expect("an answer").status, 200);
        let waited = Instant::now();
        idle.read_to_close(DEADLINE).await;
        assert!(waited.elapsed() < Duration::from_secs(5), "KEEP_ALIVE holds");
        // A later head has no time-out of its own: it has that of an idle connection.
        let mut later = own.api.raw().await;
        later.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert_eq!(later.read_response(DEADLINE).await.expect("an answer").status, 200);
        later.write(b"GET /livez HTTP/1.1\r\nx-slow: ").await.unwrap();
        eventually(DEADLINE, "a trickle is cut off", async || later.write(b"x").await.is_err())
            .await;
        drop(own.consumer);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let limits = [("HEADER_TIMEOUT", "1s"), ("KEEP_ALIVE", "1s")];
        let api = system.start_api_with(&limits).await;
        let mut raw = api.raw().await;
        // Far more than the buffers in between hold.
        let get = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nhost: x\r\n\r\n";
        raw.write(get.repeat(100).as_bytes()).await.unwrap();
        let cut = async || {
            let written = tokio::time::timeout(DEADLINE, raw.write(b"x")).await;
            written.is_ok_and(|written| written.is_err())
        };
        eventually(DEADLINE, "it is cut off", cut).await;
        assert_eq!(api.get_open("/livez").await.status, 200);
    });
}

#[test]
fn a_client_that_goes_away_mid_body_makes_no_lead() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let mut raw = shared.api.raw().await;
        let request = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-type: application/json\r\n\
             content-length: 20\r\n\r\n{{}}",
            key.secret
        );
        raw.write(request.as_bytes()).await.unwrap();
        raw.shutdown().await.unwrap();
        if let Some(answer) = raw.read_response(DEADLINE).await {
            assert!((400..500).contains(&answer.status), "{answer:?}");
        }
        let list = shared.api.get(&key, "/api/v1/leads").await.json();
        assert_eq!(list["pagination"]["total"], 0);
    });
}

#[test]
fn what_is_no_http_gets_400_and_a_closed_connection() {
    run(async {
        let api = &shared().await.api;
        for request in [
            "GARBAGE\r\n\r\n",
            "GET /livez HTTP/9.9\r\nhost: x\r\n\r\n",
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n",
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        ] {
            let mut raw = api.raw().await;
            raw.write(request.as_bytes()).await.unwrap();
            let answer = raw.read_to_close(DEADLINE).await;
            let text = String::from_utf8_lossy(&answer);
            assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{request:?}: {text}");
        }
        assert_eq!(api.get_open("/livez").await.status, 200);
    });
}

#[test]
fn head_is_get_without_a_body() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let lead = shared.api.post_lead(&key, r#"{"code":"x"}"#).await.lead_id();
        shared.api.get_lead(&key, &lead).await;
        let lead = format!("/api/v1/leads/{lead}");
        let missing = format!("/api/v1/leads/{}", Uuid::new_v4());
        let list = "/api/v1/leads";
        for path in [list, &lead, &missing, "/livez", "/readyz", "/openapi.json", "/nowhere"] {
            let headers = [("x-api-key", key.secret.as_str())];
            let get = call(&shared.api, "GET", path, &headers).await;
            let head = call(&shared.api, "HEAD", path, &headers).await;
            assert_eq!(head.status, get.status, "{path}");
            assert_eq!(head.body, b"", "{path}");
            for name in ["content-type", "content-length", "etag", "location", "x-workspace-id"] {
                assert_eq!(head.header(name), get.header(name), "{name} of {path}");
            }
        }
    });
}
