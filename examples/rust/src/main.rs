//! Counts leads by workspace and source, exactly once: a subscriber to copy. See ../README.md.
//!
//! usage: `KAFKA_BROKERS=HOST:PORT leads-subscriber [--until-end] STATE_FILE`

mod binding;

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;
use std::{env, iter};

use cloudevents::{AttributesReader, Data};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use rusqlite::{Connection, named_params};
use serde::Deserialize;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Records in one transaction, at most.
const BATCH: usize = 500;
/// For a question to the broker.
const CALL: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let (file, until_end) = match &args[..] {
        [flag, file] if flag == "--until-end" => (file, true),
        [file] if !file.starts_with('-') => (file, false),
        _ => return usage(),
    };
    let Ok(brokers) = env::var("KAFKA_BROKERS") else { return usage() };
    match run(&brokers, file, until_end) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: KAFKA_BROKERS=HOST:PORT leads-subscriber [--until-end] STATE_FILE");
    ExitCode::from(2)
}

fn run(brokers: &str, file: &str, until_end: bool) -> Result<()> {
    let mut state = Connection::open(file)?;
    state.execute_batch(include_str!("../../state.sql"))?;
    let topic = env::var("LEADS_TOPIC").unwrap_or_else(|_| "leads.events.v1".to_owned());
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        // librdkafka wants a name. No group is joined, and nothing is committed: positions are ours.
        .set("group.id", "leads-subscriber")
        .set("enable.auto.commit", "false")
        // A log without our position is another log, or has lost records: an error, not a new start.
        .set("auto.offset.reset", "error")
        .create()?;
    let ends = resume(&state, &consumer, &topic)?;

    while !until_end || positions(&state)?.iter().zip(&ends).any(|(next, end)| next < end) {
        let Some(first) = consumer.poll(Duration::from_secs(1)) else { continue };
        let transaction = state.transaction()?;
        let more = iter::from_fn(|| consumer.poll(Duration::ZERO));
        for record in iter::once(first).chain(more).take(BATCH) {
            match record {
                Ok(record) => apply(&transaction, &record)?,
                // The client reaches for the brokers again by itself.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                )) => {}
                Err(error) => return Err(error.into()),
            }
        }
        transaction.commit()?;
    }

    let mut lines = state.prepare("SELECT line FROM report ORDER BY line")?;
    for line in lines.query_map([], |row| row.get::<_, String>(0))? {
        println!("{}", line?);
    }
    Ok(())
}

/// Assigns every partition from its stored position; gives the ends of the log as of now.
fn resume(state: &Connection, consumer: &BaseConsumer, topic: &str) -> Result<Vec<i64>> {
    let metadata = consumer.fetch_metadata(Some(topic), CALL)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    if partitions == 0 {
        return Err(format!("there is no topic {topic}").into());
    }
    let mut ends = Vec::new();
    for partition in 0..i32::try_from(partitions)? {
        state.execute("INSERT OR IGNORE INTO positions VALUES (?, 0)", [partition])?;
        ends.push(consumer.fetch_watermarks(topic, partition, CALL)?.1);
    }
    let mut from = TopicPartitionList::new();
    for (partition, (next, end)) in (0..).zip(positions(state)?.into_iter().zip(&ends)) {
        if next > *end {
            let what = format!("{topic} {partition} ends at {end}, the state is at {next}");
            return Err(format!("{what}: it is of another log").into());
        }
        from.add_partition_offset(topic, partition, Offset::Offset(next))?;
    }
    consumer.assign(&from)?;
    Ok(ends)
}

fn positions(state: &Connection) -> rusqlite::Result<Vec<i64>> {
    let mut rows = state.prepare_cached("SELECT next_offset FROM positions ORDER BY partition")?;
    rows.query_map([], |row| row.get(0))?.collect()
}

/// Applies a record, in the transaction that moves the position behind it.
fn apply(state: &Connection, record: &BorrowedMessage<'_>) -> Result<()> {
    let (partition, offset) = (record.partition(), record.offset());
    let moved = state
        .prepare_cached(
            "UPDATE positions SET next_offset = ?2 + 1 WHERE partition = ?1 AND next_offset <= ?2",
        )?
        .execute((partition, offset))?;
    if moved == 0 {
        return Ok(()); // read twice
    }
    match read(record) {
        Ok(Read::Change(change)) => Ok(write(state, &change)?),
        Ok(Read::OtherType) => Ok(()),
        Ok(Read::NewerSchema(version)) => {
            let place = format!("{partition}:{offset} has schema version {version}");
            Err(format!("{place}, this reader knows 1: update it, and it goes on from here").into())
        }
        Err(error) => {
            eprintln!("passed over {partition}:{offset}, which is no event: {error}");
            Ok(())
        }
    }
}

enum Read {
    Change(Change),
    /// Types may be added to the log.
    OtherType,
    NewerSchema(u32),
}

struct Change {
    created: bool,
    event_id: String,
    workspace_id: String,
    lead_id: String,
    /// Absent: left as it is. `null`: cleared.
    source: Given,
    expected_version: Option<i64>,
}

#[derive(Deserialize)]
struct Version {
    schema_version: u32,
}

/// What isn't named isn't parsed: numbers inside of a lead may have a thousand digits.
#[derive(Deserialize)]
struct Body {
    workspace_id: String,
    /// All of a new lead, or what is given of a known one.
    #[serde(alias = "lead", alias = "changes")]
    fields: Fields,
    expected_version: Option<i64>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    source: Given,
}

#[derive(Default, Deserialize)]
#[serde(from = "Option<String>")]
enum Given {
    #[default]
    No,
    Value(Option<String>),
}

impl From<Option<String>> for Given {
    fn from(value: Option<String>) -> Self {
        Self::Value(value)
    }
}

fn read(record: &BorrowedMessage<'_>) -> Result<Read> {
    let event = binding::to_event(record)?;
    if !matches!(event.ty(), "LeadCreated" | "LeadUpdated") {
        return Ok(Read::OtherType);
    }
    let Some(Data::Binary(value)) = event.data() else { return Err("no value".into()) };
    let Version { schema_version } = serde_json::from_slice(value)?;
    if schema_version != 1 {
        return Ok(Read::NewerSchema(schema_version));
    }
    let Body { workspace_id, fields, expected_version } = serde_json::from_slice(value)?;
    Ok(Read::Change(Change {
        created: event.ty() == "LeadCreated",
        event_id: event.id().to_owned(),
        workspace_id,
        lead_id: event.subject().ok_or("no subject")?.to_owned(),
        source: fields.source,
        expected_version,
    }))
}

/// The rules for readers of docs/events.md.
fn write(state: &Connection, change: &Change) -> rusqlite::Result<()> {
    let Change { created, event_id, workspace_id, lead_id, source, expected_version } = change;
    let (given, source) = match source {
        Given::No => (false, None),
        Given::Value(value) => (true, value.as_deref()),
    };
    if *created {
        // Of two creations the first stands.
        let sql = "INSERT INTO leads VALUES (?, ?, ?, 1, ?) ON CONFLICT DO NOTHING";
        state.prepare_cached(sql)?.execute((workspace_id, lead_id, source, event_id))?;
        return Ok(());
    }
    let sql = "UPDATE leads SET version = version + 1, last_event_id = :event,
                      source = CASE WHEN :given THEN :source ELSE source END
                WHERE workspace_id = :workspace AND lead_id = :lead
                  AND last_event_id <> :event                       -- a duplicate
                  AND version = coalesce(:expected, version)        -- too late for If-Match";
    state.prepare_cached(sql)?.execute(named_params! {
        ":event": event_id, ":given": given, ":source": source, ":workspace": workspace_id,
        ":lead": lead_id, ":expected": expected_version,
    })?;
    Ok(())
}
