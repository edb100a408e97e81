//! The promises of the API, told through the real binaries on the real stack: one file per promise.
//!
//! Many tests share one system (see [`shared`]) and keep apart by workspace; those that stop, freeze
//! or misconfigure something have a system of their own.

mod batch;
mod bodies;
mod boot;
mod brokers;
mod compress;
mod console;
mod contract;
mod cors;
mod dashboards;
mod deploy;
mod errors;
mod event_contract;
mod faults;
mod hardening;
mod history;
mod hostile;
mod http2;
mod https;
mod idempotency;
mod isolation;
mod json;
mod keys;
mod list;
mod observability;
mod openapi;
mod outage_load;
mod outages;
mod partitions;
mod patch;
mod pressure;
mod projectable;
mod read_your_writes;
mod rolling;
mod shared;
mod shutdown;
mod slow;
mod smuggling;
mod streams;
mod streams_faults;
mod system;
mod system_faults;
mod system_lists;
mod tls;
mod traces;
