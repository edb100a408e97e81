//! Bodies: POST, PATCH, an item of a batch.

use leads_api::domain::{
    FieldCode, FieldError, MAX_LEAD_BYTES, NewLead, Rejection, parse_changes, parse_item,
};
use leads_api::error::ApiError;
use leads_shared::{Changes, Event, Json, Lead, Payload, Text, Timestamp};
use serde_json::Value;
use uuid::Uuid;

use crate::model::{self, Kind, Verdict};

const LEAD: Uuid = Uuid::from_u128(0x0190_d5a4_7c3e_7000_8000_0000_0000_0001);
const WORKSPACE: Uuid = Uuid::from_u128(0x0190_d5a4_0000_7000_8000_0000_0000_000a);

/// The body of a POST: taken exactly when the contract takes it, and then it comes out of the log as
/// it went in; refused with words that fit the body.
pub fn create(data: &[u8]) {
    let Some(body) = of_a_size_that_is_read(data) else { return };
    let expected = match model::verdict(body, &model::fields(None)) {
        // Every field is optional.
        Verdict::Empty => Verdict::Taken,
        other => other,
    };
    match NewLead::parse(body) {
        Ok(lead) => {
            assert_eq!(expected, Verdict::Taken);
            survives(&lead);
        }
        Err(rejection) => is_a_good_answer(body, rejection, expected),
    }
}

/// An item of a batch: as [`create`], with its own idempotency key.
pub fn item(data: &[u8]) {
    let Some(body) = of_a_size_that_is_read(data) else { return };
    let fields = model::fields(Some(("idempotency_key", Kind::IdempotencyKey)));
    let expected = match model::verdict(body, &fields) {
        Verdict::Empty => Verdict::Taken,
        other => other,
    };
    match parse_item(body) {
        Ok((lead, key)) => {
            assert_eq!(expected, Verdict::Taken);
            if key.is_none() {
                // Without a key it is a body like any other, or one that says `null`.
                assert!(NewLead::parse(body).is_ok_and(|same| same == lead) || has_null_key(body));
            }
            survives(&lead);
        }
        Err(rejection) => is_a_good_answer(body, rejection, expected),
    }
}

/// The body of a PATCH: as [`create`], and at least one field.
pub fn changes(data: &[u8]) {
    let Some(body) = of_a_size_that_is_read(data) else { return };
    let expected = model::verdict(body, &model::fields(Some(("summary", Kind::Object))));
    match parse_changes(body) {
        Ok(changes) => {
            assert_eq!(expected, Verdict::Taken);
            survive(changes);
        }
        Err(rejection) => is_a_good_answer(body, rejection, expected),
    }
}

/// Larger ones are refused unread.
fn of_a_size_that_is_read(data: &[u8]) -> Option<&[u8]> {
    (data.len() <= MAX_LEAD_BYTES).then_some(data)
}

fn has_null_key(body: &[u8]) -> bool {
    serde_json::from_slice::<std::collections::HashMap<String, &serde_json::value::RawValue>>(body)
        .is_ok_and(|members| members.contains_key("idempotency_key"))
}

fn now() -> Timestamp {
    Timestamp::from_unix_millis(1_769_860_800_123).expect("a time")
}

/// What was taken goes through the log unchanged, and would be taken again.
fn survives(new_lead: &NewLead<'_>) {
    let lead = new_lead.clone().into_lead(LEAD, WORKSPACE, now());
    let again = body_of(&lead);
    let parsed = NewLead::parse(again.as_bytes()).expect("what was taken is taken again");
    assert!(parsed == *new_lead);
    assert_eq!(parsed.digest(), new_lead.digest());
    through_the_log(Payload::LeadCreated { lead });
}

fn survive(changes: Changes<'_>) {
    let again = serde_json::to_string(&changes).expect("JSON");
    assert!(parse_changes(again.as_bytes()).expect("what was taken is taken again") == changes);
    through_the_log(Payload::LeadUpdated { changes, expected_version: Some(u64::MAX) });
}

fn through_the_log(payload: Payload<'_>) {
    let event = Event {
        event_id: WORKSPACE,
        occurred_at: now(),
        workspace_id: WORKSPACE,
        lead_id: LEAD,
        payload,
    };
    let encoded = event.encode().expect("what was taken can be written");
    let key = LEAD.to_string();
    let read = Event::decode_record(Some(key.as_bytes()), Some(&encoded.value));
    assert!(read.expect("what was written can be read") == event);
    let body = &encoded.value[encoded.body];
    match &event.payload {
        Payload::LeadCreated { lead } => {
            assert!(serde_json::from_slice::<Lead<'_>>(body).expect("the lead") == *lead);
        }
        Payload::LeadUpdated { changes, .. } => {
            assert!(serde_json::from_slice::<Changes<'_>>(body).expect("the changes") == *changes);
        }
    }
}

/// A POST of what a lead says.
fn body_of(lead: &Lead<'_>) -> String {
    let uuid = |id: &Option<Uuid>| id.map(|id| format!("\"{}\"", id.to_string().to_uppercase()));
    let text = |text: &Option<Text<'_>>| {
        text.as_ref().map(|text| serde_json::to_string(text.as_str()).expect("JSON"))
    };
    let json = |json: &Option<Json<'_>>| json.as_ref().map(|json| json.text().to_owned());
    let members = [
        ("location", json(&lead.location)),
        ("properties", json(&lead.properties)),
        ("source", text(&lead.source)),
        ("code", text(&lead.code)),
        ("company_id", uuid(&lead.company_id)),
        ("session_id", uuid(&lead.session_id)),
        ("identity_id", uuid(&lead.identity_id)),
        ("visitor_id", uuid(&lead.visitor_id)),
    ];
    let members: Vec<_> = members
        .into_iter()
        .map(|(name, value)| format!("\"{name}\" :\t{}", value.as_deref().unwrap_or("null")))
        .collect();
    format!(" {{{}}}\n", members.join(",\r\n"))
}

/// What is refused is refused for the right reason, at a place in the body, and as an answer that is
/// JSON.
fn is_a_good_answer(body: &[u8], rejection: Rejection, expected: Verdict) {
    let found = match &rejection {
        Rejection::Malformed { message, line, column } => {
            is_in(body, *line, *column);
            assert!((10..200).contains(&message.len()), "{message}");
            Verdict::Malformed
        }
        Rejection::Invalid(errors) => {
            assert!(!errors.is_empty());
            for error in errors {
                is_a_good_error(body, error);
            }
            Verdict::Invalid
        }
        Rejection::EmptyUpdate => Verdict::Empty,
    };
    assert_eq!(found, expected);
    let answer = serde_json::to_vec(&ApiError::from(rejection).body()).expect("JSON");
    assert!(answer.len() < 32 * 1024, "an answer of {} bytes", answer.len());
    assert!(serde_json::from_slice::<Value>(&answer).is_ok_and(|answer| answer.is_object()));
}

/// Lines from 1; the column behind the last byte of a line is where it ends too early.
pub(super) fn is_in(body: &[u8], line: usize, column: usize) {
    let lines: Vec<_> = body.split(|byte| *byte == b'\n').collect();
    assert!((1..=lines.len()).contains(&line), "line {line} of {}", lines.len());
    let length = lines[line - 1].len();
    assert!(column <= length + 1, "column {column} of {length} in line {line}");
}

fn is_a_good_error(body: &[u8], error: &FieldError) {
    let FieldError { field, code, message } = error;
    assert!(field.chars().count() <= 64);
    assert!((5..300).contains(&message.len()), "{message}");
    if *code == FieldCode::UnknownField {
        return;
    }
    if let Some((_, at)) = message.split_once("(byte ") {
        let at = at.strip_suffix(" of the value)").expect("the place is the end of the message");
        assert!(at.parse::<usize>().is_ok_and(|at| at < body.len()), "{message}");
    }
}
