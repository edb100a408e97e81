//! The promises of the consumer, on real Kafka and real PostgreSQL: a file per promise.
#![allow(missing_docs, clippy::unwrap_used)]

mod boot;
mod chaos;
mod commit;
mod crash;
mod determinism;
mod fencing;
mod load;
mod migrate;
mod model;
mod outage;
mod poison;
mod projection;
mod rebuild;
mod recreated;
mod shutdown;
mod tls;
mod topics;
