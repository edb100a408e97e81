//! Everything that speaks to Kafka. No other module names rdkafka.
//!
//! - `client`: settings that all clients share;
//! - `consumer`: the poll thread: positions, records, hand-over to the worker;
//! - `member`: the group's callbacks;
//! - `admin`: topics;
//! - `inspect`, `group`: what `status` and `doctor` look at;
//! - `producer`: the export of dead letters.

pub mod admin;
pub mod client;
pub mod consumer;
pub mod group;
pub mod inspect;
mod member;
pub mod producer;

use std::sync::mpsc;

/// What the poll thread tells the worker, besides records.
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
    /// Commit, leave the group and end.
    Close(Vec<(i32, i64)>),
}
