//! What waits behind a record that was set aside: the later events of its lead, in their order.

use std::collections::HashMap;

use leads_shared::Event;
use uuid::Uuid;

use super::{Reason, Rejection};
use crate::record::Record;

/// A lead where its events stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeadAt {
    /// The partition.
    pub partition: i32,
    /// The lead.
    pub lead_id: Uuid,
}

impl LeadAt {
    /// The lead that a record is about by its key; `None` when the key is no UUID.
    pub fn of(record: &Record<'_>) -> Option<Self> {
        let key = std::str::from_utf8(record.key?).ok()?;
        let lead_id = Uuid::try_parse(key).ok()?;
        Some(Self { partition: record.partition, lead_id })
    }
}

/// Leads that are held, and the offset of the first record that holds each.
pub type Held = HashMap<LeadAt, i64>;

/// Moves the events that have to wait from `events` to `rejected`: those of leads that are `held`
/// already, and those behind a record of the same batch that holds its lead.
pub fn park(
    records: &[Record<'_>],
    events: &mut Vec<(usize, Event<'_>)>,
    rejected: &mut Vec<(usize, Rejection)>,
    held: &Held,
) {
    let holders = holders(records, rejected);
    if held.is_empty() && holders.is_empty() {
        return;
    }
    events.retain(|(index, event)| {
        let Some(record) = records.get(*index) else { return true };
        let lead = LeadAt { partition: record.partition, lead_id: event.lead_id };
        let here = holders.get(&lead).filter(|(holder, _)| holder < index);
        let Some(offset) = held.get(&lead).or(here.map(|(_, offset)| offset)) else { return true };
        rejected.push((*index, behind(lead.partition, *offset)));
        false
    });
}

/// Why a record waits behind the one at `offset`.
pub fn behind(partition: i32, offset: i64) -> Rejection {
    Rejection { reason: Reason::Parked, error: format!("waits behind {partition}:{offset}") }
}

/// The first record that holds each lead: its index and its offset.
fn holders(
    records: &[Record<'_>],
    rejected: &[(usize, Rejection)],
) -> HashMap<LeadAt, (usize, i64)> {
    let mut holders: HashMap<LeadAt, (usize, i64)> = HashMap::new();
    for (index, _) in rejected.iter().filter(|(_, why)| why.reason.holds_lead()) {
        let Some(record) = records.get(*index) else { continue };
        if let Some(lead) = LeadAt::of(record) {
            let first = holders.entry(lead).or_insert((*index, record.offset));
            *first = (*first).min((*index, record.offset));
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use leads_shared::{Changes, Payload, Timestamp};

    use super::*;
    use crate::record::{Chunk, Place};

    const ONE: Uuid = Uuid::from_u128(1);
    const OTHER: Uuid = Uuid::from_u128(2);

    /// Records at partition, and offset 100 and up, with these keys.
    fn log(keys: &[(i32, &str)]) -> Chunk {
        let mut chunk = Chunk::default();
        for (offset, (partition, key)) in (100..).zip(keys) {
            let place = Place { partition: *partition, epoch: 0, offset, time_millis: None };
            chunk.push(place, Some(key.as_bytes()), None, []);
        }
        chunk
    }

    fn event(lead_id: Uuid) -> Event<'static> {
        let changes = Changes::default();
        Event {
            event_id: Uuid::nil(),
            occurred_at: Timestamp::from_unix_millis(0).unwrap(),
            workspace_id: Uuid::nil(),
            lead_id,
            payload: Payload::LeadUpdated { changes, expected_version: None },
        }
    }

    fn why(reason: Reason) -> Rejection {
        Rejection { reason, error: String::new() }
    }

    /// Parks in a batch where the records at `bad` are rejected and all others are events of the
    /// lead that their key names; gives the indices that go on, and those parked with their words.
    fn run(
        keys: &[(i32, &str)],
        bad: &[(usize, Reason)],
        held: &[((i32, Uuid), i64)],
    ) -> (Vec<usize>, Vec<(usize, String)>) {
        let chunk = log(keys);
        let records: Vec<_> = (0..chunk.len()).map(|at| chunk.get(at).unwrap().0).collect();
        let mut rejected: Vec<_> = bad.iter().map(|(at, reason)| (*at, why(*reason))).collect();
        let is_bad = |at: &usize| bad.iter().any(|(bad, _)| bad == at);
        let mut events: Vec<_> = (0..records.len())
            .filter(|at| !is_bad(at))
            .map(|at| (at, event(keys[at].1.parse().unwrap())))
            .collect();
        let held = held
            .iter()
            .map(|((partition, lead_id), offset)| {
                (LeadAt { partition: *partition, lead_id: *lead_id }, *offset)
            })
            .collect();
        park(&records, &mut events, &mut rejected, &held);
        let parked = rejected.split_off(bad.len());
        let parked = parked.into_iter().map(|(index, why)| {
            assert_eq!(why.reason, Reason::Parked);
            (index, why.error)
        });
        (events.into_iter().map(|(index, _)| index).collect(), parked.collect())
    }

    #[test]
    fn later_events_of_the_lead_wait_and_others_go_on() {
        let (one, other) = (ONE.to_string(), OTHER.to_string());
        let keys = [(3, &*one), (3, &*one), (3, &*other), (3, &*one), (3, &*one)];
        let (on, parked) = run(&keys, &[(1, Reason::Undecodable)], &[]);
        assert_eq!(on, [0, 2]);
        let words = "waits behind 3:101".to_owned();
        assert_eq!(parked, [(3, words.clone()), (4, words)]);
    }

    #[test]
    fn a_second_bad_record_waits_for_the_first_and_keeps_its_own_reason() {
        let one = ONE.to_string();
        let bad = [(2, Reason::UnknownType), (0, Reason::Undecodable)];
        let (on, parked) = run(&[(0, &one), (0, &one), (0, &one), (0, &one)], &bad, &[]);
        assert!(on.is_empty());
        let words = "waits behind 0:100".to_owned();
        assert_eq!(parked, [(1, words.clone()), (3, words)]);
    }

    #[test]
    fn a_lead_that_is_held_waits_from_the_start_on_its_partition_alone() {
        let one = ONE.to_string();
        let held = [((1, ONE), 7), ((1, OTHER), 8)];
        let (on, parked) =
            run(&[(1, &one), (2, &one), (1, &one)], &[(2, Reason::UnknownType)], &held);
        assert_eq!((on, parked), (vec![1], vec![(0, "waits behind 1:7".to_owned())]));
    }

    #[test]
    fn what_has_no_effect_or_no_lead_holds_nothing() {
        let one = ONE.to_string();
        for reason in [Reason::WrongPartition, Reason::Inconsistent, Reason::UnknownLead] {
            assert_eq!(run(&[(0, &one), (0, &one)], &[(0, reason)], &[]), (vec![1], vec![]));
        }
        let keys = [(0, "no uuid"), (0, &*one)];
        assert_eq!(run(&keys, &[(0, Reason::Undecodable)], &[]), (vec![1], vec![]));
    }
}
