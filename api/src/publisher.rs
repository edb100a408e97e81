//! Publishing an event: what may be in flight, what is shed at once, how long is waited.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leads_shared::Event;
use leads_shared::event::Encoded;
use leads_shared::headers::Headers;
use leads_shared::partition;
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::broker::{Broker, BrokerState, Delivered, DeliveryFailure, Position, Record};
use crate::in_flight::{InFlight, Refused, Share};
use crate::metrics::Metrics;
use crate::partition_set::PartitionSet;
use crate::turns::Turns;

/// An event that the broker has.
#[derive(Debug)]
pub struct Published {
    /// Where it stands in the log.
    pub position: Position,
    /// From when the event, or the last one of its batch, was handed to the producer until its
    /// delivery report.
    pub waited: Duration,
    /// The bytes that stand there.
    pub encoded: Encoded,
}

/// Why an event was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// Nothing was sent: the broker can't be reached.
    #[error("the message broker can't be reached")]
    Unavailable,
    /// Nothing was sent: the broker, or the leader of the lead's partition, has stopped answering.
    #[error("the message broker has stopped answering")]
    Stalled,
    /// Nothing was sent: too much is in flight.
    #[error("too many leads are waiting for the message broker")]
    Overloaded,
    /// Nothing was sent: the key has more in flight than its share.
    #[error("too many leads of this key are waiting for the message broker")]
    OverShare,
    /// The event was sent and not acknowledged: it may or may not be in the log.
    #[error("the message broker did not acknowledge in time")]
    Unacknowledged,
    /// The broker refused the record's size.
    #[error("the message broker refuses a record of this size")]
    TooLarge,
    /// The event could not be written.
    #[error("the event could not be encoded")]
    Encoding,
}

/// An event that was handed over and is not answered for yet.
struct Sent {
    answer: oneshot::Receiver<Result<Delivered, DeliveryFailure>>,
    encoded: Encoded,
}

/// Publishes events to one topic.
pub struct Publisher {
    broker: Arc<Broker>,
    topic: String,
    in_flight: Arc<InFlight>,
    timeout: Duration,
    metrics: Arc<Metrics>,
    turns: Turns,
    /// Set when the producer is done for: tells the readiness probe.
    closed: AtomicBool,
}

impl Publisher {
    /// Publishes to `topic`, waits at most `timeout` for each acknowledgement.
    pub fn new(
        broker: Arc<Broker>,
        topic: String,
        in_flight: Arc<InFlight>,
        timeout: Duration,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (count, bytes) = in_flight.bounds();
        metrics.bounds(count, bytes);
        Self {
            broker,
            topic,
            in_flight,
            timeout,
            metrics,
            turns: Turns::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// An id for a new lead, in the partition whose turn it is. Those that are slow or have no
    /// leader are passed over while there are others.
    pub fn new_lead_id(&self) -> Uuid {
        let now = Instant::now();
        self.turns.new_id(now, self.broker.partitions(), self.avoided(now))
    }

    fn avoided(&self, now: Instant) -> PartitionSet {
        self.in_flight.slow(now).union(self.broker.leaderless())
    }

    /// Publishes an event and waits for the acknowledgement of all in-sync replicas. It takes a
    /// place of the key's `share`.
    ///
    /// # Errors
    /// See [`PublishError`]; only [`PublishError::Unacknowledged`] leaves open whether the event is
    /// in the log.
    pub async fn publish(
        &self,
        event: &Event<'_>,
        share: &Arc<Share>,
        traceparent: Option<&str>,
    ) -> Result<Published, PublishError> {
        let started = Instant::now();
        self.refuse_early(started)?;
        let sent = self.send(event, share, traceparent, started)?;
        let handed_over = Instant::now();
        let published = self.acknowledged(sent, handed_over, started + self.timeout).await?;
        self.metrics.published(started.elapsed());
        Ok(published)
    }

    /// Publishes events together, and waits for them together. One result for each.
    ///
    /// # Errors
    /// As [`Publisher::publish`], for each event by itself.
    pub async fn publish_all(
        &self,
        events: &[Event<'_>],
        share: &Arc<Share>,
        traceparent: Option<&str>,
    ) -> Vec<Result<Published, PublishError>> {
        let started = Instant::now();
        if let Err(error) = self.refuse_early(started) {
            return events.iter().map(|_| Err(error.clone())).collect();
        }
        let sent: Vec<_> =
            events.iter().map(|event| self.send(event, share, traceparent, started)).collect();
        let handed_over = Instant::now();
        let deadline = started + self.timeout;
        let mut results = Vec::with_capacity(sent.len());
        for sent in sent {
            // One after the other: the reports come together, and waiting for the first of them
            // finds the others there.
            results.push(match sent {
                Ok(sent) => self.acknowledged(sent, handed_over, deadline).await,
                Err(error) => Err(error),
            });
        }
        if results.iter().any(Result::is_ok) {
            self.metrics.published(started.elapsed());
        }
        results
    }

    fn send(
        &self,
        event: &Event<'_>,
        share: &Arc<Share>,
        traceparent: Option<&str>,
        now: Instant,
    ) -> Result<Sent, PublishError> {
        let mut key = Uuid::encode_buffer();
        let key = event.lead_id.hyphenated().encode_lower(&mut key);
        let partition = partition::of_key(key.as_bytes(), self.broker.partitions());
        if self.in_flight.stalled(now).contains(partition) {
            return Err(PublishError::Stalled);
        }
        let encoded = event.encode().map_err(|_| PublishError::Encoding)?;
        let permit = self.in_flight.enter(share, encoded.value.len(), partition, now)?;
        let headers = Headers::of(event, traceparent);
        let record = Record { topic: &self.topic, key, value: &encoded.value };
        let answer = self.broker.publish(record, headers.iter(), permit).map_err(failed)?;
        Ok(Sent { answer, encoded })
    }

    async fn acknowledged(
        &self,
        sent: Sent,
        handed_over: Instant,
        deadline: Instant,
    ) -> Result<Published, PublishError> {
        // The delivery report comes first: message.timeout.ms is below this wait. The wait bounds
        // what happens when it doesn't.
        let report = tokio::time::timeout_at(deadline.into(), sent.answer).await;
        let Delivered { position, at } = report
            .map_err(|_| PublishError::Unacknowledged)?
            .map_err(|_| PublishError::Unacknowledged)?
            .map_err(failed)?;
        // Of a batch, some reports come before the last event was handed over.
        let waited = at.saturating_duration_since(handed_over);
        Ok(Published { position, waited, encoded: sent.encoded })
    }

    /// Why any lead would be refused now, known without sending it.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub fn refuse_early(&self, now: Instant) -> Result<(), PublishError> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(PublishError::Unavailable);
        }
        match self.broker.state() {
            BrokerState::Up => {}
            BrokerState::Connecting
            | BrokerState::Down
            | BrokerState::TopicMissing
            | BrokerState::Replacing => return Err(PublishError::Unavailable),
        }
        if self.in_flight.all_stalled(now, self.broker.partitions()) {
            return Err(PublishError::Stalled);
        }
        Ok(())
    }

    /// What is handed over and not answered for yet.
    pub fn in_flight(&self) -> &InFlight {
        &self.in_flight
    }

    /// The topic of events.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The state of the broker, for the readiness probe.
    pub fn broker_state(&self) -> BrokerState {
        self.broker.state()
    }

    /// Writes the gauges of what is in flight.
    pub fn report(&self) {
        self.metrics.in_flight(
            self.in_flight.count(),
            self.in_flight.bytes(),
            self.broker.queue_len(),
        );
        self.metrics.partitions_avoided(self.avoided(Instant::now()).len());
        self.metrics.clients_replaced(self.broker.replaced());
    }

    /// Takes no more, and waits until what was handed over is answered for. Blocks.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.broker.close(self.timeout);
    }
}

impl From<Refused> for PublishError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Full => Self::Overloaded,
            Refused::Share => Self::OverShare,
        }
    }
}

fn failed(failure: DeliveryFailure) -> PublishError {
    match failure {
        DeliveryFailure::Unknown(reason) => {
            tracing::debug!(reason, "a publish was not acknowledged");
            PublishError::Unacknowledged
        }
        DeliveryFailure::NotTaken(reason) => {
            tracing::debug!(reason, "a publish was refused");
            PublishError::Unavailable
        }
        DeliveryFailure::TooLarge => PublishError::TooLarge,
        DeliveryFailure::QueueFull => PublishError::Overloaded,
    }
}
