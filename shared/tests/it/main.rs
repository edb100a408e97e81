//! The schema of the log, as subscribers see it.

mod envelope;
mod headers;
mod topics;
