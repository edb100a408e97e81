//! Waiting until the projection has passed an offset.
//!
//! Many requests may wait at once; one task asks PostgreSQL for all of them, and only while somebody
//! waits.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::read_model::{ReadModel, ReadModelError};

/// How often the positions are read while somebody waits.
const PAUSE: Duration = Duration::from_millis(4);

/// What was read last; each reading has a number, so that a waiter can tell a reading that began
/// after it came from one that is older.
#[derive(Debug, Clone, Default)]
struct Reading {
    begun: u64,
    positions: Option<Arc<HashMap<i32, i64>>>,
}

/// Shared by all requests of the process.
pub struct ProjectionWait {
    readings: watch::Sender<Reading>,
    waiting: AtomicUsize,
    wake: Notify,
}

impl ProjectionWait {
    /// Starts nothing: see [`ProjectionWait::run`].
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            readings: watch::Sender::new(Reading::default()),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
        })
    }

    /// Reads positions while somebody waits; ends with the task it runs in.
    pub async fn run(&self, read_model: ReadModel) {
        let mut begun = 0;
        loop {
            if self.waiting.load(Ordering::Acquire) == 0 {
                self.wake.notified().await;
            }
            begun += 1;
            let positions = read_model.positions().await.ok().map(Arc::new);
            self.readings.send_replace(Reading { begun, positions });
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until everything before `offset` of `partition` is projected.
    ///
    /// # Errors
    /// [`ReadModelError::Behind`] at the deadline, [`ReadModelError::Unavailable`] as soon as
    /// PostgreSQL can't be asked.
    pub async fn passed(
        &self,
        partition: i32,
        offset: i64,
        deadline: Instant,
    ) -> Result<(), ReadModelError> {
        let _waiting = Waiting::enter(self);
        let mut readings = self.readings.subscribe();
        // A reading that is under way began before this call: positions only grow, so what it
        // shows as passed is passed, but its failure may be an old one.
        let now = readings.borrow_and_update().begun;
        let wait = async {
            loop {
                if readings.changed().await.is_err() {
                    return Err(ReadModelError::Unavailable);
                }
                let reading = readings.borrow_and_update().clone();
                let position =
                    |positions: &HashMap<i32, i64>| positions.get(&partition).copied().unwrap_or(0);
                match reading.positions.as_deref().map(position) {
                    Some(position) if position >= offset => return Ok(()),
                    None if reading.begun > now + 1 => return Err(ReadModelError::Unavailable),
                    Some(_) | None => {}
                }
            }
        };
        tokio::time::timeout_at(deadline, wait).await.unwrap_or(Err(ReadModelError::Behind))
    }
}

/// Counts a waiter, also when its request is dropped.
struct Waiting<'a>(&'a ProjectionWait);

impl<'a> Waiting<'a> {
    fn enter(owner: &'a ProjectionWait) -> Self {
        owner.waiting.fetch_add(1, Ordering::AcqRel);
        owner.wake.notify_one();
        Self(owner)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}
