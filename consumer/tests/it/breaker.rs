use leads_testkit::{DEADLINE, System};
use serde_json::json;

use crate::model::{Fact, produce, projected};
use crate::parking::produce_bad;

async fn bad(system: &System, count: usize) {
    for _ in 0..count {
        produce_bad(system, &Fact::created(system.workspace(), json!({}))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_dead_letters_halt_it_and_nothing_beyond_is_set_aside() {
    let system = System::builder().partitions(1).build().await;
    let limit = [("DLQ_MAX", "3"), ("DLQ_WINDOW", "10m")];
    let dead = "SELECT count(*) FROM dead_letters WHERE reason <> 'parked'";
    bad(&system, 2).await;
    let held = Fact::created(system.workspace(), json!({}));
    produce_bad(&system, &held).await;
    let consumer = system.start_consumer_with(&limit).await;
    // Parked ones don't count.
    produce(&system, &[held.clone(), held.updated(json!({}), None)]).await;
    projected(&system, 5).await;
    bad(&system, 1).await;
    assert_eq!(consumer.wait_exit(DEADLINE).await.code(), Some(1));
    let line = consumer.wait_for_log(|line| line.message() == "the projection halts").await;
    assert!(line.str("cause").unwrap().contains("more than DLQ_MAX=3"), "{line:?}");
    assert!(line.str("cure").unwrap().contains("DLQ_MAX"), "{line:?}");
    assert_eq!(system.number(dead).await, 3);
    // A restart is no new allowance.
    let again = system.spawn("leads-consumer", &["run"], &limit);
    assert_eq!(again.wait_exit(DEADLINE).await.code(), Some(1));
    assert_eq!(system.number(dead).await, 3);
    // What PostgreSQL refuses, found one by one, counts as well.
    let off = system.start_consumer_with(&[("DLQ_MAX", "0")]).await;
    projected(&system, 6).await;
    assert_eq!(off.terminate().await.code(), Some(0));
    assert_eq!(system.number(dead).await, 4);
    let refused: Vec<Fact> =
        (0..3).map(|_| Fact::created(system.workspace(), json!({"code": "\u{0}"}))).collect();
    produce(&system, &refused).await;
    let more = system.spawn("leads-consumer", &["run"], &[("DLQ_MAX", "6"), ("DLQ_WINDOW", "10m")]);
    assert_eq!(more.wait_exit(DEADLINE).await.code(), Some(1));
    assert_eq!(system.number(dead).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_no_time_is_refused() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let output = system.run("leads-consumer", &["run"], &[("DLQ_WINDOW", "0s")]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("DLQ_WINDOW"), "{output:?}");
}
