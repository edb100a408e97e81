//! Record → event, or the reason why it is none.

use leads_shared::event::DecodeError;
use leads_shared::{Event, partition};

use super::{Reason, Rejection};
use crate::record::Record;

/// Reads a record of an events topic of `partitions` partitions.
///
/// # Errors
/// Why the record can't be projected, whatever the state of the read model.
pub fn decode<'a>(record: &Record<'a>, partitions: u32) -> Result<Event<'a>, Rejection> {
    let event = Event::decode_record(record.key, record.value).map_err(|error| reject(&error))?;
    // One partition has one writer, so that a lead has one. A record that a producer with another
    // partitioner put elsewhere would give it two, and its events no order.
    let home = record.key.map(|key| partition::of_key(key, partitions));
    if home == Some(record.partition) {
        Ok(event)
    } else {
        let home = home.map(|home| home.to_string()).unwrap_or_default();
        Err(Rejection {
            reason: Reason::WrongPartition,
            error: format!(
                "murmur2 puts this key on partition {home} of {partitions}; produce with the \
                 partitioner murmur2_random"
            ),
        })
    }
}

/// The error in words that quote nothing of the value: serde's may.
fn reject(error: &DecodeError) -> Rejection {
    let (reason, error) = match error {
        DecodeError::Tombstone => (Reason::Undecodable, error.to_string()),
        DecodeError::Malformed(cause) => (Reason::Undecodable, malformed(cause)),
        DecodeError::UnknownType(name) => (Reason::UnknownType, unknown_type(name)),
        DecodeError::UnknownVersion { .. } => (Reason::UnknownVersion, error.to_string()),
        DecodeError::Inconsistent(_) => (Reason::Inconsistent, error.to_string()),
    };
    Rejection { reason, error }
}

fn malformed(cause: &serde_json::Error) -> String {
    let what = match cause.classify() {
        serde_json::error::Category::Syntax => "it is not JSON",
        serde_json::error::Category::Eof => "its JSON ends early",
        serde_json::error::Category::Data => "a field is missing or of another type",
        serde_json::error::Category::Io => "it can't be read",
    };
    format!("the value is not an event: {what}, line {} column {}", cause.line(), cause.column())
}

fn unknown_type(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if !name.is_empty() && name.chars().all(plain) {
        format!("unknown event type {name}")
    } else {
        "unknown event type".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_quote_nothing_of_the_value() {
        for value in [
            r#"{"event_id":"secret"}"#,
            r#"{"type":{"secret":1}}"#,
            "secret",
            r#"{"event_id":"00000000-0000-0000-0000-000000000000","type":"se cret","schema_version":1,"occurred_at":"2026-01-01T00:00:00Z","workspace_id":"00000000-0000-0000-0000-000000000000","lead_id":"00000000-0000-0000-0000-000000000000"}"#,
        ] {
            let error = Event::decode(Some(value.as_bytes())).unwrap_err();
            let rejection = reject(&error);
            assert!(!rejection.error.contains("cret"), "{rejection:?}");
        }
    }
}
