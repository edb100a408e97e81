//! When the requests of an open loop are due: decided beforehand, whatever the server does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

/// The pacing thread sleeps no less: what falls into one such step comes together.
const SHORTEST_SLEEP: Duration = Duration::from_micros(100);

/// How arrivals follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Arrivals {
    /// At equal distances.
    Constant,
    /// Independent of each other, as from many clients: exponential distances, so that bursts happen.
    Poisson,
}

/// The times of arrivals since the start; endless.
#[derive(Debug)]
pub(crate) struct Schedule {
    per_second: f64,
    next: Next,
}

#[derive(Debug)]
enum Next {
    /// So many came before.
    Constant(u32),
    /// The last one's time in seconds.
    Poisson(f64, Box<StdRng>),
}

impl Schedule {
    /// The same `seed` gives the same times.
    pub(crate) fn new(arrivals: Arrivals, per_second: f64, seed: u64) -> Self {
        let next = match arrivals {
            Arrivals::Constant => Next::Constant(0),
            Arrivals::Poisson => Next::Poisson(0.0, Box::new(StdRng::seed_from_u64(seed))),
        };
        Self { per_second, next }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.next {
            Next::Constant(before) => {
                // From the start each time: rounding does not add up.
                let due = f64::from(*before) / self.per_second;
                *before += 1;
                due
            }
            Next::Poisson(last, random) => {
                // The inverse of the exponential distribution; 1 - u is never 0.
                *last -= (1.0 - random.random::<f64>()).ln() / self.per_second;
                *last
            }
        };
        Some(Duration::from_secs_f64(seconds))
    }
}

/// When the last request is due; may be told while the load goes on.
#[derive(Debug, Clone)]
pub(crate) struct End(Arc<AtomicU64>);

impl End {
    pub(crate) fn at(end: Duration) -> Self {
        let open = Self::open();
        open.set(end);
        open
    }

    /// Not known yet.
    pub(crate) fn open() -> Self {
        Self(Arc::new(AtomicU64::new(u64::MAX)))
    }

    pub(crate) fn set(&self, end: Duration) {
        self.0.store(u64::try_from(end.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }
}

/// Hands out the arrivals before `end` when they are due, from a thread of its own: a timer of the
/// runtime has steps of a millisecond.
pub(crate) fn pace(
    schedule: Schedule,
    start: Instant,
    end: End,
) -> mpsc::UnboundedReceiver<Duration> {
    let (due_now, arrivals) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for due in schedule {
            if due >= end.get() {
                return;
            }
            while let Some(left) = due.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
                thread::sleep(left.max(SHORTEST_SLEEP));
            }
            if due_now.send(due).is_err() {
                return;
            }
        }
    });
    arrivals
}

#[cfg(test)]
mod tests {
    use super::*;

    fn within(seconds: u64, schedule: Schedule) -> Vec<Duration> {
        schedule.take_while(|due| *due < Duration::from_secs(seconds)).collect()
    }

    #[test]
    fn constant_arrivals_do_not_drift() {
        let due = within(3_600, Schedule::new(Arrivals::Constant, 3.0, 0));
        assert_eq!(due.len(), 3 * 3_600);
        assert_eq!(due[0], Duration::ZERO);
        assert_eq!(due[3 * 1_800], Duration::from_mins(30));
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_bursts() {
        let schedule = |seed| Schedule::new(Arrivals::Poisson, 1_000.0, seed);
        let due = within(100, schedule(7));
        assert!(due.len().abs_diff(100_000) < 1_500, "{}", due.len());
        assert!(due.is_sorted());
        // 1 - 1/e of the distances are below their mean: 63,212 of 100,000.
        let short = due.windows(2).filter(|w| w[1] < w[0] + Duration::from_millis(1)).count();
        assert!(short.abs_diff(63_212) < 1_500, "{short}");
        assert_eq!(due, within(100, schedule(7)));
        assert_ne!(due[0], schedule(8).next().unwrap());
    }

    #[tokio::test]
    async fn no_arrival_comes_early_and_none_is_lost() {
        let start = Instant::now();
        let schedule = Schedule::new(Arrivals::Constant, 2_000.0, 0);
        let mut arrivals = pace(schedule, start, End::at(Duration::from_millis(50)));
        let mut count = 0;
        while let Some(due) = arrivals.recv().await {
            assert!(start.elapsed() >= due, "{due:?}");
            count += 1;
        }
        assert_eq!(count, 100);

        let end = End::open();
        let schedule = Schedule::new(Arrivals::Constant, 2_000.0, 0);
        let mut arrivals = pace(schedule, Instant::now(), end.clone());
        assert_eq!(arrivals.recv().await, Some(Duration::ZERO));
        end.set(Duration::ZERO);
        while arrivals.recv().await.is_some() {}
    }
}
