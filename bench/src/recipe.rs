//! Everything in one run, so that each figure stands beside its limit of the same day.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use uuid::Uuid;

use crate::cpu::Watched;
use crate::load::{HttpRun, Plan, Target, closed_loop};
use crate::report::Results;
use crate::service::{Service, System, binary, connect, free_address};
use crate::{drain, freshness, kafka, lists, machine, report};

const CONNECTIONS: [usize; 3] = [8, 64, 512];
/// Leads of a batch, and connections that send them.
const BATCH: u64 = 500;
const BATCH_CONNECTIONS: usize = 4;
/// Leads a second at which the freshness is measured.
const FRESHNESS_RATE: u64 = 1_000;

/// Options of `leads-bench run`.
#[derive(Args)]
pub(crate) struct Options {
    /// Bootstrap servers.
    #[arg(long, env = "KAFKA_BROKERS")]
    brokers: String,
    /// The PostgreSQL server; databases are made there.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Folder of the `dev/stack` instance, whose `kafka.pid` and `postgres.pid` name the servers to
    /// watch.
    #[arg(long)]
    stack: Option<PathBuf>,
    /// Seconds of each measurement of HTTP.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events to drain, and records to produce.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// Where to write the figures.
    #[arg(long, default_value = "bench/results/latest.json")]
    results: PathBuf,
    /// The page to write them into, between its two markers.
    #[arg(long)]
    page: Option<PathBuf>,
}

struct Recipe {
    options: Options,
    kafka: Option<Watched>,
    postgres: Option<Watched>,
}

/// Runs the recipe; has to be called within a `LocalSet`.
pub(crate) async fn run(options: Options) -> Result<()> {
    let results = Recipe::new(options).measure().await?;
    print!("{}", report::page_part(&results.0));
    results.1.write(&results.0)
}

/// Measures the projection, and prints it.
pub(crate) async fn project(options: Options) -> Result<()> {
    let recipe = Recipe::new(options);
    let Options { brokers, database_url, .. } = &recipe.options;
    say("the whole system, and freshness");
    let system = System::create(brokers, database_url).await?;
    let key = system.create_key(Uuid::now_v7()).await?;
    let (_, freshness) = recipe.whole(&system, &key).await?;
    system.remove().await;
    let Projection { drain, lists, copy, rebuild } = recipe.projection().await?;
    let figures = serde_json::json!({
        "freshness": freshness, "drain": drain, "lists": lists, "rebuild": rebuild, "copy": copy
    });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

struct Projection {
    drain: drain::Drain,
    lists: Vec<lists::Listed>,
    copy: drain::CopyRun,
    rebuild: drain::Rebuild,
}

impl Recipe {
    fn new(options: Options) -> Self {
        let server = |name: &str| {
            let path = options.stack.as_ref()?.join(format!("{name}.pid"));
            let pid = fs::read_to_string(path).ok()?.trim().parse().ok()?;
            Some(Watched { name: name.to_owned(), pid })
        };
        let (kafka, postgres) = (server("kafka"), server("postgres"));
        Self { options, kafka, postgres }
    }

    async fn projection(&self) -> Result<Projection> {
        let Options { brokers, database_url, events, .. } = &self.options;
        say("drain");
        let system = System::create(brokers, database_url).await?;
        let servers: Vec<_> = self.kafka.iter().chain(&self.postgres).cloned().collect();
        let drain = drain::drain(&system, *events, &servers).await?;
        tell(&drain)?;
        say("lists");
        let lists = lists::measure(&system, drain.workspace).await?;
        tell(&lists)?;
        say("COPY alone");
        let copy = drain::copy_limit(&system, &servers[self.kafka.iter().len()..]).await?;
        say("rebuild");
        let rebuild = drain::rebuild(&system, *events, &servers).await?;
        system.remove().await;
        Ok(Projection { drain, lists, copy, rebuild })
    }

    async fn measure(self) -> Result<(Results, Self)> {
        let Options { brokers, database_url, events, .. } = &self.options;
        let system = System::create(brokers, database_url).await?;
        let key = system.create_key(Uuid::now_v7()).await?;
        let version = connect(database_url).await?.query_one("SHOW server_version", &[]).await?;

        say("bare actix-web");
        let bare = self.bare().await?;
        say("librdkafka alone");
        let produce = kafka::produce_alone(brokers, *events).await?;
        say("POST");
        let post = self.post(&system, &key).await?;
        say("the whole system, and freshness");
        let (whole, freshness) = self.whole(&system, &key).await?;
        system.remove().await;
        let Projection { drain, lists, copy, rebuild } = self.projection().await?;
        let results = Results {
            date: machine::now(),
            machine: machine::machine(),
            versions: machine::versions(version.get(0)),
            bare,
            produce,
            post,
            whole,
            freshness,
            drain,
            lists,
            copy,
            rebuild,
        };
        Ok((results, self))
    }

    fn plan(&self, connections: usize) -> Plan {
        let measure = Duration::from_secs(self.options.seconds);
        // Long enough for every connection to be open and the JVM's compiler to be through.
        Plan { connections, warm_up: measure.mul_f64(0.3), measure, answers: None }
    }

    async fn bare(&self) -> Result<Vec<HttpRun>> {
        let listen = free_address()?;
        let mut command = Command::new(binary("leads-bench")?);
        command.args(["bare", "--listen", &listen.to_string()]);
        let mut server = Service::spawn("bare", command, listen)?;
        server.wait_answer("/", 404).await?;
        let mut runs = Vec::new();
        for connections in CONNECTIONS {
            let target = Target::leads(&server.url(), None)?;
            let plan = self.plan(connections);
            runs.push(closed_loop("bare actix-web", target, &plan, &[server.watched()]).await?);
        }
        Ok(runs)
    }

    /// Each with an API of its own, so that its peak memory is its own.
    async fn post(&self, system: &System, key: &str) -> Result<Vec<HttpRun>> {
        let mut runs = Vec::new();
        for connections in CONNECTIONS {
            let api = system.start_api().await?;
            let mut watched = vec![api.watched()];
            watched.extend(self.kafka.clone());
            let target = Target::leads(&api.url(), Some(key))?;
            runs.push(closed_loop("POST", target, &self.plan(connections), &watched).await?);
            api.stop().await?;
        }
        let api = system.start_api().await?;
        let mut watched = vec![api.watched()];
        watched.extend(self.kafka.clone());
        let target = Target::batches(&format!("{}/batch", api.url()), key, BATCH)?;
        let plan = self.plan(BATCH_CONNECTIONS);
        runs.push(closed_loop("POST of 500", target, &plan, &watched).await?);
        api.stop().await?;
        Ok(runs)
    }

    /// With the consumer beside: what the whole costs, and how far it is behind.
    async fn whole(&self, system: &System, key: &str) -> Result<(HttpRun, freshness::Freshness)> {
        let api = system.start_api().await?;
        let mut consumer = system.spawn_consumer()?;
        consumer.wait_answer("/readyz", 200).await?;
        // The backlog of the runs before is not what is measured here.
        drain::caught_up(system, &mut consumer).await?;
        let time = Duration::from_secs(self.options.seconds);
        let freshness = freshness::measure(&api.url(), key, FRESHNESS_RATE, time).await?;
        let mut watched = vec![api.watched(), consumer.watched()];
        watched.extend(self.kafka.iter().chain(&self.postgres).cloned());
        let target = Target::leads(&api.url(), Some(key))?;
        let whole = closed_loop("POST and projection", target, &self.plan(64), &watched).await?;
        api.stop().await?;
        consumer.stop().await?;
        Ok((whole, freshness))
    }

    fn write(&self, results: &Results) -> Result<()> {
        let path: &Path = &self.options.results;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let text = serde_json::to_string_pretty(results)? + "\n";
        fs::write(path, text).with_context(|| path.display().to_string())?;
        match &self.options.page {
            Some(page) => report::render(path, page),
            None => Ok(()),
        }
    }
}

fn say(what: &str) {
    eprintln!("leads-bench: {what}");
}

/// A figure as soon as it is there: a long run may be ended early.
fn tell(figure: &impl serde::Serialize) -> Result<()> {
    eprintln!("{}", serde_json::to_string(figure)?);
    Ok(())
}
