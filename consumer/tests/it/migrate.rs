use leads_testkit::System;

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
