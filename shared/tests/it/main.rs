//! The schema of the log, as subscribers see it.

mod compatibility;
mod envelope;
mod headers;
mod schemas;
mod topics;
