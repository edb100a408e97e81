//! Open-loop load and what came of it.

pub(crate) mod drive;
pub(crate) mod requests;
pub(crate) mod schedule;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::cpu::{Used, Watched, own_micros, watch};
use crate::load::rate;
use crate::own_time::{OwnTime, Probe};
use crate::spread::{Point, Spread, Times};
use drive::{Load, Outcome, Seen, WhenBusy, drive};
use requests::{Kind, Recipe, Requests};
use schedule::{Arrivals, End, Schedule};

/// Behind by no more than this, the generator has kept up with its schedule.
const PUNCTUAL: u64 = 1_000;

/// How much load, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Requests a second.
    pub(crate) per_second: f64,
    pub(crate) arrivals: Arrivals,
    pub(crate) seed: u64,
    /// Sent, and not measured.
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    pub(crate) max_connections: usize,
    pub(crate) when_busy: WhenBusy,
}

/// What came of it. All that is counted is of the requests that were due in the measured time:
/// `offered` is the sum of `succeeded`, all of `refused`, and `unsent`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct OpenRun {
    pub(crate) recipe: Recipe,
    pub(crate) arrivals: Arrivals,
    /// Requests a second, as they were to be.
    pub(crate) offered_per_second: f64,
    pub(crate) seconds: f64,
    /// Requests that were due.
    pub(crate) offered: u64,
    /// Answers 2xx.
    pub(crate) succeeded: u64,
    /// How many of each other status; `connection` are those that broke, `timeout` those without an
    /// answer in 20 s.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Never sent: all connections were busy until the end.
    pub(crate) unsent: u64,
    /// Leads of the answers 2xx.
    pub(crate) acknowledged: u64,
    /// Leads of the answers 2xx that came in the measured time, a second.
    pub(crate) per_second: f64,
    /// Of the answers 2xx, from when they were due.
    pub(crate) latency: Spread,
    /// The same from when they were sent: without the wait for a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) since_sent: Option<Spread>,
    /// `latency`, by share.
    pub(crate) curve: Vec<Point>,
    /// Of the answers 503, from when they were due.
    pub(crate) unavailable: Spread,
    /// By kind of request, where there is more than one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) kinds: BTreeMap<Kind, Spread>,
    pub(crate) generator: Generator,
    /// What the service itself took, as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) own: Option<OwnTime>,
    pub(crate) processes: Vec<Used>,
}

/// How the generator fared.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Generator {
    /// From when a request was due to its first byte's being sent.
    pub(crate) behind: Spread,
    /// Most connections that were busy at once.
    pub(crate) connections: usize,
    /// CPU time that it used, of one core.
    pub(crate) cpu_percent: f64,
    /// All was sent, and p99 of `behind` is within 1 ms or a tenth of the p99 that was measured.
    pub(crate) kept_up: bool,
}

/// What is counted while the load goes on.
struct Tally {
    from: Duration,
    to: Duration,
    offered: u64,
    succeeded: u64,
    refused: BTreeMap<String, u64>,
    unsent: u64,
    acknowledged: u64,
    acknowledged_in_time: u64,
    latency: Times,
    since_sent: Times,
    unavailable: Times,
    kinds: BTreeMap<Kind, Times>,
    behind: Times,
}

impl Tally {
    fn new(plan: &Plan) -> Self {
        Self {
            from: plan.warm_up,
            to: plan.warm_up + plan.measure,
            offered: 0,
            succeeded: 0,
            refused: BTreeMap::new(),
            unsent: 0,
            acknowledged: 0,
            acknowledged_in_time: 0,
            latency: Times::new(),
            since_sent: Times::new(),
            unavailable: Times::new(),
            kinds: BTreeMap::new(),
            behind: Times::new(),
        }
    }

    fn count(&mut self, seen: &Seen<'_>) {
        let Seen { kind, leads, due, sent, done, outcome, body: _ } = *seen;
        let succeeded = matches!(outcome, Outcome::Answered(200..=299));
        // Over the whole, so that an answer is counted when it comes, late or not.
        if succeeded && (self.from..self.to).contains(&done) {
            self.acknowledged_in_time += leads;
        }
        if due < self.from {
            return;
        }
        self.offered += 1;
        let took = done.saturating_sub(due);
        let refusal = match outcome {
            Outcome::Answered(200..=299) => {
                self.succeeded += 1;
                self.acknowledged += leads;
                self.latency.record(took);
                self.since_sent.record(done.saturating_sub(sent));
                self.kinds.entry(kind).or_insert_with(Times::new).record(took);
                None
            }
            Outcome::Answered(status) => {
                if status == 503 {
                    self.unavailable.record(took);
                }
                Some(status.to_string())
            }
            Outcome::Broken(_) => Some("connection".to_owned()),
            Outcome::GivenUp => Some("timeout".to_owned()),
            Outcome::Unsent => {
                self.unsent += 1;
                return;
            }
        };
        self.behind.record(sent.saturating_sub(due));
        if let Some(name) = refusal {
            *self.refused.entry(name).or_default() += 1;
        }
    }
}

/// Runs the load; has to be called within a `LocalSet`. With a `probe`, the service is asked for its
/// own time, too.
pub(crate) async fn open_loop(
    requests: Requests,
    plan: &Plan,
    watched: &[Watched],
    probe: Option<&Probe>,
) -> Result<OpenRun> {
    let recipe = requests.recipe;
    let tally = Rc::new(RefCell::new(Tally::new(plan)));
    let start = Instant::now();
    let load = Load {
        schedule: Schedule::new(plan.arrivals, plan.per_second, plan.seed),
        end: End::at(plan.warm_up + plan.measure),
        max_connections: plan.max_connections,
        when_busy: plan.when_busy,
    };
    let (from, to) = (start + plan.warm_up, start + plan.warm_up + plan.measure);
    let watched = watched.to_vec();
    // A look at processes takes milliseconds: not on the thread that sends.
    let watching = tokio::task::spawn_blocking(move || watch(&watched, from, to));
    let around = async {
        tokio::time::sleep_until(from.into()).await;
        let (cpu, own) = (own_micros(), asked(probe).await?);
        tokio::time::sleep_until(to.into()).await;
        let cpu = own_micros() - cpu;
        Ok::<_, anyhow::Error>((cpu, own.zip(asked(probe).await?)))
    };
    let counting = Rc::clone(&tally);
    let tell = Rc::new(move |seen: &Seen<'_>| counting.borrow_mut().count(seen));
    let (connections, around) = tokio::join!(drive(Rc::new(requests), load, start, tell), around);
    let (cpu, own) = around?;
    let processes = watching.await.context("watching the processes")?;

    let tally = tally.replace(Tally::new(plan));
    ensure!(
        tally.offered > 0,
        "no request was due in {:?}: raise the rate or the time",
        plan.measure
    );
    let seconds = plan.measure.as_secs_f64();
    let (latency, behind) = (tally.latency.spread(), tally.behind.spread());
    let punctual = behind.p99_micros <= PUNCTUAL.max(latency.p99_micros / 10);
    let kinds = if tally.kinds.len() > 1 { tally.kinds } else { BTreeMap::new() };
    Ok(OpenRun {
        recipe,
        arrivals: plan.arrivals,
        offered_per_second: plan.per_second,
        seconds,
        offered: tally.offered,
        succeeded: tally.succeeded,
        refused: tally.refused,
        unsent: tally.unsent,
        acknowledged: tally.acknowledged,
        per_second: rate(tally.acknowledged_in_time, seconds),
        since_sent: Some(tally.since_sent.spread()),
        curve: tally.latency.curve(),
        unavailable: tally.unavailable.spread(),
        kinds: kinds.into_iter().map(|(kind, times)| (kind, times.spread())).collect(),
        generator: Generator {
            connections,
            cpu_percent: rate(cpu, seconds * 10_000.0),
            kept_up: tally.unsent == 0 && punctual,
            behind,
        },
        latency,
        own: own.map(|(before, after)| after.since(&before)),
        processes,
    })
}

async fn asked(probe: Option<&Probe>) -> Result<Option<crate::own_time::Counts>> {
    match probe {
        Some(probe) => Ok(Some(probe.ask().await?)),
        None => Ok(None),
    }
}

impl OpenRun {
    /// What has to be said of the generator, when it was not punctual.
    pub(crate) fn warning(&self) -> Option<String> {
        let Generator { behind, connections, cpu_percent, kept_up } = &self.generator;
        if *kept_up {
            return None;
        }
        Some(format!(
            "the generator did not keep up: p99 of what it was behind is {} µs, {} requests were \
             never sent, {connections} connections were busy, it used {cpu_percent:.0} % of a core. \
             Lower the rate, raise --max-connections, or run it on a machine of its own",
            behind.p99_micros, self.unsent
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            per_second: 1.0,
            arrivals: Arrivals::Constant,
            seed: 0,
            warm_up: Duration::from_secs(1),
            measure: Duration::from_secs(2),
            max_connections: 1,
            when_busy: WhenBusy::Wait,
        }
    }

    #[test]
    fn counts_add_up() {
        let mut tally = Tally::new(&plan());
        let mut seen = |due, done, outcome| {
            let (due, done) = (Duration::from_millis(due), Duration::from_millis(done));
            tally.count(&Seen {
                kind: Kind::Post,
                leads: 1,
                due,
                sent: due,
                done,
                outcome,
                body: &[],
            });
        };
        seen(0, 10, Outcome::Answered(201)); // all of it in the warm-up
        seen(999, 1_010, Outcome::Answered(201)); // answered in the measured time
        seen(1_000, 1_010, Outcome::Answered(201));
        seen(1_100, 1_120, Outcome::Answered(503));
        seen(1_200, 1_210, Outcome::Answered(429));
        seen(1_300, 1_310, Outcome::Broken(std::io::ErrorKind::ConnectionReset));
        seen(1_400, 21_400, Outcome::GivenUp);
        seen(1_500, 3_500, Outcome::Unsent);
        seen(2_999, 3_010, Outcome::Answered(201)); // answered after it
        assert_eq!(tally.offered, 7);
        assert_eq!(
            tally.offered,
            tally.succeeded + tally.refused.values().sum::<u64>() + tally.unsent
        );
        assert_eq!((tally.succeeded, tally.acknowledged, tally.acknowledged_in_time), (2, 2, 2));
        assert!(tally.latency.spread().max_micros.abs_diff(11_000) < 20);
        assert_eq!((tally.unavailable.spread().count, tally.behind.spread().count), (1, 6));
    }
}
