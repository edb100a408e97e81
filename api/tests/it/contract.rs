//! What a lead looks like on its way: in the answer to POST, in the log, in the answer to GET.

use leads_shared::{Timestamp, partition};
use leads_testkit::{DEADLINE, Method, Position, Record, Response, eventually};
use serde_json::json;
use uuid::Uuid;

use crate::shared::{Shared, post_with, run, shared};

const FULL: &str = r#"{"visitor_id":"0190D5A4-7C3E-7C1A-9C39-1F0A8D2B6E55","identity_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e56",
    "session_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e57","company_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e58",
    "code":"SPRING","source":"Köln \ud83d\ude00","properties":{"b":[1,{"x":null}],"a":"y"},"location":{"city":"Bonn"}}"#;

/// The body with what differs by run replaced by its name.
fn redacted(answer: &Response) -> String {
    let lead = &answer.json()["data"];
    ["id", "workspace_id", "created_at"].iter().fold(answer.text(), |text, name| {
        text.replace(lead[*name].as_str().expect("a text"), &format!("<{name}>"))
    })
}

/// `X-Lead-Position`
fn position(answer: &Response) -> Position {
    let header = answer.header("x-lead-position").expect("X-Lead-Position");
    let (partition, offset) = header.split_once(':').expect("partition:offset");
    Position {
        partition: partition.parse().expect("a partition"),
        offset: offset.parse().expect("an offset"),
    }
}

async fn record_of(shared: &Shared, answer: &Response) -> Record {
    let position = position(answer);
    let records = shared.system.records().await;
    records.into_iter().find(|record| record.position == position).expect("the record is there")
}

/// A cache that many share would give one key's leads to another: it does not know `x-api-key`.
#[test]
fn no_shared_cache_may_keep_what_a_key_sees() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let nobody = "/api/v1/leads/0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55";
        for path in ["/api/v1/leads", nobody, "/api/v1/system/whoami", "/api/v1/nothing", "/readyz"]
        {
            let answer = shared.api.get(&key, path).await;
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        }
    });
}

#[test]
fn post_answers_the_whole_lead_in_order() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let answer = shared.api.post_lead(&key, FULL).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        insta::assert_snapshot!(redacted(&answer), @r#"{"data":{"id":"<id>","visitor_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55","workspace_id":"<workspace_id>","code":"SPRING","source":"Köln 😀","created_at":"<created_at>","updated_at":"<created_at>","properties":{"b":[1,{"x":null}],"a":"y"},"location":{"city":"Bonn"},"identity_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e56","session_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e57","summary":null,"company_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e58"}}"#);
        let lead = &answer.json()["data"];
        assert_eq!(lead["workspace_id"], key.workspace.to_string());
        let id = Uuid::parse_str(&answer.lead_id()).unwrap();
        assert_eq!(id.get_version_num(), 7);
        let time = lead["created_at"].as_str().unwrap();
        assert_eq!(Timestamp::parse(time).unwrap().to_string(), time, "milliseconds and Z");

        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("location"), Some(format!("/api/v1/leads/{id}").as_str()));
        assert_eq!(answer.header("etag"), Some("\"1\""));
        assert_eq!(answer.header("x-workspace-id"), Some(key.workspace.to_string().as_str()));
    });
}

#[test]
fn everything_is_optional_and_null_is_absent() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let nulls = r#" { "visitor_id":null, "identity_id":null,"session_id":null,"company_id":null,"code":null,"source":null,"properties":null,"location":null}
"#;
        for body in ["{}", nulls] {
            let answer = shared.api.post_lead(&key, body).await;
            insta::allow_duplicates! {
                insta::assert_snapshot!(redacted(&answer), @r#"{"data":{"id":"<id>","visitor_id":null,"workspace_id":"<workspace_id>","code":null,"source":null,"created_at":"<created_at>","updated_at":"<created_at>","properties":null,"location":null,"identity_id":null,"session_id":null,"summary":null,"company_id":null}}"#);
            }
        }
    });
}

#[test]
fn the_record_in_the_log_is_the_event_of_the_answer() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let answer = post_with(&shared.api, &key, FULL, &[("traceparent", trace)]).await;
        let record = record_of(shared, &answer).await;

        let (id, workspace) = (answer.lead_id(), key.workspace);
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
        assert_eq!(record.position.partition, partition::of_key(id.as_bytes(), 3));
        let json = answer.json();
        let time = json["data"]["created_at"].as_str().unwrap();
        let event_id = record.header("ce_id").expect("ce_id").to_owned();
        Uuid::parse_str(&event_id).expect("ce_id is a UUID");
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", &event_id),
            ("ce_source", &format!("/workspaces/{workspace}")),
            ("ce_type", "LeadCreated"),
            ("ce_subject", &id),
            ("ce_time", time),
            ("ce_dataschema", "/schemas/LeadCreated/1"),
            ("content-type", "application/json"),
            ("traceparent", trace),
        ]
        .map(|(name, value)| (name.to_owned(), Some(value.as_bytes().to_vec())));
        assert_eq!(record.headers, expected);
        let text = answer.text();
        let lead = text.strip_prefix(r#"{"data":"#).and_then(|t| t.strip_suffix('}')).unwrap();
        assert_eq!(
            String::from_utf8(record.value.expect("a value")).unwrap(),
            format!(
                r#"{{"event_id":"{event_id}","type":"LeadCreated","schema_version":1,"occurred_at":"{time}","workspace_id":"{workspace}","lead_id":"{id}","lead":{lead}}}"#
            ),
        );
    });
}

#[test]
fn a_request_without_a_valid_traceparent_has_none_in_the_log() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let answer = post_with(&shared.api, &key, "{}", &[("traceparent", zero)]).await;
        assert_eq!(answer.status, 201);
        assert_eq!(record_of(shared, &answer).await.header("traceparent"), None);
    });
}

#[test]
fn what_post_answers_get_answers() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        for body in ["{}", FULL] {
            let posted = shared.api.post_lead(&key, body).await;
            let found = shared.api.get_lead(&key, &posted.lead_id()).await;
            assert_eq!(found.status, 200, "{}", found.text());
            assert_eq!(found.json(), posted.json());
            assert_eq!(found.header("etag"), Some("\"1\""));
            assert_eq!(found.header("cache-control"), Some("private, no-cache"));
            // The same order of fields, whatever PostgreSQL makes of the objects in them.
            let names = |answer: &Response| {
                let text = answer.text();
                let mut names: Vec<_> = posted.json()["data"]
                    .as_object()
                    .expect("a lead")
                    .keys()
                    .map(|name| {
                        (text.find(&format!("\"{name}\":")).expect("a field"), name.clone())
                    })
                    .collect();
                names.sort();
                names.into_iter().map(|(_, name)| name).collect::<Vec<_>>()
            };
            assert_eq!(names(&found), names(&posted));
            let upper = shared.api.get_lead(&key, &posted.lead_id().to_uppercase()).await;
            assert_eq!(upper.json(), posted.json());
        }
    });
}

#[test]
fn every_answer_has_a_request_id() {
    run(async {
        let shared = shared().await;
        let longest = "x".repeat(64);
        for id in ["abc-1.2_Z", &longest] {
            let request = shared.api.request(Method::GET, "/livez").header("x-request-id", id);
            let answer = shared.api.send(request).await;
            assert_eq!(answer.header("x-request-id"), Some(id));
        }
        let too_long = "x".repeat(65);
        for id in ["", "a b", "a\"b", "<b>", &too_long] {
            let request = shared.api.request(Method::GET, "/nowhere").header("x-request-id", id);
            let answer = shared.api.send(request).await;
            let given = answer.header("x-request-id").expect("one is made");
            assert!(given != id && (1..=64).contains(&given.len()), "{given}");
        }
        let one = shared.api.get_open("/livez").await;
        let other = shared.api.get_open("/livez").await;
        assert_ne!(one.header("x-request-id"), other.header("x-request-id"));
        assert_eq!(one.header("x-workspace-id"), None, "no key, no workspace");
        assert_eq!(one.header("x-ratelimit-limit"), None);
    });
}

#[test]
fn an_idempotency_key_makes_one_lead_however_often_it_is_sent() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let name = "order/4711~x";
        let first = shared.api.post_lead_once(&key, name, r#"{"code":"A"}"#).await;
        let second = shared.api.post_lead_once(&key, name, r#"{"code":"A"}"#).await;
        assert_eq!((first.status, second.status), (201, 201));
        let expected = Uuid::new_v5(&key.workspace, name.as_bytes()).to_string();
        assert_eq!((first.lead_id(), second.lead_id()), (expected.clone(), expected.clone()));
        assert_eq!(second.header("etag"), Some("\"1\""));

        // Once a later lead of the same partition is read, both are projected.
        let end = position(&second);
        eventually(DEADLINE, "both are projected", async || {
            let sql = "SELECT COALESCE(MAX(next_offset), 0)::bigint FROM projection_offset WHERE partition = ";
            let next = shared.system.number(&format!("{sql}{}", end.partition)).await;
            next > end.offset
        })
        .await;
        let list = shared.api.get(&key, "/api/v1/leads").await.json();
        assert_eq!(list["pagination"]["total"], 1);
        assert_eq!(list["data"][0]["id"], expected);
        let found = shared.api.get_lead(&key, &expected).await;
        assert_eq!(found.header("etag"), Some("\"1\""), "a retry counts no version");
        assert_eq!(found.json(), first.json(), "the first in log order stands");
        assert_eq!(found.json()["data"]["code"], json!("A"));
    });
}
