//! The tables of open loops, of the overload and of the outage.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::table::{count, each, mib, millis, table, uses, whole};
use crate::open::schedule::Arrivals;
use crate::open::{Generator, OpenRun};
use crate::outage::Outage;
use crate::overload::Overload;
use crate::own_time::Own;
use crate::spread::Spread;

fn percent(part: u64, of: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let percent = part as f64 * 100.0 / of.max(1) as f64;
    if part > 0 && percent < 0.01 {
        return "< 0.01".to_owned();
    }
    // Not rounded up: 100.00 is all of them.
    format!("{:.2}", (percent * 100.0 + 1e-6).floor() / 100.0)
}

fn listed(counts: &BTreeMap<String, u64>) -> String {
    let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{name}: {}", count(*n))).collect();
    if counts.is_empty() { "0".to_owned() } else { counts.join(", ") }
}

fn quantiles(spread: &Spread) -> [String; 5] {
    let Spread { count: _, p50_micros, p90_micros, p99_micros, p999_micros, max_micros } = spread;
    [p50_micros, p90_micros, p99_micros, p999_micros, max_micros].map(|micros| millis(*micros))
}

/// What a run is called in tables and plots.
pub(crate) fn name(run: &OpenRun) -> String {
    match run.arrivals {
        Arrivals::Constant => format!("{}, constant", run.recipe.name()),
        Arrivals::Poisson => format!("{}, Poisson", run.recipe.name()),
    }
}

/// Open loops: what came of them, by kind of request, the service's own time, the generator.
pub(crate) fn open_tables(runs: &[OpenRun]) -> String {
    let mut text = latencies(runs);
    if runs.iter().any(|run| run.own.is_some()) {
        text += "\nThe service's own time: from the request's head to the answer, but for the wait from \
                 handing over to the delivery report. From a histogram, so as upper bounds.\n\n";
        text += &own_times(runs);
    }
    text += "\nThe generator: how much later than it was due a request was sent.\n\n";
    text += &generators(runs);
    for warning in runs.iter().filter_map(|run| Some((name(run), run.warning()?))) {
        let _ = writeln!(text, "\n**{}**: {}.", warning.0, warning.1);
    }
    text
}

fn latencies(runs: &[OpenRun]) -> String {
    let mut rows = Vec::new();
    for run in runs {
        let mut row = vec![name(run), whole(run.offered_per_second), whole(run.per_second)];
        row.extend(quantiles(&run.latency));
        row.push(uses(&run.processes, |used| each(used.cpu_micros, run.acknowledged)));
        row.push(listed(&run.refused));
        rows.push(row);
        for (kind, spread) in &run.kinds {
            let mut row = vec![format!("– {}", kind.name()), String::new(), String::new()];
            row.extend(quantiles(spread));
            row.extend([String::new(), String::new()]);
            rows.push(row);
        }
    }
    let head = [
        "recipe",
        "requests/s",
        "leads/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "CPU µs a lead",
        "other answers",
    ];
    table(&head, &rows)
}

fn own_times(runs: &[OpenRun]) -> String {
    let mut rows = Vec::new();
    for run in runs {
        for (route, own) in run.own.iter().flatten() {
            let Own { count: all, mean_micros, within_a_millisecond, .. } = own;
            let bound = |micros: Option<f64>| {
                micros.map_or_else(|| "–".to_owned(), |micros| format!("≤ {}", whole(micros)))
            };
            rows.push(vec![
                name(run),
                format!("`{route}`"),
                count(*all),
                whole(*mean_micros),
                bound(own.p50_at_most_micros),
                bound(own.p99_at_most_micros),
                bound(own.p999_at_most_micros),
                percent(*within_a_millisecond, *all),
            ]);
        }
    }
    let head =
        ["recipe", "route", "requests", "mean µs", "p50 µs", "p99 µs", "p99.9 µs", "% within 1 ms"];
    table(&head, &rows)
}

fn generators(runs: &[OpenRun]) -> String {
    let rows: Vec<_> = runs
        .iter()
        .map(|run| {
            let Generator { behind, connections, cpu_percent, kept_up } = &run.generator;
            vec![
                name(run),
                millis(behind.p50_micros),
                millis(behind.p99_micros),
                millis(behind.max_micros),
                count(run.unsent),
                connections.to_string(),
                format!("{cpu_percent:.0}"),
                if *kept_up { "yes" } else { "**no**" }.to_owned(),
            ]
        })
        .collect();
    let head = [
        "recipe",
        "behind p50 ms",
        "p99 ms",
        "max ms",
        "never sent",
        "connections",
        "% of a core",
        "kept up",
    ];
    table(&head, &rows)
}

/// The capacity, and what comes of more.
pub(crate) fn overload_part(overload: &Overload) -> String {
    let Overload { recipe, capacity, tries, points } = overload;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "Carried ({}; at most one in a thousand lost, p99 within 250 ms): {} requests a second, the \
         most of {} rates that were tried.\n",
        recipe.name(),
        whole(*capacity),
        tries.len()
    );
    let rows: Vec<_> = points
        .iter()
        .map(|run| {
            vec![
                format!("{}×", run.offered_per_second / capacity),
                whole(run.offered_per_second),
                whole(run.per_second),
                percent(run.refused.get("503").copied().unwrap_or(0), run.offered),
                percent(run.unsent, run.offered),
                millis(run.latency.p50_micros),
                millis(run.latency.p99_micros),
                run.since_sent.as_ref().map_or_else(|| "–".to_owned(), |it| millis(it.p99_micros)),
                match &run.unavailable {
                    Spread { count: 0, .. } => "–".to_owned(),
                    spread => millis(spread.p99_micros),
                },
                uses(&run.processes, |used| mib(used.peak_kib)),
                if run.generator.kept_up { "yes" } else { "**no**" }.to_owned(),
            ]
        })
        .collect();
    let head = [
        "load",
        "offered/s",
        "leads/s",
        "% shed",
        "% never sent",
        "p50 ms",
        "p99 ms",
        "since sent",
        "p99 of 503 ms",
        "peak MiB",
        "generator kept up",
    ];
    text += &table(&head, &rows);
    text
}

/// The outage in words.
pub(crate) fn outage_part(outage: &Outage) -> String {
    let seconds = |value: Option<f64>| {
        value.map_or_else(|| "never".to_owned(), |value| format!("{value:.2} s"))
    };
    let memory = |from: f64, to: f64| {
        let seconds = outage.timeline.iter().zip(0_u32..);
        let within = seconds.filter(|(_, at)| (from..to).contains(&f64::from(*at)));
        within.map(|(second, _)| second.api_kib).max().unwrap_or(0)
    };
    let Outage { away_at, back_at, unavailable, unavailable_settled, .. } = outage;
    let rows = [
        ("the broker was away", format!("{:.1} s", back_at - away_at)),
        ("from its going to the first 503", seconds(outage.first_503_seconds)),
        ("from its return to the first 201", seconds(outage.first_201_seconds)),
        (
            "503: p50, p99, slowest",
            format!(
                "{} ms, {} ms, {} ms",
                millis(unavailable.p50_micros),
                millis(unavailable.p99_micros),
                millis(unavailable.max_micros)
            ),
        ),
        (
            "the same once the outage is known (after 6 s)",
            format!(
                "{} ms, {} ms, {} ms",
                millis(unavailable_settled.p50_micros),
                millis(unavailable_settled.p99_micros),
                millis(unavailable_settled.max_micros)
            ),
        ),
        (
            "peak memory of the API before, during, after",
            format!(
                "{} MiB, {} MiB, {} MiB",
                mib(memory(0.0, *away_at)),
                mib(memory(*away_at, *back_at)),
                mib(memory(*back_at, f64::INFINITY))
            ),
        ),
        ("answers 201", count(outage.accepted)),
        ("of those not in the log", count(outage.accepted_not_in_log)),
        ("in the log without a 201", count(outage.in_log_not_accepted)),
        ("other answers", listed(&outage.refused)),
    ];
    let rows = rows.map(|(what, value)| vec![what.to_owned(), value]);
    format!(
        "{} POSTs a second; the broker is {} and comes back.\n\n{}",
        whole(outage.per_second),
        outage.fault.name(),
        table(&["what", "figure"], &rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_is_all_only_if_it_is_all() {
        assert_eq!(percent(1_999_999, 2_000_000), "99.99");
        assert_eq!(percent(7, 7), "100.00");
        assert_eq!(percent(29, 100), "29.00");
        assert_eq!(
            (percent(1, 1_000_000), percent(0, 0)),
            ("< 0.01".to_owned(), "0.00".to_owned())
        );
    }
}
