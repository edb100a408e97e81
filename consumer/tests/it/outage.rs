use leads_testkit::{DEADLINE, Server, Stack, System, eventually};
use serde_json::json;

use crate::model::{Fact, assert_rows, produce, projected};

async fn some(system: &System, facts: &mut Vec<Fact>) {
    for i in 0..40 {
        let lead = Fact::created(system.workspace(), json!({"code": format!("c{i}")}));
        let new = [lead.clone(), lead.updated(json!({"source": "s"}), Some(1))];
        produce(system, &new).await;
        facts.extend(new);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_are_waited_out() {
    let system = System::builder().stack(Stack::dedicated().await).build().await;
    let stack = system.stack();
    let consumer = system.start_consumer().await;
    consumer.wait_ready().await;
    let mut facts = Vec::new();
    some(&system, &mut facts).await;

    stack.kill(Server::Postgres).await;
    some(&system, &mut facts).await;
    eventually(DEADLINE, "not ready without PostgreSQL", async || {
        let ready = consumer.get("/readyz").await;
        (ready.status, ready.json()["postgres"].as_str()) == (503, Some("down"))
    })
    .await;
    // Partitions that come while PostgreSQL is away wait for their positions.
    let second = system.start_consumer_with(&[]).await;
    assert_eq!(second.get("/livez").await.status, 200);
    stack.start(Server::Postgres).await;
    projected(&system, facts.len()).await;
    consumer.wait_ready().await;
    second.wait_ready().await;

    stack.pause(Server::Kafka).await;
    stack.resume(Server::Kafka).await;
    some(&system, &mut facts).await;
    projected(&system, facts.len()).await;

    stack.kill(Server::Kafka).await;
    eventually(DEADLINE, "not ready without Kafka", async || {
        let ready = consumer.get("/readyz").await;
        (ready.status, ready.json()["kafka"].as_str()) == (503, Some("down"))
    })
    .await;
    // librdkafka can lose its brokers for good; only a new client is sure to find them again.
    consumer.wait_for_log(|line| line.message() == "a new client looks for kafka").await;
    stack.start(Server::Kafka).await;
    some(&system, &mut facts).await;
    projected(&system, facts.len()).await;
    consumer.wait_ready().await;
    assert_rows(&system, &facts).await;
    assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 0);
    assert!(consumer.metric("leads_projection_retries_total", "").await > 0.5);
}

/// What a crashed server loses of the last commits, it loses of rows and offsets together.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_crashed_server_lost_is_projected_again_without_a_new_record() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let mut facts = Vec::new();
    some(&system, &mut facts).await;
    projected(&system, facts.len()).await;

    consumer.pause();
    let lost = "BEGIN;
        UPDATE projection_offset SET next_offset = 0, last_event_id = NULL;
        TRUNCATE leads_g1, lead_counts_g1;
        COMMIT;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name = 'leads-consumer'";
    system.db().await.batch_execute(lost).await.unwrap();
    consumer.resume();
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
}
