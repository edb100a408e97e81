//! Which partition new leads go to.
//!
//! librdkafka sends one request for each partition, so leads spread over twelve partitions at once
//! are twelve small requests: for the broker and for us most of a lead's cost. The partition follows
//! from the key, but the key of a new lead is ours to choose. The partitions take turns, each for
//! about as long as librdkafka lingers, and the leads of one turn travel together. Kafka's own producer does
//! the same for records without a key:
//! <https://cwiki.apache.org/confluence/display/KAFKA/KIP-480%3A+Sticky+Partitioner>.

use std::time::{Duration, Instant};

use leads_shared::partition;
use uuid::Uuid;

use crate::partition_set::PartitionSet;

/// Length of one turn: twice the producer's default `linger.ms`. Twice or half of it costs no more.
const TURN: Duration = Duration::from_millis(2);

/// Ids that are tried for a partition: more than enough.
const IDS: u32 = 8;

/// The turns of one instance.
#[derive(Debug)]
pub(crate) struct Turns {
    start: Instant,
    /// Instances that start together don't all begin with the same partition.
    first: u128,
}

impl Turns {
    /// Starts with a partition by chance.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), first: u128::from(rand::random::<u16>()) }
    }

    /// An id in the partition whose turn it is, or in the next one that is not to be avoided; any
    /// id while `partitions` is 0, not known yet. When all are to be avoided, they take turns.
    pub(crate) fn new_id(&self, now: Instant, partitions: u32, avoid: PartitionSet) -> Uuid {
        let micros = now.saturating_duration_since(self.start).as_micros();
        let turn = self.first + micros / TURN.as_micros();
        let of_turn = |turn: u128| turn.checked_rem(partitions.into())?.try_into().ok();
        let Some(own) = of_turn(turn) else { return Uuid::now_v7() };
        let is_well = |partition: &u32| !avoid.contains(i32::try_from(*partition).unwrap_or(0));
        let mut others = (0..u128::from(partitions)).filter_map(|later| of_turn(turn + later));
        let partition = if is_well(&own) { own } else { others.find(is_well).unwrap_or(own) };
        // The first will do, but for one in some thousands.
        let mut ids = (0..IDS).map(|_| Uuid::now_v7());
        let placed = ids.find_map(|id| partition::place(id, partition, partitions));
        placed.unwrap_or_else(Uuid::now_v7)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The partitions that twelve turns, one after the other, give new leads to.
    fn twelve_turns(avoid: &[i32]) -> BTreeSet<i32> {
        let turns = Turns::new();
        let ids = (0..12).map(|turn| {
            turns.new_id(turns.start + TURN * turn, 12, avoid.iter().copied().collect())
        });
        ids.map(|id| partition::of_key(id.to_string().as_bytes(), 12)).collect()
    }

    #[test]
    fn each_partition_has_its_turn_and_those_to_avoid_have_none() {
        let all = || 0..12;
        assert_eq!(twelve_turns(&[]), all().collect());
        assert_eq!(twelve_turns(&[0, 1, 7]), all().filter(|it| ![0, 1, 7].contains(it)).collect());
        assert_eq!(twelve_turns(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]), BTreeSet::from([9]));
        let avoid: Vec<_> = all().collect();
        assert_eq!(twelve_turns(&avoid), all().collect(), "there is no better one");
    }

    #[test]
    fn while_the_partitions_are_not_known_any_id_will_do() {
        let turns = Turns::new();
        assert_eq!(turns.new_id(turns.start, 0, PartitionSet::default()).get_version_num(), 7);
    }
}
