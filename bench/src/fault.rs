//! Taking the broker of a `dev/stack` instance away and giving it back.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::machine::repository;

/// How the broker goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fault {
    /// SIGSTOP, then SIGCONT: connections stay, nothing answers, as of a machine that hangs.
    Pause,
    /// SIGKILL, then a start on the same port and data.
    Kill,
}

impl Fault {
    /// As the page says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pause => "stopped (SIGSTOP)",
            Self::Kill => "killed (SIGKILL)",
        }
    }
}

/// An instance of `dev/stack` that may be disturbed.
#[derive(Debug)]
pub(crate) struct Stack {
    name: String,
}

impl Stack {
    /// By its folder, `.stack/NAME`.
    pub(crate) fn of(folder: &Path) -> Result<Self> {
        let name = folder.file_name().and_then(|name| name.to_str());
        let name = name.with_context(|| format!("{} has no name", folder.display()))?.to_owned();
        ensure!(
            folder.join("kafka.pid").is_file(),
            "{} is no running instance of dev/stack",
            folder.display()
        );
        Ok(Self { name })
    }

    /// Returns once the broker is away.
    pub(crate) async fn take_kafka(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Pause => self.tell("pause").await,
            Fault::Kill => self.tell("kill").await,
        }
    }

    /// Returns once the broker runs again: after a kill, once it takes connections.
    pub(crate) async fn give_kafka_back(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Pause => self.tell("resume").await,
            Fault::Kill => self.tell("start").await,
        }
    }

    async fn tell(&self, verb: &str) -> Result<()> {
        let script = repository().join("dev/stack");
        let mut command = tokio::process::Command::new(&script);
        command.args([verb, "kafka", "--name", &self.name]).stdin(Stdio::null());
        let output = command.output().await.with_context(|| script.display().to_string())?;
        ensure!(
            output.status.success(),
            "dev/stack {verb} kafka --name {}: {}\n{}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}
