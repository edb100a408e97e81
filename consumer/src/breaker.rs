//! The circuit breaker: so many dead letters in so short a time are not the data's fault.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::failure::Halt;
use crate::projection::{Reason, Rejection};

/// Counts the dead letters of all lanes. Parked ones don't count: they are the doing of the one that
/// they wait behind.
#[derive(Debug)]
pub struct Breaker {
    max: usize,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When each was set aside, oldest first.
    times: VecDeque<Instant>,
    /// Those of the time before this process are counted in.
    seeded: bool,
}

impl Breaker {
    /// Lets at most `max` through in any `window`; 0: any number.
    pub fn new(max: u32, window: Duration) -> Self {
        Self { max: max as usize, window, state: Mutex::default() }
    }

    /// How far back it has to be told of dead letters, once; `None`: it has been.
    pub fn unseeded(&self) -> Option<Duration> {
        (self.max > 0 && !self.state().seeded).then_some(self.window)
    }

    /// Counts in those that were set aside before, by their ages: a restart is no new allowance.
    pub fn seed(&self, now: Instant, ages: impl IntoIterator<Item = Duration>) {
        let mut state = self.state();
        if !state.seeded {
            state.seeded = true;
            state.times.extend(ages.into_iter().filter_map(|age| now.checked_sub(age)));
            state.times.make_contiguous().sort_unstable();
        }
    }

    /// Asks whether a batch may set these aside. They count from now on, unless the admission is
    /// dropped before it is kept.
    ///
    /// # Errors
    /// They would be more than the limit.
    pub fn admit(
        &self,
        rejected: &[(usize, Rejection)],
        now: Instant,
    ) -> Result<Admission<'_>, Halt> {
        let mut counted = rejected.iter().filter(|(_, why)| why.reason != Reason::Parked);
        let Some((_, last)) = counted.next_back() else { return Ok(self.admission(0)) };
        let count = counted.count() + 1;
        if self.max == 0 {
            return Ok(self.admission(0));
        }
        let mut state = self.state();
        while state.times.front().is_some_and(|at| now.duration_since(*at) >= self.window) {
            state.times.pop_front();
        }
        if state.times.len() + count > self.max {
            return Err(self.halt(state.times.len() + count, last));
        }
        state.times.extend(std::iter::repeat_n(now, count));
        drop(state);
        Ok(self.admission(count))
    }

    fn admission(&self, count: usize) -> Admission<'_> {
        Admission { breaker: self, count }
    }

    fn halt(&self, found: usize, last: &Rejection) -> Halt {
        let Rejection { reason, error } = last;
        let (max, window) = (self.max, humantime::format_duration(self.window));
        Halt::new(
            format!(
                "{found} records would be set aside within {window}, more than DLQ_MAX={max}; the \
                 last one as {}: {error}",
                reason.name()
            ),
            "so many are rarely the records' fault: compare this version and the tables with what \
             is in the log (`leads-consumer dlq list`); to set them aside all the same, start with \
             a higher DLQ_MAX, or 0 for no limit",
        )
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dead letters that were let through.
#[must_use = "dropped, they don't count"]
pub struct Admission<'a> {
    breaker: &'a Breaker,
    count: usize,
}

impl Admission<'_> {
    /// They were set aside.
    pub fn keep(mut self) {
        self.count = 0;
    }
}

impl Drop for Admission<'_> {
    fn drop(&mut self) {
        let mut state = self.breaker.state();
        let left = state.times.len().saturating_sub(self.count);
        state.times.truncate(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(count: usize) -> Vec<(usize, Rejection)> {
        let why = Rejection { reason: Reason::UnknownType, error: "unknown type".to_owned() };
        (0..count).map(|index| (index, why.clone())).collect()
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn more_than_the_limit_in_the_window_is_refused_and_does_not_count() {
        let (breaker, start) = (Breaker::new(3, Duration::from_mins(1)), Instant::now());
        breaker.admit(&dead(2), start).unwrap().keep();
        let halt = breaker.admit(&dead(2), at(start, 59)).err().unwrap();
        assert!(halt.cause.contains("4 records") && halt.cause.contains("1m"), "{halt}");
        assert!(halt.cause.contains("unknown_type: unknown type"), "{halt}");
        breaker.admit(&dead(1), at(start, 59)).unwrap().keep();
        breaker.admit(&dead(2), at(start, 60)).unwrap().keep();
        assert!(breaker.admit(&dead(1), at(start, 60)).is_err());
    }

    #[test]
    fn what_was_rolled_back_does_not_count() {
        let (breaker, now) = (Breaker::new(1, Duration::from_mins(1)), Instant::now());
        drop(breaker.admit(&dead(1), now).unwrap());
        breaker.admit(&dead(1), now).unwrap().keep();
        assert!(breaker.admit(&dead(1), now).is_err());
    }

    #[test]
    fn parked_ones_do_not_count() {
        let (breaker, now) = (Breaker::new(1, Duration::from_mins(1)), Instant::now());
        let parked = crate::projection::parking::behind(0, 1);
        let batch: Vec<_> =
            dead(1).into_iter().chain((1..9).map(|at| (at, parked.clone()))).collect();
        breaker.admit(&batch, now).unwrap().keep();
        breaker.admit(&batch[1..], now).unwrap().keep();
        assert!(breaker.admit(&batch, now).is_err());
    }

    #[test]
    fn a_restart_is_no_new_allowance_and_zero_is_no_limit() {
        let (breaker, now) = (Breaker::new(3, Duration::from_mins(1)), Instant::now());
        assert_eq!(breaker.unseeded(), Some(Duration::from_mins(1)));
        breaker.seed(now, [Duration::from_secs(1), Duration::from_secs(50)]);
        assert_eq!(breaker.unseeded(), None);
        assert!(breaker.admit(&dead(2), now).is_err());
        breaker.admit(&dead(2), at(now, 11)).unwrap().keep();
        let off = Breaker::new(0, Duration::from_mins(1));
        assert_eq!(off.unseeded(), None);
        off.admit(&dead(1000), now).unwrap().keep();
    }
}
