//! How times are spread: HDR histograms, and what is told of them.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest time that is told apart, in µs; longer ones count as this.
const LONGEST: u64 = 60_000_000;
/// Points of a curve each time the share of slower ones halves.
const POINTS: u32 = 4;

/// Times in µs.
#[derive(Debug, Clone)]
pub(crate) struct Times(Histogram<u64>);

/// What is told of [`Times`]; in µs, to three digits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spread {
    /// How many.
    pub(crate) count: u64,
    pub(crate) p50_micros: u64,
    pub(crate) p90_micros: u64,
    pub(crate) p99_micros: u64,
    pub(crate) p999_micros: u64,
    pub(crate) max_micros: u64,
}

/// A point of the curve: this share took that long or less.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) share: f64,
    pub(crate) micros: u64,
}

impl Times {
    pub(crate) fn new() -> Self {
        // Three digits from 1 µs up are within what the library takes.
        #[allow(clippy::expect_used, reason = "constants")]
        Self(Histogram::new_with_bounds(1, LONGEST, 3).expect("valid bounds"))
    }

    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn spread(&self) -> Spread {
        let at = |quantile| self.0.value_at_quantile(quantile);
        Spread {
            count: self.0.len(),
            p50_micros: at(0.5),
            p90_micros: at(0.9),
            p99_micros: at(0.99),
            p999_micros: at(0.999),
            max_micros: self.0.max(),
        }
    }

    /// Closer together the rarer the times are; the last point is the slowest of all.
    pub(crate) fn curve(&self) -> Vec<Point> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_quantiles(POINTS);
        let mut curve: Vec<_> = steps
            .map(|step| Point {
                share: step.quantile_iterated_to(),
                micros: step.value_iterated_to().min(self.0.max()),
            })
            .collect();
        curve.dedup_by(|next, last| next.micros == last.micros && next.share < 1.0);
        curve
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_and_the_curve_tell_the_same() {
        let mut times = Times::new();
        for micros in 1..=1_000 {
            times.record(Duration::from_micros(micros));
        }
        let spread = times.spread();
        assert_eq!((spread.count, spread.max_micros), (1_000, 1_000));
        assert_eq!((spread.p50_micros, spread.p90_micros, spread.p99_micros), (500, 900, 990));
        let curve = times.curve();
        assert!(curve.is_sorted_by(|a, b| a.share < b.share && a.micros <= b.micros));
        let last = curve.last().unwrap();
        assert_eq!((last.share, last.micros), (1.0, 1_000));
        let half = curve.iter().find(|point| point.share >= 0.5).unwrap();
        assert!(half.micros.abs_diff(500) < 30, "{half:?}");
    }

    #[test]
    fn nothing_measured_has_no_curve_and_an_hour_is_a_minute() {
        let mut times = Times::new();
        assert!(times.curve().is_empty());
        times.record(Duration::from_hours(1));
        assert!(times.spread().max_micros >= LONGEST);
    }
}
