//! How fast the consumer empties a full log, beside what `COPY` alone can do with the same rows.

use std::fs::File;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::cpu::{Meter, Used, Watched};
use crate::kafka;
use crate::load::rate;
use crate::service::{Service, System, connect};

const LOOK: Duration = Duration::from_millis(50);
/// No progress for that long is a failure.
const STUCK: Duration = Duration::from_mins(2);
const CHUNK: usize = 1024 * 1024;

/// The consumer, from an empty database to all of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Drain {
    pub(crate) events: u64,
    /// Mean size of a record's value.
    pub(crate) bytes_a_record: u64,
    /// From the start of the process to the last row.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// From the start of the process to its first commit, seen within 50 ms.
    pub(crate) first_commit_seconds: f64,
    pub(crate) processes: Vec<Used>,
    /// All leads are this one's.
    #[serde(default)]
    pub(crate) workspace: Uuid,
}

/// `leads-consumer rebuild` of the whole log, indexes and swap included.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Rebuild {
    pub(crate) events: u64,
    /// From the start of the process until the new generation is live.
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    pub(crate) processes: Vec<Used>,
}

/// The same rows into the same table by one `COPY`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct CopyRun {
    pub(crate) rows: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// The server, when it was watched.
    pub(crate) processes: Vec<Used>,
}

/// Fills a new log, and measures the consumer on it.
pub(crate) async fn drain(system: &System, events: u64, servers: &[Watched]) -> Result<Drain> {
    let workspace = Uuid::now_v7();
    let bytes_a_record =
        kafka::fill(&system.brokers, &system.events_topic, workspace, events).await?;
    let client = connect(&system.database_url).await?;
    settle(&client).await;

    let mut watched = servers.to_vec();
    let start = Instant::now();
    let mut consumer = system.spawn_consumer()?;
    watched.push(consumer.watched());
    let mut meter = Meter::start(&watched);
    let (mut first, mut projected, mut moved, mut sampled) = (None, 0, start, start);
    while projected < events {
        tokio::time::sleep(LOOK).await;
        consumer.check()?;
        let now = projected_so_far(&client, &system.events_topic).await?;
        if now > projected {
            (projected, moved) = (now, Instant::now());
            first.get_or_insert_with(|| start.elapsed());
        }
        ensure!(moved.elapsed() < STUCK, "{projected} of {events} projected, and no progress");
        if sampled.elapsed() > Duration::from_millis(500) {
            meter.sample();
            sampled = Instant::now();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let processes = meter.finish();
    let rows = client.query_one("SELECT count(*) FROM leads", &[]).await?.get::<_, i64>(0);
    ensure!(u64::try_from(rows) == Ok(events), "{rows} rows of {events} events");
    consumer.stop().await?;
    Ok(Drain {
        events,
        bytes_a_record,
        seconds,
        per_second: rate(events, seconds),
        first_commit_seconds: first.unwrap_or_default().as_secs_f64(),
        processes,
        workspace,
    })
}

/// Builds the read model anew from the log that [`drain`] filled. Without the comparison with the old
/// one, which reads both tables.
pub(crate) async fn rebuild(system: &System, events: u64, servers: &[Watched]) -> Result<Rebuild> {
    let client = connect(&system.database_url).await?;
    settle(&client).await;
    let live = client
        .prepare("SELECT max(generation) FROM projection_generation WHERE state = 'live'")
        .await?;
    let before: i32 = client.query_one(&live, &[]).await?.get(0);
    let mut watched = servers.to_vec();
    let start = Instant::now();
    let mut process = system.spawn_rebuild()?;
    watched.push(process.watched());
    let mut meter = Meter::start(&watched);
    let mut sampled = start;
    while client.query_one(&live, &[]).await?.get::<_, i32>(0) == before {
        process.check()?;
        tokio::time::sleep(LOOK).await;
        if sampled.elapsed() > Duration::from_millis(500) {
            meter.sample();
            sampled = Instant::now();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let processes = meter.finish();
    let rows = client.query_one("SELECT count(*) FROM leads", &[]).await?.get::<_, i64>(0);
    ensure!(u64::try_from(rows) == Ok(events), "{rows} rows of {events} events");
    Ok(Rebuild { events, seconds, per_second: rate(events, seconds), processes })
}

/// Waits until a consumer is through with all that the log holds now.
pub(crate) async fn caught_up(system: &System, consumer: &mut Service) -> Result<()> {
    let client = connect(&system.database_url).await?;
    let events = kafka::records_in(&system.brokers, &system.events_topic)?;
    while projected_so_far(&client, &system.events_topic).await? < events {
        consumer.check()?;
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

pub(crate) async fn projected_so_far(client: &Client, topic: &str) -> Result<u64> {
    let sum =
        "SELECT coalesce(sum(next_offset), 0)::bigint FROM projection_offset WHERE topic = $1";
    Ok(client.query_one(sum, &[&topic]).await?.get::<_, i64>(0).try_into()?)
}

/// So that no measurement pays for the writing of the one before; needs a right that the user may
/// not have.
pub(crate) async fn settle(client: &Client) {
    let _ = client.batch_execute("CHECKPOINT").await;
}

/// Copies the rows of the first generation into a table like it, with all its indexes.
pub(crate) async fn copy_limit(system: &System, servers: &[Watched]) -> Result<CopyRun> {
    let client = connect(&system.database_url).await?;
    let path = std::env::temp_dir().join(format!("leads-bench-{}.copy", std::process::id()));
    let file = Deleted(path);
    let mut rows_file = File::create(&file.0).with_context(|| file.0.display().to_string())?;
    let out = client.copy_out("COPY leads_g1 TO STDOUT (FORMAT binary)").await?;
    let mut out = std::pin::pin!(out);
    while let Some(chunk) = out.next().await {
        rows_file.write_all(&chunk?)?;
    }
    client.batch_execute("CREATE TABLE copy_limit (LIKE leads_g1 INCLUDING ALL)").await?;
    settle(&client).await;

    let mut reader = File::open(&file.0)?;
    let meter = Meter::start(servers);
    let start = Instant::now();
    let sink = client.copy_in("COPY copy_limit FROM STDIN (FORMAT binary)").await?;
    let mut sink = std::pin::pin!(sink);
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        if Read::by_ref(&mut reader).take(CHUNK as u64).read_to_end(&mut chunk)? == 0 {
            break;
        }
        sink.send(Bytes::from(chunk)).await?;
    }
    let rows = sink.finish().await?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(CopyRun { rows, seconds, per_second: rate(rows, seconds), processes: meter.finish() })
}

/// A file that goes with its owner.
struct Deleted(std::path::PathBuf);

impl Drop for Deleted {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
