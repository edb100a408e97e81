//! When a failed try is made again.

use std::time::Duration;

use tokio::time::Instant;

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// When to try again.
#[derive(Debug, Default)]
pub(super) struct Retry {
    pub(super) at: Option<Instant>,
    backoff: Duration,
}

impl Retry {
    /// Doubles the time to the next try, up to [`LONGEST_BACKOFF`], less up to a half at random.
    pub(super) fn later(&mut self) {
        self.backoff = (self.backoff * 2).clamp(FIRST_BACKOFF, LONGEST_BACKOFF);
        self.at = Some(Instant::now() + self.backoff.mul_f64(jitter()));
    }

    /// After two writers met: they take turns, instead of spinning.
    pub(super) fn soon(&mut self) {
        self.at = Some(Instant::now() + FIRST_BACKOFF.mul_f64(jitter()));
    }

    /// It worked; whether it had not before.
    pub(super) fn over(&mut self) -> bool {
        self.backoff = Duration::ZERO;
        self.at.take().is_some()
    }

    pub(super) fn due(&self) -> bool {
        self.at.is_none_or(|at| at <= Instant::now())
    }
}

/// Between 0.5 and 1; std's hash keys are the randomness at hand.
fn jitter() -> f64 {
    use std::hash::{BuildHasher, RandomState};
    let random = RandomState::new().hash_one(0) >> 32;
    0.5 + f64::from(u32::try_from(random).unwrap_or_default()) / f64::from(u32::MAX) / 2.0
}
