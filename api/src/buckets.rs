//! A histogram that the process reads back itself: those of the metrics port can only be rendered.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts durations by upper bounds.
#[derive(Debug)]
pub struct Buckets {
    /// Seconds, ascending.
    bounds: &'static [f64],
    /// One for each bound, and one for what is above all of them.
    counts: Box<[AtomicU64]>,
    nanos: AtomicU64,
}

/// What was counted so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// The upper bound in seconds, and how many durations are not above it; the last has no bound.
    pub buckets: Vec<(Option<f64>, u64)>,
    /// The durations together, in seconds.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

impl Buckets {
    /// `bounds` in seconds, ascending.
    pub fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, nanos: AtomicU64::new(0) }
    }

    /// Counts a duration.
    pub fn record(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn read(&self) -> Counted {
        let mut count = 0;
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(&self.counts).map(|(bound, of_bucket)| {
            count += of_bucket.load(Ordering::Relaxed);
            (bound, count)
        });
        let buckets = buckets.collect();
        let sum = Duration::from_nanos(self.nanos.load(Ordering::Relaxed)).as_secs_f64();
        Counted { buckets, sum, count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_counts_add_up() {
        let buckets = Buckets::new(&[0.001, 0.01]);
        for millis in [0, 1, 2, 10, 11] {
            buckets.record(Duration::from_millis(millis));
        }
        let Counted { buckets, sum, count } = buckets.read();
        assert_eq!(buckets, [(Some(0.001), 2), (Some(0.01), 4), (None, 5)]);
        assert_eq!(count, 5);
        assert!((sum - 0.024).abs() < 1e-9, "{sum}");
    }
}
