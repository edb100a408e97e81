//! The history of one lead, out of the log.
//!
//! Kafka finds records by time, not by key. The read model knows when a lead was created and last
//! updated and how many of its events took effect, so the usual history of one or two events is found
//! without looking through what lies between. For a longer one the lead's partition is looked through,
//! a bounded piece a page.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use leads_shared::{Event, Payload, Timestamp, UpdateEffect};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::broker::{LogReader, LogRecord, LogSource, Read, ReadAhead, Unreachable};

/// Most records of a partition that are looked through for a page.
const MAX_RECORDS: u64 = 50_000;
/// Most bytes of events on a page.
const MAX_BYTES: usize = 4 << 20;
/// The longest that a page looks.
const MAX_TIME: Duration = Duration::from_secs(2);
/// The clock of the records may be set back by as much since the event was made.
const CLOCK_SLACK_MILLIS: i64 = 5_000;
const ANSWER: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(50);
const CURSOR_VERSION: u8 = 1;
const CURSOR_BYTES: usize = 42;

/// What the read model knows of the lead.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The lead.
    pub lead_id: Uuid,
    /// Its partition.
    pub partition: usize,
    /// Partitions of the topic.
    pub partitions: usize,
    /// How many of its events took effect.
    pub version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last updated.
    pub updated_at: Timestamp,
}

/// One event of the lead.
#[derive(Debug)]
pub struct Entry {
    /// Its offset in the lead's partition.
    pub offset: i64,
    /// The event as it stands in the log; `None` when the value is no JSON.
    pub event: Option<Box<RawValue>>,
    /// Its id, type and time, when it is an event that this version can read.
    pub facts: Option<(Uuid, &'static str, Timestamp)>,
    /// Whether it changed the lead.
    pub effective: bool,
    /// The lead's version behind it.
    pub version: u64,
}

/// Where the next page begins, and what is known there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    /// The next offset to look at.
    offset: i64,
    /// The last offset that was listed; -1: none.
    listed: i64,
    /// Effective events so far.
    version: u64,
    /// The last of them.
    last_event: Uuid,
    /// Nothing is left out any more: looking where the read model pointed did not find all.
    thorough: bool,
}

/// A page of a history.
#[derive(Debug)]
pub struct Page {
    /// In log order; may be empty although there is a next page.
    pub entries: Vec<Entry>,
    /// The next page; `None` on the last.
    pub next: Option<Cursor>,
}

impl Cursor {
    /// The text for the client.
    pub fn text(&self, lead_id: Uuid) -> String {
        let Self { offset, listed, version, last_event, thorough } = self;
        let mut bytes = Vec::with_capacity(CURSOR_BYTES + 4);
        bytes.extend([CURSOR_VERSION, u8::from(*thorough)]);
        bytes.extend(offset.to_be_bytes());
        bytes.extend(listed.to_be_bytes());
        bytes.extend(version.to_be_bytes());
        bytes.extend(last_event.as_bytes());
        bytes.extend(checksum(&bytes, lead_id).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a text that was given for this lead.
    pub fn read(text: &str, lead_id: Uuid) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (payload, sum) = bytes.split_last_chunk::<4>()?;
        if payload.len() != CURSOR_BYTES || checksum(payload, lead_id) != u32::from_be_bytes(*sum) {
            return None;
        }
        let number = |at: usize| Some(*payload.get(at..)?.first_chunk::<8>()?);
        Some(Self {
            offset: i64::from_be_bytes(number(2)?),
            listed: i64::from_be_bytes(number(10)?),
            version: u64::from_be_bytes(number(18)?),
            last_event: Uuid::from_slice(&payload[26..]).ok()?,
            thorough: payload[1] == 1,
        })
        .filter(|_| payload[0] == CURSOR_VERSION)
    }
}

/// Keeps a cursor from being used for another lead by mistake.
fn checksum(payload: &[u8], lead_id: Uuid) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(payload);
    hasher.update(lead_id.as_bytes());
    hasher.finalize()
}

/// Reads a page of at most `limit` events. Blocks.
///
/// # Errors
/// [`Unreachable`].
pub fn read_page(
    source: &LogSource,
    known: &Known,
    cursor: Option<Cursor>,
    limit: usize,
) -> Result<Page, Unreachable> {
    let reader = LogReader::open(source, ReadAhead::Much).map_err(|_| Unreachable)?;
    let place = |offsets: Vec<i64>| offsets.get(known.partition).copied().ok_or(Unreachable);
    let start = place(reader.starts(known.partitions, ANSWER)?)?;
    let end = place(reader.ends(known.partitions, ANSWER)?)?;
    let cursor = match cursor {
        Some(cursor) => cursor,
        None => Cursor {
            offset: at_time(&reader, known, known.created_at)?.unwrap_or(end),
            listed: -1,
            version: 0,
            last_event: Uuid::nil(),
            thorough: false,
        },
    };
    let mut search = Search { known, cursor, entries: Vec::new(), bytes: 0, end };
    search.cursor.offset = search.cursor.offset.max(start);
    search.run(&reader, limit)?;
    let Search { mut cursor, entries, .. } = search;
    let next = if cursor.version >= known.version {
        None
    } else if cursor.offset < end {
        Some(cursor)
    } else if cursor.thorough {
        None
    } else {
        cursor.thorough = true;
        cursor.offset = if cursor.listed < 0 { start } else { cursor.listed + 1 };
        Some(cursor)
    };
    Ok(Page { entries, next })
}

/// The first offset of the lead's partition that may hold an event of `time`.
fn at_time(reader: &LogReader, known: &Known, time: Timestamp) -> Result<Option<i64>, Unreachable> {
    let millis = time.unix_millis() - CLOCK_SLACK_MILLIS;
    let found = reader.at_time(known.partitions, millis, ANSWER)?;
    Ok(found.get(known.partition).copied().flatten())
}

struct Search<'a> {
    known: &'a Known,
    cursor: Cursor,
    entries: Vec<Entry>,
    bytes: usize,
    end: i64,
}

impl Search<'_> {
    fn run(&mut self, reader: &LogReader, limit: usize) -> Result<(), Unreachable> {
        let mut key = Uuid::encode_buffer();
        let key = self.known.lead_id.hyphenated().encode_lower(&mut key).as_bytes();
        let (started, mut reached) = (Instant::now(), Instant::now());
        let mut looked = 0;
        reader.read_one(self.known.partition, self.cursor.offset)?;
        while self.cursor.offset < self.end
            && self.cursor.version < self.known.version
            && self.entries.len() < limit
            && self.bytes < MAX_BYTES
            && looked < MAX_RECORDS
            && (looked == 0 || started.elapsed() < MAX_TIME)
        {
            match reader.poll(POLL) {
                // What was read ahead before a jump.
                Read::Record(record) if record.offset() < self.cursor.offset => {}
                Read::Record(record) => {
                    (reached, looked) = (Instant::now(), looked + 1);
                    self.cursor.offset = record.offset() + 1;
                    if record.key() == Some(key) {
                        self.take(&record);
                        self.jump(reader)?;
                    }
                }
                Read::End(_) | Read::Nothing | Read::Trouble if reached.elapsed() < ANSWER => {}
                _ => return Err(Unreachable),
            }
        }
        Ok(())
    }

    fn take(&mut self, record: &LogRecord<'_>) {
        let value = record.value();
        let event = Event::decode_record(record.key(), value).ok();
        let effective = event.as_ref().is_some_and(|event| self.cursor.takes(event));
        if let Some(event) = event.as_ref().filter(|_| effective) {
            self.cursor.version += 1;
            self.cursor.last_event = event.event_id;
        }
        self.cursor.listed = record.offset();
        self.bytes += value.map_or(0, <[u8]>::len);
        self.entries.push(Entry {
            offset: record.offset(),
            event: value.and_then(|value| serde_json::from_slice(value).ok()),
            facts: event.map(|it| (it.event_id, it.payload.event_type().name(), it.occurred_at)),
            effective,
            version: self.cursor.version,
        });
    }

    /// With one effective event missing, it is the last, and the read model knows its time.
    fn jump(&mut self, reader: &LogReader) -> Result<(), Unreachable> {
        let Cursor { offset, version, thorough, .. } = self.cursor;
        if thorough || version == 0 || version + 1 != self.known.version {
            return Ok(());
        }
        let last = at_time(reader, self.known, self.known.updated_at)?;
        if let Some(last) = last.filter(|last| *last > offset) {
            self.cursor.offset = last;
            reader.read_one(self.known.partition, last)?;
        }
        Ok(())
    }
}

impl Cursor {
    /// Whether an event changes the lead, by the rules that the projection follows.
    fn takes(&self, event: &Event<'_>) -> bool {
        match &event.payload {
            Payload::LeadCreated { .. } => self.version == 0,
            Payload::LeadUpdated { expected_version, .. } => {
                let Self { version, last_event, .. } = *self;
                let effect =
                    UpdateEffect::of(event.event_id, *expected_version, version, last_event);
                version > 0 && effect == UpdateEffect::Takes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was_and_only_for_its_lead() {
        let lead = Uuid::from_u128(1);
        let cursor = Cursor {
            offset: 1 << 40,
            listed: -1,
            version: 7,
            last_event: Uuid::from_u128(9),
            thorough: true,
        };
        let text = cursor.text(lead);
        assert_eq!(Cursor::read(&text, lead), Some(cursor));
        assert_eq!(Cursor::read(&text, Uuid::from_u128(2)), None);
        assert_eq!(Cursor::read(&text[1..], lead), None);
        assert_eq!(Cursor::read("", lead), None);
    }
}
