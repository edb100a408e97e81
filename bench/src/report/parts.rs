//! The tables of what is measured to the end: closed loops, librdkafka, the projection.

use super::table::{count, each, mib, millis, table, uses, whole};
use crate::cpu::Used;
use crate::drain::{CopyRun, Drain, Rebuild};
use crate::kafka::ProduceRun;
use crate::load::HttpRun;

/// Runs over HTTP.
pub(crate) fn http_table(runs: &[HttpRun]) -> String {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let refused = run.refused.iter().map(|(status, count)| format!("{status}: {count}"));
            let refused: Vec<_> = refused.collect();
            vec![
                run.name.clone(),
                run.connections.to_string(),
                whole(run.per_second),
                millis(run.p50_micros),
                millis(run.p99_micros),
                uses(&run.processes, |used| each(used.cpu_micros, run.acknowledged)),
                uses(&run.processes, |used| mib(used.peak_kib)),
                if refused.is_empty() { "0".to_owned() } else { refused.join(", ") },
            ]
        })
        .collect();
    let head = [
        "what",
        "connections",
        "acknowledged/s",
        "p50 ms",
        "p99 ms",
        "CPU µs a lead",
        "peak MiB",
        "other answers",
    ];
    table(&head, &rows)
}

/// Runs of librdkafka alone.
pub(crate) fn produce_table(runs: &[ProduceRun]) -> String {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            vec![
                "librdkafka alone".to_owned(),
                count(run.records),
                run.bytes_a_record.to_string(),
                whole(run.per_second),
                each(run.cpu_micros, run.records),
            ]
        })
        .collect();
    table(&["what", "records", "bytes each", "records/s", "CPU µs a record"], &rows)
}

/// The consumer, a rebuild, and their limit.
pub(crate) fn drain_table(drain: &Drain, rebuild: &Rebuild, copy: &CopyRun) -> String {
    let row = |what: &str, rows: u64, seconds: f64, per_second: f64, processes: &[Used]| {
        vec![
            what.to_owned(),
            count(rows),
            format!("{seconds:.1}"),
            whole(per_second),
            uses(processes, |used| each(used.cpu_micros, rows)),
            uses(processes, |used| mib(used.peak_kib)),
        ]
    };
    let rows = [
        row("consumer", drain.events, drain.seconds, drain.per_second, &drain.processes),
        row("`rebuild`", rebuild.events, rebuild.seconds, rebuild.per_second, &rebuild.processes),
        row("`COPY` alone", copy.rows, copy.seconds, copy.per_second, &copy.processes),
    ];
    let head = ["what", "leads", "seconds", "leads/s", "CPU µs a lead", "peak MiB"];
    table(&head, &rows)
}
