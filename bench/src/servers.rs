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
    /// Folder of the `dev/stack` instance, whose `kafka.pid` and `postgres.pid` name the servers to
    /// watch; the broker of an outage.
    #[arg(long)]
    pub(crate) stack: Option<PathBuf>,
}

impl Servers {
    /// New topics and a new database.
    pub(crate) async fn system(&self) -> Result<System> {
        System::create(&self.brokers, &self.database_url).await
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
