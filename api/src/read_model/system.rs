//! How the projection stands, and its dead letters.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use chrono::{DateTime, Utc};
use leads_postgres::rebuild::is_abandoned;
use leads_shared::{Timestamp, headers};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_postgres::{Error, Row};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{ANSWER, ReadModel, ReadModelError, run, unavailable};

/// How the projection stands.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Standing {
    /// What reads see; none before the first consumer ran.
    pub live: Option<Projection>,
    /// What a rebuild fills.
    pub building: Option<Building>,
    /// The live one's dead letters.
    pub dead_letters: DeadLetterFigures,
}

/// A generation, and how far it is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Projection {
    /// Its number.
    pub generation: i32,
    /// The offset of the next record to project, by partition.
    pub next: BTreeMap<i32, i64>,
}

/// A generation that is being built.
#[derive(Debug, Clone, PartialEq)]
pub struct Building {
    /// How far it is.
    pub projection: Projection,
    /// Who builds it, as HOST:PID.
    pub builder: Option<String>,
    /// Whether nobody is at it any more.
    pub abandoned: bool,
    /// When it was begun.
    pub started_at: Timestamp,
}

/// Dead letters that wait.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeadLetterFigures {
    /// How many by reason, the most first.
    pub by_reason: Vec<(String, i64)>,
    /// When the oldest was set aside.
    pub oldest_at: Option<Timestamp>,
}

/// Which dead letters are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichDeadLetters {
    /// Those that no redrive has projected.
    Waiting,
    /// Redriven ones too.
    All,
}

/// Where a page of dead letters begins: behind this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetterPlace {
    /// When it was set aside, in Unix microseconds.
    pub dead_at_micros: i64,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
}

/// A record that can't be projected. Never what is in it.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it stands among the others.
    pub place: DeadLetterPlace,
    /// When it was set aside.
    pub dead_at: Timestamp,
    /// The lead by the record's key.
    pub lead_id: Option<Uuid>,
    /// The workspace by the record's headers.
    pub workspace_id: Option<Uuid>,
    /// Why it was set aside.
    pub reason: String,
    /// The cause in words.
    pub error: String,
    /// Whether later events of the lead wait for it.
    pub holds_lead: bool,
    /// The record's own time.
    pub record_time: Option<Timestamp>,
    /// When a redrive projected it after all.
    pub redriven_at: Option<Timestamp>,
    /// What it was set aside for before, oldest first.
    pub history: Vec<FailedRedrive>,
    /// Bytes of the record's value; 0 for a tombstone.
    pub size_bytes: i32,
}

/// What a dead letter was set aside for, until a redrive failed for the reason that follows.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FailedRedrive {
    /// When that redrive failed.
    #[schema(format = DateTime)]
    pub at: String,
    /// The reason before.
    pub reason: String,
    /// The cause before, in words.
    pub error: String,
}

static GENERATIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT g.state, g.generation, g.builder, g.created_at, o.partition, o.next_offset, {}
         FROM projection_generation AS g
         LEFT JOIN projection_offset AS o ON o.generation = g.generation AND o.topic = $1
         WHERE g.state IN ('live', 'building')",
        is_abandoned()
    )
});

/// Not by a join: an index then gives the rows in their order.
const LIVE: &str = "
    generation = (SELECT generation FROM projection_generation WHERE state = 'live') AND topic = $1";

const PAGE: &str = "
    SELECT dead_at, partition, \"offset\", lead_id,
        header_values[array_position(header_names, $4::text)], reason, error, holds_lead, record_time,
        redriven_at, history::text, coalesce(octet_length(record_value), 0)
    FROM dead_letters
    WHERE (dead_at, partition, \"offset\") < ($2, $3, $5) AND";

const ORDER: &str = "ORDER BY dead_at DESC, partition DESC, \"offset\" DESC LIMIT $6";

impl ReadModel {
    /// How the projection stands.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn standing(&self) -> Result<Standing, ReadModelError> {
        let deadline = Instant::now() + ANSWER;
        let client = self.client(deadline).await?;
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 1] = [&self.events_topic];
        let by_reason_sql = format!(
            "SELECT reason, count(*), min(dead_at) FROM dead_letters
             WHERE {LIVE} AND redriven_at IS NULL GROUP BY reason ORDER BY count(*) DESC, reason"
        );
        let both = futures_util::future::try_join(
            run(&client, deadline, &GENERATIONS, &values),
            run(&client, deadline, &by_reason_sql, &values),
        )
        .await;
        let (generations, reasons) = self.settle(client, both)?;
        let mut standing = Standing::default();
        for row in &generations {
            take_generation(&mut standing, row).map_err(|error| unavailable(&error))?;
        }
        standing.dead_letters = by_reason(&reasons).map_err(|error| unavailable(&error))?;
        Ok(standing)
    }

    /// A page of the live generation's dead letters, the newest first.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn dead_letters(
        &self,
        which: WhichDeadLetters,
        after: Option<DeadLetterPlace>,
        limit: i64,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        let waiting = match which {
            WhichDeadLetters::Waiting => "AND redriven_at IS NULL",
            WhichDeadLetters::All => "",
        };
        let sql = format!("{PAGE} {LIVE} {waiting} {ORDER}");
        let place = after.unwrap_or(DeadLetterPlace {
            dead_at_micros: DateTime::<Utc>::MAX_UTC.timestamp_micros(),
            partition: i32::MAX,
            offset: i64::MAX,
        });
        let dead_at = DateTime::from_timestamp_micros(place.dead_at_micros);
        let DeadLetterPlace { partition, offset, .. } = place;
        let topic = &self.events_topic;
        let rows = self
            .query(&sql, &[topic, &dead_at, &partition, &headers::SOURCE, &offset, &limit])
            .await?;
        rows.iter().map(dead_letter).collect::<Result<_, _>>().map_err(|error| unavailable(&error))
    }

    /// When these keys were last used, of those that were.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn key_uses_of(
        &self,
        keys: &[Uuid],
    ) -> Result<HashMap<Uuid, Timestamp>, ReadModelError> {
        let keys: Vec<String> = keys.iter().map(Uuid::to_string).collect();
        let sql = "SELECT key_id, last_used_at FROM access_key_usage WHERE key_id = ANY($1)";
        let rows = self.query(sql, &[&keys]).await?;
        let pair = |row: &Row| {
            let id = row.try_get::<_, &str>(0)?.parse().unwrap_or_default();
            Ok((id, Timestamp::from(row.try_get::<_, DateTime<Utc>>(1)?)))
        };
        rows.iter().map(pair).collect::<Result<_, _>>().map_err(|error: Error| unavailable(&error))
    }

    /// How many dead letters the live generation has: those that wait, and all.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn dead_letter_totals(&self) -> Result<(i64, i64), ReadModelError> {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE redriven_at IS NULL), count(*) FROM dead_letters
             WHERE {LIVE}"
        );
        let rows = self.query(&sql, &[&self.events_topic]).await?;
        let pair = |row: &Row| Ok((row.try_get(0)?, row.try_get(1)?));
        rows.first().map_or(Ok((0, 0)), pair).map_err(|error: Error| unavailable(&error))
    }
}

fn take_generation(standing: &mut Standing, row: &Row) -> Result<(), Error> {
    let state: &str = row.try_get(0)?;
    let generation = row.try_get(1)?;
    let projection = if state == "live" {
        standing.live.get_or_insert_with(|| Projection { generation, ..Projection::default() })
    } else {
        let started_at = Timestamp::from(row.try_get::<_, DateTime<Utc>>(3)?);
        let builder = row.try_get(2)?;
        let abandoned = row.try_get(6)?;
        let building = standing.building.get_or_insert_with(|| Building {
            projection: Projection { generation, ..Projection::default() },
            builder,
            abandoned,
            started_at,
        });
        &mut building.projection
    };
    let partition: Option<i32> = row.try_get(4)?;
    let next: Option<i64> = row.try_get(5)?;
    projection.next.extend(partition.zip(next));
    Ok(())
}

fn by_reason(rows: &[Row]) -> Result<DeadLetterFigures, Error> {
    let mut figures = DeadLetterFigures::default();
    let mut oldest: Option<DateTime<Utc>> = None;
    for row in rows {
        figures.by_reason.push((row.try_get(0)?, row.try_get(1)?));
        let of_reason: DateTime<Utc> = row.try_get(2)?;
        oldest = Some(oldest.map_or(of_reason, |oldest| oldest.min(of_reason)));
    }
    figures.oldest_at = oldest.map(Timestamp::from);
    Ok(figures)
}

fn dead_letter(row: &Row) -> Result<DeadLetter, Error> {
    let dead_at: DateTime<Utc> = row.try_get(0)?;
    let time = |i| Ok(row.try_get::<_, Option<DateTime<Utc>>>(i)?.map(Timestamp::from));
    let source: Option<&[u8]> = row.try_get(4)?;
    let history: &str = row.try_get(10)?;
    Ok(DeadLetter {
        place: DeadLetterPlace {
            dead_at_micros: dead_at.timestamp_micros(),
            partition: row.try_get(1)?,
            offset: row.try_get(2)?,
        },
        dead_at: Timestamp::from(dead_at),
        lead_id: row.try_get(3)?,
        workspace_id: source.and_then(headers::workspace_of),
        reason: row.try_get(5)?,
        error: row.try_get(6)?,
        holds_lead: row.try_get(7)?,
        record_time: time(8)?,
        redriven_at: time(9)?,
        // Written by the projection alone: what can't be read back is not there.
        history: serde_json::from_str(history).unwrap_or_default(),
        size_bytes: row.try_get(11)?,
    })
}
