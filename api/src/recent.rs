//! The recent creations under an idempotency key, so that a retry is answered as the first was.
//!
//! A convenience of this instance: what makes a retry harmless everywhere is the lead's id, which
//! follows from workspace and key.

use std::collections::hash_map::Entry as MapEntry;
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
    /// The lead, in JSON: of its own, or a part of those that are kept, and let go, with it.
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
    /// Ends when the sender is dropped. Most often nobody waits, and there is none.
    UnderWay(Option<watch::Sender<()>>),
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
        match known.entries.entry(lead_id) {
            MapEntry::Vacant(vacant) => {
                vacant.insert(Entry { content, state: State::UnderWay(None) });
                Begin::First(Ticket { recent: Arc::clone(self), lead_id, answered: false })
            }
            MapEntry::Occupied(mut occupied) => {
                let entry = occupied.get_mut();
                match &mut entry.state {
                    _ if entry.content != content => Begin::Reused,
                    State::UnderWay(end) => {
                        let end = end.get_or_insert_with(|| watch::Sender::new(()));
                        Begin::UnderWay(end.subscribe())
                    }
                    State::Answered(stored) => Begin::Stored(stored.clone()),
                }
            }
        }
    }

    /// Keeps the answers of leads that were taken in together, and lets go of the oldest ones for them.
    pub fn answer(&self, answers: impl IntoIterator<Item = (Ticket, Stored)>, now: Instant) {
        let mut known = self.locked();
        for (mut ticket, stored) in answers {
            ticket.answered = true;
            known.answer(ticket.lead_id, stored, now, self.max_bytes);
        }
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
    fn answer(&mut self, lead_id: Uuid, stored: Stored, now: Instant, max_bytes: usize) {
        let size = stored.lead.len() + OVERHEAD;
        let Some(entry) = self.entries.get_mut(&lead_id) else { return };
        // The sender that this drops wakes who waits.
        entry.state = State::Answered(stored);
        self.bytes += size;
        self.answered.push_back((lead_id, now));
        while self.bytes > max_bytes
            && let Some((oldest, _)) = self.answered.pop_front()
        {
            self.forget(oldest);
        }
    }

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
        recent.answer([(first(&recent, A, now), stored(10))], now);
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
        let Begin::UnderWay(other) = recent.begin(A, [0; 32], now) else { panic!("it waits too") };
        assert!(matches!(recent.begin(A, [1; 32], now), Begin::Reused));
        assert!(end.has_changed().is_ok() && other.has_changed().is_ok(), "it goes on");
        drop(ticket);
        assert!(end.has_changed().is_err(), "it has ended, without an answer");
        assert!(other.has_changed().is_err(), "for whoever waits");
        end.mark_unchanged();
        let _ = first(&recent, A, now);
    }

    #[test]
    fn bytes_are_bounded_and_the_oldest_goes_first() {
        let (recent, now) = (Recent::new(2 * (100 + OVERHEAD)), Instant::now());
        let answers = [A, B, Uuid::from_u128(3)].map(|id| (first(&recent, id, now), stored(100)));
        recent.answer(answers, now);
        assert_eq!(recent.bytes(), 2 * (100 + OVERHEAD));
        assert!(matches!(recent.begin(B, [0; 32], now), Begin::Stored(_)));
        assert!(matches!(recent.begin(A, [0; 32], now), Begin::First(_)));
        let none = Recent::new(0);
        none.answer([(first(&none, A, now), stored(1))], now);
        assert!(matches!(none.begin(A, [0; 32], now), Begin::First(_)));
    }
}
