//! The kit on the real stack: what other tests take for granted.

use std::time::Duration;

use leads_shared::{Event, Lead, Payload, Timestamp};
use leads_testkit::{DEADLINE, KeySpec, Server, Stack, System, eventually};
use uuid::Uuid;

fn creation(workspace_id: Uuid) -> Event<'static> {
    let at = Timestamp::parse("2026-01-31T12:00:00Z").expect("a time");
    let lead_id = Uuid::now_v7();
    let lead = Lead {
        id: lead_id,
        visitor_id: None,
        workspace_id,
        code: None,
        source: Some("web".into()),
        created_at: at,
        updated_at: at,
        properties: None,
        location: None,
        identity_id: None,
        session_id: None,
        summary: None,
        company_id: None,
    };
    Event {
        event_id: Uuid::now_v7(),
        occurred_at: at,
        workspace_id,
        lead_id,
        payload: Payload::LeadCreated { lead },
    }
}

#[tokio::test]
async fn what_is_produced_is_read_back_and_projected() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    consumer.wait_ready().await;
    let event = creation(system.workspace());
    let position = system.produce_event(&event).await;

    let records = system.records().await;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].position, position);
    assert_eq!(records[0].event(), event);
    assert_eq!(records[0].header("ce_type"), Some("LeadCreated"));
    eventually(DEADLINE, "the lead is projected", async || {
        system.number("SELECT count(*) FROM leads").await == 1
    })
    .await;
    assert!(system.dead_letter_records().await.is_empty());
}

#[tokio::test]
async fn a_lead_goes_in_over_http_and_comes_back() {
    let system = System::new().await;
    let spec = KeySpec { workspace: Some(system.workspace()), ..KeySpec::default() };
    let key = system.create_key(KeySpec { rate_limit: Some(0), ..spec }).await;
    let (consumer, api) = (system.start_consumer().await, system.start_api().await);
    api.wait_ready().await;
    consumer.wait_ready().await;

    let posted = api.post_lead(&key, r#"{"source":"web"}"#).await;
    assert_eq!(posted.status, 201, "{}", posted.text());
    assert!(posted.header("location").is_some_and(|at| at.ends_with(&posted.lead_id())));
    let got = api.get_lead(&key, &posted.lead_id()).await;
    assert_eq!((got.status, got.json()), (200, posted.json()));
    assert_eq!(api.post_lead(&key, "[]").await.error_code(), "malformed_json");
    assert_eq!(api.get_open("/livez").await.status, 200);

    let mut raw = api.raw().await;
    raw.write(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET /nope HTTP/1.1\r\n").await.unwrap();
    assert_eq!(raw.read_response(DEADLINE).await.unwrap().status, 200);
    raw.write(b"host: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let answer = raw.read_response(DEADLINE).await.unwrap();
    assert_eq!((answer.status, answer.error_code().as_str()), (404, "route_not_found"));
    assert!(raw.read_to_close(DEADLINE).await.is_empty());

    let rows = system.rows("SELECT source FROM leads", &[]).await;
    assert_eq!(rows[0].get::<_, &str>(0), "web");
    assert_eq!(api.terminate().await.code(), Some(0));
}

#[tokio::test]
async fn a_recreated_topic_is_empty() {
    let system = System::new().await;
    system.produce(Some(b"k"), None, &[("h", None), ("h", Some(b"v"))]).await;
    let records = system.records().await;
    assert_eq!((records[0].value.as_ref(), records[0].header("h")), (None, Some("v")));
    system.recreate_events_topic().await;
    assert!(system.records().await.is_empty());
}

#[tokio::test]
async fn processes_take_signals_and_are_reaped() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    consumer.pause();
    consumer.resume();
    consumer.wait_ready().await;
    assert_eq!(consumer.get("/livez").await.status, 200);
    assert_eq!(consumer.terminate().await.code(), Some(0));

    let killed = system.start_consumer().await;
    let pid = killed.pid();
    killed.kill().await;
    drop(killed);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());

    let refused = system.spawn("leads-consumer", &["run"], &[("KAFKA_ACKS", "1")]);
    assert_eq!(refused.wait_exit(Duration::from_secs(20)).await.code(), Some(2));
    assert!(refused.logs().iter().any(|line| line.text.contains("KAFKA_ACKS")));
}

#[tokio::test]
async fn a_stack_of_its_own_can_be_broken_and_mended() {
    let system = System::builder().stack(Stack::dedicated().await).partitions(1).build().await;
    let stack = system.stack();
    stack.kill(Server::Postgres).await;
    stack.start(Server::Postgres).await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, 0);
    stack.pause(Server::Kafka).await;
    stack.resume(Server::Kafka).await;
    assert_eq!(system.produce(Some(b"k"), Some(b"v"), &[]).await.offset, 0);
}
