//! Requests a minute, by key and instance: fixed minutes of the clock.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests of one key in the present minute. A refused request counts as none.
#[derive(Debug)]
pub struct Window {
    limit: u32,
    /// The minute in the upper half, the count in the lower: one word, so one compare-and-swap.
    state: AtomicU64,
}

/// What the headers of an answer say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateStatus {
    /// Requests a minute.
    pub limit: u32,
    /// What is left of them.
    pub remaining: u32,
    /// Unix seconds at which the minute ends.
    pub reset: i64,
}

/// The decision about one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The key has no limit.
    Unlimited,
    /// Taken.
    Allowed(RateStatus),
    /// Refused; the limit of this minute is used up.
    Refused(RateStatus),
}

impl Window {
    /// A window of `limit` requests a minute; 0 is no limit.
    pub fn new(limit: u32) -> Self {
        Self { limit, state: AtomicU64::new(0) }
    }

    /// Counts a request at `unix_seconds`, if it may pass.
    pub fn count(&self, unix_seconds: i64) -> Decision {
        if self.limit == 0 {
            return Decision::Unlimited;
        }
        let minute = u32::try_from(unix_seconds.div_euclid(60)).unwrap_or(0);
        let reset = (i64::from(minute) + 1) * 60;
        let update = self.state.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |state| {
            let used = used_in(state, minute);
            (used < self.limit).then(|| u64::from(minute) << 32 | u64::from(used + 1))
        });
        match update {
            Ok(before) => {
                let remaining = self.limit - used_in(before, minute) - 1;
                Decision::Allowed(RateStatus { limit: self.limit, remaining, reset })
            }
            Err(_) => Decision::Refused(RateStatus { limit: self.limit, remaining: 0, reset }),
        }
    }
}

fn used_in(state: u64, minute: u32) -> u32 {
    let (at, used) = (state >> 32, state & u64::from(u32::MAX));
    if at == u64::from(minute) { u32::try_from(used).unwrap_or(u32::MAX) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_to_the_limit_and_starts_again_with_the_minute() {
        let window = Window::new(2);
        let status = |remaining| RateStatus { limit: 2, remaining, reset: 120 };
        assert_eq!(window.count(60), Decision::Allowed(status(1)));
        assert_eq!(window.count(119), Decision::Allowed(status(0)));
        assert_eq!(window.count(119), Decision::Refused(status(0)));
        let next = RateStatus { limit: 2, remaining: 1, reset: 180 };
        assert_eq!(window.count(120), Decision::Allowed(next));
    }

    #[test]
    fn zero_is_no_limit() {
        assert_eq!(Window::new(0).count(1), Decision::Unlimited);
    }
}
