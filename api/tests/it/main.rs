//! The promises of the API, told through the real binaries on the real stack: one file per promise.
//!
//! Many tests share one system (see [`shared`]) and keep apart by workspace; those that stop, freeze
//! or misconfigure something have a system of their own.

mod batch;
mod bodies;
mod boot;
mod contract;
mod cors;
mod deploy;
mod errors;
mod history;
mod idempotency;
mod isolation;
mod json;
mod keys;
mod list;
mod observability;
mod openapi;
mod outages;
mod patch;
mod pressure;
mod projectable;
mod read_your_writes;
mod shared;
mod shutdown;
mod slow;
mod streams;
mod streams_faults;
mod tls;
