//! A connection with its settings and prepared statements.

use std::borrow::Cow;

use postgres_openssl::MakeTlsConnector;
use tokio_postgres::{Client, Config, Statement};

use crate::connection::Connection;
use crate::failure::Failure;

/// A frozen or partitioned-off writer must not hold up its successor: its locks end by these.
/// The planner is held to the primary key: it would take a sequential scan for a join with a large
/// array until the table's first ANALYZE, and that can be the whole of a first drain away. And a
/// plan kept from when the table was empty, where all indexes look alike, may read a whole workspace
/// through the wrong one: each batch is planned by the table's present size.
/// A commit does not wait for the disk: after a crash of PostgreSQL rows and offsets are back at the
/// same older moment, and the log brings what came after.
/// A ROLLBACK where nothing had begun is no news.
/// Settings that this version of PostgreSQL does not know are passed over.
const SETTINGS: &str = "
    SELECT set_config(known.name, wanted.value, false)
    FROM (VALUES
        ('statement_timeout', '20s'),
        ('idle_in_transaction_session_timeout', '10s'),
        ('transaction_timeout', '30s'),
        ('lock_timeout', '5s'),
        ('client_connection_check_interval', '1s'),
        ('synchronous_commit', 'off'),
        ('client_min_messages', 'error'),
        ('plan_cache_mode', 'force_custom_plan'),
        ('enable_seqscan', 'off'),
        ('enable_hashjoin', 'off'),
        ('enable_mergejoin', 'off')
    ) AS wanted (name, value)
    JOIN pg_settings AS known ON known.name = wanted.name";

pub(super) struct Session {
    pub(super) client: Connection,
    /// Prepared for one generation's tables at a time.
    prepared: Option<(i32, Statements)>,
}

/// A session at work on one generation's tables.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) client: &'a Client,
    pub(super) statements: &'a Statements,
    pub(super) generation: i32,
}

impl Session {
    pub(super) async fn connect(config: &Config, tls: &MakeTlsConnector) -> Result<Self, Failure> {
        let client = Connection::open(config, tls).await?;
        client.batch_execute(SETTINGS).await?;
        Ok(Self { client, prepared: None })
    }

    /// The session with the statements for a generation's tables.
    pub(super) async fn at(&mut self, generation: i32) -> Result<At<'_>, Failure> {
        let statements = match self.prepared.take() {
            Some((known, statements)) if known == generation => statements,
            Some(_) | None => Statements::prepare(&self.client, generation).await?,
        };
        let (_, statements) = self.prepared.insert((generation, statements));
        Ok(At { client: &self.client, statements, generation })
    }
}

/// Ends sessions that stand still in a COPY, and hold the offsets. No setting does: PostgreSQL lets a
/// COPY wait for its client beyond `statement_timeout` and `transaction_timeout`.
pub(crate) async fn end_frozen_writers(client: &Client) {
    match client.query_one(END_FROZEN_WRITERS, &[]).await.and_then(|row| row.try_get(0)) {
        Ok(0_i64) => {}
        Ok(ended) => {
            tracing::warn!(ended, "writers that stood still in a transaction were ended");
        }
        Err(error) => tracing::debug!(%error, "looking for writers that stand still failed"),
    }
}

pub(super) struct Statements {
    pub(super) move_offsets: Statement,
    pub(super) read_known: Statement,
    pub(super) copy_leads: Statement,
    pub(super) update_leads: Statement,
    pub(super) count_leads: Statement,
    pub(super) insert_precondition_failures: Statement,
    pub(super) insert_dead_letter: Statement,
    pub(super) read_held: Statement,
}

impl Statements {
    async fn prepare(client: &Client, generation: i32) -> Result<Self, tokio_postgres::Error> {
        let of = |sql: &str| {
            sql.replace("{leads}", &leads_table(generation))
                .replace("{lead_counts}", &counts_table(generation))
        };
        Ok(Self {
            move_offsets: client.prepare(MOVE_OFFSETS).await?,
            read_known: client.prepare(&of(READ_KNOWN)).await?,
            copy_leads: client.prepare(&of(COPY_LEADS)).await?,
            update_leads: client.prepare(&of(UPDATE_LEADS)).await?,
            count_leads: client.prepare(&of(COUNT_LEADS)).await?,
            insert_precondition_failures: client.prepare(INSERT_PRECONDITION_FAILURES).await?,
            insert_dead_letter: client.prepare(INSERT_DEAD_LETTER).await?,
            read_held: client.prepare(READ_HELD).await?,
        })
    }
}

/// The table of a generation's leads.
pub(crate) fn leads_table(generation: i32) -> String {
    format!("leads_g{generation}")
}

/// The table of a generation's counts.
pub(crate) fn counts_table(generation: i32) -> String {
    format!("lead_counts_g{generation}")
}

/// Each statement sees what was committed before it, and so what the lock of the offsets was waited
/// for, whatever the server's default is.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED";

/// Begins a transaction, with a comment of the trace that it belongs to, as sqlcommenter writes it:
/// <https://google.github.io/sqlcommenter/spec/>.
pub(super) fn begin(traceparent: Option<&str>) -> Cow<'static, str> {
    match traceparent {
        Some(place) => format!("{BEGIN} /*traceparent='{place}'*/").into(),
        None => BEGIN.into(),
    }
}

const MOVE_OFFSETS: &str = "
    UPDATE projection_offset AS o
    SET next_offset = moved.next_offset, last_event_id = moved.last_event_id
    FROM UNNEST($3::int[], $4::bigint[], $5::bigint[], $6::uuid[])
        AS moved (partition, expected, next_offset, last_event_id)
    WHERE o.generation = $1 AND o.topic = $2 AND o.partition = moved.partition
        AND o.next_offset = moved.expected AND NOT o.sealed
        AND ($7 OR EXISTS
            (SELECT FROM projection_generation WHERE generation = $1 AND state = 'live'))";

/// Those that their own settings were to end. The row locks themselves are not listed, but the lock
/// on the table that comes with them is.
const END_FROZEN_WRITERS: &str = "
    SELECT count(pg_terminate_backend(a.pid))
    FROM pg_stat_activity AS a
    WHERE a.datname = current_database() AND a.usename = current_user
        AND a.pid <> pg_backend_pid() AND a.wait_event = 'ClientRead'
        AND a.xact_start < now() - interval '10 seconds'
        AND EXISTS (SELECT FROM pg_locks AS l
            WHERE l.pid = a.pid AND l.relation = 'projection_offset'::regclass
                AND l.mode = 'RowExclusiveLock' AND l.granted)";

const READ_KNOWN: &str = "
    SELECT l.workspace_id, l.id, l.version, l.last_event_id, l.updated_at, l.code, l.source
    FROM UNNEST($1::uuid[], $2::uuid[]) AS wanted (workspace_id, id)
    JOIN {leads} AS l ON l.workspace_id = wanted.workspace_id AND l.id = wanted.id";

const COPY_LEADS: &str = "
    COPY {leads} (workspace_id, id, visitor_id, code, source, created_at, updated_at, properties,
        location, identity_id, session_id, summary, company_id, version, last_event_id)
    FROM STDIN (FORMAT binary)";

/// For each field: whether it is given, and its value.
const UPDATE_LEADS: &str = "
    UPDATE {leads} AS l SET
        visitor_id = CASE WHEN c.has_visitor_id THEN c.visitor_id ELSE l.visitor_id END,
        code = CASE WHEN c.has_code THEN c.code ELSE l.code END,
        source = CASE WHEN c.has_source THEN c.source ELSE l.source END,
        properties = CASE WHEN c.has_properties THEN c.properties::jsonb ELSE l.properties END,
        location = CASE WHEN c.has_location THEN c.location::jsonb ELSE l.location END,
        identity_id = CASE WHEN c.has_identity_id THEN c.identity_id ELSE l.identity_id END,
        session_id = CASE WHEN c.has_session_id THEN c.session_id ELSE l.session_id END,
        summary = CASE WHEN c.has_summary THEN c.summary::jsonb ELSE l.summary END,
        company_id = CASE WHEN c.has_company_id THEN c.company_id ELSE l.company_id END,
        updated_at = c.updated_at, version = c.version, last_event_id = c.last_event_id
    FROM UNNEST(
        $1::uuid[], $2::uuid[], $3::timestamptz[], $4::bigint[], $5::uuid[],
        $6::bool[], $7::uuid[], $8::bool[], $9::text[], $10::bool[], $11::text[],
        $12::bool[], $13::text[], $14::bool[], $15::text[], $16::bool[], $17::uuid[],
        $18::bool[], $19::uuid[], $20::bool[], $21::text[], $22::bool[], $23::uuid[]
    ) AS c (
        workspace_id, id, updated_at, version, last_event_id,
        has_visitor_id, visitor_id, has_code, code, has_source, source,
        has_properties, properties, has_location, location, has_identity_id, identity_id,
        has_session_id, session_id, has_summary, summary, has_company_id, company_id
    )
    WHERE l.workspace_id = c.workspace_id AND l.id = c.id";

const COUNT_LEADS: &str = "
    INSERT INTO {lead_counts} AS l (workspace_id, field, value, partition, leads)
    SELECT * FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::int[], $5::bigint[])
    ON CONFLICT (workspace_id, field, value, partition)
    DO UPDATE SET leads = l.leads + EXCLUDED.leads";

const INSERT_PRECONDITION_FAILURES: &str = "
    INSERT INTO precondition_failures (event_id, occurred_at)
    SELECT * FROM UNNEST($1::uuid[], $2::timestamptz[])
    ON CONFLICT DO NOTHING";

/// The record is known already when the offsets were set back by hand.
const INSERT_DEAD_LETTER: &str = "
    INSERT INTO dead_letters (generation, topic, partition, \"offset\", lead_id, reason, error,
        holds_lead, record_key, record_value, header_names, header_values, record_time)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT DO NOTHING";

/// Which leads are held, and by the record at which offset.
const READ_HELD: &str = "
    SELECT d.partition, d.lead_id, min(d.\"offset\")
    FROM UNNEST($3::int[], $4::uuid[]) AS wanted (partition, lead_id)
    JOIN dead_letters AS d ON d.partition = wanted.partition AND d.lead_id = wanted.lead_id
    WHERE d.generation = $1 AND d.topic = $2 AND d.holds_lead AND d.redriven_at IS NULL
    GROUP BY d.partition, d.lead_id";
