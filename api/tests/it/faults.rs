//! Errors that a real Kafka can't be made to give, by librdkafka's mock cluster. Whatever comes, no
//! 2xx without the record, and a retry with the same key ends in one lead.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use leads_testkit::KafkaCode::*;
use leads_testkit::{Api, DEADLINE, KafkaCall, KafkaCode, Key, Mock, Response, System, eventually};
use serde_json::{Value, json};

use crate::shared::{assert_error, run, unlimited};

const PUBLISH_TIMEOUT: Duration = Duration::from_secs(3);
/// For a machine that is busy with other tests.
const MARGIN: Duration = Duration::from_secs(5);

/// An API whose Kafka is the mock.
pub(crate) struct Faulty {
    pub(crate) system: System,
    pub(crate) mock: Mock,
    pub(crate) api: Api,
    pub(crate) key: Key,
}

impl Faulty {
    async fn start() -> Self {
        Self::start_with(1, "3s").await
    }

    pub(crate) async fn start_with(brokers: i32, publish_timeout: &str) -> Self {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let mock = system.mock_kafka(brokers).await;
        let timeout = publish_timeout.to_owned();
        let env = [("KAFKA_BROKERS", mock.brokers()), ("PUBLISH_TIMEOUT", timeout)];
        let env: Vec<_> = env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let api = system.start_api_with(&env).await;
        api.wait_ready().await;
        Self { system, mock, api, key }
    }

    async fn post(&self, idempotency_key: &str) -> Response {
        let asked = Instant::now();
        let idempotency_key = idempotency_key.replace(' ', "-");
        let answer = self.api.post_lead_once(&self.key, &idempotency_key, "{}").await;
        assert!(asked.elapsed() < PUBLISH_TIMEOUT + MARGIN, "{:?}", asked.elapsed());
        answer
    }

    /// Sends it again until it is taken, as the contract says, and gives the lead's id.
    async fn retry(&self, idempotency_key: &str) -> String {
        eventually(DEADLINE, "a retry is taken", async || {
            let answer = self.post(idempotency_key).await;
            if answer.status == 201 { Ok(answer.lead_id()) } else { Err(answer.text()) }
        })
        .await
    }

    /// A batch of items with keys of their own, so that they spread over the partitions.
    async fn batch(&self, name: &str, items: usize) -> Response {
        let name = name.replace(' ', "-");
        let items: Vec<_> =
            (0..items).map(|i| json!({"idempotency_key": format!("{name}-{i}")})).collect();
        let body = Value::from(items).to_string();
        let path = "/api/v1/leads/batch";
        self.api.send(self.api.json(leads_testkit::Method::POST, path, &self.key, &body)).await
    }

    async fn batch_until_taken(&self, name: &str, items: usize) -> Vec<String> {
        eventually(DEADLINE, "all items are taken", async || {
            let answer = self.batch(name, items).await;
            let found = taken(&answer);
            if found.len() == items { Ok(found) } else { Err(answer.text()) }
        })
        .await
    }

    async fn replaced(&self) -> f64 {
        self.api.metric("leads_producer_replaced_total", r#"reason="fatal""#).await
    }

    /// All that was acknowledged is in the log, and the log makes one lead of each id.
    pub(crate) async fn assert_kept(&self, acknowledged: &[String]) {
        let records = self.mock.records().await;
        let logged: HashSet<String> = records
            .iter()
            .map(|record| String::from_utf8(record.key.clone().expect("a key")).expect("an id"))
            .collect();
        for id in acknowledged {
            assert!(logged.contains(id), "{id} was acknowledged and is not in the log");
        }
        self.system.replay(&records).await;
        let _consumer = self.system.start_consumer().await;
        let wanted = i64::try_from(records.len()).expect("a count");
        eventually(DEADLINE, "all of it is projected", async || {
            let sql = "SELECT COALESCE(sum(next_offset), 0)::bigint FROM projection_offset";
            let found = self.system.number(sql).await;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
        let rows = self.system.number("SELECT count(*) FROM leads WHERE version = 1").await;
        assert_eq!(usize::try_from(rows), Ok(logged.len()), "each lead once");
        assert_eq!(self.system.number("SELECT count(*) FROM leads").await, rows);
        assert_eq!(self.system.number("SELECT count(*) FROM dead_letters").await, 0);
    }
}

/// The ids of the items that were taken.
fn taken(answer: &Response) -> Vec<String> {
    let body = answer.json();
    let items = body["data"].as_array().expect("data").iter();
    let taken = items.filter(|item| item["status"] == 201);
    taken.map(|item| item["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn every_error_of_the_broker_has_an_honest_answer() {
    run(async {
        let faulty = Faulty::start().await;
        let mut acknowledged = Vec::new();
        // What the broker says, and the answer to the request that it says it to.
        let cases: &[(&str, &[KafkaCode], u16, &str)] = &[
            (
                "replicas are missing for a moment",
                &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 2],
                201,
                "",
            ),
            ("another broker leads", &[RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION], 201, ""),
            ("the connection breaks", &[RD_KAFKA_RESP_ERR__TRANSPORT], 201, ""),
            ("the producer id is forgotten", &[RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID], 201, ""),
            ("too large", &[RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE], 413, "payload_too_large"),
            (
                "not allowed",
                &[RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED],
                503,
                "broker_unavailable",
            ),
            ("an old epoch", &[RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH], 503, "publish_timeout"),
            // The mock has not kept it, so a 2xx would be a lie.
            (
                "a duplicate, it says",
                &[RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER],
                503,
                "publish_timeout",
            ),
            ("an error nobody knows", &[RD_KAFKA_RESP_ERR_UNKNOWN], 503, "publish_timeout"),
        ];
        for (what, says, status, code) in cases {
            faulty.mock.answer(KafkaCall::Produce, says);
            let answer = faulty.post(what).await;
            assert_eq!(answer.status, *status, "{what}: {}", answer.text());
            if *status != 201 {
                assert_error(&answer, *status, code);
            }
            acknowledged.push(faulty.retry(what).await);
            faulty.api.wait_ready().await;
        }
        assert!(faulty.replaced().await < 1.0, "none of these is fatal");
        faulty.assert_kept(&acknowledged).await;
    });
}

#[test]
fn what_lasts_beyond_the_time_out_is_503_and_is_over_when_it_is_over() {
    run(async {
        let faulty = Faulty::start().await;
        faulty.mock.answer(KafkaCall::Produce, &[RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 1_000]);
        assert_error(&faulty.post("replicas").await, 503, "publish_timeout");
        let answer = faulty.batch("replicas", 5).await;
        let code = answer.error_code();
        assert!(["publish_timeout", "broker_unavailable"].contains(&code.as_str()), "{answer:?}");
        assert!(taken(&answer).is_empty());
        faulty.mock.heal(KafkaCall::Produce);
        let mut acknowledged = vec![faulty.retry("replicas").await];

        // The broker takes it, and its answer comes too late.
        faulty.mock.delay(Duration::from_mins(1));
        assert_error(&faulty.post("late").await, 503, "publish_timeout");
        faulty.mock.delay(Duration::ZERO);
        acknowledged.push(faulty.retry("late").await);
        acknowledged.extend(faulty.batch_until_taken("replicas", 5).await);
        faulty.assert_kept(&acknowledged).await;
    });
}

#[test]
fn an_error_of_some_items_is_told_of_these() {
    run(async {
        let faulty = Faulty::start().await;
        let mut acknowledged = Vec::new();
        // After the first of these, the producer takes nothing for the topic until it has asked again
        // what it may do: how many items were sent by then is chance. The others concern one
        // request, and so one partition.
        for (name, code, status, error) in [
            ("auth", RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, 503, "broker_unavailable"),
            ("size", RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, 413, "payload_too_large"),
            ("unknown", RD_KAFKA_RESP_ERR_UNKNOWN, 503, "publish_timeout"),
        ] {
            faulty.mock.answer(KafkaCall::Produce, &[code]);
            let answer = faulty.batch(name, 60).await;
            let body = answer.json();
            let items = body["data"].as_array().expect("data");
            let refused: Vec<_> = items.iter().filter(|item| item["status"] != 201).collect();
            assert!(!refused.is_empty(), "{name}: {body}");
            let some_taken = refused.len() < items.len();
            let blocks_topic = code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED;
            assert!(some_taken || blocks_topic, "{name}: {body}");
            assert_eq!(answer.status, if some_taken { 207 } else { status }, "{name}: {body}");
            for item in refused {
                assert_eq!(
                    (&item["status"], &item["error"]["error"]),
                    (&json!(status), &json!(error))
                );
            }
            acknowledged.extend(taken(&answer));
            acknowledged.extend(faulty.batch_until_taken(name, 60).await);
        }
        acknowledged.sort();
        acknowledged.dedup();
        assert_eq!(acknowledged.len(), 180);
        faulty.assert_kept(&acknowledged).await;
    });
}

/// How a producer fails for good: what the broker says to records, what to the next producer that
/// asks for an id, and how many producers fail.
const FATAL: &[(&str, &[KafkaCode], &[KafkaCode], u8)] = &[
    ("out of order", &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER], &[], 1),
    (
        "and its successor is fenced",
        &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        &[RD_KAFKA_RESP_ERR_PRODUCER_FENCED],
        2,
    ),
    (
        "and its successor may not write",
        &[RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER],
        &[RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED],
        2,
    ),
];

#[test]
fn a_producer_that_fails_for_good_is_replaced_without_a_restart() {
    run(async {
        let faulty = Faulty::start().await;
        let mut acknowledged = Vec::new();
        for (name, to_records, to_ids, failures) in FATAL {
            let failures = f64::from(*failures);
            let before = faulty.replaced().await;
            faulty.mock.answer(KafkaCall::InitProducerId, to_ids);
            faulty.mock.answer(KafkaCall::Produce, to_records);
            let posts = (0..20).map(async |i| faulty.post(&format!("{name}-{i}")).await);
            let (answers, batch) =
                tokio::join!(futures_util::future::join_all(posts), faulty.batch(name, 60));
            for answer in &answers {
                if answer.status == 201 {
                    acknowledged.push(answer.lead_id());
                    continue;
                }
                let code = answer.error_code();
                let known = ["publish_timeout", "broker_unavailable"].contains(&code.as_str());
                assert!(known, "{name}: {answer:?}");
                assert_error(answer, 503, &code);
            }
            acknowledged.extend(taken(&batch));
            eventually(DEADLINE, "another producer", async || {
                let found = faulty.replaced().await;
                if found >= before + failures { Ok(()) } else { Err((*name, found)) }
            })
            .await;
            faulty.api.wait_ready().await;
            for i in 0..20 {
                acknowledged.push(faulty.retry(&format!("{name}-{i}")).await);
            }
            acknowledged.extend(faulty.batch_until_taken(name, 60).await);
            assert!((faulty.replaced().await - before - failures).abs() < 0.1, "{name}: no more");
        }
        assert_eq!(faulty.api.exit_status(), None);
        let told = faulty.api.logs();
        let told = told.iter().filter(|line| line.message().contains("failed for good")).count();
        let failures: u8 = FATAL.iter().map(|(.., failures)| failures).sum();
        assert_eq!(told, usize::from(failures), "one line each");
        faulty.assert_kept(&acknowledged).await;
    });
}

#[test]
fn a_retry_that_could_double_a_lead_is_given_up() {
    run(async {
        let faulty = Faulty::start().await;
        // Alone: else another request would have the second answer.
        let says = [RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID];
        faulty.mock.answer(KafkaCall::Produce, &says);
        assert_error(&faulty.post("forgotten").await, 503, "publish_timeout");
        let acknowledged = faulty.retry("forgotten").await;
        assert!((faulty.replaced().await - 1.0).abs() < 0.1, "by another producer");
        faulty.assert_kept(&[acknowledged]).await;
    });
}

#[test]
fn it_is_not_ready_while_its_producer_is_replaced() {
    run(async {
        let faulty = Faulty::start().await;
        // What is in flight when the error comes holds the old producer for this long.
        faulty.mock.delay(Duration::from_secs(1));
        let fail = || {
            let error = [RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER];
            faulty.mock.answer(KafkaCall::Produce, &error);
        };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let posts = async |client: usize| {
            let mut ids = Vec::new();
            for number in 0.. {
                let answer = faulty.post(&format!("{client}-{number}")).await;
                if answer.status == 201 {
                    ids.push(answer.lead_id());
                } else {
                    let code = answer.error_code();
                    assert_error(&answer, 503, &code);
                }
                if *stopped.borrow() {
                    break;
                }
            }
            ids
        };
        let load = futures_util::future::join_all((0..20).map(posts));
        let look = async {
            let seen = eventually(DEADLINE, "it says so", async || {
                // One alone may be over before anyone looks; the next has to wait for a second.
                fail();
                let answer = faulty.api.get_open("/readyz").await;
                (answer.json()["kafka"] == "replacing").then_some(answer)
            })
            .await;
            assert_eq!((seen.status, &seen.json()["status"]), (503, &json!("unavailable")));
            assert_eq!(faulty.api.get_open("/livez").await.status, 200);
            faulty.mock.heal(KafkaCall::Produce);
            faulty.mock.delay(Duration::ZERO);
            faulty.api.wait_ready().await;
            stop.send_replace(true);
        };
        let (acknowledged, ()) = tokio::join!(load, look);
        faulty.assert_kept(&acknowledged.concat()).await;
    });
}
