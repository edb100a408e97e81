//! Status tells at a glance how the projection stands, as far as it can be known.

use std::time::Instant;

use leads_testkit::{DEADLINE, Server, Stack, System, eventually};
use serde_json::{Value, json};

use crate::model::{Fact, produce, projected};

async fn ask_with(system: &System, args: &[&str]) -> (Option<i32>, Value) {
    let args: Vec<_> = ["status", "--json"].iter().chain(args).copied().collect();
    let output = system.consumer_command(&args).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let status = serde_json::from_str(&text);
    (output.status.code(), status.unwrap_or_else(|_| panic!("{text}{:?}", output.stderr)))
}

async fn ask(system: &System) -> (Option<i32>, Value) {
    ask_with(system, &[]).await
}

/// The command that the problem with these words is answered by.
fn next<'a>(status: &'a Value, words: &str) -> Option<&'a str> {
    let mut problems = status["problems"].as_array().unwrap().iter();
    let problem = problems.find(|it| it["problem"].as_str().unwrap().contains(words))?;
    problem["next"].as_str()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect()
}

fn some(system: &System, count: usize) -> Vec<Fact> {
    (0..count).map(|_| Fact::created(system.workspace(), json!({}))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_is_healthy_and_the_shape_is_fixed() {
    let system = System::builder().partitions(2).build().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 9)).await;
    projected(&system, 9).await;
    consumer.wait_ready().await;
    let (code, status) = ask(&system).await;
    assert_eq!((code, &status["healthy"]), (Some(0), &json!(true)), "{status}");
    let expected = [
        "at",
        "healthy",
        "problems",
        "topic",
        "kafka",
        "postgres",
        "lag_records",
        "lag_seconds",
        "events_per_second",
        "generations",
        "dead_letters",
        "group",
        "partitions",
    ];
    assert_eq!(keys(&status), expected);
    assert_eq!(status["kafka"], json!({"up": true, "error": null}));
    assert_eq!(status["postgres"], json!({"up": true, "error": null}));
    assert_eq!((&status["lag_records"], &status["lag_seconds"]), (&json!(0), &Value::Null));
    assert_eq!(status["events_per_second"], 0.0);
    let generation = &status["generations"][0];
    let expected =
        ["generation", "state", "created_at", "live_since", "builder", "abandoned", "progress"];
    assert_eq!(keys(generation), expected);
    assert_eq!((&generation["state"], &generation["progress"]), (&json!("live"), &json!(1.0)));
    assert!(generation["live_since"].is_string(), "{generation}");
    let none = json!({"waiting": 0, "pending_export": 0, "reasons": []});
    assert_eq!(status["dead_letters"], none);
    assert_eq!(keys(&status["group"]), ["name", "state", "members"]);
    assert_eq!(status["group"]["state"], "Stable");
    let member = &status["group"]["members"][0];
    assert_eq!(keys(member), ["id", "client", "host", "partitions"]);
    assert_eq!((&member["host"], &member["partitions"]), (&json!("127.0.0.1"), &json!([0, 1])));
    let partitions = status["partitions"].as_array().unwrap();
    let ends: i64 = partitions.iter().map(|it| it["log_end"].as_i64().unwrap()).sum();
    assert_eq!((partitions.len(), ends), (2, 9));
    for partition in partitions {
        let expected = [
            "partition",
            "next_offset",
            "log_end",
            "lag_records",
            "lag_seconds",
            "sealed",
            "owner",
        ];
        assert_eq!(keys(partition), expected);
        assert_eq!(partition["next_offset"], partition["log_end"]);
        assert_eq!((&partition["sealed"], &partition["owner"]), (&json!(false), &member["id"]));
    }

    let output = system.consumer_command(&["status"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), text.lines().last()), (Some(0), Some("healthy")), "{text}");
    let watch = system.spawn("leads-consumer", &["status", "--json", "--watch", "1"], &[]);
    eventually(DEADLINE, "it looks again", async || watch.logs().len() >= 2).await;
    assert!(watch.logs().iter().all(|line| line.field("healthy") == Some(&json!(true))));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_counted_and_has_an_age() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 2)).await;
    projected(&system, 2).await;
    consumer.terminate().await;
    produce(&system, &some(&system, 3)).await;
    let (code, status) = ask(&system).await;
    assert_eq!((code, &status["lag_records"]), (Some(1), &json!(3)), "{status}");
    let age = status["lag_seconds"].as_f64().unwrap();
    assert!((0.0..DEADLINE.as_secs_f64()).contains(&age), "{status}");
    assert_eq!(status["partitions"][0]["next_offset"], 2);
    assert_eq!(status["partitions"][0]["owner"], Value::Null);
    assert_eq!(next(&status, "no active consumer"), Some("leads-consumer run"));
    assert_eq!(next(&status, "s old"), None, "not as old as that");
    let (_, status) = ask_with(&system, &["--max-lag", "1ms"]).await;
    assert_eq!(next(&status, "s old, more than 0.001 s"), Some("leads-consumer doctor"));
    let output = system.consumer_command(&["status"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let last = text.lines().last().unwrap();
    assert!(last.contains("no active consumer") && last.ends_with("next: leads-consumer run"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_its_builder_and_the_rate_are_shown() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 4)).await;
    projected(&system, 4).await;
    let building = "INSERT INTO projection_generation (generation, state, builder)
            VALUES (2, 'building', 'elsewhere:7');
        INSERT INTO projection_offset (generation, topic, partition, next_offset)
            SELECT 2, topic, partition, 1 FROM projection_offset";
    system.db().await.batch_execute(building).await.unwrap();
    let (code, status) = ask(&system).await;
    assert_eq!(code, Some(0), "{status}");
    let generation = &status["generations"][1];
    assert_eq!(
        (&generation["state"], &generation["builder"]),
        (&json!("building"), &json!("elsewhere:7"))
    );
    assert_eq!((&generation["progress"], &generation["abandoned"]), (&json!(0.25), &json!(true)));
    let output = system.consumer_command(&["status"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    let gone = "by elsewhere:7, 25.0 % done: its process is gone, start it again";
    assert!(text.contains(gone), "{text}");
    eventually(DEADLINE, "what is projected between two looks is a rate", async || {
        let facts = some(&system, 300);
        let (_, (_, status)) = tokio::join!(produce(&system, &facts), ask(&system));
        status["events_per_second"].as_f64().is_some_and(|rate| rate > 0.0)
    })
    .await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_by_reason() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    consumer.wait_ready().await;
    let stray = Fact::created(system.workspace(), json!({})).updated(json!({"code": "x"}), None);
    produce(&system, &[stray]).await;
    for _ in 0..2 {
        system.produce(Some(b"secret"), Some(b"secret"), &[]).await;
    }
    projected(&system, 3).await;
    let (code, status) = ask(&system).await;
    assert_eq!((code, &status["dead_letters"]["waiting"]), (Some(1), &json!(3)), "{status}");
    let reasons = status["dead_letters"]["reasons"].as_array().unwrap();
    assert_eq!(keys(&reasons[0]), ["reason", "waiting", "oldest_seconds"]);
    let counts: Vec<_> = reasons.iter().map(|it| (&it["reason"], &it["waiting"])).collect();
    let (undecodable, unknown) = (json!("undecodable"), json!("unknown_lead"));
    assert_eq!(counts, [(&undecodable, &json!(2)), (&unknown, &json!(1))]);
    assert_eq!(next(&status, "3 dead letters wait"), Some("leads-consumer dlq list"));
    assert!(!status.to_string().contains("secret"));
    let redriven = "UPDATE dead_letters SET redriven_at = now()";
    system.db().await.execute(redriven, &[]).await.unwrap();
    assert_eq!(ask(&system).await.0, Some(0), "what was redriven waits no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_no_finding() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let no_file = [("KAFKA_SECURITY_PROTOCOL", "SSL"), ("KAFKA_SSL_CA_LOCATION", "/nowhere.pem")];
    for command in ["status", "doctor"] {
        for env in [&no_file[..], &[("DATABASE_URL", "mysql://secret")], &[("CONSUMER_GROUP", "")]]
        {
            let output = system.run("leads-consumer", &[command], env).await;
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{command} {env:?}: {said}");
            let (name, _) = env.last().unwrap();
            assert!(said.contains(name) && !said.contains("secret"), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_half_is_shown_when_the_other_is_away() {
    let system = System::builder().partitions(1).stack(Stack::dedicated().await).build().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 2)).await;
    projected(&system, 2).await;
    consumer.wait_ready().await;

    system.stack().kill(Server::Postgres).await;
    let (code, status) = ask(&system).await;
    assert_eq!((code, &status["postgres"]["up"]), (Some(1), &json!(false)), "{status}");
    assert_eq!(
        (&status["kafka"]["up"], &status["partitions"][0]["log_end"]),
        (&json!(true), &json!(2))
    );
    assert_eq!((&status["lag_records"], &status["dead_letters"]), (&Value::Null, &Value::Null));
    assert_eq!(status["group"]["members"][0]["partitions"], json!([0]));
    assert_eq!(next(&status, "PostgreSQL can't be asked"), Some("leads-consumer doctor"));
    system.stack().start(Server::Postgres).await;
    // What was committed last may be lost with the server: it is projected once more.
    produce(&system, &some(&system, 1)).await;
    projected(&system, 3).await;

    system.stack().pause(Server::Kafka).await;
    let started = Instant::now();
    let (code, status) = ask(&system).await;
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    assert_eq!((code, &status["kafka"]["up"]), (Some(1), &json!(false)), "{status}");
    assert_eq!(status["partitions"][0]["next_offset"], 3, "{status}");
    assert_eq!((&status["lag_records"], &status["group"]["state"]), (&Value::Null, &Value::Null));
    assert_eq!(status["generations"][0]["state"], "live");
    assert_eq!(next(&status, "Kafka can't be asked"), Some("leads-consumer doctor"));
    system.stack().resume(Server::Kafka).await;
}
