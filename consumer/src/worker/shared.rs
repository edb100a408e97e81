//! What the lanes have in common.

use leads_traces::Traces;
use tokio::sync::Notify;

use super::lanes::Progress;
use crate::health::Health;

/// How large a batch may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Records.
    pub records: usize,
    /// Bytes of keys, values and headers. A single record may be larger.
    pub bytes: usize,
    /// Offsets that are not there are passed over, and halt nothing.
    pub pass_gaps: bool,
}

/// What the lanes of a projection have in common.
#[derive(Clone, Copy)]
pub struct Shared<'a> {
    /// What the probes tell.
    pub health: &'a Health,
    /// Told when records were set aside.
    pub dead_letters: &'a Notify,
    /// How far each partition is.
    pub progress: &'a Progress,
    /// How large a batch may be.
    pub limits: Limits,
    /// Partitions of the topic.
    pub partition_count: u32,
    /// The topic, as spans name it.
    pub topic: &'a str,
    /// Where spans go.
    pub traces: &'a Traces,
}
