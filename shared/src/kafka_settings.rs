//! librdkafka properties from the environment: `KAFKA_SECURITY_PROTOCOL=SASL_SSL` sets
//! `security.protocol`. What would break a promise is refused by name.

/// A librdkafka property and its value.
pub type Setting = (String, String);

/// An environment variable that may not be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} may not be set: {why}")]
pub struct Refused {
    /// The variable as it stands in the environment, with its value where another one would do.
    pub variable: String,
    /// Why, and what to use instead.
    pub why: &'static str,
}

/// Variables with the prefix that are the service's own and no property.
const OWN: &[&str] = &["KAFKA_BROKERS"];

/// Properties that no one may set, and why.
const REFUSED: &[(&str, &str)] = &[
    ("acks", ACKS),
    ("request.required.acks", ACKS),
    ("enable.idempotence", "the producer is idempotent, or a retry could double or reorder events"),
    ("max.in.flight", ORDER),
    ("max.in.flight.requests.per.connection", ORDER),
    ("message.send.max.retries", RETRIES),
    ("retries", RETRIES),
    ("queuing.strategy", ORDER),
    ("message.timeout.ms", MESSAGE_TIMEOUT),
    ("delivery.timeout.ms", MESSAGE_TIMEOUT),
    ("delivery.report.only.error", "every acknowledgement is waited for"),
    ("partitioner", "every Kafka client must find a lead's partition: murmur2_random is fixed"),
    ("transactional.id", "events are single records; exactly once comes from the projection"),
    ("bootstrap.servers", BROKERS),
    ("metadata.broker.list", BROKERS),
    ("group.id", "use CONSUMER_GROUP"),
    ("group.protocol", "the projection sets its own start offsets when partitions are assigned"),
    (
        "partition.assignment.strategy",
        "cooperative-sticky is fixed, so that a rebalance stops no other partition",
    ),
    ("enable.auto.commit", OFFSETS),
    ("auto.commit.enable", OFFSETS),
    ("enable.auto.offset.store", OFFSETS),
    ("auto.offset.reset", "a gap in the log must halt the projection, never be jumped in silence"),
    ("enable.partition.eof", "is set where it is needed"),
    (
        "allow.auto.create.topics",
        "topics are made by `leads-consumer topics`, with the right settings",
    ),
    ("isolation.level", "the projection reads what is committed"),
];

/// Without a client for token endpoints in it, librdkafka would wait for a token for ever.
const OAUTHBEARER: &str =
    "this build asks no token endpoint; use SCRAM-SHA-512, PLAIN or a client certificate";
const ACKS: &str = "a 2xx means that all in-sync replicas have the event (acks=all)";
const ORDER: &str = "the order of a lead's events rests on the idempotent producer's own value";
const RETRIES: &str =
    "the idempotent producer retries until message.timeout.ms; use PUBLISH_TIMEOUT";
const MESSAGE_TIMEOUT: &str =
    "it is derived from PUBLISH_TIMEOUT, so that a publish ends before its request does";
const BROKERS: &str = "use KAFKA_BROKERS";
const OFFSETS: &str = "offsets live in PostgreSQL, in the transaction of the rows they stand for";

/// The librdkafka settings in `variables`, in the order given.
///
/// Variables that a container platform injects for a service called `kafka`
/// (`KAFKA_SERVICE_HOST`, `KAFKA_PORT_9092_TCP`, …) are passed over.
///
/// # Errors
/// All variables that may not be set, at once.
pub fn from_environment(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<Vec<Setting>, Vec<Refused>> {
    let mut settings = Vec::new();
    let mut refused = Vec::new();
    for (variable, value) in variables {
        let Some(name) = variable.strip_prefix("KAFKA_") else { continue };
        if OWN.contains(&variable.as_str()) || is_service_link(name) {
            continue;
        }
        let property = name.to_ascii_lowercase().replace('_', ".");
        let is_mechanism = property == "sasl.mechanism" || property == "sasl.mechanisms";
        if is_mechanism && value.eq_ignore_ascii_case("OAUTHBEARER") {
            refused.push(Refused { variable: format!("{variable}={value}"), why: OAUTHBEARER });
            continue;
        }
        match REFUSED.iter().find(|(refused, _)| *refused == property) {
            Some((_, why)) => refused.push(Refused { variable, why }),
            None => settings.push((property, value)),
        }
    }
    if refused.is_empty() { Ok(settings) } else { Err(refused) }
}

fn is_service_link(name: &str) -> bool {
    name == "PORT"
        || name.starts_with("PORT_")
        || name.starts_with("SERVICE_HOST")
        || name.starts_with("SERVICE_PORT")
        || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.contains("_PORT_")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Vec<Setting>, Vec<Refused>> {
        from_environment(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn passes_properties_on_and_skips_what_is_none() {
        let settings = read(&[
            ("KAFKA_BROKERS", "b:9092"),
            ("KAFKA_SECURITY_PROTOCOL", "SSL"),
            ("KAFKA_SSL_CA_LOCATION", "/ca.pem"),
            ("KAFKA_SASL_MECHANISM", "SCRAM-SHA-256"),
            ("KAFKA_SERVICE_HOST", "10.0.0.1"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1"),
            ("PATH", "/bin"),
        ]);
        let expected = [
            ("security.protocol", "SSL"),
            ("ssl.ca.location", "/ca.pem"),
            ("sasl.mechanism", "SCRAM-SHA-256"),
        ];
        assert_eq!(settings.unwrap(), expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn names_all_that_would_break_a_promise() {
        let refused = read(&[
            ("KAFKA_ACKS", "1"),
            ("KAFKA_ENABLE_IDEMPOTENCE", "false"),
            ("KAFKA_LINGER_MS", "1"),
            ("KAFKA_AUTO_OFFSET_RESET", "earliest"),
            ("KAFKA_SASL_MECHANISM", "OAUTHBEARER"),
        ])
        .unwrap_err();
        let names: Vec<_> = refused.iter().map(|r| r.variable.as_str()).collect();
        assert_eq!(
            names,
            [
                "KAFKA_ACKS",
                "KAFKA_ENABLE_IDEMPOTENCE",
                "KAFKA_AUTO_OFFSET_RESET",
                "KAFKA_SASL_MECHANISM=OAUTHBEARER"
            ]
        );
    }
}
