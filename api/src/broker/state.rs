//! What is known of the brokers, kept true by the clients' callbacks.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::{BrokerState, Position};
use crate::told::Told;

pub(super) struct SharedState {
    pub(super) state: AtomicU8,
    pub(super) partitions: AtomicU32,
    /// The bits of a [`PartitionSet`](crate::partition_set::PartitionSet).
    pub(super) leaderless: AtomicU64,
    /// Whether an acknowledgement came since the last look.
    pub(super) acknowledged: AtomicBool,
    /// How many came since the start.
    pub(super) acknowledgements: AtomicU64,
    /// By partition, the offset behind the last record of ours that was acknowledged.
    pub(super) ends: Mutex<HashMap<i32, i64>>,
    pub(super) stop: AtomicBool,
    /// Producers that were replaced, by why.
    pub(super) replaced_fatal: AtomicU64,
    pub(super) replaced_lost: AtomicU64,
    /// Something was seen that the next look should not wait for.
    look: Mutex<bool>,
    looked: Condvar,
    /// What librdkafka said last of a connection that failed, since Kafka was last up.
    trouble: Mutex<Option<Trouble>>,
    told: Told,
    /// Fatal errors told since the producer last worked.
    told_fatal: Told,
}

#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    /// Names the broker and the cause, and holds no secret.
    pub(super) reason: String,
}

impl Trouble {
    /// Of an error of a connection; `None` for any other.
    fn of(code: RDKafkaErrorCode, reason: &str) -> Option<Self> {
        let code = match code {
            // A refused certificate comes as either, by where the handshake is found to be broken.
            RDKafkaErrorCode::BrokerTransportFailure if reason.contains("SSL routines") => {
                RDKafkaErrorCode::SSL
            }
            RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::OperationTimedOut => code,
            _ => return None,
        };
        Some(Self { code, reason: reason.to_owned() })
    }
}

impl SharedState {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(BrokerState::Connecting as u8),
            partitions: AtomicU32::new(0),
            leaderless: AtomicU64::new(0),
            acknowledged: AtomicBool::new(false),
            acknowledgements: AtomicU64::new(0),
            ends: Mutex::default(),
            stop: AtomicBool::new(false),
            replaced_fatal: AtomicU64::new(0),
            replaced_lost: AtomicU64::new(0),
            look: Mutex::new(false),
            looked: Condvar::new(),
            trouble: Mutex::new(None),
            told: Told::default(),
            told_fatal: Told::default(),
        })
    }

    pub(super) fn acknowledge(&self, position: Position) {
        self.acknowledged.store(true, Ordering::Relaxed);
        self.acknowledgements.fetch_add(1, Ordering::Relaxed);
        let mut ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
        let end = ends.entry(position.partition).or_default();
        *end = (*end).max(position.offset + 1);
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// A connection failed, or could not be made. With other brokers up that is nobody's trouble;
    /// while Kafka is away, each kind of cause is told once.
    fn failed(&self, trouble: Trouble) {
        self.set_trouble(Some(trouble));
        if self.state.load(Ordering::Relaxed) == BrokerState::Down as u8 {
            self.tell_down();
        }
    }

    fn tell_down(&self) {
        let trouble = self.trouble();
        let kind = trouble.as_ref().map_or(String::new(), |trouble| format!("{:?}", trouble.code));
        if self.told.is_news(&kind) {
            let cause = trouble.map(|trouble| trouble.reason);
            tracing::warn!(cause, "kafka is away: new leads are answered with 503");
        }
    }

    /// Has the watcher look at once, not when it is time.
    fn look_now(&self) {
        *self.look.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.looked.notify_one();
    }

    /// Waits for `at_most` between two looks, or until there is something to be seen.
    pub(super) fn pause(&self, at_most: Duration) {
        let look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.looked.wait_timeout_while(look, at_most, |look| !*look);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }

    /// Tells each kind of fatal error once, until a producer works again.
    pub(super) fn tell_fatal(&self, code: RDKafkaErrorCode, reason: &str) {
        if self.told_fatal.is_news(&format!("{code:?}")) {
            tracing::error!(
                cause = reason,
                "the kafka producer has failed for good and is made anew: new leads are answered with 503 meanwhile"
            );
        }
    }

    pub(super) fn producer_is_well(&self) {
        self.told_fatal.over();
    }

    pub(super) fn set(&self, state: BrokerState) {
        let before = self.state.swap(state as u8, Ordering::Relaxed);
        if state == BrokerState::Up {
            self.set_trouble(None);
            self.told.over();
        }
        if before != state as u8 {
            match state {
                BrokerState::Up => tracing::info!("kafka is up"),
                // Told where it is seen.
                BrokerState::Connecting | BrokerState::Replacing => {}
                BrokerState::Down => self.tell_down(),
                BrokerState::TopicMissing => {
                    tracing::error!("the events topic does not exist: run `leads-consumer topics`");
                }
            }
        }
    }
}

pub(super) struct Context {
    pub(super) state: Arc<SharedState>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        if code == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.state.set(BrokerState::Down);
            self.state.look_now();
        } else if code == Some(RDKafkaErrorCode::Fatal) {
            self.state.set(BrokerState::Replacing);
            self.state.look_now();
        } else if let Some(trouble) = code.and_then(|code| Trouble::of(code, reason)) {
            self.state.failed(trouble);
        } else {
            tracing::debug!(target: "librdkafka", %error, reason);
        }
    }
}

pub(super) fn log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    // A property from the environment goes to all clients; those that it isn't for say so.
    let for_others = facility == "CONFWARN" && message.contains("will be ignored by this");
    // Connection trouble is told once, by the state; librdkafka repeats it for each try.
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning if facility != "FAIL" && !for_others => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        _ => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}
