//! `dlq show`: the one place where the contents of a lead are shown.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{DlqError, Reader, json_line, text, time};
use crate::cli::{DlqShowArgs, Place};

#[derive(Serialize)]
struct Shown {
    topic: String,
    generation: i32,
    partition: i32,
    offset: i64,
    lead_id: Option<Uuid>,
    reason: String,
    error: String,
    record_time: Option<String>,
    dead_at: String,
    exported_at: Option<String>,
    redriven_at: Option<String>,
    /// Whether later events of the lead wait for it.
    holds_lead: bool,
    /// Partition and offset of those parked behind it.
    parked_behind: Vec<String>,
    history: Vec<Before>,
    headers: Vec<Header>,
    key: Option<String>,
    key_base64: Option<String>,
    /// The value, when it is JSON.
    value: Option<Box<RawValue>>,
    value_base64: Option<String>,
    #[serde(skip)]
    bytes: Bytes,
}

/// Key and value as they were.
struct Bytes {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
}

/// What a record was set aside for until a redrive failed for another reason.
#[derive(Serialize, Deserialize)]
struct Before {
    at: String,
    reason: String,
    error: String,
}

#[derive(Serialize)]
struct Header {
    name: String,
    value: Option<String>,
    value_base64: Option<String>,
}

pub(super) async fn run(
    reader: &Reader<'_>,
    args: &DlqShowArgs,
    out: &mut impl Write,
) -> Result<(), DlqError> {
    let shown = read(reader, args.place).await?;
    if reader.json { json_line(out, &shown) } else { print(&shown, out) }
}

async fn read(reader: &Reader<'_>, place: Place) -> Result<Shown, DlqError> {
    let Reader { client, generation, topic, .. } = reader;
    let Place { partition, offset } = place;
    let query = "SELECT lead_id, reason, error, record_time, dead_at, exported_at, redriven_at,
             holds_lead, history::text, record_key, record_value, header_names, header_values
         FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND partition = $3 AND \"offset\" = $4";
    let row = client.query_opt(query, &[generation, topic, &partition, &offset]).await?;
    let row = row.ok_or_else(|| reader.not_found(place))?;
    let optional_time =
        |at: usize| row.try_get::<_, Option<DateTime<Utc>>>(at).map(|found| found.map(time));
    let lead_id: Option<Uuid> = row.try_get(0)?;
    let (reason, holds_lead): (String, bool) = (row.try_get(1)?, row.try_get(7)?);
    let parked = "SELECT \"offset\" FROM dead_letters
         WHERE generation = $1 AND topic = $2 AND partition = $3 AND lead_id = $5
             AND redriven_at IS NULL AND reason = 'parked' AND \"offset\" > $4 AND $6::bool
         ORDER BY \"offset\"";
    let holds = holds_lead && optional_time(6)?.is_none();
    let parked =
        client.query(parked, &[generation, topic, &partition, &offset, &lead_id, &holds]).await?;
    let parked_behind = parked.iter().map(|row| {
        let offset: i64 = row.try_get(0)?;
        Ok(format!("{partition}:{offset}"))
    });
    let names: Vec<String> = row.try_get(11)?;
    let values: Vec<Option<Vec<u8>>> = row.try_get(12)?;
    let bytes = Bytes {
        key: row.try_get(9)?,
        value: row.try_get(10)?,
        headers: names.into_iter().zip(values).collect(),
    };
    let history: &str = row.try_get(8)?;
    Ok(Shown {
        topic: (*topic).to_owned(),
        generation: *generation,
        partition,
        offset,
        lead_id,
        reason,
        error: row.try_get(2)?,
        record_time: optional_time(3)?,
        dead_at: time(row.try_get(4)?),
        exported_at: optional_time(5)?,
        redriven_at: optional_time(6)?,
        holds_lead,
        parked_behind: parked_behind.collect::<Result<_, tokio_postgres::Error>>()?,
        history: serde_json::from_str(history).map_err(std::io::Error::other)?,
        headers: bytes.headers.iter().map(|(name, value)| header(name, value.as_deref())).collect(),
        key: bytes.key.as_deref().and_then(utf8),
        key_base64: bytes.key.as_ref().map(|key| STANDARD.encode(key)),
        value: bytes.value.as_deref().and_then(raw),
        value_base64: bytes.value.as_ref().map(|value| STANDARD.encode(value)),
        bytes,
    })
}

fn header(name: &str, value: Option<&[u8]>) -> Header {
    Header {
        name: name.to_owned(),
        value: value.and_then(utf8),
        value_base64: value.map(|value| STANDARD.encode(value)),
    }
}

fn utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(ToOwned::to_owned)
}

/// The value as it stands, but on one line.
fn raw(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = text::json(bytes)?.replace(['\n', '\r'], " ");
    RawValue::from_string(text).ok()
}

fn print(it: &Shown, out: &mut impl Write) -> Result<(), DlqError> {
    let Shown { topic, generation, partition, offset, .. } = it;
    writeln!(out, "{partition}:{offset} of {topic}, generation {generation}")?;
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    for (name, value) in [
        ("lead", or_none(&it.lead_id.map(|id| id.to_string()))),
        ("reason", it.reason.clone()),
        ("error", it.error.clone()),
        ("record time", or_none(&it.record_time)),
        ("set aside", it.dead_at.clone()),
        ("exported", or_none(&it.exported_at)),
        ("redriven", or_none(&it.redriven_at)),
        ("parked behind", parked(it)),
    ] {
        writeln!(out, "{name:14}{value}")?;
    }
    for Before { at, reason, error } in &it.history {
        writeln!(out, "{:14}failed again at {at}; before: {reason}: {error}", "redrive")?;
    }
    for (name, value) in &it.bytes.headers {
        let value = value.as_deref().map_or("null".to_owned(), text::bytes);
        section(out, &format!("header {}", text::bytes(name.as_bytes())), &value)?;
    }
    section(out, "key", &it.bytes.key.as_deref().map_or("null".to_owned(), text::bytes))?;
    match it.bytes.value.as_deref() {
        None => section(out, "value", "null (a tombstone)"),
        Some(bytes) => {
            let size = bytes.len();
            match text::json(bytes) {
                Some(json) => section(out, &format!("value, {size} bytes"), &text::pretty(json)),
                None => section(
                    out,
                    &format!("value, {size} bytes that are no JSON"),
                    &text::bytes(bytes),
                ),
            }
        }
    }
}

fn parked(it: &Shown) -> String {
    if it.parked_behind.is_empty() { "-".to_owned() } else { it.parked_behind.join(" ") }
}

fn section(out: &mut impl Write, title: &str, text: &str) -> Result<(), DlqError> {
    Ok(write!(out, "{title}:\n{}", text::indent(text))?)
}
