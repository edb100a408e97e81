use leads_testkit::{DEADLINE, System};
use serde_json::json;

use crate::model::{Fact, produce, projected};

async fn projected_and_stopped(system: &System, facts: &[Fact]) {
    let consumer = system.start_consumer().await;
    produce(system, facts).await;
    projected(system, facts.len()).await;
    assert_eq!(consumer.terminate().await.code(), Some(0));
}

async fn halts(system: &System) {
    let process = system.spawn("leads-consumer", &["run"], &[]);
    assert_eq!(process.wait_exit(DEADLINE).await.code(), Some(1));
    let line = process.wait_for_log(|line| line.message() == "the projection halts").await;
    assert!(line.str("cause").unwrap().contains("recreated"), "{line:?}");
    assert!(line.str("cure").unwrap().contains("restore the topic"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_with_as_many_records_halts() {
    let system = System::builder().partitions(1).build().await;
    let some = || Fact::created(system.workspace(), json!({}));
    projected_and_stopped(&system, &[some(), some()]).await;
    system.recreate_events_topic().await;
    produce(&system, &[some(), some(), some()]).await;
    halts(&system).await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, 2, "nothing was skipped over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_with_fewer_records_halts() {
    let system = System::builder().partitions(1).build().await;
    let some = || Fact::created(system.workspace(), json!({}));
    projected_and_stopped(&system, &[some(), some(), some()]).await;
    system.recreate_events_topic().await;
    produce(&system, &[some()]).await;
    halts(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_halts() {
    let system = System::builder().partitions(2).build().await;
    projected_and_stopped(&system, &[Fact::created(system.workspace(), json!({}))]).await;
    system.delete_topic(system.events_topic()).await;
    let three = system.consumer_command(&["topics", "--partitions", "3"]).await;
    assert!(three.status.success());
    let process = system.spawn("leads-consumer", &["run"], &[]);
    assert_eq!(process.wait_exit(DEADLINE).await.code(), Some(1));
    let line = process.wait_for_log(|line| line.message() == "the projection halts").await;
    assert!(line.str("cause").unwrap().contains("has 3 partitions"), "{line:?}");
}
