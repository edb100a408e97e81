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
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::told::Told;

const COLUMNS: &str = "id, visitor_id, workspace_id, code, source, created_at, updated_at, \
     properties::text, location::text, identity_id, session_id, summary::text, company_id, version";

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

/// What a list is narrowed to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    /// Equal to the lead's source.
    pub source: Option<String>,
    /// Equal to the lead's code.
    pub code: Option<String>,
    /// Equal to the lead's visitor.
    pub visitor_id: Option<Uuid>,
    /// Created after, exclusively.
    pub created_after: Option<Timestamp>,
    /// Created before, exclusively.
    pub created_before: Option<Timestamp>,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start {
    /// So many leads further down.
    Offset(i64),
    /// Behind the lead of this time and id.
    After(Timestamp, Uuid),
}

/// A page of a list, newest first.
#[derive(Debug)]
pub struct Page {
    /// At most as many as were asked for.
    pub leads: Vec<Lead<'static>>,
    /// Whether more follow.
    pub more: bool,
    /// How many the filter finds in all.
    pub total: i64,
}

/// The pool of connections.
#[derive(Clone)]
pub struct ReadModel {
    pool: Pool,
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
        let pool = Pool::builder(Manager::from_config(config, tls, recycling))
            .max_size(connections)
            .runtime(Runtime::Tokio1)
            // All connections busy is no reason to say that PostgreSQL is away.
            .wait_timeout(Some(Duration::from_secs(2)))
            .create_timeout(Some(Duration::from_secs(1)))
            .recycle_timeout(Some(Duration::from_secs(1)))
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self { pool, events_topic, told: Arc::default() })
    }

    /// One lead of a workspace.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn lead(
        &self,
        workspace_id: Uuid,
        id: Uuid,
    ) -> Result<Option<StoredLead>, ReadModelError> {
        let sql = format!("SELECT {COLUMNS} FROM leads WHERE workspace_id = $1 AND id = $2");
        let rows = self.query(&sql, &[&workspace_id, &id]).await?;
        rows.first().map(stored_lead).transpose()
    }

    /// Whether the projection found that an update came too late for the version it expected.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn precondition_failed(&self, event_id: Uuid) -> Result<bool, ReadModelError> {
        let sql = "SELECT 1 FROM precondition_failures WHERE event_id = $1";
        Ok(!self.query(sql, &[&event_id]).await?.is_empty())
    }

    /// Whether the record at this place of the log waits among the dead letters.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn is_set_aside(&self, partition: i32, offset: i64) -> Result<bool, ReadModelError> {
        let sql = "SELECT 1 FROM dead_letters JOIN projection_generation USING (generation) \
             WHERE state = 'live' AND topic = $1 AND partition = $2 AND \"offset\" = $3 \
             AND redriven_at IS NULL";
        Ok(!self.query(sql, &[&self.events_topic, &partition, &offset]).await?.is_empty())
    }

    /// A page of a workspace's leads: newest first, ties by id.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn list(
        &self,
        workspace_id: Uuid,
        filter: &Filter,
        start: Start,
        limit: i64,
    ) -> Result<Page, ReadModelError> {
        let mut query = Conditions::of(workspace_id, filter);
        let total_sql = total_sql(filter, &query);
        let filter_values = query.values.len();
        let limit_at = query.bind(limit + 1);
        let mut offset = String::new();
        match start {
            Start::Offset(rows) => offset = format!("OFFSET {}", query.bind(rows)),
            Start::After(time, id) => {
                let (time, id) = (query.bind(DateTime::<Utc>::from(time)), query.bind(id));
                query.sql.push(format!("(created_at, id) < ({time}, {id})"));
            }
        }
        let page_sql = format!(
            "SELECT {COLUMNS} FROM leads WHERE {} ORDER BY created_at DESC, id DESC LIMIT {limit_at} {offset}",
            query.text(),
        );
        let client = self.client().await?;
        let values = query.values();
        let (rows, total) = futures_util::future::try_join(
            run(&client, &page_sql, &values),
            run(&client, &total_sql, &values[..filter_values]),
        )
        .await?;
        let limit = usize::try_from(limit).unwrap_or(0);
        let more = rows.len() > limit;
        let leads = rows.iter().take(limit).map(|row| stored_lead(row).map(|stored| stored.lead));
        Ok(Page {
            leads: leads.collect::<Result<_, _>>()?,
            more,
            total: total
                .first()
                .map_or(Ok(0), |row| row.try_get(0))
                .map_err(|error| unavailable(&error))?,
        })
    }

    /// The next offset of each partition of the live projection.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn positions(&self) -> Result<HashMap<i32, i64>, ReadModelError> {
        let sql = "SELECT o.partition, o.next_offset FROM projection_offset o \
             JOIN projection_generation g USING (generation) WHERE g.state = 'live' AND o.topic = $1";
        let rows = self.query(sql, &[&self.events_topic]).await?;
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

    async fn query(
        &self,
        sql: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ReadModelError> {
        run(&self.client().await?, sql, values).await
    }

    async fn client(&self) -> Result<Object, ReadModelError> {
        match self.pool.get().await {
            Ok(client) => {
                if self.told.over() {
                    tracing::info!("postgresql is up");
                }
                Ok(client)
            }
            Err(error) => {
                self.tell(&error);
                Err(ReadModelError::Unavailable)
            }
        }
    }

    /// A wrong certificate or password is met by every read: each cause is told once.
    fn tell(&self, error: &PoolError) {
        let cause = match error {
            // Many reads at once; PostgreSQL may be well.
            PoolError::Timeout(TimeoutType::Wait) => {
                return tracing::debug!(%error, "no connection to PostgreSQL");
            }
            PoolError::Backend(error) => match error.source() {
                Some(source) => format!("{error}: {source}"),
                None => error.to_string(),
            },
            _ => error.to_string(),
        };
        if self.told.is_news(&cause) {
            tracing::warn!(cause, "postgresql is away: reads are answered with 503");
        }
    }
}

/// The conditions of a list and their values. The text depends on which filters are given, never on
/// what they say.
struct Conditions {
    sql: Vec<String>,
    values: Vec<Box<dyn ToSql + Sync + Send>>,
}

impl Conditions {
    fn of(workspace_id: Uuid, filter: &Filter) -> Self {
        let Filter { source, code, visitor_id, created_after, created_before } = filter;
        let mut conditions = Self { sql: Vec::new(), values: Vec::new() };
        conditions.and("workspace_id =", Some(workspace_id));
        conditions.and("source =", source.clone());
        conditions.and("code =", code.clone());
        conditions.and("visitor_id =", *visitor_id);
        conditions.and("created_at >", created_after.map(DateTime::<Utc>::from));
        conditions.and("created_at <", created_before.map(DateTime::<Utc>::from));
        conditions
    }

    fn and(&mut self, left: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            let placeholder = self.bind(value);
            self.sql.push(format!("{left} {placeholder}"));
        }
    }

    fn bind(&mut self, value: impl ToSql + Sync + Send + 'static) -> String {
        self.values.push(Box::new(value));
        format!("${}", self.values.len())
    }

    fn text(&self) -> String {
        self.sql.join(" AND ")
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

/// The totals of a workspace, of a source and of a code are kept by the projection; others are
/// counted through the indexes.
fn total_sql(filter: &Filter, conditions: &Conditions) -> String {
    const SUM: &str = "SELECT COALESCE(SUM(leads), 0)::bigint FROM";
    let Filter { source, code, visitor_id, created_after, created_before } = filter;
    let others = visitor_id.is_some() || created_after.is_some() || created_before.is_some();
    match (source, code) {
        (None, None) if !others => format!("{SUM} lead_counts WHERE workspace_id = $1"),
        (Some(_), None) | (None, Some(_)) if !others => {
            let field = if source.is_some() { "source" } else { "code" };
            format!(
                "{SUM} lead_value_counts WHERE workspace_id = $1 AND field = '{field}' AND value = $2"
            )
        }
        _ => format!("SELECT COUNT(*) FROM leads WHERE {}", conditions.text()),
    }
}

async fn run(
    client: &Object,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<Vec<Row>, ReadModelError> {
    let statement = client.prepare_cached(sql).await.map_err(|error| unavailable(&error))?;
    client.query(&statement, values).await.map_err(|error| unavailable(&error))
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
