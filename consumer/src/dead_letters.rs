//! The export of dead letters: from the table, where each is exactly once, to the topic, where each
//! is at least once. Readers of the topic tell doubles by `dlq_partition` and `dlq_offset`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use leads_shared::{Timestamp, topic};
use tokio::sync::{Notify, watch};
use tokio_postgres::{Client, Row};

use crate::config::Database;
use crate::connection::{Connection, Unreachable};
use crate::source::client::Kafka;
use crate::source::producer::{Outgoing, Producer};
use crate::status::read_model::{self, DeadLetters};
use crate::telemetry;

/// How many are exported at a time; each can be half a megabyte.
const AT_ONCE: i64 = 50;
/// How often it looks by itself: for what a killed member left, and to prune.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);

/// An export failed; it is tried again.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("{}", crate::failure::describe(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error("Kafka: {0}")]
    Kafka(String),
}

/// Exports what waits, whenever it is told to, until `stop` turns true. Prunes old precondition
/// failures now and then, on the same connection.
pub async fn run(
    database: &Database,
    kafka: &Kafka,
    topic: &str,
    told: &Notify,
    mut stop: watch::Receiver<bool>,
) {
    let mut backoff = Duration::ZERO;
    while !*stop.borrow() {
        let next = match export_and_prune(database, kafka, topic).await {
            Ok(()) => {
                backoff = Duration::ZERO;
                LOOK_INTERVAL
            }
            Err(error) => {
                if backoff.is_zero() {
                    tracing::warn!(%error, "exporting dead letters failed; it is tried again");
                }
                backoff = (backoff * 2).clamp(Duration::from_millis(250), LONGEST_BACKOFF);
                backoff
            }
        };
        tokio::select! {
            _ = stop.changed() => {}
            () = told.notified(), if backoff.is_zero() => {}
            () = tokio::time::sleep(next) => {}
        }
    }
}

async fn export_and_prune(
    database: &Database,
    kafka: &Kafka,
    topic: &str,
) -> Result<(), ExportError> {
    let Database { config, tls } = database;
    let client = Connection::named(config, tls, "leads-consumer dead letters").await?;
    let result = async {
        client
            .batch_execute(
                "SET statement_timeout = '20s'; SET idle_in_transaction_session_timeout = '10s'",
            )
            .await?;
        export(&client, kafka, topic).await?;
        report(&client, topic).await?;
        prune(&client).await
    };
    let result = result.await;
    client.close().await;
    result
}

async fn export(client: &Client, kafka: &Kafka, topic: &str) -> Result<(), ExportError> {
    let waiting = pending(client, topic).await?;
    if waiting == 0 {
        return Ok(());
    }
    let producer = Producer::new(kafka).map_err(ExportError::Kafka)?;
    while export_some(client, &producer, topic).await? {}
    let exported = waiting - pending(client, topic).await?;
    tracing::info!(exported, "dead letters exported");
    Ok(())
}

async fn pending(client: &Client, topic: &str) -> Result<i64, ExportError> {
    let query = "SELECT count(*) FROM dead_letters JOIN projection_generation USING (generation)
         WHERE topic = $1 AND exported_at IS NULL AND state = 'live'";
    let count: i64 = client.query_one(query, &[&topic]).await?.try_get(0)?;
    telemetry::set_dead_letters_pending(count);
    Ok(count)
}

/// Exports the next few; whether there were any. Rows that another member is exporting are locked
/// and passed over.
async fn export_some(
    client: &Client,
    producer: &Producer,
    topic: &str,
) -> Result<bool, ExportError> {
    client.batch_execute("BEGIN").await?;
    let rows = client
        .query(
            "SELECT partition, \"offset\", reason, error, record_key, record_value, header_names,
                 header_values, dead_at, generation
             FROM dead_letters JOIN projection_generation USING (generation)
             WHERE topic = $1 AND exported_at IS NULL AND state = 'live'
             ORDER BY dead_at, partition, \"offset\" LIMIT $2
             FOR UPDATE OF dead_letters SKIP LOCKED",
            &[&topic, &AT_ONCE],
        )
        .await?;
    let records: Vec<Outgoing> =
        rows.iter().map(|row| outgoing(row, topic)).collect::<Result<_, _>>()?;
    let results = producer.send_all(&topic::dead_letters(topic), &records).await;
    let (mut partitions, mut offsets) = (Vec::<i32>::new(), Vec::<i64>::new());
    let generation: Option<i32> = rows.first().map(|row| row.try_get(9)).transpose()?;
    for (row, result) in rows.iter().zip(&results) {
        if result.is_ok() {
            partitions.push(row.try_get(0)?);
            offsets.push(row.try_get(1)?);
        }
    }
    client
        .execute(
            "UPDATE dead_letters AS d SET exported_at = now()
             FROM UNNEST($2::int[], $3::bigint[]) AS e (partition, \"offset\")
             WHERE d.generation = $4 AND d.topic = $1 AND d.partition = e.partition
                 AND d.\"offset\" = e.\"offset\"",
            &[&topic, &partitions, &offsets, &generation],
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    match results.into_iter().find_map(Result::err) {
        Some(error) => Err(ExportError::Kafka(error)),
        None => Ok(!rows.is_empty()),
    }
}

/// Sets the gauges of what the tables know: dead letters that wait, and a rebuild under way.
async fn report(client: &Client, topic: &str) -> Result<(), ExportError> {
    let DeadLetters { waiting, .. } = read_model::dead_letters(client, topic).await?;
    let oldest = waiting.iter().map(|waiting| waiting.oldest).min();
    let age = oldest.and_then(|oldest| (Utc::now() - oldest).to_std().ok());
    let counts: Vec<_> = waiting.into_iter().map(|it| (it.reason, it.count)).collect();
    telemetry::set_dead_letters_waiting(&counts, age);

    let generations = read_model::generations(client).await?;
    let offsets = read_model::offsets(client, topic).await?;
    let way = |state: &str| {
        let number = generations.iter().find(|it| it.state == state)?.number;
        let of_it = offsets.iter().filter(|offset| offset.generation == number);
        Some(of_it.map(|offset| offset.next).sum::<i64>())
    };
    let progress = way("building").zip(way("live")).map(|(built, live)| part(built, live));
    telemetry::set_rebuild(progress, generations.iter().any(|it| it.abandoned));
    Ok(())
}

/// Offsets are far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn part(built: i64, live: i64) -> f64 {
    if live > 0 { (built as f64 / live as f64).min(1.0) } else { 1.0 }
}

/// The record as it was, with why and where it was set aside.
fn outgoing(row: &Row, topic: &str) -> Result<Outgoing, tokio_postgres::Error> {
    let (partition, offset): (i32, i64) = (row.try_get(0)?, row.try_get(1)?);
    let (reason, error): (String, String) = (row.try_get(2)?, row.try_get(3)?);
    let names: Vec<String> = row.try_get(6)?;
    let values: Vec<Option<Vec<u8>>> = row.try_get(7)?;
    let dead_at: DateTime<Utc> = row.try_get(8)?;
    let mut headers: Vec<_> = names.into_iter().zip(values).collect();
    for (name, value) in [
        ("dlq_reason", reason),
        ("dlq_error", error),
        ("dlq_topic", topic.to_owned()),
        ("dlq_partition", partition.to_string()),
        ("dlq_offset", offset.to_string()),
        ("dlq_time", Timestamp::from(dead_at).to_string()),
    ] {
        headers.push((name.to_owned(), Some(value.into_bytes())));
    }
    Ok(Outgoing { key: row.try_get(4)?, value: row.try_get(5)?, headers })
}

/// The API asks for precondition failures while it waits for an update; a day is plenty.
async fn prune(client: &Client) -> Result<(), ExportError> {
    client
        .execute(
            "DELETE FROM precondition_failures WHERE event_id IN
                 (SELECT event_id FROM precondition_failures
                  WHERE occurred_at < now() - interval '24 hours'
                  ORDER BY occurred_at LIMIT 10000)",
            &[],
        )
        .await?;
    Ok(())
}
