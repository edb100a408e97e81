//! The schema of the log, shared by the one who writes it and all who read it.
//!
//! Nothing here does I/O: the crate turns values into bytes and back, says how topics have to be
//! configured, and which partition a key belongs to. It can be tested and fuzzed alone.

pub mod documents;
pub mod effect;
pub mod event;
pub mod headers;
pub mod kafka_settings;
pub mod lead;
pub mod partition;
#[cfg(feature = "schema")]
pub mod schema;
pub mod timestamp;
pub mod topic;

pub use effect::UpdateEffect;
pub use event::{Event, Payload};
pub use lead::{Change, Changes, Json, Lead, Text};
pub use timestamp::Timestamp;
