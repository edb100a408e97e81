//! The query parameters of a list, all errors at once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leads_shared::Timestamp;
use leads_shared::lead::TEXT_MAX_CHARS;
use leads_shared::timestamp::TimestampError;
use uuid::Uuid;

use crate::domain::{FieldCode, FieldError, hyphenated_uuid, note};
use crate::read_model::{Filter, Start};

/// Leads on a page when `limit` is not given.
const DEFAULT_LIMIT: i64 = 50;
/// Most leads on a page.
const MAX_LIMIT: i64 = 100;

const NAMES: [&str; 8] = [
    "limit",
    "offset",
    "cursor",
    "source",
    "code",
    "visitor_id",
    "created_after",
    "created_before",
];

/// A list as it was asked for.
#[derive(Debug, PartialEq)]
pub struct ListQuery {
    /// Most leads on the page, 1 to 100.
    pub limit: i64,
    /// Where the page begins.
    pub start: Start,
    /// What the list is narrowed to.
    pub filter: Filter,
}

impl ListQuery {
    /// Reads a query string.
    ///
    /// # Errors
    /// Everything wrong with it, at once.
    pub fn parse(query: &str) -> Result<Self, Vec<FieldError>> {
        let (given, errors) = values(query, NAMES);
        let [limit, offset, cursor, source, code, visitor_id, after, before] = given;
        let mut take = Take { errors };
        if let (Some(_), Some(_)) = (&offset, &cursor) {
            take.errors.push(FieldError::new(
                "offset",
                FieldCode::MutuallyExclusive,
                "offset and cursor exclude each other; a cursor knows its place",
            ));
        }
        let limit = take.value("limit", limit, |text| integer(text, 1, MAX_LIMIT));
        let offset = take.value("offset", offset, |text| integer(text, 0, i64::MAX));
        let cursor = take.value("cursor", cursor, read_cursor);
        let filter = Filter {
            source: take.value("source", source, text),
            code: take.value("code", code, text),
            visitor_id: take.value("visitor_id", visitor_id, uuid),
            created_after: take.value("created_after", after, time),
            created_before: take.value("created_before", before, time_up),
        };
        if !take.errors.is_empty() {
            return Err(take.errors);
        }
        let start = cursor.unwrap_or(Start::Offset(offset.unwrap_or(0)));
        Ok(Self { limit: limit.unwrap_or(DEFAULT_LIMIT), start, filter })
    }
}

/// The values of the parameters `names`, in that order, and what is wrong with the query as such.
pub(super) fn values<const N: usize>(
    query: &str,
    names: [&'static str; N],
) -> ([Option<String>; N], Vec<FieldError>) {
    let mut values = [const { None }; N];
    let mut errors = Vec::new();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match names.iter().position(|known| *known == name) {
            Some(i) if values[i].is_some() => note(&mut errors, || {
                let message = format!("{name} is given more than once; send it once");
                FieldError::new(names[i], FieldCode::DuplicateField, message)
            }),
            Some(i) if value.is_empty() => note(&mut errors, || {
                let message = format!("{name} is empty; leave it out for no filter");
                FieldError::new(names[i], FieldCode::TooShort, message)
            }),
            Some(i) => values[i] = Some(value.into_owned()),
            None => note(&mut errors, || {
                let shown: String = name.chars().take(64).collect();
                let message = format!("unknown parameter; known are {}", names.join(", "));
                FieldError::new(shown, FieldCode::UnknownField, message)
            }),
        }
    }
    (values, errors)
}

/// The cursor that points behind a lead. Opaque to clients.
pub fn cursor(created_at: Timestamp, id: Uuid) -> String {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&created_at.unix_millis().to_be_bytes());
    bytes[8..].copy_from_slice(id.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Reads values and collects what is wrong with them.
pub(super) struct Take {
    pub(super) errors: Vec<FieldError>,
}

impl Take {
    pub(super) fn value<T>(
        &mut self,
        name: &'static str,
        given: Option<String>,
        parse: impl FnOnce(&str) -> Result<T, (FieldCode, String)>,
    ) -> Option<T> {
        match parse(&given?) {
            Ok(value) => Some(value),
            Err((code, message)) => {
                self.errors.push(FieldError::new(name, code, message));
                None
            }
        }
    }
}

pub(super) type Parsed<T> = Result<T, (FieldCode, String)>;

pub(super) fn integer(text: &str, least: i64, most: i64) -> Parsed<i64> {
    let digits_only = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits_only && (least..=most).contains(&number) => Ok(number),
        _ if most == i64::MAX => {
            Err((FieldCode::OutOfRange, format!("must be a whole number of at least {least}")))
        }
        _ => Err((FieldCode::OutOfRange, format!("must be a whole number from {least} to {most}"))),
    }
}

fn read_cursor(text: &str) -> Parsed<Start> {
    let invalid = || {
        (FieldCode::InvalidCursor, "must be a next_cursor of this service, unchanged".to_owned())
    };
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| invalid())?;
    let (time, id) = bytes.split_first_chunk::<8>().ok_or_else(invalid)?;
    let time = Timestamp::from_unix_millis(i64::from_be_bytes(*time)).map_err(|_| invalid())?;
    Ok(Start::After(time, Uuid::from_slice(id).map_err(|_| invalid())?))
}

fn text(text: &str) -> Parsed<String> {
    if text.chars().count() > TEXT_MAX_CHARS {
        return Err((FieldCode::TooLong, format!("must have at most {TEXT_MAX_CHARS} characters")));
    }
    if text.chars().any(char::is_control) {
        return Err((FieldCode::ControlCharacter, "must hold no control characters".to_owned()));
    }
    Ok(text.to_owned())
}

fn uuid(text: &str) -> Parsed<Uuid> {
    hyphenated_uuid(text)
        .ok_or_else(|| (FieldCode::InvalidUuid, "must be a hyphenated UUID".to_owned()))
}

pub(super) fn time(text: &str) -> Parsed<Timestamp> {
    Timestamp::parse(text).map_err(|error| invalid_time(text, error))
}

/// A bound that leads lie before. They have whole milliseconds.
fn time_up(text: &str) -> Parsed<Timestamp> {
    Timestamp::parse_up(text).map_err(|error| invalid_time(text, error))
}

fn invalid_time(text: &str, error: TimestampError) -> (FieldCode, String) {
    let hint = if text.contains(' ') { "; a + in a query string is written %2B" } else { "" };
    (FieldCode::InvalidTime, format!("{error}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_at_once() {
        let query = "limit=0&offset=-1&cursor=x&source=&code=%00&visitor_id=1&created_after=2026-01-01\
             &created_before=2026-01-01T00:00:00+02:00&limit=2&nope=1";
        let errors = ListQuery::parse(query).unwrap_err();
        let found: Vec<_> = errors.iter().map(|e| (e.field.as_ref(), e.code)).collect();
        assert_eq!(
            found,
            [
                ("source", FieldCode::TooShort),
                ("limit", FieldCode::DuplicateField),
                ("nope", FieldCode::UnknownField),
                ("offset", FieldCode::MutuallyExclusive),
                ("limit", FieldCode::OutOfRange),
                ("offset", FieldCode::OutOfRange),
                ("cursor", FieldCode::InvalidCursor),
                ("code", FieldCode::ControlCharacter),
                ("visitor_id", FieldCode::InvalidUuid),
                ("created_after", FieldCode::InvalidTime),
                ("created_before", FieldCode::InvalidTime),
            ]
        );
    }

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let (time, id) = (Timestamp::from_unix_millis(1_700_000_000_123).unwrap(), Uuid::now_v7());
        let query = ListQuery::parse(&format!("limit=7&cursor={}", cursor(time, id))).unwrap();
        assert_eq!(query.start, Start::After(time, id));
        assert_eq!(query.limit, 7);
    }
}
