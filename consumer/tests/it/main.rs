//! The promises of the consumer, on real Kafka and real PostgreSQL: a file per promise.
#![allow(missing_docs, clippy::unwrap_used)]

mod boot;
mod chaos;
mod commit;
mod crash;
mod determinism;
mod disk_full;
mod fencing;
mod load;
mod memory;
mod migrate;
mod model;
mod outage;
mod poison;
mod projection;
mod rebuild;
mod recreated;
mod scaling;
mod shutdown;
mod tls;
mod topics;
