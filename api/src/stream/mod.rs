//! The log over HTTP: `GET /api/v1/leads/events`.
//!
//! A stream that is behind reads the log by itself (`replay`) until it is as far as the one reader
//! that all share (`tail`), and then goes on with that. Its [`position`] holds at every moment: all
//! of the workspace's events before it were handed to the connection, in order, and none behind it.

mod config;
mod figures;
mod filter;
mod frame;
pub mod position;
mod queue;
mod replay;
mod session;
mod tail;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use uuid::Uuid;

use crate::broker::{Bounds, LogSource, Questions, Unreachable};
use position::Position;

pub use config::{StreamArgs, StreamConfig};
pub use filter::Types;
pub use session::{Opening, open};

use figures::Figures;
use tail::Tail;

/// The longest a stream from now on waits for the shared reader.
const READY: Duration = Duration::from_secs(5);

/// What all streams of this instance share.
pub struct Streams {
    config: StreamConfig,
    source: LogSource,
    questions: Questions,
    tail: Tail,
    replays: Arc<Semaphore>,
    waiting: AtomicUsize,
    stop: watch::Sender<bool>,
    open: Mutex<Open>,
    figures: Figures,
}

/// The streams that are open.
#[derive(Debug, Default)]
struct Open {
    count: usize,
    by_key: HashMap<Uuid, usize>,
}

/// Why there is no room for another stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// The key has as many as it may: this many.
    Key(usize),
    /// The instance has.
    Instance,
}

/// Why a stream can't begin where it was asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoStart {
    /// The log does not hold everything behind the position any more, or is another one.
    Gone,
    /// The position lies beyond the end of the log.
    Ahead,
    /// The log can't be asked.
    Unreachable,
    /// The process is ending.
    Stopping,
}

impl From<Unreachable> for NoStart {
    fn from(Unreachable: Unreachable) -> Self {
        Self::Unreachable
    }
}

/// Room for a stream, until it is dropped.
pub struct Room {
    streams: Arc<Streams>,
    key_id: Uuid,
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut open = self.streams.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.count -= 1;
        if let Entry::Occupied(mut of_key) = open.by_key.entry(self.key_id) {
            *of_key.get_mut() -= 1;
            if *of_key.get() == 0 {
                of_key.remove();
            }
        }
        self.streams.figures.open(open.count);
    }
}

impl Streams {
    /// Starts the threads; none of them reads before somebody listens.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(config: StreamConfig, source: LogSource) -> std::io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            questions: Questions::start(source.clone())?,
            tail: Tail::start(source.clone(), config.buffer)?,
            source,
            replays: Arc::new(Semaphore::new(config.replays)),
            waiting: AtomicUsize::new(0),
            stop: watch::Sender::new(false),
            open: Mutex::default(),
            figures: Figures::new(),
            config,
        }))
    }

    /// Ends all streams, each with its position, and those that come from now on as soon.
    pub fn stop(&self) {
        self.stop.send_replace(true);
        self.tail.stop();
    }

    /// The longest time for a reader to take what was written.
    pub fn write_timeout(&self) -> Duration {
        self.config.write_timeout
    }

    /// Takes room for a stream.
    ///
    /// # Errors
    /// See [`Full`].
    pub fn enter(self: &Arc<Self>, key_id: Uuid) -> Result<Room, Full> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.count >= self.config.most {
            return Err(Full::Instance);
        }
        let of_key = open.by_key.entry(key_id).or_default();
        if *of_key >= self.config.most_of_key {
            return Err(Full::Key(self.config.most_of_key));
        }
        *of_key += 1;
        open.count += 1;
        self.figures.open(open.count);
        Ok(Room { streams: Arc::clone(self), key_id })
    }

    /// The position before everything that the log holds.
    ///
    /// # Errors
    /// [`NoStart::Unreachable`].
    pub async fn beginning(&self) -> Result<Position, NoStart> {
        Ok(Position::at(self.questions.bounds().await?.starts))
    }

    /// The position before everything that came at that time or later.
    ///
    /// # Errors
    /// [`NoStart::Unreachable`].
    pub async fn at_time(&self, unix_millis: i64) -> Result<Position, NoStart> {
        Ok(Position::at(self.questions.at_time(unix_millis).await?))
    }

    /// Checks that the log goes on at a position.
    ///
    /// # Errors
    /// See [`NoStart`].
    pub async fn check(&self, position: &Position) -> Result<(), NoStart> {
        let Bounds { starts, ends } = self.questions.bounds().await?;
        let next = position.next();
        if next.len() != starts.len() || next.iter().zip(&starts).any(|(next, start)| next < start)
        {
            return Err(NoStart::Gone);
        }
        if next.iter().zip(&ends).any(|(next, end)| next > end) {
            return Err(NoStart::Ahead);
        }
        let Some((mark, offset)) = position.mark() else { return Ok(()) };
        if starts.get(mark.partition).is_none_or(|start| offset < *start) {
            // Its record was the last one that retention took: nothing behind it is missing.
            return Ok(());
        }
        match self.questions.id_at(mark.partition, offset).await? {
            Some(id) if id == mark.id => Ok(()),
            Some(_) | None => Err(NoStart::Gone),
        }
    }

    /// The log that the streams read.
    pub fn source(&self) -> &LogSource {
        &self.source
    }

    /// A turn to read the log. Turns are taken in the order in which they were asked for.
    pub async fn turn(&self) -> Option<OwnedSemaphorePermit> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        Arc::clone(&self.replays).acquire_owned().await.ok()
    }

    /// Whether others wait for a turn.
    fn others_wait(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }
}
