//! A connection that looks and never writes: every question of it ends soon.

use std::time::Duration;

use tokio_postgres::Error;

use crate::config::Database;
use crate::connection::Connection;
use crate::failure::{Failure, Halt, classify, describe};

/// How long PostgreSQL may take to let us in.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question that waits for a lock is given up before one that takes long.
const SETTINGS: &str = "
    SET statement_timeout = '4s';
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '10s'";

/// PostgreSQL can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// By its own word, or that of the connection.
    #[error("{}", crate::failure::describe(.0))]
    Postgres(#[from] Error),
    /// It holds the connection and says nothing.
    #[error("PostgreSQL does not answer within {} s", PATIENCE.as_secs())]
    Silent,
}

impl Unreachable {
    /// The same with what to do about it.
    pub fn explain(&self) -> Halt {
        match self {
            Self::Postgres(error) => explain(error),
            Self::Silent => Halt::new(self.to_string(), "leads-consumer doctor"),
        }
    }
}

/// An error of PostgreSQL with the command that helps.
pub fn explain(error: &Error) -> Halt {
    match classify(error) {
        Failure::Halt(halt) => halt,
        Failure::Retry { error, .. } | Failure::Data { error } => {
            Halt::new(error, "leads-consumer doctor")
        }
        Failure::Fenced | Failure::Again => Halt::new(describe(error), "leads-consumer doctor"),
    }
}

/// A connection; it is closed with it.
pub struct Session {
    /// To ask.
    pub client: Connection,
}

impl Session {
    /// Connects under a name that `pg_stat_activity` shows.
    ///
    /// # Errors
    /// See [`Unreachable`]; it takes five seconds at most.
    pub async fn open(database: &Database, name: &str) -> Result<Self, Unreachable> {
        let connect = async {
            let client = Connection::named(&database.config, &database.tls, name).await?;
            let session = Self { client };
            session.client.batch_execute(SETTINGS).await?;
            Ok::<_, Error>(session)
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(Unreachable::Silent),
        }
    }
}
