use std::net::TcpListener;

use leads_testkit::{DEADLINE, System, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_named_and_end_it_with_2() {
    let system = System::builder().without_topics().without_migrations().build().await;
    for (name, value, wanted) in [
        ("DATABASE_URL", "mysql://u:secret@h/d", "DATABASE_URL"),
        ("DATABASE_URL", "postgres://u:secret@h/d?sslmode=maybe", "sslmode"),
        ("KAFKA_BROKERS", ",", "KAFKA_BROKERS"),
        ("LEADS_TOPIC", "a topic", "LEADS_TOPIC"),
        ("BATCH_MAX_BYTES", "8 apples", "--batch-max-bytes"),
        ("METRICS_LISTEN", "nowhere", "--metrics-listen"),
        ("LOG_LEVEL", "a=b=c", "LOG_LEVEL"),
        ("KAFKA_AUTO_OFFSET_RESET", "earliest", "KAFKA_AUTO_OFFSET_RESET"),
        ("KAFKA_NO_SUCH_THING", "1", "KAFKA_NO_SUCH_THING"),
        ("KAFKA_SESSION_TIMEOUT_MS", "soon", "KAFKA_SESSION_TIMEOUT_MS"),
        ("CONSUMER_GROUP", "", "CONSUMER_GROUP"),
    ] {
        let output = system.run("leads-consumer", &["run"], &[(name, value)]).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {said}");
        assert!(said.contains(wanted), "{name}={value}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_the_topic_alive_but_not_ready() {
    let system = System::builder().without_topics().build().await;
    let consumer = system.start_consumer().await;
    consumer.wait_for_log(|line| line.message().contains("leads-consumer topics")).await;
    assert_eq!(consumer.get("/livez").await.status, 200);
    let ready = consumer.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["postgres"].as_str()), (503, Some("up")));
    assert!(system.consumer_command(&["topics"]).await.status.success());
    consumer.wait_ready().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waits_for_postgres_and_says_so_once() {
    let system = System::new().await;
    let nowhere = "postgres://u:secret@127.0.0.1:1/d";
    let consumer = system.start_consumer_with(&[("DATABASE_URL", nowhere)]).await;
    consumer.wait_for_log(|line| line.message().contains("waiting for PostgreSQL")).await;
    let ready = consumer.get("/readyz").await;
    assert_eq!((ready.status, ready.json()["postgres"].as_str()), (503, Some("down")));
    let lines = consumer.logs();
    assert!(!lines.iter().any(|line| line.text.contains("secret")));
    assert_eq!(lines.iter().filter(|line| line.message().contains("waiting")).count(), 1);
    assert_eq!(consumer.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn does_not_wait_for_ever_for_a_server_that_says_nothing() {
    let system = System::new().await;
    // The kernel takes connections for it, and nobody answers them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/d", silent.local_addr().unwrap());
    let env = [("DATABASE_URL", url.as_str())];
    let consumer = system.start_consumer_with(&env).await;
    let run = async |args: &[&str]| system.run("leads-consumer", args, &env).await;
    let (migrate, dlq, rebuild, told) = tokio::join!(
        run(&["migrate"]),
        run(&["dlq", "list"]),
        run(&["rebuild", "--yes"]),
        consumer.wait_for_log(|line| line.text.contains("does not answer within")),
    );
    assert!(told.message().contains("waiting for PostgreSQL"), "{}", told.text);
    for output in [migrate, dlq, rebuild] {
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("does not answer within 10s"), "{said}");
    }
    assert_eq!(consumer.terminate().await.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_without_partitions_when_others_have_them_all() {
    let system = System::builder().partitions(1).build().await;
    let first = system.start_consumer().await;
    first.wait_ready().await;
    let second = system.start_consumer().await;
    second.wait_ready().await;
    eventually(DEADLINE, "both stay ready", async || {
        first.get("/readyz").await.status == 200 && second.get("/readyz").await.status == 200
    })
    .await;
}
