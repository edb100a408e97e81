//! The SQL of generations: made, filled with indexes, made live, dropped.

use leads_postgres::rebuild::LOCK;
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Config;

use super::RebuildError;
use crate::connection::{Connection, Unreachable};
use crate::disk::{self, Disk};
use crate::failure::describe;
use crate::store::{counts_table, end_frozen_writers, leads_table};

/// How PostgreSQL begins the definition of a unique index.
const UNIQUE: &str = "CREATE UNIQUE";

/// What a swap's session is called in `pg_stat_activity`.
pub(super) const SWAP_NAME: &str = "leads-consumer swap";

/// Most of what a swap waits for readers before it lets them pass and tries again.
const SWAP_LOCK_TIMEOUT: &str = "2s";

/// The columns of the view `leads`, in their order.
const LEAD_COLUMNS: &str = "workspace_id, id, visitor_id, code, source, created_at, updated_at, \
     properties, location, identity_id, session_id, summary, company_id, version, last_event_id";

/// The generations there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generations {
    /// What reads see.
    pub live: i32,
    /// What a rebuild fills.
    pub building: Option<i32>,
    /// What was live before; kept for a rollback.
    pub previous: Option<i32>,
}

/// The connection that holds the lock on generations, as long as it lives.
pub(super) struct Keeper {
    client: Connection,
}

impl Keeper {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`RebuildError::Running`] when another holds it; names who.
    pub(super) async fn take(
        config: &Config,
        tls: &MakeTlsConnector,
    ) -> Result<Self, RebuildError> {
        let keeper =
            Self { client: Connection::named(config, tls, "leads-consumer rebuild").await? };
        let query = "SELECT pg_try_advisory_lock($1, $2)";
        let ours: bool = keeper.client.query_one(query, &[&LOCK.0, &LOCK.1]).await?.try_get(0)?;
        if ours { Ok(keeper) } else { Err(RebuildError::Running(keeper.holder().await?)) }
    }

    async fn holder(&self) -> Result<String, RebuildError> {
        let builder = "SELECT builder FROM projection_generation WHERE state = 'building'";
        let builder = self.client.query_opt(builder, &[]).await?;
        let builder: Option<String> = builder.map(|row| row.try_get(0)).transpose()?.flatten();
        let session = "SELECT a.pid, a.client_addr::text, a.backend_start::text
             FROM pg_locks l JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'advisory' AND l.classid::bigint = $1 AND l.objid::bigint = $2
                 AND l.granted
                 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let (class, object) = (i64::from(LOCK.0), i64::from(LOCK.1));
        let session = self.client.query_opt(session, &[&class, &object]).await?;
        let builder = builder.unwrap_or_else(|| "another leads-consumer".to_owned());
        Ok(match session {
            Some(row) => {
                let (pid, address): (i32, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
                let since: String = row.try_get(2)?;
                let address = address.unwrap_or_else(|| "a local socket".to_owned());
                format!("{builder}, connected from {address} since {since}, PostgreSQL pid {pid}")
            }
            None => builder,
        })
    }

    /// Whether the lock may be gone.
    pub(super) fn is_lost(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends writers of the live generation that stand still and hold up a swap.
    pub(super) async fn end_frozen_writers(&self) {
        end_frozen_writers(&self.client).await;
    }

    /// The generations there are.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn generations(&self) -> Result<Generations, RebuildError> {
        let rows = self
            .client
            .query("SELECT generation, state FROM projection_generation ORDER BY generation", &[])
            .await?;
        let (mut live, mut building, mut previous) = (None, None, None);
        for row in rows {
            let generation: i32 = row.try_get(0)?;
            match row.try_get::<_, &str>(1)? {
                "live" => live = Some(generation),
                "building" => building = Some(generation),
                _ => previous = Some(generation),
            }
        }
        let live = live.ok_or_else(|| {
            RebuildError::Failed(
                "no generation of the projection is live; run `leads-consumer migrate`".to_owned(),
            )
        })?;
        Ok(Generations { live, building, previous })
    }

    /// Makes the tables of a new generation, like those of the live one but with the primary key as
    /// their only index.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn create(&self, live: i32, builder: &str) -> Result<i32, RebuildError> {
        let next = "SELECT max(generation) + 1 FROM projection_generation";
        let next: i32 = self.client.query_one(next, &[]).await?.try_get(0)?;
        let (leads, counts) = (leads_table(next), counts_table(next));
        let (live_leads, live_counts) = (leads_table(live), counts_table(live));
        self.client
            .batch_execute(&format!(
                "BEGIN;
                 INSERT INTO projection_generation (generation, state) VALUES ({next}, 'building');
                 CREATE TABLE {leads} (LIKE {live_leads} INCLUDING DEFAULTS INCLUDING CONSTRAINTS
                     INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS);
                 ALTER TABLE {leads} ADD CONSTRAINT {leads}_pkey PRIMARY KEY (workspace_id, id);
                 CREATE TABLE {counts} (LIKE {live_counts} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)
                     WITH (fillfactor = 50, autovacuum_vacuum_threshold = 200,
                         autovacuum_vacuum_scale_factor = 0);
                 ALTER TABLE {counts} ADD CONSTRAINT {counts}_pkey
                     PRIMARY KEY (workspace_id, field, value, partition);
                 COMMIT"
            ))
            .await?;
        self.note_builder(next, builder).await?;
        Ok(next)
    }

    /// That no record of a new read model lies on another partition than its lead's: with nothing to
    /// compare it with, that is how a topic is told that was given more partitions.
    ///
    /// # Errors
    /// That some do; or PostgreSQL's.
    pub(super) async fn check_placement(&self, generation: i32) -> Result<(), RebuildError> {
        let misplaced = "SELECT count(*) FROM dead_letters
             WHERE generation = $1 AND reason = 'wrong_partition'";
        let misplaced: i64 = self.client.query_one(misplaced, &[&generation]).await?.try_get(0)?;
        if misplaced == 0 {
            return Ok(());
        }
        Err(RebuildError::Failed(format!(
            "{misplaced} records lie on another partition than their lead's: was the topic given \
             more partitions after it was filled? Copy it to a new one (docs/scaling.md, To more \
             partitions), or run `leads-consumer rebuild --accept-differences` with the same \
             options to go on without them"
        )))
    }

    /// Notes who builds a generation.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn note_builder(
        &self,
        generation: i32,
        builder: &str,
    ) -> Result<(), RebuildError> {
        let update = "UPDATE projection_generation SET builder = $2 WHERE generation = $1";
        self.client.execute(update, &[&generation, &builder]).await?;
        Ok(())
    }

    /// Lets a generation that was sealed be written again.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn unseal(&self, generation: i32) -> Result<(), RebuildError> {
        let update = "UPDATE projection_offset SET sealed = false WHERE generation = $1";
        self.client.execute(update, &[&generation]).await?;
        Ok(())
    }

    /// Drops a generation that is not live.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn drop(&self, generation: i32) -> Result<(), RebuildError> {
        let (leads, counts) = (leads_table(generation), counts_table(generation));
        self.client
            .batch_execute(&format!(
                "BEGIN;
                 DELETE FROM dead_letters WHERE generation = {generation};
                 DELETE FROM projection_offset WHERE generation = {generation};
                 DELETE FROM projection_generation
                     WHERE generation = {generation} AND state <> 'live';
                 DROP TABLE IF EXISTS {leads}, {counts};
                 COMMIT"
            ))
            .await?;
        Ok(())
    }

    /// How many bytes the tables of a generation take, indexes and all.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn size(&self, generation: i32) -> Result<i64, RebuildError> {
        let query = "SELECT pg_total_relation_size($1::text::regclass)";
        Ok(self.client.query_one(query, &[&leads_table(generation)]).await?.try_get(0)?)
    }

    /// The room for PostgreSQL's data.
    ///
    /// # Errors
    /// Why it can't be seen.
    pub(super) async fn disk(&self) -> Result<Disk, String> {
        disk::look(&self.client).await
    }

    /// The next offset of each partition of a generation, in their order; empty before the first look.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn offsets(
        &self,
        generation: i32,
        topic: &str,
    ) -> Result<Vec<i64>, RebuildError> {
        let query = "SELECT next_offset FROM projection_offset
             WHERE generation = $1 AND topic = $2 ORDER BY partition";
        let rows = self.client.query(query, &[&generation, &topic]).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Builds the unique indexes that the live generation has and this one lacks: what they refused
    /// there is refused here too, while it is loaded.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn build_unique_indexes(
        &self,
        live: i32,
        generation: i32,
    ) -> Result<(), RebuildError> {
        self.build(live, generation, |definition| definition.starts_with(UNIQUE)).await.map(drop)
    }

    /// Builds the indexes that the live generation has and this one lacks. Gives how many.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub(super) async fn build_indexes(
        &self,
        live: i32,
        generation: i32,
    ) -> Result<usize, RebuildError> {
        self.build(live, generation, |_| true).await
    }

    async fn build(
        &self,
        live: i32,
        generation: i32,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<usize, RebuildError> {
        let query = "SELECT indexname, indexdef FROM pg_indexes
             WHERE schemaname = current_schema() AND tablename = $1";
        let (of_live, of_ours) = (leads_table(live), leads_table(generation));
        let live_indexes = self.client.query(query, &[&of_live]).await?;
        let mut there = Vec::new();
        for row in self.client.query(query, &[&of_ours]).await? {
            there.push(row.try_get::<_, String>(0)?);
        }
        self.client.batch_execute("SET maintenance_work_mem = '256MB'").await?;
        let mut built = 0;
        for row in live_indexes {
            let (name, definition): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
            let ours = match name.strip_prefix(&of_live) {
                Some(rest) => format!("{of_ours}{rest}"),
                None => format!("{name}_g{generation}"),
            };
            if there.contains(&ours) || !wanted(definition) {
                continue;
            }
            let Some((_, method)) = definition.split_once(" USING ") else { continue };
            let unique = if definition.starts_with(UNIQUE) { "UNIQUE" } else { "" };
            let create = format!("CREATE {unique} INDEX \"{ours}\" ON {of_ours} USING {method}");
            self.client.batch_execute(&create).await?;
            built += 1;
        }
        self.client.batch_execute(&format!("ANALYZE {of_ours}")).await?;
        Ok(built)
    }
}

/// A swap under way: the live generation's offsets are sealed, and where they stand is known.
/// Dropped without [`Swap::commit`], nothing has happened.
pub(super) struct Swap {
    client: Connection,
    from: i32,
    /// The next offset of each partition, in their order.
    pub(super) targets: Vec<i64>,
}

impl Swap {
    /// Seals the offsets of generation `from`. Its writers wait until this is over. The transaction
    /// is `client`'s.
    ///
    /// # Errors
    /// PostgreSQL's, such as 55P03 when a writer holds them for long.
    pub(super) async fn begin(
        client: Connection,
        from: i32,
        topic: &str,
    ) -> Result<Self, tokio_postgres::Error> {
        let mut swap = Self { client, from, targets: Vec::new() };
        swap.client
            .batch_execute(&format!("BEGIN; SET LOCAL lock_timeout = '{SWAP_LOCK_TIMEOUT}'"))
            .await?;
        // In their order, as far as one can ask for it: writers lock theirs in the same.
        let lock = "SELECT 1 FROM projection_offset WHERE generation = $1 AND topic = $2
             ORDER BY partition FOR UPDATE";
        swap.client.execute(lock, &[&from, &topic]).await?;
        let seal = "UPDATE projection_offset SET sealed = true
             WHERE generation = $1 AND topic = $2 RETURNING partition, next_offset";
        let rows = swap.client.query(seal, &[&from, &topic]).await?;
        let mut targets = Vec::with_capacity(rows.len());
        for row in rows {
            targets.push((row.try_get::<_, i32>(0)?, row.try_get::<_, i64>(1)?));
        }
        targets.sort_unstable();
        swap.targets = targets.into_iter().map(|(_, next_offset)| next_offset).collect();
        Ok(swap)
    }

    /// Makes generation `to` the live one, in one short transaction. What `to` set aside and `from`
    /// had exported already is not exported again.
    ///
    /// # Errors
    /// PostgreSQL's, such as 55P03 when a long query holds the views.
    pub(super) async fn commit(self, to: i32) -> Result<(), tokio_postgres::Error> {
        let from = self.from;
        let (leads, counts) = (leads_table(to), counts_table(to));
        self.client
            .batch_execute(&format!(
                "UPDATE projection_offset SET sealed = false WHERE generation = {to};
                 UPDATE projection_generation SET state = 'previous' WHERE generation = {from};
                 UPDATE projection_generation SET state = 'live', live_since = now(), builder = NULL
                     WHERE generation = {to};
                 UPDATE dead_letters AS new SET exported_at = old.exported_at
                     FROM dead_letters AS old
                     WHERE new.generation = {to} AND old.generation = {from}
                         AND new.topic = old.topic AND new.partition = old.partition
                         AND new.\"offset\" = old.\"offset\" AND new.exported_at IS NULL;
                 CREATE OR REPLACE VIEW lead_counts AS
                     SELECT workspace_id, partition, leads FROM {counts} WHERE field = 'all';
                 CREATE OR REPLACE VIEW lead_value_counts AS
                     SELECT workspace_id, field, value, partition, leads FROM {counts}
                     WHERE field <> 'all';
                 CREATE OR REPLACE VIEW leads AS SELECT {LEAD_COLUMNS} FROM {leads}"
            ))
            .await?;
        self.client.batch_execute("COMMIT").await
    }
}

/// The generation that is live, once no swap is under way any more: `None` while one is. PostgreSQL
/// may be at a COMMIT whose client is gone.
///
/// # Errors
/// PostgreSQL's.
pub(super) async fn live_after_swaps(
    config: &Config,
    tls: &MakeTlsConnector,
) -> Result<Option<i32>, RebuildError> {
    let client = Connection::named(config, tls, "leads-consumer rebuild").await?;
    // Two statements: the second sees what those did that the first no longer found.
    let swaps = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = $1";
    let swaps: i64 = client.query_one(swaps, &[&SWAP_NAME]).await?.try_get(0)?;
    if swaps > 0 {
        return Ok(None);
    }
    let live = "SELECT generation FROM projection_generation WHERE state = 'live'";
    Ok(Some(client.query_one(live, &[]).await?.try_get(0)?))
}

impl From<Unreachable> for RebuildError {
    fn from(error: Unreachable) -> Self {
        Self::Failed(format!("PostgreSQL: {error}"))
    }
}

impl From<tokio_postgres::Error> for RebuildError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Failed(format!("PostgreSQL: {}", describe(&error)))
    }
}
