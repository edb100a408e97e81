//! What dashboards and alerts need to know beyond what the projection itself counts.

use leads_testkit::{Consumer, DEADLINE, System, eventually};
use serde_json::json;

use crate::model::{Fact, produce, projected};
use crate::parking::produce_bad;

async fn becomes(consumer: &Consumer, name: &str, labels: &str, wanted: f64) {
    let what = format!("{name}{{{labels}}} is {wanted}");
    eventually(DEADLINE, &what, async || {
        let found = consumer.metric(name, labels).await;
        if (found - wanted).abs() < 0.001 { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_and_what_is_built_is_told() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer_with(&[("DLQ_MAX", "7")]).await;
    consumer.wait_ready().await;
    becomes(&consumer, "leads_ready", "", 1.0).await;
    becomes(&consumer, "leads_dependency_up", r#"dependency="kafka""#, 1.0).await;
    becomes(&consumer, "leads_dependency_up", r#"dependency="postgres""#, 1.0).await;
    becomes(&consumer, "leads_dead_letters_limit", "", 7.0).await;
    becomes(&consumer, "leads_rebuild_running", "", 0.0).await;
    becomes(&consumer, "leads_rebuild_abandoned", "", 0.0).await;

    let facts: Vec<_> = (0..3).map(|_| Fact::created(system.workspace(), json!({}))).collect();
    produce(&system, &facts).await;
    projected(&system, 3).await;
    let building = "INSERT INTO projection_generation (generation, state, builder)
            VALUES (2, 'building', 'elsewhere:7');
        INSERT INTO projection_offset (generation, topic, partition, next_offset)
            SELECT 2, topic, partition, 1 FROM projection_offset";
    system.db().await.batch_execute(building).await.unwrap();
    // A dead letter has it look at once; otherwise it looks every minute.
    produce_bad(&system, &Fact::created(system.workspace(), json!({}))).await;
    let waiting = "leads_dead_letters_waiting";
    becomes(&consumer, waiting, r#"reason="undecodable""#, 1.0).await;
    becomes(&consumer, waiting, "", 1.0).await;
    becomes(&consumer, "leads_rebuild_running", "", 1.0).await;
    becomes(&consumer, "leads_rebuild_progress", "", 0.25).await;
    becomes(&consumer, "leads_rebuild_abandoned", "", 1.0).await;

    let earlier = "UPDATE dead_letters SET dead_at = now() - interval '1 hour'";
    system.db().await.execute(earlier, &[]).await.unwrap();
    produce_bad(&system, &Fact::created(system.workspace(), json!({}))).await;
    becomes(&consumer, waiting, "", 2.0).await;
    let age = consumer.metric("leads_dead_letters_oldest_seconds", "").await;
    assert!((3_600.0..7_200.0).contains(&age), "{age}");
}
