//! The schema of the log, as subscribers see it.
#![allow(clippy::unwrap_used)]

mod compatibility;
mod envelope;
mod headers;
mod schemas;
mod topics;
