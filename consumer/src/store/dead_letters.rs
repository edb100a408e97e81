//! The rows of `dead_letters`, as the projection writes and reads them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::Client;
use uuid::Uuid;

use super::session::At;
use crate::breaker::Breaker;
use crate::failure::Failure;
use crate::projection::Rejection;
use crate::projection::parking::{Held, LeadAt};
use crate::record::Record;

/// How many are on their way to PostgreSQL at a time; each can be half a megabyte.
const AT_ONCE: usize = 64;

/// Records that can't be projected, with all that is needed to look at them and to project them
/// after all.
pub(super) async fn insert(
    session: At<'_>,
    topic: &str,
    records: &[Record<'_>],
    rejected: &[(usize, Rejection)],
) -> Result<(), Failure> {
    for some in rejected.chunks(AT_ONCE) {
        let found = some.iter().filter_map(|(index, why)| Some((records.get(*index)?, why)));
        try_join_all(found.map(|(record, why)| insert_one(session, topic, record, why))).await?;
    }
    Ok(())
}

async fn insert_one(
    session: At<'_>,
    topic: &str,
    record: &Record<'_>,
    Rejection { reason, error }: &Rejection,
) -> Result<(), Failure> {
    let lead_id = LeadAt::of(record).map(|lead| lead.lead_id);
    let (names, values): (Vec<&str>, Vec<Option<&[u8]>>) = record.headers.iter().unzip();
    let time = record.time_millis.and_then(DateTime::<Utc>::from_timestamp_millis);
    session
        .client
        .execute(
            &session.statements.insert_dead_letter,
            &[
                &session.generation,
                &topic,
                &record.partition,
                &record.offset,
                &lead_id,
                &reason.name(),
                error,
                &(reason.holds_lead() && lead_id.is_some()),
                &record.key,
                &record.value,
                &names,
                &values,
                &time,
            ],
        )
        .await?;
    Ok(())
}

/// Which of `leads` are held now, and behind which offset. To be asked under the lock of their
/// partitions' offsets: a redrive changes it under the same lock.
pub(super) async fn still_held(
    session: At<'_>,
    topic: &str,
    leads: &[LeadAt],
) -> Result<Held, Failure> {
    if leads.is_empty() {
        return Ok(Held::new());
    }
    let partitions: Vec<i32> = leads.iter().map(|lead| lead.partition).collect();
    let ids: Vec<Uuid> = leads.iter().map(|lead| lead.lead_id).collect();
    let statement = &session.statements.read_held;
    let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
        [&session.generation, &topic, &partitions, &ids];
    let rows = session.client.query(statement, &params).await?;
    let held = rows.iter().map(|row| {
        let lead = LeadAt { partition: row.try_get(0)?, lead_id: row.try_get(1)? };
        Ok((lead, row.try_get(2)?))
    });
    held.collect()
}

/// All leads that are held on these partitions.
pub(super) async fn held(
    client: &Client,
    generation: i32,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<LeadAt>, Failure> {
    let query = "SELECT DISTINCT partition, lead_id FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND partition = ANY($3) AND lead_id IS NOT NULL
             AND holds_lead AND redriven_at IS NULL";
    let rows = client.query(query, &[&generation, &topic, &partitions]).await?;
    let lead = |row: &tokio_postgres::Row| {
        Ok(LeadAt { partition: row.try_get(0)?, lead_id: row.try_get(1)? })
    };
    rows.iter().map(lead).collect()
}

/// Tells the breaker, once, of what was set aside lately.
pub(super) async fn seed(
    client: &Client,
    generation: i32,
    topic: &str,
    breaker: Option<Arc<Breaker>>,
) -> Result<(), Failure> {
    let Some(breaker) = breaker else { return Ok(()) };
    let Some(window) = breaker.unseeded() else { return Ok(()) };
    let query = "SELECT extract(epoch FROM now() - dead_at)::float8 FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND reason <> 'parked'
             AND dead_at > now() - make_interval(secs => $3)";
    let rows = client.query(query, &[&generation, &topic, &window.as_secs_f64()]).await?;
    let age = |row: &tokio_postgres::Row| {
        let seconds: f64 = row.try_get(0)?;
        Ok(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(window))
    };
    let ages: Vec<Duration> = rows.iter().map(age).collect::<Result<_, tokio_postgres::Error>>()?;
    breaker.seed(Instant::now(), ages);
    Ok(())
}
