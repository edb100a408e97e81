//! What more of everything costs: partitions, APIs, consumers, brokers; and what a codec saves.

mod drains;
mod posts;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::machine::{self, Machine, Versions};
use crate::report;
use crate::servers::Servers;
use crate::service::connect;

pub(crate) use drains::Drained;
pub(crate) use posts::Posted;

/// Options of `leads-bench scale`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    servers: Servers,
    /// What to measure.
    #[arg(value_enum, required = true)]
    parts: Vec<Part>,
    /// Seconds of each measurement of HTTP.
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Events to drain.
    #[arg(long, default_value_t = 300_000)]
    events: u64,
    /// Where to put the figures; those of the same part and as many brokers are replaced.
    #[arg(long, default_value = "bench/results/scaling.json")]
    results: PathBuf,
}

/// A row of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Part {
    /// POSTs to topics of 1, 3, 12 and 48 partitions.
    Partitions,
    /// POSTs to one, two and three APIs.
    Apis,
    /// POSTs without compression, with lz4 and with zstd, and what stands on the disk.
    Codecs,
    /// POSTs to as many brokers as there are, a replica on each.
    Brokers,
    /// Draining a log by one, two and three consumers, and with 1, 3, 12 and 48 partitions.
    Consumers,
}

/// All figures.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) posts: Vec<Posted>,
    pub(crate) drains: Vec<Drained>,
    pub(crate) machine: Option<Machine>,
    pub(crate) versions: Option<Versions>,
}

/// Measures the parts, and writes each as soon as it is there; has to be called within a `LocalSet`.
pub(crate) async fn run(options: Options) -> Result<()> {
    let Options { servers, parts, seconds, events, results } = options;
    let client = connect(&servers.database_url).await?;
    let version = client.query_one("SHOW server_version", &[]).await?.get(0);
    let mut all = if results.is_file() { read(&results)? } else { Scale::default() };
    all.machine = Some(machine::machine());
    all.versions = Some(machine::versions(version));
    let brokers = servers.broker_count();
    for part in parts {
        if part == Part::Consumers {
            all.drains.retain(|it| it.brokers != brokers);
            all.drains.extend(drains::measure(&servers, events).await?);
        } else {
            all.posts.retain(|it| it.part != part || it.case.brokers != brokers);
            all.posts.extend(posts::measure(&servers, part, seconds).await?);
        }
        write(&results, &all)?;
    }
    Ok(())
}

/// The figures in a file.
pub(crate) fn read(path: &Path) -> Result<Scale> {
    serde_json::from_str(&report::read_text(path)?)
        .with_context(|| format!("{} is not what `leads-bench scale` writes", path.display()))
}

fn write(path: &Path, all: &Scale) -> Result<()> {
    let text = serde_json::to_string_pretty(all)? + "\n";
    fs::write(path, text).with_context(|| path.display().to_string())
}

/// How many processes wanted a core in the last minute, this measuring included.
fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn tell(figure: &impl Serialize) -> Result<()> {
    eprintln!("{}", serde_json::to_string(figure)?);
    Ok(())
}
