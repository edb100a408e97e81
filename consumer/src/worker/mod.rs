//! The loop of one lane: assigned, revoked, records, error.
//!
//! Records wait in chunks until a batch of them is committed; a batch that fails is built again
//! from the same chunks, so that a retry, a bisection and a rebalance in between are the same case.

mod batch;
mod finish;
pub mod lanes;
mod partitions;
mod retry;
mod shared;
mod size;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::failure::{Failure, Halt, TIMEOUT};
use crate::health::LaneHealth;
use crate::projection::{Reason, Rejection};
use crate::record::Chunk;
use crate::source::consumer::Source;
use crate::source::{Command, Event};
use crate::store::{Applied, Store};
use crate::telemetry;
use crate::traced::TracedBatch;
use batch::{Built, Cursor};
use finish::finish;
use partitions::Partitions;
use retry::Retry;
pub use shared::{Limits, Shared};
use size::BatchSize;

const COMMIT_INTERVAL: Duration = Duration::from_secs(1);

/// One lane of the projection at work: some of the partitions, one transaction at a time.
pub struct Worker<'a> {
    source: Source,
    store: Store,
    shared: Shared<'a>,
    health: &'a LaneHealth,
    partitions: Partitions,
    pending: VecDeque<Chunk>,
    cursor: Cursor,
    /// How many records from the cursor on hold one that PostgreSQL refuses, while it is searched.
    suspects: Option<usize>,
    /// Set while a record alone is known to be refused: why.
    refused: Option<Rejection>,
    retry: Retry,
    size: BatchSize,
    last_commit: Instant,
}

impl<'a> Worker<'a> {
    /// A worker for the partitions that `source` brings.
    pub fn new(source: Source, store: Store, shared: Shared<'a>, health: &'a LaneHealth) -> Self {
        Self {
            source,
            store,
            shared,
            health,
            partitions: Partitions::default(),
            pending: VecDeque::new(),
            cursor: Cursor::default(),
            suspects: None,
            refused: None,
            retry: Retry::default(),
            size: BatchSize::new(shared.limits.records),
            last_commit: Instant::now(),
        }
    }

    /// Projects until `stop` turns true; finishes the transaction under way.
    ///
    /// # Errors
    /// The projection must not go on by itself.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), Halt> {
        let result = self.work(&mut stop).await;
        self.shared.health.set_stopping();
        self.source.send(Command::Close(self.partitions.committed()));
        result
    }

    async fn work(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Halt> {
        while !*stop.borrow() {
            while let Ok(event) = self.source.events.try_recv() {
                self.on_event(event)?;
            }
            if self.retry.due() {
                if self.store.is_broken() {
                    // It can take ten seconds, and a stop does not wait for it.
                    tokio::select! {
                        biased;
                        _ = stop.changed() => {}
                        connected = self.connect() => connected?,
                    }
                    continue;
                }
                if self.partitions.any_unpositioned() {
                    tokio::select! {
                        biased;
                        _ = stop.changed() => {}
                        positioned = self.position() => positioned?,
                    }
                    continue;
                }
                if !self.pending.is_empty() {
                    self.project(stop).await?;
                    self.commit_to_group(false);
                    continue;
                }
            }
            self.wait(stop).await?;
        }
        Ok(())
    }

    /// Until something happens that there is something to do about.
    async fn wait(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Halt> {
        let room = self.pending_bytes() < self.shared.limits.bytes;
        let retry_at = self.retry.at.filter(|at| *at > Instant::now());
        let again = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now));
        tokio::select! {
            biased;
            _ = stop.changed() => {}
            event = self.source.events.recv() => match event {
                Some(event) => self.on_event(event)?,
                None => return Err(Halt::new("the Kafka client's thread has ended", "start it again")),
            },
            chunk = self.source.records.next(), if room => {
                // None: the thread has ended, which the other channel says too.
                self.pending.extend(chunk);
            }
            () = again, if retry_at.is_some() => {}
            () = tokio::time::sleep_until(self.last_commit + COMMIT_INTERVAL),
                if self.partitions.uncommitted() => self.commit_to_group(true),
        }
        Ok(())
    }

    fn pending_bytes(&self) -> usize {
        self.pending.iter().map(Chunk::size).sum()
    }

    fn on_event(&mut self, event: Event) -> Result<(), Halt> {
        match event {
            Event::Assigned(partitions) => {
                if !partitions.is_empty() {
                    metrics::counter!(telemetry::REBALANCES).increment(1);
                    tracing::info!(?partitions, "partitions assigned");
                }
                self.partitions.assign(&partitions);
                self.shared.health.set_in_group(true);
                self.shared.health.set_kafka(true);
            }
            Event::Revoked { partitions, done } => {
                if !partitions.is_empty() {
                    metrics::counter!(telemetry::REBALANCES).increment(1);
                    tracing::info!(?partitions, "partitions revoked");
                }
                self.partitions.revoke(&partitions);
                self.forget_search();
                // The poll thread may have stopped waiting.
                let _ = done.send(());
            }
            Event::Statistics(statistics) => {
                self.shared.health.set_kafka(statistics.connected);
                if statistics.in_group {
                    self.shared.health.set_in_group(true);
                }
                let oldest = batch::oldest_pending(&self.pending, self.cursor);
                self.partitions.report_lag(&statistics.ends, &oldest);
            }
            Event::Failed { cause, cure } => return Err(Halt { cause, cure }),
        }
        self.health.set_positioned(!self.partitions.any_unpositioned());
        Ok(())
    }

    /// Also without anything to write: readiness is to tell whether we could.
    async fn connect(&mut self) -> Result<(), Halt> {
        match self.store.connect().await {
            Ok(()) => {
                self.recovered();
                // A server that crashed may have lost the last commits, rows and offsets together.
                self.partitions.unposition_all();
                self.forget_search();
                Ok(())
            }
            Err(failure) => self.on_failure(failure, 0),
        }
    }

    /// Asks PostgreSQL where to read the partitions from that have no position.
    async fn position(&mut self) -> Result<(), Halt> {
        let wanted = self.partitions.unpositioned();
        match self.store.positions(self.shared.partition_count, &wanted).await {
            Ok(found) => {
                self.recovered();
                if found.generation != self.partitions.generation() {
                    // What was looked for is read anew, and may be well in this one.
                    self.forget_search();
                }
                let positions = self.partitions.position(&found);
                for it in &found.partitions {
                    self.shared.progress.set(it.partition, it.next_offset);
                }
                let offsets: Vec<_> =
                    found.partitions.iter().map(|it| (it.partition, it.next_offset)).collect();
                tracing::info!(?offsets, generation = found.generation, "partitions positioned");
                self.source.send(Command::Position(positions));
                self.health.set_positioned(!self.partitions.any_unpositioned());
                Ok(())
            }
            Err(failure) => self.on_failure(failure, 0),
        }
    }

    /// Projects one batch from what is pending.
    async fn project(&mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Halt> {
        self.gather();
        let started = Instant::now();
        let limits = Limits {
            records: match self.suspects {
                Some(suspects) => suspects.div_ceil(2),
                None => self.size.records(),
            },
            ..self.shared.limits
        };
        let built = batch::build(
            &self.pending,
            self.cursor,
            &mut self.partitions,
            limits,
            self.shared.partition_count,
            self.refused.as_ref(),
        )?;
        let Built { mut batch, end, bytes } = built;
        let records = batch.records.len();
        if records == 0 {
            self.move_on(end);
            return Ok(());
        }
        let advances = batch.advances.clone();
        let times = batch.records.iter().filter_map(|record| record.time_millis).max();
        let Shared { traces, topic, .. } = self.shared;
        let traced = TracedBatch::begin(traces, topic, &batch);
        batch.traceparent = traced.as_ref().and_then(TracedBatch::traceparent);
        let applying = self.store.apply(batch);
        let (result, events) = finish(applying, &mut self.source, stop).await;
        match result {
            Some(Ok(applied)) => {
                self.partitions.advance(&advances, &applied);
                for advance in &advances {
                    self.shared.progress.set(advance.partition, advance.to);
                }
                self.move_on(end);
                self.recovered();
                self.size.went_through();
                self.search_on(records);
                telemetry::record_batch(&applied, records, bytes, started.elapsed(), times);
                if let Some(traced) = traced {
                    traced.committed(traces, topic);
                }
                self.announce(&applied);
            }
            Some(Err(failure)) => {
                if let Some(traced) = traced {
                    traced.failed(failure.kind());
                }
                self.on_failure(failure, records)?;
            }
            None => {
                if let Some(traced) = traced {
                    traced.failed("abandoned");
                }
                tracing::warn!(
                    "a transaction took too long for a rebalance or shutdown: abandoned"
                );
                self.store.disconnect();
            }
        }
        for event in events {
            self.on_event(event)?;
        }
        Ok(())
    }

    /// Takes what is there, up to a batch.
    fn gather(&mut self) {
        let mut records: usize = self.pending.iter().map(Chunk::len).sum();
        let mut bytes = self.pending_bytes();
        while records < self.shared.limits.records && bytes < self.shared.limits.bytes {
            let Some(chunk) = self.source.records.try_next() else { break };
            records += chunk.len();
            bytes += chunk.size();
            self.pending.push_back(chunk);
        }
    }

    fn move_on(&mut self, end: Cursor) {
        self.cursor = end;
        while self.pending.front().is_some_and(|chunk| self.cursor.leave(chunk)) {
            self.pending.pop_front();
        }
    }

    fn recovered(&mut self) {
        if self.retry.over() {
            tracing::info!("the projection goes on");
        }
        self.health.set_postgres(true);
        self.health.set_retrying(false);
    }

    fn announce(&self, applied: &Applied) {
        for Rejection { reason, error } in &applied.rejected {
            if *reason == Reason::Parked {
                tracing::debug!(error, "an event was parked");
            } else {
                tracing::warn!(reason = reason.name(), error, "a record was set aside");
            }
        }
        if !applied.rejected.is_empty() {
            self.shared.dead_letters.notify_one();
        }
    }

    fn on_failure(&mut self, failure: Failure, records: usize) -> Result<(), Halt> {
        match failure {
            Failure::Halt(halt) => Err(halt),
            Failure::Fenced => {
                metrics::counter!(telemetry::FENCED).increment(1);
                tracing::warn!("the offsets were moved by someone else; positioning again");
                self.partitions.unposition_all();
                self.forget_search();
                self.health.set_positioned(false);
                self.retry.soon();
                Ok(())
            }
            // The same batch at once, looked at more closely.
            Failure::Again => Ok(()),
            Failure::Retry { cause, error } => {
                metrics::counter!(telemetry::RETRIES, "cause" => cause).increment(1);
                if self.retry.at.is_none() {
                    tracing::warn!(cause, error, "the projection waits and tries again");
                }
                self.health.set_postgres(cause != "connection" && cause != "shutdown");
                self.health.set_retrying(true);
                if cause == TIMEOUT {
                    self.size.took_too_long(records);
                }
                self.retry.later();
                Ok(())
            }
            Failure::Data { error } => {
                if records == 0 || self.refused.is_some() {
                    return Err(Halt::new(
                        format!("PostgreSQL refuses what is no record's fault: {error}"),
                        "this is a defect of leads-consumer; please report it",
                    ));
                }
                if records == 1 {
                    self.refused = Some(Rejection { reason: Reason::Refused, error });
                }
                self.suspects = Some(records);
                Ok(())
            }
        }
    }

    /// After a batch went through while a refused record is searched: it is in the rest.
    fn search_on(&mut self, records: usize) {
        self.refused = None;
        self.suspects = self.suspects.and_then(|suspects| {
            let rest = suspects.saturating_sub(records);
            (rest > 0).then_some(rest)
        });
    }

    fn forget_search(&mut self) {
        self.suspects = None;
        self.refused = None;
    }

    fn commit_to_group(&mut self, due: bool) {
        if due || self.last_commit.elapsed() >= COMMIT_INTERVAL {
            self.last_commit = Instant::now();
            self.source.send(Command::Commit(self.partitions.take_uncommitted()));
        }
    }
}
