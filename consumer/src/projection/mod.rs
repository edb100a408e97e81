//! What the log means: records → what changes in the read model. Pure: no clock, no I/O, no
//! randomness, so that the same log gives the same rows.

pub mod counts;
pub mod decode;
pub mod fold;
pub mod parking;

use leads_shared::{Changes, Lead, Text, Timestamp};
use uuid::Uuid;

/// What identifies a row of `leads`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The workspace.
    pub workspace_id: Uuid,
    /// The lead.
    pub id: Uuid,
}

/// What the fold has to know of a row that is there to tell what an event does to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// How many events took effect.
    pub version: u64,
    /// The last one that did.
    pub last_event_id: Uuid,
    /// See [`Lead::updated_at`].
    pub updated_at: Timestamp,
}

/// The fields of a row by which leads are counted, so that a list narrowed to one has its total at once.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Counted {
    /// See [`Lead::code`].
    pub code: Option<Text<'static>>,
    /// See [`Lead::source`].
    pub source: Option<Text<'static>>,
}

/// A row to insert.
#[derive(Debug, Clone, PartialEq)]
pub struct Created<'a> {
    /// The lead, updates of the same batch applied.
    pub lead: Lead<'a>,
    /// How many events took effect.
    pub version: u64,
    /// The last one that did.
    pub last_event_id: Uuid,
    /// The index of the event that created it, into the events given.
    pub index: usize,
}

/// A row to update.
#[derive(Debug, Clone, PartialEq)]
pub struct Updated<'a> {
    /// Which one.
    pub key: Key,
    /// What it was counted by before them.
    pub before: Counted,
    /// All changes of the batch in one: the last one given for a field.
    pub changes: Changes<'a>,
    /// The row's state after them.
    pub after: Known,
    /// The index of the first event that changed it, into the events given.
    pub index: usize,
}

/// An update that came too late for the version it expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PreconditionFailure {
    /// The update.
    pub event_id: Uuid,
    /// When it was taken in.
    pub occurred_at: Timestamp,
}

/// Why a record is set aside, as it stands in `dead_letters.reason`, in `dlq_reason` and in the
/// label of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// The value is no event.
    Undecodable,
    /// The value is an event of a type that this version does not know.
    UnknownType,
    /// The value is an event of a version that this version does not know.
    UnknownVersion,
    /// The event contradicts itself or its record's key.
    Inconsistent,
    /// The record stands on a partition that is not its key's.
    WrongPartition,
    /// An update of a lead that the log never created.
    UnknownLead,
    /// PostgreSQL does not take what is in it.
    Refused,
    /// Nothing is wrong with it: an earlier event of its lead was set aside.
    Parked,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: [Self; 8] = [
        Self::Undecodable,
        Self::UnknownType,
        Self::UnknownVersion,
        Self::Inconsistent,
        Self::WrongPartition,
        Self::UnknownLead,
        Self::Refused,
        Self::Parked,
    ];

    /// The reason of this name, if this version knows it.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// Whether later events of the lead have to wait for this one: projecting them without it would
    /// break their order. The others either have no lead that could be trusted, or no effect.
    pub fn holds_lead(self) -> bool {
        match self {
            Self::Undecodable
            | Self::UnknownType
            | Self::UnknownVersion
            | Self::Refused
            | Self::Parked => true,
            Self::Inconsistent | Self::WrongPartition | Self::UnknownLead => false,
        }
    }

    /// The name in the table, the header and the metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::UnknownType => "unknown_type",
            Self::UnknownVersion => "unknown_version",
            Self::Inconsistent => "inconsistent",
            Self::WrongPartition => "wrong_partition",
            Self::UnknownLead => "unknown_lead",
            Self::Refused => "refused_by_postgres",
            Self::Parked => "parked",
        }
    }
}

/// Why a record is set aside, in words without any of its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// The class.
    pub reason: Reason,
    /// The words.
    pub error: String,
}

/// How many events had which effect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Leads created.
    pub created: u64,
    /// Updates that took effect.
    pub updated: u64,
    /// Creations of leads that were there.
    pub duplicate_creation: u64,
    /// Updates that had already taken effect.
    pub duplicate_update: u64,
    /// Updates that came too late for the version they expected.
    pub precondition_failed: u64,
    /// Records set aside.
    pub dead_letter: u64,
}
