//! More load than the service carries: what it still takes, how fast, and what it refuses.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::capacity::{Try, search};
use crate::cpu::Watched;
use crate::open::drive::WhenBusy;
use crate::open::requests::{Recipe, Requests};
use crate::open::schedule::Arrivals;
use crate::open::{OpenRun, Plan, open_loop};
use crate::service::System;

/// Of the capacity.
const FACTORS: [f64; 4] = [0.5, 1.0, 2.0, 4.0];
const TRIES: u32 = 6;
/// Leads that may wait for the broker: below the connections, so that it is the service that refuses.
const IN_FLIGHT: &str = "2000";
/// Enough for a service that answers at all; beyond, the generator would only measure itself.
const MAX_CONNECTIONS: usize = 4_096;

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Overload {
    pub(crate) recipe: Recipe,
    /// Highest rate that was carried, in requests a second.
    pub(crate) capacity: f64,
    pub(crate) tries: Vec<Try>,
    /// At half of the capacity, at all of it, and at its double and fourfold. Each has an API of its
    /// own, so its peak memory is its own.
    pub(crate) points: Vec<OpenRun>,
}

/// Looks for the capacity, starting at `guess` requests a second, and offers parts and multiples of
/// it for `seconds` each.
pub(crate) async fn measure(
    system: &System,
    key: &str,
    recipe: Recipe,
    guess: f64,
    seconds: f64,
    servers: &[Watched],
) -> Result<Overload> {
    let short = Duration::from_secs_f64((seconds / 3.0).max(1.0));
    let (carried, tries) = search(guess, TRIES, async |per_second| {
        let run = run(system, key, recipe, &plan(per_second, short), &[]).await?;
        Ok(Try {
            per_second,
            offered: run.offered,
            succeeded: run.succeeded,
            p99_micros: run.latency.p99_micros,
        })
    })
    .await?;
    let capacity = carried.with_context(|| {
        format!("none of these rates was carried; look at the service alone first: {tries:?}")
    })?;
    let mut points = Vec::new();
    for factor in FACTORS {
        let plan = plan(capacity * factor, Duration::from_secs_f64(seconds));
        points.push(run(system, key, recipe, &plan, servers).await?);
    }
    Ok(Overload { recipe, capacity, tries, points })
}

fn plan(per_second: f64, measure: Duration) -> Plan {
    Plan {
        per_second,
        arrivals: Arrivals::Constant,
        seed: 0,
        warm_up: measure.mul_f64(0.3),
        measure,
        max_connections: MAX_CONNECTIONS,
        when_busy: WhenBusy::Drop,
    }
}

/// With an API of its own.
async fn run(
    system: &System,
    key: &str,
    recipe: Recipe,
    plan: &Plan,
    servers: &[Watched],
) -> Result<OpenRun> {
    let api = system.start_api_with(&[("MAX_IN_FLIGHT", IN_FLIGHT)]).await?;
    let watched: Vec<_> = std::iter::once(api.watched()).chain(servers.to_vec()).collect();
    let requests = Requests::new(recipe, &api.url(), key)?;
    let run = open_loop(requests, plan, &watched, None).await?;
    api.stop().await?;
    Ok(run)
}
