//! One function a door: each takes what comes in there, and panics when a promise is broken.

mod access;
mod batch;
mod body;
mod envelope;
mod headers;
mod query;

pub use access::access;
pub use batch::batch;
pub use body::{changes, create, item};
pub use envelope::envelope;
pub use headers::headers;
pub use query::query;

/// A target function.
pub type Target = fn(&[u8]);

/// Every target by the name of its binary and its corpus.
pub const ALL: [(&str, Target); 8] = [
    ("create", create),
    ("changes", changes),
    ("item", item),
    ("batch", batch),
    ("envelope", envelope),
    ("query", query),
    ("headers", headers),
    ("access", access),
];
