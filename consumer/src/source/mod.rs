//! Everything that speaks to Kafka. No other module names rdkafka.
//!
//! - `client`: settings that all clients share;
//! - `consumer`: the poll thread: positions, records, hand-over to the worker;
//! - `outlet`: a lane's end of the poll thread;
//! - `member`: the group's callbacks;
//! - `admin`: topics;
//! - `inspect`, `group`: what `status` and `doctor` look at;
//! - `log`: how far the log reaches, and what a part of it is about;
//! - `producer`: the export of dead letters.

pub mod admin;
pub mod client;
pub mod consumer;
pub mod group;
pub mod inspect;
pub mod log;
mod member;
mod outlet;
pub mod producer;

use std::sync::mpsc;

/// How a source comes by its partitions.
#[derive(Debug, Clone)]
pub enum Membership {
    /// By membership of this consumer group.
    Group(String),
    /// All of so many are its own; no group is asked, and none is told how far they are read.
    Alone(u32),
}

impl Membership {
    fn group(&self) -> &str {
        match self {
            Self::Group(name) => name,
            // librdkafka wants a name before it assigns partitions; nothing is done under it.
            Self::Alone(_) => "leads-rebuild",
        }
    }
}

/// The version of the linked librdkafka, as in `2.12.1`.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// The lane of a partition, one of `lanes`.
pub fn lane_of(partition: i32, lanes: usize) -> usize {
    usize::try_from(partition).unwrap_or(0) % lanes.max(1)
}

/// What the poll thread tells a worker, besides records.
#[derive(Debug)]
pub enum Event {
    /// The group gave us these partitions. Nothing is read from them until they are positioned.
    Assigned(Vec<i32>),
    /// The group takes these partitions away, or has already given them to others. The poll thread
    /// waits for `done` before it lets go of them.
    Revoked {
        /// The partitions.
        partitions: Vec<i32>,
        /// Answered when nothing of them is being written any more.
        done: mpsc::Sender<()>,
    },
    /// Once a second: how things stand.
    Statistics(Statistics),
    /// The source can't go on.
    Failed {
        /// What happened.
        cause: String,
        /// What to do about it.
        cure: String,
    },
}

/// How things stand, as librdkafka sees it.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    /// Whether a broker is connected.
    pub connected: bool,
    /// Whether we are a settled member of the group.
    pub in_group: bool,
    /// Partition and the offset after its last record, where known.
    pub ends: Vec<(i32, i64)>,
}

/// Where to read a partition from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset of the first record wanted.
    pub offset: i64,
    /// What records read from there are marked with.
    pub epoch: u32,
}

/// What the worker asks of the poll thread.
#[derive(Debug)]
pub enum Command {
    /// Read these partitions from there on, dropping what was fetched of them.
    Position(Vec<Position>),
    /// Tell the group how far the partitions are projected; for lag tools only.
    Commit(Vec<(i32, i64)>),
    /// This lane has ended. After the last one: commit, leave the group and end.
    Close(Vec<(i32, i64)>),
}
