//! How the projection stands, by PostgreSQL's word.

use chrono::{DateTime, Utc};
use leads_postgres::rebuild::is_abandoned;
use tokio_postgres::{Client, Error, Row};
use uuid::Uuid;

/// A generation of the read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub number: i32,
    /// `live`, `building` or `previous`.
    pub state: String,
    /// Who builds it, as HOST:PID.
    pub builder: Option<String>,
    /// Whether it is half built and nobody is at it.
    pub abandoned: bool,
    /// When it became live the last time.
    pub live_since: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// How far a partition is projected in a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offset {
    /// The generation.
    pub generation: i32,
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to apply.
    pub next: i64,
    /// The event id of the record before it.
    pub last_event_id: Option<Uuid>,
    /// Whether a swap has closed it.
    pub sealed: bool,
}

/// Dead letters of one reason that wait in the live generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why they were set aside.
    pub reason: String,
    /// How many.
    pub count: i64,
    /// When the oldest was set aside.
    pub oldest: DateTime<Utc>,
}

/// Dead letters of the live generation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeadLetters {
    /// Those that no redrive has projected yet, by reason.
    pub waiting: Vec<Waiting>,
    /// Those that the dead letter topic has not acknowledged.
    pub pending_export: i64,
}

/// All generations, the oldest first.
///
/// # Errors
/// PostgreSQL's.
pub async fn generations(client: &Client) -> Result<Vec<Generation>, Error> {
    let query = format!(
        "SELECT generation, state, builder, live_since, created_at, {}
         FROM projection_generation AS g ORDER BY generation",
        is_abandoned()
    );
    let read = |row: &Row| {
        Ok(Generation {
            number: row.try_get(0)?,
            state: row.try_get(1)?,
            builder: row.try_get(2)?,
            live_since: row.try_get(3)?,
            created_at: row.try_get(4)?,
            abandoned: row.try_get(5)?,
        })
    };
    client.query(&query, &[]).await?.iter().map(read).collect()
}

/// How far `topic` is projected in all generations.
///
/// # Errors
/// PostgreSQL's.
pub async fn offsets(client: &Client, topic: &str) -> Result<Vec<Offset>, Error> {
    let query = "SELECT generation, partition, next_offset, last_event_id, sealed
         FROM projection_offset WHERE topic = $1 ORDER BY generation, partition";
    let read = |row: &Row| {
        Ok(Offset {
            generation: row.try_get(0)?,
            partition: row.try_get(1)?,
            next: row.try_get(2)?,
            last_event_id: row.try_get(3)?,
            sealed: row.try_get(4)?,
        })
    };
    client.query(query, &[&topic]).await?.iter().map(read).collect()
}

/// The dead letters of the live generation.
///
/// # Errors
/// PostgreSQL's.
pub async fn dead_letters(client: &Client, topic: &str) -> Result<DeadLetters, Error> {
    let waiting = "SELECT reason, count(*), min(dead_at)
         FROM dead_letters JOIN projection_generation USING (generation)
         WHERE topic = $1 AND redriven_at IS NULL AND state = 'live'
         GROUP BY reason ORDER BY count(*) DESC, reason";
    let pending = "SELECT count(*) FROM dead_letters JOIN projection_generation USING (generation)
         WHERE topic = $1 AND exported_at IS NULL AND state = 'live'";
    let read = |row: &Row| {
        Ok(Waiting { reason: row.try_get(0)?, count: row.try_get(1)?, oldest: row.try_get(2)? })
    };
    let waiting: Result<_, Error> =
        client.query(waiting, &[&topic]).await?.iter().map(read).collect();
    let pending_export = client.query_one(pending, &[&topic]).await?.try_get(0)?;
    Ok(DeadLetters { waiting: waiting?, pending_export })
}
