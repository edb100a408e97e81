//! Retries make no duplicates: at the same instance, at another, after a crash, at the same moment.

use std::collections::{HashMap, HashSet};

use leads_testkit::{Api, DEADLINE, Key, Method, Response, Server, Stack, System, eventually};
use serde_json::{Value, json};

use crate::shared::{Own, assert_error, run, shared, unlimited};

async fn total(api: &Api, key: &Key) -> Value {
    api.get(key, "/api/v1/leads").await.json()["pagination"]["total"].clone()
}

/// So that the list has everything that was acknowledged.
async fn read(api: &Api, key: &Key, answer: &Response) -> Response {
    let found = api.get_lead(key, &answer.lead_id()).await;
    assert_eq!(found.status, 200, "{}", found.text());
    found
}

#[test]
fn a_retry_here_is_answered_as_the_first_was() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body = r#"{"code":"a","properties":{"n":1,"of":["ü",{}]}}"#;
        let first = shared.api.post_lead_once(&key, "k", body).await;
        assert_eq!((first.status, first.header("idempotency-replayed")), (201, None));
        // The same content, written differently.
        let same =
            r#"{ "properties":{ "of" : ["\u00fc", {} ], "n":1}, "code":"\u0061", "source":null }"#;
        let second = shared.api.post_lead_once(&key, "k", same).await;
        assert_eq!(second.header("idempotency-replayed"), Some("true"));
        assert_eq!((second.status, second.text()), (201, first.text()));
        for name in ["location", "etag", "x-lead-position"] {
            assert_eq!(second.header(name), first.header(name));
        }
        let other = shared.api.post_lead_once(&key, "k", r#"{"code":"b"}"#).await;
        assert_error(&other, 422, "idempotency_key_reused");
        read(&shared.api, &key, &first).await;
        assert_eq!(total(&shared.api, &key).await, 1);
        let item = shared.api.json(
            Method::POST,
            "/api/v1/leads/batch",
            &key,
            r#"[{"code":"b","idempotency_key":"k"}]"#,
        );
        let item = shared.api.send(item).await;
        assert_eq!((item.status, &item.json()["data"][0]["status"]), (400, &json!(422)));
    });
}

#[test]
fn the_same_key_at_the_same_moment_is_one_publish() {
    run(async {
        let shared = shared().await;
        let key = shared.key_like(unlimited()).await;
        let posts = (0..20).map(|_| shared.api.post_lead_once(&key, "at-once", r#"{"code":"x"}"#));
        let answers = futures_util::future::join_all(posts).await;
        let first = answers[0].text();
        for answer in &answers {
            assert_eq!((answer.status, answer.text()), (201, first.clone()));
        }
        let fresh = answers.iter().filter(|it| it.header("idempotency-replayed").is_none()).count();
        assert_eq!(fresh, 1);
        let id = answers[0].lead_id();
        let records = shared.system.records().await;
        let mine = |key: &Option<Vec<u8>>| key.as_deref() == Some(id.as_bytes());
        assert_eq!(records.iter().filter(|record| mine(&record.key)).count(), 1);

        // Batches too, in which the same keys stand in another order, and one has none.
        let items = |numbers: [u8; 3]| {
            let items = numbers.map(|n| format!(r#"{{"code":"{n}","idempotency_key":"of-{n}"}}"#));
            format!(r#"[{},{{"code":"none"}}]"#, items.join(","))
        };
        let batches = (0..20).map(|i| {
            let body = items(if i % 2 == 0 { [1, 2, 3] } else { [3, 2, 1] });
            let batch = shared.api.json(Method::POST, "/api/v1/leads/batch", &key, &body);
            shared.api.send(batch.header("prefer", "return=representation"))
        });
        let mut found: HashMap<String, HashSet<String>> = HashMap::new();
        let mut ids = HashSet::new();
        for answer in futures_util::future::join_all(batches).await {
            assert_eq!(answer.status, 201, "{}", answer.text());
            for item in answer.json()["data"].as_array().unwrap() {
                ids.insert(item["id"].as_str().unwrap().to_owned());
                let code = item["lead"]["code"].as_str().unwrap().to_owned();
                found.entry(code).or_default().insert(item["lead"].to_string());
            }
        }
        let answers = |code: &str| found[code].len();
        assert_eq!((answers("1"), answers("2"), answers("3"), answers("none")), (1, 1, 1, 20));
        let records = shared.system.records().await;
        let written = records.iter().filter(|record| {
            let id = record.key.as_deref().map(String::from_utf8_lossy);
            id.is_some_and(|id| ids.contains(id.as_ref()))
        });
        assert_eq!(written.count(), 3 + 20, "each key has one record");
    });
}

#[test]
fn at_another_instance_it_is_the_same_lead_and_the_first_in_the_log_stands() {
    run(async {
        let own = Own::start(System::new().await, &[]).await;
        let other = own.system.start_api().await;
        other.wait_ready().await;
        let first = own.api.post_lead_once(&own.key, "k", r#"{"code":"a"}"#).await;
        let same = other.post_lead_once(&own.key, "k", r#"{"code":"a"}"#).await;
        assert_eq!((same.status, same.lead_id()), (201, first.lead_id()));
        let third = own.system.start_api().await;
        third.wait_ready().await;
        let another = third.post_lead_once(&own.key, "k", r#"{"code":"b"}"#).await;
        assert_eq!((another.status, another.lead_id()), (201, first.lead_id()));
        let found = read(&own.api, &own.key, &first).await;
        let last = another.header("x-lead-position").unwrap().to_owned();
        eventually(DEADLINE, "all of them are projected", async || {
            let outcome = r#"outcome="duplicate_creation""#;
            own.consumer.metric("leads_projection_events_total", outcome).await > 1.5
        })
        .await;
        assert_eq!(read(&own.api, &own.key, &first).await.text(), found.text(), "{last}");
        assert_eq!(found.json()["data"]["code"], "a");
        assert_eq!(total(&own.api, &own.key).await, 1);
    });
}

#[test]
fn killed_between_the_acknowledgement_and_the_answer() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[]).await;
        let body = r#"{"code":"a"}"#;
        for round in 0..5 {
            // Its record is on the way to a broker that is held; the process ends before the answer.
            let api = own.system.start_api().await;
            api.wait_ready().await;
            own.system.stack().pause(Server::Kafka).await;
            let name = format!("k{round}");
            let post = api.try_post_lead_once(&own.key, &name, body);
            let killed = async {
                eventually(DEADLINE, "it is on its way", async || {
                    api.metric("leads_publish_in_flight", "").await > 0.5
                })
                .await;
                api.kill().await;
            };
            let (answer, ()) = tokio::join!(post, killed);
            assert!(answer.is_err(), "nobody was answered");
            own.system.stack().resume(Server::Kafka).await;
            own.api.wait_ready().await;
            let retried = eventually(DEADLINE, "the retry is taken", async || {
                let answer = own.api.post_lead_once(&own.key, &name, body).await;
                if answer.status == 201 { Ok(answer) } else { Err(answer) }
            })
            .await;
            read(&own.api, &own.key, &retried).await;
        }
        assert_eq!(total(&own.api, &own.key).await, 5);
    });
}
