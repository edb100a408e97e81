//! The only SQL of the projection: offsets and rows, one transaction a batch.

mod batch;
mod dead_letters;
pub mod redrive;
mod rows;
mod session;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join4;
use leads_shared::{Event, Payload, Timestamp};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Row};
use uuid::Uuid;

use crate::breaker::Breaker;
use crate::failure::{Failure, Halt, LEAD_IS_THERE, REPARTITION};
use crate::projection::fold::{Folded, fold};
use crate::projection::parking::{self, LeadAt};
use crate::projection::{Counted, Key, Known};
pub use batch::{Advance, Applied, Batch};
use session::{At, Session};
pub(crate) use session::{counts_table, end_frozen_writers, leads_table};

/// A creation that is there already is rare: a batch is inserted without a look, and PostgreSQL says
/// when one is. Where one is, others follow; so long each batch looks first.
const CAREFUL_BATCHES: u32 = 100;
/// How long a ROLLBACK may take before the connection is given up instead.
const ROLLBACK_WAIT: Duration = Duration::from_secs(2);

/// How far a partition is projected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Projected {
    /// The partition.
    pub partition: i32,
    /// The offset of the next record to apply.
    pub next_offset: i64,
    /// The event id of the record before it.
    pub last_event_id: Option<Uuid>,
}

/// How far partitions are projected, and in which generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// The live generation.
    pub generation: i32,
    /// The partitions asked for, in no order.
    pub partitions: Vec<Projected>,
    /// The leads whose later events are parked there.
    pub held: Vec<LeadAt>,
}

/// Which generation a store writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Whichever is live; it changes with a swap.
    Live,
    /// This one, whatever its state.
    Generation(i32),
}

/// The read model's writer: one connection, made again when it breaks.
pub struct Store {
    config: Config,
    tls: MakeTlsConnector,
    topic: String,
    target: Target,
    session: Option<Session>,
    /// Set while a transaction may be open: a future of ours that is dropped leaves it so.
    open: bool,
    /// So many batches look whether their new leads are there before they insert them.
    careful: u32,
    breaker: Option<Arc<Breaker>>,
}

impl Store {
    /// A store for the events of `topic`; connects when first used.
    pub fn new(config: &Config, tls: &MakeTlsConnector, topic: &str, target: Target) -> Self {
        let mut config = config.clone();
        if config.get_application_name().is_none() {
            config.application_name("leads-consumer");
        }
        Self {
            config,
            tls: tls.clone(),
            topic: topic.to_owned(),
            target,
            session: None,
            open: false,
            careful: 0,
            breaker: None,
        }
    }

    /// Has `breaker` asked before records are set aside.
    #[must_use]
    pub fn with_breaker(self, breaker: &Arc<Breaker>) -> Self {
        Self { breaker: Some(Arc::clone(breaker)), ..self }
    }

    /// Whether there is no connection that can be used.
    pub fn is_broken(&self) -> bool {
        self.open || self.session.as_ref().is_none_or(|session| session.client.is_closed())
    }

    /// Connects, if there is no connection.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn connect(&mut self) -> Result<(), Failure> {
        self.reset();
        self.session().await.map(|_| ())
    }

    /// Gives the connection up: what it has not committed never was.
    pub fn disconnect(&mut self) {
        self.session = None;
        self.open = false;
    }

    /// How far `partitions` are projected. The first look at a topic makes its rows, all
    /// `partition_count` of them, at offset 0.
    ///
    /// # Errors
    /// [`Failure::Halt`] when the number of partitions is another than when the rows were made.
    pub async fn positions(
        &mut self,
        partition_count: u32,
        partitions: &[i32],
    ) -> Result<Positions, Failure> {
        self.reset();
        let result = self.try_positions(partition_count, partitions).await;
        if result.is_err() {
            self.disconnect();
        }
        result
    }

    async fn try_positions(
        &mut self,
        partition_count: u32,
        partitions: &[i32],
    ) -> Result<Positions, Failure> {
        let (topic, target, breaker) = (self.topic.clone(), self.target, self.breaker.clone());
        let client = &self.session().await?.client;
        let generation = match target {
            Target::Live => live_generation(client).await?,
            Target::Generation(generation) => generation,
        };
        let count = i32::try_from(partition_count).unwrap_or(i32::MAX);
        client
            .execute(
                "INSERT INTO projection_offset (generation, topic, partition, next_offset)
                 SELECT $1, $2, p, 0 FROM generate_series(0, $3::int - 1) AS p
                 WHERE NOT EXISTS
                     (SELECT FROM projection_offset WHERE generation = $1 AND topic = $2)
                 ORDER BY p
                 ON CONFLICT DO NOTHING",
                &[&generation, &topic, &count],
            )
            .await?;
        let rows = client
            .query(
                "SELECT partition, next_offset, last_event_id FROM projection_offset
                 WHERE generation = $1 AND topic = $2",
                &[&generation, &topic],
            )
            .await?;
        // The group may have been given partitions that were not there at boot.
        let count = partitions.iter().map(|partition| partition + 1).fold(count, i32::max);
        if i32::try_from(rows.len()) != Ok(count) {
            return Err(Failure::Halt(Halt::new(
                format!(
                    "topic {topic} has {count} partitions, but was projected with {}: keys have \
                     moved between partitions and their order is lost",
                    rows.len()
                ),
                REPARTITION,
            )));
        }
        let mut found = Vec::with_capacity(partitions.len());
        for row in rows {
            let projected = Projected {
                partition: row.try_get(0)?,
                next_offset: row.try_get(1)?,
                last_event_id: row.try_get(2)?,
            };
            if partitions.contains(&projected.partition) {
                found.push(projected);
            }
        }
        // Behind the offsets: whoever adds to them in between has moved an offset, and we are fenced.
        let held = dead_letters::held(client, generation, &topic, partitions).await?;
        dead_letters::seed(client, generation, &topic, breaker).await?;
        Ok(Positions { generation, partitions: found, held })
    }

    /// Projects a batch: all of it, or on an error nothing. An error whose COMMIT was under way may
    /// have taken effect all the same: the offsets then tell, and the next try is fenced.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn apply(&mut self, batch: Batch<'_>) -> Result<Applied, Failure> {
        self.reset();
        let (topic, target, breaker) = (self.topic.clone(), self.target, self.breaker.clone());
        // A statement may fail to be prepared as well, without a transaction being open.
        self.open = true;
        let result = async {
            let careful = self.careful > 0;
            let session = self.session().await?.at(batch.generation).await?;
            transaction(session, &topic, batch, target, careful, breaker.as_deref()).await
        };
        let result = match result.await {
            // Carefully, it is another writer's: then one waits as for any other conflict.
            Err(Failure::Retry { cause: LEAD_IS_THERE, .. }) if self.careful == 0 => {
                self.careful = CAREFUL_BATCHES;
                Err(Failure::Again)
            }
            result => {
                self.careful = self.careful.saturating_sub(1);
                result
            }
        };
        if result.is_ok() {
            self.open = false;
        } else {
            self.roll_back().await;
        }
        if let (Err(Failure::Retry { cause: "lock", .. }), Some(session)) = (&result, &self.session)
        {
            session::end_frozen_writers(&session.client).await;
        }
        result
    }

    /// A connection whose transaction was left open is of no use.
    fn reset(&mut self) {
        if self.open || self.session.as_ref().is_some_and(|session| session.client.is_closed()) {
            self.disconnect();
        }
    }

    async fn session(&mut self) -> Result<&mut Session, Failure> {
        let session = match self.session.take() {
            Some(session) => session,
            None => Session::connect(&self.config, &self.tls).await?,
        };
        Ok(self.session.insert(session))
    }

    async fn roll_back(&mut self) {
        if let Some(session) = &self.session {
            let rollback = session.client.batch_execute("ROLLBACK");
            if matches!(tokio::time::timeout(ROLLBACK_WAIT, rollback).await, Ok(Ok(()))) {
                self.open = false;
                return;
            }
        }
        self.disconnect();
    }
}

/// Statements that need no answer of each other go out together: three round trips for leads that
/// are new, however many there are.
async fn transaction(
    session: At<'_>,
    topic: &str,
    batch: Batch<'_>,
    target: Target,
    careful: bool,
    breaker: Option<&Breaker>,
) -> Result<Applied, Failure> {
    let Batch { generation: _, advances, records, mut events, mut rejected, held, traceparent } =
        batch;
    let keys = keys_to_read(&events, careful);
    let (begun, moved, known, still_held) = join4(
        session.client.batch_execute(&session::begin(traceparent.as_deref())),
        move_offsets(session, topic, &advances, target),
        read_known(session, &keys),
        dead_letters::still_held(session, topic, &held),
    )
    .await;
    begun?;
    if moved? != advances.len() as u64 {
        return Err(Failure::Fenced);
    }
    let still_held = still_held?;
    parking::park(&records, &mut events, &mut rejected, &still_held);
    let mut folded = fold(events, known?);
    folded.tally.dead_letter += rejected.len() as u64;
    folded.rejected.extend(rejected);
    folded.rejected.sort_by_key(|(index, _)| *index);
    let admission = breaker.map(|breaker| breaker.admit(&folded.rejected, Instant::now()));
    let admission = admission.transpose().map_err(Failure::Halt)?;
    rows::insert_created(session, &folded.created).await?;
    dead_letters::insert(session, topic, &records, &folded.rejected).await?;
    rows::write_rest_and_commit(session, &folded, &records).await?;
    if let Some(admission) = admission {
        admission.keep();
    }
    let Folded { tally, rejected, .. } = folded;
    let holders = rejected.iter().filter(|(_, why)| why.reason.holds_lead());
    let holders = holders.filter_map(|(index, _)| records.get(*index).and_then(LeadAt::of));
    Ok(Applied {
        tally,
        held: holders.collect(),
        released: held.into_iter().filter(|lead| !still_held.contains_key(lead)).collect(),
        rejected: rejected.into_iter().map(|(_, why)| why).collect(),
    })
}

/// The generation that reads see.
///
/// # Errors
/// [`Failure::Halt`] when there is none.
pub(crate) async fn live_generation(client: &Client) -> Result<i32, Failure> {
    let query = "SELECT generation FROM projection_generation WHERE state = 'live'";
    match client.query_opt(query, &[]).await? {
        Some(row) => Ok(row.try_get(0)?),
        None => Err(Failure::Halt(Halt::new(
            "no generation of the projection is live",
            "run `leads-consumer migrate`",
        ))),
    }
}

/// The leads that the fold has to know: those that are updated without being created in the same
/// batch, or all of them. Sorted.
fn keys_to_read(events: &[(usize, Event<'_>)], all: bool) -> Vec<Key> {
    let mut created = HashSet::new();
    let mut keys: Vec<Key> = Vec::new();
    for (_, event) in events {
        let key = key_of(event);
        match event.payload {
            Payload::LeadCreated { .. } if !all => {
                created.insert(key);
            }
            Payload::LeadUpdated { .. } if created.contains(&key) => {}
            Payload::LeadCreated { .. } | Payload::LeadUpdated { .. } => keys.push(key),
        }
    }
    keys.sort_unstable();
    keys.dedup();
    keys
}

fn key_of(event: &Event<'_>) -> Key {
    Key { workspace_id: event.workspace_id, id: event.lead_id }
}

/// Compare and set: moves each offset from where this batch starts, and tells how many moved.
///
/// The rows stay locked until the end of the transaction: whoever else writes these partitions waits
/// here, and then finds other offsets. A swap of generations seals the rows of the one that goes, in
/// its own transaction: a batch under way is waited for, and the next one is fenced. The rows of one
/// that went may be open again, for a rollback: whoever projects the live one is fenced by its state.
async fn move_offsets(
    session: At<'_>,
    topic: &str,
    advances: &[Advance],
    target: Target,
) -> Result<u64, Failure> {
    let partitions: Vec<i32> = advances.iter().map(|advance| advance.partition).collect();
    let from: Vec<i64> = advances.iter().map(|advance| advance.from).collect();
    let to: Vec<i64> = advances.iter().map(|advance| advance.to).collect();
    let ids: Vec<Option<Uuid>> = advances.iter().map(|advance| advance.last_event_id).collect();
    let statement = &session.statements.move_offsets;
    let At { client, generation, .. } = session;
    let any_state = target != Target::Live;
    let moved: [&(dyn ToSql + Sync); 7] =
        [&generation, &topic, &partitions, &from, &to, &ids, &any_state];
    Ok(client.execute(statement, &moved).await?)
}

/// What is known of the leads that are there already.
async fn read_known(
    session: At<'_>,
    keys: &[Key],
) -> Result<HashMap<Key, (Known, Counted)>, Failure> {
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let workspaces: Vec<Uuid> = keys.iter().map(|key| key.workspace_id).collect();
    let ids: Vec<Uuid> = keys.iter().map(|key| key.id).collect();
    let rows = session.client.query(&session.statements.read_known, &[&workspaces, &ids]).await?;
    rows.iter().map(|row| known(row).map_err(Failure::from)).collect()
}

fn known(row: &Row) -> Result<(Key, (Known, Counted)), tokio_postgres::Error> {
    let key = Key { workspace_id: row.try_get(0)?, id: row.try_get(1)? };
    let version: i64 = row.try_get(2)?;
    let updated_at: chrono::DateTime<chrono::Utc> = row.try_get(4)?;
    let known = Known {
        // A check constraint keeps it at 1 or more.
        version: version.unsigned_abs(),
        last_event_id: row.try_get(3)?,
        updated_at: Timestamp::from(updated_at),
    };
    let text =
        |at| Ok::<_, tokio_postgres::Error>(row.try_get::<_, Option<String>>(at)?.map(Into::into));
    Ok((key, (known, Counted { code: text(5)?, source: text(6)? })))
}
