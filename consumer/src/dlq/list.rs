//! `dlq list`

use std::fmt::Write as _;
use std::io::Write;

use serde::Serialize;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{DlqError, Reader, json_line, text, time};
use crate::cli::DlqListArgs;

/// A dead letter, without what the record holds.
#[derive(Debug, Serialize)]
struct Listed {
    partition: i32,
    offset: i64,
    lead_id: Option<Uuid>,
    reason: String,
    error: String,
    record_time: Option<String>,
    dead_at: String,
    redriven_at: Option<String>,
    /// How many events of the lead are parked behind it.
    parked_behind: i64,
    /// How many redrives failed.
    failed_redrives: i32,
    age_seconds: i64,
}

const WHICH: &str = "
    d.generation = $1 AND d.topic = $2 AND ($3::text IS NULL OR d.reason = $3)
    AND ($4::uuid IS NULL OR d.lead_id = $4) AND ($5::bool OR d.redriven_at IS NULL)";

const COLUMNS: &str = "
    SELECT d.partition, d.\"offset\", d.lead_id, d.reason, d.error, d.record_time, d.dead_at,
        d.redriven_at,
        CASE WHEN d.holds_lead AND d.reason <> 'parked' AND d.redriven_at IS NULL THEN
            (SELECT count(*) FROM dead_letters AS p
             WHERE p.generation = d.generation AND p.topic = d.topic AND p.partition = d.partition
                 AND p.lead_id = d.lead_id AND p.redriven_at IS NULL AND p.reason = 'parked'
                 AND p.\"offset\" > d.\"offset\")
        ELSE 0 END,
        jsonb_array_length(d.history), extract(epoch FROM now() - d.dead_at)::bigint
    FROM dead_letters AS d";

pub(super) async fn run(
    reader: &Reader<'_>,
    args: &DlqListArgs,
    out: &mut impl Write,
) -> Result<(), DlqError> {
    let DlqListArgs { common: _, reason, lead, all, limit } = args;
    let Reader { client, generation, topic, .. } = reader;
    let query =
        format!("{COLUMNS} WHERE {WHICH} ORDER BY d.dead_at, d.partition, d.\"offset\" LIMIT $6");
    let rows =
        client.query(&query, &[generation, topic, reason, lead, all, &i64::from(*limit)]).await?;
    let found: Vec<Listed> = rows.iter().map(listed).collect::<Result<_, _>>()?;
    if reader.json {
        return found.iter().try_for_each(|it| json_line(out, it));
    }
    if !found.is_empty() {
        let rows: Vec<_> = found.iter().map(cells).collect();
        let headings = ["RECORD", "LEAD", "REASON", "AGE", "PARKED BEHIND", "ERROR"];
        write!(out, "{}", text::table(headings, &rows))?;
    }
    let query = format!(
        "SELECT d.reason, count(*) FILTER (WHERE d.redriven_at IS NULL),
             count(*) FILTER (WHERE d.redriven_at IS NOT NULL)
         FROM dead_letters AS d WHERE {WHICH} GROUP BY d.reason ORDER BY d.reason"
    );
    let rows = client.query(&query, &[generation, topic, reason, lead, all]).await?;
    Ok(writeln!(out, "{}", summary(&rows, found.len())?)?)
}

fn listed(row: &Row) -> Result<Listed, tokio_postgres::Error> {
    Ok(Listed {
        partition: row.try_get(0)?,
        offset: row.try_get(1)?,
        lead_id: row.try_get(2)?,
        reason: row.try_get(3)?,
        error: row.try_get(4)?,
        record_time: row.try_get::<_, Option<_>>(5)?.map(time),
        dead_at: time(row.try_get(6)?),
        redriven_at: row.try_get::<_, Option<_>>(7)?.map(time),
        parked_behind: row.try_get(8)?,
        failed_redrives: row.try_get(9)?,
        age_seconds: row.try_get(10)?,
    })
}

fn cells(it: &Listed) -> [String; 6] {
    let error = match &it.redriven_at {
        Some(at) => format!("redriven {at}; before: {}", it.error),
        None => it.error.clone(),
    };
    [
        format!("{}:{}", it.partition, it.offset),
        it.lead_id.map_or("-".to_owned(), |id| id.to_string()),
        it.reason.clone(),
        text::age(it.age_seconds),
        if it.parked_behind > 0 { it.parked_behind.to_string() } else { "-".to_owned() },
        error,
    ]
}

/// How many there are by reason, shown or not.
fn summary(rows: &[Row], shown: usize) -> Result<String, DlqError> {
    let (mut waiting, mut redriven, mut reasons) = (0_i64, 0_i64, Vec::new());
    for row in rows {
        let (reason, wait, done): (&str, i64, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        waiting += wait;
        redriven += done;
        if wait > 0 {
            reasons.push(format!("{wait} {reason}"));
        }
    }
    let mut text = if waiting == 0 {
        "no dead letters wait".to_owned()
    } else {
        format!("{waiting} waiting: {}", reasons.join(", "))
    };
    if redriven > 0 {
        let _ = write!(text, "; {redriven} redriven");
    }
    if usize::try_from(waiting + redriven).is_ok_and(|all| all > shown) {
        let _ = write!(text, "; the oldest {shown} are shown, --limit shows more");
    }
    Ok(text)
}
