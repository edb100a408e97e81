//! Traces: each recorded lead has a span up to its commit, and the batch is linked to its leads.

use leads_testkit::{Consumer, OtlpReceiver, Record, System};
use serde_json::json;

use crate::model::{Fact, projected};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

async fn traced(system: &System, receiver: &OtlpReceiver, more: &[(&str, &str)]) -> Consumer {
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let env: Vec<_> = env.into_iter().chain(more.iter().copied()).collect();
    system.start_consumer_with(&env).await
}

async fn produce(system: &System, fact: &Fact, traceparent: Option<&str>) -> Record {
    let traceparent = traceparent.map(str::as_bytes);
    let headers = [("traceparent", traceparent)];
    let headers = if traceparent.is_some() { &headers[..] } else { &[] };
    let key = fact.key();
    let position = system.produce(Some(key.as_bytes()), Some(&fact.value()), headers).await;
    let records = system.records().await;
    let here = |record: &Record| record.position == position;
    records.into_iter().find(here).expect("it was just written")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_is_followed_to_its_row_and_linked_with_its_batch() {
    let (system, receiver) = (System::new().await, OtlpReceiver::start().await);
    let lead = Fact::created(system.workspace(), json!({}));
    let published = format!("00-{TRACE}-b7ad6b7169203331-01");
    let record = produce(&system, &lead, Some(&published)).await;
    let consumer = traced(&system, &receiver, &[]).await;
    let row = receiver.wait_for("the lead's span", |it| it.name == "project LeadCreated").await;
    assert_eq!((row.trace_id.as_str(), row.parent.as_str()), (TRACE, "b7ad6b7169203331"));
    assert_eq!(row.service, "leads-consumer");
    assert_eq!(row.attributes["messaging.destination.name"], system.events_topic());
    assert_eq!(row.attributes["messaging.kafka.offset"], record.position.offset.to_string());
    assert!(row.time.0 < row.time.1);

    let batch = receiver.wait_for("the batch's span", |it| it.name == "project batch").await;
    assert_eq!(batch.parent, "", "a batch is nobody's child");
    assert_ne!(batch.trace_id, TRACE);
    assert_eq!(batch.links, [(TRACE.to_owned(), "b7ad6b7169203331".to_owned())]);
    assert_eq!(row.links, [(batch.trace_id.clone(), batch.span_id.clone())]);
    assert_eq!(batch.attributes["messaging.batch.message_count"], "1");
    let sql = receiver.wait_for("its SQL", |it| it.name == "postgresql transaction").await;
    assert_eq!((&sql.trace_id, &sql.parent), (&batch.trace_id, &batch.span_id));
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_recorded_has_no_span() {
    let (system, receiver) = (System::new().await, OtlpReceiver::start().await);
    let fact = || Fact::created(system.workspace(), json!({}));
    produce(&system, &fact(), None).await;
    produce(&system, &fact(), Some(&format!("00-{TRACE}-b7ad6b7169203331-00"))).await;
    produce(&system, &fact(), Some("nonsense")).await;
    let consumer = traced(&system, &receiver, &[("OTEL_TRACES_SAMPLER", "parentbased_always_off")]);
    let consumer = consumer.await;
    projected(&system, 3).await;
    assert_eq!(receiver.spans(), []);
    // A batch is recorded with its lead, whatever is said of roots.
    produce(&system, &fact(), Some(&format!("00-{TRACE}-b7ad6b7169203331-01"))).await;
    receiver.wait_for("the batch's span", |it| it.name == "project batch").await;
    assert_eq!(consumer.terminate().await.code(), Some(0));
    let names: Vec<String> = receiver.spans().into_iter().map(|span| span.name).collect();
    assert_eq!(names.len(), 3, "one lead, its batch, the SQL: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_fails_says_so_and_is_another_the_next_time() {
    let (system, receiver) = (System::new().await, OtlpReceiver::start().await);
    let db = system.db().await;
    let refuse = "ALTER TABLE leads_g1 ADD CONSTRAINT no_bad CHECK (code <> 'bad')";
    db.batch_execute(refuse).await.unwrap();
    let lead = Fact::created(system.workspace(), json!({"code": "bad"}));
    produce(&system, &lead, Some(&format!("00-{TRACE}-b7ad6b7169203331-01"))).await;
    let consumer = traced(&system, &receiver, &[]).await;
    let failed = receiver.wait_for("the failure", |it| it.name == "project batch" && it.failed);
    assert!(!failed.await.links.is_empty());
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_variable_ends_it_at_boot_by_name() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let env = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:1"), ("OTEL_TRACES_SAMPLER", "x")];
    let output = system.run("leads-consumer", &["run"], &env).await;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("OTEL_TRACES_SAMPLER=x"), "{said}");
}
