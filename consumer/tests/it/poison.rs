use leads_testkit::{DEADLINE, Record, System, eventually};
use serde_json::{Value, json};

use crate::model::{Fact, assert_rows, produce, projected};
use crate::rebuild::{LIVE, rebuild, succeeded};

async fn exported(system: &System, count: usize) -> Vec<Record> {
    eventually(DEADLINE, "the dead letters are exported", async || {
        let waiting = "SELECT count(*) FROM dead_letters WHERE exported_at IS NULL";
        let all = "SELECT count(*) FROM dead_letters";
        system.number(waiting).await == 0
            && system.number(all).await == i64::try_from(count).unwrap()
    })
    .await;
    // What is marked as exported was acknowledged: it is there, though a reader that comes right
    // behind may be told an earlier end of a partition.
    eventually(DEADLINE, "the dead letters are in their topic", async || {
        let records = system.dead_letter_records().await;
        if records.len() >= count { Ok(records) } else { Err(records.len()) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_set_aside_with_its_bytes_and_the_rest_flows() {
    let system = System::new().await;
    let good: Vec<Fact> =
        (0..40).map(|_| Fact::created(system.workspace(), json!({"code": "c"}))).collect();
    let stray = Fact::created(system.workspace(), json!({})).updated(json!({"code": "x"}), None);
    let other = Fact::created(system.workspace(), json!({"code": "c"}));
    let mut future: Value = serde_json::from_slice(&other.value()).unwrap();
    future["schema_version"] = json!(99);
    let mut unknown = future.clone();
    unknown["type"] = json!("LeadMelted");
    let key = other.key();
    let key = Some(key.as_bytes());
    let future = serde_json::to_vec(&future).unwrap();
    let unknown = serde_json::to_vec(&unknown).unwrap();
    let headers: [(&str, Option<&[u8]>); 3] =
        [("ce_id", Some(b"1")), ("odd", None), ("ce_id", Some(&[0xff, 0]))];

    produce(&system, &good[..20]).await;
    let mut expected = Vec::new();
    for (key, value, reason) in [
        (key, Some(b"{\"secret\":".as_slice()), "undecodable"),
        (key, Some(&[0xff, 0xfe]), "undecodable"),
        (key, None, "undecodable"),
        (key, Some(&future), "unknown_version"),
        (key, Some(&unknown), "unknown_type"),
        (Some(b"another key"), Some(&other.value()), "inconsistent"),
        (None, Some(&other.value()), "inconsistent"),
    ] {
        let position = system.produce(key, value, &headers).await;
        expected.push((position, key, value.map(<[u8]>::to_vec), reason));
    }
    let position = produce(&system, std::slice::from_ref(&stray)).await[0];
    produce(&system, &good[20..]).await;
    let consumer = system.start_consumer().await;

    let records = exported(&system, expected.len() + 1).await;
    projected(&system, good.len() + expected.len() + 1).await;
    assert_rows(&system, &good).await;
    for (position, key, value, reason) in &expected {
        let record = of(&records, position.partition, position.offset);
        assert_eq!((record.key.as_deref(), &record.value), (*key, value));
        assert_eq!(record.header("dlq_reason"), Some(*reason));
        assert_eq!(record.header("dlq_topic"), Some(system.events_topic()));
        assert!(record.header("dlq_time").unwrap().ends_with('Z'));
        assert!(!record.header("dlq_error").unwrap().contains("secret"));
        let original: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(record.headers[..3], original);
    }
    let record = of(&records, position.partition, position.offset);
    assert_eq!(record.header("dlq_reason"), Some("unknown_lead"));
    assert!(consumer.metric("leads_dead_letters_total", "").await > 7.5);
    assert!(!consumer.logs().iter().any(|line| line.text.contains("secret")));
}

fn of(records: &[Record], partition: i32, offset: i64) -> &Record {
    let (partition, offset) = (partition.to_string(), offset.to_string());
    let found = records.iter().find(|record| {
        record.header("dlq_partition") == Some(&partition)
            && record.header("dlq_offset") == Some(&offset)
    });
    found.unwrap_or_else(|| {
        let there: Vec<_> = records
            .iter()
            .map(|it| (it.position, it.header("dlq_partition"), it.header("dlq_offset")))
            .collect();
        panic!("{partition}:{offset} is not in the dead letter topic: {there:?}")
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_refuses_is_found_among_a_thousand() {
    let system = System::builder().partitions(1).build().await;
    let good: Vec<Fact> =
        (0..200).map(|_| Fact::created(system.workspace(), json!({"code": "c"}))).collect();
    let bad = [json!({"properties": {"a": "before\u{0}after"}}), json!({"code": "nul\u{0}"})]
        .map(|fields| Fact::created(system.workspace(), fields));
    let refused_update = good[0].updated(json!({"summary": {"a": "\u{0}"}}), None);
    produce(&system, &good[..120]).await;
    let positions = produce(&system, &bad).await;
    produce(&system, &good[120..]).await;
    let last = produce(&system, std::slice::from_ref(&refused_update)).await[0];
    let consumer = system.start_consumer().await;

    let records = exported(&system, 3).await;
    projected(&system, good.len() + 3).await;
    assert_rows(&system, &good).await;
    for position in positions.iter().chain([&last]) {
        let record = of(&records, position.partition, position.offset);
        assert_eq!(record.header("dlq_reason"), Some("refused_by_postgres"));
        let error = record.header("dlq_error").unwrap();
        assert!(error.contains("SQLSTATE 22") && !error.contains("after"), "{error}");
    }
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_dead_letter_topic_has_no_room_for_goes_without_its_value() {
    let system = System::new().await;
    let small =
        [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("max.message.bytes", "2000")];
    system.alter_topic(&system.dead_letter_topic(), &small).await;
    let headers = [("own", Some(b"x".as_slice()))];
    let large = vec![b'x'; 5_000];
    let position = system.produce(Some(b"key"), Some(&large), &headers).await;
    let consumer = system.start_consumer().await;
    let record = exported(&system, 1).await.remove(0);
    let header = |name: &str| {
        let found = record.headers.iter().find(|(known, _)| known == name);
        found.and_then(|(_, value)| value.clone()).map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!((record.value.as_deref(), header("own")), (None, None));
    assert_eq!(header("dlq_omitted").as_deref(), Some("value, headers"));
    assert_eq!(header("dlq_offset"), Some(position.offset.to_string()));
    let kept = "SELECT length(record_value)::bigint FROM dead_letters";
    assert_eq!(system.number(kept).await, 5_000, "the table has it all");
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_index_of_the_operator_refuses_is_set_aside() {
    let system = System::builder().partitions(1).build().await;
    let unique = "CREATE UNIQUE INDEX ON leads_g1 (workspace_id, code)";
    system.db().await.batch_execute(unique).await.unwrap();
    let coded = |code: &str| Fact::created(system.workspace(), json!({"code": code}));
    let facts = [coded("a"), coded("b"), coded("a"), coded("c")];
    produce(&system, &facts).await;
    let _consumer = system.start_consumer().await;
    projected(&system, facts.len()).await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, 3);
    let refused = "SELECT count(*) FROM dead_letters JOIN projection_generation USING (generation)
        WHERE state = 'live' AND reason = 'refused_by_postgres'";
    assert_eq!(system.number(refused).await, 1);
    // A rebuild refuses the same, and has the index too.
    succeeded(&rebuild(&system, &[]).await);
    assert_eq!((system.number(LIVE).await, system.number(refused).await), (2, 1));
    let unique = "SELECT count(*) FROM pg_indexes
        WHERE tablename = 'leads_g2' AND indexdef LIKE 'CREATE UNIQUE%'";
    assert_eq!(system.number(unique).await, 2);
}
