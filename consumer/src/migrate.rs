//! The schema of the database: bringing it to this version, and checking that it is.

use std::collections::BTreeMap;

use crate::config::Database;
use crate::connection::{Connection, Unreachable};
use crate::failure::{Failure, Halt, classify};

mod embedded {
    refinery::embed_migrations!("../migrations");
}

/// Held while migrations are applied, so that two at once come one after the other: refinery itself
/// locks nothing. The number is "leads" in ASCII.
const LOCK: i64 = 0x6c_65_61_64_73;

/// The schema could not be brought to this version.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// PostgreSQL can't be reached, or refused.
    #[error("{0}")]
    Postgres(String),
    /// A newer leads-consumer was here.
    #[error(
        "the database's schema has version {found}, newer than the {known} known here; use the newer leads-consumer"
    )]
    Newer {
        /// The database's version.
        found: i32,
        /// The newest version known here.
        known: i32,
    },
    /// A migration failed or is not the one that was applied.
    #[error("{0}")]
    Migration(String),
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        classify(&error).into()
    }
}

impl From<Unreachable> for MigrateError {
    fn from(error: Unreachable) -> Self {
        Failure::from(error).into()
    }
}

impl From<Failure> for MigrateError {
    fn from(failure: Failure) -> Self {
        Self::Postgres(failure.to_string())
    }
}

/// Applies what is missing; gives the names of what was applied.
///
/// # Errors
/// See [`MigrateError`].
pub async fn migrate(database: &Database) -> Result<Vec<String>, MigrateError> {
    let Database { config, tls } = database;
    let mut client = Connection::named(config, tls, "leads-consumer migrate").await?;
    // The lock ends with the connection. It is taken on it, and refinery works on the same one.
    client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    let found = version(&client).await?;
    if found > known() {
        return Err(MigrateError::Newer { found, known: known() });
    }
    let report = embedded::migrations::runner()
        .set_abort_divergent(true)
        .set_abort_missing(true)
        .run_async(&mut *client)
        .await
        .map_err(|error| MigrateError::Migration(error.to_string()))?;
    client.close().await;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

/// The newest schema version known here.
pub fn known() -> i32 {
    let migrations = embedded::migrations::runner();
    let versions = migrations.get_migrations().iter().map(|it| (it.version(), it.name()));
    versions.collect::<BTreeMap<_, _>>().into_keys().next_back().unwrap_or(0)
}

/// The database's schema version; 0 when it has none.
pub(crate) async fn version(client: &tokio_postgres::Client) -> Result<i32, tokio_postgres::Error> {
    let exists = client.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[]);
    if !exists.await?.try_get::<_, bool>(0)? {
        return Ok(0);
    }
    let latest = "SELECT COALESCE(MAX(version), 0) FROM refinery_schema_history";
    client.query_one(latest, &[]).await?.try_get(0)
}

/// Checks that the database has the schema of this version.
///
/// # Errors
/// [`Failure::Halt`] when it has another; otherwise what PostgreSQL says.
pub async fn check(database: &Database) -> Result<(), Failure> {
    let client = Connection::open(&database.config, &database.tls).await?;
    let found = version(&client).await;
    client.close().await;
    let (found, known) = (found?, known());
    match found.cmp(&known) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Less => Err(Failure::Halt(Halt::new(
            format!("the database's schema has version {found}, this version needs {known}"),
            "run `leads-consumer migrate`",
        ))),
        std::cmp::Ordering::Greater => Err(Failure::Halt(Halt::new(
            format!("the database's schema has version {found}, newer than the {known} known here"),
            "run the leads-consumer that ran `leads-consumer migrate`",
        ))),
    }
}
