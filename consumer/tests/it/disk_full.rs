use leads_testkit::{DEADLINE, Disk, LogLine, Stack, System, eventually};
use proptest::prelude::*;
use serde_json::json;

use crate::load::{heavy, random};
use crate::model::{Fact, assert_rows, produce, projected};

const RECORD: usize = 100_000;

fn waits(line: &LogLine) -> bool {
    line.message() == "the projection waits and tries again"
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_out() {
    let _heavy = heavy().await;
    let system = System::builder().stack(Stack::dedicated().await).build().await;
    let disk = match Disk::small(&system, 16).await {
        Ok(disk) => disk,
        Err(why) => return eprintln!("skipped, there can be no small disk here: {why}"),
    };
    let db = system.db().await;
    db.batch_execute("ALTER TABLE leads_g1 SET TABLESPACE small").await.unwrap();
    let consumer = system.start_consumer_with(&[("PROJECTION_LANES", "1")]).await;
    let mut random = random(1);
    let facts: Vec<Fact> = (0..300)
        .map(|_| {
            // Text that PostgreSQL can't make smaller.
            let text: String =
                (0..RECORD).map(|_| char::from(random.random_range(b'0'..=b'z'))).collect();
            Fact::created(system.workspace(), json!({"properties": {"text": text}}))
        })
        .collect();
    produce(&system, &facts).await;

    let line = consumer.wait_for_log(waits).await;
    assert_eq!((line.level(), line.str("cause")), ("WARN", Some("resources")));
    assert!(line.str("error").unwrap().contains("SQLSTATE 53100"), "{}", line.text);
    eventually(DEADLINE, "it tries again and again", async || {
        consumer.metric("leads_projection_retries_total", "resources").await > 4.5
    })
    .await;
    assert_eq!(consumer.logs().iter().filter(|line| waits(line)).count(), 1, "it is told once");
    assert_eq!(consumer.get("/readyz").await.status, 503);

    disk.grow(256);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 0);
    consumer.wait_ready().await;
    // The server before its disk.
    drop((consumer, db, system));
}
