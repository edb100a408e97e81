//! The end of the log, read once for all who listen.
//!
//! One thread with one reader, which fetches only while somebody listens. An event is put together
//! once, and shared by the streams of its workspace. Whoever does not take its events in time is
//! marked as too slow and gets no more; nobody waits for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::filter::{Types, owner};
use super::frame::write_body;
use super::position::Position;
use super::queue::{Over, Subscriber, TailEvent, Taken};
use crate::broker::{LogReader, LogRecord, LogSource, Read, ReadAhead, Unreachable};

/// How long the reader stays when nobody listens any more: clients come back after an error.
const LINGER: Duration = Duration::from_secs(30);
/// How often listeners are told how far the log was read, for positions that move without events.
const PROGRESS: Duration = Duration::from_secs(1);
/// How often the brokers are asked whether they are there.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// After this long without a broker the reader is made anew; see [`crate::broker::Broker`].
const GIVE_UP: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(100);
const ANSWER: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
struct State {
    /// How far the reader is, while it runs.
    place: Option<Position>,
    subscribers: HashMap<Uuid, Vec<Arc<Subscriber>>>,
    count: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wanted: Condvar,
    stop: AtomicBool,
    /// Most bytes that wait for a stream.
    buffer: usize,
}

/// The shared reader.
#[derive(Debug)]
pub(super) struct Tail(Arc<Shared>);

/// A stream's place at the tail; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Subscription {
    shared: Arc<Shared>,
    workspace_id: Uuid,
    subscriber: Arc<Subscriber>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    /// Starts the thread; it waits for the first who listens.
    pub(super) fn start(source: LogSource, buffer: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wanted: Condvar::new(),
            stop: AtomicBool::new(false),
            buffer,
        });
        let reading = Arc::clone(&shared);
        thread::Builder::new().name("log-tail".to_owned()).spawn(move || {
            let mut place = None;
            while reading.wait_until_wanted() {
                place = reading.serve(&source, place);
            }
        })?;
        Ok(Self(shared))
    }

    /// Ends the thread.
    pub(super) fn stop(&self) {
        self.0.stop.store(true, Ordering::Relaxed);
        self.0.wanted.notify_all();
    }

    /// From a moment that is yet to be told, see [`Subscription::start`], the workspace's events come.
    pub(super) fn subscribe(&self, workspace_id: Uuid, types: Types) -> Subscription {
        let subscriber = Arc::new(Subscriber::new(types));
        let mut state = locked(&self.0.state);
        if let Some(place) = &state.place {
            subscriber.start_at(place);
        }
        state.subscribers.entry(workspace_id).or_default().push(Arc::clone(&subscriber));
        state.count += 1;
        drop(state);
        self.0.wanted.notify_all();
        Subscription { shared: Arc::clone(&self.0), workspace_id, subscriber }
    }
}

impl Subscription {
    /// The position from which on everything comes.
    pub(super) async fn start(&self) -> Position {
        self.subscriber.start().await
    }

    /// What has come; waits for something.
    pub(super) async fn next(&self) -> Taken {
        self.subscriber.next().await
    }

    /// How far the log was read, when all that came was taken.
    pub(super) fn progress(&self) -> Option<Arc<Position>> {
        self.subscriber.progress()
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.subscriber.is_over()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = locked(&self.shared.state);
        if let Some(all) = state.subscribers.get_mut(&self.workspace_id) {
            all.retain(|other| !Arc::ptr_eq(other, &self.subscriber));
            if all.is_empty() {
                state.subscribers.remove(&self.workspace_id);
            }
        }
        state.count -= 1;
    }
}

impl Shared {
    /// Whether somebody listens, or the end has come.
    fn wait_until_wanted(&self) -> bool {
        let mut state = locked(&self.state);
        while state.count == 0 && !self.stop.load(Ordering::Relaxed) {
            state = self.wanted.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        !self.stop.load(Ordering::Relaxed)
    }

    /// Reads with one client, on from `place` or from the end. Gives the place to go on from with the
    /// next one, when those who listen rely on it.
    fn serve(&self, source: &LogSource, place: Option<Position>) -> Option<Position> {
        let begin = || {
            let reader = LogReader::open(source, ReadAhead::Much).map_err(|_| Unreachable)?;
            let start = place.clone().map_or_else(|| end_of(&reader), Ok)?;
            reader.read_from(start.next())?;
            Ok::<_, Unreachable>((reader, start))
        };
        let Ok((reader, start)) = begin() else {
            thread::sleep(POLL);
            return place;
        };
        self.tell_start(start);
        match self.read(&reader) {
            Ended::NotWanted => {
                // Under the lock: who comes now finds no place, and wakes the thread.
                let mut state = locked(&self.state);
                let place = state.place.take();
                if state.count == 0 { None } else { place }
            }
            Ended::Lost => locked(&self.state).place.clone(),
            Ended::Gone => {
                let mut state = locked(&self.state);
                state.place = None;
                for subscriber in state.subscribers.values().flatten() {
                    subscriber.end(Over::LogChanged);
                }
                None
            }
        }
    }

    fn tell_start(&self, start: Position) {
        let mut state = locked(&self.state);
        for subscriber in state.subscribers.values().flatten() {
            subscriber.start_at(&start);
        }
        state.place = Some(start);
    }

    fn read(&self, reader: &LogReader) -> Ended {
        let (mut reached, mut asked) = (Instant::now(), Instant::now());
        let (mut wanted, mut told) = (Instant::now(), Instant::now());
        let mut scratch = BytesMut::new();
        while !self.stop.load(Ordering::Relaxed) {
            match reader.poll(POLL) {
                Read::Record(record) => {
                    reached = Instant::now();
                    self.pass_on(&record, &mut scratch);
                }
                Read::Gone => return Ended::Gone,
                Read::End(_) | Read::Nothing | Read::Trouble => {}
            }
            if told.elapsed() > PROGRESS {
                told = Instant::now();
                if self.tell_progress() {
                    wanted = told;
                } else if wanted.elapsed() > LINGER {
                    return Ended::NotWanted;
                }
            }
            if asked.elapsed() > ASK_EVERY {
                if reader.partitions(ANSWER).is_ok() {
                    reached = Instant::now();
                } else if reached.elapsed() > GIVE_UP {
                    return Ended::Lost;
                }
                asked = Instant::now();
            }
        }
        Ended::NotWanted
    }

    fn pass_on(&self, record: &LogRecord<'_>, scratch: &mut BytesMut) {
        let (partition, offset) = (record.partition(), record.offset());
        let (attributes, value) = (record.attributes(), record.value());
        let id = attributes.id_checksum(value);
        let mut state = locked(&self.state);
        if let Some(place) = &mut state.place {
            place.see(partition, offset, id);
        }
        if state.count == 0 {
            return;
        }
        let Some((workspace_id, event_type)) = owner(&attributes, value) else { return };
        let Some(listeners) = state.subscribers.get(&workspace_id) else { return };
        let mut listeners = listeners.iter().filter(|it| it.takes(&event_type)).peekable();
        if listeners.peek().is_none() {
            return;
        }
        write_body(&event_type, value.unwrap_or_default(), scratch);
        // A copy of its own, so that an event that waits keeps no more than itself.
        let body = Bytes::copy_from_slice(scratch);
        scratch.clear();
        let event = Arc::new(TailEvent { partition, offset, id, body });
        for listener in listeners {
            listener.push(&event, self.buffer);
        }
    }

    /// Whether anybody listens.
    fn tell_progress(&self) -> bool {
        let state = locked(&self.state);
        if let Some(place) = state.place.as_ref().filter(|_| state.count > 0) {
            let place = Arc::new(place.clone());
            for subscriber in state.subscribers.values().flatten() {
                subscriber.note_progress(&place);
            }
        }
        state.count > 0
    }
}

enum Ended {
    /// Nobody listens, or the process ends.
    NotWanted,
    /// The client has lost its brokers.
    Lost,
    /// The log does not hold the place any more.
    Gone,
}

fn end_of(reader: &LogReader) -> Result<Position, Unreachable> {
    let partitions = reader.partitions(ANSWER)?;
    reader.ends(partitions, ANSWER).map(Position::at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(buffer: usize) -> Shared {
        let (state, wanted) = (Mutex::default(), Condvar::new());
        Shared { state, wanted, stop: AtomicBool::new(false), buffer }
    }

    #[tokio::test]
    async fn progress_never_overtakes_an_event() {
        let shared = Arc::new(tail(1_000));
        shared.tell_start(Position::at(vec![0]));
        let tail = Tail(Arc::clone(&shared));
        let subscription = tail.subscribe(Uuid::nil(), Types::All);
        assert_eq!(subscription.start().await, Position::at(vec![0]));
        locked(&shared.state).place = Some(Position::at(vec![1]));
        let body = Bytes::from_static(b"data: {}\n\n");
        let event = Arc::new(TailEvent { partition: 0, offset: 0, id: 0, body });
        subscription.subscriber.push(&event, 1_000);
        assert!(shared.tell_progress());
        assert!(subscription.progress().is_none(), "an event waits");
        let taken = subscription.next().await;
        assert_eq!(taken.events.len(), 1);
        assert_eq!(taken.progress.as_deref(), Some(&Position::at(vec![1])));
        drop(subscription);
        assert!(!shared.tell_progress());
        assert!(locked(&shared.state).subscribers.is_empty());
    }
}
