//! How much the service takes: the highest rate that it still carries, by halving.

use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Slower than this at p99 is not carried: the queue grows.
const CARRIED_P99_MICROS: u64 = 250_000;
/// Less than one in so many may be refused or not sent.
const CARRIED_LOSS: u64 = 1_000;

/// A rate that was tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Try {
    /// Requests a second.
    pub(crate) per_second: f64,
    pub(crate) offered: u64,
    pub(crate) succeeded: u64,
    pub(crate) p99_micros: u64,
}

impl Try {
    /// Whether nearly all were taken, and soon.
    pub(crate) fn carried(&self) -> bool {
        let lost = self.offered.saturating_sub(self.succeeded);
        self.p99_micros <= CARRIED_P99_MICROS && lost * CARRIED_LOSS <= self.offered
    }
}

/// Halves between 0 and `high` so often; gives the highest rate that was carried and all that were
/// tried. When none was, `high` is halved on and on, as often.
pub(crate) async fn search(
    high: f64,
    steps: u32,
    mut measure: impl AsyncFnMut(f64) -> Result<Try>,
) -> Result<(Option<f64>, Vec<Try>)> {
    let (mut carried, mut too_much) = (None, None);
    let mut tries = Vec::new();
    let mut rate = high;
    for _ in 0..steps {
        let found = measure(rate).await?;
        if found.carried() {
            carried = Some(rate);
        } else {
            too_much = Some(rate);
        }
        tries.push(found);
        rate = match (carried, too_much) {
            (Some(low), Some(high)) => f64::midpoint(low, high),
            (None, Some(high)) => high / 2.0,
            // What was thought to be too much is not.
            (Some(low), None) => low * 1.5,
            (None, None) => rate,
        };
    }
    Ok((carried, tries))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn found(real: f64, high: f64, steps: u32) -> (Option<f64>, usize) {
        let measure = async |per_second: f64| {
            let fine = per_second <= real;
            let (succeeded, p99_micros) = if fine { (10_000, 5_000) } else { (9_000, 5_000) };
            Ok(Try { per_second, offered: 10_000, succeeded, p99_micros })
        };
        let (carried, tries) = search(high, steps, measure).await.unwrap();
        (carried, tries.len())
    }

    #[tokio::test]
    async fn comes_close_from_above_and_from_below() {
        for real in [900.0, 7_000.0, 10_000.0, 26_000.0] {
            let (carried, tries) = found(real, 10_000.0, 10).await;
            let carried = carried.unwrap();
            assert!(carried <= real && carried > real * 0.95, "{carried} of {real}");
            assert_eq!(tries, 10);
        }
        assert_eq!(found(1.0, 10_000.0, 5).await.0, None);
    }

    #[test]
    fn slow_or_lossy_is_not_carried() {
        let tried =
            |succeeded, p99_micros| Try { per_second: 1.0, offered: 10_000, succeeded, p99_micros };
        assert!(tried(9_990, 250_000).carried());
        assert!(!tried(9_989, 1_000).carried());
        assert!(!tried(10_000, 250_001).carried());
    }
}
