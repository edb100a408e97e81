//! The connection is lost around COMMIT: nobody can know whether it took effect but by the offsets.

use std::sync::atomic::{AtomicBool, Ordering};

use leads_testkit::{AtCommit, DEADLINE, System, eventually};

use crate::load::{Load, committed};

const CUTS: u32 = 8;

/// Cuts several times under load; gives how often the consumer was fenced.
async fn cut(what: AtCommit) -> f64 {
    let system = System::new().await;
    let proxy = system.proxy().await;
    let consumer = system.start_consumer_with(&[("DATABASE_URL", proxy.url())]).await;
    let mut load = Load::new(&system, 1);
    let done = AtomicBool::new(false);
    let cuts = async {
        for cut in 1..=CUTS {
            proxy.at_commit(what);
            eventually(DEADLINE, "the connection is cut", async || proxy.met() == cut).await;
            let before = committed(&system).await;
            eventually(DEADLINE, "it goes on", async || committed(&system).await > before).await;
        }
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(&done), cuts);
    load.written().await.assert_projected(&system).await;
    assert_eq!(consumer.exit_status(), None);
    assert!(consumer.metric("leads_projection_retries_total", "").await >= f64::from(CUTS));
    consumer.metric("leads_projection_fenced_total", "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_never_arrived_is_done_again() {
    let fenced = cut(AtCommit::Lost).await;
    assert!(fenced < 0.5, "fenced {fenced} times, though nothing was committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_was_lost_counts_once() {
    // A new connection asks where it stands, so that nothing is tried twice.
    let fenced = cut(AtCommit::AnswerLost).await;
    assert!(fenced < 0.5, "fenced {fenced} times, though the offsets had been asked for");
}
