//! The envelope and the events it carries.
//!
//! ```text
//! {"event_id","type":"LeadCreated","schema_version":1,"occurred_at","workspace_id","lead_id","lead":{…}}
//! {"event_id","type":"LeadUpdated","schema_version":1,"occurred_at","workspace_id","lead_id","changes":{…},"expected_version":null|n}
//! ```
//!
//! Readers ignore fields they don't know. A change of an event that old readers could not take gets
//! a new `schema_version`, and a reader in `upcast` that turns the old body into today's.

mod upcast;

use std::io::Write;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::lead::TEXT_MAX_CHARS;
use crate::{Change, Changes, Lead, Text, Timestamp};

/// One record of the events topic.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// Unique; the same for a retry with the same idempotency key. Subscribers drop duplicates by it.
    pub event_id: Uuid,
    /// When the API took the change in.
    pub occurred_at: Timestamp,
    /// The workspace that owns the lead.
    pub workspace_id: Uuid,
    /// The lead; its hyphenated text is the record's key.
    pub lead_id: Uuid,
    /// What happened.
    pub payload: Payload<'a>,
}

/// What happened to the lead.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload<'a> {
    /// The lead was taken in. The first in log order stands; later ones of the same id have no effect.
    LeadCreated {
        /// The lead as it was then.
        lead: Lead<'a>,
    },
    /// Fields of the lead were replaced or cleared.
    LeadUpdated {
        /// The fields that were given.
        changes: Changes<'a>,
        /// Takes effect only if the lead has this version at this place in the log; `None`: always.
        expected_version: Option<u64>,
    },
}

impl Payload<'_> {
    /// The event's type as the envelope and `ce_type` name it.
    pub fn event_type(&self) -> EventType {
        match self {
            Self::LeadCreated { .. } => EventType::LeadCreated,
            Self::LeadUpdated { .. } => EventType::LeadUpdated,
        }
    }
}

/// The types of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// See [`Payload::LeadCreated`].
    LeadCreated,
    /// See [`Payload::LeadUpdated`].
    LeadUpdated,
}

impl EventType {
    /// Every type there is.
    pub const ALL: [Self; 2] = [Self::LeadCreated, Self::LeadUpdated];

    /// The name in the envelope and in `ce_type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::LeadCreated => "LeadCreated",
            Self::LeadUpdated => "LeadUpdated",
        }
    }

    /// The version that is written today.
    pub fn schema_version(self) -> u32 {
        match self {
            Self::LeadCreated | Self::LeadUpdated => 1,
        }
    }

    /// Where the schema of the version written today is served: `/schemas/<Event>/<version>`.
    pub fn dataschema(self) -> &'static str {
        match self {
            Self::LeadCreated => "/schemas/LeadCreated/1",
            Self::LeadUpdated => "/schemas/LeadUpdated/1",
        }
    }
}

/// An event as the bytes of a record's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The value.
    pub value: Vec<u8>,
    /// Where the `lead` or the `changes` stand in it, so that an answer can repeat a lead without
    /// writing it a second time.
    pub body: Range<usize>,
}

impl Event<'_> {
    /// Writes the event as a record's value.
    ///
    /// # Errors
    /// Never for an event that was read or built from valid parts; the error is the serializer's.
    pub fn encode(&self) -> Result<Encoded, serde_json::Error> {
        let Self { event_id, occurred_at, workspace_id, lead_id, payload } = self;
        let event_type = payload.event_type();
        let mut value = Vec::with_capacity(1024);
        // By hand: none of these values can need an escape, and the place of the body must be known.
        write!(
            value,
            r#"{{"event_id":"{event_id}","type":"{}","schema_version":{},"occurred_at":"{occurred_at}","workspace_id":"{workspace_id}","lead_id":"{lead_id}","#,
            event_type.name(),
            event_type.schema_version(),
        )
        .map_err(serde_json::Error::io)?;
        let body = match payload {
            Payload::LeadCreated { lead } => {
                value.extend_from_slice(br#""lead":"#);
                let start = value.len();
                serde_json::to_writer(&mut value, lead)?;
                start..value.len()
            }
            Payload::LeadUpdated { changes, expected_version } => {
                value.extend_from_slice(br#""changes":"#);
                let start = value.len();
                serde_json::to_writer(&mut value, changes)?;
                let body = start..value.len();
                value.extend_from_slice(br#","expected_version":"#);
                serde_json::to_writer(&mut value, expected_version)?;
                body
            }
        };
        value.push(b'}');
        Ok(Encoded { value, body })
    }
}

/// The record's value is no event that this version can read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A null value.
    #[error("the record has no value (a tombstone)")]
    Tombstone,
    /// No JSON, a field missing, or one of another type.
    #[error("the value is not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A type that this version does not know.
    #[error("unknown event type {0:?}")]
    UnknownType(String),
    /// A version that this version does not know.
    #[error("{event_type} has schema version {version}, newer than the {newest} known here")]
    UnknownVersion {
        /// The event's type.
        event_type: &'static str,
        /// The version found.
        version: u32,
        /// The newest version known.
        newest: u32,
    },
    /// The envelope contradicts its own body or the record's key, or a bound of the schema is broken.
    #[error("the event contradicts itself: {0}")]
    Inconsistent(&'static str),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    event_id: Uuid,
    #[serde(rename = "type", borrow)]
    event_type: Text<'a>,
    schema_version: u32,
    occurred_at: Timestamp,
    workspace_id: Uuid,
    lead_id: Uuid,
    #[serde(borrow)]
    lead: Option<&'a RawValue>,
    #[serde(borrow)]
    changes: Option<&'a RawValue>,
    expected_version: Option<u64>,
}

impl<'a> Event<'a> {
    /// Reads a record's value; `None` is a tombstone.
    ///
    /// # Errors
    /// See [`DecodeError`]. An error is a property of the bytes: reading them again gives it again.
    pub fn decode(value: Option<&'a [u8]>) -> Result<Self, DecodeError> {
        let envelope: Envelope<'a> = serde_json::from_slice(value.ok_or(DecodeError::Tombstone)?)?;
        let payload = match envelope.event_type.as_str() {
            "LeadCreated" => Payload::LeadCreated { lead: upcast::lead_created(&envelope)? },
            "LeadUpdated" => Payload::LeadUpdated {
                changes: upcast::lead_updated(&envelope)?,
                expected_version: envelope.expected_version,
            },
            other => return Err(DecodeError::UnknownType(other.chars().take(64).collect())),
        };
        let event = Self {
            event_id: envelope.event_id,
            occurred_at: envelope.occurred_at,
            workspace_id: envelope.workspace_id,
            lead_id: envelope.lead_id,
            payload,
        };
        event.check()?;
        Ok(event)
    }

    /// Reads a record and checks that its key is the lead it is about.
    ///
    /// # Errors
    /// As [`Event::decode`]; a missing or different key is [`DecodeError::Inconsistent`].
    pub fn decode_record(key: Option<&[u8]>, value: Option<&'a [u8]>) -> Result<Self, DecodeError> {
        let event = Self::decode(value)?;
        let mut buffer = Uuid::encode_buffer();
        let expected = event.lead_id.hyphenated().encode_lower(&mut buffer);
        if key == Some(expected.as_bytes()) {
            Ok(event)
        } else {
            Err(DecodeError::Inconsistent("the record's key is not its lead_id"))
        }
    }

    fn check(&self) -> Result<(), DecodeError> {
        let (code, source) = match &self.payload {
            Payload::LeadCreated { lead } => {
                if lead.id != self.lead_id {
                    return Err(DecodeError::Inconsistent("lead.id is not lead_id"));
                }
                if lead.workspace_id != self.workspace_id {
                    return Err(DecodeError::Inconsistent("lead.workspace_id is not workspace_id"));
                }
                (lead.code.as_ref(), lead.source.as_ref())
            }
            Payload::LeadUpdated { changes, .. } => (set(&changes.code), set(&changes.source)),
        };
        let too_long = |text: &Text<'_>| {
            text.as_str().len() > TEXT_MAX_CHARS && text.as_str().chars().count() > TEXT_MAX_CHARS
        };
        if code.is_some_and(too_long) || source.is_some_and(too_long) {
            return Err(DecodeError::Inconsistent("code or source has more than 255 characters"));
        }
        Ok(())
    }
}

fn set<T>(change: &Change<T>) -> Option<&T> {
    match change {
        Change::Set(value) => Some(value),
        Change::Keep | Change::Clear => None,
    }
}

/// The `event_id` of a record's value, whatever its type and version, known here or not.
///
/// It identifies the record at an offset: the answer must not change when a later version learns to
/// read an event that an earlier one could not.
pub fn event_id_of(value: Option<&[u8]>) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct OnlyId {
        event_id: Uuid,
    }
    serde_json::from_slice::<OnlyId>(value?).ok().map(|only| only.event_id)
}
