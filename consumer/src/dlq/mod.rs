//! `leads-consumer dlq list|show|redrive`: dead letters of the live generation.

mod list;
mod redrive;
mod show;
mod text;

use std::io::{self, Write};

use chrono::{DateTime, Utc};
use leads_shared::Timestamp;

use crate::cli::{DlqArgs, DlqCommand, Place};
use crate::config::{self, ConfigError, Database};
use crate::connection::{Connection, Unreachable};
use crate::failure::Failure;
use crate::{migrate, store};

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum DlqError {
    /// Wrong configuration: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The output can't be written.
    #[error("the output can't be written: {0}")]
    Output(#[from] io::Error),
    /// The work failed: exit code 1.
    #[error("{0}")]
    Failed(String),
}

impl From<Failure> for DlqError {
    fn from(failure: Failure) -> Self {
        Self::Failed(match failure {
            Failure::Halt(halt) => halt.to_string(),
            Failure::Retry { cause: "connection", error } => {
                format!("PostgreSQL: {error}; is DATABASE_URL right?")
            }
            Failure::Retry { error, .. } | Failure::Data { error } => {
                format!("PostgreSQL: {error}; run it again, what was done is done")
            }
            Failure::Fenced | Failure::Again => {
                "another generation became the live one; run it again".to_owned()
            }
        })
    }
}

impl From<Unreachable> for DlqError {
    fn from(error: Unreachable) -> Self {
        Failure::from(error).into()
    }
}

impl From<tokio_postgres::Error> for DlqError {
    fn from(error: tokio_postgres::Error) -> Self {
        Failure::from(error).into()
    }
}

/// Runs a command; what it has to say goes to `out`.
///
/// # Errors
/// See [`DlqError`].
pub async fn run(command: &DlqCommand, out: &mut impl Write) -> Result<(), DlqError> {
    let common = match command {
        DlqCommand::List(args) => &args.common,
        DlqCommand::Show(args) => &args.common,
        DlqCommand::Redrive(args) => &args.common,
    };
    let reader = Reader::open(common).await?;
    match command {
        DlqCommand::List(args) => list::run(&reader, args, out).await,
        DlqCommand::Show(args) => show::run(&reader, args, out).await,
        DlqCommand::Redrive(args) => redrive::run(&reader, args, out).await,
    }
}

/// A connection, and which dead letters are meant.
struct Reader<'a> {
    database: Database,
    client: Connection,
    generation: i32,
    topic: &'a str,
    json: bool,
}

impl<'a> Reader<'a> {
    async fn open(args: &'a DlqArgs) -> Result<Self, DlqError> {
        let DlqArgs { database, leads_topic, json } = args;
        config::topic_name(leads_topic)
            .map_err(|why| ConfigError(vec![format!("LEADS_TOPIC: {why}")]))?;
        let mut database = config::database(database)?;
        database.config.application_name("leads-consumer dlq");
        migrate::check(&database).await?;
        let client = Connection::open(&database.config, &database.tls).await?;
        client.batch_execute("SET statement_timeout = '60s'").await?;
        let generation = store::live_generation(&client).await?;
        Ok(Self { database, client, generation, topic: leads_topic, json: *json })
    }

    fn not_found(&self, place: Place) -> DlqError {
        let Place { partition, offset } = place;
        DlqError::Failed(format!(
            "there is no dead letter {partition}:{offset} of {}; `leads-consumer dlq list --all` \
             shows them",
            self.topic
        ))
    }
}

fn time(time: DateTime<Utc>) -> String {
    Timestamp::from(time).to_string()
}

/// Writes a value as a line of JSON.
fn json_line(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), DlqError> {
    let line = serde_json::to_string(value).map_err(io::Error::other)?;
    Ok(writeln!(out, "{line}")?)
}
