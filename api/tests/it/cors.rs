//! Browsers may call only from the origins that were named; from none by default.

use leads_testkit::System;

use crate::shared::{assert_error, call, run, shared};

const ALLOWED: &str = "https://a.example";
const PREFLIGHT: [(&str, &str); 2] = [
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization,content-type"),
];

#[test]
fn it_is_off_by_default() {
    run(async {
        let shared = shared().await;
        let preflight = [&[("origin", ALLOWED)][..], &PREFLIGHT].concat();
        let answer = call(&shared.api, "OPTIONS", "/api/v1/leads", &preflight).await;
        assert_error(&answer, 405, "method_not_allowed");
        let get = call(&shared.api, "GET", "/livez", &[("origin", ALLOWED)]).await;
        for answer in [answer, get] {
            let names =
                answer.headers.keys().map(leads_testkit::reqwest::header::HeaderName::as_str);
            assert!(names.into_iter().all(|name| !name.starts_with("access-control")));
        }
    });
}

#[test]
fn a_named_origin_may_and_another_may_not() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let api =
            system.start_api_with(&[("CORS_ORIGINS", "https://a.example,https://b.example")]).await;
        let preflight = |origin| [&[("origin", origin)][..], &PREFLIGHT].concat();
        for origin in [ALLOWED, "https://b.example"] {
            let answer = call(&api, "OPTIONS", "/api/v1/leads", &preflight(origin)).await;
            assert!((200..300).contains(&answer.status), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            let methods = answer.header("access-control-allow-methods").expect("methods");
            assert!(
                ["GET", "POST", "PATCH"].iter().all(|method| methods.contains(method)),
                "{methods}"
            );
            let headers = answer.header("access-control-allow-headers").expect("headers");
            assert!(headers.to_ascii_lowercase().contains("authorization"), "{headers}");
            assert!(answer.header("x-request-id").is_some(), "every answer has one");

            let answer = call(&api, "GET", "/livez", &[("origin", origin)]).await;
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
            let exposed = answer.header("access-control-expose-headers").expect("exposed");
            for name in [
                "location",
                "etag",
                "x-lead-position",
                "x-request-id",
                "retry-after",
                "x-ratelimit-limit",
            ] {
                assert!(exposed.to_ascii_lowercase().contains(name), "{name} of {exposed}");
            }
        }
        for origin in ["https://c.example", "http://a.example", "https://a.example.evil", "null"] {
            let answer = call(&api, "OPTIONS", "/api/v1/leads", &preflight(origin)).await;
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
            assert_error(&answer, 400, "cors_refused");
        }
        for refused in [("access-control-request-method", "DELETE"), ("x-nothing", "")] {
            let asked = [("origin", ALLOWED), ("access-control-request-headers", "x-a"), refused];
            let answer = call(&api, "OPTIONS", "/api/v1/leads", &asked).await;
            if refused.0 == "x-nothing" {
                // Without a method it is no preflight.
                assert_error(&answer, 405, "method_not_allowed");
            } else {
                assert_error(&answer, 400, "cors_refused");
            }
        }
        // Not a browser's business: a call without an origin is answered as ever.
        assert_eq!(call(&api, "GET", "/livez", &[]).await.status, 200);
        assert_error(&call(&api, "OPTIONS", "/api/v1/leads", &[]).await, 405, "method_not_allowed");
    });
}
