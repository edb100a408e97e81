//! TLS to Kafka and to PostgreSQL works, and verifies by default: the chain and the host name.

use leads_testkit::{Authority, Consumer, DEADLINE, Impostor, Pretend, Server, Stack, System};
use leads_testkit::{LogLine, eventually};
use serde_json::json;

use crate::model::{Fact, produce, projected};

/// Alive and not ready, for a cause that is told once.
async fn waits(consumer: &Consumer, what: &str, words: &[&str]) -> LogLine {
    let is_it = |line: &LogLine| line.level() == "WARN" && line.message().contains(what);
    let line = consumer.wait_for_log(is_it).await;
    assert!(words.iter().all(|word| line.message().contains(word)), "{}", line.text);
    assert_eq!(consumer.get("/livez").await.status, 200);
    assert_eq!(consumer.get("/readyz").await.status, 503);
    let lines = consumer.logs();
    assert_eq!(lines.iter().filter(|line| is_it(line)).count(), 1, "{lines:#?}");
    line
}

const KAFKA: &str = "waiting for Kafka";
const POSTGRES: &str = "waiting for PostgreSQL";
const REFUSED: &str = "certificate verify failed";

#[tokio::test(flavor = "multi_thread")]
async fn projects_over_tls_and_trusts_nobody_without_being_told_to() {
    let identity = Authority::new().issue(&["localhost", "127.0.0.1"]);
    let system = System::builder().stack(Stack::with_tls(&identity, false).await).build().await;
    // By name: the other tests go by address.
    let brokers = system.kafka_brokers().replace("127.0.0.1", "localhost");
    let url = system.database_url().replace("127.0.0.1", "localhost");
    let consumer =
        system.start_consumer_with(&[("KAFKA_BROKERS", &brokers), ("DATABASE_URL", &url)]).await;
    consumer.wait_ready().await;
    produce(&system, &[Fact::created(system.workspace(), json!({"source": "tls"}))]).await;
    projected(&system, 1).await;

    // What is trusted when nothing else is said: the system's authorities.
    let system_only = [("KAFKA_SSL_CA_LOCATION", "probe")];
    let (to_kafka, to_postgres) = tokio::join!(
        system.start_consumer_with(&system_only),
        system.start_consumer_with(&[("PGSSLROOTCERT", "system")]),
    );
    let (_, _, topics) = tokio::join!(
        waits(&to_kafka, KAFKA, &[REFUSED]),
        waits(&to_postgres, POSTGRES, &[REFUSED, "unable to get local issuer certificate"]),
        system.run("leads-consumer", &["topics"], &system_only),
    );
    assert_eq!(topics.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&topics.stderr).contains(REFUSED), "{topics:?}");

    // One that was at work says why it stands still, too.
    system.stack().kill(Server::Kafka).await;
    let line = consumer.wait_for_log(|line| line.message().starts_with("kafka is away")).await;
    assert!(line.str("cause").is_some_and(|cause| cause.contains("127.0.0.1")), "{}", line.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_another_name_are_refused_and_told_nothing() {
    let system = System::builder().without_topics().build().await;
    let authority = Authority::new();
    let identity = authority.issue(&["leads.example"]);
    let kafka = Impostor::start(Pretend::Kafka, &identity);
    let postgres = Impostor::start(Pretend::Postgres, &identity);
    let brokers = kafka.address().to_string();
    let url = format!("postgres://leads:secret@{}/leads?sslmode=require", postgres.address());
    let kafka_env = [
        ("KAFKA_BROKERS", brokers.as_str()),
        ("KAFKA_SECURITY_PROTOCOL", "SSL"),
        ("KAFKA_SSL_CA_LOCATION", authority.file()),
    ];
    let postgres_env = [("DATABASE_URL", url.as_str()), ("PGSSLROOTCERT", authority.file())];
    let (to_kafka, to_postgres) = tokio::join!(
        system.start_consumer_with(&kafka_env),
        system.start_consumer_with(&postgres_env),
    );
    for impostor in [&kafka, &postgres] {
        let often = async || impostor.seen().refusals >= 3;
        eventually(DEADLINE, "the impostor is refused, again and again", often).await;
        assert_eq!(impostor.seen().read, b"", "sent to {impostor:?}");
    }
    tokio::join!(
        waits(&to_kafka, KAFKA, &[REFUSED]),
        waits(&to_postgres, POSTGRES, &[REFUSED, "address mismatch"]),
    );
    assert!(!to_postgres.logs().iter().any(|line| line.text.contains("secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_are_not_there_are_named_at_boot() {
    let system = System::builder().without_topics().without_migrations().build().await;
    let env = [("KAFKA_SECURITY_PROTOCOL", "SSL"), ("KAFKA_SSL_CA_LOCATION", "/nowhere.pem")];
    let output = system.run("leads-consumer", &["run"], &env).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("KAFKA_SSL_CA_LOCATION"), "{said}");
}
