//! The lanes of a projection side by side: one poll thread, a worker and a connection to PostgreSQL
//! for each. A lane that has to wait, for a lock or for a bad record to be found, holds up no other.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::{Shared, Worker};
use crate::failure::Halt;
use crate::run::RunError;
use crate::source::Membership;
use crate::source::client::Kafka;
use crate::source::consumer::Source;
use crate::store::Store;

/// How long leaving the group may take: the brokers may be away.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

/// The offset of the next record to project, by partition; -1 where it is not known yet.
#[derive(Debug)]
pub struct Progress(Vec<AtomicI64>);

impl Progress {
    /// Of so many partitions.
    pub fn new(partitions: u32) -> Self {
        Self((0..partitions).map(|_| AtomicI64::new(-1)).collect())
    }

    pub(super) fn set(&self, partition: i32, next_offset: i64) {
        let at = usize::try_from(partition).ok().and_then(|partition| self.0.get(partition));
        if let Some(at) = at {
            at.store(next_offset, Ordering::Relaxed);
        }
    }

    /// The next offset of each partition, in their order.
    pub fn next_offsets(&self) -> Vec<i64> {
        self.0.iter().map(|at| at.load(Ordering::Relaxed)).collect()
    }
}

/// Projects in as many lanes as there are `stores`, until `stop` turns true or one of them halts.
///
/// # Errors
/// Settings that librdkafka refuses, or the first halt.
pub async fn run(
    kafka: &Kafka,
    topic: &str,
    membership: &Membership,
    stores: Vec<Store>,
    shared: Shared<'_>,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let (sources, thread) =
        Source::start(kafka, topic, membership, stores.len()).map_err(RunError::Config)?;
    let (end, ended) = watch::channel(false);
    let lanes = sources.into_iter().zip(stores).zip(shared.health.lanes()).map(
        |((source, store), health)| {
            let worker = Worker::new(source, store, shared, health);
            let (end, ended) = (&end, ended.clone());
            async move {
                let result = worker.run(ended).await;
                // One lane's halt is everyone's: the log would be projected in part.
                end.send_replace(true);
                result
            }
        },
    );
    let work = join_all(lanes);
    tokio::pin!(work);
    let results = tokio::select! {
        results = &mut work => results,
        _ = stop.wait_for(|stop| *stop) => {
            end.send_replace(true);
            work.await
        }
    };
    let left = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(LEAVE_WAIT, left).await.is_err() {
        tracing::warn!("leaving the group took too long; its session will time out");
    }
    Ok(results.into_iter().collect::<Result<(), Halt>>()?)
}
