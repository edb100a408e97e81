//! However large the backlog, memory is bounded.

use futures_util::future::join_all;
use leads_testkit::{DEADLINE, System, eventually};
use serde_json::json;
use uuid::Uuid;

use crate::load::{committed, heavy};
use crate::model::Fact;

const MEBIBYTE: usize = 1024 * 1024;
const LIMIT: usize = 256 * MEBIBYTE;

/// Many creations like this one, each of a lead of its own.
async fn produce(system: &System, fact: &Fact, count: usize, at_once: usize) {
    let producer = system.producer();
    let text = String::from_utf8(fact.value()).unwrap();
    let (lead, event) = (fact.lead_id.to_string(), fact.event_id.to_string());
    for start in (0..count).step_by(at_once) {
        let records = (start..count.min(start + at_once)).map(|_| {
            let key = Uuid::now_v7().to_string();
            let value = text.replace(&lead, &key).replace(&event, &Uuid::new_v4().to_string());
            (key, value)
        });
        let records: Vec<(String, String)> = records.collect();
        let sent =
            records.iter().map(|(key, value)| producer.send(key.as_bytes(), value.as_bytes()));
        for sent in join_all(sent).await {
            sent.unwrap();
        }
    }
}

async fn drains_within_the_limit(
    name: &str,
    fact: impl Fn(&System) -> Fact,
    count: usize,
    at_once: usize,
) {
    let _heavy = heavy().await;
    let system = System::new().await;
    produce(&system, &fact(&system), count, at_once).await;
    let consumer = system.start_consumer().await;
    let wanted = i64::try_from(count).unwrap();
    eventually(DEADLINE * 2, "the backlog is projected", async || {
        let found = committed(&system).await;
        if found == wanted { Ok(()) } else { Err(found) }
    })
    .await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, wanted);
    let Some(peak) = consumer.peak_memory() else {
        return eprintln!("skipped: this system does not tell how much memory a process held");
    };
    println!("{name}: {} MiB at most", peak / MEBIBYTE);
    assert!(peak < LIMIT, "{name}: {} MiB", peak / MEBIBYTE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_large_records_is_drained_in_bounded_memory() {
    let fact = |system: &System| {
        let text = "all work and no play ".repeat(500 * 1024 / 21);
        Fact::created(system.workspace(), json!({"properties": {"text": text}}))
    };
    drains_within_the_limit("600 records of 500 KiB", fact, 600, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_many_records_is_drained_in_bounded_memory() {
    let fact = |system: &System| {
        Fact::created(system.workspace(), json!({"code": "c", "properties": {"page": "/a"}}))
    };
    drains_within_the_limit("200,000 small records", fact, 200_000, 5_000).await;
}
