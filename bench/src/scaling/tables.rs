//! The tables of the page.

use crate::report::{millis, table, whole};
use crate::scale::{Drained, Part, Posted, Scale};

use super::costs::{Costs, log_bytes};
use super::words::{bits, bytes, cores as cores_of, leads, micros, span};

/// Leads a second.
const RATES: [f64; 3] = [10e3, 100e3, 1e6];
const REPLICAS: f64 = 3.0;
const YEAR: f64 = 365.0 * 86_400.0;
/// Cores of an API, a consumer, a broker and a PostgreSQL server, and how much of them is to be used.
const API_CORES: f64 = 4.0;
const CONSUMER_CORES: f64 = 2.0;
const BROKER_CORES: f64 = 8.0;
const POSTGRES_CORES: f64 = 16.0;
const USED: f64 = 0.6;
/// Partitions that a topic is made with: divided evenly by many numbers of brokers and consumers.
const PARTITIONS: [f64; 7] = [12.0, 24.0, 48.0, 96.0, 192.0, 384.0, 768.0];
/// A table of PostgreSQL: 2^32 - 1 pages of 8 KiB.
const TABLE_BYTES: f64 = 35.2e12;
/// Leads that a read model has when it is rebuilt.
const REBUILT: [f64; 3] = [100e6, 1e9, 10e9];

fn with_rates(first: &str) -> Vec<String> {
    let rates = RATES.iter().map(|rate| format!("{} leads/s", leads(*rate)));
    std::iter::once(first.to_owned()).chain(rates).collect()
}

fn by_rate(first: &str, rows: &[(&str, &dyn Fn(f64) -> String)]) -> String {
    let head = with_rates(first);
    let rows: Vec<_> = rows
        .iter()
        .map(|(name, figure)| {
            let figures = RATES.iter().map(|rate| figure(*rate));
            std::iter::once((*name).to_owned()).chain(figures).collect()
        })
        .collect();
    table(&head.iter().map(String::as_str).collect::<Vec<_>>(), &rows)
}

/// Cores at full use.
pub(super) fn cores(costs: &Costs) -> String {
    let one = |micros: f64| move |rate: f64| cores_of(rate * micros / 1e6);
    let range = |full: f64, small: f64| {
        move |rate: f64| {
            format!("{} to {}", cores_of(rate * full / 1e6), cores_of(rate * small / 1e6))
        }
    };
    by_rate(
        "cores",
        &[
            ("API, a POST a lead", &one(costs.api)),
            ("API, batches of 500", &one(costs.api_batch)),
            ("brokers, a POST a lead", &one(costs.brokers)),
            ("brokers, batches of 500", &one(costs.brokers_batch)),
            ("consumers", &range(costs.consumer_full, costs.consumer_small)),
            ("PostgreSQL", &range(costs.postgres_full, costs.postgres_small)),
        ],
    )
}

/// At least one more than needed where one may be lost.
fn count(rate: f64, micros: f64, cores: f64, least: f64) -> String {
    whole((rate * micros / 1e6 / (cores * USED)).ceil().max(least))
}

/// Partitions for a rate: each at most half as busy as one was when it was drained.
fn partitions_for(costs: &Costs, rate: f64) -> f64 {
    let needed = 2.0 * rate / costs.partition_drain.min(costs.partition_post);
    PARTITIONS.into_iter().find(|it| *it >= needed).unwrap_or_else(|| needed.ceil())
}

/// Machines, each used up to a bound.
pub(super) fn machines(costs: &Costs) -> String {
    by_rate(
        "what",
        &[
            ("APIs of 4 cores", &|rate| count(rate, costs.api, API_CORES, 2.0)),
            ("the same, all leads in batches", &|rate| {
                count(rate, costs.api_batch, API_CORES, 2.0)
            }),
            ("brokers of 8 cores", &|rate| count(rate, costs.brokers, BROKER_CORES, 3.0)),
            ("partitions", &|rate| whole(partitions_for(costs, rate))),
            ("consumers of 2 cores", &|rate| {
                count(rate, costs.consumer_small, CONSUMER_CORES, 2.0)
            }),
            ("PostgreSQL servers of 16 cores", &|rate| {
                count(rate, costs.postgres_small, POSTGRES_CORES, 1.0)
            }),
        ],
    )
}

pub(super) fn network(costs: &Costs) -> String {
    let flow = |bytes: f64| move |rate: f64| bits(rate * bytes);
    by_rate(
        "from … to",
        &[
            ("clients to APIs", &flow(costs.request)),
            ("APIs to clients", &flow(costs.answer)),
            ("APIs to brokers, lz4", &flow(costs.log_lz4)),
            ("between brokers", &flow(costs.log_lz4 * (REPLICAS - 1.0))),
            ("brokers to consumers", &flow(costs.log_lz4)),
            ("consumers to PostgreSQL", &flow(costs.row)),
            ("PostgreSQL to each replica", &flow(costs.wal)),
        ],
    )
}

pub(super) fn disk(costs: &Costs) -> String {
    let row = costs.row + costs.indexes;
    by_rate(
        "what",
        &[
            ("leads a year", &|rate| leads(rate * YEAR)),
            ("log a day, three replicas, lz4", &|rate| {
                bytes(rate * 86_400.0 * costs.log_lz4 * REPLICAS)
            }),
            ("log a year, three replicas, lz4", &|rate| {
                bytes(rate * YEAR * costs.log_lz4 * REPLICAS)
            }),
            ("log a year, three replicas, zstd", &|rate| {
                bytes(rate * YEAR * costs.log_zstd * REPLICAS)
            }),
            ("read model a year, one copy", &|rate| bytes(rate * YEAR * row)),
            ("until one table of PostgreSQL is full", &|rate| span(TABLE_BYTES / costs.row / rate)),
        ],
    )
}

pub(super) fn rebuild(costs: &Costs) -> String {
    // One server's share of its cores, and as many partitions as it takes to keep it busy.
    let server = POSTGRES_CORES * USED * 1e6 / costs.rebuild_postgres;
    let sizes = REBUILT.iter().copied().chain(RATES.map(|rate| rate * YEAR));
    let rows: Vec<_> = sizes
        .map(|size| {
            let hours = size * (costs.rebuild + costs.rebuild_postgres) / 1e6 / 3_600.0;
            vec![
                leads(size),
                bytes(size * (costs.row + costs.indexes)),
                cores_of(hours),
                span(size / costs.rebuild_rate),
                span(size / server),
                span(size / server / 12.0),
            ]
        })
        .collect();
    let head =
        ["leads", "room for it", "core hours", "2 cores", "16 cores", "12 servers of 16 cores"];
    table(&head, &rows)
}

fn posts(scale: &Scale, part: Part) -> impl Iterator<Item = &Posted> {
    scale.posts.iter().filter(move |it| it.part == part)
}

fn load(load: Option<f64>) -> String {
    load.map_or("–".to_owned(), |load| format!("{load:.1}"))
}

pub(super) fn partitions(scale: &Scale) -> String {
    let rows: Vec<_> = posts(scale, Part::Partitions)
        .map(|it| {
            vec![
                it.case.partitions.to_string(),
                if it.case.keyed { "by its key" } else { "by turns" }.to_owned(),
                whole(it.per_second),
                micros(it.micros("api")),
                micros(it.micros("kafka")),
                millis(it.p99_micros),
                load(it.load),
            ]
        })
        .collect();
    let head =
        ["partitions", "a lead's partition", "acknowledged/s", "API", "broker", "p99 ms", "load"];
    table(&head, &rows)
}

pub(super) fn apis(scale: &Scale) -> String {
    let rows: Vec<_> = posts(scale, Part::Apis)
        .map(|it| {
            vec![
                it.case.apis.to_string(),
                whole(it.per_second),
                micros(it.micros("api")),
                micros(it.micros("kafka")),
                millis(it.p99_micros),
                load(it.load),
            ]
        })
        .collect();
    table(&["APIs", "acknowledged/s", "API", "broker", "p99 ms", "load"], &rows)
}

pub(super) fn consumers(scale: &Scale) -> String {
    let row = |it: &Drained| {
        vec![
            it.consumers.to_string(),
            it.partitions.to_string(),
            whole(it.per_second),
            micros(it.micros("consumer")),
            micros(it.micros("postgres")),
            micros(it.micros("kafka")),
            load(it.load),
        ]
    };
    let rows: Vec<_> = scale.drains.iter().map(row).collect();
    let head = ["consumers", "partitions", "leads/s", "consumer", "PostgreSQL", "broker", "load"];
    table(&head, &rows)
}

pub(super) fn brokers(scale: &Scale) -> String {
    let mut found: Vec<_> = posts(scale, Part::Brokers).collect();
    found.sort_by_key(|it| (it.case.batch, it.case.connections, it.case.brokers));
    let rows: Vec<_> = found
        .into_iter()
        .map(|it| {
            vec![
                it.case.brokers.to_string(),
                it.case.batch.to_string(),
                it.case.connections.to_string(),
                whole(it.per_second),
                micros(it.micros("api")),
                micros(it.micros("kafka")),
                millis(it.p50_micros),
                millis(it.p99_micros),
                load(it.load),
            ]
        })
        .collect();
    let head = [
        "brokers, replicas",
        "leads a request",
        "connections",
        "acknowledged/s",
        "API",
        "all brokers",
        "p50 ms",
        "p99 ms",
        "load",
    ];
    table(&head, &rows)
}

pub(super) fn codecs(scale: &Scale) -> String {
    let rows: Vec<_> = posts(scale, Part::Codecs)
        .map(|it| {
            vec![
                it.case.codec.clone(),
                it.case.batch.to_string(),
                log_bytes(it).map_or("–".to_owned(), bytes),
                micros(it.micros("api")),
                micros(it.micros("kafka")),
                whole(it.per_second),
                load(it.load),
            ]
        })
        .collect();
    let head = ["codec", "leads a request", "on disk", "API", "broker", "acknowledged/s", "load"];
    table(&head, &rows)
}
