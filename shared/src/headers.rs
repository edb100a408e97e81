//! The record headers: CloudEvents 1.0, Kafka protocol binding, binary mode.
//!
//! Source: <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>.
//! Each attribute is a header `ce_<name>` with its UTF-8 text; `content-type` stands unprefixed, and
//! so does `traceparent`, as tracing libraries expect it.

use std::fmt::Write;

use uuid::Uuid;

use crate::{Event, Timestamp};

/// The header that carries the W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// The header that carries the event's id.
pub const ID: &str = "ce_id";
/// The header that names the workspace, see [`workspace_of`].
pub const SOURCE: &str = "ce_source";
/// The header that carries the event's type.
pub const TYPE: &str = "ce_type";
const CONTENT_TYPE: &str = "content-type";
const JSON: &str = "application/json";
const SPEC_VERSION: &str = "1.0";
const SOURCE_PREFIX: &str = "/workspaces/";

/// The workspace that a `ce_source` names.
pub fn workspace_of(source: &[u8]) -> Option<Uuid> {
    Uuid::try_parse_ascii(source.strip_prefix(SOURCE_PREFIX.as_bytes())?).ok()
}

/// The texts of an event's headers, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    texts: String,
    ends: [usize; 4],
    event_type: crate::event::EventType,
    traceparent: Option<String>,
}

impl Headers {
    /// The headers of `event`; `traceparent` as the request had it or tracing made it.
    pub fn of(event: &Event<'_>, traceparent: Option<&str>) -> Self {
        // One buffer for the four texts that differ by event: this runs once a record.
        let mut texts = String::with_capacity(160);
        let mut ends = [0; 4];
        let Event { event_id, workspace_id, lead_id, occurred_at, payload } = event;
        for (i, end) in ends.iter_mut().enumerate() {
            // Writing to a String cannot fail.
            let _ = match i {
                0 => write!(texts, "{event_id}"),
                1 => write!(texts, "{SOURCE_PREFIX}{workspace_id}"),
                2 => write!(texts, "{lead_id}"),
                _ => write!(texts, "{occurred_at}"),
            };
            *end = texts.len();
        }
        Self {
            texts,
            ends,
            event_type: payload.event_type(),
            traceparent: traceparent.map(str::to_owned),
        }
    }

    /// Name and value of each header.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let [id, source, subject, time] = self.ends;
        [
            ("ce_specversion", SPEC_VERSION),
            (ID, &self.texts[..id]),
            (SOURCE, &self.texts[id..source]),
            (TYPE, self.event_type.name()),
            ("ce_subject", &self.texts[source..subject]),
            ("ce_time", &self.texts[subject..time]),
            ("ce_dataschema", self.event_type.dataschema()),
            (CONTENT_TYPE, JSON),
        ]
        .into_iter()
        .chain(self.traceparent.as_deref().map(|value| (TRACEPARENT, value)))
    }
}

/// What the headers of a record say, read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent<'a> {
    /// `ce_id`: the event id.
    pub id: Uuid,
    /// The workspace in `ce_source`.
    pub workspace_id: Uuid,
    /// `ce_type`, known here or not.
    pub event_type: &'a str,
    /// `ce_subject`: the lead id.
    pub lead_id: Uuid,
    /// `ce_time`.
    pub time: Timestamp,
    /// `ce_dataschema`.
    pub dataschema: Option<&'a str>,
    /// `traceparent`.
    pub traceparent: Option<&'a str>,
}

/// The headers are not those of one of our events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A header that must be there is not, or its value is not UTF-8.
    #[error("header {0} is missing or is not UTF-8")]
    Missing(&'static str),
    /// A header's value is not what the contract says.
    #[error("header {0} has a value outside the contract")]
    Invalid(&'static str),
}

impl<'a> CloudEvent<'a> {
    /// Reads a record's headers, in any order; headers it doesn't know are passed over, and of a
    /// repeated one the last counts.
    ///
    /// # Errors
    /// See [`HeaderError`].
    pub fn read(
        headers: impl IntoIterator<Item = (&'a str, Option<&'a [u8]>)>,
    ) -> Result<Self, HeaderError> {
        const NAMES: [&str; 9] = [
            "ce_specversion",
            ID,
            SOURCE,
            TYPE,
            "ce_subject",
            "ce_time",
            "ce_dataschema",
            CONTENT_TYPE,
            TRACEPARENT,
        ];
        let mut found: [Option<&'a str>; NAMES.len()] = [None; NAMES.len()];
        for (name, value) in headers {
            if let Some(i) = NAMES.iter().position(|known| *known == name) {
                found[i] = value.and_then(|bytes| std::str::from_utf8(bytes).ok());
            }
        }
        let must = |i: usize| found[i].ok_or(HeaderError::Missing(NAMES[i]));
        let uuid = |i: usize, text: &str| {
            Uuid::try_parse(text).map_err(|_| HeaderError::Invalid(NAMES[i]))
        };
        if must(0)? != SPEC_VERSION {
            return Err(HeaderError::Invalid(NAMES[0]));
        }
        let source = must(2)?.strip_prefix(SOURCE_PREFIX).ok_or(HeaderError::Invalid(NAMES[2]))?;
        Ok(Self {
            id: uuid(1, must(1)?)?,
            workspace_id: uuid(2, source)?,
            event_type: must(3)?,
            lead_id: uuid(4, must(4)?)?,
            time: Timestamp::parse(must(5)?).map_err(|_| HeaderError::Invalid(NAMES[5]))?,
            dataschema: found[6],
            traceparent: found[8],
        })
    }
}
