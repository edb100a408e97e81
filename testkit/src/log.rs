//! The log itself: writing to it past the API, reading all of it, and taking it away.

use std::time::{Duration, Instant};

use leads_shared::Event;
use leads_shared::headers::Headers;
use leads_shared::kafka_settings;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, Headers as _, Message, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::{Offset, TopicPartitionList};

use crate::stack::Servers;
use crate::{DEADLINE, System, eventually};

const CALL: Duration = Duration::from_secs(10);
const GIVE_UP: Duration = Duration::from_secs(5);

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// A record as it stands in a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it is.
    pub position: Position,
    /// The key.
    pub key: Option<Vec<u8>>,
    /// The value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// The headers in their order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

impl Record {
    /// The text of a header; the last one of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().rev().find(|(found, _)| found == name)?;
        std::str::from_utf8(value.as_deref()?).ok()
    }

    /// The event in it.
    ///
    /// # Panics
    /// When it is none, or its key doesn't fit.
    pub fn event(&self) -> Event<'_> {
        Event::decode_record(self.key.as_deref(), self.value.as_deref())
            .unwrap_or_else(|error| panic!("{:?}: {error}", self.position))
    }
}

/// Clients of one broker.
pub(crate) struct Log {
    servers: Servers,
    producer: FutureProducer,
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").field("brokers", &self.servers.kafka_brokers).finish_non_exhaustive()
    }
}

fn settings(servers: &Servers) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &servers.kafka_brokers).set("client.id", "leads-testkit");
    // A test that stops the broker would fill its output with librdkafka's complaints.
    config.set("log_level", "0").set("log.connection.close", "false");
    // As the API publishes.
    config.set("partitioner", "murmur2_random").set("enable.idempotence", "true");
    config.set("linger.ms", "0").set("message.max.bytes", "4000000");
    let security = kafka_settings::from_environment(servers.security.iter().cloned());
    for (property, value) in security.expect("settings that the services take too") {
        config.set(property, value);
    }
    config
}

impl Log {
    pub(crate) fn new(servers: &Servers) -> Self {
        let producer = settings(servers).create().expect("a producer can be made");
        Self { servers: servers.clone(), producer }
    }

    pub(crate) async fn send(&self, record: FutureRecord<'_, [u8], [u8]>) -> Position {
        let delivery = self.producer.send(record, DEADLINE).await;
        let delivery = delivery.unwrap_or_else(|(error, _)| panic!("produce: {error}"));
        Position { partition: delivery.partition, offset: delivery.offset }
    }

    /// How many partitions the topic has by the broker's word; 0: there is no such topic.
    pub(crate) fn partitions(&self, topic: &str) -> usize {
        let metadata = self.producer.client().fetch_metadata(Some(topic), CALL);
        let metadata = metadata.unwrap_or_else(|error| panic!("metadata of {topic}: {error}"));
        metadata.topics().first().map_or(0, |topic| topic.partitions().len())
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        settings(&self.servers).create().expect("an admin client can be made")
    }
}

/// Reads all of a topic up to its present end, in the order of each partition.
pub(crate) fn read_all(servers: &Servers, topic: &str, partitions: usize) -> Vec<Record> {
    let mut config = settings(servers);
    config.set("group.id", "leads-testkit").set("enable.partition.eof", "true");
    config.set("enable.auto.commit", "false").set("fetch.wait.max.ms", "10");
    let consumer: BaseConsumer = config.create().expect("a consumer can be made");
    let mut from = TopicPartitionList::new();
    for partition in 0..partitions {
        let partition = i32::try_from(partition).expect("few partitions");
        from.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&from).expect("partitions can be assigned");

    let mut records = Vec::new();
    let mut at_end = std::collections::HashSet::new();
    let end = Instant::now() + DEADLINE;
    while at_end.len() < partitions {
        assert!(Instant::now() < end, "{topic} can't be read to its end within {DEADLINE:?}");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                at_end.remove(&message.partition());
                records.push(owned(&message));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
            }
            // Connections come back by themselves; the deadline is above.
            Some(Err(_)) | None => {}
        }
    }
    records.sort_by_key(|record| record.position);
    records
}

fn owned(message: &impl Message) -> Record {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|h| (h.key.to_owned(), h.value.map(<[u8]>::to_vec))).collect()
    });
    Record {
        position: Position { partition: message.partition(), offset: message.offset() },
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    }
}

/// A producer of one's own, which gives up: for a test in which the broker comes and goes.
pub struct Producer {
    producer: FutureProducer,
    topic: String,
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Producer {
    /// Writes a record to its topic and waits for the acknowledgement.
    ///
    /// # Errors
    /// There was none within five seconds; the record may be in the log all the same. After that a
    /// new producer is best: librdkafka can lose its brokers for good.
    pub async fn send(&self, key: &[u8], value: &[u8]) -> Result<Position, String> {
        let record = FutureRecord::to(&self.topic).key(key).payload(value);
        match self.producer.send(record, GIVE_UP).await {
            Ok(delivery) => Ok(Position { partition: delivery.partition, offset: delivery.offset }),
            Err((error, _)) => Err(error.to_string()),
        }
    }
}

impl System {
    /// A producer to the events topic that gives up.
    pub fn producer(&self) -> Producer {
        self.producer_to(self.events_topic())
    }

    /// The same to any topic.
    pub fn producer_to(&self, topic: &str) -> Producer {
        let mut config = settings(self.servers());
        config.set("message.timeout.ms", GIVE_UP.as_millis().to_string());
        let producer = config.create().expect("a producer can be made");
        Producer { producer, topic: topic.to_owned() }
    }

    /// Sets the offsets that Kafka keeps for the consumer group back to 0. The group must have no
    /// members.
    ///
    /// # Panics
    /// When it has some, or the broker doesn't answer.
    pub async fn reset_group_offsets(&self) {
        let topic = self.events_topic().to_owned();
        let mut start = TopicPartitionList::new();
        for partition in 0..self.log.partitions(&topic) {
            let partition = i32::try_from(partition).expect("a partition");
            start.add_partition_offset(&topic, partition, Offset::Offset(0)).expect("a place");
        }
        let mut config = settings(self.servers());
        config.set("group.id", self.group());
        let consumer: BaseConsumer = config.create().expect("a consumer can be made");
        let consumer = std::sync::Arc::new(consumer);
        eventually(DEADLINE, "the group's offsets are 0", async || {
            let (consumer, start) = (std::sync::Arc::clone(&consumer), start.clone());
            let commit =
                tokio::task::spawn_blocking(move || consumer.commit(&start, CommitMode::Sync));
            commit.await.expect("committing")
        })
        .await;
    }

    /// Writes a record to the events topic and waits for the acknowledgement; its partition is
    /// that of its key (any, without one).
    pub async fn produce(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Position {
        self.produce_to(None, key, value, headers).await
    }

    /// The same to a given partition, whatever the key.
    pub async fn produce_to(
        &self,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) -> Position {
        let topic = self.events_topic();
        let owned = headers.iter().fold(OwnedHeaders::new(), |all, (key, value)| {
            all.insert(Header { key, value: *value })
        });
        let mut record = FutureRecord::to(topic).headers(owned);
        record.key = key;
        record.payload = value;
        record.partition = partition;
        self.log.send(record).await
    }

    /// Writes an event as the API would: key, value, headers.
    pub async fn produce_event(&self, event: &Event<'_>) -> Position {
        let value = event.encode().expect("an event can be written").value;
        let headers = Headers::of(event, None);
        let headers: Vec<_> =
            headers.iter().map(|(name, text)| (name, Some(text.as_bytes()))).collect();
        self.produce(Some(event.lead_id.to_string().as_bytes()), Some(&value), &headers).await
    }

    /// Every record of the events topic, from the start to its present end, by partition and offset.
    pub async fn records(&self) -> Vec<Record> {
        self.records_of(self.events_topic()).await
    }

    /// Every record of the dead letter topic.
    pub async fn dead_letter_records(&self) -> Vec<Record> {
        self.records_of(&self.dead_letter_topic()).await
    }

    /// Every record of any topic; none when there is no such topic.
    ///
    /// # Panics
    /// When the broker doesn't answer.
    pub async fn records_of(&self, topic: &str) -> Vec<Record> {
        let (servers, topic) = (self.servers().clone(), topic.to_owned());
        let partitions = self.log.partitions(&topic);
        let reading = tokio::task::spawn_blocking(move || read_all(&servers, &topic, partitions));
        reading.await.expect("reading the topic")
    }

    /// Of each partition of the events topic the broker that leads it, −1 while none does, and how many
    /// replicas are in sync.
    ///
    /// # Panics
    /// When no broker answers.
    pub async fn leaders(&self) -> Vec<(i32, usize)> {
        let (client, topic) = (self.log.producer.clone(), self.events_topic().to_owned());
        let asking = tokio::task::spawn_blocking(move || {
            let metadata = client.client().fetch_metadata(Some(&topic), CALL).expect("metadata");
            let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
            let mut found: Vec<_> =
                partitions.map(|it| (it.id(), it.leader(), it.isr().len())).collect();
            found.sort_unstable();
            found.into_iter().map(|(_, leader, in_sync)| (leader, in_sync)).collect()
        });
        asking.await.expect("asking for the leaders")
    }

    /// Gives a topic these settings, and all others the broker's defaults.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn alter_topic(&self, topic: &str, settings: &[(&str, &str)]) {
        let mut wanted = AlterConfig::new(ResourceSpecifier::Topic(topic));
        for (name, value) in settings {
            wanted = wanted.set(name, value);
        }
        let results = self.log.admin().alter_configs(&[wanted], &AdminOptions::new()).await;
        for result in results.unwrap_or_else(|error| panic!("alter {topic}: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("alter {topic}: {code}"));
        }
    }

    /// Deletes a topic, and waits until the broker has forgotten it.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn delete_topic(&self, topic: &str) {
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let results = self.log.admin().delete_topics(&[topic], &options).await;
        for result in results.unwrap_or_else(|error| panic!("delete {topic}: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("delete {topic}: {code}"));
        }
        eventually(DEADLINE, "the topic is gone", async || self.log.partitions(topic) == 0).await;
    }

    /// Deletes the records of each partition of the events topic before `offset`, as retention does.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn truncate_events_topic(&self, offset: i64) {
        let topic = self.events_topic();
        let mut before = TopicPartitionList::new();
        for partition in 0..self.log.partitions(topic) {
            let partition = i32::try_from(partition).expect("a partition");
            before.add_partition_offset(topic, partition, Offset::Offset(offset)).expect("a place");
        }
        let truncated = self.log.admin().delete_records(&before, &AdminOptions::new()).await;
        truncated.unwrap_or_else(|error| panic!("truncate {topic}: {error}"));
    }

    /// Gives the events topic more partitions, as nobody should: keys move between them.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn grow_events_topic(&self, partitions: usize) {
        let topic = self.events_topic();
        let options = AdminOptions::new().operation_timeout(Some(CALL));
        let wanted = [NewPartitions::new(topic, partitions)];
        let grown = self.log.admin().create_partitions(&wanted, &options).await;
        for result in grown.unwrap_or_else(|error| panic!("grow {topic}: {error}")) {
            result.unwrap_or_else(|(_, code)| panic!("grow {topic}: {code}"));
        }
        eventually(DEADLINE, "it has them", async || self.log.partitions(topic) == partitions)
            .await;
    }

    /// Writes a record to the events topic in a transaction. The marker at its end takes an offset of its
    /// own, and is there when this returns.
    ///
    /// # Panics
    /// When the broker refuses.
    pub async fn produce_in_transaction(&self, key: &[u8], value: &[u8]) {
        let mut config = settings(self.servers());
        let producer: FutureProducer = config
            .set("transactional.id", self.events_topic())
            .create()
            .expect("a producer can be made");
        let starting = producer.clone();
        let started = tokio::task::spawn_blocking(move || {
            starting.init_transactions(DEADLINE).and_then(|()| starting.begin_transaction())
        });
        started.await.expect("a thread").unwrap_or_else(|error| panic!("a transaction: {error}"));
        let record = FutureRecord::to(self.events_topic()).key(key).payload(value);
        let sent = producer.send(record, CALL).await;
        let sent = sent.unwrap_or_else(|(error, _)| panic!("produce: {error}"));
        let committing = producer.clone();
        let committed =
            tokio::task::spawn_blocking(move || committing.commit_transaction(DEADLINE)).await;
        committed.expect("a thread").unwrap_or_else(|error| panic!("its commit: {error}"));
        // The broker answers first, and writes the marker then.
        eventually(DEADLINE, "the marker is in the log", async || {
            let client = producer.client();
            let ends = client.fetch_watermarks(self.events_topic(), sent.partition, CALL);
            ends.is_ok_and(|(_, end)| end == sent.offset + 2)
        })
        .await;
    }

    /// Deletes the events topic and has `leads-consumer topics` make it again, empty.
    pub async fn recreate_events_topic(&self) {
        self.delete_topic(self.events_topic()).await;
        let output = self.consumer_command(&["topics"]).await;
        assert!(output.status.success(), "topics: {output:?}");
    }
}
