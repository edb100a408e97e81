use leads_testkit::{DEADLINE, Position, System, eventually};
use serde_json::json;

use crate::model::{Fact, assert_rows, produce, projected};

/// Partition, offset, reason and error of a dead letter.
type Dead = (i32, i64, String, String);

/// The dead letters in the order of the log.
pub(crate) async fn dead_letters(system: &System) -> Vec<Dead> {
    let query = "SELECT partition, \"offset\", reason, error FROM dead_letters ORDER BY 1, 2";
    let rows = system.rows(query, &[]).await;
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

fn parked(at: Position, behind: Position) -> Dead {
    let error = format!("waits behind {}:{}", behind.partition, behind.offset);
    (at.partition, at.offset, "parked".to_owned(), error)
}

/// Produces a record of the lead that is no event.
pub(crate) async fn produce_bad(system: &System, lead: &Fact) -> Position {
    system.produce(Some(lead.key().as_bytes()), Some(b"{"), &[]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn later_events_wait_in_one_batch_and_the_next_and_after_a_kill_and_a_rebalance() {
    let system = System::builder().partitions(1).build().await;
    let held = Fact::created(system.workspace(), json!({"code": "held"}));
    let other = Fact::created(system.workspace(), json!({"code": "other"}));
    let mut good = vec![held.clone(), other.clone()];
    let update = |lead: &Fact, code: &str| lead.updated(json!({"code": code}), None);

    // All of it in one batch.
    produce(&system, &good).await;
    let bad = produce_bad(&system, &held).await;
    let mut waiting = produce(&system, &[update(&held, "1")]).await;
    good.push(update(&other, "2"));
    produce(&system, &good[2..]).await;
    let consumer = system.start_consumer().await;
    projected(&system, 5).await;

    // The next batch, and a later one after a kill, and after another member took over.
    let more = async |good: &mut Vec<Fact>, waiting: &mut Vec<Position>| {
        good.push(update(&other, "other"));
        produce(&system, &good[good.len() - 1..]).await;
        waiting.extend(produce(&system, &[update(&held, "held")]).await);
        // The good ones, the bad one and those that wait.
        projected(&system, good.len() + 1 + waiting.len()).await;
    };
    more(&mut good, &mut waiting).await;
    consumer.kill().await;
    let consumer = system.start_consumer().await;
    more(&mut good, &mut waiting).await;
    let successor = system.start_consumer().await;
    assert_eq!(consumer.terminate().await.code(), Some(0));
    more(&mut good, &mut waiting).await;

    assert_rows(&system, &good).await;
    let found = dead_letters(&system).await;
    assert_eq!((found[0].1, found[0].2.as_str()), (bad.offset, "undecodable"));
    let expected: Vec<Dead> = waiting.iter().map(|at| parked(*at, bad)).collect();
    assert_eq!(found[1..], expected);
    assert!(successor.metric("leads_dead_letters_total", r#"reason="parked""#).await > 0.5);
    eventually(DEADLINE, "the parked ones are exported", async || {
        let records = system.dead_letter_records().await;
        let parked = records.iter().filter(|it| it.header("dlq_reason") == Some("parked"));
        let offsets: Vec<_> =
            parked.map(|it| it.header("dlq_offset").unwrap().parse::<i64>().unwrap()).collect();
        let all = waiting.iter().all(|at| offsets.contains(&at.offset));
        if all { Ok(()) } else { Err(offsets) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_wait_behind_what_postgres_refuses() {
    let system = System::builder().partitions(1).build().await;
    let lead = Fact::created(system.workspace(), json!({"code": "c"}));
    let others: Vec<Fact> =
        (0..50).map(|_| Fact::created(system.workspace(), json!({"code": "o"}))).collect();
    let refused = lead.updated(json!({"summary": {"a": "\u{0}"}}), None);
    let later = lead.updated(json!({"code": "later"}), None);
    let creation = Fact::created(system.workspace(), json!({"code": "\u{0}"}));
    let behind_it = creation.updated(json!({"source": "fine"}), Some(1));
    produce(&system, std::slice::from_ref(&lead)).await;
    produce(&system, &others[..25]).await;
    let positions = produce(&system, &[refused, creation, later, behind_it]).await;
    produce(&system, &others[25..]).await;
    let consumer = system.start_consumer().await;
    projected(&system, 55).await;
    let found = dead_letters(&system).await;
    let reasons: Vec<_> = found.iter().map(|(_, _, reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["refused_by_postgres", "refused_by_postgres", "parked", "parked"]);
    assert_eq!(found[2], parked(positions[2], positions[0]));
    assert_eq!(found[3], parked(positions[3], positions[1]));
    let good: Vec<Fact> = std::iter::once(lead).chain(others).collect();
    assert_rows(&system, &good).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_behind_what_has_no_effect_or_no_lead() {
    let system = System::builder().partitions(2).build().await;
    let lead = Fact::created(system.workspace(), json!({"code": "c"}));
    let other = Fact::created(system.workspace(), json!({"code": "o"}));
    let early = lead.updated(json!({"code": "early"}), None);
    let update = lead.updated(json!({"code": "u"}), Some(1));
    let key = lead.key();
    let key = Some(key.as_bytes());
    let home = produce(&system, &[early]).await[0].partition;
    produce(&system, std::slice::from_ref(&lead)).await;
    // Another lead's event under this key, and this lead's event on another partition.
    system.produce(key, Some(&other.value()), &[]).await;
    system.produce_to(Some(1 - home), key, Some(&lead.value()), &[]).await;
    produce(&system, std::slice::from_ref(&update)).await;
    let consumer = system.start_consumer().await;
    projected(&system, 5).await;
    assert_rows(&system, &[lead.clone(), update.clone()]).await;
    // Nor in a later batch.
    let later = lead.updated(json!({"code": "later"}), Some(2));
    produce(&system, std::slice::from_ref(&later)).await;
    projected(&system, 6).await;
    assert_rows(&system, &[lead, update, later]).await;
    let mut reasons: Vec<_> =
        dead_letters(&system).await.into_iter().map(|(_, _, reason, _)| reason).collect();
    reasons.sort();
    assert_eq!(reasons, ["inconsistent", "unknown_lead", "wrong_partition"]);
    drop(consumer);
}
