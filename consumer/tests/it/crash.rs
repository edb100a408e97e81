use std::sync::atomic::{AtomicBool, Ordering};

use leads_testkit::{DEADLINE, System, eventually};
use serde_json::json;

use crate::model::{Fact, assert_rows, projected};

async fn produce_all(system: &System, facts: &[Fact]) {
    let headers = [("ce_id", Some(b"x".as_slice()))];
    let sent = facts.iter().map(|fact| async move {
        system.produce(Some(fact.key().as_bytes()), Some(&fact.value()), &headers).await
    });
    futures_util::future::join_all(sent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_ten_times_under_load_every_event_counts_once() {
    let system = System::new().await;
    let done = AtomicBool::new(false);
    let load = async {
        let mut facts = Vec::new();
        while !done.load(Ordering::Relaxed) {
            let leads: Vec<Fact> = (0..100)
                .map(|i| Fact::created(system.workspace(), json!({"code": format!("c{i}")})))
                .collect();
            let updates: Vec<Fact> =
                leads.iter().map(|lead| lead.updated(json!({"source": "s"}), Some(1))).collect();
            // Acknowledged creations first, so that their updates stand behind them in the log.
            produce_all(&system, &leads).await;
            produce_all(&system, &updates).await;
            facts.extend(leads);
            facts.extend(updates);
        }
        facts
    };
    let kills = async {
        // A static member that comes back has its partitions at once.
        let env = [("KAFKA_GROUP_INSTANCE_ID", "one"), ("BATCH_MAX_RECORDS", "50")];
        for _ in 0..10 {
            let consumer = system.start_consumer_with(&env).await;
            let before = committed(&system).await;
            eventually(DEADLINE, "some more is committed", async || {
                committed(&system).await > before
            })
            .await;
            consumer.kill().await;
        }
        done.store(true, Ordering::Relaxed);
        system.start_consumer_with(&env).await
    };
    let (facts, consumer) = tokio::join!(load, kills);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 0);
    drop(consumer);
}

async fn committed(system: &System) -> i64 {
    system.number("SELECT COALESCE(sum(next_offset), 0)::bigint FROM projection_offset").await
}
