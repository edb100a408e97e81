//! Projects the log of leads into PostgreSQL.
//!
//! The way of a record: [`source`] (Kafka) → [`worker`] (the loop) → [`projection`] (decode, fold) →
//! [`store`] (offsets and rows, one transaction) → PostgreSQL. What fails is classed by [`failure`];
//! what can't be projected is exported by [`dead_letters`], and looked at and projected after all by
//! [`dlq`]. [`rebuild`] makes it all anew; [`status`] and [`doctor`] look at it from outside.

pub mod breaker;
pub mod cli;
pub mod config;
pub mod connection;
pub mod dead_letters;
pub mod disk;
pub mod dlq;
pub mod doctor;
pub mod failure;
pub mod health;
pub mod migrate;
pub mod probes;
pub mod projection;
pub mod rebuild;
pub mod record;
pub mod run;
pub mod source;
pub mod status;
pub mod store;
pub mod telemetry;
pub mod topics;
pub mod traced;
pub mod worker;
