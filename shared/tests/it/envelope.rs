//! Golden fixtures: what was ever written is read for ever, and is written the same to the byte.

use leads_shared::event::{DecodeError, event_id_of};
use leads_shared::{Change, Event, Lead, Payload};
use uuid::Uuid;

/// Never edited: a new version gets a file beside them.
const FIXTURES: [(&str, &str); 2] = [
    ("LeadCreated.v1", include_str!("../fixtures/LeadCreated.v1.json")),
    ("LeadUpdated.v1", include_str!("../fixtures/LeadUpdated.v1.json")),
];

fn fixture(name: &str) -> &'static str {
    FIXTURES.iter().find(|(known, _)| *known == name).expect("a fixture").1.trim_end()
}

#[test]
fn fixtures_are_read_and_written_back_to_the_byte() {
    for (name, text) in FIXTURES {
        let text = text.trim_end();
        let event = Event::decode(Some(text.as_bytes())).unwrap_or_else(|e| panic!("{name}: {e}"));
        let encoded = event.encode().unwrap();
        assert_eq!(std::str::from_utf8(&encoded.value).unwrap(), text, "{name}");
    }
}

#[test]
fn the_body_of_an_encoded_event_is_the_lead() {
    let event = Event::decode(Some(fixture("LeadCreated.v1").as_bytes())).unwrap();
    let encoded = event.encode().unwrap();
    let lead: Lead<'_> = serde_json::from_slice(&encoded.value[encoded.body]).unwrap();
    assert_eq!(Payload::LeadCreated { lead }, event.payload);
}

#[test]
fn a_fixture_means_what_it_says() {
    let event = Event::decode(Some(fixture("LeadUpdated.v1").as_bytes())).unwrap();
    let Payload::LeadUpdated { changes, expected_version } = event.payload else {
        panic!("another type")
    };
    assert_eq!(expected_version, Some(1));
    assert_eq!(changes.visitor_id, Change::Clear);
    assert_eq!(changes.source, Change::Keep);
    assert_eq!(changes.code, Change::Set("SPRING-27".into()));
}

#[test]
fn unknown_fields_are_ignored() {
    let text = fixture("LeadCreated.v1")
        .replacen("{\"event_id\"", "{\"new\":{\"a\":[1]},\"event_id\"", 1)
        .replacen("\"lead\":{", "\"lead\":{\"newer\":1,", 1);
    let event = Event::decode(Some(text.as_bytes())).unwrap();
    assert_eq!(event, Event::decode(Some(fixture("LeadCreated.v1").as_bytes())).unwrap());
}

#[test]
fn what_cannot_be_read_says_why() {
    let text = fixture("LeadCreated.v1");
    let decode = |text: &str| Event::decode(Some(text.as_bytes())).map(drop).unwrap_err();
    assert!(matches!(Event::decode(None), Err(DecodeError::Tombstone)));
    assert!(matches!(decode("{"), DecodeError::Malformed(_)));
    assert!(matches!(
        decode(&text.replace("\"LeadCreated\"", "\"LeadMerged\"")),
        DecodeError::UnknownType(name) if name == "LeadMerged"
    ));
    assert!(matches!(
        decode(&text.replace("\"schema_version\":1", "\"schema_version\":2")),
        DecodeError::UnknownVersion { version: 2, newest: 1, .. }
    ));
    let other = Uuid::from_u128(1).to_string();
    assert!(matches!(
        decode(&text.replacen("0190d5a4-7c3e-7000-8000-000000000001", &other, 1)),
        DecodeError::Inconsistent(_)
    ));
    let long = text.replace("SPRING-26", &"é".repeat(256));
    assert!(matches!(decode(&long), DecodeError::Inconsistent(_)));
    decode(&text.replace("\"lead\":{", "\"leda\":{"));
}

#[test]
fn a_record_belongs_under_its_lead_id() {
    let value = fixture("LeadCreated.v1").as_bytes();
    let key = b"0190d5a4-7c3e-7000-8000-000000000001";
    assert!(Event::decode_record(Some(key), Some(value)).is_ok());
    for wrong in [None, Some(&b"x"[..]), Some(b"0190D5A4-7C3E-7000-8000-000000000001")] {
        assert!(Event::decode_record(wrong, Some(value)).is_err());
    }
}

#[test]
fn the_event_id_is_found_whatever_the_type_and_version() {
    let text = fixture("LeadCreated.v1")
        .replace("\"LeadCreated\"", "\"LeadMerged\"")
        .replace("\"schema_version\":1", "\"schema_version\":99");
    let id = Uuid::parse_str("0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55").unwrap();
    assert_eq!(event_id_of(Some(text.as_bytes())), Some(id));
    assert_eq!(event_id_of(Some(b"junk")), None);
    assert_eq!(event_id_of(None), None);
}
