//! Ingest needs Kafka and nothing else, says so quickly when it is away, and comes back by itself.
//! One pair of servers is stopped and started, so the outages come one after the other.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leads_testkit::{Api, DEADLINE, Key, Response, Server, Stack, System, eventually};
use serde_json::Value;

use crate::shared::{Own, assert_error, run};

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);
/// For a machine that is busy with other tests.
const MARGIN: Duration = Duration::from_secs(3);

async fn readiness(api: &Api) -> (u16, Value) {
    let answer = api.get_open("/readyz").await;
    (answer.status, answer.json())
}

/// POSTs until one is taken, and gives its id.
async fn until_taken(api: &Api, key: &Key, what: &str) -> String {
    eventually(DEADLINE, what, async || {
        let answer = api.post_lead(key, "{}").await;
        if answer.status == 201 {
            return Ok(answer.lead_id());
        }
        let told: Vec<_> = api.logs().into_iter().filter(|l| l.message() != "request").collect();
        let told: Vec<_> = told.into_iter().map(|line| line.text).collect();
        Err((answer.text(), readiness(api).await, told))
    })
    .await
}

/// Some POSTs at once while the broker is away: each is a quick 503.
async fn assert_quick_503(api: &Api, key: &Key, codes: &[&str]) {
    let one = async || {
        let asked = Instant::now();
        let answer = api.post_lead(key, "{}").await;
        assert!(asked.elapsed() < PUBLISH_TIMEOUT + MARGIN, "{:?}", asked.elapsed());
        let code = answer.error_code();
        assert!(codes.contains(&code.as_str()), "{answer:?}");
        assert_error(&answer, 503, &code);
    };
    futures_util::future::join_all((0..20).map(|_| one())).await;
    assert_eq!(api.get_open("/livez").await.status, 200, "liveness is untouched");
}

/// Each acknowledged lead is in the log and in the rows, exactly once.
async fn assert_kept(own: &Own, acknowledged: &[String]) {
    for id in acknowledged {
        let found = eventually(DEADLINE, "the lead is read back", async || {
            let answer = own.api.get_lead(&own.key, id).await;
            assert_ne!(answer.status, 404, "acknowledged and not there");
            if answer.status == 200 { Ok(answer) } else { Err(answer) }
        })
        .await;
        assert_eq!(found.header("etag"), Some("\"1\""));
    }
    let records = own.system.records().await;
    for id in acknowledged {
        let copies = records.iter().filter(|r| r.key.as_deref() == Some(id.as_bytes())).count();
        assert_eq!(copies, 1, "the idempotent producer writes {id} once");
    }
}

async fn kafka_stands_still(own: &Own, acknowledged: &mut Vec<String>) {
    let (api, key) = (&own.api, &own.key);
    own.system.stack().pause(Server::Kafka).await;
    assert_quick_503(api, key, &["publish_timeout", "broker_unavailable"]).await;
    let (status, body) = eventually(DEADLINE, "it is not ready", async || {
        let (status, body) = readiness(api).await;
        (status == 503).then_some((status, body))
    })
    .await;
    assert_eq!(
        (status, &body["status"], &body["postgres"]),
        (503, &"unavailable".into(), &"up".into())
    );
    assert_ne!(body["kafka"], "up");
    assert!(api.metric("leads_ready", "").await < 0.5, "the figures say so too");
    assert!(api.metric("leads_broker_state", r#"state="up""#).await < 0.5);
    // By now it is known, and nothing is waited for.
    let asked = Instant::now();
    let answer = api.post_lead(key, "{}").await;
    assert_error(&answer, 503, "broker_unavailable");
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());

    own.system.stack().resume(Server::Kafka).await;
    // A new client finds it well: from here on it is up to the API.
    eventually(DEADLINE, "Kafka is well again", async || {
        own.system.keys(&["list"]).await.status.success()
    })
    .await;
    acknowledged.push(until_taken(api, key, "POST works again after the pause").await);
    api.wait_ready().await;
}

async fn kafka_dies(own: &Own, acknowledged: &mut Vec<String>) {
    let (api, key) = (&own.api, &own.key);
    own.system.stack().kill(Server::Kafka).await;
    assert_quick_503(api, key, &["publish_timeout", "broker_unavailable"]).await;
    let (_, body) = eventually(DEADLINE, "it is not ready", async || {
        let (status, body) = readiness(api).await;
        (status == 503).then_some((status, body))
    })
    .await;
    assert_eq!((&body["kafka"], &body["keys"]), (&"down".into(), &"loaded".into()));
    // Reads go on, as far as they don't have to ask the log.
    let found = api.get_lead(key, &acknowledged[0]).await;
    assert_eq!(found.status, 200, "{}", found.text());

    let late = boots_without_kafka(own).await;
    // librdkafka can lose its brokers for good; only a new client is sure to find them again.
    api.wait_for_log(|line| line.message() == "a new client looks for kafka").await;
    own.system.stack().start(Server::Kafka).await;
    acknowledged.push(until_taken(api, key, "POST works again after the restart").await);
    late.wait_ready().await;
    acknowledged
        .push(until_taken(&late, key, "the one that booted without Kafka takes leads").await);
}

/// Alive, not ready, and never 401 before the keys are loaded.
async fn boots_without_kafka(own: &Own) -> Api {
    let late = own.system.start_api().await;
    assert_eq!(late.get_open("/livez").await.status, 200);
    let (status, body) = readiness(&late).await;
    assert_eq!((status, &body["keys"]), (503, &"loading".into()), "{body}");
    assert_error(&late.post_lead(&own.key, "{}").await, 503, "starting");
    assert_error(&late.get(&own.key, "/api/v1/leads").await, 503, "starting");
    late
}

async fn postgres_dies(own: &Own, acknowledged: &mut Vec<String>) {
    let (api, key) = (&own.api, &own.key);
    own.system.stack().kill(Server::Postgres).await;
    for _ in 0..20 {
        let asked = Instant::now();
        let answer = api.post_lead(key, "{}").await;
        assert_eq!(answer.status, 201, "ingest goes on: {}", answer.text());
        assert!(asked.elapsed() < Duration::from_secs(2), "and as fast: {:?}", asked.elapsed());
        acknowledged.push(answer.lead_id());
    }
    let (status, body) = readiness(api).await;
    assert_eq!(
        (status, &body["status"], &body["postgres"]),
        (200, &"degraded".into(), &"down".into())
    );
    let id = acknowledged[0].clone();
    let unavailable = |answer: &Response| assert_error(answer, 503, "read_model_unavailable");
    unavailable(&api.get_lead(key, &id).await);
    unavailable(&api.get(key, "/api/v1/leads").await);
    unavailable(&api.patch_lead(key, &id, r#"{"code":"x"}"#).await);

    // An API that boots without PostgreSQL takes leads all the same.
    let late = own.system.start_api().await;
    late.wait_ready().await;
    acknowledged.push(until_taken(&late, key, "ingest without PostgreSQL from the start").await);

    own.system.stack().start(Server::Postgres).await;
    eventually(DEADLINE, "it is whole again", async || readiness(api).await.1["status"] == "ok")
        .await;
}

/// The kernel still takes what is sent to it, and nothing comes back.
async fn postgres_stands_still(own: &Own, acknowledged: &mut Vec<String>) {
    let (api, key) = (&own.api, &own.key);
    let id = acknowledged[0].clone();
    // More reads at once than there are connections: the pool is warm, and each is at work.
    let gets = async || {
        let asked = Instant::now();
        let answers = join_all((0..20).map(|_| api.get_lead(key, &id))).await;
        (asked.elapsed(), answers)
    };
    gets().await;
    own.consumer.pause();
    let logged = own.system.records().await.len();
    let patch = api.patch_lead(key, &id, r#"{"code":"taken"}"#);
    let freeze = async {
        eventually(DEADLINE, "the update is in the log", async || {
            own.system.records().await.len() > logged
        })
        .await;
        own.system.stack().pause(Server::Postgres).await;
    };
    let (patched, ()) = tokio::join!(patch, freeze);
    assert_eq!(patched.status, 202, "{}", patched.text());
    let (took, answers) = gets().await;
    for answer in answers {
        assert_error(&answer, 503, "read_model_unavailable");
    }
    assert!(took < Duration::from_secs(6), "{took:?}");
    let asked = Instant::now();
    assert_error(&api.get(key, "/api/v1/leads").await, 503, "read_model_unavailable");
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    let answer = api.post_lead(key, "{}").await;
    assert_eq!(answer.status, 201, "ingest goes on: {}", answer.text());
    acknowledged.push(answer.lead_id());
    own.system.stack().resume(Server::Postgres).await;
    own.consumer.resume();
    eventually(DEADLINE, "it reads again, and has the update", async || {
        let answer = api.get_lead(key, &id).await;
        answer.status == 200 && answer.json()["data"]["code"] == "taken"
    })
    .await;
}

#[test]
fn servers_go_away_and_come_back() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[("PUBLISH_TIMEOUT", "3s")]).await;
        let mut acknowledged = Vec::new();
        acknowledged.push(own.api.post_lead(&own.key, "{}").await.lead_id());
        assert_kept(&own, &acknowledged).await;
        kafka_stands_still(&own, &mut acknowledged).await;
        assert_kept(&own, &acknowledged).await;
        kafka_dies(&own, &mut acknowledged).await;
        assert_kept(&own, &acknowledged).await;
        postgres_dies(&own, &mut acknowledged).await;
        assert_kept(&own, &acknowledged).await;
        // What was answered with publish_timeout may be there too, but nothing twice.
        let sql = "SELECT count(*) FROM leads WHERE version <> 1";
        assert_eq!(own.system.number(sql).await, 0);
        postgres_stands_still(&own, &mut acknowledged).await;
        assert_eq!(own.system.number("SELECT count(*) FROM dead_letters").await, 0);
    });
}
