//! Reads from PostgreSQL. The only SQL of the API; nothing that takes leads in comes here.

use std::collections::HashMap;
use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, TimeoutType,
};
use leads_shared::{Json, Lead, Timestamp};
use postgres_openssl::MakeTlsConnector;
use tokio::time::Instant;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::told::Told;

mod list;
mod system;

pub use list::{Filter, Page, Start};
pub use system::{
    Building, DeadLetter, DeadLetterFigures, DeadLetterPlace, FailedRedrive, Projection, Standing,
    WhichDeadLetters,
};

const COLUMNS: &str = "id, visitor_id, workspace_id, code, source, created_at, updated_at, \
     properties::text, location::text, identity_id, session_id, summary::text, company_id, version";

/// The longest wait for a connection to be made.
const CONNECT: Duration = Duration::from_secs(1);
/// The longest wait for an answer, connecting included. The server gives a statement up after five
/// seconds; one that is frozen, or behind a proxy that has lost it, gives up nothing.
const ANSWER: Duration = Duration::from_secs(6);
/// A read of one row has at least so much of it, however little is left of its request's time.
const LEAST: Duration = Duration::from_secs(1);

/// Why a read has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadModelError {
    /// PostgreSQL can't be reached, or can't answer.
    #[error("the read model can't be reached")]
    Unavailable,
    /// The projection did not reach the wanted offset in time.
    #[error("the read model is behind the log")]
    Behind,
}

/// A lead and its version.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredLead {
    /// The lead.
    pub lead: Lead<'static>,
    /// How many events took effect; the entity tag.
    pub version: i64,
}

/// The pool of connections.
#[derive(Clone)]
pub struct ReadModel {
    pool: Pool,
    tls: MakeTlsConnector,
    events_topic: String,
    told: Arc<Told>,
}

impl ReadModel {
    /// A pool that connects when it is first used: PostgreSQL need not be there.
    ///
    /// # Errors
    /// When the pool can't be built.
    pub fn new(
        config: tokio_postgres::Config,
        tls: MakeTlsConnector,
        connections: usize,
        events_topic: String,
    ) -> Result<Self, String> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let pool = Pool::builder(Manager::from_config(config, tls.clone(), recycling))
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            // All connections busy is no reason to say that PostgreSQL is away.
            .wait_timeout(Some(Duration::from_secs(2)))
            .create_timeout(Some(CONNECT))
            .recycle_timeout(Some(CONNECT))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { pool, tls, events_topic, told: Arc::default() })
    }

    /// One lead of a workspace.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn lead(
        &self,
        workspace_id: Uuid,
        id: Uuid,
        deadline: Instant,
    ) -> Result<Option<StoredLead>, ReadModelError> {
        let sql = format!("SELECT {COLUMNS} FROM leads WHERE workspace_id = $1 AND id = $2");
        let rows = self.query_by(deadline, &sql, &[&workspace_id, &id]).await?;
        rows.first().map(stored_lead).transpose()
    }

    /// Whether the projection found that an update came too late for the version it expected.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn precondition_failed(
        &self,
        event_id: Uuid,
        deadline: Instant,
    ) -> Result<bool, ReadModelError> {
        let sql = "SELECT 1 FROM precondition_failures WHERE event_id = $1";
        Ok(!self.query_by(deadline, sql, &[&event_id]).await?.is_empty())
    }

    /// Whether the record at this place of the log waits among the dead letters.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn is_set_aside(
        &self,
        partition: i32,
        offset: i64,
        deadline: Instant,
    ) -> Result<bool, ReadModelError> {
        let sql = "SELECT 1 FROM dead_letters JOIN projection_generation USING (generation) \
             WHERE state = 'live' AND topic = $1 AND partition = $2 AND \"offset\" = $3 \
             AND redriven_at IS NULL";
        let place: [&(dyn ToSql + Sync); 3] = [&self.events_topic, &partition, &offset];
        Ok(!self.query_by(deadline, sql, &place).await?.is_empty())
    }

    /// The next offset of each partition of the live projection.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn positions(&self) -> Result<HashMap<i32, i64>, ReadModelError> {
        let sql = "SELECT o.partition, o.next_offset FROM projection_offset o \
             JOIN projection_generation g USING (generation) WHERE g.state = 'live' AND o.topic = $1";
        let rows = self.query_by(Instant::now(), sql, &[&self.events_topic]).await?;
        let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.iter().map(pair).collect::<Result<_, _>>().map_err(|error| unavailable(&error))
    }

    /// Whether PostgreSQL answers.
    pub async fn is_up(&self) -> bool {
        let ask = self.query("SELECT 1", &[]);
        matches!(tokio::time::timeout(Duration::from_millis(500), ask).await, Ok(Ok(_)))
    }

    /// Notes when keys were last used, by key id and Unix milliseconds.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn note_key_uses(&self, uses: &[(Uuid, i64)]) -> Result<(), ReadModelError> {
        let ids: Vec<String> = uses.iter().map(|(id, _)| id.to_string()).collect();
        let times: Vec<Option<DateTime<Utc>>> =
            uses.iter().map(|(_, at)| DateTime::from_timestamp_millis(*at)).collect();
        let sql = "INSERT INTO access_key_usage (key_id, last_used_at) \
             SELECT * FROM UNNEST($1::text[], $2::timestamptz[]) AS used (key_id, last_used_at) \
             WHERE last_used_at IS NOT NULL \
             ON CONFLICT (key_id) DO UPDATE SET last_used_at = \
             GREATEST(access_key_usage.last_used_at, EXCLUDED.last_used_at)";
        self.query(sql, &[&ids, &times]).await.map(drop)
    }

    /// When each key was last used.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn key_uses(&self) -> Result<HashMap<String, Timestamp>, ReadModelError> {
        let rows = self.query("SELECT key_id, last_used_at FROM access_key_usage", &[]).await?;
        let pair =
            |row: &Row| Ok((row.try_get(0)?, Timestamp::from(row.try_get::<_, DateTime<Utc>>(1)?)));
        rows.iter().map(pair).collect::<Result<_, _>>().map_err(|error| unavailable(&error))
    }

    /// Why PostgreSQL can't be reached, while it can't.
    pub fn trouble(&self) -> Option<String> {
        self.told.what()
    }

    async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ReadModelError> {
        let deadline = Instant::now() + ANSWER;
        let client = self.client(deadline).await?;
        let rows = run(&client, deadline, sql, values).await;
        self.settle(client, rows)
    }

    /// Of one row, or few: `deadline` is its request's.
    async fn query_by(
        &self,
        deadline: Instant,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ReadModelError> {
        let deadline = deadline.max(Instant::now() + LEAST);
        let client = self.client(deadline).await?;
        let rows = run(&client, deadline, sql, values).await;
        self.settle(client, rows)
    }

    async fn client(&self, deadline: Instant) -> Result<Object, ReadModelError> {
        match tokio::time::timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(error)) => {
                self.tell(&error);
                Err(ReadModelError::Unavailable)
            }
            Err(_) => Err(ReadModelError::Unavailable),
        }
    }

    /// What came of reads with `client`. A connection that says nothing is not used again.
    fn settle<T>(&self, client: Object, read: Result<T, Trouble>) -> Result<T, ReadModelError> {
        match read {
            Ok(read) => {
                if self.told.over() {
                    tracing::info!("postgresql is up");
                }
                return Ok(read);
            }
            Err(Trouble::Refused(error)) => return Err(unavailable(&error)),
            Err(Trouble::Silent) => {}
        }
        // It may be at work on it all the same, and would hold its place at the server.
        let (cancel, tls) = (client.cancel_token(), self.tls.clone());
        drop(Object::take(client));
        tokio::spawn(async move {
            let _ = tokio::time::timeout(CONNECT, cancel.cancel_query(tls)).await;
        });
        self.tell_once("no answer in time");
        Err(ReadModelError::Unavailable)
    }

    /// A wrong certificate or password is met by every read: each cause is told once.
    fn tell(&self, error: &PoolError) {
        let cause = match error {
            // Many reads at once; PostgreSQL may be well.
            PoolError::Timeout(TimeoutType::Wait) => {
                return tracing::debug!(%error, "no connection to PostgreSQL");
            }
            PoolError::Timeout(_) => format!("no answer within {CONNECT:?}"),
            PoolError::Backend(error) => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            _ => error.to_string(),
        };
        self.tell_once(&cause);
    }

    fn tell_once(&self, cause: &str) {
        if self.told.is_news(cause) {
            tracing::warn!(cause, "postgresql is away: reads are answered with 503");
        }
    }
}

/// Why a statement has no answer.
enum Trouble {
    Refused(tokio_postgres::Error),
    /// Neither an answer nor an end of the connection.
    Silent,
}

impl From<tokio_postgres::Error> for Trouble {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Refused(error)
    }
}

async fn run(
    client: &Object,
    deadline: Instant,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, Trouble> {
    let answer = async {
        let statement = client.prepare_cached(sql).await?;
        client.query(&statement, values).await
    };
    Ok(tokio::time::timeout_at(deadline, answer).await.map_err(|_| Trouble::Silent)??)
}

/// What PostgreSQL says may quote a row; the log gets the code only.
fn unavailable(error: &tokio_postgres::Error) -> ReadModelError {
    if let Some(code) = error.code() {
        tracing::error!(sqlstate = code.code(), "a read was refused by PostgreSQL");
    } else {
        tracing::debug!(%error, "the connection to PostgreSQL was lost");
    }
    ReadModelError::Unavailable
}

fn stored_lead(row: &Row) -> Result<StoredLead, ReadModelError> {
    read_row(row).map_err(|error| unavailable(&error))
}

fn read_row(row: &Row) -> Result<StoredLead, tokio_postgres::Error> {
    let text =
        |i| Ok::<_, tokio_postgres::Error>(row.try_get::<_, Option<String>>(i)?.map(Into::into));
    // PostgreSQL writes jsonb as JSON: what can't be read back is not there.
    let json = |i| {
        let text: Option<String> = row.try_get(i)?;
        Ok::<_, tokio_postgres::Error>(text.and_then(|text| Json::from_string(text).ok()))
    };
    let time =
        |i| Ok::<_, tokio_postgres::Error>(Timestamp::from(row.try_get::<_, DateTime<Utc>>(i)?));
    Ok(StoredLead {
        lead: Lead {
            id: row.try_get(0)?,
            visitor_id: row.try_get(1)?,
            workspace_id: row.try_get(2)?,
            code: text(3)?,
            source: text(4)?,
            created_at: time(5)?,
            updated_at: time(6)?,
            properties: json(7)?,
            location: json(8)?,
            identity_id: row.try_get(9)?,
            session_id: row.try_get(10)?,
            summary: json(11)?,
            company_id: row.try_get(12)?,
        },
        version: row.try_get(13)?,
    })
}
