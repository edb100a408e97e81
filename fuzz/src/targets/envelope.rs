//! Records of the events topic: value, key and headers.

use leads_shared::event::{DecodeError, event_id_of};
use leads_shared::headers::{CloudEvent, HeaderError, Headers, TRACEPARENT};
use leads_shared::lead::TEXT_MAX_CHARS;
use leads_shared::{Change, Event, Payload};

/// Parts the pieces of an input; in no UTF-8 text.
const BORDER: u8 = 0xFF;

/// The pieces of `data`: the value, the key, then names and values of headers. What is read is
/// written and read back as the same, by value and by headers; what is not read says why, every time.
pub fn envelope(data: &[u8]) {
    let mut pieces = data.split(|byte| *byte == BORDER);
    let value = pieces.next();
    let key = pieces.next();
    let rest: Vec<_> = pieces.collect();
    match Event::decode(value) {
        Ok(event) => is_read_back(&event, value, key),
        Err(error) => {
            assert_ne!(error.to_string(), "");
            let again = Event::decode_record(key, value).expect_err("no event under any key");
            assert_eq!(error.to_string(), again.to_string());
            if let DecodeError::UnknownType(name) = error {
                assert!(name.chars().count() <= 64);
            }
        }
    }
    headers(&rest);
}

fn is_read_back(event: &Event<'_>, value: Option<&[u8]>, key: Option<&[u8]>) {
    assert_eq!(event_id_of(value), Some(event.event_id));
    let lead_id = event.lead_id.to_string();
    let under = |key: Option<&[u8]>| Event::decode_record(key, value).ok();
    assert_eq!(under(key).is_some(), key == Some(lead_id.as_bytes()));
    assert!(under(Some(lead_id.as_bytes())).as_ref() == Some(event));
    keeps_its_bounds(event);

    let encoded = event.encode().expect("what was read can be written");
    let again = Event::decode(Some(&encoded.value)).expect("what was written can be read");
    assert!(again == *event);
    assert!(again.encode().expect("the same") == encoded, "written the same to the byte");

    let written = Headers::of(event, None);
    let read = CloudEvent::read(written.iter().map(|(name, text)| (name, Some(text.as_bytes()))));
    let read = read.expect("headers that were written can be read");
    assert_eq!((read.id, read.lead_id), (event.event_id, event.lead_id));
    assert_eq!((read.workspace_id, read.time), (event.workspace_id, event.occurred_at));
    assert_eq!(read.event_type, event.payload.event_type().name());
}

fn keeps_its_bounds(event: &Event<'_>) {
    let (code, source) = match &event.payload {
        Payload::LeadCreated { lead } => {
            assert_eq!((lead.id, lead.workspace_id), (event.lead_id, event.workspace_id));
            (lead.code.as_ref(), lead.source.as_ref())
        }
        Payload::LeadUpdated { changes, .. } => (given(&changes.code), given(&changes.source)),
    };
    for text in code.into_iter().chain(source) {
        assert!(text.as_str().chars().count() <= TEXT_MAX_CHARS);
    }
}

fn given<T>(change: &Change<T>) -> Option<&T> {
    match change {
        Change::Set(value) => Some(value),
        Change::Keep | Change::Clear => None,
    }
}

fn headers(pieces: &[&[u8]]) {
    let headers: Vec<(&str, Option<&[u8]>)> = pieces
        .chunks(2)
        .filter_map(|pair| Some((std::str::from_utf8(pair[0]).ok()?, pair.get(1).copied())))
        .collect();
    let last = |name: &str| headers.iter().rfind(|(found, _)| *found == name);
    let text = |name: &str| std::str::from_utf8(last(name)?.1?).ok();
    match CloudEvent::read(headers.iter().copied()) {
        Ok(read) => {
            assert_eq!(text("ce_specversion"), Some("1.0"));
            assert_eq!(text("ce_id").and_then(|id| id.parse().ok()), Some(read.id));
            assert_eq!(text("ce_subject").and_then(|id| id.parse().ok()), Some(read.lead_id));
            assert_eq!(text("ce_type"), Some(read.event_type));
            assert_eq!(
                (text("ce_dataschema"), text(TRACEPARENT)),
                (read.dataschema, read.traceparent)
            );
        }
        Err(HeaderError::Missing(name)) => assert_eq!(text(name), None),
        Err(HeaderError::Invalid(name)) => assert!(text(name).is_some()),
    }
}
