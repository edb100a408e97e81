//! Settings, checked as a whole before anything is done.

use std::net::SocketAddr;
use std::time::Duration;

use leads_shared::kafka_settings;
use postgres_openssl::MakeTlsConnector;

use crate::cli::{DatabaseArgs, Gaps, KafkaArgs, ProjectionArgs, RebuildArgs, RunArgs};
use crate::source::client::Kafka;
use crate::status;
use crate::worker::Limits;

/// Settings that can't be worked with: all that is wrong, a line each, with the fix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// How to reach PostgreSQL.
#[derive(Clone)]
pub struct Database {
    /// tokio-postgres' own settings.
    pub config: tokio_postgres::Config,
    /// TLS that verifies as the URL asks for.
    pub tls: MakeTlsConnector,
}

/// Settings of `run`.
#[derive(Clone)]
pub struct RunConfig {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// The topic of events.
    pub topic: String,
    /// How to reach PostgreSQL.
    pub database: Database,
    /// The consumer group.
    pub group: String,
    /// Where the probes and metrics are served.
    pub metrics_listen: SocketAddr,
    /// How large a batch may be, in each lane.
    pub limits: Limits,
    /// Transactions side by side.
    pub lanes: usize,
    /// Most dead letters in [`RunConfig::dlq_window`]; 0: any number.
    pub dlq_max: u32,
    /// See [`RunConfig::dlq_max`].
    pub dlq_window: Duration,
}

/// Settings of `rebuild`.
#[derive(Clone)]
pub struct RebuildConfig {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// The topic of events.
    pub topic: String,
    /// How to reach PostgreSQL: the new database when there is one.
    pub database: Database,
    /// How large a batch may be, in each lane.
    pub limits: Limits,
    /// Transactions side by side.
    pub lanes: usize,
    /// Whether the generation is swapped in without being compared.
    pub accept_differences: bool,
    /// Whether a disk that is too small is refused.
    pub check_disk: bool,
    /// Whether the database is a new one, to be given its schema first.
    pub into_new_database: bool,
}

impl RebuildConfig {
    /// Checks the settings of `rebuild`, given the environment.
    ///
    /// # Errors
    /// A line for each that is wrong.
    pub fn new(
        args: &RebuildArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut wrong = Vec::new();
        let kafka = kafka(&args.kafka, environment).map_err(|error| wrong.extend(error.0));
        let given = match &args.into_new_database {
            Some(url) => Ok(DatabaseArgs {
                database_url: url.clone(),
                database_root_cert: args.database_root_cert.clone(),
            }),
            None => match &args.database_url {
                Some(url) => Ok(DatabaseArgs {
                    database_url: url.clone(),
                    database_root_cert: args.database_root_cert.clone(),
                }),
                None => Err(ConfigError(vec!["DATABASE_URL: not set".to_owned()])),
            },
        };
        let database =
            given.and_then(|given| database(&given)).map_err(|error| wrong.extend(error.0));
        let (Ok(kafka), Ok(database), true) = (kafka, database, wrong.is_empty()) else {
            return Err(ConfigError(wrong));
        };
        Ok(Self {
            kafka,
            topic: args.kafka.leads_topic.clone(),
            database,
            limits: limits(&args.projection),
            lanes: args.projection.projection_lanes as usize,
            accept_differences: args.accept_differences,
            check_disk: !args.no_disk_check,
            into_new_database: args.into_new_database.is_some(),
        })
    }
}

fn limits(args: &ProjectionArgs) -> Limits {
    Limits {
        records: args.batch_max_records as usize,
        bytes: args.batch_max_bytes,
        pass_gaps: args.log_gaps == Gaps::Pass,
    }
}

/// Checks how PostgreSQL is to be reached.
///
/// # Errors
/// One line, which names the variable and holds no secret.
pub fn database(args: &DatabaseArgs) -> Result<Database, ConfigError> {
    let DatabaseArgs { database_url, database_root_cert } = args;
    match leads_postgres::parse(database_url, database_root_cert.as_deref()) {
        Ok((config, tls)) => Ok(Database { config, tls }),
        Err(why) => Err(ConfigError(vec![format!("DATABASE_URL: {why}")])),
    }
}

/// Checks how Kafka is to be reached, given the environment.
///
/// # Errors
/// A line for each variable that is wrong.
pub fn kafka(
    args: &KafkaArgs,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<Kafka, ConfigError> {
    let mut wrong = Vec::new();
    if args.kafka_brokers.split(',').any(|broker| broker.trim().is_empty()) {
        wrong.push("KAFKA_BROKERS: expected host:port, comma-separated".to_owned());
    }
    if let Err(why) = topic_name(&args.leads_topic) {
        wrong.push(format!("LEADS_TOPIC: {why}"));
    }
    let settings = kafka_settings::from_environment(environment).unwrap_or_else(|refused| {
        wrong.extend(refused.iter().map(ToString::to_string));
        Vec::new()
    });
    let kafka = Kafka { brokers: args.kafka_brokers.clone(), settings };
    if let Err(error) = kafka.check() {
        let variable = error.property.to_ascii_uppercase().replace('.', "_");
        wrong.push(format!("KAFKA_{variable}: {error}"));
    }
    if wrong.is_empty() { Ok(kafka) } else { Err(ConfigError(wrong)) }
}

/// Checks a topic's name by Kafka's own rule; 4 characters are left for `.dlq`.
///
/// # Errors
/// What the rule is.
pub fn topic_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=245).contains(&name.len()) && name.chars().all(plain) && !matches!(name, "." | "..") {
        Ok(())
    } else {
        Err("a topic's name is 1 to 245 characters of A-Z a-z 0-9 . _ -".to_owned())
    }
}

/// Checks what `status` and `doctor` look at, given the environment.
///
/// # Errors
/// A line for each setting that is wrong.
pub fn inspected(
    kafka_args: &KafkaArgs,
    database_args: &DatabaseArgs,
    consumer_group: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<status::Settings, ConfigError> {
    let mut wrong = Vec::new();
    let kafka = kafka(kafka_args, environment).map_err(|error| wrong.extend(error.0));
    let database = database(database_args).map_err(|error| wrong.extend(error.0));
    if consumer_group.is_empty() {
        wrong.push("CONSUMER_GROUP: expected a name".to_owned());
    }
    let (Ok(kafka), Ok(database), true) = (kafka, database, wrong.is_empty()) else {
        return Err(ConfigError(wrong));
    };
    let (topic, group) = (kafka_args.leads_topic.clone(), consumer_group.to_owned());
    Ok(status::Settings { kafka, topic, group, database })
}

impl RunConfig {
    /// Checks the settings of `run`, given the environment.
    ///
    /// # Errors
    /// A line for each that is wrong.
    pub fn new(
        args: RunArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let RunArgs {
            kafka: kafka_args,
            database: database_args,
            consumer_group,
            metrics_listen,
            projection,
            dlq_max,
            dlq_window,
        } = args;
        let mut wrong = Vec::new();
        let kafka = kafka(&kafka_args, environment).map_err(|error| wrong.extend(error.0));
        let database = database(&database_args).map_err(|error| wrong.extend(error.0));
        if consumer_group.is_empty() {
            wrong.push("CONSUMER_GROUP: expected a name".to_owned());
        }
        if dlq_window.is_zero() {
            wrong.push("DLQ_WINDOW: expected a time above 0; DLQ_MAX=0 is no limit".to_owned());
        }
        let (Ok(kafka), Ok(database), true) = (kafka, database, wrong.is_empty()) else {
            return Err(ConfigError(wrong));
        };
        Ok(Self {
            kafka,
            topic: kafka_args.leads_topic,
            database,
            group: consumer_group,
            metrics_listen,
            limits: limits(&projection),
            lanes: projection.projection_lanes as usize,
            dlq_max,
            dlq_window,
        })
    }
}
