//! How long publishes have waited, by partition, and what follows from it.
//!
//! Each partition has a leader of its own, so one may wait while the others flow. Ages are counted in
//! slots of a quarter of a second: the oldest is found without a lock and without a list.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::partition_set::PartitionSet;

/// A partition with a publish older than this is slow: new leads go to others.
const SLOW_AFTER: Duration = Duration::from_millis(500);
/// A partition with a publish older than this has stopped: nothing more is sent to it until that one
/// is answered for.
const STALLED_AFTER: Duration = Duration::from_secs(2);

/// A slot is a quarter of a second.
const SLOTS_A_SECOND: u64 = 4;
/// Slots of a partition: 32 s, beyond any `PUBLISH_TIMEOUT` that the configuration takes.
const SLOTS: usize = 128;

/// The publishes of a partition, by the slot in which they began.
type Ring = [AtomicU32; SLOTS];

/// Where a publish is counted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted {
    place: usize,
    slot: usize,
}

/// Read for each lead and written four times a second: apart from the counters beside it in
/// [`InFlight`](super::InFlight), which every core writes.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Ages {
    start: Instant,
    /// By place, see [`PartitionSet`].
    begun: Box<[Ring]>,
    /// The slot of the last acknowledgement.
    acknowledged: AtomicU64,
    /// The slot in which the sets below were made; they hold until the next one.
    looked: AtomicU64,
    slow: AtomicU64,
    stalled: AtomicU64,
}

impl Ages {
    pub(super) fn new(start: Instant) -> Self {
        let ring = || std::array::from_fn(|_| AtomicU32::new(0));
        Self {
            start,
            begun: (0..PartitionSet::PLACES).map(|_| ring()).collect(),
            acknowledged: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            slow: AtomicU64::new(0),
            stalled: AtomicU64::new(0),
        }
    }

    pub(super) fn enter(&self, partition: i32, now: Instant) -> Counted {
        let slot = usize::try_from(self.slot(now)).unwrap_or(0) % SLOTS;
        let counted = Counted { place: PartitionSet::place(partition), slot };
        self.begun[counted.place][counted.slot].fetch_add(1, Ordering::Relaxed);
        counted
    }

    pub(super) fn leave(&self, counted: Counted) {
        self.begun[counted.place][counted.slot].fetch_sub(1, Ordering::Relaxed);
    }

    /// The broker has taken something, whatever the partition.
    pub(super) fn acknowledged(&self, now: Instant) {
        let now = self.slot(now);
        if self.acknowledged.load(Ordering::Relaxed) != now {
            self.acknowledged.store(now, Ordering::Relaxed);
        }
    }

    /// The partitions that are slow, those that have stopped included.
    pub(super) fn slow(&self, now: Instant) -> PartitionSet {
        self.look(now);
        PartitionSet::from_bits(self.slow.load(Ordering::Relaxed))
    }

    /// The partitions that have stopped.
    pub(super) fn stalled(&self, now: Instant) -> PartitionSet {
        self.look(now);
        PartitionSet::from_bits(self.stalled.load(Ordering::Relaxed))
    }

    /// Whether it is the broker that has stopped: something waits for too long and nothing was
    /// acknowledged for as long, or in each of `partitions` something waits for too long.
    pub(super) fn all_stalled(&self, now: Instant, partitions: u32) -> bool {
        let stalled = self.stalled(now).len();
        let all = usize::try_from(partitions).unwrap_or(usize::MAX).min(PartitionSet::PLACES);
        let quiet = self.slot(now).saturating_sub(self.acknowledged.load(Ordering::Relaxed));
        stalled > 0 && (stalled >= all || quiet > slots_of(STALLED_AFTER))
    }

    /// Makes the sets anew, once for each slot.
    fn look(&self, now: Instant) {
        let now = self.slot(now);
        // Asked for each lead: mostly this one read.
        if self.looked.load(Ordering::Relaxed) >= now
            || self.looked.fetch_max(now, Ordering::Relaxed) >= now
        {
            return;
        }
        let (mut slow, mut stalled) = (PartitionSet::default(), PartitionSet::default());
        for (place, ring) in self.begun.iter().enumerate() {
            let age = oldest(ring, now);
            if age > slots_of(SLOW_AFTER) {
                slow.insert_place(place);
            }
            if age > slots_of(STALLED_AFTER) {
                stalled.insert_place(place);
            }
        }
        self.slow.store(slow.bits(), Ordering::Relaxed);
        self.stalled.store(stalled.bits(), Ordering::Relaxed);
    }

    /// The slot of a moment; 0 for one before the start.
    fn slot(&self, now: Instant) -> u64 {
        slots_of(now.saturating_duration_since(self.start))
    }
}

/// Age of the oldest publish, in slots.
fn oldest(ring: &Ring, now: u64) -> u64 {
    let longest = now.min(SLOTS as u64 - 1);
    let begun = |age: &u64| {
        let slot = usize::try_from(now - age).unwrap_or(0) % SLOTS;
        ring[slot].load(Ordering::Relaxed) > 0
    };
    (1..=longest).rev().find(begun).unwrap_or(0)
}

fn slots_of(duration: Duration) -> u64 {
    duration.as_secs() * SLOTS_A_SECOND
        + u64::from(duration.subsec_millis()) * SLOTS_A_SECOND / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(partitions: &[i32]) -> PartitionSet {
        partitions.iter().copied().collect()
    }

    #[test]
    fn a_partition_that_waits_is_slow_then_stalled_and_well_when_it_is_answered() {
        let start = Instant::now();
        let ages = Ages::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        let waiting = ages.enter(3, at(100));
        for millis in [200, 700] {
            let answered = ages.enter(4, at(millis));
            ages.leave(answered);
            assert_eq!(ages.slow(at(millis)), set(&[]), "{millis}");
        }
        assert_eq!((ages.slow(at(800)), ages.stalled(at(800))), (set(&[3]), set(&[])));
        assert_eq!(ages.stalled(at(2_000)), set(&[]));
        assert_eq!((ages.slow(at(2_300)), ages.stalled(at(2_300))), (set(&[3]), set(&[3])));
        // Also after the ring has gone round.
        let late = ages.enter(5, at(31_000));
        assert_eq!(ages.stalled(at(31_900)), set(&[3]));
        ages.leave(waiting);
        assert_eq!((ages.slow(at(32_100)), ages.stalled(at(32_100))), (set(&[5]), set(&[])));
        ages.leave(late);
        assert_eq!(ages.slow(at(40_000)), set(&[]));
    }

    #[test]
    fn it_is_the_broker_when_no_partition_is_left() {
        let start = Instant::now();
        let ages = Ages::new(start);
        let late = start + Duration::from_secs(3);
        ages.acknowledged(late);
        for partition in 0..3 {
            assert!(!ages.all_stalled(late, 3), "{partition}");
            ages.enter(partition, start);
            // Looks are a slot apart.
            ages.looked.store(0, Ordering::Relaxed);
        }
        assert!(ages.all_stalled(late, 3) && !ages.all_stalled(late, 4));
        assert!(!ages.all_stalled(late, 96), "of more than are told apart, 64 count");
    }

    #[test]
    fn it_is_the_broker_when_nothing_is_acknowledged() {
        let start = Instant::now();
        let ages = Ages::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        assert!(!ages.all_stalled(at(10_000), 2), "nobody asked anything of it");
        let waiting = ages.enter(0, at(10_000));
        ages.acknowledged(at(12_000));
        assert!(!ages.all_stalled(at(14_100), 2), "another partition was answered");
        assert!(ages.all_stalled(at(14_300), 2));
        ages.acknowledged(at(14_400));
        assert!(!ages.all_stalled(at(14_500), 2));
        ages.leave(waiting);
        assert!(!ages.all_stalled(at(20_000), 2));
    }
}
