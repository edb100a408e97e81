//! Loading, comparing and swapping.

use std::pin::pin;
use std::time::Duration;

use leads_traces::Traces;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_postgres::error::SqlState;

use super::generations::{self, Generations, Swap};
use super::verify::{self, Comparison, Report};
use super::{Rebuild, RebuildError};
use crate::config::{Database, RebuildConfig};
use crate::connection::Connection;
use crate::health::Health;
use crate::source::Membership;
use crate::store::{Store, Target};
use crate::worker::Shared;
use crate::worker::lanes::{self, Progress};

const LOOK: Duration = Duration::from_millis(100);
/// How often the log's ends are asked for.
const ASK_ENDS: Duration = Duration::from_secs(1);
/// So few events from the log's end, or as many as half a second takes, the indexes are built; what
/// came meanwhile is caught up with them.
const NEAR: i64 = 20_000;
/// Most of what a swap holds the live projection up for while the last events are projected.
const SWAP_WAIT: Duration = Duration::from_secs(3);
const SWAP_TRIES: u32 = 10;

/// Why offsets were not sealed.
enum Attempt {
    /// PostgreSQL's locks: it can be tried again.
    Again(tokio_postgres::Error),
    Failed(RebuildError),
}

impl From<RebuildError> for Attempt {
    fn from(error: RebuildError) -> Self {
        Self::Failed(error)
    }
}

impl Rebuild {
    pub(super) async fn build_and_swap(&self) -> Result<(), RebuildError> {
        let Generations { live, building, previous } = self.keeper.generations().await?;
        let builder = builder();
        let generation = if let Some(generation) = building {
            self.keeper.note_builder(generation, &builder).await?;
            generation
        } else {
            if let Some(previous) = previous {
                self.keeper.drop(previous).await?;
            }
            self.keeper.create(live, &builder).await?
        };
        let reporter = &self.reporter;
        reporter.about(generation);
        self.keeper.build_unique_indexes(live, generation).await?;
        reporter.begin("load", &format!("loading generation {generation}"));
        self.lanes_while(generation, async |progress| self.near_the_end(progress).await).await?;
        reporter.begin("indexes", "building indexes");
        let built = self.keeper.build_indexes(live, generation).await?;
        reporter.tell("indexes", &format!("{built} indexes built"), &json!({ "built": built }));
        self.lanes_while(generation, async |progress| self.at_the_end(progress).await).await?;
        match (self.config.accept_differences, self.config.into_new_database) {
            (true, _) => {}
            (false, true) => self.keeper.check_placement(generation).await?,
            (false, false) => self.verify(live, generation).await?,
        }
        self.swap(live, generation).await?;
        if self.config.into_new_database {
            self.keeper.drop(live).await?;
        }
        Ok(())
    }

    async fn verify(&self, live: i32, new: i32) -> Result<(), RebuildError> {
        self.reporter.begin("verify", "comparing the generations");
        let comparison = Comparison {
            config: &self.config.database.config,
            tls: &self.config.database.tls,
            log: &self.log,
            topic: &self.config.topic,
            partitions: self.partitions,
            live,
            new,
        };
        let report = self.unless_stopped(comparison.run()).await?;
        let figures = serde_json::to_value(&report).unwrap_or_default();
        self.reporter.tell("verify", &in_words(&report), &figures);
        if report.is_equal() { Ok(()) } else { Err(RebuildError::Differences) }
    }

    /// Makes `to` the live generation: brings it to where `from` stands, holds `from` there, brings
    /// it to that point, and swaps.
    pub(super) async fn swap(&self, from: i32, to: i32) -> Result<(), RebuildError> {
        let mut reason = String::new();
        for _ in 0..SWAP_TRIES {
            let sealed = self
                .lanes_while(to, async |progress| self.seal_when_there(from, progress).await)
                .await;
            // The lanes have ended: nobody writes `to` until it is live.
            let result = match sealed {
                Ok(swap) => match swap.commit(to).await {
                    Err(error) if error.code().is_none() && self.was_committed(to).await? => Ok(()),
                    result => result,
                },
                Err(Attempt::Again(error)) => Err(error),
                Err(Attempt::Failed(error)) => return Err(error),
            };
            match result {
                Ok(()) => {
                    let words = format!(
                        "generation {to} is live; generation {from} is kept for \
                         `leads-consumer rebuild rollback`"
                    );
                    self.reporter.tell("swapped", &words, &json!({ "live": to, "previous": from }));
                    return Ok(());
                }
                Err(error) if is_passing(&error) => {
                    reason = crate::failure::describe(&error);
                    self.reporter.begin("swap", &format!("the swap is tried again: {reason}"));
                    self.keeper.end_frozen_writers().await;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(RebuildError::Failed(format!(
            "the swap did not get its locks in {SWAP_TRIES} tries ({reason}): a long query or \
             transaction holds the views; see pg_stat_activity, then run it again"
        )))
    }

    /// Whether a swap took effect whose answer was lost with the connection.
    async fn was_committed(&self, to: i32) -> Result<bool, RebuildError> {
        self.reporter
            .begin("swap", "the connection was lost in the swap; asking what became of it");
        let Database { config, tls } = &self.config.database;
        let asking = async {
            loop {
                match generations::live_after_swaps(config, tls).await {
                    Ok(Some(live)) => return Ok(live == to),
                    Ok(None) | Err(_) => tokio::time::sleep(LOOK).await,
                }
            }
        };
        self.unless_stopped(asking).await
    }

    /// With lanes at work: seals `from` once they are at the log's end and waits until they are where
    /// it stands.
    async fn seal_when_there(&self, from: i32, progress: &Progress) -> Result<Swap, Attempt> {
        let Database { config, tls } = &self.config.database;
        loop {
            self.at_the_end(progress).await?;
            let client = Connection::named(config, tls, generations::SWAP_NAME).await;
            let client = client.map_err(RebuildError::from)?;
            let swap = Swap::begin(client, from, &self.config.topic).await;
            let swap = swap.map_err(Attempt::Again)?;
            let deadline = Instant::now() + SWAP_WAIT;
            while Instant::now() < deadline {
                let there = progress.next_offsets();
                if swap.targets.iter().zip(&there).all(|(target, next)| next >= target) {
                    return Ok(swap);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            // The live projection goes on, and so do we.
        }
    }

    /// Projects into `generation` while `control` looks on; what it gives ends the projection.
    async fn lanes_while<T, E: From<RebuildError>>(
        &self,
        generation: i32,
        control: impl AsyncFnOnce(&Progress) -> Result<T, E>,
    ) -> Result<T, E> {
        let RebuildConfig { kafka, topic, database, limits, lanes, .. } = &self.config;
        let target = Target::Generation(generation);
        let store = || Store::new(&database.config, &database.tls, topic, target);
        let stores = (0..*lanes).map(|_| store()).collect();
        let (health, told) = (Health::new(*lanes), Notify::new());
        let progress = Progress::new(self.partitions);
        let shared = Shared {
            health: &health,
            dead_letters: &told,
            progress: &progress,
            limits: *limits,
            partition_count: self.partitions,
            topic,
            // What a rebuild projects was traced when it was new.
            traces: &Traces::off(),
        };
        let membership = Membership::Alone(self.partitions);
        let (end, ended) = watch::channel(false);
        let lanes = lanes::run(kafka, topic, &membership, stores, shared, ended);
        let control = async {
            let result = control(&progress).await;
            end.send_replace(true);
            result
        };
        let (mut lanes, control) = (pin!(lanes), pin!(control));
        tokio::select! {
            // Only a halt ends them before they are told to.
            halted = &mut lanes => {
                halted.map_err(RebuildError::from)?;
                Err(RebuildError::Interrupted.into())
            }
            result = control => {
                lanes.await.map_err(RebuildError::from)?;
                result
            }
        }
    }

    /// Until no more than a moment's events are missing, of a log that grows meanwhile.
    async fn near_the_end(&self, progress: &Progress) -> Result<(), RebuildError> {
        let mut asked = Instant::now();
        let mut end = self.end_of_log().await?;
        self.until("load", progress, async |done, rate| {
            if asked.elapsed() >= ASK_ENDS {
                // Away for now: what is known of the ends will do.
                end = self.end_of_log().await.unwrap_or(end);
                asked = Instant::now();
            }
            #[allow(clippy::cast_possible_truncation)]
            let half_a_second = (rate / 2.0) as i64;
            (end, end - done <= half_a_second.max(NEAR))
        })
        .await
    }

    /// Until all is projected that the log holds now.
    async fn at_the_end(&self, progress: &Progress) -> Result<(), RebuildError> {
        let end = self.end_of_log().await?;
        self.until("catch_up", progress, async |done, _| (end, done >= end)).await
    }

    async fn end_of_log(&self) -> Result<i64, RebuildError> {
        let extents = self.log.extents(self.partitions).await;
        let extents = extents.map_err(|error| RebuildError::kafka(&error))?;
        Ok(extents.iter().map(|extent| extent.end).sum())
    }

    /// Shows the progress until `look`, given how many events are done and how many a second, says
    /// that it is enough. It gives the end as well.
    async fn until(
        &self,
        phase: &str,
        progress: &Progress,
        mut look: impl AsyncFnMut(i64, f64) -> (i64, bool),
    ) -> Result<(), RebuildError> {
        let mut stop = self.stop.clone();
        let mut rate = 0.0;
        loop {
            if self.keeper.is_lost() {
                return Err(RebuildError::LockLost);
            }
            let offsets = progress.next_offsets();
            if offsets.iter().all(|offset| *offset >= 0) {
                let done = offsets.iter().sum();
                let (end, enough) = look(done, rate).await;
                rate = self.reporter.progress(phase, done, end);
                if enough {
                    return Ok(());
                }
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                _ = stop.wait_for(|stop| *stop) => return Err(RebuildError::Interrupted),
            }
        }
    }

    async fn unless_stopped<T>(
        &self,
        work: impl Future<Output = Result<T, RebuildError>>,
    ) -> Result<T, RebuildError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            result = work => result,
            _ = stop.wait_for(|stop| *stop) => Err(RebuildError::Interrupted),
        }
    }
}

/// Locks that others hold, and deadlocks with them.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        matches!(
            *code,
            SqlState::LOCK_NOT_AVAILABLE
                | SqlState::T_R_DEADLOCK_DETECTED
                | SqlState::T_R_SERIALIZATION_FAILURE
        )
    })
}

/// `HOST:PID` of this process.
fn builder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "unknown" } else { host.trim() };
    format!("{host}:{}", std::process::id())
}

fn in_words(report: &Report) -> String {
    let Report { live_leads, new_leads, miscounted, left_out, differences, .. } = report;
    let mut lines = vec![format!(
        "{differences} leads differ: {new_leads} leads, the live generation has {live_leads}, \
         {left_out} left out for events of this moment"
    )];
    if *miscounted > 0 {
        lines.push(format!(
            "{miscounted} counts of the new generation, by workspace, source or code, are not the \
             number of its leads"
        ));
    }
    lines.extend(report.listed.iter().map(|difference| {
        let verify::Difference { workspace_id, lead_id, partition, kind } = difference;
        format!("  {kind}: workspace {workspace_id} lead {lead_id} partition {partition}")
    }));
    lines.extend(report.by_partition_and_workspace.iter().map(|share| {
        let verify::Share { partition, workspace_id, differences } = share;
        format!("  partition {partition} workspace {workspace_id}: {differences} differ")
    }));
    lines.join("\n")
}
