//! A constant load while the broker is away and comes back: how soon clients are told, how fast, what
//! memory it takes, and whether all that was acknowledged is in the log.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::cpu::resident_kib;
use crate::fault::{Fault, Stack};
use crate::kafka;
use crate::open::drive::{Load, Outcome, Seen, WhenBusy, drive};
use crate::open::requests::{Recipe, Requests, lead_id};
use crate::open::schedule::{Arrivals, End, Schedule};
use crate::service::System;
use crate::spread::{Spread, Times};

/// After so long the requests that were under way have run into their time-out
/// (`PUBLISH_TIMEOUT`, 5 s), and the outage is known.
const SETTLED: Duration = Duration::from_secs(6);
const MAX_CONNECTIONS: usize = 8_192;

/// What is done, when.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// POSTs a second.
    pub(crate) per_second: f64,
    pub(crate) before: Duration,
    pub(crate) outage: Duration,
    pub(crate) after: Duration,
    pub(crate) fault: Fault,
}

/// What came of it; times in seconds are since the start of the load.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outage {
    pub(crate) fault: Fault,
    pub(crate) per_second: f64,
    /// The broker was away then.
    pub(crate) away_at: f64,
    /// It ran again then.
    pub(crate) back_at: f64,
    /// From the broker's going to the first 503.
    pub(crate) first_503_seconds: Option<f64>,
    /// From the broker's return to the first 201.
    pub(crate) first_201_seconds: Option<f64>,
    pub(crate) offered: u64,
    /// Answers 201.
    pub(crate) accepted: u64,
    /// Of those, how many are not in the log.
    pub(crate) accepted_not_in_log: u64,
    /// In the log, and not answered with 201: those whose acknowledgement came too late.
    pub(crate) in_log_not_accepted: u64,
    /// How many of each other outcome; `unsent` are those for which there was no connection.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Of all 503, from when they were due.
    pub(crate) unavailable: Spread,
    /// Of those that were due more than 6 s after the broker went.
    pub(crate) unavailable_settled: Spread,
    pub(crate) timeline: Vec<Second>,
}

/// A second of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Second {
    /// How many of each outcome came in it.
    pub(crate) outcomes: BTreeMap<String, u64>,
    /// Memory of the API at its end (`VmRSS`).
    pub(crate) api_kib: u64,
}

/// When what happened, once it has.
#[derive(Default)]
struct Marks {
    /// Taking the broker away began.
    taking: Cell<Option<Duration>>,
    away: Cell<Option<Duration>>,
    /// Giving it back began.
    giving: Cell<Option<Duration>>,
    back: Cell<Option<Duration>>,
}

struct Tally {
    offered: u64,
    accepted: HashSet<Uuid>,
    refused: BTreeMap<String, u64>,
    unavailable: Times,
    settled: Times,
    /// The first 503 since the broker went, and the first 201 since it came back.
    first_503: Option<Duration>,
    first_201: Option<Duration>,
    timeline: Vec<Second>,
}

impl Tally {
    fn new() -> Self {
        Self {
            offered: 0,
            accepted: HashSet::new(),
            refused: BTreeMap::new(),
            unavailable: Times::new(),
            settled: Times::new(),
            first_503: None,
            first_201: None,
            timeline: Vec::new(),
        }
    }

    fn count(&mut self, seen: &Seen<'_>, marks: &Marks) {
        let Seen { due, done, outcome, body, .. } = *seen;
        self.offered += 1;
        let name = match outcome {
            Outcome::Answered(status) => status.to_string(),
            Outcome::Broken(_) => "connection".to_owned(),
            Outcome::GivenUp => "timeout".to_owned(),
            Outcome::Unsent => "unsent".to_owned(),
        };
        *self.second(done).outcomes.entry(name.clone()).or_default() += 1;
        match (outcome, lead_id(body)) {
            (Outcome::Answered(201), Some(id)) => {
                self.accepted.insert(id);
                if marks.giving.get().is_some() {
                    self.first_201.get_or_insert(done);
                }
                return;
            }
            (Outcome::Answered(503), _) => {
                self.unavailable.record(done.saturating_sub(due));
                if marks.taking.get().is_some() {
                    self.first_503.get_or_insert(done);
                }
                let settled = marks.away.get().is_some_and(|away| due >= away + SETTLED);
                if settled && marks.giving.get().is_none() {
                    self.settled.record(done.saturating_sub(due));
                }
            }
            _ => {}
        }
        *self.refused.entry(name).or_default() += 1;
    }

    fn second(&mut self, at: Duration) -> &mut Second {
        let second = usize::try_from(at.as_secs()).unwrap_or(0);
        if self.timeline.len() <= second {
            self.timeline.resize_with(second + 1, Second::default);
        }
        &mut self.timeline[second]
    }
}

/// Runs the load and the outage on a system of its own; has to be called within a `LocalSet`.
pub(crate) async fn measure(
    system: &System,
    key: &str,
    stack: &Stack,
    plan: &Plan,
) -> Result<Outage> {
    let api = system.start_api().await?;
    let requests = Rc::new(Requests::new(Recipe::Single, &api.url(), key)?);
    let marks = Rc::new(Marks::default());
    let tally = Rc::new(RefCell::new(Tally::new()));
    // A start takes as long as it takes: the end is told when the broker is back.
    let end = End::open();
    let load = Load {
        schedule: Schedule::new(Arrivals::Constant, plan.per_second, 0),
        end: end.clone(),
        max_connections: MAX_CONNECTIONS,
        when_busy: WhenBusy::Wait,
    };
    let (counting, seen_marks) = (Rc::clone(&tally), Rc::clone(&marks));
    let tell = Rc::new(move |seen: &Seen<'_>| counting.borrow_mut().count(seen, &seen_marks));
    let start = Instant::now();
    let pid = api.watched().pid;
    let (_, fault, ()) = tokio::join!(
        drive(requests, load, start, tell),
        disturb(stack, plan, start, &marks, &end),
        watch_memory(pid, start, &end, &tally),
    );
    if let Err(error) = fault {
        // The next one finds the broker as it was, if it can be had.
        let _ = stack.give_kafka_back(plan.fault).await;
        return Err(error);
    }
    api.stop().await?;
    let in_log = kafka::keys_of(&system.brokers, &system.events_topic).await?;
    let tally = tally.replace(Tally::new());
    outage(plan, &marks, tally, &in_log)
}

fn outage(plan: &Plan, marks: &Marks, tally: Tally, in_log: &HashSet<Uuid>) -> Result<Outage> {
    let away = marks.away.get().context("the broker was not taken away")?;
    let back = marks.back.get().context("the broker did not come back")?;
    ensure!(!tally.accepted.is_empty(), "nothing was acknowledged: {:?}", tally.refused);
    let since = |then: Duration, mark| then.saturating_sub(mark).as_secs_f64();
    let count = |difference: usize| u64::try_from(difference).unwrap_or(u64::MAX);
    Ok(Outage {
        fault: plan.fault,
        per_second: plan.per_second,
        away_at: away.as_secs_f64(),
        back_at: back.as_secs_f64(),
        first_503_seconds: tally.first_503.map(|first| since(first, away)),
        first_201_seconds: tally.first_201.map(|first| since(first, back)),
        offered: tally.offered,
        accepted: count(tally.accepted.len()),
        accepted_not_in_log: count(tally.accepted.difference(in_log).count()),
        in_log_not_accepted: count(in_log.difference(&tally.accepted).count()),
        refused: tally.refused,
        unavailable: tally.unavailable.spread(),
        unavailable_settled: tally.settled.spread(),
        timeline: tally.timeline,
    })
}

async fn disturb(
    stack: &Stack,
    plan: &Plan,
    start: Instant,
    marks: &Marks,
    end: &End,
) -> Result<()> {
    let disturbed = take_and_give_back(stack, plan, start, marks).await;
    let after = if disturbed.is_ok() { plan.after } else { Duration::ZERO };
    end.set(start.elapsed() + after);
    disturbed
}

async fn take_and_give_back(
    stack: &Stack,
    plan: &Plan,
    start: Instant,
    marks: &Marks,
) -> Result<()> {
    let now = |mark: &Cell<Option<Duration>>| mark.set(Some(start.elapsed()));
    tokio::time::sleep_until((start + plan.before).into()).await;
    now(&marks.taking);
    stack.take_kafka(plan.fault).await?;
    now(&marks.away);
    tokio::time::sleep(plan.outage).await;
    now(&marks.giving);
    stack.give_kafka_back(plan.fault).await?;
    now(&marks.back);
    Ok(())
}

async fn watch_memory(pid: u32, start: Instant, end: &End, tally: &RefCell<Tally>) {
    let mut seconds =
        tokio::time::interval_at((start + Duration::from_secs(1)).into(), Duration::from_secs(1));
    while start.elapsed() < end.get() {
        let at = seconds.tick().await.into_std() - start;
        if let Some(kib) = resident_kib(pid) {
            tally.borrow_mut().second(at.saturating_sub(Duration::from_millis(1))).api_kib = kib;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::requests::Kind;

    fn seen(tally: &mut Tally, marks: &Marks, seconds: u64, outcome: Outcome, body: &str) {
        let (due, done) =
            (Duration::from_secs(seconds), Duration::from_millis(seconds * 1_000 + 10));
        tally.count(
            &Seen {
                kind: Kind::Post,
                leads: 1,
                due,
                sent: due,
                done,
                outcome,
                body: body.as_bytes(),
            },
            marks,
        );
    }

    #[test]
    fn tells_how_soon_and_what_is_missing() {
        let id = Uuid::from_u128;
        let created = |n| format!(r#"{{"data":{{"id":"{}"}}}}"#, id(n));
        let (taken, refused) = (Outcome::Answered(201), Outcome::Answered(503));
        let marks = Marks::default();
        let mut tally = Tally::new();
        let at = |mark: &Cell<Option<Duration>>, seconds| {
            mark.set(Some(Duration::from_secs(seconds)));
        };
        seen(&mut tally, &marks, 0, taken, &created(1));
        seen(&mut tally, &marks, 1, refused, "{}");
        at(&marks.taking, 1);
        at(&marks.away, 2);
        seen(&mut tally, &marks, 3, refused, "{}");
        seen(&mut tally, &marks, 9, refused, "{}");
        at(&marks.giving, 12);
        seen(&mut tally, &marks, 12, refused, "{}");
        at(&marks.back, 13);
        seen(&mut tally, &marks, 14, taken, &created(2));
        seen(&mut tally, &marks, 15, Outcome::GivenUp, "");
        let plan = Plan {
            per_second: 1.0,
            before: Duration::ZERO,
            outage: Duration::ZERO,
            after: Duration::ZERO,
            fault: Fault::Kill,
        };
        let in_log = HashSet::from([id(1), id(3), id(4)]);
        let told = outage(&plan, &marks, tally, &in_log).unwrap();
        assert_eq!((told.offered, told.accepted), (7, 2));
        assert_eq!((told.accepted_not_in_log, told.in_log_not_accepted), (1, 2));
        assert_eq!((told.unavailable.count, told.unavailable_settled.count), (4, 1));
        assert_eq!(told.refused["timeout"], 1);
        let within = |seconds: Option<f64>| (seconds.unwrap() - 1.01).abs() < 1e-6;
        assert!(within(told.first_503_seconds) && within(told.first_201_seconds), "{told:?}");
        assert_eq!((told.timeline.len(), told.timeline[9].outcomes["503"]), (16, 1));
    }

    #[test]
    fn a_broker_that_never_went_is_an_error() {
        let plan = Plan {
            per_second: 1.0,
            before: Duration::ZERO,
            outage: Duration::ZERO,
            after: Duration::ZERO,
            fault: Fault::Pause,
        };
        assert!(outage(&plan, &Marks::default(), Tally::new(), &HashSet::new()).is_err());
    }
}
