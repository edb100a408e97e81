//! TLS to Kafka and to PostgreSQL works, and verifies by default: the chain and the host name.

use std::net::SocketAddr;

use leads_testkit::{
    Api, Authority, Consumer, DEADLINE, Identity, Impostor, Pretend, Stack, System, eventually,
};

use crate::shared::{Own, assert_error, run};

const HOSTS: &[&str] = &["localhost", "127.0.0.1"];

/// The one warning of `message`, once its `cause` contains all of `words`.
async fn told_once(api: &Api, message: &str, words: &[&str]) {
    let is_it = |line: &leads_testkit::LogLine| line.message().starts_with(message);
    let line = api.wait_for_log(|line| is_it(line) && line.str("cause").is_some()).await;
    let cause = line.str("cause").expect("a cause").to_lowercase();
    assert!(words.iter().all(|word| cause.contains(word)), "{cause}");
    assert_eq!(line.level(), "WARN");
    let lines = api.logs();
    assert_eq!(lines.iter().filter(|line| is_it(line)).count(), 1, "{lines:#?}");
}

/// Alive; without Kafka, takes no leads.
async fn assert_takes_nothing(api: &Api) {
    assert_eq!(api.get_open("/livez").await.status, 200);
    let ready = api.get_open("/readyz").await;
    let body = ready.json();
    assert_eq!((ready.status, body["kafka"].as_str()), (503, Some("down")), "{body}");
}

async fn postgres_is_down(api: &Api) {
    eventually(DEADLINE, "postgres is down", async || {
        let body = api.get_open("/readyz").await.json();
        if body["postgres"] == "down" { Ok(()) } else { Err(body) }
    })
    .await;
}

#[test]
fn a_lead_goes_all_the_way_over_tls_and_not_without_trust_or_password() {
    run(async {
        let authority = Authority::new();
        let stack = Stack::with_tls(&authority.issue(HOSTS), true).await;
        let system = System::builder().stack(stack).build().await;
        let secret = |name: &str| {
            let found = system.env().iter().find(|(found, _)| found == name);
            found.unwrap_or_else(|| panic!("{name} is set")).1.clone()
        };
        let (password, url) = (secret("KAFKA_SASL_PASSWORD"), secret("DATABASE_URL"));
        assert_eq!(secret("KAFKA_SECURITY_PROTOCOL"), "SASL_SSL");
        // Nobody comes in without TLS, so whoever comes in has it.
        let clear = url.replace("verify-full", "disable");
        let clear = system.run("leads-consumer", &["migrate"], &[("DATABASE_URL", &clear)]).await;
        assert!(String::from_utf8_lossy(&clear.stderr).contains("no encryption"), "{clear:?}");

        let Own { system, api, consumer, key } = Own::start(system, &[]).await;
        let lead = api.post_lead(&key, r#"{"source":"tls"}"#).await;
        assert_eq!(lead.status, 201, "{lead:?}");
        let id = lead.json()["data"]["id"].as_str().expect("an id").to_owned();
        let read = api.get_lead(&key, &id).await;
        assert_eq!((read.status, &read.json()["data"]), (200, &lead.json()["data"]));
        assert_eq!(api.get_open("/readyz").await.json()["status"], "ok");
        drop::<(Api, Consumer)>((api, consumer));

        // What is trusted when nothing else is said: the system's authorities.
        let strangers = [("KAFKA_SSL_CA_LOCATION", "probe"), ("PGSSLROOTCERT", "system")];
        let stranger = system.start_api_with(&strangers).await;
        let away = "kafka is away";
        told_once(&stranger, away, &["certificate verify failed"]).await;
        assert_takes_nothing(&stranger).await;
        postgres_is_down(&stranger).await;
        let why = ["certificate verify failed", "unable to get local issuer certificate"];
        told_once(&stranger, "postgresql is away", &why).await;
        let refused = stranger.post_lead(&key, r#"{"source":"tls"}"#).await;
        assert_error(&refused, 503, "starting");

        let wrong = [("KAFKA_SASL_PASSWORD", "wrong-pass-word")];
        let intruder = system.start_api_with(&wrong).await;
        told_once(&intruder, away, &["sasl authentication error", "invalid credentials"]).await;
        assert_takes_nothing(&intruder).await;
        let database_password = url.split([':', '@']).nth(2).expect("a password in the URL");
        for line in stranger.logs().into_iter().chain(intruder.logs()) {
            for secret in [&password, database_password, "wrong-pass-word"] {
                assert!(!line.text.contains(secret), "{}", line.text);
            }
        }
    });
}

fn url(address: SocketAddr) -> String {
    format!("postgres://leads:secret@{address}/leads?sslmode=verify-full")
}

/// Starts an API whose servers prove themselves with `identity`; `trust` is the file of the authority
/// that it is given, if any.
async fn start(system: &System, identity: &Identity, trust: Option<&str>) -> (Api, [Impostor; 2]) {
    let kafka = Impostor::start(Pretend::Kafka, identity);
    let postgres = Impostor::start(Pretend::Postgres, identity);
    let (brokers, url) = (kafka.address().to_string(), url(postgres.address()));
    let mut env = vec![
        ("KAFKA_BROKERS", brokers.as_str()),
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL"),
        ("KAFKA_SASL_MECHANISM", "PLAIN"),
        ("KAFKA_SASL_USERNAME", "leads"),
        ("KAFKA_SASL_PASSWORD", "secret"),
        ("DATABASE_URL", &url),
    ];
    if let Some(file) = trust {
        env.extend([("KAFKA_SSL_CA_LOCATION", file), ("PGSSLROOTCERT", file)]);
    }
    (system.start_api_with(&env).await, [kafka, postgres])
}

async fn refuses(system: &System, identity: &Identity, trust: Option<&str>, why: &str) {
    let (api, impostors) = start(system, identity, trust).await;
    eventually(DEADLINE, "both are refused, again and again", async || {
        api.get_open("/readyz").await;
        impostors.iter().all(|impostor| impostor.seen().refusals >= 3)
    })
    .await;
    told_once(&api, "kafka is away", &["certificate verify failed"]).await;
    told_once(&api, "postgresql is away", &["certificate verify failed", why]).await;
    assert_takes_nothing(&api).await;
    postgres_is_down(&api).await;
    for impostor in impostors {
        assert_eq!(impostor.seen().read, b"", "sent to {impostor:?}");
    }
    assert!(!api.logs().iter().any(|line| line.text.contains("secret")));
}

#[test]
fn servers_that_are_not_who_they_say_are_refused_and_told_nothing() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let authority = Authority::new();
        let (right, wrong) = (authority.issue(HOSTS), authority.issue(&["leads.example"]));
        let other = Authority::new();
        let chain = "unable to get local issuer certificate";
        tokio::join!(
            refuses(&system, &right, None, chain),
            refuses(&system, &right, Some(other.file()), chain),
            refuses(&system, &wrong, Some(authority.file()), "address mismatch"),
        );
        // With the right name and a known authority they are spoken with, so it was that.
        let (api, impostors) = start(&system, &right, Some(authority.file())).await;
        eventually(DEADLINE, "both are spoken with", async || {
            api.get_open("/readyz").await;
            impostors.iter().all(|impostor| !impostor.seen().read.is_empty())
        })
        .await;
        // A server that says it has no TLS is not spoken with either.
        let clear = Impostor::start(Pretend::PostgresWithoutTls, &right);
        let url = url(clear.address());
        let api = system.start_api_with(&[("DATABASE_URL", &url)]).await;
        postgres_is_down(&api).await;
        told_once(&api, "postgresql is away", &["server does not support tls"]).await;
        assert_eq!(clear.seen().read, b"");
    });
}

#[test]
fn certificates_that_are_not_there_are_named_at_boot() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let url = "postgres://leads:secret@127.0.0.1/leads?sslmode=verify-full";
        for (env, named) in [
            (vec![("KAFKA_SSL_CA_LOCATION", "/nowhere.pem")], "KAFKA_SSL_CA_LOCATION"),
            (vec![("DATABASE_URL", url), ("PGSSLROOTCERT", "/nowhere.pem")], "/nowhere.pem"),
        ] {
            let env: Vec<_> = env.into_iter().chain([("KAFKA_SECURITY_PROTOCOL", "SSL")]).collect();
            let output = system.run("leads-api", &["serve"], &env).await;
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(named) && !said.contains("secret"), "{said}");
        }
    });
}
