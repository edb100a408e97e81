//! The open loop, the overload and the outage by themselves.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use uuid::Uuid;

use crate::cpu::Watched;
use crate::fault::Fault;
use crate::load::{self, Target, closed_loop};
use crate::open::drive::WhenBusy;
use crate::open::requests::{BATCH, Recipe, Requests};
use crate::open::schedule::Arrivals;
use crate::open::{Plan, open_loop};
use crate::outage::{self, Outage};
use crate::overload::{self, Overload};
use crate::own_time::Probe;
use crate::report::{self, print_as};
use crate::servers::Servers;
use crate::service::System;

/// Connections of the closed loop that a search for the capacity starts from.
const GUESS_CONNECTIONS: usize = 256;

/// Options of `leads-bench open`.
#[derive(Args)]
pub(crate) struct OpenOptions {
    /// Where to POST leads.
    #[arg(long, default_value = "http://127.0.0.1:8080/api/v1/leads")]
    url: String,
    /// The API key; without a rate limit, or it is measured.
    #[arg(long, env = "LEADS_KEY", hide_env_values = true)]
    key: String,
    /// What is sent.
    #[arg(long, value_enum, default_value_t = Recipe::Single)]
    recipe: Recipe,
    /// Requests a second.
    #[arg(long, default_value_t = 2_000.0, value_parser = per_second)]
    rate: f64,
    /// How they follow each other.
    #[arg(long, value_enum, default_value_t = Arrivals::Constant)]
    arrivals: Arrivals,
    /// Deals the times of `--arrivals poisson`.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Seconds before the measuring starts.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// Most connections. As many are opened as requests are under way; with all of them busy,
    /// requests wait, the wait counts, and the report says so.
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: u32,
    /// The API's metrics, for its own time: `http://127.0.0.1:9464/metrics`
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// A process whose CPU time and memory to show, with all its children; may be repeated.
    #[arg(long, value_name = "NAME=PID")]
    pid: Vec<Watched>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `leads-bench overload`.
#[derive(Args)]
pub(crate) struct OverloadOptions {
    #[command(flatten)]
    servers: Servers,
    /// What is sent.
    #[arg(long, value_enum, default_value_t = Recipe::Single)]
    recipe: Recipe,
    /// Seconds of each rate.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Put the figures into this file of `run`.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `leads-bench outage`.
#[derive(Args)]
pub(crate) struct OutageOptions {
    #[command(flatten)]
    servers: Servers,
    /// POSTs a second.
    #[arg(long, default_value_t = 1_000.0, value_parser = per_second)]
    rate: f64,
    /// How long before the broker goes.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    before: Duration,
    /// How long the broker is away.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    outage: Duration,
    /// How long after its return.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    after: Duration,
    /// How the broker goes.
    #[arg(long, value_enum, default_value_t = Fault::Pause)]
    fault: Fault,
    /// Put the figures into this file of `run`.
    #[arg(long)]
    results: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn per_second(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    // Above, the pacing thread alone would take a core.
    if (0.001..=1_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be from 0.001 to 1,000,000".to_owned())
    }
}

/// Has to be called within a `LocalSet`, as all here.
pub(crate) async fn open(options: OpenOptions) -> Result<()> {
    let plan = Plan {
        per_second: options.rate,
        arrivals: options.arrivals,
        seed: options.seed,
        warm_up: Duration::try_from_secs_f64(options.warm_up)?,
        measure: Duration::try_from_secs_f64(options.seconds)?,
        max_connections: usize::try_from(options.max_connections)?,
        when_busy: WhenBusy::Wait,
    };
    let requests = Requests::new(options.recipe, &options.url, &options.key)?;
    let probe = options.metrics.as_deref().map(Probe::new).transpose()?;
    let run = open_loop(requests, &plan, &options.pid, probe.as_ref()).await?;
    if let Some(warning) = run.warning() {
        eprintln!("leads-bench: {warning}");
    }
    print_as(options.json, &run, |run| report::open_tables(std::slice::from_ref(run)))
}

pub(crate) async fn overload(options: OverloadOptions) -> Result<()> {
    let OverloadOptions { servers, recipe, seconds, results, json } = options;
    let system = servers.system().await?;
    let key = system.create_key(Uuid::now_v7()).await?;
    let guess = guess(&system, &key, recipe).await?;
    let kafka = servers.kafka();
    let found = overload::measure(&system, &key, recipe, guess, seconds, kafka.as_slice()).await?;
    system.remove().await;
    warn(&found);
    if let Some(path) = results {
        report::update(&path, |all| all.overload = Some(found.clone()))?;
    }
    print_as(json, &found, report::overload_part)
}

/// What a closed loop gets through, in requests a second: where the search begins.
async fn guess(system: &System, key: &str, recipe: Recipe) -> Result<f64> {
    let api = system.start_api().await?;
    let (target, connections) = match recipe {
        Recipe::Batch => (Target::batches(&api.url(), Some(key), BATCH)?, 8),
        Recipe::Single | Recipe::Mixed => {
            (Target::leads(&api.url(), Some(key))?, GUESS_CONNECTIONS)
        }
    };
    let leads = target.leads;
    let plan = load::Plan {
        connections,
        warm_up: Duration::from_secs(1),
        measure: Duration::from_secs(3),
        answers: None,
    };
    let run = closed_loop("guess", target, &plan, &[]).await?;
    api.stop().await?;
    Ok(load::rate(run.acknowledged / leads, run.seconds))
}

pub(crate) async fn outage(options: OutageOptions) -> Result<()> {
    let OutageOptions { servers, rate, before, outage, after, fault, results, json } = options;
    let stack = servers.stack()?;
    let plan = outage::Plan { per_second: rate, before, outage, after, fault };
    let system = servers.system().await?;
    let key = system.create_key(Uuid::now_v7()).await?;
    let found = outage::measure(&system, &key, &stack, &plan).await?;
    system.remove().await;
    if let Some(path) = results {
        report::update(&path, |all| all.outage = Some(found.clone()))?;
    }
    print_as(json, &found, report::outage_part)?;
    nothing_lost(&found)
}

/// What was acknowledged and is not there is a failure, not a figure.
pub(crate) fn nothing_lost(outage: &Outage) -> Result<()> {
    let Outage { accepted, accepted_not_in_log, .. } = outage;
    ensure!(
        *accepted_not_in_log == 0,
        "{accepted_not_in_log} of {accepted} leads were answered with 201 and are not in the log"
    );
    Ok(())
}

/// Said while it runs, of each point at which the generator was too slow.
pub(crate) fn warn(overload: &Overload) {
    for (point, warning) in overload.points.iter().filter_map(|p| Some((p, p.warning()?))) {
        eprintln!("leads-bench: at {:.0} a second {warning}", point.offered_per_second);
    }
}
