//! Looking at the log without taking part: what the brokers tell `status` and `doctor`.
//!
//! Everything here blocks, and ends when its time is over.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use leads_shared::event::event_id_of;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use uuid::Uuid;

use super::client::{Kafka, connection_trouble, in_short, log_line};
use super::group::Group;

/// How long a first answer is waited for before the cause is asked for.
const TRY: Duration = Duration::from_millis(1500);
/// How long a client is asked for what it has to tell; it is there already.
const TOLD: Duration = Duration::from_millis(10);

/// What is in the way of an answer from the brokers, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// User or password are refused.
    Credentials,
    /// TLS fails: a certificate is not trusted, or the other side speaks no TLS.
    Tls,
    /// A host name is not known.
    Name,
    /// No connection, or it is cut.
    Connection,
    /// No answer.
    Silence,
}

/// The brokers can't be asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct Away {
    /// What is in the way.
    pub obstacle: Obstacle,
    /// In librdkafka's words, which name the broker and hold no secret.
    pub cause: String,
}

/// A topic's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// How many partitions it has.
    pub partitions: u32,
    /// Partitions without a leader.
    pub leaderless: Vec<i32>,
    /// The fewest replicas that a partition has.
    pub replicas: usize,
    /// The fewest replicas in sync that a partition has.
    pub in_sync: usize,
}

/// Where a partition starts and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The offset of its first record.
    pub start: i64,
    /// The offset after its last record.
    pub end: i64,
}

/// What identifies a record, and when it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Glimpse {
    /// Milliseconds since 1970.
    pub time_millis: Option<i64>,
    /// The event in it.
    pub event_id: Option<Uuid>,
}

/// The records on both sides of an offset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Around {
    /// The record right before it.
    pub before: Option<Glimpse>,
    /// The first record from it on.
    pub next: Option<Glimpse>,
    /// Whether all that was wanted was read in time.
    pub complete: bool,
    /// Whether the offset lies outside of the log, and nothing was wanted.
    pub outside: bool,
}

/// Remembers what librdkafka says of its connections.
#[derive(Debug, Default)]
struct Witness(Mutex<BTreeMap<Obstacle, String>>);

impl Witness {
    fn worst(&self) -> Option<Away> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (obstacle, cause) = heard.first_key_value()?;
        Some(Away { obstacle: *obstacle, cause: cause.clone() })
    }
}

impl ClientContext for Witness {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let obstacle = match connection_trouble(&error, reason) {
            Some(RDKafkaErrorCode::Authentication) => Obstacle::Credentials,
            Some(RDKafkaErrorCode::SSL) => Obstacle::Tls,
            Some(RDKafkaErrorCode::Resolve) => Obstacle::Name,
            Some(RDKafkaErrorCode::OperationTimedOut) => Obstacle::Silence,
            Some(_) => Obstacle::Connection,
            None => return,
        };
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(obstacle).or_insert_with(|| in_short(reason).to_owned());
    }
}

impl ConsumerContext for Witness {}

/// A client that reads and asks, and joins no group.
pub struct Inspector {
    client: BaseConsumer<Witness>,
    topic: String,
    group: String,
}

impl Inspector {
    /// Makes the client; connects when first asked. `group` is asked about, and is not joined.
    ///
    /// # Errors
    /// The settings don't work, in librdkafka's words.
    pub fn new(kafka: &Kafka, topic: &str, group: &str) -> Result<Self, String> {
        let fixed = [
            ("group.id", group),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
            ("enable.partition.eof", "true"),
            // A record or two are wanted of each partition.
            ("queued.min.messages", "1"),
            ("fetch.message.max.bytes", "65536"),
            ("fetch.wait.max.ms", "50"),
        ];
        let client = kafka
            .config(&[], &fixed)
            .create_with_context(Witness::default())
            .map_err(|error| error.to_string())?;
        Ok(Self { client, topic: topic.to_owned(), group: group.to_owned() })
    }

    /// Waits for an answer of any broker. What no waiting mends ends it early.
    ///
    /// # Errors
    /// See [`Away`].
    pub fn contact(&self, wait: Duration) -> Result<(), Away> {
        let end = Instant::now() + wait;
        loop {
            // Served here: nothing else polls this client.
            while self.client.poll(Duration::ZERO).is_some() {}
            let step = TRY.min(end.saturating_duration_since(Instant::now())).max(TOLD);
            let answer = self.client.fetch_metadata(Some(&self.topic), step);
            while self.client.poll(TOLD).is_some() {}
            let Err(error) = answer else { return Ok(()) };
            let away = self.client.context().worst();
            let for_good = away.as_ref().is_some_and(|away| away.obstacle <= Obstacle::Name);
            if for_good || Instant::now() >= end {
                let cause = || format!("no answer ({})", words(&error));
                let silent = || Away { obstacle: Obstacle::Silence, cause: cause() };
                return Err(away.unwrap_or_else(silent));
            }
        }
    }

    /// The shape of a topic; `None` when there is no such topic.
    ///
    /// # Errors
    /// In librdkafka's words.
    pub fn shape(&self, topic: &str, wait: Duration) -> Result<Option<Shape>, String> {
        let metadata = self.client.fetch_metadata(Some(topic), wait).map_err(|e| words(&e))?;
        let found = metadata.topics().iter().find(|it| it.name() == topic);
        let Some(partitions) = found.map(MetadataTopic::partitions) else {
            return Ok(None);
        };
        if partitions.is_empty() {
            return Ok(None);
        }
        let leaderless = partitions.iter().filter(|it| it.leader() < 0).map(MetadataPartition::id);
        Ok(Some(Shape {
            partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
            leaderless: leaderless.collect(),
            replicas: partitions.iter().map(|it| it.replicas().len()).min().unwrap_or(0),
            in_sync: partitions.iter().map(|it| it.isr().len()).min().unwrap_or(0),
        }))
    }

    /// The shape of the events topic; `None` when there is no such topic.
    ///
    /// # Errors
    /// In librdkafka's words.
    pub fn shape_of_events(&self, wait: Duration) -> Result<Option<Shape>, String> {
        self.shape(&self.topic, wait)
    }

    /// Start and end of the first `partitions` partitions of the events topic.
    ///
    /// # Errors
    /// In librdkafka's words.
    pub fn bounds(&self, partitions: u32, wait: Duration) -> Result<BTreeMap<i32, Bounds>, String> {
        let starts = self.ask(partitions, Offset::Beginning, wait).map_err(|e| words(&e))?;
        let ends = self.ask(partitions, Offset::End, wait).map_err(|e| words(&e))?;
        let both = starts.into_iter().filter_map(|(partition, start)| {
            Some((partition, Bounds { start, end: *ends.get(&partition)? }))
        });
        Ok(both.collect())
    }

    /// The brokers take the two ends of a partition for times: one question for all partitions.
    fn ask(
        &self,
        partitions: u32,
        which: Offset,
        wait: Duration,
    ) -> KafkaResult<BTreeMap<i32, i64>> {
        if partitions == 0 {
            return Ok(BTreeMap::new());
        }
        let mut list = TopicPartitionList::new();
        for partition in 0..i32::try_from(partitions).unwrap_or(i32::MAX) {
            list.add_partition_offset(&self.topic, partition, which)?;
        }
        let answer = self.client.offsets_for_times(list, wait)?;
        let mut found = BTreeMap::new();
        for element in answer.elements() {
            element.error()?;
            if let Offset::Offset(offset) = element.offset() {
                found.insert(element.partition(), offset);
            }
        }
        Ok(found)
    }

    /// The group and its members.
    ///
    /// # Errors
    /// In librdkafka's words.
    pub fn group(&self, wait: Duration) -> Result<Group, String> {
        let list = self.client.fetch_group_list(Some(&self.group), wait).map_err(|e| words(&e))?;
        Ok(Group::of(&list, &self.group, &self.topic))
    }

    /// The records around an offset of each partition, as far as they can be read in time. An offset
    /// outside of `bounds` has none.
    pub fn around(
        &self,
        offsets: &BTreeMap<i32, i64>,
        bounds: &BTreeMap<i32, Bounds>,
        wait: Duration,
    ) -> BTreeMap<i32, Around> {
        let mut found = BTreeMap::new();
        let mut from = TopicPartitionList::new();
        for (partition, next) in offsets {
            let Some(bounds) = bounds.get(partition) else { continue };
            let first = (next - 1).max(bounds.start);
            let outside = *next < bounds.start || *next > bounds.end;
            let complete = outside || first == bounds.end;
            let around = Around { complete, outside, ..Around::default() };
            if !around.complete {
                let _ = from.add_partition_offset(&self.topic, *partition, Offset::Offset(first));
            }
            found.insert(*partition, around);
        }
        if from.count() == 0 || self.client.assign(&from).is_err() {
            return found;
        }
        let end = Instant::now() + wait;
        while found.values().any(|it| !it.complete) && Instant::now() < end {
            match self.client.poll(TOLD * 5) {
                Some(Ok(message)) => self.note(&message, offsets, &mut found),
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    found.entry(partition).or_default().complete = true;
                }
                Some(Err(_)) | None => {}
            }
        }
        let _ = self.client.unassign();
        found
    }

    fn note(
        &self,
        message: &BorrowedMessage<'_>,
        offsets: &BTreeMap<i32, i64>,
        found: &mut BTreeMap<i32, Around>,
    ) {
        let partition = message.partition();
        let (Some(next), Some(around)) = (offsets.get(&partition), found.get_mut(&partition))
        else {
            return;
        };
        let glimpse = Glimpse {
            time_millis: message.timestamp().to_millis(),
            event_id: event_id_of(message.payload()),
        };
        if message.offset() + 1 == *next {
            around.before = Some(glimpse);
        } else if message.offset() >= *next && !around.complete {
            around.next = Some(glimpse);
            around.complete = true;
            let mut enough = TopicPartitionList::new();
            enough.add_partition(&self.topic, partition);
            let _ = self.client.pause(&enough);
        }
    }
}

fn words(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}
