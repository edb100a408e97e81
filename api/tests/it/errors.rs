//! Every error is JSON of one shape with a stable code, and the checks come in a fixed order.

use leads_testkit::KeySpec;
use serde_json::json;
use uuid::Uuid;

use crate::shared::{assert_error, assert_field_errors, call, post_with, run, shared, unlimited};

const LEADS: &str = "/api/v1/leads";

#[test]
fn all_bad_fields_are_named_at_once() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body = r#"{"visitor_id":"x","identity_id":1,"company_id":null,"company_id":null,"code":"","source":"\ud800","properties":[],"location":{"a":"\u0000"},"nope":1,"summary":{}}"#;
        let answer = shared.api.post_lead(&key, body).await;
        let body = assert_error(&answer, 400, "validation_failed");
        insta::assert_json_snapshot!(body, @r#"
        {
          "error": "validation_failed",
          "message": "not valid: company_id, nope, summary, visitor_id, identity_id, code, source, properties, location; details.fields says why",
          "details": {
            "fields": [
              {
                "field": "company_id",
                "code": "duplicate_field",
                "message": "company_id is given more than once; send it once"
              },
              {
                "field": "nope",
                "code": "unknown_field",
                "message": "unknown field; known are visitor_id, identity_id, session_id, company_id, code, source, properties, location. Free data belongs into properties"
              },
              {
                "field": "summary",
                "code": "unknown_field",
                "message": "summary can't be set on creation; PATCH the lead to set it"
              },
              {
                "field": "visitor_id",
                "code": "invalid_uuid",
                "message": "must be a hyphenated UUID, such as 0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55"
              },
              {
                "field": "identity_id",
                "code": "invalid_type",
                "message": "must be a string or null"
              },
              {
                "field": "code",
                "code": "too_short",
                "message": "must have at least 1 character; leave the field out or send null for none"
              },
              {
                "field": "source",
                "code": "lone_surrogate",
                "message": "holds half of a UTF-16 surrogate pair; send both halves or the character"
              },
              {
                "field": "properties",
                "code": "invalid_type",
                "message": "must be a JSON object or null"
              },
              {
                "field": "location",
                "code": "nul_character",
                "message": "holds \\u0000, which can't be stored; leave it out (byte 6 of the value)"
              }
            ]
          }
        }
        "#);
    });
}

#[test]
fn texts_and_ids_outside_the_contract_are_refused() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let long = format!(r#"{{"code":"{}"}}"#, "é".repeat(256));
        for (body, field, code) in [
            (long.as_str(), "code", "too_long"),
            (r#"{"source":"a\u0007b"}"#, "source", "control_character"),
            (r#"{"source":"a\u0000b"}"#, "source", "control_character"),
            (r#"{"source":"\u0085"}"#, "source", "control_character"),
            (r#"{"code":7}"#, "code", "invalid_type"),
            (r#"{"visitor_id":""}"#, "visitor_id", "invalid_uuid"),
            (r#"{"visitor_id":"0190d5a47c3e7c1a9c391f0a8d2b6e55"}"#, "visitor_id", "invalid_uuid"),
            (
                r#"{"session_id":"{0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55}"}"#,
                "session_id",
                "invalid_uuid",
            ),
            (r#"{"location":"x"}"#, "location", "invalid_type"),
            (r#"{"id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55"}"#, "id", "unknown_field"),
            (r#"{"Code":"x"}"#, "Code", "unknown_field"),
        ] {
            assert_field_errors(&shared.api.post_lead(&key, body).await, &[(field, code)]);
        }
    });
}

#[test]
fn unknown_routes_are_404_and_have_no_trailing_slash_twin() {
    run(async {
        let api = &shared().await.api;
        for path in
            ["/", "/api", "/api/v1", "/api/v1/lead", "/api/v1/leads/", "/livez/", "/api/v2/leads"]
        {
            for method in ["GET", "POST", "OPTIONS", "DELETE"] {
                assert_error(&call(api, method, path, &[]).await, 404, "route_not_found");
            }
        }
    });
}

#[test]
fn other_methods_are_405_with_allow() {
    run(async {
        let api = &shared().await.api;
        let lead = format!("{LEADS}/{}", Uuid::new_v4());
        for (path, allow) in [
            (LEADS, "GET, HEAD, POST"),
            (lead.as_str(), "GET, HEAD, PATCH"),
            ("/livez", "GET, HEAD"),
            ("/readyz", "GET, HEAD"),
            ("/openapi.json", "GET, HEAD"),
            ("/docs", "GET, HEAD"),
        ] {
            for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "BREW", "POST", "PATCH"] {
                if allow.contains(method) {
                    continue;
                }
                let answer = call(api, method, path, &[]).await;
                assert_error(&answer, 405, "method_not_allowed");
                assert_eq!(answer.header("allow"), Some(allow), "{method} {path}");
            }
        }
    });
}

#[test]
fn a_path_id_that_is_no_uuid_is_a_lead_that_is_not_there() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let braces = "%7B0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55%7D";
        for id in ["x", "1", "0190d5a47c3e7c1a9c391f0a8d2b6e55", braces, "%FF", "%00", "..%2F.."] {
            let answer = shared.api.get_lead(&key, id).await;
            assert_error(&answer, 404, "lead_not_found");
            let answer = shared.api.patch_lead(&key, id, r#"{"code":"x"}"#).await;
            assert_error(&answer, 404, "lead_not_found");
        }
    });
}

#[test]
fn without_a_known_key_it_is_401() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let lead = format!("{LEADS}/{}", Uuid::new_v4());
        let basic = format!("Basic {}", key.secret);
        let cut = format!("Bearer {}", &key.secret[..key.secret.len() - 1]);
        for (method, path) in [("POST", LEADS), ("GET", LEADS), ("GET", &lead), ("PATCH", &lead)] {
            let answer = call(&shared.api, method, path, &[]).await;
            assert_error(&answer, 401, "missing_api_key");
            assert_eq!(answer.header("www-authenticate"), Some(r#"Bearer realm="leads""#));
            for sent in ["Bearer lk_prod_nonsense", "Bearer ", &basic, &cut] {
                let answer = call(&shared.api, method, path, &[("authorization", sent)]).await;
                assert_error(&answer, 401, "invalid_api_key");
                assert!(answer.header("www-authenticate").is_some());
                assert_eq!(answer.header("x-workspace-id"), None);
            }
        }
    });
}

#[test]
fn either_header_takes_the_key_and_two_keys_are_ambiguous() {
    run(async {
        let shared = shared().await;
        let (key, other) = tokio::join!(shared.key(), shared.key());
        let get = async |headers: &[(&str, &str)]| call(&shared.api, "GET", LEADS, headers).await;
        let bearer = format!("Bearer {}", key.secret);
        let lower = format!("bearer  {}", key.secret);
        let (key, other) = (key.secret.as_str(), other.secret.as_str());
        for headers in [
            &[("authorization", bearer.as_str())][..],
            &[("authorization", &lower)],
            &[("x-api-key", key)],
            &[("authorization", &bearer), ("x-api-key", key)],
        ] {
            assert_eq!(get(headers).await.status, 200);
        }
        for headers in [
            [("authorization", bearer.as_str()), ("x-api-key", other)],
            [("x-api-key", other), ("authorization", &bearer)],
            [("x-api-key", key), ("x-api-key", other)],
        ] {
            assert_error(&get(&headers).await, 400, "ambiguous_credentials");
        }
    });
}

#[test]
fn accept_that_excludes_json_is_406() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        for accept in ["text/html", "application/json;q=0", "application/xml, text/*", "*/*;q=0"] {
            let answer = post_with(&shared.api, &key, "{}", &[("accept", accept)]).await;
            assert_error(&answer, 406, "not_acceptable");
        }
        for accept in
            ["*/*", "application/*", "text/html, application/json;q=0.1", "Application/JSON"]
        {
            let answer = post_with(&shared.api, &key, "{}", &[("accept", accept)]).await;
            assert_eq!(answer.status, 201, "{accept}");
        }
    });
}

#[test]
fn a_content_type_other_than_json_is_415_with_a_hint() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let missing = shared.api.request(leads_testkit::Method::POST, LEADS);
        let missing = shared.api.send(missing.bearer_auth(&key.secret).body("{}")).await;
        let body = assert_error(&missing, 415, "unsupported_media_type");
        assert!(body["message"].as_str().unwrap().contains("curl"), "{body}");
        for content_type in
            ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""]
        {
            let answer =
                post_with(&shared.api, &key, "{}", &[("content-type", content_type)]).await;
            assert_error(&answer, 415, "unsupported_media_type");
        }
        for content_type in ["application/json; charset=utf-8", "Application/JSON"] {
            let answer =
                post_with(&shared.api, &key, "{}", &[("content-type", content_type)]).await;
            assert_eq!(answer.status, 201, "{content_type}");
        }
    });
}

#[test]
fn a_bad_idempotency_key_is_400() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let long = "x".repeat(256);
        for bad in ["", "a b", "é", &long] {
            let answer = post_with(&shared.api, &key, "{}", &[("idempotency-key", bad)]).await;
            assert_error(&answer, 400, "invalid_idempotency_key");
        }
        let twice = [("idempotency-key", "a"), ("idempotency-key", "b")];
        let answer = post_with(&shared.api, &key, "{}", &twice).await;
        assert_error(&answer, 400, "invalid_idempotency_key");
        let longest = "x".repeat(255);
        assert_eq!(shared.api.post_lead_once(&key, &longest, "{}").await.status, 201);
    });
}

/// Route → method → size → key → scope → rate → content type → body: each request here is wrong in
/// two ways, and the earlier one is told.
#[test]
fn checks_come_in_their_order() {
    run(async {
        let shared = shared().await;
        let read_only = KeySpec { scopes: Some("leads:read".to_owned()), ..unlimited() };
        let exhausted = KeySpec { rate_limit: Some(1), ..KeySpec::default() };
        let both = KeySpec { scopes: read_only.scopes.clone(), ..exhausted.clone() };
        let (key, read_only, exhausted, both) = tokio::join!(
            shared.key(),
            shared.key_like(read_only),
            shared.key_like(exhausted),
            shared.key_like(both),
        );
        let large = vec![b' '; 256 * 1024 + 1];
        let api = &shared.api;

        let answer = call(api, "POST", "/nowhere", &[]).await;
        assert_error(&answer, 404, "route_not_found");
        let request = api.request(leads_testkit::Method::PUT, LEADS).body(large.clone());
        assert_error(&api.send(request).await, 405, "method_not_allowed");
        let request = api.request(leads_testkit::Method::POST, LEADS).body(large);
        assert_error(&api.send(request).await, 413, "payload_too_large");
        let answer = call(api, "POST", LEADS, &[("content-type", "text/plain")]).await;
        assert_error(&answer, 401, "missing_api_key");

        let text = [("content-type", "text/plain")];
        // `both` has spent its one request of the minute, or a new minute has begun: 403 either way.
        api.get(&both, LEADS).await;
        let answer = post_with(api, &both, "{", &text).await;
        let body = assert_error(&answer, 403, "insufficient_scope");
        assert_eq!(body["details"], json!({ "required_scope": "leads:write" }));
        let answer = post_with(api, &read_only, "{", &text).await;
        assert_error(&answer, 403, "insufficient_scope");
        // Of two requests in a row one is the second of its minute, or the third is.
        let mut last = post_with(api, &exhausted, "{", &text).await;
        for _ in 0..2 {
            if last.status != 429 {
                last = post_with(api, &exhausted, "{", &text).await;
            }
        }
        assert_error(&last, 429, "rate_limit_exceeded");
        assert_error(&post_with(api, &key, "{", &text).await, 415, "unsupported_media_type");
        assert_error(&post_with(api, &key, "{", &[]).await, 400, "malformed_json");
    });
}
