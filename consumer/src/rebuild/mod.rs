//! `leads-consumer rebuild`: the read model anew from the log, beside the one that serves.
//!
//! pre-flight → load → indexes → catch up → verify → swap. All state is in PostgreSQL: interrupted at
//! any point, the next run finds the generation that is being built and goes on from its offsets.
//! The projection of the new generation is the one of `run`, with another target.

mod generations;
mod report;
mod verify;
mod work;

use std::time::Duration;

use leads_shared::topic;
use tokio::sync::watch;

use crate::config::RebuildConfig;
use crate::failure::REPARTITION;
use crate::run::RunError;
use crate::source::admin::{Admin, AdminError};
use crate::source::log::Log;
use crate::{migrate, topics};
pub use generations::Generations;
use generations::Keeper;
use report::Reporter;

/// Between two tries to get a lost connection back.
const RETAKE: Duration = Duration::from_secs(2);

/// Why a rebuild ended.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The settings don't work; exit code 2.
    #[error("{0}")]
    Config(String),
    /// Another one is at it.
    #[error("a rebuild is running: {0}")]
    Running(String),
    /// A signal; nothing is lost.
    #[error(
        "interrupted; nothing is lost: `leads-consumer status` shows which generation is live, and the \
         same command goes on where it was"
    )]
    Interrupted,
    /// The connection that holds the lock ended.
    #[error("the connection to PostgreSQL that holds the lock ended")]
    LockLost,
    /// The new generation is not the live one again.
    #[error(
        "the generations differ, and the live one stays live; look at the differences, then run \
         `leads-consumer rebuild --accept-differences` to swap all the same, or \
         `leads-consumer rebuild discard`"
    )]
    Differences,
    /// Anything else, with what to do.
    #[error("{0}")]
    Failed(String),
}

impl RebuildError {
    fn kafka(error: &str) -> Self {
        Self::Failed(format!("Kafka: {error}; what was built stays, run it again"))
    }
}

impl From<RunError> for RebuildError {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Config(why) => Self::Config(why),
            RunError::Halt(halt) => Self::Failed(halt.to_string()),
        }
    }
}

/// What the lock is taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A new generation, from the whole log.
    Build,
    /// The previous one, from where it stands.
    RollBack,
    /// Tables are dropped.
    Discard,
}

/// What a rebuild would do.
#[derive(Debug)]
pub struct Plan {
    /// In words for the operator, a line each.
    pub lines: Vec<String>,
}

/// A rebuild that holds the lock and has looked at everything.
pub struct Rebuild {
    config: RebuildConfig,
    keeper: Keeper,
    log: Log,
    partitions: u32,
    reporter: Reporter,
    stop: watch::Receiver<bool>,
}

impl Rebuild {
    /// Takes the lock, and makes sure that the log is whole and the schema is right.
    ///
    /// # Errors
    /// See [`RebuildError`]; nothing has been changed but, on a new database, its schema.
    pub async fn prepare(
        config: RebuildConfig,
        purpose: Purpose,
        stop: watch::Receiver<bool>,
    ) -> Result<Self, RebuildError> {
        if config.into_new_database {
            let applied = migrate::migrate(&config.database).await;
            applied.map_err(|error| RebuildError::Failed(error.to_string()))?;
        }
        if let Err(failure) = migrate::check(&config.database).await {
            return Err(RebuildError::Failed(failure.to_string()));
        }
        let keeper = Keeper::take(&config.database.config, &config.database.tls).await?;
        // Tables are dropped without a look at the log.
        let partitions = if purpose == Purpose::Discard { 0 } else { check_topic(&config).await? };
        let log = Log::new(&config.kafka, &config.topic).map_err(RebuildError::Config)?;
        let rebuild = Self { config, keeper, log, partitions, reporter: Reporter::new(), stop };
        // A rollback needs no more of it than what was not projected.
        if purpose == Purpose::Build {
            rebuild.check_log().await?;
        }
        Ok(rebuild)
    }

    /// History that is gone can't be rebuilt.
    async fn check_log(&self) -> Result<(), RebuildError> {
        let topic = &self.config.topic;
        // Before the ends of the log, which moves on.
        let live = self.keeper.generations().await?.live;
        let offsets = self.keeper.offsets(live, topic).await?;
        let extents =
            self.log.extents(self.partitions).await.map_err(|error| RebuildError::kafka(&error))?;
        for (partition, extent) in extents.iter().enumerate() {
            if extent.start > 0 {
                return Err(RebuildError::Failed(format!(
                    "partition {partition} of {topic} begins at offset {}: its history is gone, and \
                     a rebuild would lose it; restore the topic, or keep the read model as it is",
                    extent.start
                )));
            }
        }
        if !offsets.is_empty() && offsets.len() != extents.len() {
            return Err(RebuildError::Failed(format!(
                "topic {topic} has {} partitions, but was projected with {}: keys have moved \
                 between partitions; {REPARTITION}",
                extents.len(),
                offsets.len()
            )));
        }
        for (partition, (extent, next_offset)) in extents.iter().zip(&offsets).enumerate() {
            if *next_offset > extent.end {
                return Err(RebuildError::Failed(format!(
                    "partition {partition} of {topic} ends at offset {}, but was projected up to \
                     {next_offset}: the topic was truncated or recreated; restore it, or rebuild \
                     with --into-new-database",
                    extent.end
                )));
            }
        }
        if self.config.into_new_database && offsets.iter().any(|offset| *offset > 0) {
            return Err(RebuildError::Failed(
                "the database holds a read model already; give an empty one, or run \
                 `leads-consumer rebuild` on it"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// What [`Rebuild::run`] is going to do.
    ///
    /// # Errors
    /// PostgreSQL's or Kafka's, or that the disk has no room for it.
    pub async fn plan(&self) -> Result<Plan, RebuildError> {
        let Generations { live, building, previous } = self.keeper.generations().await?;
        let extents =
            self.log.extents(self.partitions).await.map_err(|error| RebuildError::kafka(&error))?;
        let events: i64 = extents.iter().map(|extent| extent.end).sum();
        let size = self.keeper.size(live).await?;
        let mut lines = vec![match building {
            Some(generation) => {
                let done: i64 =
                    self.keeper.offsets(generation, &self.config.topic).await?.iter().sum();
                format!("goes on with generation {generation}, {done} of {events} events")
            }
            None => format!(
                "builds a new generation beside generation {live} from {events} events of {}",
                self.config.topic
            ),
        }];
        let built = match building {
            Some(generation) => self.keeper.size(generation).await?,
            None => 0,
        };
        lines.push(self.room(size - built).await?);
        if let (Some(previous), None) = (previous, building) {
            lines.push(format!(
                "drops generation {previous} first: a rollback to it will not be possible"
            ));
        }
        lines.push(if self.config.accept_differences {
            "swaps when it is done, without comparing".to_owned()
        } else if self.config.into_new_database {
            "swaps when every record lies on its lead's partition".to_owned()
        } else {
            format!("compares with generation {live} and swaps if they are equal")
        });
        lines.push("reads, posts and the live projection go on".to_owned());
        Ok(Plan { lines })
    }

    /// Whether there is room for so many bytes more, and a quarter for what else is written.
    async fn room(&self, needed: i64) -> Result<String, RebuildError> {
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let needed = u64::try_from(needed).unwrap_or(0);
        let needs = format!("needs about {} MiB in PostgreSQL besides what is there", mib(needed));
        match self.keeper.disk().await {
            Ok(disk) if self.config.check_disk && disk.free < needed + needed / 4 => {
                Err(RebuildError::Failed(format!(
                    "{needs}, and its disk has {} MiB free: make room (`leads-consumer rebuild \
                     discard --previous` drops a generation that is kept), or say --no-disk-check \
                     when the tables are on another disk",
                    mib(disk.free)
                )))
            }
            Ok(disk) => Ok(format!("{needs}; its disk has {} MiB free", mib(disk.free))),
            Err(why) => Ok(format!("{needs}; how much is free is not known: {why}")),
        }
    }

    /// Builds, verifies and swaps.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub async fn run(mut self) -> Result<(), RebuildError> {
        let result = loop {
            match self.build_and_swap().await {
                Err(RebuildError::LockLost) => self.retake().await?,
                result => break result,
            }
        };
        self.reporter.finish();
        result
    }

    /// What [`Rebuild::roll_back`] is going to do.
    ///
    /// # Errors
    /// PostgreSQL's, or that no previous generation is kept.
    pub async fn rollback_plan(&self) -> Result<String, RebuildError> {
        let (live, previous) = self.live_and_previous().await?;
        Ok(format!("goes back from generation {live} to generation {previous}, at the log's end"))
    }

    async fn live_and_previous(&self) -> Result<(i32, i32), RebuildError> {
        let Generations { live, previous, .. } = self.keeper.generations().await?;
        let none = "no previous generation is kept; there is none to go back to";
        let previous = previous.ok_or_else(|| RebuildError::Failed(none.to_owned()))?;
        Ok((live, previous))
    }

    /// Goes back to the generation that was live before, after bringing it to the log's end.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub async fn roll_back(self) -> Result<(), RebuildError> {
        let (live, previous) = self.live_and_previous().await?;
        self.reporter.about(previous);
        self.keeper.unseal(previous).await?;
        self.reporter
            .begin("catch_up", &format!("bringing generation {previous} to the log's end"));
        self.swap(live, previous).await?;
        self.reporter.finish();
        Ok(())
    }

    /// Drops the generation that is being built or, with `previous`, the one kept for a rollback.
    ///
    /// # Errors
    /// See [`RebuildError`].
    pub async fn discard(self, previous: bool) -> Result<i32, RebuildError> {
        let generations = self.keeper.generations().await?;
        let (found, what) = if previous {
            (generations.previous, "no previous generation is kept")
        } else {
            (generations.building, "no generation is being built")
        };
        let generation = found.ok_or_else(|| RebuildError::Failed(what.to_owned()))?;
        self.keeper.drop(generation).await?;
        Ok(generation)
    }

    async fn retake(&mut self) -> Result<(), RebuildError> {
        self.reporter.begin("waiting", "PostgreSQL ended the connection; waiting for it");
        let database = self.config.database.clone();
        let taking = async {
            loop {
                match Keeper::take(&database.config, &database.tls).await {
                    Ok(keeper) => return Ok(keeper),
                    Err(RebuildError::Running(who)) => return Err(RebuildError::Running(who)),
                    Err(_) => tokio::time::sleep(RETAKE).await,
                }
            }
        };
        self.keeper = tokio::select! {
            keeper = taking => keeper?,
            _ = self.stop.wait_for(|stop| *stop) => return Err(RebuildError::Interrupted),
        };
        Ok(())
    }
}

/// The settings of the topic, which must keep history.
async fn check_topic(config: &RebuildConfig) -> Result<u32, RebuildError> {
    let wrong = |error: AdminError| match error {
        AdminError::Settings(why) => RebuildError::Config(why),
        error => RebuildError::Failed(format!("{error}; is KAFKA_BROKERS right?")),
    };
    let admin = Admin::new(&config.kafka).map_err(wrong)?;
    let topic = admin.topic(&config.topic).await.map_err(wrong)?.ok_or_else(|| {
        RebuildError::Failed(format!(
            "topic {} does not exist: nothing to build from",
            config.topic
        ))
    })?;
    let spec = topic::events(&config.topic, topic.partitions);
    let violations = topics::check(&admin, &spec).await.map_err(wrong)?;
    if violations.is_empty() {
        return Ok(topic.partitions);
    }
    Err(RebuildError::Failed(format!(
        "{}; the log may have lost history: mend the topic's settings first",
        violations.join("; ")
    )))
}
