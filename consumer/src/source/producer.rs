//! Producing to the dead letter topic.

use std::time::Duration;

use futures_util::future::join_all;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;

use super::client::{Kafka, Logged};

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

    async fn send(&self, topic: &str, record: &Outgoing) -> Result<(), String> {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for (name, value) in &record.headers {
            headers = headers.insert(Header { key: name, value: value.as_deref() });
        }
        let mut outgoing = FutureRecord::<[u8], [u8]>::to(topic).headers(headers);
        outgoing.key = record.key.as_deref();
        outgoing.payload = record.value.as_deref();
        match self.producer.send(outgoing, Timeout::After(Duration::ZERO)).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(error.to_string()),
        }
    }
}
