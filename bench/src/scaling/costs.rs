//! What a lead costs, as it was measured. All else follows from these figures.

use anyhow::{Context, Result};

use crate::cpu::Used;
use crate::recipe::POST_BATCH;
use crate::report::{self, Results};
use crate::scale::{Part, Posted, Scale};

use super::words::{bytes, micros};

/// A POST of the benchmarks' lead and its answer with their heads, without TCP's and TLS's own.
const REQUEST_BYTES: f64 = 447.0;
const ANSWER_BYTES: f64 = 827.0;

/// CPU times in µs a lead, sizes in bytes a lead.
#[derive(Debug)]
pub(crate) struct Costs {
    /// The API, a request each, over 64 connections; in batches of 500.
    pub(crate) api: f64,
    pub(crate) api_batch: f64,
    /// All three brokers together, with three replicas; the same for batches of 500.
    pub(crate) brokers: f64,
    pub(crate) brokers_batch: f64,
    /// The projection while leads come in over 64 connections, in small batches.
    pub(crate) consumer_small: f64,
    pub(crate) postgres_small: f64,
    /// The projection of a backlog, in full batches.
    pub(crate) consumer_full: f64,
    pub(crate) postgres_full: f64,
    pub(crate) rebuild: f64,
    pub(crate) rebuild_postgres: f64,
    /// Leads a second of a rebuild on the machine of the measurements.
    pub(crate) rebuild_rate: f64,
    /// Leads a second that one partition takes by POST, and that are projected out of one.
    pub(crate) partition_post: f64,
    pub(crate) partition_drain: f64,
    pub(crate) request: f64,
    pub(crate) answer: f64,
    /// A record's value, and what is on a disk for it: with lz4 and zstd.
    pub(crate) record: f64,
    pub(crate) log_lz4: f64,
    pub(crate) log_zstd: f64,
    /// A row, and its part of all indexes.
    pub(crate) row: f64,
    pub(crate) indexes: f64,
    /// What PostgreSQL writes ahead for it.
    pub(crate) wal: f64,
}

fn of(processes: &[Used], name: &str, leads: u64) -> Result<f64> {
    let used = processes.iter().find(|used| used.name == name);
    let used = used.with_context(|| format!("no process {name} in the figures"))?;
    Ok(float(used.cpu_micros) / float(leads))
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// Bytes of one replica for each record in it.
pub(crate) fn log_bytes(posted: &Posted) -> Option<f64> {
    Some(float(posted.log_bytes?) / float(posted.records))
}

impl Costs {
    pub(crate) fn of(run: &Results, scale: &Scale) -> Result<Self> {
        let Results { whole, drain, rebuild, post, .. } = run;
        let single = post.iter().find(|it| it.name == "POST" && it.connections == 64);
        let single = single.context("no POST over 64 connections")?;
        let batch = post.iter().find(|it| it.name == POST_BATCH).context("no POST of 500")?;
        let posted = |part, wanted: &dyn Fn(&Posted) -> bool| {
            let mut found = scale.posts.iter().filter(|it| it.part == part);
            found.find(|it| wanted(it)).with_context(|| format!("no such figure of {part:?}"))
        };
        let three = |leads: u64| {
            posted(Part::Brokers, &|it| {
                it.case.brokers == 3 && it.case.batch == leads && it.case.connections != 8
            })
        };
        let codec = |name: &str| {
            let found = posted(Part::Codecs, &|it| it.case.codec == name && it.case.batch == 1)?;
            log_bytes(found).with_context(|| format!("no size of a log with {name}"))
        };
        let drained = |partitions: u32| {
            let mut found = scale.drains.iter().filter(|it| it.consumers == 1 && it.brokers == 1);
            found.find(|it| it.partitions == partitions).context("no such drain")
        };
        let rows = drained(12)?;
        let one = posted(Part::Partitions, &|it| it.case.partitions == 1 && !it.case.keyed)?;
        Ok(Self {
            api: of(&single.processes, "api", single.acknowledged)?,
            api_batch: of(&batch.processes, "api", batch.acknowledged)?,
            brokers: three(1)?.micros("kafka"),
            brokers_batch: three(500)?.micros("kafka"),
            consumer_small: of(&whole.processes, "consumer", whole.acknowledged)?,
            postgres_small: of(&whole.processes, "postgres", whole.acknowledged)?,
            consumer_full: of(&drain.processes, "consumer", drain.events)?,
            postgres_full: of(&drain.processes, "postgres", drain.events)?,
            rebuild: of(&rebuild.processes, "rebuild", rebuild.events)?,
            rebuild_postgres: of(&rebuild.processes, "postgres", rebuild.events)?,
            rebuild_rate: rebuild.per_second,
            partition_post: one.per_second,
            partition_drain: drained(1)?.per_second,
            request: REQUEST_BYTES,
            answer: ANSWER_BYTES,
            record: float(drain.bytes_a_record),
            log_lz4: codec("lz4")?,
            log_zstd: codec("zstd")?,
            row: float(rows.table_bytes) / float(rows.events),
            indexes: float(rows.index_bytes) / float(rows.events),
            wal: float(rows.wal_bytes) / float(rows.events),
        })
    }

    pub(crate) fn table(&self) -> String {
        let per_second = |value: f64| format!("{}/s", report::whole(value));
        let row =
            |what: &str, figure: String, from: &str| vec![what.to_owned(), figure, from.to_owned()];
        let (run, scale) = ("`leads-bench run`", "`leads-bench scale`");
        let rows = [
            row("API, a POST a lead", micros(self.api), run),
            row("API, batches of 500", micros(self.api_batch), run),
            row("three brokers, three replicas, a POST a lead", micros(self.brokers), scale),
            row("three brokers, three replicas, batches of 500", micros(self.brokers_batch), scale),
            row("consumer, keeping up in small batches", micros(self.consumer_small), run),
            row("consumer, full batches", micros(self.consumer_full), run),
            row("PostgreSQL, keeping up in small batches", micros(self.postgres_small), run),
            row("PostgreSQL, full batches", micros(self.postgres_full), run),
            row("rebuild", micros(self.rebuild), run),
            row("PostgreSQL in a rebuild", micros(self.rebuild_postgres), run),
            row("a rebuild, on 2 cores", per_second(self.rebuild_rate), run),
            row("POSTs to one partition, on 2 cores", per_second(self.partition_post), scale),
            row("projecting one partition, on 2 cores", per_second(self.partition_drain), scale),
            row("request, head and body", bytes(self.request), "one of the benchmarks'"),
            row("answer, head and body", bytes(self.answer), "one of the benchmarks'"),
            row("record's value", bytes(self.record), run),
            row("log, one replica, lz4", bytes(self.log_lz4), scale),
            row("log, one replica, zstd", bytes(self.log_zstd), scale),
            row("row of `leads`", bytes(self.row), scale),
            row("its part of the indexes", bytes(self.indexes), scale),
            row("its part of the write-ahead log", bytes(self.wal), scale),
        ];
        report::table(&["what", "a lead", "measured by"], &rows)
    }
}
