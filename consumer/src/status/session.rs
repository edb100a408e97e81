//! A connection that looks and never writes: every question of it ends soon.

use std::time::Duration;

use crate::config::Database;
use crate::connection::{Connection, Unreachable};
use crate::failure::{Failure, Halt};

/// How long PostgreSQL may take to let us in.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question that waits for a lock is given up before one that takes long.
const SETTINGS: &str = "
    SET statement_timeout = '4s';
    SET lock_timeout = '2s';
    SET idle_in_transaction_session_timeout = '10s'";

/// A failure with the command that helps.
pub fn explain(failure: impl Into<Failure>) -> Halt {
    match failure.into() {
        Failure::Halt(halt) => halt,
        Failure::Retry { error, .. } | Failure::Data { error } => {
            Halt::new(error, "leads-consumer doctor")
        }
        other @ (Failure::Fenced | Failure::Again) => {
            Halt::new(other.to_string(), "leads-consumer doctor")
        }
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
            Ok::<_, Unreachable>(session)
        };
        match tokio::time::timeout(PATIENCE, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(Unreachable::Silent(PATIENCE)),
        }
    }
}
