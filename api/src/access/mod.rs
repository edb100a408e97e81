//! API keys: what they look like, where they are kept, and the table that requests are checked
//! against.
//!
//! The truth is the compacted topic `leads.access.v1`, so that ingest needs Kafka alone. A record is
//! the whole state of a key, under the key's id; a revoked key is a marked record, not a tombstone.

pub mod commands;
mod directory;
mod key;
mod record;

pub use directory::{ActiveKey, Directory, KeyPage, spawn_follower};
pub use key::{Digest, Secret, digest};
pub use record::{AccessRecord, KeyKind, Scope};
