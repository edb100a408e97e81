//! Wrong configuration ends the process before it listens, names the variable, and keeps secrets.

use std::net::TcpListener;
use std::process::Output;

use leads_testkit::{DEADLINE, System};

use crate::shared::run;

const PASSWORD: &str = "s3cr3t-p4ssw0rd";

#[track_caller]
fn assert_refused(output: &Output, code: i32, names: &[&str]) {
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{text}");
    for name in names {
        assert!(text.contains(name), "{name} is not named: {text}");
    }
    assert!(!text.contains("\"listening\""), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
    assert!(!text.contains("panicked"), "{text}");
}

#[test]
fn each_bad_variable_is_named() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let url = |rest: &str| format!("postgres://leads:{PASSWORD}@{rest}");
        let urls = [url("host:port/db"), url("h/db?sslmode=nonsense"), url("h/db?nope=1")];
        for (variable, value) in [
            ("KAFKA_ACKS", "1"),
            ("KAFKA_ENABLE_IDEMPOTENCE", "false"),
            ("KAFKA_MESSAGE_TIMEOUT_MS", "1"),
            ("KAFKA_PARTITIONER", "random"),
            ("KAFKA_NO_SUCH_THING", "1"),
            ("KAFKA_LINGER_MS", "soon"),
            ("KAFKA_BROKERS", ""),
            ("PUBLISH_TIMEOUT", "1s"),
            ("PUBLISH_TIMEOUT", "10m"),
            ("PUBLISH_TIMEOUT", "soon"),
            ("HEADER_TIMEOUT", "300ms"),
            ("KEEP_ALIVE", "0s"),
            ("READ_WAIT", "2"),
            ("DATABASE_URL", "nonsense"),
            ("DATABASE_URL", &urls[0]),
            ("DATABASE_URL", &urls[1]),
            ("DATABASE_URL", &urls[2]),
            ("API_LISTEN", "localhost"),
            ("METRICS_LISTEN", "99999"),
            ("LEADS_TOPIC", "a b"),
            ("LEADS_TOPIC", ""),
            ("LEADS_ACCESS_TOPIC", ".."),
            ("LOG_LEVEL", "chatty=loud"),
            ("MAX_IN_FLIGHT", "0"),
            ("MAX_IN_FLIGHT_BYTES", "5MB"),
            ("MAX_IN_FLIGHT_BYTES", "256KiB"),
            ("API_TLS_CHECK", "10ms"),
            ("API_TLS_CERT", "/only/one.pem"),
            ("API_TLS_KEY", "/only/one.key"),
            ("API_WORKERS", "0"),
            ("DATABASE_CONNECTIONS", "x"),
        ] {
            let env = [(variable, value)];
            let serve = system.run("leads-api", &["serve"], &env);
            let output = tokio::time::timeout(DEADLINE, serve).await;
            let output = output.unwrap_or_else(|_| panic!("{variable}={value} is taken"));
            assert_refused(&output, 2, &[variable]);
        }
        let verified = url("h/db?sslmode=verify-full");
        let no_file = [("DATABASE_URL", verified.as_str()), ("PGSSLROOTCERT", "/no/such/file")];
        let output = system.run("leads-api", &["serve"], &no_file).await;
        assert_refused(&output, 2, &["sslrootcert", "/no/such/file"]);
    });
}

#[test]
fn all_refused_kafka_properties_are_named_at_once() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let variables = [("KAFKA_ACKS", "0"), ("KAFKA_RETRIES", "0")];
        let output = system.run("leads-api", &["serve"], &variables).await;
        assert_refused(&output, 2, &["KAFKA_ACKS", "KAFKA_RETRIES"]);
        let same = [("LEADS_ACCESS_TOPIC", system.events_topic())];
        let output = system.run("leads-api", &["serve"], &same).await;
        assert_refused(&output, 2, &["LEADS_TOPIC", "LEADS_ACCESS_TOPIC"]);
    });
}

#[test]
fn a_taken_port_is_named_and_is_no_misuse() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        for variable in ["API_LISTEN", "METRICS_LISTEN"] {
            let output = system.run("leads-api", &["serve"], &[(variable, &address)]).await;
            assert_refused(&output, 1, &[variable, &address]);
        }
    });
}

#[test]
fn help_is_the_reference_and_shows_no_secret() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let url = format!("postgres://leads:{PASSWORD}@h/db");
        let output = system.run("leads-api", &["serve", "--help"], &[("DATABASE_URL", &url)]).await;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output.status.code(), Some(0));
        for name in [
            "API_LISTEN",
            "METRICS_LISTEN",
            "API_TLS_CERT",
            "API_TLS_KEY",
            "KAFKA_BROKERS",
            "DATABASE_URL",
            "LEADS_TOPIC",
            "LEADS_ACCESS_TOPIC",
            "PUBLISH_TIMEOUT",
            "READ_WAIT",
            "SHUTDOWN_GRACE",
            "CORS_ORIGINS",
            "LOG_LEVEL",
        ] {
            assert!(text.contains(name), "{name}");
        }
        assert!(!text.contains(PASSWORD), "{text}");
        let output = system.run("leads-api", &["nonsense"], &[]).await;
        assert_eq!(output.status.code(), Some(2));
    });
}
