//! Looking at the log besides the projection: how far it reaches, and which leads a part of it is
//! about.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use uuid::Uuid;

use super::client::{Kafka, Logged};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// Without a record for so long, the broker is taken to be away.
const SILENCE: Duration = Duration::from_secs(30);

/// The records a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The offset of the first one.
    pub start: i64,
    /// The offset behind the last one.
    pub end: i64,
}

/// Offsets of one partition, from the first up to, not including, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset behind the last.
    pub to: i64,
}

/// A client that belongs to no group.
pub struct Log {
    client: Arc<BaseConsumer<Logged>>,
    topic: String,
}

impl Log {
    /// Makes the client; connects when first asked.
    ///
    /// # Errors
    /// The settings are wrong, in librdkafka's words.
    pub fn new(kafka: &Kafka, topic: &str) -> Result<Self, String> {
        let fixed = [
            ("group.id", "leads-rebuild"),
            ("enable.auto.commit", "false"),
            ("auto.offset.reset", "error"),
            ("allow.auto.create.topics", "false"),
        ];
        let client = kafka
            .config(&[], &fixed)
            .create_with_context(Logged::default())
            .map_err(|error| error.to_string())?;
        Ok(Self { client: Arc::new(client), topic: topic.to_owned() })
    }

    /// What each of the topic's `partitions` holds, in their order.
    ///
    /// # Errors
    /// Kafka did not answer.
    pub async fn extents(&self, partitions: u32) -> Result<Vec<Extent>, String> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        blocking(move || {
            let count = i32::try_from(partitions).unwrap_or(i32::MAX);
            (0..count)
                .map(|partition| {
                    let found = client.fetch_watermarks(&topic, partition, REQUEST_TIMEOUT);
                    let (start, end) = found.map_err(|error| error.to_string())?;
                    Ok(Extent { start, end })
                })
                .collect()
        })
        .await
    }

    /// The leads that the records in `ranges` are about, by the records' keys.
    ///
    /// # Errors
    /// Kafka did not answer, or does not hold the records.
    pub async fn leads_in(&self, ranges: Vec<Range>) -> Result<HashSet<Uuid>, String> {
        let (client, topic) = (Arc::clone(&self.client), self.topic.clone());
        blocking(move || {
            let mut leads = HashSet::new();
            for range in ranges {
                read(&client, &topic, range, &mut leads)?;
            }
            Ok(leads)
        })
        .await
    }
}

fn read(
    client: &BaseConsumer<Logged>,
    topic: &str,
    range: Range,
    leads: &mut HashSet<Uuid>,
) -> Result<(), String> {
    let Range { partition, from, to } = range;
    if from >= to {
        return Ok(());
    }
    let mut start = TopicPartitionList::new();
    start
        .add_partition_offset(topic, partition, Offset::Offset(from))
        .and_then(|()| client.assign(&start))
        .map_err(|error| error.to_string())?;
    let mut heard = Instant::now();
    loop {
        match client.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => {
                heard = Instant::now();
                if message.offset() < to {
                    let key = message.key().and_then(|key| std::str::from_utf8(key).ok());
                    leads.extend(key.and_then(|key| Uuid::try_parse(key).ok()));
                }
                if message.offset() + 1 >= to {
                    break;
                }
            }
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_passing) => {}
            Some(Err(error)) => return Err(error.to_string()),
            None => {}
        }
        if heard.elapsed() > SILENCE {
            return Err(format!("partition {partition} could not be read up to offset {to}"));
        }
    }
    client.unassign().map_err(|error| error.to_string())
}

fn is_passing(code: rdkafka::types::RDKafkaErrorCode) -> bool {
    use rdkafka::types::RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
    )
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
