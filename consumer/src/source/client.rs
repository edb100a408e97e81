//! Settings and callbacks that all Kafka clients share.

use std::sync::{Mutex, MutexGuard, PoisonError};

use leads_shared::kafka_settings::Setting;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

/// How to reach Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// librdkafka properties from the environment.
    pub settings: Vec<Setting>,
}

/// A librdkafka property that can't be set so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct WrongSetting {
    /// The property.
    pub property: String,
    /// librdkafka's own words.
    pub reason: String,
}

impl Kafka {
    /// Checks names and values of the properties.
    ///
    /// # Errors
    /// The first one that librdkafka does not take.
    pub fn check(&self) -> Result<(), WrongSetting> {
        match self.config(&[], &[]).create_native_config() {
            Err(KafkaError::ClientConfig(_, reason, property, _)) => {
                Err(WrongSetting { property, reason })
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// `defaults` give way to the environment, `fixed` don't.
    pub(super) fn config(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", "leads-consumer");
        // OpenSSL is linked in and does not know where this system keeps its certificates.
        config.set("ssl.ca.location", "probe");
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true");
        for (name, value) in defaults {
            config.set(*name, *value);
        }
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        for (name, value) in fixed {
            config.set(*name, *value);
        }
        config.set_log_level(RDKafkaLogLevel::Info);
        config
    }
}

/// Callbacks of the clients that belong to no group: librdkafka's log lines go to ours.
#[derive(Debug, Default)]
pub(super) struct Logged {
    pub(super) trouble: Trouble,
}

impl ClientContext for Logged {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
        tracing::debug!(target: "librdkafka", %error, "{reason}");
    }
}

impl rdkafka::consumer::ConsumerContext for Logged {}

/// What of a connection failed, if that is what librdkafka speaks of.
pub(super) fn connection_trouble(error: &KafkaError, reason: &str) -> Option<RDKafkaErrorCode> {
    match error.rdkafka_error_code()? {
        // A refused certificate comes as either, by where the handshake is found to be broken.
        RDKafkaErrorCode::BrokerTransportFailure if reason.contains("SSL routines") => {
            Some(RDKafkaErrorCode::SSL)
        }
        code @ (RDKafkaErrorCode::SSL
        | RDKafkaErrorCode::Authentication
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::OperationTimedOut) => Some(code),
        _ => None,
    }
}

/// librdkafka's words without how long it took.
pub(super) fn in_short(reason: &str) -> &str {
    reason.split_once(" (after ").map_or(reason, |(reason, _)| reason)
}

/// Why no broker can be used: the first words for each kind of cause, so that they stay the same
/// from try to try and from broker to broker.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<(RDKafkaErrorCode, String)>>);

impl Trouble {
    fn locked(&self) -> MutexGuard<'_, Option<(RDKafkaErrorCode, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes note of what librdkafka said, if it is about a connection.
    pub(super) fn note(&self, error: &KafkaError, reason: &str) {
        let Some(code) = connection_trouble(error, reason) else { return };
        let mut noted = self.locked();
        if noted.as_ref().is_none_or(|(known, _)| *known != code) {
            *noted = Some((code, in_short(reason).to_owned()));
        }
    }

    /// The cause in words that name the broker, and hold no secret.
    pub(super) fn cause(&self) -> Option<String> {
        self.locked().as_ref().map(|(_, reason)| reason.clone())
    }

    /// A broker answers.
    pub(super) fn over(&self) {
        *self.locked() = None;
    }
}

/// Passes a log line of librdkafka on. Lost connections are its daily bread and reported by
/// readiness: they are debug lines here.
pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    const CONNECTION: &[&str] = &["FAIL", "ERROR", "REQTMOUT", "COMMITFAIL", "CONFWARN"];
    match level {
        _ if CONNECTION.contains(&facility) => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => tracing::error!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}
