//! Everything in one run, so that each figure stands beside its limit of the same day.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use uuid::Uuid;

use crate::commands::{nothing_lost, warn};
use crate::cpu::Watched;
use crate::fault::Fault;
use crate::load::{HttpRun, Plan, Target, closed_loop};
use crate::open::drive::WhenBusy;
use crate::open::requests::{Recipe as Requested, Requests};
use crate::open::schedule::Arrivals;
use crate::open::{self, OpenRun, open_loop};
use crate::outage::{self, Outage};
use crate::overload::{self, Overload};
use crate::report::{self, Results};
use crate::servers::Servers;
use crate::service::{Service, System, binary, connect, free_address};
use crate::{drain, freshness, kafka, lists, machine};

const RESULTS: &str = "bench/results/latest.json";
/// As the runs of single POSTs are named.
pub(crate) const POST: &str = "POST";
/// As the scaling page looks it up.
pub(crate) const POST_BATCH: &str = "POST of 500";
const CONNECTIONS: [usize; 3] = [8, 64, 512];
/// Leads of a batch, and connections that send them.
const BATCH: u64 = 500;
const BATCH_CONNECTIONS: usize = 4;
/// Leads a second at which the freshness is measured.
const FRESHNESS_RATE: u64 = 1_000;

/// Requests a second of the open loop, its batches of 500 aside.
const OPEN_RATE: f64 = 2_000.0;
const OPEN_BATCHES: f64 = 200.0;
const OPEN_CONNECTIONS: usize = 4_096;
/// POSTs a second during the outage.
const OUTAGE_RATE: f64 = 1_000.0;

/// Options of `leads-bench run`.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    servers: Servers,
    /// Seconds of each measurement of HTTP.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Events to drain, and records to produce.
    #[arg(long, default_value_t = 1_000_000)]
    events: u64,
    /// How long the broker is away in the outage, which needs `--stack`.
    #[arg(long, default_value = "1m", value_parser = humantime::parse_duration)]
    outage: Duration,
    /// Everything in a fraction of the time: to see that it works, not to quote.
    #[arg(long, conflicts_with_all = ["seconds", "events", "outage"])]
    quick: bool,
    /// Where to write the figures; `run` without it writes bench/results/latest.json. `project` replaces
    /// its part of them there.
    #[arg(long)]
    results: Option<PathBuf>,
    /// The page to write them into, between its two markers; the plots go beside it, into the folder
    /// of its name.
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
    let recipe = Recipe::new(options);
    let results = recipe.measure().await?;
    print!("{}", report::page_part(&results, None));
    recipe.write(&results)?;
    results.outage.as_ref().map_or(Ok(()), nothing_lost)
}

/// Measures the projection, and prints it.
pub(crate) async fn project(options: Options) -> Result<()> {
    let recipe = Recipe::new(options);
    say("the whole system, and freshness");
    let system = recipe.options.servers.system().await?;
    let key = system.create_key(Uuid::now_v7()).await?;
    let (_, freshness) = recipe.whole(&system, &key).await?;
    system.remove().await;
    let Projection { drain, lists, copy, rebuild } = recipe.projection().await?;
    let figures = serde_json::json!({
        "freshness": freshness, "drain": drain, "lists": lists, "rebuild": rebuild, "copy": copy
    });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    let Some(path) = &recipe.options.results else { return Ok(()) };
    report::update(path, |results| {
        results.freshness = freshness;
        (results.drain, results.lists) = (drain, lists);
        (results.rebuild, results.copy) = (rebuild, copy);
    })
}

struct Projection {
    drain: drain::Drain,
    lists: Vec<lists::Listed>,
    copy: drain::CopyRun,
    rebuild: drain::Rebuild,
}

impl Recipe {
    fn new(mut options: Options) -> Self {
        if options.quick {
            options.seconds = 2;
            options.events = 50_000;
            options.outage = Duration::from_secs(12);
        }
        let (kafka, postgres) = (options.servers.kafka(), options.servers.postgres());
        Self { options, kafka, postgres }
    }

    async fn projection(&self) -> Result<Projection> {
        let Options { servers, events, .. } = &self.options;
        say("drain");
        let system = servers.system().await?;
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

    async fn measure(&self) -> Result<Results> {
        let Options { servers, events, .. } = &self.options;
        let system = servers.system().await?;
        let key = system.create_key(Uuid::now_v7()).await?;
        let client = connect(&servers.database_url).await?;
        let version = client.query_one("SHOW server_version", &[]).await?;

        say("bare actix-web");
        let bare = self.bare().await?;
        say("librdkafka alone");
        let produce = kafka::produce_alone(&servers.brokers, *events).await?;
        say("POST");
        let post = self.post(&system, &key).await?;
        say("the whole system, and freshness");
        let (whole, freshness) = self.whole(&system, &key).await?;
        system.remove().await;
        let open = self.open().await?;
        let overload = self.overload(&post).await?;
        let outage = self.outage().await?;
        let Projection { drain, lists, copy, rebuild } = self.projection().await?;
        Ok(Results {
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
            open,
            overload: Some(overload),
            outage,
        })
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
            runs.push(closed_loop(POST, target, &self.plan(connections), &watched).await?);
            api.stop().await?;
        }
        for (name, is_keyed) in [(POST_BATCH, false), ("POST of 500, with a key", true)] {
            let api = system.start_api().await?;
            let mut watched = vec![api.watched()];
            watched.extend(self.kafka.clone());
            let batches = Target::batches(&api.url(), Some(key), BATCH)?;
            let target = if is_keyed { batches.keyed() } else { batches };
            runs.push(closed_loop(name, target, &self.plan(BATCH_CONNECTIONS), &watched).await?);
            api.stop().await?;
        }
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

    /// At a rate that the service carries easily.
    async fn open(&self) -> Result<Vec<OpenRun>> {
        let system = self.options.servers.system().await?;
        let key = system.create_key(Uuid::now_v7()).await?;
        let mut runs = Vec::new();
        for (recipe, per_second, arrivals) in [
            (Requested::Mixed, OPEN_RATE, Arrivals::Poisson),
            (Requested::Single, OPEN_RATE, Arrivals::Constant),
            (Requested::Single, OPEN_RATE, Arrivals::Poisson),
            (Requested::Batch, OPEN_BATCHES, Arrivals::Constant),
        ] {
            say(&format!("open loop: {}", recipe.name()));
            let api = system.start_api().await?;
            let mut watched = vec![api.watched()];
            let mut consumer = None;
            if recipe == Requested::Mixed {
                let mut started = system.spawn_consumer()?;
                started.wait_answer("/readyz", 200).await?;
                watched.push(started.watched());
                consumer = Some(started);
            }
            watched.extend(self.kafka.clone());
            let measure = Duration::from_secs(self.options.seconds);
            let plan = open::Plan {
                per_second,
                arrivals,
                seed: 1,
                warm_up: measure.mul_f64(0.3),
                measure,
                max_connections: OPEN_CONNECTIONS,
                when_busy: WhenBusy::Wait,
            };
            let requests = Requests::new(recipe, &api.url(), &key)?;
            let run = open_loop(requests, &plan, &watched, Some(&api.probe()?)).await?;
            if let Some(warning) = run.warning() {
                say(&warning);
            }
            runs.push(run);
            api.stop().await?;
            if let Some(consumer) = consumer {
                consumer.stop().await?;
            }
        }
        system.remove().await;
        Ok(runs)
    }

    /// The search begins where the closed loop got at best.
    async fn overload(&self, post: &[HttpRun]) -> Result<Overload> {
        say("overload");
        let system = self.options.servers.system().await?;
        let key = system.create_key(Uuid::now_v7()).await?;
        let single = post.iter().filter(|run| run.name == POST).map(|run| run.per_second);
        let guess = single.fold(1_000.0, f64::max);
        let seconds = Duration::from_secs(self.options.seconds).as_secs_f64();
        let recipe = Requested::Single;
        let servers = self.kafka.as_slice();
        let found = overload::measure(&system, &key, recipe, guess, seconds, servers).await?;
        system.remove().await;
        warn(&found);
        Ok(found)
    }

    async fn outage(&self) -> Result<Option<Outage>> {
        if self.options.servers.stack.is_none() {
            say("no outage: without --stack there is no broker that may be taken away");
            return Ok(None);
        }
        say("outage");
        let system = self.options.servers.system().await?;
        let key = system.create_key(Uuid::now_v7()).await?;
        let around = Duration::from_secs(self.options.seconds * 3 / 2);
        let plan = outage::Plan {
            per_second: OUTAGE_RATE,
            before: around,
            outage: self.options.outage,
            after: around.max(Duration::from_secs(10)),
            fault: Fault::Pause,
        };
        let stack = self.options.servers.stack()?;
        let found = outage::measure(&system, &key, &stack, &plan).await?;
        system.remove().await;
        Ok(Some(found))
    }

    fn write(&self, results: &Results) -> Result<()> {
        let path = self.options.results.as_deref().unwrap_or(Path::new(RESULTS));
        report::write(path, results)?;
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
