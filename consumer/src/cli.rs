//! The command line. `--help` is the reference.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand};
use leads_shared::topic;
use uuid::Uuid;

use crate::projection::Reason;
use crate::source;

/// Projects the log of leads into PostgreSQL.
///
/// Any librdkafka property can be set as `KAFKA_<PROPERTY_WITH_UNDERSCORES>`, such as
/// `KAFKA_SECURITY_PROTOCOL=SASL_SSL`; those that would break a promise are refused by name.
///
/// `OTEL_EXPORTER_OTLP_ENDPOINT` turns traces on; the other `OTEL_*` variables hold as everywhere.
///
/// Exit codes: 0 done; 1 the check or the work failed; 2 wrong usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "leads-consumer", version, long_version = long_version())]
pub struct Cli {
    /// What to log: a level, or directives such as `info,librdkafka=debug`.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", global = true)]
    pub log_level: String,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `--version` tells; `-V` tells the version alone.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let kafka = source::librdkafka_version();
        leads_version::long(&[
            ("librdkafka", &kafka),
            ("openssl", leads_postgres::openssl_version()),
        ])
    });
    &TEXT
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Project events into the read model until stopped.
    Run(RunArgs),
    /// Bring the database's schema to this version. Safe to run twice, and by several at once.
    Migrate(DatabaseArgs),
    /// Create the topics, or check those that are there. Never changes an existing topic.
    Topics(TopicsArgs),
    /// Tell how the projection stands: lag, rate, generations, dead letters, consumers. Exit code 0
    /// when healthy; 1 when something is wrong, which the last lines name with the next command.
    Status(StatusArgs),
    /// Check everything that can be wrong, and tell what to do about it. Changes nothing, and takes
    /// about fifteen seconds at most. Exit code 0 without failures; 1 with.
    Doctor(DoctorArgs),
    /// Build the read model anew from the log, beside the one that serves, and swap it in.
    ///
    /// Reads, posts and the live projection go on. Interrupted, it goes on where it was. The
    /// generation that was live is kept for `rebuild rollback` until the next rebuild.
    Rebuild(RebuildArgs),
    /// Look at the records that could not be projected, and project them after all.
    #[command(subcommand)]
    Dlq(DlqCommand),
}

/// How to reach PostgreSQL.
#[derive(Debug, Args)]
pub struct DatabaseArgs {
    /// Where the read model is: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. `?sslmode=` takes
    /// disable, prefer (the default), require, verify-ca and verify-full; from require on the
    /// server's certificate is verified, against the system's authorities or `&sslrootcert=FILE`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: String,
    /// Trusted certificates (PEM) for PostgreSQL, unless the URL has `sslrootcert`.
    #[arg(long, env = "PGSSLROOTCERT")]
    pub database_root_cert: Option<std::path::PathBuf>,
}

/// How to reach Kafka, and which topic holds the log.
#[derive(Debug, Args)]
pub struct KafkaArgs {
    /// Kafka brokers to start from: `host:port`, comma-separated.
    #[arg(long, env = "KAFKA_BROKERS")]
    pub kafka_brokers: String,
    /// The topic of events; dead letters go to `<topic>.dlq`.
    #[arg(long, env = "LEADS_TOPIC", default_value = topic::EVENTS)]
    pub leads_topic: String,
}

/// What missing offsets do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Gaps {
    /// The projection halts.
    Halt,
    /// They are passed over.
    Pass,
}

/// How the projection works.
#[derive(Debug, Args)]
pub struct ProjectionArgs {
    /// Most records a transaction.
    #[arg(long, env = "BATCH_MAX_RECORDS", default_value = "10000",
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub batch_max_records: u32,
    /// Most bytes of records a transaction, such as 8MiB.
    #[arg(long, env = "BATCH_MAX_BYTES", default_value = "8MiB", value_parser = parse_size)]
    pub batch_max_bytes: usize,
    /// What offsets do that are missing in the log: halt, since records are lost, or pass, for a
    /// topic that a transactional producer writes to as well, whose markers take offsets. Until a
    /// record follows a marker, its partition is one behind.
    #[arg(long, env = "LOG_GAPS", default_value = "halt")]
    pub log_gaps: Gaps,
    /// Transactions side by side, each for partitions of its own and on a connection of its own.
    #[arg(long, env = "PROJECTION_LANES", default_value = "2",
        value_parser = clap::value_parser!(u32).range(1..=16))]
    pub projection_lanes: u32,
}

/// Settings of `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// How to reach Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The group whose members share the partitions.
    #[arg(long, env = "CONSUMER_GROUP", default_value = "leads-projection")]
    pub consumer_group: String,
    /// Where /metrics, /livez and /readyz are served.
    #[arg(long, env = "METRICS_LISTEN", default_value = "0.0.0.0:9465")]
    pub metrics_listen: SocketAddr,
    /// How the projection works.
    #[command(flatten)]
    pub projection: ProjectionArgs,
    /// Most records set aside within `DLQ_WINDOW`, parked ones not counted: with one more the
    /// projection halts, and sets none of that batch aside. 0: no limit.
    #[arg(long, env = "DLQ_MAX", default_value = "100")]
    pub dlq_max: u32,
    /// See `DLQ_MAX`.
    #[arg(long, env = "DLQ_WINDOW", default_value = "60s", value_parser = humantime::parse_duration)]
    pub dlq_window: Duration,
}

/// Settings of `rebuild`.
#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// How to reach Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// Where the read model is; see `leads-consumer run --help`.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// Trusted certificates (PEM) for PostgreSQL, unless the URL has `sslrootcert`.
    #[arg(long, env = "PGSSLROOTCERT")]
    pub database_root_cert: Option<std::path::PathBuf>,
    /// How the projection works.
    #[command(flatten)]
    pub projection: ProjectionArgs,
    /// Don't ask. Needed off a terminal.
    #[arg(long, global = true)]
    pub yes: bool,
    /// Swap also when the new generation is not like the live one, without comparing them: after a
    /// version that reads events better, or when the live one is known to be wrong.
    #[arg(long)]
    pub accept_differences: bool,
    /// Begin also when PostgreSQL's disk looks too small for it.
    #[arg(long)]
    pub no_disk_check: bool,
    /// Build in this database instead, which is empty: gives it its schema, fills it from the log and
    /// leaves it ready to serve. After a disaster.
    #[arg(long, value_name = "URL")]
    pub into_new_database: Option<String>,
    /// Something else than building.
    #[command(subcommand)]
    pub action: Option<RebuildAction>,
}

/// What else there is to do with generations.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum RebuildAction {
    /// Make the generation that was live before live again, brought to the log's end first.
    Rollback,
    /// Drop the generation that is being built.
    Discard {
        /// Drop the one kept for a rollback instead.
        #[arg(long)]
        previous: bool,
    },
}

/// Settings of `topics`.
#[derive(Debug, Args)]
pub struct TopicsArgs {
    /// How to reach Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// The topic of API keys.
    #[arg(long, env = "LEADS_ACCESS_TOPIC", default_value = topic::ACCESS)]
    pub leads_access_topic: String,
    /// Partitions of a new events topic. Fixed for its life: growing it would move keys.
    #[arg(long, env = "TOPIC_PARTITIONS", default_value_t = topic::DEFAULT_PARTITIONS,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,
    /// Replicas of new topics; -1 is the broker's default.
    #[arg(long, env = "TOPIC_REPLICATION", default_value_t = -1, allow_negative_numbers = true,
        value_parser = clap::value_parser!(i32).range(-1..=100))]
    pub replication_factor: i32,
    /// `min.insync.replicas` of new topics: how many replicas have a record before it is acknowledged.
    /// By default a majority of --replication-factor from 3 on, else the broker's own.
    #[arg(long, env = "TOPIC_MIN_INSYNC_REPLICAS", value_parser = clap::value_parser!(i32).range(1..=100))]
    pub min_insync_replicas: Option<i32>,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DlqCommand {
    /// Which records wait, oldest first.
    List(DlqListArgs),
    /// Everything about one of them, the lead's contents included.
    Show(DlqShowArgs),
    /// Project them after all, each lead's in the order of the log. Without --yes: only tell what
    /// would come of it. Exit code 1 when any failed again.
    Redrive(DlqRedriveArgs),
}

/// Where the dead letters are.
#[derive(Debug, Args)]
pub struct DlqArgs {
    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The topic of events.
    #[arg(long, env = "LEADS_TOPIC", default_value = topic::EVENTS)]
    pub leads_topic: String,
    /// For scripts: a JSON object a line.
    #[arg(long)]
    pub json: bool,
}

/// Settings of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// How to reach Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The group whose members share the partitions.
    #[arg(long, env = "CONSUMER_GROUP", default_value = "leads-projection")]
    pub consumer_group: String,
    /// A record may wait so long to be projected; longer is a problem.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub max_lag: Duration,
    /// One JSON object on a line.
    #[arg(long)]
    pub json: bool,
    /// Look again and again, so many seconds after the last time, until stopped.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub watch: Option<u64>,
}

/// Settings of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// How to reach Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
    /// How to reach PostgreSQL.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// The group whose members share the partitions.
    #[arg(long, env = "CONSUMER_GROUP", default_value = "leads-projection")]
    pub consumer_group: String,
    /// The topic of API keys.
    #[arg(long, env = "LEADS_ACCESS_TOPIC", default_value = topic::ACCESS)]
    pub leads_access_topic: String,
    /// One JSON object on a line.
    #[arg(long)]
    pub json: bool,
}

/// Settings of `dlq list`.
#[derive(Debug, Args)]
pub struct DlqListArgs {
    /// Where they are.
    #[command(flatten)]
    pub common: DlqArgs,
    /// Only those set aside for this reason.
    #[arg(long, value_parser = reasons())]
    pub reason: Option<String>,
    /// Only those of this lead.
    #[arg(long, value_name = "ID")]
    pub lead: Option<Uuid>,
    /// Also those that were redriven.
    #[arg(long)]
    pub all: bool,
    /// Show this many at most.
    #[arg(long, value_name = "N", default_value = "100",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
}

/// Settings of `dlq show`.
#[derive(Debug, Args)]
pub struct DlqShowArgs {
    /// Where they are.
    #[command(flatten)]
    pub common: DlqArgs,
    /// Which one.
    #[arg(value_name = "PARTITION:OFFSET")]
    pub place: Place,
}

/// Settings of `dlq redrive`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct DlqRedriveArgs {
    /// Where they are.
    #[command(flatten)]
    pub common: DlqArgs,
    /// All that waits of the lead of this record.
    #[arg(value_name = "PARTITION:OFFSET", group = "which")]
    pub place: Option<Place>,
    /// All that waits of this lead.
    #[arg(long, value_name = "ID", group = "which")]
    pub lead: Option<Uuid>,
    /// All that waits.
    #[arg(long, group = "which")]
    pub all: bool,
    /// Do it.
    #[arg(long)]
    pub yes: bool,
}

fn reasons() -> PossibleValuesParser {
    PossibleValuesParser::new(Reason::ALL.map(Reason::name))
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (partition, offset) = text.split_once(':')?;
            Some(Self { partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        let place = read().filter(|place| place.partition >= 0 && place.offset >= 0);
        place.ok_or("expected PARTITION:OFFSET, such as 3:120")
    }
}

/// Reads a number of bytes with an optional unit: `B`, `KiB`, `MiB`, `GiB`.
fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "B" => Some(1),
        "KiB" => Some(1024),
        "MiB" => Some(1024 * 1024),
        "GiB" => Some(1024 * 1024 * 1024),
        _ => None,
    };
    let number = digits.parse::<usize>().ok().filter(|number| *number > 0);
    let size = number.zip(factor).and_then(|(number, factor)| number.checked_mul(factor));
    size.ok_or_else(|| "expected a size such as 512KiB or 8MiB".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn places_are_a_partition_and_an_offset() {
        assert_eq!("3:120".parse(), Ok(Place { partition: 3, offset: 120 }));
        for wrong in ["", "3", "3:", ":1", "-1:2", "1:-2", "1:2:3", "a:1"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("8MiB"), Ok(8 * 1024 * 1024));
        assert_eq!(parse_size("100"), Ok(100));
        for wrong in ["", "MiB", "0", "8MB", "-1", "8 MiB", "99999999999999GiB"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
