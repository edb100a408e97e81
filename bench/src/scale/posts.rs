//! POSTs to more APIs, partitions and brokers.

use std::time::Duration;

use anyhow::Result;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Part, load, tell};
use crate::cpu::Used;
use crate::kafka;
use crate::load::{HttpRun, Plan, Target, closed_loop, rate};
use crate::servers::Servers;
use crate::service::Service;

const CONNECTIONS: usize = 64;
/// Leads of a batch, and connections that send them.
const BATCH: u64 = 500;
const BATCH_CONNECTIONS: usize = 4;

/// What takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Case {
    pub(crate) apis: usize,
    /// To each API.
    pub(crate) connections: usize,
    pub(crate) partitions: u32,
    /// And as many replicas.
    pub(crate) brokers: usize,
    pub(crate) codec: String,
    /// Leads a request; more than one is a batch.
    pub(crate) batch: u64,
    /// Whether each lead has an `Idempotency-Key`: it goes where that falls, not where it is cheap.
    pub(crate) keyed: bool,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Posted {
    pub(crate) part: Part,
    #[serde(flatten)]
    pub(crate) case: Case,
    /// The machine's load average before.
    pub(crate) load: Option<f64>,
    pub(crate) acknowledged: u64,
    pub(crate) per_second: f64,
    /// Of the API that was slowest.
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
    pub(crate) refused: u64,
    pub(crate) processes: Vec<Used>,
    /// Records in the log, the warm-up's included, and the bytes of one replica of them.
    pub(crate) records: u64,
    pub(crate) log_bytes: Option<u64>,
}

impl Posted {
    /// CPU time a lead of all processes whose name begins so, in µs.
    pub(crate) fn micros(&self, name: &str) -> f64 {
        let used = self.processes.iter().filter(|used| used.name.starts_with(name));
        #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let (cpu, leads) =
            (used.map(|used| used.cpu_micros).sum::<u64>() as f64, self.acknowledged as f64);
        cpu / leads
    }
}

fn cases(part: Part, brokers: usize) -> Vec<Case> {
    let one = Case {
        apis: 1,
        connections: CONNECTIONS,
        partitions: 12,
        brokers,
        codec: "lz4".to_owned(),
        batch: 1,
        keyed: false,
    };
    let batches = Case { batch: BATCH, connections: BATCH_CONNECTIONS, ..one.clone() };
    match part {
        Part::Partitions => [1, 3, 12, 48]
            .into_iter()
            .flat_map(|partitions| {
                let turns = Case { partitions, ..one.clone() };
                [Case { keyed: true, ..turns.clone() }, turns]
            })
            .collect(),
        Part::Apis => (1..=3).map(|apis| Case { apis, ..one.clone() }).collect(),
        Part::Codecs => ["none", "lz4", "zstd"]
            .into_iter()
            .flat_map(|codec| {
                [&one, &batches].map(|case| Case { codec: codec.to_owned(), ..case.clone() })
            })
            .collect(),
        Part::Brokers => vec![Case { connections: 8, ..one.clone() }, one, batches],
        Part::Consumers => Vec::new(),
    }
}

/// All cases of a part.
pub(crate) async fn measure(servers: &Servers, part: Part, seconds: u64) -> Result<Vec<Posted>> {
    let mut all = Vec::new();
    for case in cases(part, servers.broker_count()) {
        let posted = post(servers, part, case, seconds).await?;
        tell(&posted)?;
        all.push(posted);
    }
    Ok(all)
}

fn target(case: &Case, api: &Service, key: &str) -> Result<Target> {
    let url = api.url();
    let target = match case.batch {
        1 => Target::leads(&url, Some(key)),
        leads => Target::batches(&url, Some(key), leads),
    }?;
    Ok(if case.keyed { target.keyed() } else { target })
}

async fn post(servers: &Servers, part: Part, case: Case, seconds: u64) -> Result<Posted> {
    let partitions = case.partitions.to_string();
    let more = [("TOPIC_PARTITIONS", partitions.as_str()), ("KAFKA_COMPRESSION_TYPE", &case.codec)];
    let system = servers.system_with(&more).await?;
    let key = system.create_key(Uuid::now_v7()).await?;
    let mut apis = Vec::new();
    for _ in 0..case.apis {
        apis.push(system.start_api().await?);
    }
    let measure = Duration::from_secs(seconds);
    let (connections, warm_up) = (case.connections, measure.mul_f64(0.3));
    let plan = Plan { connections, warm_up, measure, answers: None };
    let load = load();
    let loops = apis.iter().enumerate().map(async |(at, api)| {
        let mut watched = vec![api.watched()];
        // Once for all: the loops run side by side.
        watched.extend(servers.kafkas().into_iter().filter(|_| at == 0));
        closed_loop("POST", target(&case, api, &key)?, &plan, &watched).await
    });
    let runs: Vec<HttpRun> = try_join_all(loops).await?;
    for api in apis {
        api.stop().await?;
    }
    let records = kafka::records_in(&system.brokers, &system.events_topic)?;
    let log_bytes = servers.log_bytes(&system.events_topic);
    system.remove().await;
    let acknowledged = runs.iter().map(|run| run.acknowledged).sum();
    let longest = runs.iter().map(|run| run.seconds).fold(0.0, f64::max);
    Ok(Posted {
        part,
        case,
        load,
        acknowledged,
        per_second: rate(acknowledged, longest),
        p50_micros: runs.iter().map(|run| run.p50_micros).max().unwrap_or(0),
        p99_micros: runs.iter().map(|run| run.p99_micros).max().unwrap_or(0),
        refused: runs.iter().flat_map(|run| run.refused.values()).sum(),
        processes: runs.into_iter().flat_map(|run| run.processes).collect(),
        records,
        log_bytes,
    })
}
