//! What goes into a transaction, and what came of it.

use leads_shared::Event;
use uuid::Uuid;

use crate::projection::parking::LeadAt;
use crate::projection::{Rejection, Tally};
use crate::record::Record;

/// A move of a partition's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Advance {
    /// The partition.
    pub partition: i32,
    /// Where it must stand.
    pub from: i64,
    /// Where it stands then.
    pub to: i64,
    /// The event id of the record before `to`.
    pub last_event_id: Option<Uuid>,
}

/// Records to project in one transaction.
#[derive(Debug)]
pub struct Batch<'a> {
    /// The generation whose offsets move.
    pub generation: i32,
    /// The offsets that move, one for each partition, in the order of the partitions.
    pub advances: Vec<Advance>,
    /// The records, in log order for each partition.
    pub records: Vec<Record<'a>>,
    /// The events of those that hold one, by index into `records`.
    pub events: Vec<(usize, Event<'a>)>,
    /// Why the others hold none.
    pub rejected: Vec<(usize, Rejection)>,
    /// Leads of these events that were held when last looked; whether they still are is read again
    /// in the transaction. Each once.
    pub held: Vec<LeadAt>,
    /// The trace that the transaction belongs to, for whoever reads PostgreSQL's own log.
    pub traceparent: Option<String>,
}

/// What a batch did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many events had which effect.
    pub tally: Tally,
    /// Why records were set aside.
    pub rejected: Vec<Rejection>,
    /// The leads that the records set aside hold from now on.
    pub held: Vec<LeadAt>,
    /// Leads of [`Batch::held`] that are held no more.
    pub released: Vec<LeadAt>,
}
