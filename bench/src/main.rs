//! Measures leads on the machine it runs on, and runs a realistic day through it.

mod bare;
mod capacity;
mod commands;
mod cpu;
mod day;
mod drain;
mod fault;
mod freshness;
mod http;
mod kafka;
mod lists;
mod load;
mod machine;
mod open;
mod outage;
mod overload;
mod own_time;
mod plot;
mod recipe;
mod report;
mod sample;
mod scale;
mod scaling;
mod servers;
mod service;
mod spread;
mod sse;
mod stream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use cpu::Watched;

/// What `--version` tells; `-V` tells the version alone.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| leads_version::long(&[]));
    &TEXT
}

/// Load generator and benchmark recipes for leads.
#[derive(Parser)]
#[command(version, long_version = long_version())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure everything in one run on the servers of the environment (`bench/run` starts them).
    Run(recipe::Options),
    /// Measure the projection: its freshness, draining a log, rebuilding from it, and plain `COPY`.
    /// Prints JSON.
    Project(recipe::Options),
    /// Measure event streams: many subscribers at a constant rate, and a replay. Prints JSON.
    Stream(stream::Options),
    /// Send a generated day through a running system and compare what comes back (`bench/day`).
    Day(day::Options),
    /// Serve the baseline: a bare actix-web handler that reads a lead and answers 201.
    Bare {
        /// Address to listen on.
        #[arg(long, default_value = "127.0.0.1:8090")]
        listen: SocketAddr,
    },
    /// Measure librdkafka alone: records like leads, `acks=all`, idempotent, to a new topic.
    Produce {
        /// Bootstrap servers.
        #[arg(long, env = "KAFKA_BROKERS")]
        brokers: String,
        /// How many records.
        #[arg(long, default_value_t = 1_000_000)]
        records: u64,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure a URL that takes leads: closed loop over keep-alive connections.
    Http(HttpOptions),
    /// Measure a URL that takes leads: open loop at a given rate, times from when a request was due.
    Open(commands::OpenOptions),
    /// Look for the rate that the service carries, and offer it half, all, twice and four times that.
    Overload(commands::OverloadOptions),
    /// Take the broker away under load and give it back.
    Outage(commands::OutageOptions),
    /// Measure what more partitions, processes and brokers cost, and what codecs save (`bench/scale`).
    Scale(scale::Options),
    /// Work out the tables of docs/scaling.md from what was measured, and write them into the page.
    Scaling(scaling::Options),
    /// Write the figures of a run into the page, between its two markers, and the plots beside it.
    Render {
        /// What `run` wrote.
        #[arg(long, default_value = "bench/results/latest.json")]
        results: PathBuf,
        /// The page.
        #[arg(long, default_value = "docs/benchmarks.md")]
        page: PathBuf,
    },
}

#[derive(Args)]
struct HttpOptions {
    /// Where to POST leads.
    #[arg(long, default_value = "http://127.0.0.1:8080/api/v1/leads")]
    url: String,
    /// The API key.
    #[arg(long, env = "LEADS_KEY", hide_env_values = true)]
    key: Option<String>,
    /// Leads of a request; more than one are sent in NDJSON, to the batches beside the URL.
    #[arg(long, value_name = "LEADS", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(1..=1000))]
    batch: u64,
    /// Send an `Idempotency-Key`, never the same twice.
    #[arg(long)]
    idempotency_key: bool,
    /// Connections, each with one request under way.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Seconds to measure.
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// End after that many answers, if that comes first.
    #[arg(long)]
    requests: Option<u64>,
    /// Seconds before the measuring starts.
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
    /// A process whose CPU time and memory to show, with all its children; may be repeated.
    #[arg(long, value_name = "NAME=PID")]
    pid: Vec<Watched>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Project(options) => block_on(recipe::project(options)).map(|()| ExitCode::SUCCESS),
        Command::Run(options) => block_on(recipe::run(options)).map(|()| ExitCode::SUCCESS),
        Command::Stream(options) => block_on(stream::run(options)).map(|()| ExitCode::SUCCESS),
        Command::Day(options) => block_on(day::run(options)),
        Command::Bare { listen } => bare::serve(listen).map(|()| ExitCode::SUCCESS),
        Command::Produce { brokers, records, json } => {
            block_on(produce(&brokers, records, json)).map(|()| ExitCode::SUCCESS)
        }
        Command::Http(options) => block_on(http_load(options)).map(|()| ExitCode::SUCCESS),
        Command::Open(options) => block_on(commands::open(options)).map(|()| ExitCode::SUCCESS),
        Command::Overload(options) => {
            block_on(commands::overload(options)).map(|()| ExitCode::SUCCESS)
        }
        Command::Outage(options) => block_on(commands::outage(options)).map(|()| ExitCode::SUCCESS),
        Command::Scale(options) => block_on(scale::run(options)).map(|()| ExitCode::SUCCESS),
        Command::Scaling(options) => scaling::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Render { results, page } => {
            report::render(&results, &page).map(|()| ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("leads-bench: {error:#}");
        ExitCode::FAILURE
    })
}

/// One thread: the generator shares its cores with what it measures.
fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

async fn produce(brokers: &str, records: u64, json: bool) -> Result<()> {
    let run = kafka::produce_alone(brokers, records).await?;
    report::print_as(json, &run, |run| report::produce_table(std::slice::from_ref(run)))
}

async fn http_load(options: HttpOptions) -> Result<()> {
    let key = options.key.as_deref();
    let mut target = match options.batch {
        1 => load::Target::leads(&options.url, key)?,
        leads => load::Target::batches(&options.url, key, leads)?,
    };
    if options.idempotency_key {
        target = target.keyed();
    }
    let plan = load::Plan {
        connections: options.connections,
        warm_up: Duration::try_from_secs_f64(options.warm_up)?,
        measure: Duration::try_from_secs_f64(options.seconds)?,
        answers: options.requests,
    };
    let run = load::closed_loop("POST", target, &plan, &options.pid).await?;
    report::print_as(options.json, &run, |run| report::http_table(std::slice::from_ref(run)))
}
