use leads_testkit::System;
use leads_testkit::eventually;

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn made_once_and_checked_ever_after() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let (one, other) =
        tokio::join!(system.consumer_command(&["topics"]), system.consumer_command(&["topics"]));
    for output in [&one, &other] {
        assert!(output.status.success(), "{output:?}");
    }
    let again = system.consumer_command(&["topics", "--partitions", "5"]).await;
    assert!(again.status.success());
    let events = system.events_topic();
    let lines = text(&again.stdout);
    assert_eq!(lines.lines().count(), 3, "{lines}");
    assert!(lines.contains(&format!("{events}: exists, 3 partitions (not 5")), "{lines}");
    assert!(lines.contains(&format!("{events}.dlq: exists")), "{lines}");
    assert_eq!(system.records().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_violated_setting_is_named_and_nothing_is_changed() {
    let system = System::builder().without_migrations().build().await;
    let settings = [("retention.ms", "1000"), ("cleanup.policy", "compact")];
    alter(&system, &settings).await;
    let output = system.consumer_command(&["topics"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    for wanted in ["retention.ms is 1000, must be -1", "cleanup.policy is compact, must be delete"]
    {
        assert!(said.contains(wanted), "{said}");
    }
    assert!(said.contains("kafka-configs.sh"), "the fix is named: {said}");
    let again = system.consumer_command(&["topics"]).await;
    assert_eq!(again.status.code(), Some(1), "the topic is as it was");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_lose_history_halts_the_projection() {
    let system = System::new().await;
    alter(&system, &[("retention.ms", "1000")]).await;
    let process = system.spawn("leads-consumer", &["run"], &[]);
    let status = process.wait_exit(leads_testkit::DEADLINE).await;
    assert_eq!(status.code(), Some(1));
    let line = process.wait_for_log(|line| line.message() == "the projection halts").await;
    assert!(line.str("cause").unwrap().contains("retention.ms"), "{line:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_not_there_is_said_within_seconds() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let started = std::time::Instant::now();
    let output =
        system.run("leads-consumer", &["topics"], &[("KAFKA_BROKERS", "127.0.0.1:1")]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(started.elapsed().as_secs() < 15);
    assert!(text(&output.stderr).contains("KAFKA_BROKERS"), "{output:?}");
}

async fn alter(system: &System, settings: &[(&str, &str)]) {
    system.alter_topic(system.events_topic(), settings).await;
    eventually(leads_testkit::DEADLINE, "the broker shows the settings", async || {
        system.consumer_command(&["topics"]).await.status.code() == Some(1)
    })
    .await;
}
