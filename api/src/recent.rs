//! The recent creations under an idempotency key, so that a retry is answered as the first was.
//!
//! A convenience of this instance: what makes a retry harmless everywhere is the lead's id, which
//! follows from workspace and key.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use uuid::Uuid;

use crate::broker::Position;

/// How long an answer is kept.
const KEPT_FOR: Duration = Duration::from_hours(24);
/// What an entry takes besides its lead, about.
const OVERHEAD: usize = 256;

/// The digest of a lead's validated content: what "the same body" means.
pub type Content = [u8; 32];

/// An answer that can be given again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Where the event stands.
    pub position: Position,
    /// The lead, in JSON.
    pub lead: Bytes,
}

/// What is known of a key.
#[derive(Debug)]
pub enum Begin {
    /// Nothing: publish, and tell the ticket.
    First(Ticket),
    /// It was answered so.
    Stored(Stored),
    /// The same is under way here: wait until it ends, then ask again.
    UnderWay(watch::Receiver<()>),
    /// It came with another body.
    Reused,
}

/// The keys of this instance, bounded in bytes and in time.
#[derive(Debug)]
pub struct Recent {
    max_bytes: usize,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By the lead's id, which stands for workspace and key.
    entries: HashMap<Uuid, Entry>,
    /// Answered ones, oldest first.
    answered: VecDeque<(Uuid, Instant)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    content: Content,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Ends when the sender is dropped.
    UnderWay(watch::Sender<()>),
    Answered(Stored),
}

/// The right to publish under a key. Dropped without an answer, the next one may.
#[derive(Debug)]
pub struct Ticket {
    recent: Arc<Recent>,
    lead_id: Uuid,
    answered: bool,
}

impl Recent {
    /// Keeps so many bytes of answers; 0 keeps none.
    pub fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(Self { max_bytes, known: Mutex::default() })
    }

    /// Looks up a key, by the id of its lead, as of `now`.
    pub fn begin(self: &Arc<Self>, lead_id: Uuid, content: Content, now: Instant) -> Begin {
        let mut known = self.locked();
        known.forget_old(now);
        if let Some(entry) = known.entries.get(&lead_id) {
            return match &entry.state {
                _ if entry.content != content => Begin::Reused,
                State::UnderWay(end) => Begin::UnderWay(end.subscribe()),
                State::Answered(stored) => Begin::Stored(stored.clone()),
            };
        }
        let state = State::UnderWay(watch::Sender::new(()));
        known.entries.insert(lead_id, Entry { content, state });
        Begin::First(Ticket { recent: Arc::clone(self), lead_id, answered: false })
    }

    /// Bytes of the answers that are kept, about.
    pub fn bytes(&self) -> usize {
        self.locked().bytes
    }

    fn locked(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn forget_old(&mut self, now: Instant) {
        while let Some((lead_id, at)) = self.answered.front().copied()
            && now.saturating_duration_since(at) >= KEPT_FOR
        {
            self.answered.pop_front();
            self.forget(lead_id);
        }
    }

    fn forget(&mut self, lead_id: Uuid) {
        if let Some(Entry { state: State::Answered(stored), .. }) = self.entries.remove(&lead_id) {
            self.bytes -= stored.lead.len() + OVERHEAD;
        }
    }
}

impl Ticket {
    /// Keeps the answer, and lets go of the oldest ones for it.
    pub fn answer(mut self, stored: Stored, now: Instant) {
        self.answered = true;
        let mut known = self.recent.locked();
        let size = stored.lead.len() + OVERHEAD;
        let Some(entry) = known.entries.get_mut(&self.lead_id) else { return };
        // The sender that this drops wakes who waits.
        entry.state = State::Answered(stored);
        known.bytes += size;
        known.answered.push_back((self.lead_id, now));
        while known.bytes > self.recent.max_bytes
            && let Some((oldest, _)) = known.answered.pop_front()
        {
            known.forget(oldest);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.answered {
            self.recent.locked().entries.remove(&self.lead_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    fn stored(bytes: usize) -> Stored {
        Stored {
            position: Position { partition: 0, offset: 1 },
            lead: Bytes::from(vec![b'x'; bytes]),
        }
    }

    fn first(recent: &Arc<Recent>, lead_id: Uuid, now: Instant) -> Ticket {
        match recent.begin(lead_id, [0; 32], now) {
            Begin::First(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_retry_has_the_answer_of_the_first_for_a_day() {
        let (recent, now) = (Recent::new(10_000), Instant::now());
        first(&recent, A, now).answer(stored(10), now);
        let hour = now + Duration::from_hours(1);
        assert!(
            matches!(recent.begin(A, [0; 32], hour), Begin::Stored(found) if found == stored(10))
        );
        assert!(matches!(recent.begin(A, [1; 32], hour), Begin::Reused));
        let later = now + KEPT_FOR;
        assert!(matches!(recent.begin(A, [1; 32], later), Begin::First(_)));
        assert_eq!(recent.bytes(), 0);
    }

    #[test]
    fn the_same_key_under_way_waits_and_another_body_does_not() {
        let (recent, now) = (Recent::new(10_000), Instant::now());
        let ticket = first(&recent, A, now);
        let Begin::UnderWay(mut end) = recent.begin(A, [0; 32], now) else { panic!("it waits") };
        assert!(matches!(recent.begin(A, [1; 32], now), Begin::Reused));
        assert!(end.has_changed().is_ok(), "it goes on");
        drop(ticket);
        assert!(end.has_changed().is_err(), "it has ended, without an answer");
        end.mark_unchanged();
        let _ = first(&recent, A, now);
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_goes_first() {
        let (recent, now) = (Recent::new(2 * (100 + OVERHEAD)), Instant::now());
        for lead_id in [A, B, Uuid::from_u128(3)] {
            first(&recent, lead_id, now).answer(stored(100), now);
        }
        assert_eq!(recent.bytes(), 2 * (100 + OVERHEAD));
        assert!(matches!(recent.begin(B, [0; 32], now), Begin::Stored(_)));
        assert!(matches!(recent.begin(A, [0; 32], now), Begin::First(_)));
        let none = Recent::new(0);
        first(&none, A, now).answer(stored(1), now);
        assert!(matches!(none.begin(A, [0; 32], now), Begin::First(_)));
    }
}
