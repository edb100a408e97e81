//! The only file here that names rdkafka: filling a topic, and how fast that alone is.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use leads_shared::Timestamp;
use leads_shared::headers::Headers;
use leads_shared::topic::DEFAULT_PARTITIONS;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, DefaultClientContext};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::metadata::MetadataTopic;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::load::rate;
use crate::{cpu, sample};

const FLUSH: Duration = Duration::from_mins(1);
const READ: Duration = Duration::from_secs(30);

/// librdkafka alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProduceRun {
    pub(crate) records: u64,
    /// Mean size of a value, in bytes.
    pub(crate) bytes_a_record: u64,
    pub(crate) seconds: f64,
    pub(crate) per_second: f64,
    /// CPU time of the producing process, making the records not included, in µs.
    pub(crate) cpu_micros: u64,
}

/// What the broker acknowledged.
#[derive(Default)]
struct Deliveries {
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The version of the client library.
pub(crate) fn librdkafka_version() -> String {
    rdkafka::util::get_rdkafka_version().1
}

/// As the API publishes.
fn producer(brokers: &str) -> Result<BaseProducer<Deliveries>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("client.id", "leads-bench")
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "1");
    config.create_with_context(Deliveries::default()).context("a producer")
}

fn headers(texts: &Headers) -> OwnedHeaders {
    texts.iter().fold(OwnedHeaders::new_with_capacity(8), |all, (key, value)| {
        all.insert(Header { key, value: Some(value) })
    })
}

/// Sends a record, waiting while the queue is full.
fn send(producer: &BaseProducer<Deliveries>, mut record: BaseRecord<'_, str, [u8]>) -> Result<()> {
    loop {
        match producer.send(record) {
            Ok(()) => break,
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                producer.poll(Duration::from_millis(5));
            }
            Err((error, _)) => bail!("produce: {error}"),
        }
    }
    producer.poll(Duration::ZERO);
    Ok(())
}

fn finish(producer: &BaseProducer<Deliveries>, records: u64) -> Result<()> {
    producer.flush(FLUSH).context("flush")?;
    let Deliveries { acknowledged, failed } = producer.context().as_ref();
    let (acknowledged, failed) =
        (acknowledged.load(Ordering::Relaxed), failed.load(Ordering::Relaxed));
    ensure!(
        acknowledged == records && failed == 0,
        "of {records} records {acknowledged} were acknowledged, {failed} failed"
    );
    Ok(())
}

/// Writes `records` creations of leads, all different, to a topic that is there.
pub(crate) async fn fill(brokers: &str, topic: &str, workspace: Uuid, records: u64) -> Result<u64> {
    let (brokers, topic) = (brokers.to_owned(), topic.to_owned());
    let filling = tokio::task::spawn_blocking(move || {
        let producer = producer(&brokers)?;
        let mut bytes = 0;
        let start = Timestamp::parse("2026-01-01T00:00:00Z")?.unix_millis();
        for number in 0..records {
            // A thousand leads a second.
            let millis = start + i64::try_from(number)?;
            sample::with_event(number, workspace, millis, |event| {
                let value = event.encode()?.value;
                bytes += value.len() as u64;
                let key = event.lead_id.to_string();
                let record = BaseRecord::to(&topic)
                    .key(key.as_str())
                    .payload(value.as_slice())
                    .headers(headers(&Headers::of(event, None)));
                send(&producer, record)
            })??;
        }
        finish(&producer, records)?;
        Ok(bytes / records.max(1))
    });
    filling.await.context("filling the topic")?
}

/// How fast librdkafka alone is: records made beforehand, to a new topic of 12 partitions.
pub(crate) async fn produce_alone(brokers: &str, records: u64) -> Result<ProduceRun> {
    const DIFFERENT: u64 = 4096;
    let topic = format!("bench.produce.{}", Uuid::now_v7());
    create_topic(brokers, &topic).await?;
    let (servers, topic_name) = (brokers.to_owned(), topic.clone());
    let producing = tokio::task::spawn_blocking(move || {
        let made: Vec<(String, Vec<u8>, Headers)> = (0..DIFFERENT)
            .map(|number| {
                sample::with_event(number, Uuid::nil(), 1_767_225_600_000, |event| {
                    let value = event.encode()?.value;
                    anyhow::Ok((event.lead_id.to_string(), value, Headers::of(event, None)))
                })?
            })
            .collect::<Result<_>>()?;
        let bytes: usize = made.iter().map(|(_, value, _)| value.len()).sum();
        let producer = producer(&servers)?;
        let (start, cpu) = (Instant::now(), cpu::own_micros());
        for number in 0..records {
            let (key, value, texts) = &made[usize::try_from(number % DIFFERENT)?];
            let record = BaseRecord::to(&topic_name)
                .key(key.as_str())
                .payload(value.as_slice())
                .headers(headers(texts));
            send(&producer, record)?;
        }
        finish(&producer, records)?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(ProduceRun {
            records,
            bytes_a_record: bytes as u64 / DIFFERENT,
            seconds,
            per_second: rate(records, seconds),
            cpu_micros: cpu::own_micros() - cpu,
        })
    });
    let run = producing.await.context("producing")?;
    delete_topics(brokers, &[&topic]).await;
    run
}

/// The ends of a topic's partitions.
fn ends_of<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Vec<(i32, i64)>> {
    const CALL: Duration = Duration::from_secs(10);
    let metadata = client.fetch_metadata(Some(topic), CALL).context("metadata")?;
    let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
    let end = |partition: i32| {
        let marks = client.fetch_watermarks(topic, partition, CALL);
        Ok((partition, marks.context("watermarks")?.1))
    };
    partitions.map(|partition| end(partition.id())).collect()
}

/// How many records a topic ever got.
pub(crate) fn records_in(brokers: &str, topic: &str) -> Result<u64> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let producer: BaseProducer = config.create().context("a client")?;
    let ends = ends_of(producer.client(), topic)?;
    Ok(ends.into_iter().map(|(_, end)| u64::try_from(end)).sum::<Result<u64, _>>()?)
}

/// The keys of all that a topic holds now, which are the ids of leads.
pub(crate) async fn keys_of(brokers: &str, topic: &str) -> Result<HashSet<Uuid>> {
    let mut config = ClientConfig::new();
    // The group is never joined.
    config.set("bootstrap.servers", brokers).set("group.id", "leads-bench");
    config.set("enable.auto.commit", "false").set("enable.partition.eof", "false");
    let topic = topic.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().context("a consumer")?;
        let ends = ends_of(consumer.client(), &topic)?;
        let mut parts = TopicPartitionList::new();
        for (partition, _) in &ends {
            parts.add_partition_offset(&topic, *partition, Offset::Beginning)?;
        }
        consumer.assign(&parts).context("assign")?;
        let mut left: HashMap<i32, i64> = ends.into_iter().filter(|(_, end)| *end > 0).collect();
        let mut keys = HashSet::new();
        while !left.is_empty() {
            let message = consumer.poll(READ).context("no record comes, and there are more")??;
            let key = message.key().context("a record without a key")?;
            keys.insert(Uuid::try_parse_ascii(key).context("a key that is no id")?);
            if left.get(&message.partition()).is_some_and(|end| message.offset() + 1 >= *end) {
                left.remove(&message.partition());
            }
        }
        Ok(keys)
    });
    reading.await.context("reading the log")?
}

/// Deletes topics, best effort.
pub(crate) async fn delete_topics(brokers: &str, topics: &[&str]) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    if let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() {
        let _ = admin.delete_topics(topics, &AdminOptions::new()).await;
    }
}

async fn create_topic(brokers: &str, topic: &str) -> Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().context("an admin client")?;
    let partitions = i32::try_from(DEFAULT_PARTITIONS)?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1));
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.create_topics([&new], &options).await.context("create the topic")? {
        result.map_err(|(topic, code)| anyhow::anyhow!("create topic {topic}: {code}"))?;
    }
    Ok(())
}
