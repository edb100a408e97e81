//! CloudEvents headers, both ways.

use leads_shared::Event;
use leads_shared::headers::{CloudEvent, HeaderError, Headers};

const EVENT: &str = include_str!("../fixtures/LeadCreated.v1.json");
const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn the_headers_are_those_of_the_contract() {
    let event = Event::decode(Some(EVENT.trim_end().as_bytes())).unwrap();
    let headers = Headers::of(&event, Some(TRACEPARENT));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55"),
        ("ce_source", "/workspaces/0190d5a4-0000-7000-8000-00000000000a"),
        ("ce_type", "LeadCreated"),
        ("ce_subject", "0190d5a4-7c3e-7000-8000-000000000001"),
        ("ce_time", "2026-01-31T12:00:00.123Z"),
        ("ce_dataschema", "/schemas/LeadCreated/1"),
        ("content-type", "application/json"),
        ("traceparent", TRACEPARENT),
    ];
    assert_eq!(headers.iter().collect::<Vec<_>>(), expected);
    assert_eq!(Headers::of(&event, None).iter().count(), expected.len() - 1);
}

#[test]
fn what_was_written_is_read_back_in_any_order() {
    let event = Event::decode(Some(EVENT.trim_end().as_bytes())).unwrap();
    let headers = Headers::of(&event, Some(TRACEPARENT));
    let mut records: Vec<_> = headers.iter().map(|(n, v)| (n, Some(v.as_bytes()))).collect();
    records.reverse();
    records.push(("x-other", None));
    let read = CloudEvent::read(records).unwrap();
    assert_eq!(read.id, event.event_id);
    assert_eq!(read.workspace_id, event.workspace_id);
    assert_eq!(read.lead_id, event.lead_id);
    assert_eq!(read.time, event.occurred_at);
    assert_eq!(read.event_type, event.payload.event_type().name());
    assert_eq!(read.dataschema, Some(event.payload.event_type().dataschema()));
    assert_eq!(read.traceparent, Some(TRACEPARENT));
}

#[test]
fn a_missing_or_foreign_header_is_named() {
    let event = Event::decode(Some(EVENT.trim_end().as_bytes())).unwrap();
    let headers = Headers::of(&event, None);
    let with = |name: &str, value: Option<&'static str>| {
        let changed = headers.iter().filter_map(|(n, v)| {
            if n == name {
                value.map(|v| (n, Some(v.as_bytes())))
            } else {
                Some((n, Some(v.as_bytes())))
            }
        });
        CloudEvent::read(changed).map(drop)
    };
    assert_eq!(with("ce_id", None), Err(HeaderError::Missing("ce_id")));
    assert_eq!(with("ce_id", Some("1")), Err(HeaderError::Invalid("ce_id")));
    assert_eq!(with("ce_specversion", Some("0.3")), Err(HeaderError::Invalid("ce_specversion")));
    assert_eq!(with("ce_source", Some("/other/1")), Err(HeaderError::Invalid("ce_source")));
    assert_eq!(with("ce_time", Some("yesterday")), Err(HeaderError::Invalid("ce_time")));
    assert_eq!(with("ce_dataschema", None), Ok(()));
}
