use leads_testkit::System;
use tokio_postgres::error::SqlState;

use crate::model::MISCOUNTED;

#[tokio::test(flavor = "multi_thread")]
async fn twice_and_two_at_once() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let run = || system.consumer_command(&["migrate"]);
    let outputs = tokio::join!(run(), run(), run());
    let mut applied = 0;
    for output in [outputs.0, outputs.1, outputs.2, run().await] {
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        applied += usize::from(said.contains("applied V1__read_model"));
    }
    assert_eq!(applied, 1, "exactly one of them applied it");
}

/// What was projected before is counted by value when the counts come, and a writer that does not
/// know them can go on no more.
#[tokio::test(flavor = "multi_thread")]
async fn leads_of_an_older_schema_are_counted_by_value() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let db = system.db().await;
    db.batch_execute(include_str!("../../../migrations/V1__read_model.sql")).await.unwrap();
    db.batch_execute(include_str!("../../../migrations/V2__generations.sql")).await.unwrap();
    let rows = "
        INSERT INTO leads_g1 (workspace_id, id, code, source, created_at, updated_at, version,
            last_event_id)
        SELECT ('00000000-0000-0000-0000-00000000000' || i % 2)::uuid, gen_random_uuid(),
            CASE WHEN i % 3 > 0 THEN 'c' || i % 3 END, 'web', now(), now(), 1, gen_random_uuid()
        FROM generate_series(1, 60) AS i;
        INSERT INTO lead_counts_g1 SELECT workspace_id, 4, count(*) FROM leads_g1 GROUP BY 1;
        INSERT INTO projection_generation (generation, state)
            VALUES (2, 'building'), (3, 'previous');
        CREATE TABLE leads_g2 (LIKE leads_g1);
        CREATE TABLE leads_g3 (LIKE leads_g1);
        CREATE TABLE lead_counts_g2 (LIKE lead_counts_g1 INCLUDING ALL);
        CREATE TABLE lead_counts_g3 (LIKE lead_counts_g1 INCLUDING ALL)";
    db.batch_execute(rows).await.unwrap();
    db.batch_execute(include_str!("../../../migrations/V3__counts_by_value.sql")).await.unwrap();
    assert_eq!(system.number(MISCOUNTED).await, 0);
    let counted = "SELECT sum(leads)::bigint FROM lead_value_counts WHERE field = 'code'";
    assert_eq!(system.number(counted).await, 40);

    let older = "INSERT INTO lead_counts_g1 (workspace_id, partition, leads)
        VALUES (gen_random_uuid(), 0, 1) ON CONFLICT (workspace_id, partition) DO NOTHING";
    let refused = db.batch_execute(older).await.unwrap_err();
    assert_eq!(refused.code(), Some(&SqlState::INVALID_COLUMN_REFERENCE));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused_by_all() {
    let system = System::new().await;
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
        VALUES (9999, 'later', '2030-01-01T00:00:00Z', '1')";
    system.db().await.execute(newer, &[]).await.unwrap();
    for command in ["migrate", "run"] {
        let output = system.consumer_command(&[command]).await;
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(said.contains("9999") && said.contains("newer"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_names_the_command() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let output = system.consumer_command(&["run"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stdout).unwrap().contains("leads-consumer migrate"));
}
