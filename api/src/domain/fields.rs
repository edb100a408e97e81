//! A request body as the raw values of its known fields, and everything wrong with its shape.

use std::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess};
use serde_json::value::RawValue;
use uuid::Uuid;

use leads_shared::lead::TEXT_MAX_CHARS;
use leads_shared::{Change, Json, Text};

use super::idempotency::IdempotencyKey;
use super::json::{Fault, scan};
use super::reject::note;
use super::{FieldCode, FieldError, Rejection};

/// The values of the fields `names`, in that order, as they stand in the body.
pub(super) struct RawFields<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
    pub(super) errors: Vec<FieldError>,
}

impl<'a, const N: usize> RawFields<'a, N> {
    /// Reads one JSON object. Unknown and repeated fields are noted; `hint` says for an unknown one
    /// what may be meant.
    pub(super) fn parse(
        body: &'a [u8],
        names: &'static [&'static str; N],
        hint: fn(&str) -> Option<&'static str>,
    ) -> Result<Self, Rejection> {
        let text = utf8(body)?;
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let fields = ObjectSeed { names, hint }
            .deserialize(&mut deserializer)
            .and_then(|fields| deserializer.end().map(|()| fields));
        fields.map_err(|error| Rejection::Malformed {
            message: without_position(&error, "expected a JSON object"),
            line: error.line(),
            column: error.column(),
        })
    }

    /// Whether no known field was given.
    pub(super) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// Takes field `i`; one that is refused is noted, and then the same as `null`.
    pub(super) fn take<T>(
        &mut self,
        i: usize,
        parse: impl FnOnce(&'a RawValue) -> Result<T, Problem>,
    ) -> Change<T> {
        let Some(raw) = self.values[i].take() else { return Change::Keep };
        if raw.get() == "null" {
            return Change::Clear;
        }
        match parse(raw) {
            Ok(value) => Change::Set(value),
            Err((code, message)) => {
                self.errors.push(FieldError::new(self.names[i], code, message));
                Change::Clear
            }
        }
    }
}

/// What is wrong with a value.
pub(super) type Problem = (FieldCode, String);

pub(super) fn utf8(body: &[u8]) -> Result<&str, Rejection> {
    if body.starts_with(b"\xEF\xBB\xBF") {
        return Err(Rejection::Malformed {
            message: "the body starts with a byte order mark; send UTF-8 without one".to_owned(),
            line: 1,
            column: 1,
        });
    }
    std::str::from_utf8(body).map_err(|error| {
        let before = &body[..error.valid_up_to()];
        let line_start = memchr::memrchr(b'\n', before).map_or(0, |at| at + 1);
        Rejection::Malformed {
            message: "the body is not valid UTF-8".to_owned(),
            line: memchr::memchr_iter(b'\n', before).count() + 1,
            column: before.len() - line_start + 1,
        }
    })
}

/// `serde_json` writes the position behind its message; the answer has fields of its own for it.
pub(super) fn without_position(error: &serde_json::Error, expected: &str) -> String {
    // Of a wrong type serde quotes the value, and contents belong into no message.
    if error.is_data() {
        return expected.to_owned();
    }
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

struct ObjectSeed<const N: usize> {
    names: &'static [&'static str; N],
    hint: fn(&str) -> Option<&'static str>,
}

impl<'de, const N: usize> DeserializeSeed<'de> for ObjectSeed<N> {
    type Value = RawFields<'de, N>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, const N: usize> de::Visitor<'de> for ObjectSeed<N> {
    type Value = RawFields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = RawFields { names: self.names, values: [None; N], errors: Vec::new() };
        while let Some(name) = map.next_key::<Text<'de>>()? {
            let value: &'de RawValue = map.next_value()?;
            let name = name.as_str();
            let Some(i) = self.names.iter().position(|known| *known == name) else {
                note(&mut fields.errors, || unknown_field(name, self.names, self.hint));
                continue;
            };
            if fields.values[i].replace(value).is_some() {
                note(&mut fields.errors, || {
                    let message = format!("{name} is given more than once; send it once");
                    FieldError::new(self.names[i], FieldCode::DuplicateField, message)
                });
            }
        }
        Ok(fields)
    }
}

fn unknown_field(
    name: &str,
    names: &[&'static str],
    hint: fn(&str) -> Option<&'static str>,
) -> FieldError {
    let message = hint(name).map_or_else(
        || {
            format!(
                "unknown field; known are {}. Free data belongs into properties",
                names.join(", ")
            )
        },
        str::to_owned,
    );
    // An unknown name is the client's text, of any length.
    let shown: String = name.chars().take(64).collect();
    FieldError::new(shown, FieldCode::UnknownField, message)
}

/// Reads a hyphenated UUID, in any case.
pub fn hyphenated_uuid(text: &str) -> Option<Uuid> {
    // `try_parse` also takes braces, URNs and the plain form: 36 bytes leave the hyphenated one.
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

/// A hyphenated UUID, in any case.
pub(super) fn uuid(raw: &RawValue) -> Result<Uuid, Problem> {
    hyphenated_uuid(string(raw)?.as_str()).ok_or_else(|| {
        let message = "must be a hyphenated UUID, such as 0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55";
        (FieldCode::InvalidUuid, message.to_owned())
    })
}

/// A text of 1 to 255 characters without control characters.
pub(super) fn text(raw: &RawValue) -> Result<Text<'_>, Problem> {
    let text = string(raw)?;
    let length = text.as_str().chars().count();
    if length == 0 {
        let message = "must have at least 1 character; leave the field out or send null for none";
        return Err((FieldCode::TooShort, message.to_owned()));
    }
    if length > TEXT_MAX_CHARS {
        let message = format!("must have at most {TEXT_MAX_CHARS} characters, has {length}");
        return Err((FieldCode::TooLong, message));
    }
    if let Some(at) = text.as_str().chars().position(char::is_control) {
        let message = format!("must hold no control characters; character {} is one", at + 1);
        return Err((FieldCode::ControlCharacter, message));
    }
    Ok(text)
}

/// An idempotency key.
pub(super) fn idempotency_key(raw: &RawValue) -> Result<IdempotencyKey, Problem> {
    IdempotencyKey::parse(string(raw)?.as_str().as_bytes()).map_err(|_| {
        let message = "must be 1 to 255 visible ASCII characters (0x21 to 0x7E)";
        (FieldCode::InvalidIdempotencyKey, message.to_owned())
    })
}

/// A JSON object that `jsonb` takes. It stands in the body's own object, so one level is used.
pub(super) fn object(raw: &RawValue) -> Result<Json<'_>, Problem> {
    if !raw.get().starts_with('{') {
        return Err((FieldCode::InvalidType, "must be a JSON object or null".to_owned()));
    }
    scan(raw.get(), 1).map_err(describe)?;
    Ok(one_line(raw))
}

/// Line breaks between values become spaces: an event is one line, for readers by line. Within
/// strings the grammar has none.
fn one_line(raw: &RawValue) -> Json<'_> {
    if memchr::memchr2(b'\r', b'\n', raw.get().as_bytes()).is_none() {
        return Json::from(raw);
    }
    let text = raw.get().replace(['\r', '\n'], " ");
    Json::from_string(text).unwrap_or_else(|_| Json::from(raw))
}

fn string(raw: &RawValue) -> Result<Text<'_>, Problem> {
    if !raw.get().starts_with('"') {
        return Err((FieldCode::InvalidType, "must be a string or null".to_owned()));
    }
    // The grammar holds, so what can still fail is half a surrogate pair.
    serde_json::from_str(raw.get()).map_err(|_| {
        let message = "holds half of a UTF-16 surrogate pair; send both halves or the character";
        (FieldCode::LoneSurrogate, message.to_owned())
    })
}

fn describe(Fault { code, at }: Fault) -> Problem {
    let what = match code {
        FieldCode::NulCharacter => "holds \\u0000, which can't be stored; leave it out".to_owned(),
        FieldCode::LoneSurrogate => {
            "holds half of a UTF-16 surrogate pair; send both halves or the character".to_owned()
        }
        FieldCode::NumberOutOfRange => format!(
            "holds a number of more than {} digits when written out; send it as a string",
            super::MAX_DIGITS
        ),
        FieldCode::NestingTooDeep => format!(
            "nests objects and arrays deeper than {} levels, the body counted as the first",
            super::MAX_DEPTH
        ),
        other => format!("is not valid ({other:?})"),
    };
    (code, format!("{what} (byte {at} of the value)"))
}
