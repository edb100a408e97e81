//! What the integration tests stand on: a system of its own, on the real stack.
//!
//! A [`System`] is one set of topics, one consumer group and one database that nothing else uses,
//! on servers that many tests share. Into it a test starts the real binaries, and then posts,
//! produces, kills and freezes as it likes:
//!
//! ```no_run
//! # async fn test() {
//! use leads_testkit::{KeySpec, System};
//!
//! let system = System::new().await;
//! let key = system.create_key(KeySpec::default()).await;
//! let consumer = system.start_consumer().await;
//! let api = system.start_api().await;
//! api.wait_ready().await;
//!
//! let answer = api.post_lead(&key, r#"{"source":"web"}"#).await;
//! assert_eq!(answer.status, 201);
//! consumer.kill().await;
//! # }
//! ```
//!
//! The servers come from the environment: `KAFKA_BROKERS` and `DATABASE_URL`, as
//! `dev/stack exec -- cargo test --workspace` sets them. A test that has to stop a server takes a
//! [`Stack`] of its own: `System::builder().stack(Stack::dedicated().await)`.
//!
//! Nothing here returns errors: what goes wrong is a test's failure, so it panics and says what
//! and where. Nothing sleeps blindly: [`eventually`] waits for a condition and has a deadline.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "see above: panics are the point"
)]

mod api;
mod balancer;
mod children;
mod consumer;
mod database;
mod disk;
mod http;
mod keys;
mod log;
mod mock;
mod otlp;
mod process;
mod proxy;
mod raw_http;
mod sse;
mod stack;
mod system;
mod tls;
mod wait;

pub use api::Api;
pub use balancer::Balancer;
pub use consumer::Consumer;
pub use disk::Disk;
pub use http::Response;
pub use keys::{Key, KeySpec};
pub use log::{Position, Producer, Record};
pub use mock::Mock;
pub use otlp::{OtlpReceiver, ReceivedSpan};
pub use process::{LogLine, Process};
pub use proxy::{AtCommit, Proxy};
pub use raw_http::RawConnection;
pub use sse::{EventStream, StreamEvent};
pub use stack::{Server, Stack};
pub use system::{Builder, Spare, System};
pub use tls::{Authority, Folder, Identity, Impostor, Pretend, Seen};
pub use wait::{DEADLINE, Outcome, eventually};

// So that a test needs no dependency of its own to speak with what the kit hands out.
pub use rdkafka::types::{RDKafkaApiKey as KafkaCall, RDKafkaRespErr as KafkaCode};
pub use {reqwest, reqwest::Method, tokio_postgres};
