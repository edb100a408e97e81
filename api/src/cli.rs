//! The command line. `--help` is the reference of the configuration.

use std::io::{self, Write};
use std::sync::LazyLock;

use clap::{Args, CommandFactory, Parser, Subcommand};
use uuid::Uuid;

use crate::access::{KeyKind, Scope};
use crate::broker;
use crate::config::{KafkaArgs, ServeArgs};

/// Takes leads in over HTTP, publishes them to Kafka and reads them back from PostgreSQL.
///
/// Any librdkafka property can be set as `KAFKA_<PROPERTY_WITH_UNDERSCORES>`, such as
/// `KAFKA_SECURITY_PROTOCOL=SASL_SSL`. Those that would break a promise of the service are refused.
///
/// `OTEL_EXPORTER_OTLP_ENDPOINT` turns traces on; the other `OTEL_*` variables hold as everywhere.
#[derive(Debug, Parser)]
#[command(name = "leads-api", version, long_version = long_version(), max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log: error, warn, info, debug, or by module as in `info,librdkafka=debug`
    #[arg(
        long,
        env = "LOG_LEVEL",
        default_value = "info,actix_server=warn,deadpool=error",
        global = true
    )]
    pub log_level: String,
}

/// What `--version` tells; `-V` tells the version alone.
fn long_version() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| {
        let kafka = broker::librdkafka_version();
        leads_version::long(&[
            ("librdkafka", &kafka),
            ("openssl", leads_postgres::openssl_version()),
        ])
    });
    &TEXT
}

impl Cli {
    /// Reads flags and environment; ends the process when they are wrong or help was asked for.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            // clap names the flag alone, also when the value came from the environment.
            let variables = variables_of(&Self::command(), &error.to_string());
            let _ = error.print();
            if error.use_stderr() && !variables.is_empty() {
                let _ = writeln!(io::stderr(), "In the environment: {}", variables.join(", "));
            }
            std::process::exit(error.exit_code())
        })
    }
}

/// The environment names of the flags that `message` names.
fn variables_of(command: &clap::Command, message: &str) -> Vec<String> {
    let named = command.get_arguments().filter_map(|arg| {
        let (flag, variable) = (arg.get_long()?, arg.get_env()?);
        let is_named = message.contains(&format!("--{flag} <"));
        is_named.then(|| variable.to_string_lossy().into_owned())
    });
    let mut variables: Vec<_> = named.collect();
    for inner in command.get_subcommands() {
        variables.extend(variables_of(inner, message));
    }
    variables.sort();
    variables.dedup();
    variables
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve the API
    Serve(Box<ServeArgs>),
    /// Make, list, revoke and rotate API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Print the `OpenAPI` document
    Openapi,
}

/// The commands about keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key; its text is shown this once
    Create(CreateArgs),
    /// List keys, never their texts
    List(ListArgs),
    /// Revoke a key; holds everywhere within a second
    Revoke(OneKeyArgs),
    /// Replace a key's text; the old one ends at once
    Rotate(OneKeyArgs),
}

/// Options of `keys create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Workspace that the key opens
    #[arg(long, value_name = "UUID")]
    pub workspace: Uuid,
    /// A name for people, at most 255 characters
    #[arg(long)]
    pub name: Option<String>,
    /// Production or development
    #[arg(long, value_enum, default_value = "prod")]
    pub kind: KeyKind,
    /// What the key may do
    #[arg(long, value_delimiter = ',', default_value = "leads:write,leads:read")]
    pub scopes: Vec<Scope>,
    /// Requests a minute and instance; 0 is none [default: 1000 for prod, 100 for dev]
    #[arg(long, value_name = "N")]
    pub rate_limit: Option<u32>,
    /// How and where to write.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of `keys list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only keys of this workspace
    #[arg(long, value_name = "UUID")]
    pub workspace: Option<Uuid>,
    /// Where the last use is read from; left out when it is not set or not there
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<String>,
    /// How and where to write.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// Options of commands about one key.
#[derive(Debug, Args)]
pub struct OneKeyArgs {
    /// The key's id, as `keys list` shows it
    pub id: Uuid,
    /// How and where to write.
    #[command(flatten)]
    pub common: CommonArgs,
}

/// What all commands about keys take.
#[derive(Debug, Args)]
pub struct CommonArgs {
    /// Write JSON, for scripts
    #[arg(long)]
    pub json: bool,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaArgs,
}
