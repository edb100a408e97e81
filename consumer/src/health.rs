//! What the probes tell: alive, ready, and which dependency is away.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// How things stand; shared between the projection and the probes.
#[derive(Debug)]
pub struct Health {
    kafka: AtomicBool,
    in_group: AtomicBool,
    stopping: AtomicBool,
    lanes: Vec<LaneHealth>,
}

/// How one lane's part stands.
#[derive(Debug, Default)]
pub struct LaneHealth {
    postgres: AtomicBool,
    positioned: AtomicBool,
    retrying: AtomicBool,
}

/// The body of `/readyz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Readiness {
    /// `ok` or `unavailable`.
    pub status: &'static str,
    /// `up` or `down`.
    pub kafka: &'static str,
    /// `up` or `down`.
    pub postgres: &'static str,
    /// `running`, `joining` the group, `positioning` its partitions,
    /// `retrying` a batch, or `stopping`.
    pub projection: &'static str,
}

impl LaneHealth {
    /// Whether PostgreSQL answered when last asked.
    pub fn set_postgres(&self, up: bool) {
        self.postgres.store(up, Ordering::Relaxed);
    }

    /// Whether every partition of ours has its position from PostgreSQL.
    pub fn set_positioned(&self, positioned: bool) {
        self.positioned.store(positioned, Ordering::Relaxed);
    }

    /// Whether the last batch failed for a cause that passes.
    pub fn set_retrying(&self, retrying: bool) {
        self.retrying.store(retrying, Ordering::Relaxed);
    }
}

impl Health {
    /// Of a projection in so many lanes.
    pub fn new(lanes: usize) -> Self {
        Self {
            kafka: AtomicBool::default(),
            in_group: AtomicBool::default(),
            stopping: AtomicBool::default(),
            // A lane without partitions has none that lacks its position.
            lanes: (0..lanes)
                .map(|_| LaneHealth { positioned: AtomicBool::new(true), ..LaneHealth::default() })
                .collect(),
        }
    }

    /// One for each lane.
    pub fn lanes(&self) -> &[LaneHealth] {
        &self.lanes
    }

    /// Whether a broker is connected.
    pub fn set_kafka(&self, up: bool) {
        self.kafka.store(up, Ordering::Relaxed);
    }

    /// Whether we are a member of the group, with partitions or without.
    pub fn set_in_group(&self, joined: bool) {
        self.in_group.store(joined, Ordering::Relaxed);
    }

    /// From now on never ready again.
    pub fn set_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Ready is: a member of the group, all its partitions positioned, both dependencies up.
    pub fn readiness(&self) -> Readiness {
        let up = |up| if up { "up" } else { "down" };
        let lanes = || self.lanes.iter();
        let projection = if self.stopping.load(Ordering::Relaxed) {
            "stopping"
        } else if !self.in_group.load(Ordering::Relaxed) {
            "joining"
        } else if !lanes().all(|lane| lane.positioned.load(Ordering::Relaxed)) {
            "positioning"
        } else if lanes().any(|lane| lane.retrying.load(Ordering::Relaxed)) {
            "retrying"
        } else {
            "running"
        };
        let kafka = up(self.kafka.load(Ordering::Relaxed));
        let postgres = up(lanes().all(|lane| lane.postgres.load(Ordering::Relaxed)));
        let ready = projection == "running" && kafka == "up" && postgres == "up";
        Readiness { status: if ready { "ok" } else { "unavailable" }, kafka, postgres, projection }
    }
}
