//! The rows of a batch.

use std::pin::pin;

use bytes::{BufMut, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::SinkExt;
use futures_util::future::join3;
use leads_shared::{Change, Json, Text, Timestamp};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::session::At;
use crate::failure::{Failure, Halt};
use crate::projection::counts::counts;
use crate::projection::fold::Folded;
use crate::projection::{Created, PreconditionFailure, Updated};
use crate::record::Record;

/// COPY goes out in pieces of this size: tokio-postgres passes each through a one-slot channel.
const PIECE: usize = 128 * 1024;
/// The header of COPY's binary format: signature, flags, length of the extension.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const COLUMNS: i16 = 15;
/// Microseconds from 1970 to 2000, where PostgreSQL's time begins.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// New leads, straight into the table: this partition's writer is their only one, and they are not
/// there (the offsets were compared, then the table was read).
pub(super) async fn insert_created(
    session: At<'_>,
    created: &[Created<'_>],
) -> Result<(), Failure> {
    if created.is_empty() {
        return Ok(());
    }
    // In the order of the keys neighbours in the indexes come one after the other.
    let mut rows: Vec<&Created<'_>> = created.iter().collect();
    rows.sort_unstable_by_key(|row| (row.lead.workspace_id, row.lead.id));
    let mut sink = pin!(session.client.copy_in::<_, Bytes>(&session.statements.copy_leads).await?);
    let mut buffer = BytesMut::with_capacity(PIECE + PIECE / 4);
    buffer.put_slice(COPY_HEADER);
    for row in rows {
        encode(&mut buffer, row);
        if buffer.len() >= PIECE {
            sink.send(buffer.split().freeze()).await?;
            buffer.reserve(PIECE + PIECE / 4);
        }
    }
    buffer.put_i16(-1);
    sink.send(buffer.freeze()).await?;
    must_be(sink.finish().await?, created.len(), "inserted")
}

fn must_be(found: u64, expected: usize, what: &str) -> Result<(), Failure> {
    if found == expected as u64 {
        return Ok(());
    }
    Err(Failure::Halt(Halt::new(
        format!("{found} of {expected} leads were {what}: someone else writes to leads"),
        "only leads-consumer may; let a fresh database be filled from the topic",
    )))
}

/// One row in COPY's binary format: the number of columns, then length and bytes of each.
/// Source: <https://www.postgresql.org/docs/18/sql-copy.html#SQL-COPY-FILE-FORMATS>
fn encode(buffer: &mut BytesMut, row: &Created<'_>) {
    let Created { lead, version, last_event_id, index: _ } = row;
    buffer.put_i16(COLUMNS);
    put_uuid(buffer, Some(lead.workspace_id));
    put_uuid(buffer, Some(lead.id));
    put_uuid(buffer, lead.visitor_id);
    put_text(buffer, lead.code.as_ref());
    put_text(buffer, lead.source.as_ref());
    put_i64(buffer, postgres_micros(lead.created_at));
    put_i64(buffer, postgres_micros(lead.updated_at));
    put_json(buffer, lead.properties.as_ref());
    put_json(buffer, lead.location.as_ref());
    put_uuid(buffer, lead.identity_id);
    put_uuid(buffer, lead.session_id);
    put_json(buffer, lead.summary.as_ref());
    put_uuid(buffer, lead.company_id);
    put_i64(buffer, bigint(*version));
    put_uuid(buffer, Some(*last_event_id));
}

fn postgres_micros(time: Timestamp) -> i64 {
    time.unix_millis() * 1_000 - EPOCH_MICROS
}

fn put_i64(buffer: &mut BytesMut, value: i64) {
    buffer.put_i32(8);
    buffer.put_i64(value);
}

fn put_uuid(buffer: &mut BytesMut, value: Option<Uuid>) {
    match value {
        Some(value) => {
            buffer.put_i32(16);
            buffer.put_slice(value.as_bytes());
        }
        None => buffer.put_i32(-1),
    }
}

fn put_text(buffer: &mut BytesMut, value: Option<&Text<'_>>) {
    match value {
        Some(value) => put_bytes(buffer, &[], value.as_str().as_bytes()),
        None => buffer.put_i32(-1),
    }
}

/// jsonb's binary form is a version byte and the JSON text.
fn put_json(buffer: &mut BytesMut, value: Option<&Json<'_>>) {
    match value {
        Some(value) => put_bytes(buffer, &[1], value.text().as_bytes()),
        None => buffer.put_i32(-1),
    }
}

fn put_bytes(buffer: &mut BytesMut, prefix: &[u8], bytes: &[u8]) {
    // A record, and so a value of it, is far smaller than 2 GiB.
    buffer.put_i32(i32::try_from(prefix.len() + bytes.len()).unwrap_or(i32::MAX));
    buffer.put_slice(prefix);
    buffer.put_slice(bytes);
}

fn bigint(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}

/// The updates, then the statements that wait for nothing with the COMMIT right behind them. After
/// one that failed the server takes the COMMIT for a ROLLBACK.
pub(super) async fn write_rest_and_commit(
    session: At<'_>,
    folded: &Folded<'_>,
    records: &[Record<'_>],
) -> Result<(), Failure> {
    update(session, &folded.updated).await?;
    let (counted, noted, committed) = join3(
        count(session, folded, records),
        note_precondition_failures(session, &folded.precondition_failures),
        session.client.batch_execute("COMMIT"),
    )
    .await;
    counted?;
    noted?;
    Ok(committed?)
}

/// The same, and the transaction goes on.
pub(super) async fn write_rest(
    session: At<'_>,
    folded: &Folded<'_>,
    records: &[Record<'_>],
) -> Result<(), Failure> {
    update(session, &folded.updated).await?;
    count(session, folded, records).await?;
    note_precondition_failures(session, &folded.precondition_failures).await
}

/// One statement for all rows; each row is there once, since the fold merged its changes.
async fn update(session: At<'_>, updated: &[Updated<'_>]) -> Result<(), Failure> {
    if updated.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<Uuid> = updated.iter().map(|row| row.key.workspace_id).collect();
    let ids: Vec<Uuid> = updated.iter().map(|row| row.key.id).collect();
    let times: Vec<DateTime<Utc>> = updated.iter().map(|row| row.after.updated_at.into()).collect();
    let versions: Vec<i64> = updated.iter().map(|row| bigint(row.after.version)).collect();
    let events: Vec<Uuid> = updated.iter().map(|row| row.after.last_event_id).collect();
    let (has_visitor_id, visitor_id) = column(updated, |row| uuid(&row.changes.visitor_id));
    let (has_code, code) = column(updated, |row| text(&row.changes.code));
    let (has_source, source) = column(updated, |row| text(&row.changes.source));
    let (has_properties, properties) = column(updated, |row| json(&row.changes.properties));
    let (has_location, location) = column(updated, |row| json(&row.changes.location));
    let (has_identity_id, identity_id) = column(updated, |row| uuid(&row.changes.identity_id));
    let (has_session_id, session_id) = column(updated, |row| uuid(&row.changes.session_id));
    let (has_summary, summary) = column(updated, |row| json(&row.changes.summary));
    let (has_company_id, company_id) = column(updated, |row| uuid(&row.changes.company_id));
    let parameters: [&(dyn ToSql + Sync); 23] = [
        &workspaces,
        &ids,
        &times,
        &versions,
        &events,
        &has_visitor_id,
        &visitor_id,
        &has_code,
        &code,
        &has_source,
        &source,
        &has_properties,
        &properties,
        &has_location,
        &location,
        &has_identity_id,
        &identity_id,
        &has_session_id,
        &session_id,
        &has_summary,
        &summary,
        &has_company_id,
        &company_id,
    ];
    let found = session.client.execute(&session.statements.update_leads, &parameters).await?;
    must_be(found, updated.len(), "updated")
}

/// Whether each row has the field, and its value.
fn column<'a, T>(
    rows: &'a [Updated<'_>],
    field: impl Fn(&'a Updated<'_>) -> (bool, Option<T>),
) -> (Vec<bool>, Vec<Option<T>>) {
    rows.iter().map(field).unzip()
}

fn change<'a, T, U>(change: &'a Change<T>, value: impl FnOnce(&'a T) -> U) -> (bool, Option<U>) {
    match change {
        Change::Keep => (false, None),
        Change::Clear => (true, None),
        Change::Set(set) => (true, Some(value(set))),
    }
}

fn uuid(field: &Change<Uuid>) -> (bool, Option<Uuid>) {
    change(field, |value| *value)
}

fn text<'a>(field: &'a Change<Text<'_>>) -> (bool, Option<&'a str>) {
    change(field, Text::as_str)
}

fn json<'a>(field: &'a Change<Json<'_>>) -> (bool, Option<&'a str>) {
    change(field, Json::text)
}

/// Moves the counts. Sorted, so that two writers never lock the same rows in opposite orders.
async fn count(
    session: At<'_>,
    folded: &Folded<'_>,
    records: &[Record<'_>],
) -> Result<(), Failure> {
    let partition = |index: usize| records.get(index).map(|record| record.partition);
    let counts = counts(folded, partition);
    if counts.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<Uuid> = counts.iter().map(|(by, _)| by.workspace_id).collect();
    let fields: Vec<&str> = counts.iter().map(|(by, _)| by.field.name()).collect();
    let values: Vec<&str> = counts.iter().map(|(by, _)| by.value).collect();
    let partitions: Vec<i32> = counts.iter().map(|(by, _)| by.partition).collect();
    let leads: Vec<i64> = counts.iter().map(|(_, leads)| *leads).collect();
    let statement = &session.statements.count_leads;
    let values: [&(dyn ToSql + Sync); 5] = [&workspaces, &fields, &values, &partitions, &leads];
    session.client.execute(statement, &values).await?;
    Ok(())
}

async fn note_precondition_failures(
    session: At<'_>,
    failures: &[PreconditionFailure],
) -> Result<(), Failure> {
    if failures.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = failures.iter().map(|failure| failure.event_id).collect();
    let times: Vec<DateTime<Utc>> =
        failures.iter().map(|failure| failure.occurred_at.into()).collect();
    let statement = &session.statements.insert_precondition_failures;
    session.client.execute(statement, &[&ids, &times]).await?;
    Ok(())
}
