//! Draining a log by more consumers, and out of more partitions.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{load, tell};
use crate::cpu::{Meter, Used};
use crate::drain::{projected_so_far, settle};
use crate::kafka;
use crate::load::rate;
use crate::servers::Servers;
use crate::service::{Service, connect};

/// Consumers and partitions.
const CASES: [(usize, u32); 6] = [(1, 1), (1, 3), (1, 12), (1, 48), (2, 12), (3, 12)];
const LOOK: Duration = Duration::from_millis(20);
/// No progress for that long is a failure.
const STUCK: Duration = Duration::from_mins(2);

/// A log that was drained.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Drained {
    pub(crate) consumers: usize,
    pub(crate) partitions: u32,
    pub(crate) brokers: usize,
    /// The machine's load average before.
    pub(crate) load: Option<f64>,
    pub(crate) events: u64,
    /// From the first commit that was seen to the last row.
    pub(crate) seconds: f64,
    /// What was projected in that time, a second.
    pub(crate) per_second: f64,
    /// From the start of the consumers.
    pub(crate) processes: Vec<Used>,
    /// Rows of leads, and all their indexes.
    pub(crate) table_bytes: u64,
    pub(crate) index_bytes: u64,
    /// What PostgreSQL wrote ahead meanwhile, and would send to a replica.
    pub(crate) wal_bytes: u64,
}

impl Drained {
    /// CPU time a lead of all processes whose name begins so, in µs.
    pub(crate) fn micros(&self, name: &str) -> f64 {
        let used = self.processes.iter().filter(|used| used.name.starts_with(name));
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let (cpu, leads) =
            (used.map(|used| used.cpu_micros).sum::<u64>() as f64, self.events as f64);
        cpu / leads
    }
}

/// All cases.
pub(crate) async fn measure(servers: &Servers, events: u64) -> Result<Vec<Drained>> {
    let mut all = Vec::new();
    for (consumers, partitions) in CASES {
        let drained = drain(servers, consumers, partitions, events).await?;
        tell(&drained)?;
        all.push(drained);
    }
    Ok(all)
}

async fn drain(
    servers: &Servers,
    consumers: usize,
    partitions: u32,
    events: u64,
) -> Result<Drained> {
    let count = partitions.to_string();
    let system = servers.system_with(&[("TOPIC_PARTITIONS", &count)]).await?;
    kafka::fill(&system.brokers, &system.events_topic, Uuid::now_v7(), events).await?;
    let client = connect(&system.database_url).await?;
    settle(&client).await;

    let wal = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    let wal_before: i64 = client.query_one(wal, &[]).await?.get(0);
    let load = load();
    let mut running = Vec::new();
    for _ in 0..consumers {
        running.push(system.spawn_consumer()?);
    }
    let mut watched: Vec<_> = running.iter().map(Service::watched).collect();
    watched.extend(servers.kafkas().into_iter().chain(servers.postgres()));
    let meter = Meter::start(&watched);
    let (mut first, mut projected, mut moved) = (None, 0, Instant::now());
    while projected < events {
        tokio::time::sleep(LOOK).await;
        for consumer in &mut running {
            consumer.check()?;
        }
        let now = projected_so_far(&client, &system.events_topic).await?;
        if now > projected {
            (projected, moved) = (now, Instant::now());
            first.get_or_insert((now, moved));
        }
        ensure!(moved.elapsed() < STUCK, "{projected} of {events} projected, and no progress");
    }
    let (before, start) = first.unwrap_or((0, moved));
    let seconds = (moved - start).as_secs_f64();
    let processes = meter.finish();
    let wal: i64 = client.query_one(wal, &[]).await?.get(0);
    let sizes = "SELECT pg_table_size('leads_g1'), pg_indexes_size('leads_g1')";
    let sizes = client.query_one(sizes, &[]).await?;
    for consumer in running {
        consumer.stop().await?;
    }
    system.remove().await;
    Ok(Drained {
        consumers,
        partitions,
        brokers: servers.broker_count(),
        load,
        events,
        seconds,
        per_second: rate(events - before, seconds),
        processes,
        table_bytes: u64::try_from(sizes.get::<_, i64>(0))?,
        index_bytes: u64::try_from(sizes.get::<_, i64>(1))?,
        wal_bytes: u64::try_from(wal - wal_before)?,
    })
}
