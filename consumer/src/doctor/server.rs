//! The database server itself: whether it writes, has room, and runs by the same clock.

use chrono::{DateTime, Utc};
use tokio_postgres::{Client, Error};

use super::Looked;
use super::database::unseen;
use super::finding::{Finding, Seen, Unseen, judge};
use crate::disk::{self, Disk};
use crate::status::render::span;

/// A clock that is off by more makes ages and times in answers wrong to the eye.
const SKEW: f64 = 2.0;
/// And by more, something is broken.
const WILD_SKEW: f64 = 60.0;
/// A transaction that is open for longer holds up vacuum.
const LONG: f64 = 60.0;
/// Of the connections, or of the disk, in percent.
const NEARLY_ALL: u64 = 85;
const FULL: u64 = 95;

/// Whether the server writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Writable {
    /// It follows another server.
    pub(super) in_recovery: bool,
    /// Transactions are read-only unless they say otherwise.
    pub(super) read_only: bool,
}

/// How many may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connections {
    /// How many are.
    pub(super) used: u64,
    /// How many may be, those for superusers left out.
    pub(super) most: u64,
}

/// A transaction that is in the way.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Transaction {
    /// Its process.
    pub(super) pid: i32,
    /// What its client calls itself.
    pub(super) application: String,
    /// Its user.
    pub(super) user: String,
    /// How long it has been open, when we may know.
    pub(super) seconds: Option<f64>,
    /// Whether someone waits for a lock of it.
    pub(super) blocks: bool,
}

/// Whether the server writes.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_writable(client: &Client) -> Seen<Writable> {
    let query = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'";
    let row = client.query_one(query, &[]).await;
    row.and_then(|row| Ok(Writable { in_recovery: row.try_get(0)?, read_only: row.try_get(1)? }))
        .map_err(|error| unseen(&error))
}

/// The server writes.
pub(super) fn writable(looked: &Looked) -> Finding {
    judge(&looked.writable, |writable| match writable {
        Writable { in_recovery: true, .. } => Finding::failed(
            "the server is a replica (pg_is_in_recovery): it takes no writes",
            "name the primary in DATABASE_URL, or promote this one: SELECT pg_promote();",
        ),
        Writable { read_only: true, .. } => Finding::failed(
            "transactions are read-only (default_transaction_read_only)",
            format!(
                "psql \"$DATABASE_URL\": SET transaction_read_only = off; ALTER DATABASE {} RESET \
                 default_transaction_read_only; the same for the role and in postgresql.conf",
                looked.database_name
            ),
        ),
        _ => Finding::ok("the server takes writes"),
    })
}

/// How many are connected. Unlike `pg_stat_activity`, what is asked shows all of them to anyone.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_connections(client: &Client) -> Seen<Connections> {
    let query = "SELECT
        (SELECT COALESCE(sum(numbackends), 0)::bigint FROM pg_stat_database),
        (SELECT sum(CASE name WHEN 'max_connections' THEN 1 ELSE -1 END * setting::bigint)::bigint
         FROM pg_settings WHERE name IN
             ('max_connections', 'superuser_reserved_connections', 'reserved_connections'))";
    let number = |value: i64| u64::try_from(value).unwrap_or(0);
    let row = client.query_one(query, &[]).await;
    row.and_then(|row| {
        Ok(Connections { used: number(row.try_get(0)?), most: number(row.try_get(1)?) })
    })
    .map_err(|error| unseen(&error))
}

/// There is room for connections.
pub(super) fn connections(looked: &Looked) -> Finding {
    judge(&looked.connections, |it| judge_connections(*it))
}

fn judge_connections(Connections { used, most }: Connections) -> Finding {
    let found = format!("{used} of {most} connections are in use");
    let fix = "end what is not needed (SELECT application_name, count(*) FROM pg_stat_activity \
               GROUP BY 1 ORDER BY 2 DESC;), or raise max_connections";
    match used * 100 / most.max(1) {
        FULL.. => Finding::failed(found, fix),
        NEARLY_ALL.. => Finding::warning(found, fix),
        _ => Finding::ok(found),
    }
}

/// Transactions of this database that are in the way: those that someone has been waiting for, and
/// long ones that hold locks.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_transactions(client: &Client) -> Seen<Vec<Transaction>> {
    let query = "
        WITH blocker AS (
            SELECT DISTINCT unnest(pg_blocking_pids(pid)) AS pid FROM pg_locks
            WHERE NOT granted AND waitstart < clock_timestamp() - interval '2 s'
        )
        SELECT pid, COALESCE(application_name, ''), COALESCE(usename, ''),
            extract(epoch FROM clock_timestamp() - xact_start)::float8,
            pid IN (SELECT pid FROM blocker)
        FROM pg_stat_activity AS a
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND (pid IN (SELECT pid FROM blocker)
                OR xact_start < clock_timestamp() - make_interval(secs => $1)
                    AND EXISTS (SELECT FROM pg_locks AS l
                        WHERE l.pid = a.pid AND l.locktype = 'relation' AND l.granted))
        ORDER BY xact_start";
    try_transactions(client, query).await.map_err(|error| unseen(&error))
}

async fn try_transactions(client: &Client, query: &str) -> Result<Vec<Transaction>, Error> {
    let rows = client.query(query, &[&LONG]).await?;
    let read = |row: &tokio_postgres::Row| {
        Ok(Transaction {
            pid: row.try_get(0)?,
            application: row.try_get(1)?,
            user: row.try_get(2)?,
            seconds: row.try_get(3)?,
            blocks: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect()
}

/// No transaction is in the way.
pub(super) fn transactions(looked: &Looked) -> Finding {
    judge(&looked.transactions, |found| judge_transactions(found))
}

fn judge_transactions(found: &[Transaction]) -> Finding {
    let Some(worst) = found.iter().find(|it| it.blocks).or(found.first()) else {
        return Finding::ok("none holds a lock for long");
    };
    let Transaction { pid, application, user, seconds, blocks } = worst;
    let what = if *blocks { "holds a lock that others wait for" } else { "holds locks" };
    let more = match found.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    let open = seconds.map_or_else(String::new, |seconds| format!(" for {}", span(seconds)));
    let found = format!(
        "process {pid} ({application}, user {user}) has a transaction open{open} and {what}{more}"
    );
    let fix = format!("psql \"$DATABASE_URL\" -c 'SELECT pg_terminate_backend({pid})'");
    if *blocks { Finding::failed(found, fix) } else { Finding::warning(found, fix) }
}

/// How far the server's clock is ahead of ours, in seconds; less when the answer took long.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_clock(client: &Client) -> Seen<f64> {
    let before = Utc::now();
    let row = client.query_one("SELECT clock_timestamp()", &[]).await;
    let there: DateTime<Utc> =
        row.and_then(|row| row.try_get(0)).map_err(|error| unseen(&error))?;
    Ok(skew(before, there, Utc::now()))
}

/// The least that the clocks must differ by, for `there` was read between the two of ours.
fn skew(before: DateTime<Utc>, there: DateTime<Utc>, after: DateTime<Utc>) -> f64 {
    if there < before {
        -(before - there).as_seconds_f64()
    } else if there > after {
        (there - after).as_seconds_f64()
    } else {
        0.0
    }
}

/// The clocks agree: PostgreSQL's, and that of whoever wrote the newest records that were seen.
pub(super) fn clock(looked: &Looked) -> Finding {
    judge(&looked.clock, |skew| judge_clock(*skew, looked.newest_record_ahead()))
}

/// `records` is how far the newest record is ahead of us, in seconds.
fn judge_clock(skew: f64, records: f64) -> Finding {
    let (who, ahead) =
        if skew.abs() >= records { ("PostgreSQL", skew) } else { ("the log", records) };
    let direction = if ahead < 0.0 { "behind" } else { "ahead of" };
    let found = format!("the clock of {who} is {} {direction} ours", span(ahead.abs()));
    let fix = "have all machines follow a time server: timedatectl status; chronyc tracking";
    match ahead.abs() {
        seconds if seconds > WILD_SKEW => Finding::failed(found, fix),
        seconds if seconds > SKEW => Finding::warning(found, fix),
        _ => Finding::ok("they agree"),
    }
}

/// The file system of the data, when it can be seen from here.
///
/// # Errors
/// See [`Unseen`].
pub(super) async fn look_disk(client: &Client) -> Seen<Disk> {
    disk::look(client).await.map_err(Unseen::Skipped)
}

/// There is room on the disk.
pub(super) fn disk_room(looked: &Looked) -> Finding {
    judge(&looked.disk, |it| judge_disk(*it))
}

fn judge_disk(Disk { size, free }: Disk) -> Finding {
    const MIB: u64 = 1024 * 1024;
    let used = size.saturating_sub(free).saturating_mul(100) / size.max(1);
    let found = format!("{used} % of PostgreSQL's disk is in use, {} MiB are free", free / MIB);
    let fix = "make room or grow the disk; leads-consumer rebuild discard --previous drops the \
               generation that is kept for rollback";
    match used {
        FULL.. if free < 50 * 1024 * MIB => Finding::failed(found, fix),
        NEARLY_ALL.. if free < 200 * 1024 * MIB => Finding::warning(found, fix),
        _ => Finding::ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn connections_are_counted_without_the_reserved_ones() {
        let verdict = |used| judge_connections(Connections { used, most: 100 }).verdict;
        assert_eq!(
            [84, 85, 95, 101].map(verdict),
            [Verdict::Ok, Verdict::Warning, Verdict::Failed, Verdict::Failed]
        );
    }

    #[test]
    fn who_holds_others_up_comes_first() {
        let open = |pid, seconds, blocks| {
            let (application, user) = ("a".to_owned(), "u".to_owned());
            Transaction { pid, application, user, seconds: Some(seconds), blocks }
        };
        assert_eq!(judge_transactions(&[]).verdict, Verdict::Ok);
        assert_eq!(judge_transactions(&[open(1, 90.0, false)]).verdict, Verdict::Warning);
        let found = judge_transactions(&[open(1, 90.0, false), open(2, 5.0, true)]);
        assert_eq!(found.verdict, Verdict::Failed);
        assert!(found.found.contains("process 2") && found.found.contains("1 more"), "{found:?}");
    }

    #[test]
    fn a_clock_is_off_by_what_the_way_does_not_explain() {
        let at = |millis| DateTime::from_timestamp_millis(millis).unwrap_or_default();
        assert!((skew(at(0), at(500), at(900))).abs() < f64::EPSILON);
        assert!((skew(at(0), at(3900), at(900)) - 3.0).abs() < 1e-9);
        assert!((skew(at(5000), at(0), at(5100)) + 5.0).abs() < 1e-9);
        assert_eq!(judge_clock(-3.0, 0.0).verdict, Verdict::Warning);
        assert!(judge_clock(-3.0, 0.0).found.contains("behind"));
        assert_eq!(judge_clock(0.0, 90.0).verdict, Verdict::Failed);
        assert_eq!(judge_clock(0.5, 0.1).verdict, Verdict::Ok);
    }

    #[test]
    fn a_disk_is_full_by_share_and_by_size() {
        let gib = 1024 * 1024 * 1024;
        let verdict =
            |size: u64, free: u64| judge_disk(Disk { size: size * gib, free: free * gib }).verdict;
        assert_eq!(verdict(100, 50), Verdict::Ok);
        assert_eq!(verdict(100, 10), Verdict::Warning);
        assert_eq!(verdict(100, 2), Verdict::Failed);
        assert_eq!(verdict(100_000, 1000), Verdict::Ok);
    }
}
