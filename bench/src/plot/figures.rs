//! What the plots show: from figures to lines.

use std::collections::BTreeMap;

use super::Plot;
use super::axis::{Axis, rarity};
use super::draw::{Figure, Line, Panel};
use crate::kafka::ProduceRun;
use crate::load::HttpRun;
use crate::open::OpenRun;
use crate::outage::Outage;
use crate::overload::Overload;
use crate::recipe::POST;
use crate::report::{Results, open_name};

/// The plot of what was measured, if it was.
pub(super) fn figure(plot: Plot, results: &Results) -> Option<Figure> {
    let Results { bare, post, produce, open, overload, outage, .. } = results;
    let subtitle = subtitle(results);
    match plot {
        Plot::Cost => Some(cost(bare, post, produce, subtitle)),
        Plot::Latency => latency(open, subtitle),
        Plot::Overload => overload.as_ref().map(|found| overloaded(found, subtitle)),
        Plot::Outage => outage.as_ref().map(|found| outages(found, subtitle)),
    }
}

fn subtitle(results: &Results) -> String {
    let Results { date, machine, versions, .. } = results;
    let day = date.split('T').next().unwrap_or(date);
    format!(
        "{day} · {}, {} cores for client, API and broker · leads {}",
        machine.cpu, machine.cores, versions.leads
    )
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}

fn largest(lines: &[Line]) -> f64 {
    let heights = lines.iter().flat_map(|line| &line.points).map(|(_, y)| *y);
    heights.fold(0.0, f64::max)
}

fn cost(bare: &[HttpRun], post: &[HttpRun], produce: &ProduceRun, subtitle: String) -> Figure {
    // Batches go over connections of their own number, and are another matter.
    let single: Vec<_> = post.iter().filter(|run| run.name == POST).collect();
    let bare: Vec<_> = bare.iter().collect();
    let over = |runs: &[&HttpRun], name: &str, height: &dyn Fn(&HttpRun) -> f64| Line {
        name: name.to_owned(),
        points: (0_u32..).map(f64::from).zip(runs.iter().map(|run| height(run))).collect(),
        dots: true,
    };
    let each = |run: &HttpRun| {
        let used = run.processes.first().map_or(0, |used| used.cpu_micros);
        float(used) / float(run.acknowledged.max(1))
    };
    let alone = float(produce.cpu_micros) / float(produce.records.max(1));
    let throughput = vec![
        over(&single, "leads-api: POST, acknowledged by the broker", &|run| run.per_second),
        over(&bare, "bare actix-web: no checks, no broker", &|run| run.per_second),
    ];
    let micros = vec![
        over(&single, "leads-api", &each),
        over(&bare, "bare actix-web", &each),
        over(&bare, "bare actix-web + librdkafka alone", &|run| each(run) + alone),
    ];
    let x = || {
        Axis::names(
            "connections, closed loop",
            single.iter().map(|run| run.connections.to_string()),
        )
    };
    let panel = |lines: Vec<Line>, label: &str| Panel {
        x: x(),
        y: Axis::linear(label, largest(&lines)),
        lines,
        shade: None,
    };
    Figure {
        title: "What a lead costs the API, by connections".to_owned(),
        subtitle,
        panels: vec![panel(throughput, "answers a second"), panel(micros, "CPU µs a lead")],
    }
}

fn latency(runs: &[OpenRun], subtitle: String) -> Option<Figure> {
    const MILLI: f64 = 1_000.0;
    let points = || runs.iter().flat_map(|run| &run.curve);
    let micros = || points().map(|point| float(point.micros.max(1)));
    // The slowest of all stands at share 1: where it is, is told by how many there were.
    let rarest =
        runs.iter().map(|run| float(run.latency.count.max(10)).log10()).fold(1.0, f64::max);
    points().next()?;
    let line = |run: &OpenRun| {
        let last = float(run.latency.count.max(10)).log10();
        let place = |share: f64| if share < 1.0 { rarity(share).min(last) } else { last };
        Line {
            name: format!(
                "{}, {} requests/s",
                open_name(run),
                crate::report::whole(run.offered_per_second)
            ),
            points: run
                .curve
                .iter()
                .map(|point| (place(point.share), (float(point.micros.max(1)) / MILLI).log10()))
                .collect(),
            dots: false,
        }
    };
    Some(Figure {
        title: "Latency at constant rates, from when a request was due".to_owned(),
        subtitle,
        panels: vec![Panel {
            x: Axis::shares("share of the requests that took this long or less", rarest),
            y: Axis::logarithmic(
                "ms, logarithmic",
                micros().fold(f64::MAX, f64::min) / MILLI,
                micros().fold(0.0, f64::max) / MILLI,
            ),
            lines: runs.iter().map(line).collect(),
            shade: None,
        }],
    })
}

fn overloaded(found: &Overload, subtitle: String) -> Figure {
    let Overload { recipe, capacity, points, tries: _ } = found;
    let over = |name: &str, height: &dyn Fn(&OpenRun) -> f64| Line {
        name: name.to_owned(),
        points: points.iter().map(|run| (run.offered_per_second, height(run))).collect(),
        dots: true,
    };
    let a_second = |run: &OpenRun, count: u64| float(count) / run.seconds;
    let rates = vec![
        over("answered 2xx", &|run| a_second(run, run.succeeded)),
        over("answered 503", &|run| a_second(run, run.refused.get("503").copied().unwrap_or(0))),
        over("never sent: the generator was busy", &|run| a_second(run, run.unsent)),
    ];
    let height = |micros: u64| (float(micros.max(1)) / 1_000.0).log10();
    let mut times = vec![over("answered 2xx", &|run| height(run.latency.p99_micros))];
    if points.iter().all(|run| run.since_sent.is_some()) {
        let since_sent =
            |run: &OpenRun| height(run.since_sent.as_ref().map_or(0, |it| it.p99_micros));
        times.push(over("answered 2xx, since it was sent", &since_sent));
    }
    let refused: Vec<_> = points.iter().filter(|run| run.unavailable.count > 0).collect();
    if !refused.is_empty() {
        times.push(Line {
            name: "answered 503".to_owned(),
            points: refused
                .iter()
                .map(|run| (run.offered_per_second, height(run.unavailable.p99_micros)))
                .collect(),
            dots: true,
        });
    }
    let p99 = || times.iter().flat_map(|line| &line.points).map(|(_, y)| 10_f64.powf(*y));
    let most = points.iter().map(|run| run.offered_per_second).fold(0.0, f64::max);
    let x = || Axis::linear_to("requests offered a second", most * 1.02);
    Figure {
        title: format!(
            "Offered 0.5, 1, 2 and 4 times what is carried: {} requests a second, {}",
            crate::report::whole(*capacity),
            recipe.name()
        ),
        subtitle,
        panels: vec![
            Panel {
                x: x(),
                y: Axis::linear("requests a second", largest(&rates)),
                lines: rates,
                shade: None,
            },
            Panel {
                x: x(),
                y: Axis::logarithmic(
                    "p99 in ms, logarithmic",
                    p99().fold(f64::MAX, f64::min),
                    p99().fold(0.0, f64::max),
                ),
                lines: times,
                shade: None,
            },
        ],
    }
}

fn outages(found: &Outage, subtitle: String) -> Figure {
    let Outage { timeline, away_at, back_at, .. } = found;
    // The last second is no whole one: its end was not seen.
    let seconds = || (0_u32..).map(f64::from).zip(timeline).filter(|(_, s)| s.api_kib > 0);
    let mut totals = BTreeMap::<&str, u64>::new();
    for (name, count) in timeline.iter().flat_map(|second| &second.outcomes) {
        *totals.entry(name).or_default() += count;
    }
    let answers: Vec<_> = totals
        .keys()
        .map(|name| Line {
            name: (*name).to_owned(),
            points: seconds()
                // In the middle of the second in which they came.
                .map(|(at, second)| {
                    (at + 0.5, float(second.outcomes.get(*name).copied().unwrap_or(0)))
                })
                .collect(),
            dots: false,
        })
        .collect();
    let memory = vec![Line {
        name: "leads-api, resident".to_owned(),
        points: seconds().map(|(at, second)| (at + 1.0, float(second.api_kib) / 1_024.0)).collect(),
        dots: false,
    }];
    let length = seconds().map(|(at, _)| at + 1.0).fold(1.0, f64::max);
    let panel = |lines: Vec<Line>, label: &str| Panel {
        x: Axis::linear_to("seconds; shaded: the broker is away", length),
        y: Axis::linear(label, largest(&lines)),
        lines,
        shade: Some((*away_at, *back_at)),
    };
    Figure {
        title: format!(
            "{} POSTs a second, and the broker is {}",
            crate::report::whole(found.per_second),
            found.fault.name()
        ),
        subtitle,
        panels: vec![panel(answers, "answers a second, by status"), panel(memory, "MiB")],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::open::requests::Recipe;
    use crate::open::schedule::Arrivals;
    use crate::open::{Generator, OpenRun};
    use crate::spread::{Spread, Times};

    fn run(times: &Times) -> OpenRun {
        OpenRun {
            recipe: Recipe::Single,
            arrivals: Arrivals::Poisson,
            offered_per_second: 2_000.0,
            seconds: 1.0,
            offered: 2_000,
            succeeded: 1_000,
            refused: BTreeMap::from([("503".to_owned(), 900)]),
            unsent: 100,
            acknowledged: 1_000,
            per_second: 1_000.0,
            latency: times.spread(),
            curve: times.curve(),
            since_sent: Some(times.spread()),
            unavailable: Spread::default(),
            kinds: BTreeMap::new(),
            generator: Generator {
                behind: Spread::default(),
                connections: 1,
                cpu_percent: 1.0,
                kept_up: true,
            },
            own: None,
            processes: Vec::new(),
        }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.02
    }

    #[test]
    fn a_histogram_becomes_a_line_by_percentile() {
        let mut times = Times::new();
        for millis in 1..=1_000 {
            times.record(Duration::from_millis(millis));
        }
        let figure = latency(&[run(&times)], String::new()).unwrap();
        let panel = &figure.panels[0];
        let line = &panel.lines[0];
        assert_eq!(line.name, "single, Poisson, 2,000 requests/s");
        // Half of them, and so 500 ms, stand at -log10(0.5); the slowest of 1,000 at three nines.
        let half = line.points.iter().find(|(x, _)| *x >= 0.3).unwrap();
        assert!(close(half.0, 0.301) && close(half.1, 500_f64.log10()), "{half:?}");
        let last = line.points.last().unwrap();
        assert!(close(last.0, 3.0) && close(last.1, 3.0), "{last:?}");
        let inside = |(x, y): &(f64, f64)| {
            (panel.x.from..=panel.x.to + 1e-9).contains(x)
                && (panel.y.from..=panel.y.to + 1e-9).contains(y)
        };
        assert!(line.points.iter().all(inside), "{panel:?}");
        assert!(line.points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{line:?}");
        assert_eq!(latency(&[], String::new()), None);
    }

    #[test]
    fn the_overload_shows_where_each_request_went() {
        let mut times = Times::new();
        times.record(Duration::from_millis(10));
        let found = Overload {
            recipe: Recipe::Single,
            capacity: 1_000.0,
            tries: Vec::new(),
            points: vec![run(&times)],
        };
        let figure = overloaded(&found, String::new());
        let heights: Vec<f64> = figure.panels[0].lines.iter().map(|l| l.points[0].1).collect();
        assert!(heights.iter().zip([1_000.0, 900.0, 100.0]).all(|(a, b)| close(*a, b)));
        // No 503 was timed, so no line tells how long they took: since due and since sent are there.
        assert_eq!(figure.panels[1].lines.len(), 2);
    }
}
