//! Event streams: from the acknowledgement of a POST to its delivery at many subscribers, and how fast
//! one of them reads the past.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;
use uuid::Uuid;

use crate::cpu::{Meter, Used};
use crate::http::{Connection, Url};
use crate::load::rate;
use crate::service::System;
use crate::sse::Reader;
use crate::{kafka, sample};

/// Of so many requests one is an update of an earlier lead, to see the order of a lead's events.
const UPDATE_EVERY: u64 = 10;
const SAMPLE: Duration = Duration::from_millis(500);
/// Without an event for so long, something is missing.
const STUCK: Duration = Duration::from_secs(30);

/// Options of `leads-bench stream`.
#[derive(Args)]
pub(crate) struct Options {
    /// Bootstrap servers.
    #[arg(long, env = "KAFKA_BROKERS")]
    brokers: String,
    /// The PostgreSQL server; databases are made there.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// Streams that are open.
    #[arg(long, default_value_t = 200)]
    subscribers: usize,
    /// Workspaces that they and the leads are spread over.
    #[arg(long, default_value_t = 20)]
    workspaces: usize,
    /// Events a second, in all.
    #[arg(long, default_value_t = 1_000)]
    rate: u32,
    /// Seconds to measure.
    #[arg(long, default_value_t = 20)]
    seconds: u32,
    /// Events to replay.
    #[arg(long, default_value_t = 1_000_000)]
    replay: u64,
}

/// What subscribers saw; times in µs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Live {
    subscribers: usize,
    workspaces: usize,
    events: u64,
    per_second: f64,
    /// Creations that came, over all subscribers; the updates among the events are not timed.
    delivered: u64,
    /// From the 201 to the event at a subscriber; 0 when the event came first.
    delivery_p50_micros: u64,
    delivery_p99_micros: u64,
    delivery_max_micros: u64,
    processes: Vec<Used>,
}

/// One subscriber that reads the past.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Replay {
    events: u64,
    bytes: u64,
    /// From the request to the last event.
    seconds: f64,
    per_second: f64,
    processes: Vec<Used>,
}

/// Runs both, and prints JSON; has to be called within a `LocalSet`.
pub(crate) async fn run(options: Options) -> Result<()> {
    let live = live(&options).await?;
    eprintln!("{}", serde_json::to_string(&live)?);
    let replay = replay(&options).await?;
    let figures = serde_json::json!({ "stream": live, "replay": replay });
    println!("{}", serde_json::to_string_pretty(&figures)?);
    Ok(())
}

/// What the senders tell the subscribers.
#[derive(Default)]
struct Sent {
    /// Events of each workspace.
    events: RefCell<HashMap<usize, u64>>,
    /// When leads were acknowledged.
    acknowledged: RefCell<HashMap<u128, Instant>>,
    done: Cell<bool>,
}

struct Sender {
    url: Url,
    keys: Vec<String>,
    idle: RefCell<Vec<Connection>>,
    /// The last lead of each workspace.
    leads: RefCell<HashMap<usize, Uuid>>,
    sent: Rc<Sent>,
}

#[derive(Deserialize)]
struct Created {
    data: CreatedLead,
}

#[derive(Deserialize)]
struct CreatedLead {
    id: Uuid,
}

async fn live(options: &Options) -> Result<Live> {
    let system = System::create(&options.brokers, &options.database_url).await?;
    let mut keys = Vec::new();
    for _ in 0..options.workspaces {
        keys.push(system.create_key(Uuid::now_v7()).await?);
    }
    let api = system.start_api().await?;
    let mut consumer = system.spawn_consumer()?;
    consumer.wait_answer("/readyz", 200).await?;
    let url = Url::parse(&api.url())?;
    let sent = Rc::<Sent>::default();
    let mut readers = Vec::new();
    for number in 0..options.subscribers {
        let workspace = number % options.workspaces;
        let reader = Reader::open(&url, &keys[workspace], "").await?;
        let sent = Rc::clone(&sent);
        readers.push(tokio::task::spawn_local(subscribe(reader, workspace, sent)));
    }
    let mut meter = Meter::start(&[api.watched()]);
    let sender = Rc::new(Sender {
        url,
        keys,
        idle: RefCell::default(),
        leads: RefCell::default(),
        sent: Rc::clone(&sent),
    });
    let started = Instant::now();
    let events = u64::from(options.rate) * u64::from(options.seconds);
    send_all(&sender, events, options.rate, &mut meter).await?;
    let seconds = started.elapsed().as_secs_f64();
    sent.done.set(true);
    let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
    let mut delivered = 0;
    for reader in readers {
        let arrivals = reader.await.context("a subscriber")??;
        delivered += arrivals.len() as u64;
        let acknowledged = sent.acknowledged.borrow();
        for (lead, arrived) in arrivals {
            if let Some(acknowledged) = acknowledged.get(&lead) {
                let took = arrived.saturating_duration_since(*acknowledged);
                times.saturating_record(u64::try_from(took.as_micros())?);
            }
        }
    }
    let processes = meter.finish();
    api.stop().await?;
    consumer.stop().await?;
    system.remove().await;
    Ok(Live {
        subscribers: options.subscribers,
        workspaces: options.workspaces,
        events,
        per_second: rate(events, seconds),
        delivered,
        delivery_p50_micros: times.value_at_quantile(0.5),
        delivery_p99_micros: times.value_at_quantile(0.99),
        delivery_max_micros: times.max(),
        processes,
    })
}

/// Reads until every event of the workspace has come, each once, a lead's creation before its updates;
/// gives when the creations came.
async fn subscribe(
    mut reader: Reader,
    workspace: usize,
    sent: Rc<Sent>,
) -> Result<Vec<(u128, Instant)>> {
    let mut arrivals = Vec::new();
    let (mut ids, mut leads) = (HashSet::new(), HashSet::new());
    let all_there = |seen: usize| {
        sent.done.get() && sent.events.borrow().get(&workspace).copied().unwrap_or(0) == seen as u64
    };
    while !all_there(ids.len()) {
        let mut wrong = None;
        let reading = reader.read(|seen| {
            let now = Instant::now();
            if !ids.insert(seen.event_id) {
                wrong = Some("an event came twice");
            }
            if seen.created {
                leads.insert(seen.lead_id);
                arrivals.push((seen.lead_id, now));
            } else if !leads.contains(&seen.lead_id) {
                wrong = Some("an update came before its lead");
            }
        });
        // The last event may have come before the sender was done.
        match tokio::time::timeout(Duration::from_millis(200), reading).await {
            Ok(read) => read?,
            Err(_) => ensure!(
                !sent.done.get() || arrivals.last().is_none_or(|(_, at)| at.elapsed() < STUCK),
                "events are missing"
            ),
        }
        ensure!(wrong.is_none(), "{}", wrong.unwrap_or_default());
    }
    Ok(arrivals)
}

async fn send_all(sender: &Rc<Sender>, events: u64, rate: u32, meter: &mut Meter) -> Result<()> {
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = Vec::new();
    let mut sampled = Instant::now();
    for number in 0..events {
        ticks.tick().await;
        tasks.push(tokio::task::spawn_local(send(Rc::clone(sender), number)));
        if sampled.elapsed() > SAMPLE {
            meter.sample();
            sampled = Instant::now();
        }
    }
    for task in tasks {
        task.await.context("a request's task")??;
    }
    Ok(())
}

async fn send(sender: Rc<Sender>, number: u64) -> Result<()> {
    let workspace = usize::try_from(number)? % sender.keys.len();
    let earlier = sender.leads.borrow().get(&workspace).copied();
    // Each workspace in its turn has an update among its leads.
    let update = earlier.filter(|_| (number / sender.keys.len() as u64) % UPDATE_EVERY == 1);
    let authorization = format!("Bearer {}", sender.keys[workspace]);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let Url { path, .. } = &sender.url;
    let request = match update {
        Some(lead) => {
            let path = format!("{path}/{lead}");
            sender.url.request("PATCH", &path, &headers, Some(br#"{"code":"updated"}"#))
        }
        None => sender.url.request("POST", path, &headers, Some(sample::body(number).as_bytes())),
    };
    let idle = sender.idle.borrow_mut().pop();
    let mut connection = idle.unwrap_or_else(|| Connection::new(sender.url.address));
    let answer = connection.exchange(&request).await.context("a request")?;
    let text = || String::from_utf8_lossy(answer.body).into_owned();
    ensure!((200..300).contains(&answer.status), "{} {}", answer.status, text());
    if update.is_none() {
        let created: Created = serde_json::from_slice(answer.body)?;
        let id = created.data.id;
        sender.sent.acknowledged.borrow_mut().insert(id.as_u128(), Instant::now());
        sender.leads.borrow_mut().insert(workspace, id);
    }
    *sender.sent.events.borrow_mut().entry(workspace).or_default() += 1;
    sender.idle.borrow_mut().push(connection);
    Ok(())
}

async fn replay(options: &Options) -> Result<Replay> {
    let system = System::create(&options.brokers, &options.database_url).await?;
    let workspace = Uuid::now_v7();
    let key = system.create_key(workspace).await?;
    kafka::fill(&options.brokers, &system.events_topic, workspace, options.replay).await?;
    let api = system.start_api().await?;
    let url = Url::parse(&api.url())?;
    let meter = Meter::start(&[api.watched()]);
    let mut ids = Vec::with_capacity(usize::try_from(options.replay)?);
    let started = Instant::now();
    let mut reader = Reader::open(&url, &key, "from=beginning").await?;
    while (ids.len() as u64) < options.replay {
        reader.read(|seen| ids.push(seen.event_id)).await?;
    }
    let seconds = started.elapsed().as_secs_f64();
    let processes = meter.finish();
    ids.sort_unstable();
    ids.dedup();
    ensure!(ids.len() as u64 == options.replay, "an event came twice");
    api.stop().await?;
    system.remove().await;
    Ok(Replay {
        events: options.replay,
        bytes: reader.bytes,
        seconds,
        per_second: rate(options.replay, seconds),
        processes,
    })
}
