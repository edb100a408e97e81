//! Producing to the dead letter topic.

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::types::RDKafkaErrorCode as Code;
use rdkafka::util::Timeout;

use super::client::{Kafka, Logged};

/// The header that tells what the topic had no room for; `leads-consumer dlq show` has it.
const OMITTED: &str = "dlq_omitted";

/// A record to produce.
#[derive(Debug)]
pub struct Outgoing {
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// A producer whose records are acknowledged by all in-sync replicas.
pub struct Producer {
    producer: FutureProducer<Logged>,
}

impl Producer {
    /// Makes the client; connects by itself.
    ///
    /// # Errors
    /// librdkafka's own words.
    pub fn new(kafka: &Kafka) -> Result<Self, String> {
        let fixed = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("partitioner", "murmur2_random"),
            // Below the idle_in_transaction_session_timeout of the transaction that waits for it.
            ("message.timeout.ms", "5000"),
            ("allow.auto.create.topics", "false"),
            // The original record was taken by a broker; with our headers on top it is larger.
            ("message.max.bytes", "1000000000"),
        ];
        let producer = kafka
            .config(&[], &fixed)
            .create_with_context(Logged::default())
            .map_err(|error| error.to_string())?;
        Ok(Self { producer })
    }

    /// Produces `records` in order; each result tells whether the brokers acknowledged it.
    pub async fn send_all(&self, topic: &str, records: &[Outgoing]) -> Vec<Result<(), String>> {
        let sent = records.iter().map(|record| self.send(topic, record));
        join_all(sent).await
    }

    /// One that the topic has no room for goes without its value and its own headers.
    async fn send(&self, topic: &str, record: &Outgoing) -> Result<(), String> {
        let key = record.key.as_deref();
        match self.try_send(topic, key, record.value.as_deref(), &record.headers).await {
            Err(error) if error.rdkafka_error_code() == Some(Code::MessageSizeTooLarge) => {
                let omitted = (OMITTED.to_owned(), Some(b"value, headers".to_vec()));
                let ours = record.headers.iter().filter(|(name, _)| name.starts_with("dlq_"));
                self.try_send(topic, key, None, ours.chain([&omitted])).await
            }
            result => result,
        }
        .map_err(|error| error.to_string())
    }

    async fn try_send<'h>(
        &self,
        topic: &str,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = &'h (String, Option<Vec<u8>>)>,
    ) -> Result<(), KafkaError> {
        let mut owned = OwnedHeaders::new();
        for (name, value) in headers {
            owned = owned.insert(Header { key: name, value: value.as_deref() });
        }
        let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic).headers(owned);
        outgoing.key = key;
        outgoing.payload = value;
        match self.producer.send(outgoing, Timeout::After(Duration::ZERO)).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error),
        }
    }
}
