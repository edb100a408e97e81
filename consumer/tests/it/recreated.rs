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

/// The group is given them while it runs.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_are_added_while_it_runs_halt() {
    let system = System::builder().partitions(2).build().await;
    let env = [("KAFKA_TOPIC_METADATA_REFRESH_INTERVAL_MS", "500")];
    let process = system.spawn("leads-consumer", &["run"], &env);
    let facts: Vec<_> = (0..3).map(|_| Fact::created(system.workspace(), json!({}))).collect();
    produce(&system, &facts).await;
    projected(&system, facts.len()).await;
    system.grow_events_topic(4).await;
    assert_eq!(process.wait_exit(DEADLINE).await.code(), Some(1));
    let line = process.wait_for_log(|line| line.message() == "the projection halts").await;
    assert!(line.str("cause").unwrap().contains("projected with 2"), "{line:?}");
    assert!(line.str("cure").unwrap().contains("To more partitions"), "{line:?}");

    // Nor can a rebuild mend it, beside the live generation or elsewhere.
    let rebuilt = system.consumer_command(&["rebuild", "--yes"]).await;
    let said = String::from_utf8(rebuilt.stderr).unwrap();
    assert_eq!(rebuilt.status.code(), Some(1), "{said}");
    assert!(said.contains("has 4 partitions, but was projected with 2"), "{said}");
    let more: Vec<_> = (0..20).map(|_| Fact::created(system.workspace(), json!({}))).collect();
    let old = more.iter().map(|fact| async {
        let partition = i32::from(fact.key().as_bytes()[0] % 2 == 0);
        let (key, value) = (fact.key(), fact.value());
        system.produce_to(Some(partition), Some(key.as_bytes()), Some(&value), &[]).await;
    });
    futures_util::future::join_all(old).await;
    let spare = system.spare_database().await;
    let args = ["rebuild", "--yes", "--into-new-database", spare.url()];
    let elsewhere = system.consumer_command(&args).await;
    let said = String::from_utf8(elsewhere.stderr).unwrap();
    assert_eq!(elsewhere.status.code(), Some(1), "{said}");
    assert!(said.contains("lie on another partition than their lead's"), "{said}");
}

/// The marker at the end of a transaction takes an offset, as a record does that is lost.
#[tokio::test(flavor = "multi_thread")]
async fn offsets_that_are_missing_halt_unless_they_are_to_be_passed() {
    let system = System::builder().partitions(1).build().await;
    let facts: Vec<_> = (0..3).map(|_| Fact::created(system.workspace(), json!({}))).collect();
    produce(&system, &facts[..1]).await;
    system.produce_in_transaction(facts[1].key().as_bytes(), &facts[1].value()).await;
    produce(&system, &facts[2..]).await;
    let process = system.spawn("leads-consumer", &["run"], &[]);
    assert_eq!(process.wait_exit(DEADLINE).await.code(), Some(1));
    let line = process.wait_for_log(|line| line.message() == "the projection halts").await;
    let cause = line.str("cause").unwrap();
    assert!(cause.contains("offsets 2 to 2 of partition 0 are missing"), "{cause}");
    assert!(line.str("cure").unwrap().contains("LOG_GAPS=pass"), "{line:?}");
    let there = system.number("SELECT count(*) FROM leads").await;
    assert!(there <= 2, "nothing behind the gap: {there}");

    let _consumer = system.start_consumer_with(&[("LOG_GAPS", "pass")]).await;
    projected(&system, facts.len() + 1).await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, 3);
}
