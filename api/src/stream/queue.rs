//! What waits for one stream at the end of the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use super::filter::Types;
use super::position::Position;

/// An event at the end of the log.
#[derive(Debug)]
pub(super) struct TailEvent {
    pub(super) partition: usize,
    pub(super) offset: i64,
    /// Checksum of its id.
    pub(super) id: u32,
    /// See [`super::frame::write_body`].
    pub(super) body: Bytes,
}

/// What a stream takes from its queue.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) events: VecDeque<Arc<TailEvent>>,
    /// How far the log was read at least when the last of the events came.
    pub(super) progress: Option<Arc<Position>>,
    /// Nothing more comes.
    pub(super) over: Option<Over>,
}

/// Why nothing more comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The queue was full.
    TooSlow,
    /// The log does not go on where it was.
    LogChanged,
}

/// One stream at the end of the log.
#[derive(Debug)]
pub(super) struct Subscriber {
    types: Types,
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    /// Everything from here on comes; `None` until the reader runs.
    start: Option<Position>,
    bytes: usize,
    taken: Taken,
}

impl Subscriber {
    pub(super) fn new(types: Types) -> Self {
        Self { types, queue: Mutex::default(), news: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn takes(&self, event_type: &str) -> bool {
        self.types.take(event_type)
    }

    /// Everything from `place` on comes, if that was not told before.
    pub(super) fn start_at(&self, place: &Position) {
        self.queue().start.get_or_insert_with(|| place.clone());
        self.news.notify_one();
    }

    /// Adds an event, or ends when more than `buffer` bytes would wait.
    pub(super) fn push(&self, event: &Arc<TailEvent>, buffer: usize) {
        let mut queue = self.queue();
        if queue.taken.over.is_some() {
            return;
        }
        // One event may be larger than the buffer; two that wait may not.
        if queue.bytes > 0 && queue.bytes + event.body.len() > buffer {
            drop(queue);
            return self.end(Over::TooSlow);
        }
        queue.bytes += event.body.len();
        queue.taken.events.push_back(Arc::clone(event));
        drop(queue);
        self.news.notify_one();
    }

    /// All before `place` was added. Not told to one that has ended: it did not get all.
    pub(super) fn note_progress(&self, place: &Arc<Position>) {
        let mut queue = self.queue();
        if queue.taken.over.is_none() {
            queue.taken.progress = Some(Arc::clone(place));
        }
    }

    /// What waits is dropped: the position to resume from is before it.
    pub(super) fn end(&self, over: Over) {
        let mut queue = self.queue();
        queue.taken = Taken { over: Some(over), ..Taken::default() };
        queue.bytes = 0;
        drop(queue);
        self.news.notify_one();
    }

    pub(super) async fn start(&self) -> Position {
        loop {
            if let Some(start) = &self.queue().start {
                return start.clone();
            }
            self.news.notified().await;
        }
    }

    pub(super) async fn next(&self) -> Taken {
        loop {
            if let Some(taken) = self.take() {
                return taken;
            }
            self.news.notified().await;
        }
    }

    fn take(&self) -> Option<Taken> {
        let mut queue = self.queue();
        let over = queue.taken.over;
        if queue.taken.events.is_empty() && over.is_none() {
            return None;
        }
        queue.bytes = 0;
        Some(std::mem::replace(&mut queue.taken, Taken { over, ..Taken::default() }))
    }

    pub(super) fn progress(&self) -> Option<Arc<Position>> {
        let mut queue = self.queue();
        if queue.taken.events.is_empty() { queue.taken.progress.take() } else { None }
    }

    pub(super) fn is_over(&self) -> bool {
        self.queue().taken.over.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(offset: i64) -> Arc<TailEvent> {
        Arc::new(TailEvent { partition: 0, offset, id: 0, body: Bytes::from_static(&[0; 10]) })
    }

    #[test]
    fn a_full_queue_ends_one_and_no_other() {
        let (slow, quick) = (Subscriber::new(Types::All), Subscriber::new(Types::All));
        for offset in 0..5 {
            slow.push(&event(offset), 25);
            quick.push(&event(offset), 25);
            assert_eq!(quick.take().unwrap().events[0].offset, offset);
        }
        // What it did not get is not behind it.
        slow.note_progress(&Arc::new(Position::at(vec![5])));
        assert!(slow.progress().is_none());
        let taken = slow.take().unwrap();
        assert_eq!((taken.over, taken.events.len()), (Some(Over::TooSlow), 0));
        assert!(taken.progress.is_none());
        assert!(!quick.is_over());
    }

    #[test]
    fn an_event_larger_than_the_buffer_passes_alone() {
        let subscriber = Subscriber::new(Types::All);
        subscriber.push(&event(0), 5);
        assert_eq!(subscriber.take().unwrap().events.len(), 1);
        subscriber.push(&event(1), 5);
        subscriber.push(&event(2), 5);
        assert!(subscriber.is_over());
    }
}
