use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use leads_testkit::{AtCommit, Consumer, DEADLINE, Proxy, System, eventually};
use serde_json::json;

use crate::load::{Load, goes_on};
use crate::model::{Fact, assert_rows, produce, projected};

/// Events that took effect.
const EVENTS: &str = "leads_projection_events_total";
/// Batches that found the offsets moved.
const FENCED: &str = "leads_projection_fenced_total";

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_on_one_database_write_each_event_once() {
    let system = System::new().await;
    let small = ("BATCH_MAX_RECORDS", "7");
    let one = system.start_consumer_with(&[("CONSUMER_GROUP", "one"), small]).await;
    let other = system.start_consumer_with(&[("CONSUMER_GROUP", "other"), small]).await;
    let effects = async |consumer: &Consumer| consumer.metric(EVENTS, "").await;
    let fenced = async |consumer: &Consumer| consumer.metric(FENCED, "").await;
    let mut facts = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    loop {
        for i in 0..50 {
            let lead = Fact::created(system.workspace(), json!({"code": format!("c{i}")}));
            let update = lead.updated(json!({"source": "s"}), None);
            produce(&system, &[lead.clone(), update.clone()]).await;
            facts.extend([lead, update]);
        }
        projected(&system, facts.len()).await;
        let both = effects(&one).await > 0.0 && effects(&other).await > 0.0;
        if both && fenced(&one).await + fenced(&other).await > 0.0 {
            break;
        }
        assert!(Instant::now() < deadline, "they never met");
    }
    assert_rows(&system, &facts).await;
    let events = effects(&one).await + effects(&other).await;
    let expected = f64::from(u32::try_from(facts.len()).unwrap());
    assert!((events - expected).abs() < 0.5, "{events} of {expected} events took effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_consumer_does_not_hold_up_its_successor_and_writes_nothing_after() {
    let system = System::new().await;
    let frozen = system.start_consumer().await;
    frozen.wait_ready().await;
    let mut facts = vec![Fact::created(system.workspace(), json!({}))];
    produce(&system, &facts).await;
    projected(&system, 1).await;
    frozen.pause();
    let lead = Fact::created(system.workspace(), json!({"code": "c"}));
    facts.extend([lead.clone(), lead.updated(json!({"source": "s"}), Some(1))]);
    produce(&system, &facts[1..]).await;
    let successor = system.start_consumer().await;
    projected(&system, facts.len()).await;
    frozen.resume();
    let more = [lead.updated(json!({"source": "t"}), Some(2))];
    produce(&system, &more).await;
    facts.extend(more);
    projected(&system, facts.len()).await;
    frozen.wait_ready().await;
    assert_rows(&system, &facts).await;
    drop(successor);
}

/// Freezes a writer's connection in its transaction: another one takes its place, then both go on.
async fn frozen_in_its_transaction(freeze: impl Fn(&Proxy)) {
    let system = System::new().await;
    let proxy = system.proxy().await;
    let env = [("DATABASE_URL", proxy.url()), ("CONSUMER_GROUP", "one")];
    let one = system.start_consumer_with(&env).await;
    let mut load = Load::new(&system, 1);
    let done = AtomicBool::new(false);
    let cut_off = async {
        freeze(&proxy);
        eventually(DEADLINE, "it stands still", async || proxy.met() == 1).await;
        let other = system.start_consumer_with(&[("CONSUMER_GROUP", "other")]).await;
        goes_on(&system).await;
        let before = one.metric(EVENTS, "").await;
        proxy.thaw();
        eventually(DEADLINE, "it takes part again", async || one.metric(EVENTS, "").await > before)
            .await;
        done.store(true, Ordering::Relaxed);
        other
    };
    let ((), other) = tokio::join!(load.run(&done), cut_off);
    let written = load.written().await;
    written.assert_projected(&system).await;
    let events = one.metric(EVENTS, "").await + other.metric(EVENTS, "").await;
    let facts = f64::from(u32::try_from(written.facts.len()).unwrap());
    assert!((events - facts).abs() < 0.5, "{events} of {facts} events took effect");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_cut_off_before_its_commit_lets_go_and_both_go_on_after() {
    frozen_in_its_transaction(|proxy| proxy.at_commit(AtCommit::Freeze)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_cut_off_in_a_copy_is_ended_and_both_go_on_after() {
    frozen_in_its_transaction(Proxy::freeze_in_copy).await;
}
