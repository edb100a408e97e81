use leads_testkit::{DEADLINE, System, eventually};
use serde_json::json;

use crate::model::{Fact, Model, assert_rows, produce, projected};

#[tokio::test(flavor = "multi_thread")]
async fn events_become_rows() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let workspace = system.workspace();
    let lead = Fact::created(
        workspace,
        json!({"code": "c", "source": "wéb 🎉", "properties": {"": 12_345_678_901_234_567_890_u64, "a": [1.50, null]},
               "location": {"city": "Köln"}, "visitor_id": uuid::Uuid::new_v4()}),
    );
    let bare = Fact::created(workspace, json!({}));
    let update =
        lead.updated(json!({"code": null, "summary": {"s": 1}, "properties": {"b": 2}}), Some(1));
    let late = lead.updated(json!({"code": "late"}), Some(1));
    let facts = [lead.clone(), bare, update.clone(), late.clone(), update, lead];
    produce(&system, &facts).await;
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    let failures = system.rows("SELECT event_id FROM precondition_failures", &[]).await;
    let failed: Vec<uuid::Uuid> = failures.iter().map(|row| row.get(0)).collect();
    assert_eq!(failed, [late.event_id]);
    eventually(DEADLINE, "the metrics count", async || {
        consumer.metric("leads_projection_events_total", r#"outcome="created""#).await > 1.9
    })
    .await;
    assert_eq!(Model::of(&facts).rows.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_group_committed_has_no_say() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let mut facts = Vec::new();
    for i in 0..30 {
        let lead = Fact::created(system.workspace(), json!({"code": format!("c{i}")}));
        facts.push(lead.updated(json!({"source": "early"}), None));
        facts.push(lead.clone());
        facts.push(lead.updated(json!({"source": "s"}), None));
    }
    produce(&system, &facts).await;
    projected(&system, facts.len()).await;
    assert_eq!(consumer.terminate().await.code(), Some(0));
    // Another group has committed nothing: if it had a say, everything would be read again.
    let other = [("CONSUMER_GROUP", "another-group")];
    let consumer = system.start_consumer_with(&other).await;
    consumer.wait_ready().await;
    let more = [Fact::created(system.workspace(), json!({}))];
    produce(&system, &more).await;
    facts.extend(more);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    assert!(consumer.metric("leads_projection_events_total", "").await < 1.5);
    assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_share_the_partitions_and_take_over_from_each_other() {
    let system = System::new().await;
    let first = system.start_consumer().await;
    first.wait_ready().await;
    let second = system.start_consumer().await;
    second.wait_ready().await;
    let mut facts = Vec::new();
    for i in 0..60 {
        let lead = Fact::created(system.workspace(), json!({"code": format!("c{i}")}));
        let update = lead.updated(json!({"source": "s"}), Some(1));
        produce(&system, &[lead.clone(), update.clone()]).await;
        facts.extend([lead, update]);
        if i == 30 {
            assert_eq!(first.terminate().await.code(), Some(0));
        }
    }
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
}
