//! The contract of a body, told a second time: slow, by other means than the service's, and close to
//! the words of `docs/http.md`.

use std::collections::HashSet;
use std::fmt;

use leads_api::domain::{MAX_DEPTH, MAX_DIGITS};
use leads_shared::lead::TEXT_MAX_CHARS;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// What a field takes beside `null`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Uuid,
    Text,
    Object,
    IdempotencyKey,
}

/// What is to become of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Malformed,
    Invalid,
    Empty,
    Taken,
}

pub(crate) type Fields = [(&'static str, Kind)];

const COMMON: [(&str, Kind); 8] = [
    ("visitor_id", Kind::Uuid),
    ("identity_id", Kind::Uuid),
    ("session_id", Kind::Uuid),
    ("company_id", Kind::Uuid),
    ("code", Kind::Text),
    ("source", Kind::Text),
    ("properties", Kind::Object),
    ("location", Kind::Object),
];

/// The fields of a POST, and the one more that an item of a batch or a PATCH has.
pub(crate) fn fields(more: Option<(&'static str, Kind)>) -> Vec<(&'static str, Kind)> {
    COMMON.into_iter().chain(more).collect()
}

/// What is to become of `body`.
pub(crate) fn verdict(body: &[u8], fields: &Fields) -> Verdict {
    let Some(Members(members)) =
        std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str(text).ok())
    else {
        return Verdict::Malformed;
    };
    let mut seen = HashSet::new();
    let valid = members.iter().all(|(name, value)| {
        let kind = fields.iter().find(|(known, _)| known == name);
        seen.insert(name) && kind.is_some_and(|(_, kind)| takes(*kind, value.get()))
    });
    match (valid, members.is_empty()) {
        (false, _) => Verdict::Invalid,
        (true, true) => Verdict::Empty,
        (true, false) => Verdict::Taken,
    }
}

fn takes(kind: Kind, value: &str) -> bool {
    if value == "null" {
        return true;
    }
    let string = || serde_json::from_str::<String>(value).ok();
    match kind {
        // The body itself is level 1.
        Kind::Object => value.starts_with('{') && storable(value, 2),
        Kind::Uuid => string().is_some_and(|text| is_hyphenated_uuid(&text)),
        Kind::Text => string().is_some_and(|text| is_short_text(&text)),
        Kind::IdempotencyKey => string().is_some_and(|text| is_idempotency_key(text.as_bytes())),
    }
}

pub(crate) fn is_hyphenated_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    let lengths: Vec<_> = groups.iter().map(|group| group.len()).collect();
    lengths == [8, 4, 4, 4, 12] && groups.concat().chars().all(|c| c.is_ascii_hexdigit())
}

pub(crate) fn is_short_text(text: &str) -> bool {
    let control = |c| matches!(c, '\0'..='\x1f' | '\x7f'..='\u{9f}');
    (1..=TEXT_MAX_CHARS).contains(&text.chars().count()) && !text.contains(control)
}

pub(crate) fn is_idempotency_key(bytes: &[u8]) -> bool {
    (1..=255).contains(&bytes.len()) && bytes.iter().all(|byte| (0x21..=0x7e).contains(byte))
}

/// Whether `jsonb` takes a value that, as an array or object, is nested as the level `depth`.
fn storable(value: &str, depth: usize) -> bool {
    let plain = |text: &str| !text.contains('\0');
    match value.as_bytes()[0] {
        b'{' | b'[' if depth > MAX_DEPTH => false,
        b'{' => serde_json::from_str::<Members<'_>>(value).is_ok_and(|Members(members)| {
            members.iter().all(|(name, value)| plain(name) && storable(value.get(), depth + 1))
        }),
        b'[' => serde_json::from_str::<Vec<&RawValue>>(value)
            .is_ok_and(|values| values.iter().all(|value| storable(value.get(), depth + 1))),
        b'"' => serde_json::from_str::<String>(value).is_ok_and(|text| plain(&text)),
        b't' | b'f' | b'n' => true,
        _ => digits(value).is_some_and(|digits| digits <= MAX_DIGITS),
    }
}

/// How many digits a number has when it is written out: by writing it out. `None`: far too many.
fn digits(number: &str) -> Option<usize> {
    let lower = number.trim_start_matches('-').to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent: i64 = exponent.parse().ok().filter(|e: &i64| e.abs() < 1_000_000)?;
    let (before, after) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let (mut before, mut after) = (before.to_owned(), after.to_owned());
    let zeros = |count| "0".repeat(count);
    let far = usize::try_from(exponent.unsigned_abs()).ok()?;
    if exponent > 0 {
        let moved = far.min(after.len());
        before.push_str(&after[..moved]);
        before.push_str(&zeros(far - moved));
        after.drain(..moved);
    } else {
        let moved = far.min(before.len());
        let tail = before.split_off(before.len() - moved);
        after = zeros(far - moved) + &tail + &after;
        if before.is_empty() {
            before.push('0');
        }
    }
    Some(before.len() + after.len())
}

/// The members of a JSON object in their order, repeated ones too.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_out() {
        for (number, expected) in [
            ("0", 1),
            ("-12.50", 4),
            ("1e3", 4),
            ("0.1E+999", 1_000),
            ("1.25e1", 3),
            ("1e-3", 4),
            ("12e-1", 2),
            ("0e5", 6),
        ] {
            assert_eq!(digits(number), Some(expected), "{number}");
        }
        assert_eq!(digits("1e99999999999999999999"), None);
    }

    #[test]
    fn says_what_the_contract_says() {
        let fields = fields(None);
        for (body, expected) in [
            ("[]", Verdict::Malformed),
            ("{}", Verdict::Empty),
            (r#"{"code":null}"#, Verdict::Taken),
            (r#"{"code":"a","c\u006fde":"a"}"#, Verdict::Invalid),
            (r#"{"code":"\u0085"}"#, Verdict::Invalid),
            (r#"{"properties":{"a":["\ud800"]}}"#, Verdict::Invalid),
            (r#"{"properties":{"\u0000":1}}"#, Verdict::Invalid),
            (r#"{"visitor_id":"0190d5a4-7c3e-7c1a-9C39-1f0a8d2b6e55"}"#, Verdict::Taken),
        ] {
            assert_eq!(verdict(body.as_bytes(), &fields), expected, "{body}");
        }
    }
}
