//! Topics: what they are like, and making them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use leads_shared::topic::TopicSpec;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;

use super::client::{Kafka, Logged};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a client is asked for what it has to tell; it is there already.
const TOLD: Duration = Duration::from_millis(10);

/// A topic as the broker reports it.
#[derive(Debug, Clone)]
pub struct Topic {
    /// How many partitions it has.
    pub partitions: u32,
    /// Whether each of them has a leader.
    pub usable: bool,
}

/// How often a new topic is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replicas {
    /// Replicas of each partition; −1 is the broker's default.
    factor: i32,
    /// `min.insync.replicas`; `None` is the broker's default.
    min_insync: Option<i32>,
}

impl Replicas {
    /// From three replicas on a majority has to have a record, unless `min_insync` says otherwise: with
    /// the broker's default of one, what is acknowledged could be lost with a single broker.
    ///
    /// # Errors
    /// When more are wanted in sync than there are: every write would be refused.
    pub fn new(factor: i32, min_insync: Option<i32>) -> Result<Self, String> {
        match min_insync {
            Some(wanted) if factor > 0 && wanted > factor => {
                Err(format!("{wanted} of {factor} replicas can't be in sync"))
            }
            Some(_) => Ok(Self { factor, min_insync }),
            None => Ok(Self { factor, min_insync: (factor >= 3).then_some(factor / 2 + 1) }),
        }
    }
}

/// A request to the broker failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// A client could not be made: the settings are wrong.
    #[error("the Kafka settings don't work: {0}")]
    Settings(String),
    /// No answer, or none that helps; trying again may.
    #[error("Kafka does not answer: {0}")]
    Unavailable(String),
    /// The broker refused, and will again.
    #[error("Kafka refused: {0}")]
    Refused(String),
}

/// Asks and changes what the broker knows of topics.
pub struct Admin {
    admin: AdminClient<Logged>,
    // Metadata is asked for as a consumer: a producer's question makes the topic it asks for.
    metadata: Arc<BaseConsumer<Logged>>,
}

impl Admin {
    /// Makes the clients; connects when first asked.
    ///
    /// # Errors
    /// [`AdminError::Settings`], such as a certificate file that isn't there.
    pub fn new(kafka: &Kafka) -> Result<Self, AdminError> {
        let wrong = |error: KafkaError| AdminError::Settings(named(kafka, &error));
        Ok(Self {
            admin: kafka.config(&[], &[]).create_with_context(Logged::default()).map_err(wrong)?,
            metadata: Arc::new(
                kafka
                    .config(&[], &[("allow.auto.create.topics", "false")])
                    .create_with_context(Logged::default())
                    .map_err(wrong)?,
            ),
        })
    }

    /// The topic called `name`, if there is one.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] after eight seconds without an answer.
    pub async fn topic(&self, name: &str) -> Result<Option<Topic>, AdminError> {
        let client = Arc::clone(&self.metadata);
        let name = name.to_owned();
        let asked = tokio::task::spawn_blocking(move || {
            // Served here: without a group nothing else polls this client.
            while client.poll(Duration::ZERO).is_some() {}
            let metadata = client.fetch_metadata(Some(&name), REQUEST_TIMEOUT);
            // And here: what went wrong with the connection waits to be told.
            while client.poll(TOLD).is_some() {}
            let metadata = metadata.map_err(|error| {
                client.context().trouble.cause().unwrap_or_else(|| in_short(&error))
            })?;
            client.context().trouble.over();
            let found = metadata.topics().iter().find(|topic| topic.name() == name);
            Ok(found.and_then(|topic| {
                let partitions = topic.partitions();
                (!partitions.is_empty()).then(|| Topic {
                    partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
                    usable: partitions.iter().all(|partition| partition.leader() >= 0),
                })
            }))
        });
        match asked.await {
            Ok(answer) => answer.map_err(AdminError::Unavailable),
            Err(error) => Err(AdminError::Unavailable(error.to_string())),
        }
    }

    /// The settings of the topic called `name`.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] or, without the right to ask, [`AdminError::Refused`].
    pub async fn settings(&self, name: &str) -> Result<HashMap<String, String>, AdminError> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let asked = self.admin.describe_configs(&[ResourceSpecifier::Topic(name)], &options).await;
        let resources = asked.map_err(|error| unavailable(&error))?;
        let mut settings = HashMap::new();
        for resource in resources {
            let resource = resource.map_err(|code| refused(name, code))?;
            for entry in resource.entries {
                if let Some(value) = entry.value {
                    settings.insert(entry.name, value);
                }
            }
        }
        // Of a topic that this broker has not heard of yet there is no error, and nothing else.
        if settings.is_empty() {
            let why = format!("the broker does not know the settings of topic {name} yet");
            return Err(AdminError::Unavailable(why));
        }
        Ok(settings)
    }

    /// Makes a topic. Whether it was us who made it: a topic that is there already, or was made at the
    /// same moment, stays as it is.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] or [`AdminError::Refused`].
    pub async fn create(&self, spec: &TopicSpec, replicas: Replicas) -> Result<bool, AdminError> {
        let Replicas { factor, min_insync } = replicas;
        let partitions = i32::try_from(spec.partitions).unwrap_or(i32::MAX);
        let mut topic = NewTopic::new(&spec.name, partitions, TopicReplication::Fixed(factor));
        let min_insync = min_insync.map(|value| value.to_string());
        if let Some(value) = &min_insync {
            topic = topic.set("min.insync.replicas", value);
        }
        for (setting, value) in spec.creation_settings() {
            topic = topic.set(setting, value);
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let asked = self.admin.create_topics(&[topic], &options).await;
        for result in asked.map_err(|error| unavailable(&error))? {
            match result {
                Ok(_) => {}
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(false),
                Err((name, code)) => return Err(refused(&name, code)),
            }
        }
        Ok(true)
    }
}

/// A file that isn't there is found when the client is made: "ssl.ca.location failed: …"
fn named(kafka: &Kafka, error: &KafkaError) -> String {
    let KafkaError::ClientCreation(reason) = error else { return error.to_string() };
    match kafka.settings.iter().find(|(property, _)| reason.contains(property.as_str())) {
        Some((property, _)) => {
            let variable = property.to_ascii_uppercase().replace('.', "_");
            format!("KAFKA_{variable}: {reason}")
        }
        None => error.to_string(),
    }
}

fn unavailable(error: &KafkaError) -> AdminError {
    AdminError::Unavailable(in_short(error))
}

fn in_short(error: &KafkaError) -> String {
    match error.rdkafka_error_code() {
        Some(code) => code.to_string(),
        None => error.to_string(),
    }
}

fn refused(topic: &str, code: RDKafkaErrorCode) -> AdminError {
    match code {
        RDKafkaErrorCode::RequestTimedOut
        | RDKafkaErrorCode::NotController
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::BrokerTransportFailure => AdminError::Unavailable(code.to_string()),
        _ => AdminError::Refused(format!("topic {topic}: {code}")),
    }
}

#[cfg(test)]
mod tests {
    use super::Replicas;

    #[test]
    fn a_majority_is_in_sync_from_three_replicas_on() {
        let min_insync = |factor| Replicas::new(factor, None).unwrap().min_insync;
        assert_eq!([-1, 1, 2, 3, 5].map(min_insync), [None, None, None, Some(2), Some(3)]);
        assert_eq!(Replicas::new(3, Some(1)).unwrap().min_insync, Some(1));
        assert_eq!(Replicas::new(-1, Some(2)).unwrap().min_insync, Some(2));
        assert!(Replicas::new(2, Some(3)).is_err());
    }
}
