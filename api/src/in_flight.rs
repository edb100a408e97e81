//! What was handed to the broker and is not answered for yet: count, bytes and age.
//!
//! A permit is owned by the delivery report, not by the request: a client that goes away does not
//! take its record out of the producer's queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Length of one slot of the age ring.
const SLOT: Duration = Duration::from_millis(250);
/// Slots of the ring: 32 s, beyond any `PUBLISH_TIMEOUT` that the configuration takes.
const SLOTS: usize = 128;

/// The counters, shared by all publishes of the process.
#[derive(Debug)]
pub struct InFlight {
    max_count: usize,
    max_bytes: usize,
    count: AtomicUsize,
    bytes: AtomicUsize,
    start: Instant,
    /// How many are in flight, by the slot in which they began: the oldest is found without a lock
    /// and without a list.
    by_slot: [AtomicU64; SLOTS],
}

/// One publish in flight; ends when it is dropped.
#[derive(Debug)]
pub struct Permit {
    owner: Arc<InFlight>,
    bytes: usize,
    slot: usize,
}

impl InFlight {
    /// Bounds in count and bytes; both at least 1.
    pub fn new(max_count: usize, max_bytes: usize) -> Arc<Self> {
        Arc::new(Self {
            max_count,
            max_bytes,
            count: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            start: Instant::now(),
            by_slot: std::array::from_fn(|_| AtomicU64::new(0)),
        })
    }

    /// The bounds, in count and bytes.
    pub fn bounds(&self) -> (usize, usize) {
        (self.max_count, self.max_bytes)
    }

    /// Takes a place for `bytes`, or `None` when a bound is reached.
    pub fn enter(self: &Arc<Self>, bytes: usize) -> Option<Permit> {
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let slot = self.current_slot() % SLOTS;
        self.by_slot[slot].fetch_add(1, Ordering::Relaxed);
        let permit = Permit { owner: Arc::clone(self), bytes, slot };
        // One that is refused gives everything back by being dropped here.
        (count <= self.max_count && total <= self.max_bytes).then_some(permit)
    }

    /// Publishes in flight.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes in flight, keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Age of the oldest publish in flight, to a quarter of a second; zero when there is none.
    pub fn oldest(&self) -> Duration {
        if self.count() == 0 {
            return Duration::ZERO;
        }
        let now = self.current_slot();
        let age = (1..SLOTS).rev().find(|age| {
            *age <= now && self.by_slot[(now - age) % SLOTS].load(Ordering::Relaxed) > 0
        });
        SLOT * u32::try_from(age.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    fn current_slot(&self) -> usize {
        usize::try_from(self.start.elapsed().as_millis() / SLOT.as_millis()).unwrap_or(usize::MAX)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.owner.count.fetch_sub(1, Ordering::Relaxed);
        self.owner.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.owner.by_slot[self.slot].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bounds_hold_and_a_refusal_leaves_nothing_behind() {
        let in_flight = InFlight::new(2, 100);
        let first = in_flight.enter(60).unwrap();
        assert!(in_flight.enter(60).is_none(), "bytes");
        let second = in_flight.enter(40).unwrap();
        assert!(in_flight.enter(0).is_none(), "count");
        assert_eq!((in_flight.count(), in_flight.bytes()), (2, 100));
        drop((first, second));
        assert_eq!((in_flight.count(), in_flight.bytes()), (0, 0));
        assert_eq!(in_flight.oldest(), Duration::ZERO);
    }
}
