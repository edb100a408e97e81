//! POST of a batch: an outcome for each item, and one bad item never spoils the rest.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use leads_testkit::{Api, Key, Method, Response, Server, Stack, System};
use serde_json::{Value, json};

use crate::shared::{Own, assert_error, run, shared};

const PATH: &str = "/api/v1/leads/batch";

async fn post(api: &Api, key: &Key, body: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = api.json(Method::POST, PATH, key, body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request).await
}

async fn post_lines(
    api: &Api,
    key: &Key,
    body: impl Into<Vec<u8>>,
    encoding: Option<&str>,
) -> Response {
    let mut request = api
        .request(Method::POST, PATH)
        .bearer_auth(&key.secret)
        .header("content-type", "application/x-ndjson")
        .body(body.into());
    if let Some(encoding) = encoding {
        request = request.header("content-encoding", encoding);
    }
    api.send(request).await
}

fn data(answer: &Response) -> Vec<Value> {
    let body = answer.json();
    let data = body["data"].as_array().unwrap_or_else(|| panic!("{body}")).clone();
    for (index, item) in data.iter().enumerate() {
        assert_eq!(item["index"], index, "one entry for each item, in their order: {body}");
    }
    data
}

#[test]
fn all_taken_is_201_and_every_lead_can_be_read() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body =
            json!([{"code": "a"}, {}, {"properties": {"n": 12_345_678_901_234_567_890_u64}}]);
        let answer = post(&shared.api, &key, &body.to_string(), &[]).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let items = data(&answer);
        assert_eq!(items.len(), 3);
        for item in &items {
            let keys: Vec<&String> = item.as_object().unwrap().keys().collect();
            assert_eq!(keys, ["index", "status", "id"], "{item}");
            assert_eq!(item["status"], 201);
            let lead = shared.api.get_lead(&key, item["id"].as_str().unwrap()).await;
            assert_eq!(lead.status, 200);
        }
        let third = shared.api.get_lead(&key, items[2]["id"].as_str().unwrap()).await;
        assert!(third.text().contains("12345678901234567890"), "{}", third.text());
    });
}

#[test]
fn the_whole_lead_comes_when_it_is_preferred() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let whole = [("prefer", "return=representation")];
        let answer = post(&shared.api, &key, r#"[{"code":"a","source":"web"}]"#, &whole).await;
        assert_eq!(answer.header("preference-applied"), Some("return=representation"));
        let item = data(&answer).remove(0);
        let lead = shared.api.get_lead(&key, item["id"].as_str().unwrap()).await;
        assert_eq!(item["lead"], lead.json()["data"]);
        let minimal = post(&shared.api, &key, "[{}]", &[("prefer", "return=minimal")]).await;
        assert_eq!(minimal.header("preference-applied"), Some("return=minimal"));
        assert_eq!(data(&minimal)[0].get("lead"), None);
    });
}

#[test]
fn a_bad_item_is_answered_for_itself_and_the_rest_is_taken() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let large = format!(r#"{{"properties":{{"a":"{}"}}}}"#, "x".repeat(256 * 1024));
        let deepest = "[".repeat(62) + &"]".repeat(62);
        let lines = format!(
            "{{\"code\":\"a\"}}\r\n\n{{\"visitor_id\":\"x\",\"nope\":1}}\n{{\"code\":}}\n[]\n{large}\n\
             {{\"properties\":{{\"a\":{deepest}}}}}\n{{\"properties\":{{\"a\":[{deepest}]}}}}\n\
             {{\"idempotency_key\":\"a b\"}}"
        );
        let answer = post_lines(&shared.api, &key, lines, None).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        let items = data(&answer);
        let found: Vec<(u64, &str)> = items
            .iter()
            .map(|item| {
                (item["status"].as_u64().unwrap(), item["error"]["error"].as_str().unwrap_or("-"))
            })
            .collect();
        let expected = [
            (201, "-"),
            (400, "validation_failed"),
            (400, "malformed_json"),
            (400, "malformed_json"),
            (413, "payload_too_large"),
            (201, "-"),
            (400, "validation_failed"),
            (400, "validation_failed"),
        ];
        assert_eq!(found, expected);
        let fields = items[1]["error"]["details"]["fields"].as_array().unwrap();
        assert_eq!(fields.len(), 2, "all of an item's errors at once");
        assert_eq!(items[2]["error"]["details"]["line"], 4, "the line of the body");
        let of_key = &items[7]["error"]["details"]["fields"][0];
        assert_eq!(of_key["code"], "invalid_idempotency_key");
        for item in [&items[0], &items[5]] {
            let lead = shared.api.get_lead(&key, item["id"].as_str().unwrap()).await;
            assert_eq!(lead.status, 200);
        }
    });
}

#[test]
fn what_is_no_batch_is_refused_whole() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let api = &shared.api;
        for body in ["", "{}", "null", "[{}", "[{},]", "[{}] x"] {
            assert_error(&post(api, &key, body, &[]).await, 400, "malformed_json");
        }
        assert_error(&post(api, &key, "[]", &[]).await, 400, "empty_batch");
        assert_error(&post_lines(api, &key, " \n\n", None).await, 400, "empty_batch");
        let many = "{}\n".repeat(1_001);
        let refused = post_lines(api, &key, many, None).await;
        assert_eq!(
            assert_error(&refused, 413, "payload_too_large")["details"]["limit_items"],
            1_000
        );
        let all_bad = post(api, &key, r#"[1,{"x":2}]"#, &[]).await;
        assert_eq!(all_bad.status, 400);
        let body = all_bad.json();
        assert_eq!((&body["error"], data(&all_bad).len()), (&json!("batch_refused"), 2), "{body}");
        let wrong_type = api
            .request(Method::POST, PATH)
            .bearer_auth(&key.secret)
            .header("content-type", "text/plain")
            .body("{}");
        let wrong_type = api.send(wrong_type).await;
        assert_error(&wrong_type, 415, "unsupported_media_type");
        assert!(wrong_type.text().contains("application/x-ndjson"), "{}", wrong_type.text());
        let get = api.get(&key, PATH).await;
        assert_error(&get, 405, "method_not_allowed");
        assert_eq!(get.header("allow"), Some("POST"));
    });
}

#[test]
fn a_thousand_compressed_items_are_taken_and_a_bomb_is_not() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let gzip = |text: &str| {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
            encoder.write_all(text.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let lines: Vec<String> = (0..1_000).map(|i| format!("{{\"code\":\"c{i}\"}}")).collect();
        let lines = lines.join("\n");
        let answer = post_lines(&shared.api, &key, gzip(&lines), Some("gzip")).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let mut ids: Vec<String> =
            data(&answer).iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 1_000);
        let bomb = gzip(&" ".repeat(6 * 1024 * 1024));
        let refused = post_lines(&shared.api, &key, bomb, Some("gzip")).await;
        assert_eq!(
            assert_error(&refused, 413, "payload_too_large")["details"]["limit_bytes"],
            5 * 1024 * 1024
        );
    });
}

#[test]
fn a_retry_makes_no_second_lead() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body = r#"[{"code":"a"},{"code":"b","idempotency_key":"own"}]"#;
        let header = [("idempotency-key", "batch-1")];
        let first = data(&post(&shared.api, &key, body, &header).await);
        let second = data(&post(&shared.api, &key, body, &header).await);
        let ids = |items: &[Value]| items.iter().map(|it| it["id"].clone()).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&second));
        // An item's own key is the one of a single POST.
        let single = shared.api.post_lead_once(&key, "own", r#"{"code":"b"}"#).await;
        assert_eq!(json!(single.lead_id()), first[1]["id"]);
        for item in &first {
            assert_eq!(shared.api.get_lead(&key, item["id"].as_str().unwrap()).await.status, 200);
        }
        let total = shared.api.get(&key, "/api/v1/leads").await.json();
        assert_eq!(total["pagination"]["total"], 2, "{total}");
    });
}

#[test]
fn the_same_key_twice_in_one_batch() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let body = r#"[{"code":"a","idempotency_key":"k"},{"idempotency_key":"k","code":"a"},
            {"code":"b","idempotency_key":"k"}]"#;
        let answer = post(&shared.api, &key, body, &[]).await;
        assert_eq!(answer.status, 207, "{}", answer.text());
        let items = data(&answer);
        assert_eq!(items[0]["id"], items[1]["id"], "the same body is the same lead");
        assert_eq!(items[2]["status"], 422);
        assert_eq!(items[2]["error"]["error"], "idempotency_key_reused");
    });
}

#[test]
fn without_a_broker_nothing_is_taken_and_each_item_says_so() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[("PUBLISH_TIMEOUT", "2s")]).await;
        own.system.stack().pause(Server::Kafka).await;
        let answer = post(&own.api, &own.key, r#"[{"code":"a"},{"x":1}]"#, &[]).await;
        own.system.stack().resume(Server::Kafka).await;
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.header("retry-after").is_some());
        let items = data(&answer);
        assert_eq!((&items[0]["status"], &items[1]["status"]), (&json!(503), &json!(400)));
        let code = items[0]["error"]["error"].as_str().unwrap();
        assert!(["publish_timeout", "broker_unavailable"].contains(&code), "{code}");
        assert_eq!(answer.error_code(), code);
    });
}
