//! Hostile and odd clients: each has an answer or a closed connection, and the others go on.

use std::time::{Duration, Instant};

use leads_testkit::{Api, DEADLINE, RawConnection, System};

use crate::shared::{Own, assert_error, run, shared, unlimited};

/// Sends bytes and gives what comes until the other side closes.
async fn sent(api: &Api, bytes: &[u8]) -> String {
    let mut raw = api.raw().await;
    let _ = raw.write(bytes).await;
    String::from_utf8_lossy(&raw.read_to_close(DEADLINE).await).into_owned()
}

#[test]
fn heads_that_are_too_long_are_refused() {
    run(async {
        let api = &shared().await.api;
        let line = |length: usize| format!("GET /{} HTTP/1.1\r\nhost: x\r\n", "a".repeat(length));
        let many = |count: usize| "x-a: b\r\n".repeat(count);
        let get = "GET /livez HTTP/1.1\r\nhost: x\r\n";
        for (what, request) in [
            ("a line", format!("{}\r\n", line(200_000))),
            ("a line of 70,000", format!("{}\r\n", line(70_000))),
            ("a line without an end", "GET /".to_owned() + &"a".repeat(200_000)),
            ("a header", format!("{get}x-long: {}\r\n\r\n", "a".repeat(200_000))),
            ("headers", format!("{get}{}\r\n", many(200))),
            ("headers without an end", format!("{get}{}", many(20_000))),
        ] {
            let answer = sent(api, request.as_bytes()).await;
            assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{what}: {answer}");
            assert!(answer.matches("HTTP/1.1").count() <= 1, "{what}: {answer}");
        }
        let mut raw = api.raw().await;
        let fits = format!("{get}{}x-long: {}\r\n\r\n", many(80), "a".repeat(60_000));
        raw.write(fits.as_bytes()).await.unwrap();
        assert_eq!(raw.read_response(DEADLINE).await.expect("an answer").status, 200);
    });
}

#[test]
fn what_is_odd_but_clear_is_taken() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let auth = format!("x-api-key: {}\r\ncontent-type: application/json\r\n", key.secret);
        let post = "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\n";
        let tiny = r#"{"code":"x"}"#.chars().map(|it| format!("1\r\n{it}\r\n"));
        let tiny = tiny.collect::<Vec<_>>().concat();
        for (what, request, status) in [
            ("an absolute target", format!("POST http://x/api/v1/leads HTTP/1.1\r\nhost: x\r\n{auth}content-length: 2\r\n\r\n{{}}"), 201),
            // RFC 9112, 2.2 lets a receiver take them; httparse does. Chunks are strict.
            ("bare line feeds", format!("POST /api/v1/leads HTTP/1.1\nhost: x\n{}content-length: 2\n\n{{}}", auth.replace('\r', "")), 201),
            ("an empty line before", format!("\r\n{post}{auth}content-length: 2\r\n\r\n{{}}"), 201),
            ("extensions of chunks", format!("{post}{auth}transfer-encoding: chunked\r\n\r\n2;a=b;c=\"d\"\r\n{{}}\r\n0;e\r\n\r\n"), 201),
            ("trailers", format!("{post}{auth}transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\nx-a: b\r\ncontent-length: 7\r\n\r\n"), 201),
            ("tiny chunks", format!("{post}{auth}transfer-encoding: chunked\r\n\r\n{tiny}0\r\n\r\n"), 201),
            ("HTTP/1.0", format!("POST /api/v1/leads HTTP/1.0\r\n{auth}content-length: 2\r\n\r\n{{}}"), 201),
            ("a target of *", "OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(), 404),
            ("a tunnel", "CONNECT example.org:443 HTTP/1.1\r\nhost: example.org:443\r\n\r\n".to_owned(), 404),
            ("another protocol", "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".to_owned(), 200),
        ] {
            let mut raw = shared.api.raw().await;
            raw.write(request.as_bytes()).await.unwrap();
            let answer = raw.read_response(DEADLINE).await.unwrap_or_else(|| panic!("{what}: none"));
            assert_eq!(answer.status, status, "{what}: {}", answer.text());
        }
    });
}

/// HTTP/2 is spoken inside TLS alone.
#[test]
fn http2_in_clear_is_refused() {
    run(async {
        let api = &shared().await.api;
        let answer = sent(api, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    });
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let mut raw = shared.api.raw().await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n",
            key.secret
        );
        raw.write(head.as_bytes()).await.unwrap();
        assert_eq!(raw.read_response(DEADLINE).await.expect("a word").status, 100);
        raw.write(b"{}").await.unwrap();
        assert_eq!(raw.read_response(DEADLINE).await.expect("an answer").status, 201);
    });
}

#[test]
fn a_hundred_thousand_tiny_chunks_are_one_body() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let mut raw = shared.api.raw().await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
            key.secret
        );
        let chunks = "1\r\n \r\n".repeat(100_000) + "2\r\n{}\r\n0\r\n\r\n";
        raw.write((head + &chunks).as_bytes()).await.unwrap();
        let answer = raw.read_response(DEADLINE).await.expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.text());
    });
}

/// Whether the connection is served now.
async fn is_served(raw: &mut RawConnection, patience: Duration) -> bool {
    raw.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("it is taken");
    let served = tokio::time::timeout(patience, raw.read_response(DEADLINE)).await;
    served.is_ok_and(|answer| answer.is_some_and(|answer| answer.status == 200))
}

#[test]
fn above_the_cap_a_connection_waits_until_another_one_ends() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let env = [("API_WORKERS", "1"), ("MAX_CONNECTIONS", "4")];
        let api = system.start_api_with(&env).await;
        let mut served = Vec::new();
        for _ in 0..4 {
            let mut raw = api.raw().await;
            assert!(is_served(&mut raw, DEADLINE).await);
            served.push(raw);
        }
        let mut waiting = api.raw().await;
        assert!(!is_served(&mut waiting, Duration::from_secs(1)).await, "it waits");
        let mut others = served.split_off(1);
        assert!(is_served(&mut others[0], DEADLINE).await, "those inside go on");
        drop(served);
        let answer = waiting.read_response(DEADLINE).await.expect("its turn has come");
        assert_eq!(answer.status, 200);
    });
}

/// Slow in one place does not mean slow elsewhere.
#[test]
fn slow_clients_do_not_slow_the_others() {
    run(async {
        let own = Own::start(System::new().await, &[("API_WORKERS", "1")]).await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n",
            own.key.secret
        );
        let mut slow = Vec::new();
        for part in [&head.as_bytes()[..20], head.as_bytes(), b""].iter().cycle().take(300) {
            let mut raw = own.api.raw().await;
            raw.write(part).await.unwrap();
            slow.push(raw);
        }
        let started = Instant::now();
        for _ in 0..20 {
            assert_eq!(own.api.post_lead(&own.key, "{}").await.status, 201);
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
        drop(slow);
        drop(own.consumer);
    });
}

/// A lead that fits may be sent; there is room for it however small the bound.
#[test]
fn the_largest_lead_fits_into_the_smallest_bound() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let api = system.start_api_with(&[("MAX_IN_FLIGHT_BYTES", "320KiB")]).await;
        api.wait_ready().await;
        let frame = r#"{"properties":{"a":""}}"#.len();
        let largest = format!(r#"{{"properties":{{"a":"{}"}}}}"#, "x".repeat(256 * 1024 - frame));
        let answer = api.post_lead(&key, &largest).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let larger = largest.replace(r#""a""#, r#""ab""#);
        assert_error(&api.post_lead(&key, &larger).await, 413, "payload_too_large");
    });
}
