//! From pending chunks to a batch.

use std::collections::{BTreeMap, VecDeque};

use leads_shared::event::event_id_of;

use super::Limits;
use super::partitions::{Partitions, Take};
use crate::failure::Halt;
use crate::projection::Rejection;
use crate::projection::decode::decode;
use crate::projection::parking::LeadAt;
use crate::record::{Chunk, Record};
use crate::store::Batch;

/// A place in the pending chunks: everything before it is dealt with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cursor {
    chunk: usize,
    record: usize,
}

impl Cursor {
    /// Whether the first chunk is dealt with; if so, the cursor is as it stands without it.
    pub(super) fn leave(&mut self, first: &Chunk) -> bool {
        if self.chunk > 0 {
            self.chunk -= 1;
            return true;
        }
        if self.record >= first.len() {
            self.record = 0;
            return true;
        }
        false
    }

    fn next(self, pending: &VecDeque<Chunk>) -> Option<(Record<'_>, u32, Self)> {
        let Self { mut chunk, mut record } = self;
        loop {
            if let Some((found, epoch)) = pending.get(chunk)?.get(record) {
                return Some((found, epoch, Self { chunk, record: record + 1 }));
            }
            chunk += 1;
            record = 0;
        }
    }
}

/// A batch, and the place behind its last record.
pub(super) struct Built<'a> {
    pub(super) batch: Batch<'a>,
    pub(super) end: Cursor,
    pub(super) bytes: usize,
}

/// Takes records from `start` on, up to `limits`. `refused` is why PostgreSQL does not take the
/// first of them.
pub(super) fn build<'a>(
    pending: &'a VecDeque<Chunk>,
    start: Cursor,
    partitions: &mut Partitions,
    limits: Limits,
    partition_count: u32,
    refused: Option<&Rejection>,
) -> Result<Built<'a>, Halt> {
    let mut batch = Batch {
        generation: partitions.generation(),
        advances: Vec::new(),
        records: Vec::new(),
        events: Vec::new(),
        rejected: Vec::new(),
        held: Vec::new(),
        traceparent: None,
    };
    let mut advances = BTreeMap::new();
    let (mut end, mut bytes) = (start, 0);
    while batch.records.len() < limits.records && bytes < limits.bytes {
        let Some((record, epoch, next)) = end.next(pending) else { break };
        match partitions.take(&record, epoch, &mut advances, limits.pass_gaps)? {
            Take::Record => {}
            Take::Skip => {
                end = next;
                continue;
            }
            Take::Gap => {
                if batch.records.is_empty() {
                    partitions.read_again(record.partition);
                }
                break;
            }
        }
        end = next;
        bytes += size(&record);
        let index = batch.records.len();
        let decoded = match refused {
            Some(why) => Err(why.clone()),
            None => decode(&record, partition_count),
        };
        let event_id = match decoded {
            Ok(event) => {
                let event_id = Some(event.event_id);
                let lead = LeadAt { partition: record.partition, lead_id: event.lead_id };
                if partitions.is_held(lead) {
                    batch.held.push(lead);
                }
                batch.events.push((index, event));
                event_id
            }
            Err(why) => {
                batch.rejected.push((index, why));
                event_id_of(record.value)
            }
        };
        if let Some(advance) = advances.get_mut(&record.partition) {
            advance.last_event_id = event_id;
        }
        batch.records.push(record);
        if refused.is_some() {
            break;
        }
    }
    batch.held.sort_unstable();
    batch.held.dedup();
    batch.advances = advances.into_values().collect();
    Ok(Built { batch, end, bytes })
}

fn size(record: &Record<'_>) -> usize {
    record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)
}

/// The time of the first pending record of each partition, in milliseconds since 1970.
pub(super) fn oldest_pending(pending: &VecDeque<Chunk>, start: Cursor) -> BTreeMap<i32, i64> {
    let mut oldest = BTreeMap::new();
    let mut at = start;
    while let Some((record, _, next)) = at.next(pending) {
        if let Some(time) = record.time_millis {
            oldest.entry(record.partition).or_insert(time);
        }
        at = next;
    }
    oldest
}
