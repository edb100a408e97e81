//! Watches over the producer: keeps the state of the brokers true, and replaces a producer that is
//! beyond recovery.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::metadata::MetadataPartition;
use rdkafka::producer::{BaseProducer, Producer};

use super::state::Context;
use super::{Broker, BrokerState, make_producer, spawn};
use crate::partition_set::PartitionSet;

/// After this long without a broker, a client is made anew.
pub(super) const GIVE_UP_CLIENT: Duration = Duration::from_secs(10);

/// A producer that fails for good as soon as it is made is not made anew more often than this.
const REPLACE_PAUSE: Duration = Duration::from_secs(1);

impl Broker {
    /// Keeps the state true: connections that fail are seen at once by the error callback, those
    /// that hang and those that come back by asking.
    ///
    /// A client that stays away is made anew. librdkafka forgets its brokers when a broker that is
    /// just coming back names none, and does not ask the bootstrap servers again:
    /// <https://github.com/confluentinc/librdkafka/issues/5301>. One with a fatal error is, too: an
    /// idempotent producer that no longer knows what the broker has takes no record any more.
    /// Source: <https://github.com/confluentinc/librdkafka/blob/master/INTRODUCTION.md#idempotent-producer>.
    pub(super) fn watch(&self, topic: &str) {
        let mut reached = Instant::now();
        let mut made: Option<Instant> = None;
        while !self.state.stop.load(Ordering::Relaxed) {
            let producer = self.producer();
            if self.state.acknowledged.swap(false, Ordering::Relaxed) {
                self.state.producer_is_well();
                reached = Instant::now();
            }
            let fatal = producer.client().fatal_error();
            let state = match &fatal {
                Some((code, reason)) => {
                    self.state.tell_fatal(*code, reason);
                    BrokerState::Replacing
                }
                None => self.ask(&producer, topic),
            };
            self.state.set(state);
            if found_any(state) {
                reached = Instant::now();
            }
            let due = match fatal {
                Some(_) => made.is_none_or(|made| made.elapsed() > REPLACE_PAUSE),
                None => reached.elapsed() > GIVE_UP_CLIENT,
            };
            // What was handed over is answered for: the new client can't overtake the old one.
            if due && producer.in_flight_count() == 0 {
                let count = if fatal.is_some() {
                    &self.state.replaced_fatal
                } else {
                    &self.state.replaced_lost
                };
                count.fetch_add(1, Ordering::Relaxed);
                tracing::info!("a new client looks for kafka");
                drop(producer);
                self.replace_producer();
                (made, reached) = (Some(Instant::now()), Instant::now());
                continue;
            }
            self.state.pause(match state {
                BrokerState::Up => Duration::from_secs(1),
                BrokerState::Replacing => Duration::from_millis(20),
                BrokerState::Connecting | BrokerState::Down | BrokerState::TopicMissing => {
                    Duration::from_millis(200)
                }
            });
        }
    }

    /// What the brokers say of the topic.
    fn ask(&self, producer: &BaseProducer<Context>, topic: &str) -> BrokerState {
        let found = producer.client().fetch_metadata(Some(topic), Duration::from_secs(2));
        match found {
            // Under load the question may wait behind the leads; their answers say enough.
            Err(_) if self.state.acknowledged.load(Ordering::Relaxed) => self.state(),
            Err(_) if self.state() == BrokerState::Connecting => BrokerState::Connecting,
            Err(_) => BrokerState::Down,
            Ok(metadata) => {
                let partitions = metadata.topics().first().map_or(&[][..], |t| t.partitions());
                let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
                self.state.partitions.store(count, Ordering::Relaxed);
                let leaderless = partitions.iter().filter(|partition| partition.leader() < 0);
                let leaderless: PartitionSet = leaderless.map(MetadataPartition::id).collect();
                self.state.leaderless.store(leaderless.bits(), Ordering::Relaxed);
                if count > 0 { BrokerState::Up } else { BrokerState::TopicMissing }
            }
        }
    }

    fn replace_producer(&self) {
        let producer = match make_producer(&self.config, &self.state) {
            Ok(producer) => Arc::new(producer),
            Err(error) => {
                return tracing::error!(%error, "a new Kafka client could not be made");
            }
        };
        let mut current = self.producer.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, producer);
        drop(current);
        // To close a client takes time: none of a request's, and none of its successor's.
        spawn("kafka-retired", move || {
            while Arc::strong_count(&old) > 1 {
                old.poll(Duration::from_millis(10));
            }
        });
    }
}

/// Whether a broker has answered.
fn found_any(state: BrokerState) -> bool {
    match state {
        BrokerState::Up | BrokerState::TopicMissing | BrokerState::Replacing => true,
        BrokerState::Connecting | BrokerState::Down => false,
    }
}
