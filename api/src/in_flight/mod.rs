//! What was handed to the broker and is not answered for yet: count and bytes, for the process and
//! for each key; age, for each partition.
//!
//! A permit is owned by the delivery report, not by the request: a client that goes away does not
//! take its record out of the producer's queue.
//!
//! A key may take a place while it holds less than `SHARE_FACTOR` times what is free. Alone it has
//! eight ninths of the room; the more keys press, the less each may hold, and some room is free for
//! whoever comes next. The rule needs no list of keys and no count of them.
//! Source: Choudhury, Hahne, *Dynamic Queue Length Thresholds for Shared-Memory Packet Switches*,
//! IEEE/ACM Transactions on Networking 6 (2), 1998.

mod ages;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::partition_set::PartitionSet;
use ages::{Ages, Counted};

/// How much of the free room a key may hold. The room for newcomers is one part in `1 + n` times
/// this, with `n` keys that press.
const SHARE_FACTOR: u64 = 8;

/// The counters, shared by all publishes of the process.
#[derive(Debug)]
pub struct InFlight {
    max: Load,
    total: AtomicLoad,
    ages: Ages,
}

/// What one key has in flight.
#[derive(Debug, Default)]
pub struct Share(AtomicLoad);

/// One publish in flight; ends when it is dropped.
#[derive(Debug)]
pub struct Permit {
    owner: Arc<InFlight>,
    share: Arc<Share>,
    load: Load,
    counted: Counted,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// A bound of the process is reached.
    Full,
    /// There is room, but not for a key that holds this much of it.
    Share,
}

impl InFlight {
    /// Bounds in count and bytes; both at least 1.
    pub fn new(max_count: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max: Load::new(max_count, max_bytes),
            total: AtomicLoad::default(),
            ages: Ages::new(Instant::now()),
        })
    }

    /// The bounds, in count and bytes.
    pub fn bounds(&self) -> (u64, u64) {
        (self.max.count, self.max.bytes)
    }

    /// Takes a place for `bytes` on their way to a partition, on behalf of the key that `share`
    /// belongs to.
    ///
    /// # Errors
    /// When there is no place; nothing is taken then.
    pub fn enter(
        self: &Arc<Self>,
        share: &Arc<Share>,
        bytes: usize,
        partition: i32,
        now: Instant,
    ) -> Result<Permit, Refused> {
        let load = Load::new(1, bytes);
        if load.bytes > self.max.bytes {
            return Err(Refused::Full);
        }
        // Counted before it is judged: of two at once by one key, one sees the other.
        let held = share.0.add(load);
        if let Err(refused) = self.total.add_if(load, |total| self.judge(total, held, load)) {
            share.0.subtract(load);
            return Err(refused);
        }
        let counted = self.ages.enter(partition, now);
        Ok(Permit { owner: Arc::clone(self), share: Arc::clone(share), load, counted })
    }

    fn judge(&self, total: Load, held: Load, wanted: Load) -> Result<(), Refused> {
        let free = Load {
            count: self.max.count.saturating_sub(total.count),
            bytes: self.max.bytes.saturating_sub(total.bytes),
        };
        if free.count < wanted.count || free.bytes < wanted.bytes {
            return Err(Refused::Full);
        }
        let over = |held: u64, free: u64| held > 0 && held >= free.saturating_mul(SHARE_FACTOR);
        if over(held.count, free.count) || over(held.bytes, free.bytes) {
            return Err(Refused::Share);
        }
        Ok(())
    }

    /// Publishes in flight.
    pub fn count(&self) -> usize {
        usize::try_from(self.total.load().count).unwrap_or(usize::MAX)
    }

    /// Bytes in flight, of the values.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.total.load().bytes).unwrap_or(usize::MAX)
    }

    /// The partitions where something waits for more than half a second; to a quarter of a second.
    pub fn slow(&self, now: Instant) -> PartitionSet {
        self.ages.slow(now)
    }

    /// The partitions where something waits for more than two seconds.
    pub fn stalled(&self, now: Instant) -> PartitionSet {
        self.ages.stalled(now)
    }

    /// Whether something waits for more than two seconds and nothing was acknowledged meanwhile, or
    /// something does in each of `partitions`.
    pub fn all_stalled(&self, now: Instant, partitions: u32) -> bool {
        self.ages.all_stalled(now, partitions)
    }
}

impl Permit {
    /// The broker has what this permit was for, since `at`.
    pub fn acknowledged(&self, at: Instant) {
        self.owner.ages.acknowledged(at);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.owner.total.subtract(self.load);
        self.share.0.subtract(self.load);
        self.owner.ages.leave(self.counted);
    }
}

/// A number of publishes and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Load {
    count: u64,
    bytes: u64,
}

impl Load {
    /// Bits of the bytes. Half of what they could count is left to those that are counted and then
    /// refused.
    const BYTES: u32 = 40;
    const MAX_BYTES: u64 = (1 << (Self::BYTES - 1)) - 1;
    const MAX_COUNT: u64 = (1 << (u64::BITS - Self::BYTES - 1)) - 1;

    /// Clamped to half a TiB and eight million publishes.
    fn new(count: usize, bytes: usize) -> Self {
        Self {
            count: u64::try_from(count).map_or(Self::MAX_COUNT, |n| n.min(Self::MAX_COUNT)),
            bytes: u64::try_from(bytes).map_or(Self::MAX_BYTES, |n| n.min(Self::MAX_BYTES)),
        }
    }

    fn pack(self) -> u64 {
        self.count << Self::BYTES | self.bytes
    }

    fn unpack(word: u64) -> Self {
        Self { count: word >> Self::BYTES, bytes: word & ((1 << Self::BYTES) - 1) }
    }
}

/// A load in one word, so that count and bytes are judged and changed together.
#[derive(Debug, Default)]
struct AtomicLoad(AtomicU64);

impl AtomicLoad {
    fn load(&self) -> Load {
        Load::unpack(self.0.load(Ordering::Relaxed))
    }

    /// Gives what was there before.
    fn add(&self, load: Load) -> Load {
        Load::unpack(self.0.fetch_add(load.pack(), Ordering::Relaxed))
    }

    fn subtract(&self, load: Load) {
        self.0.fetch_sub(load.pack(), Ordering::Relaxed);
    }

    fn add_if<E>(&self, load: Load, judge: impl Fn(Load) -> Result<(), E>) -> Result<(), E> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            judge(Load::unpack(word))?;
            let next = word + load.pack();
            match self.0.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Ok(()),
                Err(found) => word = found,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn key() -> Arc<Share> {
        Arc::default()
    }

    fn enter(in_flight: &Arc<InFlight>, key: &Arc<Share>, bytes: usize) -> Result<Permit, Refused> {
        in_flight.enter(key, bytes, 0, Instant::now())
    }

    /// Takes places of one byte until none is given.
    fn flood(in_flight: &Arc<InFlight>, key: &Arc<Share>) -> Vec<Permit> {
        std::iter::from_fn(|| enter(in_flight, key, 1).ok()).collect()
    }

    #[test]
    fn both_bounds_hold_and_a_refusal_leaves_nothing_behind() {
        let in_flight = InFlight::new(2, 100);
        let (one, two, three) = (key(), key(), key());
        let first = enter(&in_flight, &one, 60).unwrap();
        assert_eq!(enter(&in_flight, &two, 60).unwrap_err(), Refused::Full, "bytes");
        let second = enter(&in_flight, &two, 40).unwrap();
        assert_eq!(enter(&in_flight, &three, 0).unwrap_err(), Refused::Full, "count");
        assert_eq!((in_flight.count(), in_flight.bytes()), (2, 100));
        drop((first, second));
        assert_eq!((in_flight.count(), in_flight.bytes()), (0, 0));
        assert!(in_flight.slow(Instant::now() + Duration::from_secs(9)).is_empty());
        assert_eq!(one.0.load(), Load::new(0, 0));
    }

    #[test]
    fn a_record_above_the_bound_is_refused_and_not_counted() {
        let in_flight = InFlight::new(10, 100);
        assert_eq!(enter(&in_flight, &key(), 101).unwrap_err(), Refused::Full);
        assert_eq!(enter(&in_flight, &key(), usize::MAX).unwrap_err(), Refused::Full);
        assert_eq!((in_flight.count(), in_flight.bytes()), (0, 0));
    }

    #[test]
    fn one_key_alone_has_nearly_all_and_leaves_room() {
        let in_flight = InFlight::new(900, 1 << 20);
        let (loud, quiet) = (key(), key());
        let held = flood(&in_flight, &loud);
        assert_eq!(held.len(), 800);
        assert_eq!(enter(&in_flight, &loud, 1).unwrap_err(), Refused::Share);
        let found: Vec<_> = (0..80).map(|_| enter(&in_flight, &quiet, 1)).collect();
        assert!(found.iter().all(Result::is_ok));
        drop((held, found));
        assert_eq!(in_flight.count(), 0);
    }

    #[test]
    fn bytes_are_shared_as_places_are() {
        let in_flight = InFlight::new(1_000_000, 900);
        let (loud, quiet) = (key(), key());
        let mut held = Vec::new();
        let refused = loop {
            match enter(&in_flight, &loud, 50) {
                Ok(permit) => held.push(permit),
                Err(refused) => break refused,
            }
        };
        assert_eq!((refused, in_flight.bytes()), (Refused::Share, 800));
        assert!(enter(&in_flight, &quiet, 100).is_ok());
    }

    #[test]
    fn a_key_that_holds_more_than_is_its_share_now_is_shed_until_it_is_below() {
        let in_flight = InFlight::new(900, 1 << 20);
        let (first, second) = (key(), key());
        let mut held = flood(&in_flight, &first);
        let other = flood(&in_flight, &second);
        assert_eq!(enter(&in_flight, &first, 1).unwrap_err(), Refused::Share);
        held.truncate(400);
        let more = flood(&in_flight, &second);
        let second_holds = other.len() + more.len();
        assert!((400..=450).contains(&second_holds), "{second_holds}");
    }

    #[test]
    fn threads_never_pass_the_bound_and_all_is_given_back() {
        let in_flight = InFlight::new(64, 6_400);
        let keys = [key(), key(), key()];
        let barrier = Barrier::new(6);
        std::thread::scope(|scope| {
            for number in 0..6 {
                let (in_flight, key, barrier) = (&in_flight, &keys[number % 3], &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut held = Vec::new();
                    for turn in 0..20_000_usize {
                        held.extend(enter(in_flight, key, turn % 200).ok());
                        assert!(in_flight.count() <= 64 && in_flight.bytes() <= 6_400);
                        if turn % 7 == 0 {
                            held.drain(..held.len() / 2);
                        }
                    }
                });
            }
        });
        assert_eq!((in_flight.count(), in_flight.bytes()), (0, 0));
        assert!(keys.iter().all(|key| key.0.load() == Load::new(0, 0)));
    }

    proptest! {
        #[test]
        fn whatever_happens_the_bounds_hold_and_it_ends_at_zero(
            (max_count, max_bytes) in (1_usize..60, 1_usize..4_000),
            steps in prop::collection::vec((0_usize..5, 0_usize..600, any::<bool>()), 0..400),
        ) {
            let in_flight = InFlight::new(max_count, max_bytes);
            let keys: Vec<_> = (0..5).map(|_| key()).collect();
            let mut held: Vec<Vec<(usize, Permit)>> = (0..5).map(|_| Vec::new()).collect();
            for (who, bytes, leaves) in steps {
                if leaves {
                    held[who].pop();
                    continue;
                }
                let count: usize = held.iter().map(Vec::len).sum();
                let total: usize = held.iter().flatten().map(|(bytes, _)| bytes).sum();
                let entered = enter(&in_flight, &keys[who], bytes);
                let fits = count < max_count && total + bytes <= max_bytes;
                prop_assert!(fits || entered.is_err(), "a bound was passed");
                // Who holds nothing finds room wherever there is some.
                if held[who].is_empty() {
                    prop_assert_eq!(entered.is_ok(), fits);
                }
                if let Err(refused) = &entered {
                    prop_assert_eq!(*refused == Refused::Full, !fits);
                }
                held[who].extend(entered.ok().map(|permit| (bytes, permit)));
            }
            drop(held);
            prop_assert_eq!((in_flight.count(), in_flight.bytes()), (0, 0));
            prop_assert!(keys.iter().all(|key| key.0.load() == Load::new(0, 0)));
        }

        /// However many keys press at once, a newcomer finds room while there are ten places a key.
        #[test]
        fn keys_at_their_share_leave_room_for_a_newcomer(
            keys in 1_usize..40,
            places_a_key in 10_usize..100,
        ) {
            let in_flight = InFlight::new(keys * places_a_key, 1 << 30);
            let all: Vec<_> = (0..keys).map(|_| key()).collect();
            let mut held = Vec::new();
            loop {
                let entered = all.iter().filter_map(|key| enter(&in_flight, key, 1).ok());
                let before = held.len();
                held.extend(entered);
                if held.len() == before {
                    break;
                }
            }
            prop_assert!(enter(&in_flight, &key(), 1).is_ok(), "{} are free", keys * places_a_key - held.len());
            let fair = held.len() / keys;
            prop_assert!(all.iter().all(|key| key.0.load().count.abs_diff(fair as u64) <= 1));
        }
    }
}
