//! Moving to a topic with more partitions, as docs/scaling.md tells.

use leads_testkit::System;

use crate::model::{Model, rows};
use crate::rebuild::{some, succeeded};

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_copied_in_order_to_more_partitions_gives_the_same_leads() {
    let system = System::new().await;
    let facts = some(&system, 300).await;
    let wider = format!("{}.wider", system.events_topic());
    let env = [("LEADS_TOPIC", wider.as_str()), ("TOPIC_PARTITIONS", "12")];
    let made = system.run("leads-consumer", &["topics"], &env).await;
    assert!(made.status.success(), "{made:?}");

    let producer = system.producer_to(&wider);
    let mut elsewhere = 0;
    for record in system.records().await {
        let (key, value) = (record.key.unwrap(), record.value.unwrap());
        let copied = producer.send(&key, &value).await.unwrap();
        elsewhere += usize::from(copied.partition != record.position.partition);
    }
    assert!(elsewhere > facts.len() / 2, "most leads have another partition now: {elsewhere}");

    let spare = system.spare_database().await;
    let args = ["rebuild", "--yes", "--into-new-database", spare.url()];
    succeeded(&system.run("leads-consumer", &args, &env).await);
    let db = spare.db().await;
    assert_eq!(rows(&db, &[system.workspace()]).await, Model::of(&facts).rows);
    let dead = db.query_one("SELECT count(*) FROM dead_letters", &[]).await.unwrap();
    assert_eq!(dead.get::<_, i64>(0), 0);
}
