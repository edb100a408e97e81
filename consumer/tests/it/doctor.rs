//! The doctor finds each planted fault by its name, and a sound system sound.

use std::time::{Duration, Instant};

use leads_testkit::{Authority, DEADLINE, Server, Stack, System, eventually};
use serde_json::{Value, json};

use crate::model::{Fact, produce, projected};

/// The longest the doctor may take, with the start of the process on a busy machine.
const BOUND: Duration = Duration::from_secs(20);

async fn examine(system: &System, env: &[(&str, &str)]) -> (Option<i32>, Value) {
    let output = system.run("leads-consumer", &["doctor", "--json"], env).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains("secret"), "{text}");
    let report = serde_json::from_str(&text);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{text}{:?}", output.stderr)))
}

fn of<'a>(report: &'a Value, check: &str) -> &'a Value {
    let mut checks = report["checks"].as_array().unwrap().iter();
    checks.find(|it| it["check"] == check).unwrap_or_else(|| panic!("no check {check}: {report}"))
}

/// Whether `report` has this verdict, with these words, and something to do when it is no good.
fn has(report: &Value, check: &str, verdict: &str, words: &str) -> Result<(), String> {
    let finding = of(report, check);
    let found = finding["found"].as_str().unwrap();
    let helps = finding["fix"].as_str().is_some_and(|fix| !fix.is_empty());
    if finding["verdict"] == verdict
        && found.contains(words)
        && helps == matches!(verdict, "failed" | "warning")
    {
        return Ok(());
    }
    Err(format!("wanted {verdict} with {words:?}: {finding}"))
}

async fn finds_with(system: &System, env: &[(&str, &str)], check: &str, words: &str) -> Value {
    let (code, report) = examine(system, env).await;
    has(&report, check, "failed", words).unwrap();
    assert_eq!((code, &report["ok"]), (Some(1), &json!(false)));
    report
}

async fn finds(system: &System, check: &str, words: &str) -> Value {
    finds_with(system, &[], check, words).await
}

/// The same for what takes a moment to show.
async fn comes_to_find(system: &System, check: &str, words: &str) -> Value {
    eventually(DEADLINE, check, async || {
        let (code, report) = examine(system, &[]).await;
        has(&report, check, "failed", words)?;
        if code == Some(1) { Ok(report) } else { Err(format!("exit code {code:?}")) }
    })
    .await
}

fn some(system: &System, count: usize) -> Vec<Fact> {
    (0..count).map(|_| Fact::created(system.workspace(), json!({}))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_system_is_sound() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 20)).await;
    projected(&system, 20).await;
    consumer.wait_ready().await;
    let (code, report) = examine(&system, &[]).await;
    assert_eq!((code, &report["ok"]), (Some(0), &json!(true)), "{report}");
    for finding in report["checks"].as_array().unwrap() {
        // One broker has one replica; the disk is the machine's.
        let expected = match finding["check"].as_str().unwrap() {
            "replication" => "warning",
            "disk" => continue,
            _ => "ok",
        };
        assert_eq!(finding["verdict"], expected, "{finding}");
    }
    let keys: Vec<_> = of(&report, "schema").as_object().unwrap().keys().collect();
    assert_eq!(keys, ["check", "verdict", "found", "fix"]);
    let output = system.consumer_command(&["doctor"]).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("\nok       schema ") && text.contains(" 0 FAILED, "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_are_not_there() {
    let system = System::new().await;
    let nowhere = [("KAFKA_BROKERS", "127.0.0.1:1")];
    let report = finds_with(&system, &nowhere, "kafka connection", "refused").await;
    has(&report, "events topic", "skipped", "Kafka can't be asked").unwrap();
    has(&report, "schema", "ok", "version").unwrap();
    let unknown = [("KAFKA_BROKERS", "nowhere.invalid:9092")];
    let report = finds_with(&system, &unknown, "kafka names", "nowhere.invalid").await;
    has(&report, "kafka connection", "skipped", "").unwrap();

    let url = [("DATABASE_URL", "postgres://leads:secret@127.0.0.1:1/leads")];
    let report = finds_with(&system, &url, "postgres connection", "refused").await;
    has(&report, "permissions", "skipped", "PostgreSQL can't be asked").unwrap();
    has(&report, "events settings", "ok", "retention.ms=-1").unwrap();
    let missing = format!("{}_gone", system.database_url());
    let report =
        finds_with(&system, &[("DATABASE_URL", &missing)], "database", "does not exist").await;
    has(&report, "postgres credentials", "ok", "").unwrap();
    assert!(of(&report, "database")["fix"].as_str().unwrap().contains("createdb "));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_credentials_that_are_refused() {
    let identity = Authority::new().issue(&["127.0.0.1"]);
    let system = System::builder().stack(Stack::with_tls(&identity, true).await).build().await;
    let (_, sound) = examine(&system, &[]).await;
    has(&sound, "kafka tls", "ok", "trusted").unwrap();
    has(&sound, "kafka credentials", "ok", "accepted").unwrap();

    let probe = [("KAFKA_SSL_CA_LOCATION", "probe")];
    let report = finds_with(&system, &probe, "kafka tls", "certificate verify failed").await;
    has(&report, "kafka connection", "ok", "").unwrap();
    has(&report, "kafka credentials", "skipped", "").unwrap();
    let password = [("KAFKA_SASL_PASSWORD", "secret")];
    let report = finds_with(&system, &password, "kafka credentials", "uthentication").await;
    has(&report, "kafka tls", "ok", "").unwrap();
    let trusts = [("PGSSLROOTCERT", "system")];
    let report = finds_with(&system, &trusts, "postgres tls", "certificate verify failed").await;
    has(&report, "postgres connection", "ok", "").unwrap();
    has(&report, "postgres credentials", "skipped", "").unwrap();
    let (before, after) = system.database_url().split_once('@').unwrap();
    let url = format!("{}:secret@{after}", before.rsplit_once(':').unwrap().0);
    let report =
        finds_with(&system, &[("DATABASE_URL", &url)], "postgres credentials", "28P01").await;
    has(&report, "postgres tls", "ok", "").unwrap();
    has(&report, "database", "skipped", "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_and_tables_that_are_not_there() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let report = finds(&system, "events topic", "does not exist").await;
    has(&report, "dead letter topic", "failed", "does not exist").unwrap();
    has(&report, "access topic", "failed", "does not exist").unwrap();
    has(&report, "events settings", "skipped", "").unwrap();
    has(&report, "schema", "failed", "version 0").unwrap();
    has(&report, "offsets", "skipped", "").unwrap();
    assert_eq!(of(&report, "access topic")["fix"], "leads-consumer topics");
    assert_eq!(of(&report, "schema")["fix"], "leads-consumer migrate");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_of_a_later_version() {
    let system = System::builder().without_topics().build().await;
    let newer = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
        VALUES (9999, 'later', '2030-01-01T00:00:00Z', '1')";
    system.db().await.execute(newer, &[]).await.unwrap();
    finds(&system, "schema", "9999, newer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_would_lose_what_is_written() {
    let system = System::builder().without_migrations().build().await;
    let events = system.events_topic();
    let keep = [("retention.ms", "-1"), ("cleanup.policy", "delete")];
    for (setting, value) in [
        ("retention.ms", "1000"),
        ("cleanup.policy", "compact"),
        ("retention.bytes", "1000000"),
        ("max.message.bytes", "1000"),
    ] {
        let mut settings = keep.to_vec();
        settings.retain(|(name, _)| *name != setting);
        settings.push((setting, value));
        system.alter_topic(events, &settings).await;
        let words = format!("{setting} is {value}");
        let report = comes_to_find(&system, "events settings", &words).await;
        let fix = of(&report, "events settings")["fix"].as_str().unwrap();
        let wanted = format!("--entity-name {events} --add-config {setting}=");
        assert!(fix.starts_with("kafka-configs.sh ") && fix.contains(&wanted), "{fix}");
    }
    system.alter_topic(events, &[("min.insync.replicas", "2"), keep[0], keep[1]]).await;
    comes_to_find(&system, "replication", "every write is refused").await;
    system.alter_topic(&system.dead_letter_topic(), &[("retention.ms", "1000")]).await;
    comes_to_find(&system, "dead letter settings", "retention.ms is 1000").await;
    let access = events.replace(".events", ".access");
    system.alter_topic(&access, &[("cleanup.policy", "delete")]).await;
    comes_to_find(&system, "access settings", "cleanup.policy is delete").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_another_one() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    produce(&system, &some(&system, 3)).await;
    projected(&system, 3).await;
    drop(consumer);
    let report = comes_to_find(&system, "consumers", "no member").await;
    assert_eq!(of(&report, "consumers")["fix"], "leads-consumer run");
    has(&report, "same log", "ok", "").unwrap();

    produce(&system, &some(&system, 2)).await;
    system.truncate_events_topic(4).await;
    comes_to_find(&system, "offsets", "projected up to 3, but its log starts at 4").await;

    system.recreate_events_topic().await;
    produce(&system, &some(&system, 1)).await;
    comes_to_find(&system, "offsets", "projected up to 3, but its log ends at 1").await;
    produce(&system, &some(&system, 3)).await;
    let report = comes_to_find(&system, "same log", "the record at offset 2 is another").await;
    has(&report, "offsets", "ok", "").unwrap();

    system.delete_topic(system.events_topic()).await;
    let made = system.consumer_command(&["topics", "--partitions", "2"]).await;
    assert!(made.status.success(), "{made:?}");
    finds(&system, "partitions", "has 2 partitions, generation 1 was projected with 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_projection_that_does_not_move() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    consumer.wait_ready().await;
    produce(&system, &some(&system, 1)).await;
    projected(&system, 1).await;
    let mut other = system.db().await;
    let holder: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
    let transaction = other.transaction().await.unwrap();
    transaction
        .batch_execute("LOCK TABLE projection_offset IN SHARE ROW EXCLUSIVE MODE")
        .await
        .unwrap();
    produce(&system, &some(&system, 2)).await;
    comes_to_find(&system, "movement", "partition 0 (2 records behind)").await;
    let report = comes_to_find(&system, "transactions", &format!("process {holder} ")).await;
    let fix = of(&report, "transactions")["fix"].as_str().unwrap();
    assert!(fix.contains(&format!("pg_terminate_backend({holder})")), "{fix}");
    transaction.rollback().await.unwrap();
    projected(&system, 3).await;
    let (_, report) = examine(&system, &[]).await;
    has(&report, "movement", "ok", "").unwrap();
    has(&report, "transactions", "ok", "").unwrap();

    let seal = "UPDATE projection_offset SET sealed = true";
    system.db().await.execute(seal, &[]).await.unwrap();
    finds(&system, "sealed", "partition 0 of the live generation 1").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_that_wait() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    consumer.wait_ready().await;
    system.produce(Some(b"secret key"), Some(b"secret"), &[]).await;
    projected(&system, 1).await;
    let report = finds(&system, "dead letters", "1 undecodable").await;
    assert_eq!(of(&report, "dead letters")["fix"], "leads-consumer dlq list");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_whose_builder_is_gone() {
    let system = System::new().await;
    let building = "INSERT INTO projection_generation (generation, state, builder)
        VALUES (2, 'building', 'elsewhere:7');
        CREATE TABLE leads_g2 (LIKE leads_g1);
        CREATE TABLE lead_counts_g2 (LIKE lead_counts_g1)";
    let db = system.db().await;
    db.batch_execute(building).await.unwrap();
    let (_, report) = examine(&system, &[]).await;
    has(&report, "builder", "warning", "its builder elsewhere:7 is gone").unwrap();
    has(&report, "permissions", "ok", "").unwrap();
    let lock = format!("SELECT pg_advisory_lock({}, {})", 0x6c65_6164, 0x7265_6264);
    db.batch_execute(&lock).await.unwrap();
    let (_, report) = examine(&system, &[]).await;
    has(&report, "builder", "ok", "being built by elsewhere:7").unwrap();
    let gone = "UPDATE projection_generation SET state = 'previous' WHERE state = 'live'";
    db.batch_execute(gone).await.unwrap();
    finds(&system, "live generation", "no generation").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_not_be_written() {
    let system = System::builder().without_topics().build().await;
    let name = system.events_topic().replace('.', "_");
    let db = system.db().await;
    let role = format!(
        "CREATE ROLE {name} LOGIN PASSWORD 'secret';
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name};
         GRANT INSERT, UPDATE ON leads_g1, lead_counts_g1, dead_letters TO {name};
         GRANT INSERT, DELETE ON precondition_failures TO {name}"
    );
    db.batch_execute(&role).await.unwrap();
    let (_, host) = system.database_url().split_once('@').unwrap();
    let url = format!("postgres://{name}:secret@{host}");
    let words = format!("user {name} lacks INSERT, UPDATE on projection_offset");
    let report = finds_with(&system, &[("DATABASE_URL", &url)], "permissions", &words).await;
    let fix = of(&report, "permissions")["fix"].as_str().unwrap();
    assert!(fix.contains(&format!("ON projection_offset TO {name};")), "{fix}");
    has(&report, "disk", "skipped", "data_directory").unwrap();
    db.batch_execute(&format!("DROP OWNED BY {name}; DROP ROLE {name}")).await.unwrap();

    let database: String =
        db.query_one("SELECT quote_ident(current_database())", &[]).await.unwrap().get(0);
    let read_only = format!("ALTER DATABASE {database} SET default_transaction_read_only = on");
    db.batch_execute(&read_only).await.unwrap();
    finds(&system, "writable", "read-only").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_hang_do_not_hold_it_up() {
    let system = System::builder().stack(Stack::dedicated().await).build().await;
    system.stack().pause(Server::Kafka).await;
    system.stack().pause(Server::Postgres).await;
    let started = Instant::now();
    let report = finds(&system, "kafka connection", "does not answer").await;
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    has(&report, "postgres connection", "failed", "does not answer").unwrap();
    system.stack().resume(Server::Postgres).await;
    system.stack().resume(Server::Kafka).await;
}
