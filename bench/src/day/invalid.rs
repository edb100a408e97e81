//! The requests that have to be refused, and as what.

use super::text::{Random, object, uuid};

/// A kind of invalid request.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: &'static str,
    pub(super) status: u16,
    /// The code of the error.
    pub(super) code: &'static str,
    /// One of `details.fields`: field and code.
    pub(super) field: Option<(&'static str, &'static str)>,
    spoil: Spoil,
}

/// How a valid lead is made invalid.
#[derive(Debug)]
enum Spoil {
    /// The field is set to this JSON text.
    Field(&'static str, fn() -> String),
    /// The field is given twice.
    Twice(&'static str),
    /// The body's bytes are changed.
    Body(fn(Vec<u8>) -> Vec<u8>),
    /// The body is sent under this type.
    Type(&'static str),
}

const INVALID: &str = "validation_failed";
const MALFORMED: &str = "malformed_json";

const fn field(
    name: &'static str,
    field: &'static str,
    code: &'static str,
    value: fn() -> String,
) -> Refusal {
    let spoil = Spoil::Field(field, value);
    Refusal { name, status: 400, code: INVALID, field: Some((field, code)), spoil }
}

const fn malformed(name: &'static str, change: fn(Vec<u8>) -> Vec<u8>) -> Refusal {
    Refusal { name, status: 400, code: MALFORMED, field: None, spoil: Spoil::Body(change) }
}

fn nested(levels: usize) -> String {
    // The body is level 1, `properties` level 2.
    format!("{{\"deep\":{}{}}}", "[".repeat(levels - 2), "]".repeat(levels - 2))
}

/// All kinds; they take turns.
pub(super) const KINDS: &[Refusal] = &[
    field("not a UUID", "visitor_id", "invalid_uuid", || r#""visitor-17""#.to_owned()),
    field("UUID without hyphens", "session_id", "invalid_uuid", || {
        r#""0190d5a47c3e7c1a9c391f0a8d2b6e55""#.to_owned()
    }),
    field("number for a UUID", "identity_id", "invalid_type", || "17".to_owned()),
    field("unknown field", "utm_source", "unknown_field", || r#""google""#.to_owned()),
    field("id of the client's", "id", "unknown_field", || "1".to_owned()),
    field("source of 256 characters", "source", "too_long", || format!("\"{}\"", "ü".repeat(256))),
    field("empty code", "code", "too_short", || "\"\"".to_owned()),
    field("control character in code", "code", "control_character", || r#""a\u0007b""#.to_owned()),
    field("lone surrogate in code", "code", "lone_surrogate", || r#""a\ud83d""#.to_owned()),
    field("array for properties", "properties", "invalid_type", || "[]".to_owned()),
    field("\\u0000", "properties", "nul_character", || r#"{"a":"x\u0000y"}"#.to_owned()),
    field("lone surrogate", "properties", "lone_surrogate", || r#"{"a":["\udc00"]}"#.to_owned()),
    field("1e400000", "properties", "number_out_of_range", || r#"{"a":1e400000}"#.to_owned()),
    field("1,001 digits", "location", "number_out_of_range", || {
        format!("{{\"lat\":1{}}}", "0".repeat(1_000))
    }),
    field("nesting 65", "properties", "nesting_too_deep", || nested(65)),
    Refusal {
        name: "field given twice",
        status: 400,
        code: INVALID,
        field: Some(("company_id", "duplicate_field")),
        spoil: Spoil::Twice("company_id"),
    },
    malformed("cut off", |body| body[..body.len() - 1].to_vec()),
    malformed("text behind it", |body| [body.as_slice(), b" {}"].concat()),
    malformed("array of leads", |body| [b"[".as_slice(), &body, b"]"].concat()),
    malformed("empty body", |_| Vec::new()),
    malformed("null", |_| b"null".to_vec()),
    malformed("single quotes", |_| b"{'source':'web'}".to_vec()),
    malformed("not UTF-8", |_| b"{\"source\":\"K\xF6ln\"}".to_vec()),
    malformed("byte order mark", |body| [b"\xEF\xBB\xBF".as_slice(), &body].concat()),
    Refusal {
        name: "over 256 KiB",
        status: 413,
        code: "payload_too_large",
        field: None,
        spoil: Spoil::Body(|body| [body, vec![b' '; 256 * 1024]].concat()),
    },
    Refusal {
        name: "sent as text/plain",
        status: 415,
        code: "unsupported_media_type",
        field: None,
        spoil: Spoil::Type("text/plain"),
    },
];

/// The body and its type, out of the fields of a valid lead.
pub(super) fn spoil(
    refusal: &Refusal,
    mut fields: Vec<(String, String)>,
    random: &mut Random,
) -> (Vec<u8>, &'static str) {
    let mut set = |name: &str, value: String| {
        fields.retain(|(field, _)| field != name);
        fields.push((name.to_owned(), value));
    };
    let mut content_type = "application/json";
    let mut change: fn(Vec<u8>) -> Vec<u8> = std::convert::identity;
    match refusal.spoil {
        Spoil::Field(name, value) => set(name, value()),
        Spoil::Twice(name) => {
            set(name, "null".to_owned());
            fields.push((name.to_owned(), format!("\"{}\"", uuid(random))));
        }
        Spoil::Body(with) => change = with,
        Spoil::Type(other) => content_type = other,
    }
    (change(object(random, &fields).into_bytes()), content_type)
}
