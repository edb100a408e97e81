//! Headers of requests: credentials, idempotency keys, versions, trace contexts.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use leads_api::context::given_request_id;
use leads_api::domain::idempotency::IdempotencyKey;
use leads_api::routes::{check_accept, credentials, expected_version, idempotency_key};
use leads_traces::Place;
use uuid::Uuid;

use crate::model;

/// `data` as the header part of a request: a `name: value` a line. What is read out of it is what was
/// sent, in bounds.
pub fn headers(data: &[u8]) {
    let headers = map(data);
    let sent = |name: &str| headers.get_all(name).map(HeaderValue::as_bytes).collect::<Vec<_>>();

    let mut keys: Vec<_> = sent("authorization").into_iter().map(without_scheme).collect();
    keys.extend(sent("x-api-key"));
    keys.dedup();
    match keys.as_slice() {
        [] => assert!(credentials(&headers).is_ok_and(|key| key.is_none())),
        [one] => assert!(credentials(&headers).is_ok_and(|key| key == Some(*one))),
        _ => assert!(credentials(&headers).is_err()),
    }

    let keys = sent("idempotency-key");
    match idempotency_key(&headers) {
        Ok(None) => assert!(keys.is_empty()),
        Ok(Some(key)) => {
            assert!(keys.len() == 1 && model::is_idempotency_key(keys[0]));
            is_deterministic(&key, keys[0]);
        }
        Err(_) => assert!(keys.len() > 1 || !model::is_idempotency_key(keys[0])),
    }

    let versions = sent("if-match");
    match expected_version(&headers) {
        Ok(None) => assert!(versions.is_empty() || versions[0].trim_ascii() == b"*"),
        Ok(Some(version)) => {
            let text = versions[0].trim_ascii();
            let digits = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\""));
            let digits =
                digits.and_then(|digits| std::str::from_utf8(digits).ok()).expect("quotes");
            assert_eq!(digits.trim_start_matches('0'), version.to_string().trim_start_matches('0'));
        }
        Err(_) => assert!(!versions.is_empty()),
    }

    let allowed = |id: &&[u8]| {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".-_".contains(byte);
        (1..=64).contains(&id.len()) && id.iter().all(plain)
    };
    let id = sent("x-request-id").first().copied().filter(allowed);
    assert_eq!(given_request_id(&headers).as_deref().map(str::as_bytes), id);
    for text in sent("traceparent").into_iter().filter_map(|text| std::str::from_utf8(text).ok()) {
        if let Some(place) = Place::parse(text) {
            // Only the flags that we don't know are lost.
            assert_eq!(place.traceparent()[..53], text[..53]);
            assert!(u128::from_str_radix(&place.trace_id(), 16).is_ok_and(|id| id != 0), "{text}");
        }
    }
    let _ = check_accept(&headers, "application/json");
}

fn map(data: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // As an HTTP parser does: white space around a value is none of it.
        let parsed = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value.trim_ascii()));
        if let (Ok(name), Ok(value)) = parsed {
            headers.append(name, value);
        }
    }
    headers
}

fn without_scheme(value: &[u8]) -> &[u8] {
    let (scheme, key) = value.split_at(value.len().min(7));
    if scheme.eq_ignore_ascii_case(b"Bearer ") { key.trim_ascii() } else { value }
}

fn is_deterministic(key: &IdempotencyKey, text: &[u8]) {
    let (workspace, lead) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(key.lead_id(workspace), Uuid::new_v5(&workspace, text));
    let update = |expected| key.update_event_id(lead, expected);
    assert_eq!(update(None), Uuid::new_v5(&lead, &[b"LeadUpdated * ", text].concat()));
    assert_eq!(update(Some(3)), Uuid::new_v5(&lead, &[b"LeadUpdated 3 ", text].concat()));
    let item = key.of_item(7).lead_id(workspace);
    assert_eq!(item, Uuid::new_v5(&workspace, &[text, b":7"].concat()));
    assert_ne!(item, key.of_item(8).lead_id(workspace));
}
