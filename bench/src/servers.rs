//! The servers that measurements run against.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;

use crate::cpu::Watched;
use crate::fault::Stack;
use crate::service::System;

/// Kafka and PostgreSQL.
#[derive(Debug, Args)]
pub(crate) struct Servers {
    /// Bootstrap servers.
    #[arg(long, env = "KAFKA_BROKERS")]
    pub(crate) brokers: String,
    /// The PostgreSQL server; databases are made there.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub(crate) database_url: String,
    /// Folder of the `dev/stack` instance, whose `kafka.pid` (`kafka-2.pid`, …) and `postgres.pid` name
    /// the servers to watch; the broker of an outage.
    #[arg(long)]
    pub(crate) stack: Option<PathBuf>,
}

impl Servers {
    /// New topics and a new database.
    pub(crate) async fn system(&self) -> Result<System> {
        System::create(&self.brokers, &self.database_url).await
    }

    /// New topics, with as many replicas as there are brokers, and a new database.
    pub(crate) async fn system_with(&self, more: &[(&str, &str)]) -> Result<System> {
        let replicas = self.broker_count().to_string();
        let more: Vec<_> =
            more.iter().copied().chain([("TOPIC_REPLICATION", &*replicas)]).collect();
        System::create_with(&self.brokers, &self.database_url, &more).await
    }

    /// How many brokers are named.
    pub(crate) fn broker_count(&self) -> usize {
        self.brokers.split(',').count()
    }

    /// All brokers.
    pub(crate) fn kafkas(&self) -> Vec<Watched> {
        let others = (2..=self.broker_count()).map(|id| self.watched(&format!("kafka-{id}")));
        [self.kafka()].into_iter().chain(others).flatten().collect()
    }

    /// Bytes of a topic's segments at the first broker, which has a replica of each partition; without
    /// the indexes beside them. `None` when its folder is not known.
    pub(crate) fn log_bytes(&self, topic: &str) -> Option<u64> {
        let folders = fs::read_dir(self.stack.as_ref()?.join("kafka/data")).ok()?.flatten();
        let partitions = folders.filter(|folder| {
            let name = folder.file_name();
            let partition =
                name.to_str().and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'));
            partition.is_some_and(|partition| partition.parse::<u32>().is_ok())
        });
        let files = partitions.filter_map(|folder| fs::read_dir(folder.path()).ok()).flatten();
        let segments =
            files.flatten().filter(|file| file.path().extension().is_some_and(|it| it == "log"));
        Some(segments.filter_map(|file| file.metadata().ok()).map(|it| it.len()).sum())
    }

    pub(crate) fn kafka(&self) -> Option<Watched> {
        self.watched("kafka")
    }

    pub(crate) fn postgres(&self) -> Option<Watched> {
        self.watched("postgres")
    }

    /// The instance, to be disturbed.
    pub(crate) fn stack(&self) -> Result<Stack> {
        let folder = self.stack.as_ref().context(
            "an outage needs servers that it may take away: give --stack .stack/NAME of an instance \
             that dev/stack started",
        )?;
        Stack::of(folder)
    }

    fn watched(&self, name: &str) -> Option<Watched> {
        let path = self.stack.as_ref()?.join(format!("{name}.pid"));
        let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
        Some(Watched { name: name.to_owned(), pid })
    }
}
