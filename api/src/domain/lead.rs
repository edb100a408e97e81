//! Bodies of POST and PATCH, turned into values that are valid because they exist.

use sha2::{Digest, Sha256};
use uuid::Uuid;

use leads_shared::{Changes, Json, Lead, Text, Timestamp};

use super::Rejection;
use super::canonical::canonical;
use super::fields::{RawFields, idempotency_key, object, text, uuid};
use super::idempotency::IdempotencyKey;

/// The fields of a POST body.
const CREATE_FIELDS: [&str; 8] = [
    "visitor_id",
    "identity_id",
    "session_id",
    "company_id",
    "code",
    "source",
    "properties",
    "location",
];

/// The fields of an item of a batch.
const ITEM_FIELDS: [&str; 9] = [
    "visitor_id",
    "identity_id",
    "session_id",
    "company_id",
    "code",
    "source",
    "properties",
    "location",
    "idempotency_key",
];

/// The fields of a PATCH body.
const UPDATE_FIELDS: [&str; 9] = [
    "visitor_id",
    "identity_id",
    "session_id",
    "company_id",
    "code",
    "source",
    "properties",
    "location",
    "summary",
];

/// What a client sent to create a lead. All fields are optional and valid.
#[derive(Debug, Clone, PartialEq)]
pub struct NewLead<'a> {
    visitor_id: Option<Uuid>,
    identity_id: Option<Uuid>,
    session_id: Option<Uuid>,
    company_id: Option<Uuid>,
    code: Option<Text<'a>>,
    source: Option<Text<'a>>,
    properties: Option<Json<'a>>,
    location: Option<Json<'a>>,
}

impl<'a> NewLead<'a> {
    /// Reads the body of a POST.
    ///
    /// # Errors
    /// Everything wrong with it, at once.
    pub fn parse(body: &'a [u8]) -> Result<Self, Rejection> {
        let mut raw = RawFields::parse(body, &CREATE_FIELDS, |name| match name {
            "idempotency_key" => Some("in a batch only; send the header Idempotency-Key"),
            _ => not_on_creation(name),
        })?;
        let lead = Self::take(&mut raw);
        if raw.errors.is_empty() { Ok(lead) } else { Err(Rejection::Invalid(raw.errors)) }
    }

    /// The first eight fields.
    fn take<const N: usize>(raw: &mut RawFields<'a, N>) -> Self {
        Self {
            visitor_id: raw.take(0, uuid).into_option(),
            identity_id: raw.take(1, uuid).into_option(),
            session_id: raw.take(2, uuid).into_option(),
            company_id: raw.take(3, uuid).into_option(),
            code: raw.take(4, text).into_option(),
            source: raw.take(5, text).into_option(),
            properties: raw.take(6, object).into_option(),
            location: raw.take(7, object).into_option(),
        }
    }

    /// A digest of the content: the same for two bodies that say the same, field by field.
    pub fn digest(&self) -> [u8; 32] {
        let Self {
            visitor_id,
            identity_id,
            session_id,
            company_id,
            code,
            source,
            properties,
            location,
        } = self;
        let mut digest = Sha256::new();
        // Each with its length, so that no two contents run together to the same bytes.
        let mut add = |value: Option<&[u8]>| {
            digest.update(value.map_or(u64::MAX, |value| value.len() as u64).to_be_bytes());
            digest.update(value.unwrap_or_default());
        };
        for id in [visitor_id, identity_id, session_id, company_id] {
            add(id.as_ref().map(|id| id.as_bytes().as_slice()));
        }
        for text in [code, source] {
            add(text.as_ref().map(|text| text.as_str().as_bytes()));
        }
        for json in [properties, location] {
            add(json.as_ref().map(|json| canonical(json.text())).as_deref());
        }
        digest.finalize().into()
    }

    /// The lead as it is when it is taken in.
    pub fn into_lead(self, id: Uuid, workspace_id: Uuid, now: Timestamp) -> Lead<'a> {
        let Self {
            visitor_id,
            identity_id,
            session_id,
            company_id,
            code,
            source,
            properties,
            location,
        } = self;
        Lead {
            id,
            visitor_id,
            workspace_id,
            code,
            source,
            created_at: now,
            updated_at: now,
            properties,
            location,
            identity_id,
            session_id,
            summary: None,
            company_id,
        }
    }
}

/// Reads an item of a batch: a lead, and the idempotency key beside it.
///
/// # Errors
/// Everything wrong with it, at once.
pub fn parse_item(item: &[u8]) -> Result<(NewLead<'_>, Option<IdempotencyKey>), Rejection> {
    let mut raw = RawFields::parse(item, &ITEM_FIELDS, not_on_creation)?;
    let lead = NewLead::take(&mut raw);
    let key = raw.take(8, idempotency_key).into_option();
    if raw.errors.is_empty() { Ok((lead, key)) } else { Err(Rejection::Invalid(raw.errors)) }
}

/// Reads the body of a PATCH.
///
/// # Errors
/// Everything wrong with it, at once; a body that names no field is [`Rejection::EmptyUpdate`].
pub fn parse_changes(body: &[u8]) -> Result<Changes<'_>, Rejection> {
    let mut raw = RawFields::parse(body, &UPDATE_FIELDS, set_by_the_service)?;
    if raw.errors.is_empty() && raw.is_empty() {
        return Err(Rejection::EmptyUpdate);
    }
    let changes = Changes {
        visitor_id: raw.take(0, uuid),
        identity_id: raw.take(1, uuid),
        session_id: raw.take(2, uuid),
        company_id: raw.take(3, uuid),
        code: raw.take(4, text),
        source: raw.take(5, text),
        properties: raw.take(6, object),
        location: raw.take(7, object),
        summary: raw.take(8, object),
    };
    if raw.errors.is_empty() { Ok(changes) } else { Err(Rejection::Invalid(raw.errors)) }
}

fn not_on_creation(name: &str) -> Option<&'static str> {
    match name {
        "summary" => Some("summary can't be set on creation; PATCH the lead to set it"),
        _ => set_by_the_service(name),
    }
}

fn set_by_the_service(name: &str) -> Option<&'static str> {
    match name {
        "id" => Some("the id is given by the service; send an Idempotency-Key header to fix it"),
        "workspace_id" => Some("the workspace is that of the API key"),
        "created_at" | "updated_at" => Some("times are set by the service"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use leads_shared::Change;

    use super::*;
    use crate::domain::FieldCode;

    fn errors(body: &str) -> Vec<(String, FieldCode)> {
        match NewLead::parse(body.as_bytes()) {
            Err(Rejection::Invalid(errors)) => {
                errors.into_iter().map(|e| (e.field.into_owned(), e.code)).collect()
            }
            other => panic!("expected field errors, got {other:?}"),
        }
    }

    #[test]
    fn everything_is_optional_and_null_is_absent() {
        let empty = NewLead::parse(b"{}").unwrap();
        let nulls = CREATE_FIELDS.map(|name| format!("\"{name}\":null")).join(",");
        let nulls = format!("{{{nulls}}}");
        assert_eq!(NewLead::parse(nulls.as_bytes()).unwrap(), empty);
    }

    #[test]
    fn all_bad_fields_are_named_at_once() {
        use FieldCode::{
            ControlCharacter, DuplicateField, InvalidType, InvalidUuid, LoneSurrogate,
            NestingTooDeep, TooLong, TooShort, UnknownField,
        };
        let deep = "[".repeat(63) + &"]".repeat(63);
        let body = format!(
            r#"{{"visitor_id":"x","identity_id":1,"session_id":"{{0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55}}",
                "company_id":null,"company_id":null,"code":"","source":"{}","properties":[],
                "location":{{"a":{deep}}},"nope":1,"summary":{{}}}}"#,
            "x".repeat(256),
        );
        let expected = [
            ("company_id", DuplicateField),
            ("nope", UnknownField),
            ("summary", UnknownField),
            ("visitor_id", InvalidUuid),
            ("identity_id", InvalidType),
            ("session_id", InvalidUuid),
            ("code", TooShort),
            ("source", TooLong),
            ("properties", InvalidType),
            ("location", NestingTooDeep),
        ];
        assert_eq!(errors(&body), expected.map(|(field, code)| (field.to_owned(), code)));
        assert_eq!(errors(r#"{"code":"a\u0000"}"#), [("code".to_owned(), ControlCharacter)]);
        assert_eq!(errors(r#"{"code":"\ud800"}"#), [("code".to_owned(), LoneSurrogate)]);
    }

    #[test]
    fn deepest_accepted_is_64_with_the_body() {
        let nested = "[".repeat(62) + &"]".repeat(62);
        NewLead::parse(format!(r#"{{"properties":{{"a":{nested}}}}}"#).as_bytes()).unwrap();
    }

    #[test]
    fn what_is_no_object_is_malformed_with_its_place() {
        for (body, line, column) in [
            (&b""[..], 1, 0),
            (b"null", 1, 4),
            (b"[]", 1, 0),
            (b"{} x", 1, 4),
            (b"{\n\"code\":}", 2, 8),
            (b"\xEF\xBB\xBF{}", 1, 1),
            (b"{\n\"a\":\"\xFF\"}", 2, 6),
        ] {
            match NewLead::parse(body) {
                Err(Rejection::Malformed { line: l, column: c, message }) => {
                    assert_eq!((l, c), (line, column), "{body:?}: {message}");
                }
                other => panic!("{body:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn an_update_needs_a_field() {
        assert_eq!(parse_changes(b"{}"), Err(Rejection::EmptyUpdate));
        let changes = parse_changes(br#"{"summary":{"a":1},"code":null}"#).unwrap();
        assert_eq!(changes.code, Change::Clear);
        assert!(matches!(changes.summary, Change::Set(_)));
        assert!(changes.source.is_keep());
    }

    #[test]
    fn numbers_are_kept_digit_for_digit() {
        let body = br#"{"properties":{"n":12345678901234567890.10,"e":1E2}}"#;
        let lead = NewLead::parse(body).unwrap();
        assert_eq!(lead.properties.unwrap().text(), r#"{"n":12345678901234567890.10,"e":1E2}"#);
    }
}
