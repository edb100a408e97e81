//! The figures as tables, and into the page.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cpu::Used;
use crate::drain::{CopyRun, Drain, Rebuild};
use crate::freshness::Freshness;
use crate::kafka::ProduceRun;
use crate::lists::Listed;
use crate::load::HttpRun;
use crate::machine::{Machine, Versions};

const BEGIN: &str = "<!-- figures: written by `leads-bench render`, not by hand -->";
const END: &str = "<!-- end of figures -->";

/// All figures of one run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) date: String,
    pub(crate) machine: Machine,
    pub(crate) versions: Versions,
    pub(crate) bare: Vec<HttpRun>,
    pub(crate) produce: ProduceRun,
    pub(crate) post: Vec<HttpRun>,
    /// POST with the consumer beside.
    pub(crate) whole: HttpRun,
    pub(crate) freshness: Freshness,
    pub(crate) drain: Drain,
    pub(crate) lists: Vec<Listed>,
    pub(crate) copy: CopyRun,
    pub(crate) rebuild: Rebuild,
}

/// Rows of cells as a Markdown table, its columns padded so that it reads on a terminal too.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(head[column].chars().count())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<_> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    // The first column is text, the others are figures.
    let pad = |(column, cell): (usize, &str)| {
        let width = widths[column];
        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let mut text = line(&mut head.iter().copied().enumerate().map(pad));
    text += &line(&mut widths.iter().enumerate().map(|(column, width)| {
        if column == 0 { "-".repeat(*width) } else { "-".repeat(width - 1) + ":" }
    }));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str).enumerate().map(pad));
    }
    text
}

/// 1234567.8 as `1,234,568`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}", groups.join(","))
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn count(value: u64) -> String {
    whole(value as f64)
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn each(total: u64, units: u64) -> String {
    format!("{:.1}", total as f64 / units.max(1) as f64)
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn millis(micros: u64) -> String {
    let value = micros as f64 / 1_000.0;
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn mib(kib: u64) -> String {
    format!("{:.0}", kib as f64 / 1024.0)
}

/// `name 12.3` for each process.
fn uses(processes: &[Used], each_of: impl Fn(&Used) -> String) -> String {
    let texts: Vec<_> =
        processes.iter().map(|used| format!("{} {}", used.name, each_of(used))).collect();
    if texts.is_empty() { "–".to_owned() } else { texts.join(", ") }
}

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

fn drain_table(drain: &Drain, rebuild: &Rebuild, copy: &CopyRun) -> String {
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

/// The part of the page that the figures make.
pub(crate) fn page_part(results: &Results) -> String {
    let Results {
        date,
        machine,
        versions,
        bare,
        produce,
        post,
        whole,
        freshness,
        drain,
        lists,
        copy,
        rebuild,
    } = results;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "Measured {date} on {} ({} cores, {} MiB, Linux {}): leads {}, {}, librdkafka {}, \
         Kafka {}, PostgreSQL {}.\n",
        machine.cpu,
        machine.cores,
        machine.memory_mib,
        machine.kernel,
        versions.leads,
        versions.rustc,
        versions.librdkafka,
        versions.kafka,
        versions.postgresql,
    );
    let runs: Vec<_> = bare.iter().chain(post).chain([whole]).cloned().collect();
    text += "### Taking leads in\n\n";
    text += &http_table(&runs);
    text += "\n";
    text += &produce_table(std::slice::from_ref(produce));
    let _ = writeln!(
        text,
        "\n### Freshness\n\nAt {} leads a second ({} in all), from the 201 to the 200 of a GET: \
         p50 {} ms, p99 {} ms, at most {} ms. The POSTs themselves: p50 {} ms, p99 {} ms.\n",
        count(freshness.per_second),
        count(freshness.leads),
        millis(freshness.visible_p50_micros),
        millis(freshness.visible_p99_micros),
        millis(freshness.visible_max_micros),
        millis(freshness.post_p50_micros),
        millis(freshness.post_p99_micros),
    );
    text += "### Projecting a backlog\n\n";
    text += &drain_table(drain, rebuild, copy);
    let _ = writeln!(
        text,
        "\nRecords of {} bytes on average. The consumer's time runs from the start of the process; \
         its first commit came after {:.1} s. The rebuild's time goes up to the swap, its indexes \
         included.",
        drain.bytes_a_record, drain.first_commit_seconds,
    );
    let _ = writeln!(text, "\n### Lists of {} leads\n", count(drain.events));
    let rows: Vec<_> = lists
        .iter()
        .map(|list| vec![list.filter.clone(), millis(list.p50_micros), millis(list.p99_micros)])
        .collect();
    text += &table(&["filter", "p50 ms", "p99 ms"], &rows);
    text
}

/// Puts the figures of a results file between the page's two markers.
pub(crate) fn render(results: &Path, page: &Path) -> Result<()> {
    let read = |path: &Path| fs::read_to_string(path).with_context(|| path.display().to_string());
    let figures: Results = serde_json::from_str(&read(results)?)
        .with_context(|| format!("{} is not what `leads-bench run` writes", results.display()))?;
    let new = replaced(&read(page)?, &page_part(&figures))
        .with_context(|| format!("{} lacks the lines {BEGIN:?} and {END:?}", page.display()))?;
    fs::write(page, new).with_context(|| page.display().to_string())
}

fn replaced(page: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{part}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows =
            [vec!["a".to_owned(), "1,000".to_owned()], vec!["höher".to_owned(), "2".to_owned()]];
        let expected =
            "| what  |     n |\n| ----- | ----: |\n| a     | 1,000 |\n| höher |     2 |\n";
        assert_eq!(table(&["what", "n"], &rows), expected);
    }

    #[test]
    fn groups_digits() {
        assert_eq!((whole(999.4), whole(1_234_567.8)), ("999".to_owned(), "1,234,568".to_owned()));
        assert_eq!(count(1_000), "1,000");
    }

    #[test]
    fn replaces_what_is_between_the_markers_only() {
        let page = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(replaced(&page, "new\n").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        assert_eq!(replaced("a", "new"), None);
    }
}
