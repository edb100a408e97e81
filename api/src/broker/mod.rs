//! Kafka as the API sees it. The only module that names rdkafka, and mechanism only: it says of every
//! failure whether the record may be there, and leaves what to do about it to others.

mod config;
mod follow;
mod questions;
mod reader;
mod state;
mod watch;

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseProducer, BaseRecord, DeliveryResult, NoCustomPartitioner, Producer, ProducerContext,
};
use tokio::sync::oneshot;

use crate::in_flight::Permit;
use crate::partition_set::PartitionSet;

pub use config::{ConfigError, KafkaConfig};
pub use follow::{Followed, follow, publish_once, read_to_end};
pub use questions::{Bounds, Questions, Times};
pub use reader::{Attributes, LogReader, LogRecord, LogSource, Read, ReadAhead, Unreachable};

use config::create;
use state::{Context, SharedState, log};
use watch::GIVE_UP_CLIENT;

/// Eight of CloudEvents and `traceparent`.
const USUAL_HEADERS: usize = 9;

/// Delivery reports are handed on together: each partition's come apart, and every one would wake
/// this process's threads in a chain. Saves a tenth of the CPU time a lead for half of this in time.
const REPORT_PAUSE: Duration = Duration::from_micros(200);

/// The version of the linked librdkafka, as in `2.12.1`.
pub fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// Where a record stands in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset within it.
    pub offset: i64,
}

/// A record that is in the log.
#[derive(Debug, Clone, Copy)]
pub struct Delivered {
    /// Where it stands.
    pub position: Position,
    /// When its delivery report was seen: what waits for it may be woken later.
    pub at: Instant,
}

/// Why there is no acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeliveryFailure {
    /// The record may or may not be in the log.
    #[error("no acknowledgement in time: {0}")]
    Unknown(String),
    /// The record is not in the log; a retry can help.
    #[error("the broker did not take the record: {0}")]
    NotTaken(String),
    /// The record is not in the log, and never will be: it is larger than the topic allows.
    #[error("the record is larger than the topic allows")]
    TooLarge,
    /// The producer's queue is full; nothing was handed over.
    #[error("the producer's queue is full")]
    QueueFull,
}

/// What is known of the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BrokerState {
    /// Not reached since the start.
    Connecting,
    /// Reached, the events topic is there.
    Up,
    /// Not reached now.
    Down,
    /// Reached, but the events topic does not exist.
    TopicMissing,
    /// Reached, but the producer has failed for good; another one is on its way.
    Replacing,
}

/// Producers that were replaced since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replaced {
    /// They had failed for good.
    pub fatal: u64,
    /// They had lost their brokers.
    pub lost: u64,
}

/// A record to publish.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The topic.
    pub topic: &'a str,
    /// The key; decides the partition.
    pub key: &'a str,
    /// The value.
    pub value: &'a [u8],
}

/// What waits for a delivery report.
struct Pending {
    reply: oneshot::Sender<Result<Delivered, DeliveryFailure>>,
    /// Given back when the report comes, not when the request ends.
    permit: Option<Permit>,
}

/// The shared connection to Kafka.
pub struct Broker {
    config: KafkaConfig,
    /// Replaced when it is beyond recovery, see [`Broker::watch`].
    producer: RwLock<Arc<BaseProducer<Context>>>,
    state: Arc<SharedState>,
    watermarks: mpsc::Sender<WatermarkRequest>,
}

impl ProducerContext<NoCustomPartitioner> for Context {
    type DeliveryOpaque = Box<Pending>;

    fn delivery(&self, result: &DeliveryResult<'_>, pending: Box<Pending>) {
        let outcome = match result {
            // What was sent twice may be acknowledged without saying where it stands. That is no
            // place to wait for, and an answer of 2xx names it.
            Ok(message) if message.offset() < 0 => {
                Err(DeliveryFailure::Unknown("acknowledged without an offset".to_owned()))
            }
            Ok(message) => {
                let position =
                    Position { partition: message.partition(), offset: message.offset() };
                let at = Instant::now();
                self.state.acknowledge(position);
                if let Some(permit) = &pending.permit {
                    permit.acknowledged(at);
                }
                Ok(Delivered { position, at })
            }
            Err((error, _)) => Err(failure_of(error)),
        };
        // The request may be gone; the record is in the log all the same.
        let _ = pending.reply.send(outcome);
    }
}

fn failure_of(error: &KafkaError) -> DeliveryFailure {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => DeliveryFailure::TooLarge,
        Some(RDKafkaErrorCode::QueueFull) => DeliveryFailure::QueueFull,
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => DeliveryFailure::NotTaken(error.to_string()),
        // Anything else may have reached a replica before it failed: also what is purged from the
        // queue, which may be there for its second try.
        _ => DeliveryFailure::Unknown(error.to_string()),
    }
}

impl Broker {
    /// Starts the clients in the background; needs no broker to be there.
    ///
    /// # Errors
    /// When a setting is refused by librdkafka; names the variable.
    pub fn start(config: &KafkaConfig, events_topic: &str) -> Result<Arc<Self>, ConfigError> {
        let state = SharedState::new();
        let producer = RwLock::new(Arc::new(make_producer(config, &state)?));
        let (watermarks, requests) = mpsc::channel();
        let broker = Arc::new(Self { config: config.clone(), producer, state, watermarks });
        let reporter = Arc::clone(&broker);
        spawn("kafka-reports", move || reporter.serve_reports());
        let topic = events_topic.to_owned();
        let watcher = Arc::clone(&broker);
        spawn("kafka-watch", move || watcher.watch(&topic));
        let topic = events_topic.to_owned();
        let reader = Arc::clone(&broker);
        spawn("kafka-watermarks", move || reader.serve_watermarks(&topic, &requests));
        Ok(broker)
    }

    /// What is known of the brokers now.
    pub fn state(&self) -> BrokerState {
        match self.state.state.load(Ordering::Relaxed) {
            0 => BrokerState::Connecting,
            1 => BrokerState::Up,
            2 => BrokerState::Down,
            3 => BrokerState::TopicMissing,
            _ => BrokerState::Replacing,
        }
    }

    /// How many producers were replaced since the start.
    pub fn replaced(&self) -> Replaced {
        Replaced {
            fatal: self.state.replaced_fatal.load(Ordering::Relaxed),
            lost: self.state.replaced_lost.load(Ordering::Relaxed),
        }
    }

    /// Records that were acknowledged since the start.
    pub fn acknowledged(&self) -> u64 {
        self.state.acknowledgements.load(Ordering::Relaxed)
    }

    /// Why Kafka can't be reached, in librdkafka's words; they name the broker and hold no secret.
    pub fn trouble(&self) -> Option<String> {
        self.state.trouble().map(|trouble| trouble.reason)
    }

    /// Partitions of the events topic; 0 until it was seen.
    pub fn partitions(&self) -> u32 {
        self.state.partitions.load(Ordering::Relaxed)
    }

    /// Partitions of the events topic that had no leader at the last look, at most a second ago.
    pub fn leaderless(&self) -> PartitionSet {
        PartitionSet::from_bits(self.state.leaderless.load(Ordering::Relaxed))
    }

    /// Records in the producer's queue and on the wire.
    pub fn queue_len(&self) -> usize {
        usize::try_from(self.producer().in_flight_count()).unwrap_or(0)
    }

    fn producer(&self) -> Arc<BaseProducer<Context>> {
        Arc::clone(&self.producer.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Hands a record over. The answer comes with the delivery report, whether or not anybody still
    /// waits for it; dropping the receiver does not take the record back.
    ///
    /// # Errors
    /// When the record could not even be queued.
    pub fn publish<'h>(
        &self,
        record: Record<'_>,
        headers: impl Iterator<Item = (&'static str, &'h str)>,
        permit: Permit,
    ) -> Result<oneshot::Receiver<Result<Delivered, DeliveryFailure>>, DeliveryFailure> {
        let (reply, answer) = oneshot::channel();
        let mut owned = OwnedHeaders::new_with_capacity(USUAL_HEADERS);
        for (key, value) in headers {
            owned = owned.insert(Header { key, value: Some(value) });
        }
        let pending = Box::new(Pending { reply, permit: Some(permit) });
        let base = BaseRecord::with_opaque_to(record.topic, pending)
            .key(record.key)
            .payload(record.value)
            .headers(owned);
        match self.producer().send(base) {
            Ok(()) => Ok(answer),
            Err((error, _)) => Err(match failure_of(&error) {
                // It was not even queued.
                DeliveryFailure::Unknown(reason) => DeliveryFailure::NotTaken(reason),
                failure => failure,
            }),
        }
    }

    /// The offset behind the last record that this process published to a partition.
    pub fn acknowledged_end(&self, partition: i32) -> Option<i64> {
        let ends = self.state.ends.lock().unwrap_or_else(PoisonError::into_inner);
        ends.get(&partition).copied()
    }

    /// The offset behind the last record of a partition of the events topic, asked now.
    pub async fn end_offset(&self, partition: i32, timeout: Duration) -> Option<i64> {
        let (reply, answer) = oneshot::channel();
        self.watermarks.send(WatermarkRequest { partition, reply }).ok()?;
        tokio::time::timeout(timeout, answer).await.ok()?.ok()?
    }

    /// Waits until everything handed over is answered for, and stops the background threads.
    pub fn close(&self, timeout: Duration) {
        if let Err(error) = self.producer().flush(timeout) {
            tracing::warn!(%error, "not everything in flight was acknowledged before the end");
        }
        self.state.stop.store(true, Ordering::Relaxed);
    }

    /// Runs the callbacks of deliveries and errors.
    fn serve_reports(&self) {
        while !self.state.stop.load(Ordering::Relaxed) {
            self.producer().poll(Duration::from_millis(100));
            thread::sleep(REPORT_PAUSE);
        }
    }

    /// Answers all requests that wait for the same partition with one question to the broker, asked
    /// after the last of them came.
    fn serve_watermarks(&self, topic: &str, requests: &mpsc::Receiver<WatermarkRequest>) {
        while !self.state.stop.load(Ordering::Relaxed) {
            let Ok(first) = requests.recv_timeout(Duration::from_millis(200)) else { continue };
            let mut waiting: HashMap<i32, Vec<oneshot::Sender<Option<i64>>>> = HashMap::new();
            for request in std::iter::once(first).chain(requests.try_iter()) {
                waiting.entry(request.partition).or_default().push(request.reply);
            }
            for (partition, replies) in waiting {
                let producer = self.producer();
                let found =
                    producer.client().fetch_watermarks(topic, partition, Duration::from_secs(1));
                let end = found.ok().map(|(_, high)| high);
                for reply in replies {
                    let _ = reply.send(end);
                }
            }
        }
    }
}

fn make_producer(
    config: &KafkaConfig,
    state: &Arc<SharedState>,
) -> Result<BaseProducer<Context>, ConfigError> {
    create(config, || config.producer().create_with_context(Context { state: Arc::clone(state) }))
}

struct WatermarkRequest {
    partition: i32,
    reply: oneshot::Sender<Option<i64>>,
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(work) {
        tracing::error!(%error, name, "a background thread could not be started");
    }
}
