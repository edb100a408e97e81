//! Dead letters that are projected after all.
//!
//! All that waits of a lead is taken in the order of its offsets, as its partition's worker would
//! take it with this version and these tables, and up to the first record that fails again and holds
//! the lead. The partition's offset is locked meanwhile: the worker waits, and then looks again which
//! leads are held.

use leads_shared::Event;
use tokio_postgres::Row;

use super::session::At;
use super::session::BEGIN;
use super::{Store, Target, key_of, live_generation, read_known, rows};
use crate::failure::Failure;
use crate::projection::decode::decode;
use crate::projection::fold::fold;
use crate::projection::parking::{LeadAt, behind};
use crate::projection::{Key, Reason, Rejection};
use crate::record::{Chunk, Place, Record};

/// What is redriven in one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chain {
    /// All that waits of a lead.
    Lead(LeadAt),
    /// A record whose key names no lead.
    Record {
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is projected.
    Projected,
    /// It can't be projected now either.
    Failed(Rejection),
    /// It waits for one before it that failed.
    Waits,
}

/// A record of a redrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redriven {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Why it had been set aside.
    pub reason: String,
    /// What became of it.
    pub fate: Fate,
}

/// A row of `dead_letters`.
struct Waiting {
    offset: i64,
    reason: String,
    holds_lead: bool,
}

impl Store {
    /// Projects what waits in `chain`, in one transaction. `dry`: rolls it back in the end.
    ///
    /// # Errors
    /// See [`Failure`]; [`Failure::Fenced`]: another generation has become the live one, look again.
    /// Nothing is changed then. What PostgreSQL refuses of a record is no error, but its fate.
    pub async fn redrive(&mut self, chain: Chain, dry: bool) -> Result<Vec<Redriven>, Failure> {
        self.reset();
        let (topic, target) = (self.topic.clone(), self.target);
        self.open = true;
        let result = async {
            let session = self.session().await?;
            let generation = match target {
                Target::Live => live_generation(&session.client).await?,
                Target::Generation(generation) => generation,
            };
            let session = session.at(generation).await?;
            let redriven = redrive(session, &topic, chain).await?;
            if !dry {
                session.client.batch_execute("COMMIT").await?;
            }
            Ok(redriven)
        };
        let result = result.await;
        if result.is_ok() && !dry {
            self.open = false;
        } else {
            self.roll_back().await;
        }
        result
    }
}

/// All of the transaction but its end.
async fn redrive(session: At<'_>, topic: &str, chain: Chain) -> Result<Vec<Redriven>, Failure> {
    let partition = match chain {
        Chain::Lead(lead) => lead.partition,
        Chain::Record { partition, .. } => partition,
    };
    // What an operator was told is done survives a crash of PostgreSQL.
    let begin = format!("{BEGIN}; SET LOCAL synchronous_commit = on");
    session.client.batch_execute(&begin).await?;
    let partitions = lock(session, topic, partition).await?;
    let (waiting, chunk) = read(session, topic, chain).await?;
    let records: Vec<Record<'_>> =
        (0..chunk.len()).filter_map(|at| chunk.get(at)).map(|(record, _)| record).collect();
    let fates = project(session, &records, &waiting, partitions).await?;
    write(session, topic, partition, &waiting, &fates).await?;
    let redriven = waiting.into_iter().zip(fates);
    Ok(redriven
        .map(|(Waiting { offset, reason, .. }, fate)| Redriven { partition, offset, reason, fate })
        .collect())
}

/// Keeps the partition's worker out until the end of the transaction; gives the number of partitions.
async fn lock(session: At<'_>, topic: &str, partition: i32) -> Result<u32, Failure> {
    let At { client, generation, .. } = session;
    let query = "SELECT FROM projection_offset
         WHERE generation = $1 AND topic = $2 AND partition = $3 AND NOT sealed FOR UPDATE";
    if client.query_opt(query, &[&generation, &topic, &partition]).await?.is_none() {
        return Err(Failure::Fenced);
    }
    let query = "SELECT count(*) FROM projection_offset WHERE generation = $1 AND topic = $2";
    let count: i64 = client.query_one(query, &[&generation, &topic]).await?.try_get(0)?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// What waits, by offset.
async fn read(
    session: At<'_>,
    topic: &str,
    chain: Chain,
) -> Result<(Vec<Waiting>, Chunk), Failure> {
    let (partition, lead_id, offset) = match chain {
        Chain::Lead(LeadAt { partition, lead_id }) => (partition, Some(lead_id), None),
        Chain::Record { partition, offset } => (partition, None, Some(offset)),
    };
    let query = "SELECT \"offset\", reason, holds_lead, record_key, record_value FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND partition = $3 AND redriven_at IS NULL
             AND (lead_id = $4::uuid OR (lead_id IS NULL AND \"offset\" = $5::bigint))
         ORDER BY \"offset\"";
    let At { client, generation, .. } = session;
    let rows = client.query(query, &[&generation, &topic, &partition, &lead_id, &offset]).await?;
    let (mut waiting, mut chunk) = (Vec::with_capacity(rows.len()), Chunk::default());
    for row in &rows {
        waiting.push(take(row, partition, &mut chunk)?);
    }
    Ok((waiting, chunk))
}

fn take(row: &Row, partition: i32, chunk: &mut Chunk) -> Result<Waiting, tokio_postgres::Error> {
    let offset = row.try_get(0)?;
    let place = Place { partition, epoch: 0, offset, time_millis: None };
    let (key, value): (Option<&[u8]>, Option<&[u8]>) = (row.try_get(3)?, row.try_get(4)?);
    chunk.push(place, key, value, []);
    Ok(Waiting { offset, reason: row.try_get(1)?, holds_lead: row.try_get(2)? })
}

/// Projects as much as can be; gives the fate of each record.
async fn project(
    session: At<'_>,
    records: &[Record<'_>],
    waiting: &[Waiting],
    partitions: u32,
) -> Result<Vec<Fate>, Failure> {
    let mut fates = vec![Fate::Waits; records.len()];
    let mut events = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match decode(record, partitions) {
            Ok(event) => events.push((index, event)),
            Err(why) => {
                let stop = waiting[index].holds_lead && why.reason.holds_lead();
                fates[index] = Fate::Failed(why);
                if stop {
                    break;
                }
            }
        }
    }
    set_overtaken(session, waiting, &mut events, &mut fates).await?;
    let (mut rest, mut size) = (&*events, events.len());
    while let Some((index, _)) = rest.first() {
        let some = &rest[..size.min(rest.len())];
        match project_some(session, records, some).await {
            Ok(rejected) => {
                for (index, _) in some {
                    fates[*index] = Fate::Projected;
                }
                for (index, why) in rejected {
                    fates[index] = Fate::Failed(why);
                }
                rest = &rest[some.len()..];
            }
            Err(Failure::Data { .. }) if some.len() > 1 => size = some.len().div_ceil(2),
            Err(Failure::Data { error }) => {
                fates[*index] = Fate::Failed(Rejection { reason: Reason::Refused, error });
                if waiting[*index].holds_lead {
                    fates[index + 1..].fill(Fate::Waits);
                    break;
                }
                rest = &rest[1..];
                size = rest.len().max(1);
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(fates)
}

/// A record that held nothing was overtaken by later events of its lead, unless there is no such
/// lead: projecting it now would put it in a place that the log does not give it.
async fn set_overtaken(
    session: At<'_>,
    waiting: &[Waiting],
    events: &mut Vec<(usize, Event<'_>)>,
    fates: &mut [Fate],
) -> Result<(), Failure> {
    let first_holder = waiting.iter().position(|it| it.holds_lead).unwrap_or(waiting.len());
    let keys: Vec<Key> = events.iter().map(|(_, event)| key_of(event)).collect();
    let known = read_known(session, &keys).await?;
    events.retain(|(index, event)| {
        let stays = *index >= first_holder || !known.contains_key(&key_of(event));
        if !stays {
            let reason = Reason::named(&waiting[*index].reason).unwrap_or(Reason::Inconsistent);
            let error = "later events of the lead have taken effect without it; send the change \
                         again, or let a rebuild read the log in its order";
            fates[*index] = Fate::Failed(Rejection { reason, error: error.to_owned() });
        }
        stays
    });
    Ok(())
}

/// Projects these events or, on an error, none of them; gives those that can't be.
async fn project_some(
    session: At<'_>,
    records: &[Record<'_>],
    events: &[(usize, Event<'_>)],
) -> Result<Vec<(usize, Rejection)>, Failure> {
    session.client.batch_execute("SAVEPOINT redrive").await?;
    let result = async {
        let keys: Vec<Key> = events.iter().map(|(_, event)| key_of(event)).collect();
        let folded = fold(events.iter().cloned(), read_known(session, &keys).await?);
        rows::insert_created(session, &folded.created).await?;
        rows::write_rest(session, &folded, records).await?;
        Ok(folded.rejected)
    };
    let result = result.await;
    let end = match &result {
        Ok(_) => "RELEASE redrive",
        Err(Failure::Data { .. }) => "ROLLBACK TO redrive; RELEASE redrive",
        Err(_) => return result,
    };
    session.client.batch_execute(end).await?;
    result
}

/// Notes the fates in the rows.
async fn write(
    session: At<'_>,
    topic: &str,
    partition: i32,
    waiting: &[Waiting],
    fates: &[Fate],
) -> Result<(), Failure> {
    let At { client, generation, .. } = session;
    let mut projected = Vec::new();
    let mut parked: Vec<i64> = Vec::new();
    let mut holder = None;
    for (it, fate) in waiting.iter().zip(fates) {
        match fate {
            Fate::Projected => projected.push(it.offset),
            Fate::Failed(Rejection { reason, error }) => {
                let holds_lead = it.holds_lead && reason.holds_lead();
                if holds_lead {
                    holder = Some(it.offset);
                }
                client
                    .execute(
                        FAILED_AGAIN,
                        &[
                            &generation,
                            &topic,
                            &partition,
                            &it.offset,
                            &reason.name(),
                            error,
                            &holds_lead,
                        ],
                    )
                    .await?;
            }
            Fate::Waits if it.reason == Reason::Parked.name() => parked.push(it.offset),
            Fate::Waits => {}
        }
    }
    client.execute(REDRIVEN, &[&generation, &topic, &partition, &projected]).await?;
    if let Some(holder) = holder {
        let Rejection { error, .. } = behind(partition, holder);
        client.execute(WAITS_BEHIND, &[&generation, &topic, &partition, &parked, &error]).await?;
    }
    Ok(())
}

const REDRIVEN: &str = "
    UPDATE dead_letters SET redriven_at = now()
    WHERE generation = $1 AND topic = $2 AND partition = $3 AND \"offset\" = ANY($4)";

const WAITS_BEHIND: &str = "
    UPDATE dead_letters SET error = $5
    WHERE generation = $1 AND topic = $2 AND partition = $3 AND \"offset\" = ANY($4)
        AND error <> $5";

const FAILED_AGAIN: &str = "
    UPDATE dead_letters SET
        history = history || jsonb_build_object(
            'at', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"'),
            'reason', reason, 'error', error),
        reason = $5, error = $6, holds_lead = $7
    WHERE generation = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4";
