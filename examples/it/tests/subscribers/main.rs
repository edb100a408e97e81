//! The subscribers of examples/, one a language, on one log: the same state, byte for byte, as the
//! read model has it, through kills and resumptions and from zero again.
#![allow(missing_docs, clippy::unwrap_used)]

mod story;
mod subscriber;

use futures_util::future::join_all;
use leads_shared::{Changes, Event, Payload, Timestamp};
use leads_testkit::{KeySpec, System, eventually};
use uuid::Uuid;

use story::Story;
use subscriber::{PATIENCE, Subscriber};

#[tokio::test]
#[ignore = "make test-examples runs it: it needs the tools of four languages"]
async fn every_language_keeps_the_state_of_the_read_model() {
    let story = Story::tell().await;
    let subscribers = Subscriber::all(&story.system);
    let then = story.expected().await;
    join_all(subscribers.iter().map(|subscriber| async {
        subscriber.expect_report("from-zero", &then).await;
        subscriber.kill_in_the_middle("killed", story.records().await).await;
        subscriber.expect_report("killed", &then).await;
        // What is read is not applied again.
        subscriber.expect_report("killed", &then).await;
    }))
    .await;

    let following: Vec<_> = subscribers.iter().map(|all| (all, all.follow("killed"))).collect();
    story.go_on().await;
    let now = story.expected().await;
    assert_ne!(now, then);
    join_all(following.iter().map(|(subscriber, process)| {
        let what = format!("{} is current", subscriber.name);
        let now = &now;
        async move {
            eventually(PATIENCE, &what, async || subscriber.report_in("killed") == *now).await;
            process.kill().await;
            subscriber.expect_report("killed", now).await;
            subscriber.expect_report("from-zero-again", now).await;
        }
    }))
    .await;
}

#[tokio::test]
#[ignore = "make test-examples runs it: it needs the tools of four languages"]
async fn a_newer_schema_stops_every_reader_before_it() {
    let system = System::builder().partitions(1).build().await;
    let (workspace_id, lead_id) = (Uuid::new_v4(), Uuid::new_v4());
    let changes = Changes::default();
    let event = Event {
        event_id: Uuid::new_v4(),
        occurred_at: Timestamp::from_unix_millis(1_800_000_000_000).unwrap(),
        workspace_id,
        lead_id,
        payload: Payload::LeadUpdated { changes, expected_version: None },
    };
    system.produce_event(&event).await;
    let value = String::from_utf8(event.encode().unwrap().value).unwrap();
    let newer = value.replace(r#""schema_version":1"#, r#""schema_version":2"#);
    assert_ne!(newer, value);
    let records = system.records().await;
    let headers: Vec<_> =
        records[0].headers.iter().map(|(name, text)| (name.as_str(), text.as_deref())).collect();
    system.produce(records[0].key.as_deref(), Some(newer.as_bytes()), &headers).await;

    join_all(Subscriber::all(&system).iter().map(|subscriber| async {
        let words = subscriber.expect_failure("newer").await;
        assert!(words.contains("0:1 has schema version 2"), "{}: {words}", subscriber.name);
        assert!(subscriber.position("newer") <= 1, "{} is past it", subscriber.name);
    }))
    .await;
}

#[tokio::test]
#[ignore = "make test-examples runs it: it needs the tools of four languages"]
async fn the_state_of_another_log_is_refused() {
    let system = System::new().await;
    join_all(Subscriber::all(&system).iter().map(|subscriber| async {
        subscriber.expect_report("state", "").await;
        subscriber.edit("state", "UPDATE positions SET next_offset = 1 WHERE partition = 1");
        let words = subscriber.expect_failure("state").await;
        assert!(words.contains("it is of another log"), "{}: {words}", subscriber.name);
    }))
    .await;
}

#[tokio::test]
#[ignore = "make test-examples runs it: it needs the tools of four languages"]
async fn a_wrong_command_line_is_told() {
    let system = System::builder().without_topics().without_migrations().build().await;
    for subscriber in Subscriber::all(&system) {
        let output = subscriber.run(&["--until-end"]).await;
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}: {words}", subscriber.name);
        assert!(words.contains("usage"), "{}: {words}", subscriber.name);
    }
}

/// No limit of requests a minute.
fn unlimited() -> KeySpec {
    KeySpec { rate_limit: Some(0), ..KeySpec::default() }
}
