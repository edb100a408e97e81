//! The promises of the consumer, on real Kafka and real PostgreSQL: a file per promise.
#![allow(missing_docs, clippy::unwrap_used)]

mod boot;
mod breaker;
mod crash;
mod determinism;
mod dlq;
mod doctor;
mod fencing;
mod migrate;
mod model;
mod outage;
mod parking;
mod parking_borders;
mod poison;
mod projection;
mod rebuild;
mod recreated;
mod shutdown;
mod status;
mod tls;
mod topics;
