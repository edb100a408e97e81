//! Reading the events topic without a group: from given offsets on, and what it holds.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use leads_shared::headers;
use uuid::Uuid;

use super::config::create;
use super::follow::Quiet;
use super::{ConfigError, KafkaConfig};

/// How the events topic is reached.
#[derive(Debug, Clone)]
pub struct LogSource {
    /// The brokers and their settings.
    pub kafka: KafkaConfig,
    /// The events topic.
    pub topic: String,
}

/// How much is read ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAhead {
    /// Some MiB: for reading much.
    Much,
    /// As little as there is: for reading a record or two.
    Little,
}

/// The brokers gave no answer in time, or no topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log can't be asked")]
pub struct Unreachable;

/// A reader of its own, with its own connections. Blocks: give it a thread.
pub struct LogReader {
    consumer: BaseConsumer<Quiet>,
    topic: String,
}

/// What a reader found.
pub enum Read<'a> {
    /// The next record of its partition.
    Record(LogRecord<'a>),
    /// This partition has no more for now.
    End(i32),
    /// Nothing came in time.
    Nothing,
    /// The log does not hold the offset that was to be read: it was cut or made anew.
    Gone,
    /// The brokers are away or refuse, for now.
    Trouble,
}

impl LogReader {
    /// Makes a reader; needs no broker to be there.
    ///
    /// # Errors
    /// When a setting is refused by librdkafka.
    pub fn open(source: &LogSource, ahead: ReadAhead) -> Result<Self, ConfigError> {
        let mut config = source.kafka.reader();
        config.set("auto.offset.reset", "error").set("fetch.error.backoff.ms", "100");
        let sizes = match ahead {
            ReadAhead::Much => [
                ("queued.max.messages.kbytes", "8192"),
                ("queued.min.messages", "20000"),
                ("fetch.message.max.bytes", "524288"),
                ("fetch.max.bytes", "4194304"),
                // The default second would be a pause in every replay that fills the queue.
                ("fetch.queue.backoff.ms", "5"),
            ],
            ReadAhead::Little => [
                ("queued.max.messages.kbytes", "256"),
                ("queued.min.messages", "1"),
                ("fetch.message.max.bytes", "65536"),
                ("fetch.max.bytes", "1048576"),
                ("fetch.queue.backoff.ms", "100"),
            ],
        };
        for (property, value) in sizes {
            config.set(property, value);
        }
        let consumer = create(&source.kafka, || config.create_with_context(Quiet))?;
        Ok(Self { consumer, topic: source.topic.clone() })
    }

    /// Reads every partition from its offset on, in place of what was read before.
    ///
    /// # Errors
    /// When librdkafka takes no more assignments.
    pub fn read_from(&self, next: &[i64]) -> Result<(), Unreachable> {
        let places = next.iter().enumerate().map(|(p, offset)| (p, Offset::Offset(*offset)));
        self.consumer.assign(&self.list(places)).map_err(|_| Unreachable)
    }

    /// Reads one partition from `offset` on, in place of what was read before.
    ///
    /// # Errors
    /// As [`LogReader::read_from`].
    pub fn read_one(&self, partition: usize, offset: i64) -> Result<(), Unreachable> {
        self.read_some(&[(partition, offset)])
    }

    /// Reads some partitions, each from its offset on, in place of what was read before.
    ///
    /// # Errors
    /// As [`LogReader::read_from`].
    pub fn read_some(&self, places: &[(usize, i64)]) -> Result<(), Unreachable> {
        let places = places.iter().map(|(p, offset)| (*p, Offset::Offset(*offset)));
        self.consumer.assign(&self.list(places)).map_err(|_| Unreachable)
    }

    /// The next of whatever comes; waits up to `wait`.
    pub fn poll(&self, wait: Duration) -> Read<'_> {
        match self.consumer.poll(wait) {
            None => Read::Nothing,
            Some(Ok(message)) => Read::Record(LogRecord(message)),
            Some(Err(KafkaError::PartitionEOF(partition))) => Read::End(partition),
            Some(Err(error)) => read_failure(&error),
        }
    }

    /// How many partitions the topic has.
    ///
    /// # Errors
    /// [`Unreachable`], also when there is no such topic.
    pub fn partitions(&self, timeout: Duration) -> Result<usize, Unreachable> {
        let metadata = self.consumer.fetch_metadata(Some(&self.topic), timeout);
        let metadata = metadata.map_err(|_| Unreachable)?;
        let count = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if count > 0 { Ok(count) } else { Err(Unreachable) }
    }

    /// The first offset that each partition holds.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub fn starts(&self, partitions: usize, timeout: Duration) -> Result<Vec<i64>, Unreachable> {
        let found = self.ask(partitions, Offset::Beginning, timeout)?;
        Ok(found.into_iter().map(|offset| offset.unwrap_or(0)).collect())
    }

    /// The offset behind the last record of each partition.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub fn ends(&self, partitions: usize, timeout: Duration) -> Result<Vec<i64>, Unreachable> {
        let found = self.ask(partitions, Offset::End, timeout)?;
        Ok(found.into_iter().map(|offset| offset.unwrap_or(0)).collect())
    }

    /// The first offset of each partition whose record is of that time or later; `None` where there
    /// is none yet.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub fn at_time(
        &self,
        partitions: usize,
        unix_millis: i64,
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, Unreachable> {
        self.ask(partitions, Offset::Offset(unix_millis.max(0)), timeout)
    }

    /// All partitions in one request to each broker. Kafka's request takes a time, or -1 for the end
    /// and -2 for the start, which are librdkafka's numbers for them too.
    fn ask(
        &self,
        partitions: usize,
        what: Offset,
        timeout: Duration,
    ) -> Result<Vec<Option<i64>>, Unreachable> {
        let list = self.list((0..partitions).map(|partition| (partition, what)));
        let found = self.consumer.offsets_for_times(list, timeout).map_err(|_| Unreachable)?;
        let mut offsets = vec![None; partitions];
        for element in found.elements() {
            element.error().map_err(|_| Unreachable)?;
            let place = usize::try_from(element.partition()).ok();
            let place = place.and_then(|partition| offsets.get_mut(partition));
            if let (Some(place), Offset::Offset(offset)) = (place, element.offset()) {
                *place = Some(offset);
            }
        }
        Ok(offsets)
    }

    fn list(&self, places: impl Iterator<Item = (usize, Offset)>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            // A list that was just made takes any partition and offset.
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            let _ = list.add_partition_offset(&self.topic, partition, offset);
        }
        list
    }
}

fn read_failure(error: &KafkaError) -> Read<'static> {
    if let Some(
        RDKafkaErrorCode::AutoOffsetReset
        | RDKafkaErrorCode::OffsetOutOfRange
        | RDKafkaErrorCode::UnknownPartition,
    ) = error.rdkafka_error_code()
    {
        return Read::Gone;
    }
    tracing::debug!(%error, "reading the events topic failed for now");
    Read::Trouble
}

/// A record of the events topic, in the client's memory.
pub struct LogRecord<'a>(BorrowedMessage<'a>);

/// What a record's headers say of it; see [`leads_shared::headers`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Attributes<'a> {
    /// `ce_id`
    pub id: Option<&'a [u8]>,
    /// The workspace in `ce_source`.
    pub workspace_id: Option<Uuid>,
    /// `ce_type`
    pub event_type: Option<&'a str>,
}

impl LogRecord<'_> {
    /// Its partition; from 0.
    pub fn partition(&self) -> usize {
        usize::try_from(self.0.partition()).unwrap_or(0)
    }

    /// Its offset in the partition.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Its key.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// When it was made, in Unix milliseconds.
    pub fn time_millis(&self) -> Option<i64> {
        self.0.timestamp().to_millis()
    }

    /// Its value; a tombstone has none.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// The checksum (CRC-32) of its id, or of its value when it has none.
    pub fn id_checksum(&self) -> u32 {
        self.attributes().id_checksum(self.value())
    }

    /// What its headers say.
    pub fn attributes(&self) -> Attributes<'_> {
        let mut found = Attributes::default();
        for header in self.0.headers().iter().flat_map(|headers| headers.iter()) {
            match header.key {
                headers::ID => found.id = header.value,
                headers::SOURCE => {
                    found.workspace_id = header.value.and_then(headers::workspace_of);
                }
                headers::TYPE => {
                    found.event_type = header.value.and_then(|v| std::str::from_utf8(v).ok());
                }
                _ => {}
            }
        }
        found
    }
}

impl Attributes<'_> {
    /// See [`LogRecord::id_checksum`].
    pub fn id_checksum(&self, value: Option<&[u8]>) -> u32 {
        crc32fast::hash(self.id.or(value).unwrap_or_default())
    }
}
