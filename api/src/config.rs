//! From flags and environment to a configuration that holds together, or an error that names the
//! variable and the fix.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use leads_shared::{kafka_settings, topic};
use leads_traces::Traces;
use postgres_openssl::MakeTlsConnector;

use crate::broker::KafkaConfig;
use crate::domain::MAX_LEAD_BYTES;
use crate::server::tls::Tls;
use crate::stream::{StreamArgs, StreamConfig};

/// How much earlier than the handler librdkafka gives a record up: it looks for records that are
/// too old once a second.
const MESSAGE_TIMEOUT_MARGIN: Duration = Duration::from_millis(1_500);
/// The largest lead and what its event has around it.
const LARGEST_EVENT: usize = MAX_LEAD_BYTES + 64 * 1024;

/// How Kafka is reached; every command that talks to it takes these.
#[derive(Debug, Clone, Args)]
pub struct KafkaArgs {
    /// Kafka's bootstrap servers: host:port,…
    #[arg(long, env = "KAFKA_BROKERS", value_name = "HOST:PORT,…")]
    pub kafka_brokers: String,
    /// Topic that holds the API keys.
    #[arg(long, env = "LEADS_ACCESS_TOPIC", default_value = topic::ACCESS)]
    pub access_topic: String,
}

/// How PostgreSQL is reached.
#[derive(Debug, Clone, Args)]
pub struct PostgresArgs {
    /// Connection URL: postgres://user:password@host:port/database?sslmode=verify-full
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: String,
    /// PEM file of the certificates that PostgreSQL's is checked against [default: the system's]
    #[arg(long, env = "PGSSLROOTCERT", value_name = "FILE")]
    pub database_root_cert: Option<PathBuf>,
}

/// The options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// PostgreSQL.
    #[command(flatten)]
    pub postgres: PostgresArgs,
    /// Event streams.
    #[command(flatten)]
    pub streams: StreamArgs,
    /// Address of the API
    #[arg(long, env = "API_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// PEM file of the certificate that the API proves itself with, its chain behind it. With
    /// it and its key the API speaks HTTP/2 and HTTP/1.1 over TLS, without them HTTP/1.1 in clear
    #[arg(long, env = "API_TLS_CERT", value_name = "FILE")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of the certificate's private key, without a passphrase
    #[arg(long, env = "API_TLS_KEY", value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
    /// How often both files are looked at; a new certificate is taken without a restart, also on SIGHUP
    #[arg(long, env = "API_TLS_CHECK", default_value = "1m", value_parser = humantime::parse_duration)]
    pub tls_check: Duration,
    /// Address of the metrics
    #[arg(long, env = "METRICS_LISTEN", default_value = "0.0.0.0:9464")]
    pub metrics_listen: SocketAddr,
    /// Topic that events are published to
    #[arg(long, env = "LEADS_TOPIC", default_value = topic::EVENTS)]
    pub topic: String,
    /// Longest wait for the broker's acknowledgement, at least 2s; clients should wait twice as long
    #[arg(long, env = "PUBLISH_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub publish_timeout: Duration,
    /// Longest wait for the projection on reads and updates
    #[arg(long, env = "READ_WAIT", default_value = "2s", value_parser = humantime::parse_duration)]
    pub read_wait: Duration,
    /// Most publishes in flight; above, 503 at once
    #[arg(long, env = "MAX_IN_FLIGHT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub max_in_flight: u32,
    /// Most bytes in flight, at least 320KiB; above, 503 at once
    #[arg(long, env = "MAX_IN_FLIGHT_BYTES", default_value = "128MiB", value_parser = parse_size)]
    pub max_in_flight_bytes: usize,
    /// Most bytes of recent answers kept for retries with an Idempotency-Key
    #[arg(long, env = "IDEMPOTENCY_CACHE", default_value = "64MiB", value_parser = parse_size)]
    pub idempotency_cache: usize,
    /// Connections to PostgreSQL
    #[arg(long, env = "DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub database_connections: u16,
    /// Worker threads [default: one per core]
    #[arg(long, env = "API_WORKERS", value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,
    /// Most open connections per worker
    #[arg(long, env = "MAX_CONNECTIONS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_connections: u32,
    /// Longest time for a request's head to arrive
    #[arg(long, env = "HEADER_TIMEOUT", default_value = "5s", value_parser = humantime::parse_duration)]
    pub header_timeout: Duration,
    /// Longest time for a request's body to arrive
    #[arg(long, env = "BODY_TIMEOUT", default_value = "10s", value_parser = humantime::parse_duration)]
    pub body_timeout: Duration,
    /// How long an idle connection is kept
    #[arg(long, env = "KEEP_ALIVE", default_value = "75s", value_parser = humantime::parse_duration)]
    pub keep_alive: Duration,
    /// On SIGTERM: how long the service goes on, not ready, before it takes no new connections
    #[arg(long, env = "SHUTDOWN_GRACE", default_value = "2s", value_parser = humantime::parse_duration)]
    pub shutdown_grace: Duration,
    /// Origins that browsers may call from, or *; off when empty
    #[arg(long, env = "CORS_ORIGINS", value_delimiter = ',', value_name = "ORIGIN,…")]
    pub cors_origins: Vec<String>,
}

/// What `serve` runs with.
pub struct ServeConfig {
    /// Ports and limits.
    pub http: HttpConfig,
    /// TLS of the API, where it is wanted.
    pub tls: Option<Tls>,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// Topic that events are published to.
    pub events_topic: String,
    /// Topic that holds the API keys.
    pub access_topic: String,
    /// PostgreSQL.
    pub postgres: PostgresConfig,
    /// Bounds of publishing.
    pub publishing: PublishingConfig,
    /// Bounds of event streams.
    pub streams: StreamConfig,
    /// Where spans go.
    pub traces: Traces,
}

/// Ports and limits.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Address of the API.
    pub listen: SocketAddr,
    /// Address of the metrics.
    pub metrics_listen: SocketAddr,
    /// Worker threads.
    pub workers: usize,
    /// Most open connections per worker.
    pub max_connections: usize,
    /// Longest time for a request's head.
    pub header_timeout: Duration,
    /// Longest time for a request's body.
    pub body_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Longest wait for the projection.
    pub read_wait: Duration,
    /// How long the service goes on, not ready, after SIGTERM.
    pub shutdown_grace: Duration,
    /// Longest time for requests in flight after that.
    pub shutdown_timeout: Duration,
    /// Origins that browsers may call from.
    pub cors_origins: Vec<String>,
}

/// How PostgreSQL is reached.
pub struct PostgresConfig {
    /// Where and as whom.
    pub config: tokio_postgres::Config,
    /// How TLS is made and verified.
    pub tls: MakeTlsConnector,
    /// Most connections.
    pub connections: usize,
}

/// Bounds of publishing.
#[derive(Debug, Clone, Copy)]
pub struct PublishingConfig {
    /// Most publishes in flight.
    pub max_in_flight: usize,
    /// Most bytes in flight.
    pub max_in_flight_bytes: usize,
    /// Longest wait for an acknowledgement.
    pub timeout: Duration,
    /// Most bytes of recent answers kept for retries.
    pub idempotency_cache: usize,
}

impl ServeConfig {
    /// Checks everything that can be checked without a network.
    ///
    /// # Errors
    /// One line a problem, naming the variable and the fix.
    pub fn new(
        args: ServeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, String> {
        let timeout = args.publish_timeout;
        if !(Duration::from_secs(2)..=Duration::from_secs(30)).contains(&timeout) {
            return Err(format!(
                "PUBLISH_TIMEOUT={}: must be from 2s to 30s; librdkafka has to give a record up before the request does",
                humantime::format_duration(timeout)
            ));
        }
        // actix reads the clock twice a second: a shorter time could be over before it begins.
        for (variable, time) in [
            ("HEADER_TIMEOUT", args.header_timeout),
            ("KEEP_ALIVE", args.keep_alive),
            ("API_TLS_CHECK", args.tls_check),
        ] {
            if time < Duration::from_secs(1) {
                let time = humantime::format_duration(time);
                return Err(format!("{variable}={time}: must be at least 1s"));
            }
        }
        if args.max_in_flight_bytes < LARGEST_EVENT {
            return Err(format!(
                "MAX_IN_FLIGHT_BYTES={}: a lead of {} KiB would be refused for ever; give it at least {}KiB",
                args.max_in_flight_bytes,
                MAX_LEAD_BYTES / 1024,
                LARGEST_EVENT / 1024
            ));
        }
        let tls = Tls::new(args.tls_cert, args.tls_key, args.tls_check)?;
        let message_timeout = timeout.saturating_sub(MESSAGE_TIMEOUT_MARGIN);
        let kafka = kafka_config(&args.kafka, message_timeout, environment)?;
        check_topics(&args.topic, &args.kafka.access_topic)?;
        let connections = usize::from(args.database_connections);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let streams = StreamConfig::new(&args.streams)?;
        Ok(Self {
            streams,
            http: HttpConfig {
                listen: args.listen,
                metrics_listen: args.metrics_listen,
                workers: args.workers.map_or(cores, usize::from),
                max_connections: usize::try_from(args.max_connections).unwrap_or(usize::MAX),
                header_timeout: args.header_timeout,
                body_timeout: args.body_timeout,
                keep_alive: args.keep_alive,
                read_wait: args.read_wait,
                shutdown_grace: args.shutdown_grace,
                // Whoever was let in may still wait for an acknowledgement and for the projection.
                shutdown_timeout: timeout + args.read_wait * 2,
                cors_origins: args.cors_origins,
            },
            tls,
            traces: Traces::from_env("leads-api", env!("CARGO_PKG_VERSION"))?,
            kafka,
            events_topic: args.topic,
            access_topic: args.kafka.access_topic,
            postgres: postgres_config(&args.postgres, connections)?,
            publishing: PublishingConfig {
                max_in_flight: usize::try_from(args.max_in_flight).unwrap_or(usize::MAX),
                max_in_flight_bytes: args.max_in_flight_bytes,
                timeout,
                idempotency_cache: args.idempotency_cache,
            },
        })
    }
}

/// Kafka's settings, checked by librdkafka itself.
///
/// # Errors
/// Every variable that may not be set or is refused.
pub fn kafka_config(
    args: &KafkaArgs,
    message_timeout: Duration,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<KafkaConfig, String> {
    if args.kafka_brokers.trim().is_empty() {
        return Err("KAFKA_BROKERS is empty; set it to host:port,…".to_owned());
    }
    let settings = kafka_settings::from_environment(environment).map_err(|refused| {
        refused.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    })?;
    let config = KafkaConfig { brokers: args.kafka_brokers.clone(), settings, message_timeout };
    config.check().map_err(|error| error.to_string())?;
    Ok(config)
}

/// PostgreSQL's settings. Needs no server.
///
/// # Errors
/// What is wrong with the URL or the certificates; never the URL itself.
pub fn postgres_config(args: &PostgresArgs, connections: usize) -> Result<PostgresConfig, String> {
    let (mut config, tls) =
        leads_postgres::parse(&args.database_url, args.database_root_cert.as_deref())
            .map_err(|error| format!("DATABASE_URL: {error}"))?;
    config.application_name("leads-api");
    // A read that takes longer is of no use to its request any more.
    let options = config.get_options().unwrap_or_default();
    config.options(format!("{options} -c statement_timeout=5s").trim());
    Ok(PostgresConfig { config, tls, connections })
}

fn check_topics(events: &str, access: &str) -> Result<(), String> {
    for (variable, name) in [("LEADS_TOPIC", events), ("LEADS_ACCESS_TOPIC", access)] {
        if !topic::is_valid_name(name) {
            return Err(format!(
                "{variable}={name}: a topic's name is 1 to 245 of the characters a-z A-Z 0-9 . _ -"
            ));
        }
    }
    if events == access {
        return Err("LEADS_TOPIC and LEADS_ACCESS_TOPIC must differ".to_owned());
    }
    Ok(())
}

/// Reads `5MiB`, `64KiB` or a plain number of bytes; at least 1.
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let (digits, factor) = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)]
        .into_iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|digits| (digits, factor)))
        .unwrap_or((text, 1));
    let number: Option<usize> = digits.trim().parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .filter(|bytes| *bytes >= 1)
        .ok_or_else(|| "write a size such as 5MiB, 64KiB or 1048576".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_binary_units() {
        assert_eq!(parse_size("5MiB"), Ok(5 << 20));
        assert_eq!(parse_size("64 KiB"), Ok(64 << 10));
        assert_eq!(parse_size("7"), Ok(7));
        for bad in ["0", "5MB", "", "x", "99999999999999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
