//! Takes leads in over HTTP, publishes them to Kafka and reads them back from PostgreSQL.
//!
//! The way of a request: [`routes`] lets it in, [`domain`] turns its body into a valid value,
//! [`publisher`] has the broker keep it, [`read_model`] answers what was projected.

pub mod access;
pub mod broker;
pub mod buckets;
pub mod cli;
pub mod config;
pub mod context;
pub mod domain;
pub mod error;
pub mod history;
pub mod in_flight;
pub mod metrics;
pub mod partition_set;
pub mod projection_wait;
pub mod publisher;
pub mod rate_limit;
pub mod read_model;
pub mod recent;
pub mod routes;
pub mod server;
pub mod startup;
pub mod stream;
pub mod system;
pub mod telemetry;
mod told;
pub mod traced;
mod turns;
