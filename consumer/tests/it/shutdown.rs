use std::time::{Duration, Instant};

use leads_testkit::System;
use serde_json::json;

use crate::model::{Fact, produce, projected};

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_leaves_the_group_at_once() {
    let system = System::new().await;
    let first = system.start_consumer_with(&[("KAFKA_SESSION_TIMEOUT_MS", "45000")]).await;
    first.wait_ready().await;
    produce(&system, &[Fact::created(system.workspace(), json!({}))]).await;
    projected(&system, 1).await;
    assert_eq!(first.terminate().await.code(), Some(0));
    // Were it still a member, its session of 45 s would have to time out first.
    let started = Instant::now();
    let second = system.start_consumer().await;
    second.wait_ready().await;
    assert!(started.elapsed() < Duration::from_secs(20));
}
