//! The settings of the clients: defaults, what the environment adds, and what no one may change.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, DefaultConsumerContext};
use rdkafka::error::KafkaError;

use leads_shared::kafka_settings::Setting;

/// How the brokers are reached.
#[derive(Debug, Clone)]
pub struct KafkaConfig {
    /// `host:port,…`
    pub brokers: String,
    /// librdkafka properties from the environment, already checked.
    pub settings: Vec<Setting>,
    /// How long librdkafka itself may try to deliver a record; below the handler's wait.
    pub message_timeout: Duration,
}

/// The configuration can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub(super) String);

impl KafkaConfig {
    /// Checks the settings without connecting to anything.
    ///
    /// # Errors
    /// When librdkafka refuses one; names the variable.
    pub fn check(&self) -> Result<(), ConfigError> {
        create(self, || self.producer().create_native_config().map(drop))?;
        create(self, || self.reader().create::<BaseConsumer<DefaultConsumerContext>>()).map(drop)
    }

    fn base(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "leads-api")
            .set("allow.auto.create.topics", "false")
            // Without a CA file, find the system's.
            .set("ssl.ca.location", "probe")
            .set("socket.nagle.disable", "true")
            // Back within a second of the broker's return, not ten.
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "500");
        config
    }

    pub(super) fn producer(&self) -> ClientConfig {
        let mut config = self.base();
        config
            .set("linger.ms", "1")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "262144");
        for (property, value) in &self.settings {
            config.set(property, value);
        }
        config
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", self.message_timeout.as_millis().to_string());
        config
    }

    pub(super) fn reader(&self) -> ClientConfig {
        let mut config = self.base();
        config.set("fetch.wait.max.ms", "100");
        for (property, value) in &self.settings {
            config.set(property, value);
        }
        config
            // Needed to assign partitions; nothing is ever committed under it.
            .set("group.id", "leads-api")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest");
        config
    }
}

pub(super) fn create<T>(
    config: &KafkaConfig,
    make: impl FnOnce() -> Result<T, KafkaError>,
) -> Result<T, ConfigError> {
    let variable =
        |property: &str| format!("KAFKA_{}", property.to_ascii_uppercase().replace('.', "_"));
    make().map_err(|error| match &error {
        KafkaError::ClientConfig(_, reason, property, _) => {
            let known = config.settings.iter().any(|(name, _)| name == property);
            let name = if known { variable(property) } else { property.clone() };
            ConfigError(format!("{name}: {reason}"))
        }
        // A file that isn't there is found when the client is made: "ssl.ca.location failed: …"
        KafkaError::ClientCreation(reason) => {
            let named = config.settings.iter().find(|(name, _)| reason.contains(name.as_str()));
            let name = named.map_or("librdkafka".to_owned(), |(name, _)| variable(name));
            ConfigError(format!("{name}: {reason}"))
        }
        _ => ConfigError(format!("librdkafka refuses the configuration: {error}")),
    })
}
