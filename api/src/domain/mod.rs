//! What a lead may be: from the bytes of a request to values that exist only when they are valid.
//!
//! Imports neither actix, rdkafka nor tokio-postgres, so that it can be tested and fuzzed alone.

mod batch;
mod canonical;
mod fields;
pub mod idempotency;
mod json;
mod lead;
mod reject;

pub use batch::{BatchFormat, BatchRejection, items};
pub use fields::hyphenated_uuid;
pub use lead::{NewLead, parse_changes, parse_item};
pub(crate) use reject::note;
pub use reject::{FieldCode, FieldError, MAX_NAME_ERRORS, Rejection};

/// Largest body of one lead, in bytes, after decompression.
pub const MAX_LEAD_BYTES: usize = 256 * 1024;
/// Most items of a batch.
pub const MAX_BATCH_ITEMS: usize = 1_000;
/// Largest body of a batch, in bytes, after decompression.
pub const MAX_BATCH_BYTES: usize = 5 * 1024 * 1024;
/// Deepest nesting of objects and arrays, the body's own object counted as 1.
pub const MAX_DEPTH: usize = 64;
/// Most digits that a number may have when it is written out without an exponent.
pub const MAX_DIGITS: usize = 1_000;
