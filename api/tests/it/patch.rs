//! PATCH: what it changes, what it answers, and what it leaves in the log.

use leads_shared::{Changes, Event, Payload, Timestamp};
use leads_testkit::{DEADLINE, Method, Response, System, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shared::{
    Own, Shared, assert_error, assert_field_errors, call, eventually_lead, run, shared,
};

const FULL: &str = r#"{"visitor_id":"0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55","code":"A","source":"web","properties":{"a":1,"b":2},"location":{"city":"Bonn"}}"#;

async fn patch_with(
    shared: &Shared,
    key: &leads_testkit::Key,
    id: &str,
    header: (&str, &str),
    body: &str,
) -> Response {
    let request = shared.api.json(Method::PATCH, &format!("/api/v1/leads/{id}"), key, body);
    shared.api.send(request.header(header.0, header.1)).await
}

#[test]
fn a_key_that_came_too_late_says_nothing_of_the_next_try() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead_once(&key, "k", "{}").await.lead_id();
        shared.api.patch_lead(&key, &id, r#"{"code":"other"}"#).await;
        let patch = async |tag: &str, idempotency_key: &str| {
            let path = format!("/api/v1/leads/{id}");
            let request = shared.api.json(Method::PATCH, &path, &key, r#"{"code":"mine"}"#);
            let request = request.header("idempotency-key", idempotency_key);
            shared.api.send(request.header("if-match", tag)).await
        };
        assert_error(&patch("\"1\"", "p").await, 412, "precondition_failed");
        let taken = patch("\"2\"", "p").await;
        assert_eq!((taken.status, taken.header("etag")), (200, Some("\"3\"")), "{}", taken.text());
        let again = patch("\"2\"", "p").await;
        assert_eq!((again.status, again.header("etag")), (200, Some("\"3\"")), "no second effect");

        // A key that reads like the creation's event.
        let fresh = shared.api.post_lead_once(&key, "k2", "{}").await.lead_id();
        let place = format!("/api/v1/leads/{fresh}");
        let request = shared.api.json(Method::PATCH, &place, &key, r#"{"code":"mine"}"#);
        let taken = shared.api.send(request.header("idempotency-key", "LeadCreated")).await;
        assert_eq!((taken.status, &taken.json()["data"]["code"]), (200, &json!("mine")));
    });
}

#[test]
fn a_given_field_is_replaced_whole_null_clears_and_an_absent_one_stays() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let before = shared.api.post_lead(&key, FULL).await;
        let id = before.lead_id();
        let body = r#"{"code":"B","source":null,"properties":{"c":3},"summary":{"score":0.5}}"#;
        let answer = shared.api.patch_lead(&key, &id, body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("etag"), Some("\"2\""));

        let after = answer.json();
        let mut expected = before.json();
        let lead = expected["data"].as_object_mut().unwrap();
        lead.insert("code".to_owned(), json!("B"));
        lead.insert("source".to_owned(), Value::Null);
        lead.insert("properties".to_owned(), json!({ "c": 3 }));
        lead.insert("summary".to_owned(), json!({ "score": 0.5 }));
        lead.insert("updated_at".to_owned(), after["data"]["updated_at"].clone());
        assert_eq!(after, expected);
        let time = |name: &str| after["data"][name].as_str().unwrap().to_owned();
        assert!(time("updated_at") >= time("created_at"));
        assert_eq!(shared.api.get_lead(&key, &id).await.json(), after, "GET says the same");

        let clear = r#"{"summary":null,"visitor_id":null,"location":null}"#;
        let cleared = shared.api.patch_lead(&key, &id, clear).await;
        assert_eq!(cleared.header("etag"), Some("\"3\""));
        for name in ["summary", "visitor_id", "location"] {
            assert_eq!(cleared.json()["data"][name], Value::Null);
        }
        assert_eq!(cleared.json()["data"]["code"], "B");
    });
}

#[test]
fn the_log_has_the_changes_as_they_were_sent() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, FULL).await.lead_id();
        let body = r#"{"source":null, "code":"B","properties":{"n":1.10}}"#;
        let answer = patch_with(shared, &key, &id, ("if-match", "\"1\""), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let position = answer.header("x-lead-position").expect("X-Lead-Position").to_owned();
        let records = shared.system.records().await;
        let record = records
            .iter()
            .find(|r| position == format!("{}:{}", r.position.partition, r.position.offset))
            .expect("the record is there");
        assert_eq!(record.key.as_deref(), Some(id.as_bytes()));
        assert_eq!(record.header("ce_type"), Some("LeadUpdated"));
        assert_eq!(record.header("ce_dataschema"), Some("/schemas/LeadUpdated/1"));
        let event_id = record.header("ce_id").unwrap();
        let json = answer.json();
        let time = json["data"]["updated_at"].as_str().unwrap();
        let workspace = key.workspace;
        assert_eq!(
            String::from_utf8(record.value.clone().unwrap()).unwrap(),
            format!(
                r#"{{"event_id":"{event_id}","type":"LeadUpdated","schema_version":1,"occurred_at":"{time}","workspace_id":"{workspace}","lead_id":"{id}","changes":{{"code":"B","source":null,"properties":{{"n":1.10}}}},"expected_version":1}}"#
            )
        );
    });
}

#[test]
fn a_patch_that_changes_nothing_counts() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, FULL).await.lead_id();
        for version in 2..5 {
            let answer = shared.api.patch_lead(&key, &id, r#"{"code":"A"}"#).await;
            assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));
        }
    });
}

#[test]
fn bad_changes_are_refused_and_leave_nothing_in_the_log() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, FULL).await.lead_id();
        let patch = async |body: &str| shared.api.patch_lead(&key, &id, body).await;
        assert_error(&patch("{}").await, 400, "empty_update");
        for body in ["", "[]", "null", "{} {}"] {
            assert_error(&patch(body).await, 400, "malformed_json");
        }
        let body = r#"{"id":"x","workspace_id":"x","created_at":null,"updated_at":null,"version":1,"summary":1,"code":"","visitor_id":"x"}"#;
        assert_field_errors(
            &patch(body).await,
            &[
                ("id", "unknown_field"),
                ("workspace_id", "unknown_field"),
                ("created_at", "unknown_field"),
                ("updated_at", "unknown_field"),
                ("version", "unknown_field"),
                ("visitor_id", "invalid_uuid"),
                ("code", "too_short"),
                ("summary", "invalid_type"),
            ],
        );
        assert_eq!(patch(r#"{"code":"B"}"#).await.header("etag"), Some("\"2\""));
    });
}

#[test]
fn if_none_match_with_the_present_version_is_304() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        shared.api.patch_lead(&key, &id, r#"{"code":"x"}"#).await;
        let path = format!("/api/v1/leads/{id}");
        let get = async |tag: &str| {
            let headers = [("x-api-key", key.secret.as_str()), ("if-none-match", tag)];
            call(&shared.api, "GET", &path, &headers).await
        };
        for tag in ["\"2\"", "W/\"2\"", "\"1\", \"2\"", "*"] {
            let answer = get(tag).await;
            assert_eq!((answer.status, answer.body.len()), (304, 0), "{tag}");
            assert_eq!(answer.header("etag"), Some("\"2\""));
        }
        for tag in ["\"1\"", "2", "\"22\"", ""] {
            assert_eq!(get(tag).await.status, 200, "{tag}");
        }
    });
}

#[test]
fn of_twenty_updates_with_one_if_match_exactly_one_wins() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let one = async |i: usize| {
            let body = format!(r#"{{"code":"{i}"}}"#);
            patch_with(shared, &key, &id, ("if-match", "\"1\""), &body).await
        };
        let answers = futures_util::future::join_all((0..20).map(one)).await;
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 19));
        for answer in lost {
            let body = assert_error(answer, 412, "precondition_failed");
            assert_eq!(body["details"], json!({ "expected_version": 1, "current_version": 2 }));
        }
        assert_eq!(won[0].header("etag"), Some("\"2\""));
        let found = shared.api.get_lead(&key, &id).await;
        assert_eq!(found.header("etag"), Some("\"2\""));
        assert_eq!(found.json(), won[0].json(), "the winner's change stands, and no other");
    });
}

#[test]
fn without_if_match_all_twenty_updates_count() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let one = async |i: usize| {
            let answer = shared.api.patch_lead(&key, &id, &format!(r#"{{"code":"{i}"}}"#)).await;
            assert_eq!(answer.status, 200);
        };
        futures_util::future::join_all((0..20).map(one)).await;
        assert_eq!(shared.api.get_lead(&key, &id).await.header("etag"), Some("\"21\""));
    });
}

#[test]
fn if_match_takes_one_tag_or_a_star() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let patch = async |tag: &str| {
            patch_with(shared, &key, &id, ("if-match", tag), r#"{"code":"x"}"#).await
        };
        for bad in [
            "1",
            "W/\"1\"",
            "\"x\"",
            "\"1\", \"2\"",
            "",
            "\"\"",
            "\"+1\"",
            "\"-1\"",
            "\"1",
            "\"1e0\"",
        ] {
            assert_error(&patch(bad).await, 400, "invalid_if_match");
        }
        assert_eq!(patch("*").await.header("etag"), Some("\"2\""));
        assert_eq!(patch("\"2\"").await.header("etag"), Some("\"3\""));
        // Far from any version that there is, and from what PostgreSQL's integers hold.
        for never in ["\"0\"", "\"1\"", "\"9223372036854775808\"", "\"18446744073709551615\""] {
            assert_error(&patch(never).await, 412, "precondition_failed");
        }
        assert_eq!(patch("\"3\"").await.header("etag"), Some("\"4\""), "the projection goes on");
    });
}

#[test]
fn a_retry_with_the_same_idempotency_key_has_one_effect() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let retry = ("idempotency-key", "change-1");
        let first = patch_with(shared, &key, &id, retry, r#"{"code":"x"}"#).await;
        let second = patch_with(shared, &key, &id, retry, r#"{"code":"x"}"#).await;
        assert_eq!((first.status, second.status), (200, 200));
        assert_eq!(second.header("etag"), Some("\"2\""));
        assert_eq!(second.json(), first.json());
        let other = ("idempotency-key", "change-2");
        let third = patch_with(shared, &key, &id, other, r#"{"code":"x"}"#).await;
        assert_eq!(third.header("etag"), Some("\"3\""));
    });
}

#[test]
fn updated_at_never_goes_back() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let before = shared.api.patch_lead(&key, &id, r#"{"code":"x"}"#).await.json();
        // As from an API whose clock is an hour behind.
        let now = Timestamp::parse(before["data"]["updated_at"].as_str().unwrap()).unwrap();
        let event = Event {
            event_id: Uuid::new_v4(),
            occurred_at: Timestamp::from_unix_millis(now.unix_millis() - 3_600_000).unwrap(),
            workspace_id: key.workspace,
            lead_id: Uuid::parse_str(&id).unwrap(),
            payload: Payload::LeadUpdated {
                changes: Changes { code: leads_shared::Change::Clear, ..Changes::default() },
                expected_version: None,
            },
        };
        shared.system.produce_event(&event).await;
        let after = eventually_lead(&shared.api, &key, &id, |answer| {
            answer.header("etag") == Some("\"3\"")
        })
        .await
        .json();
        assert_eq!(after["data"]["code"], Value::Null);
        assert_eq!(after["data"]["updated_at"], before["data"]["updated_at"]);
    });
}

#[test]
fn while_the_projection_stands_still_it_is_202_and_log_order_decides() {
    run(async {
        let own = Own::start(System::new().await, &[("READ_WAIT", "200ms")]).await;
        let (api, key) = (&own.api, &own.key);
        let id = api.post_lead(key, r#"{"code":"A","source":"web"}"#).await.lead_id();
        let before = eventually_lead(api, key, &id, |answer| answer.status == 200).await;
        own.consumer.pause();

        let path = format!("/api/v1/leads/{id}");
        let send = async |tag: &str, body: &str| {
            let request = api.json(Method::PATCH, &path, key, body);
            api.send(request.header("if-match", tag)).await
        };
        let merged = send("\"1\"", r#"{"code":"B","summary":{"x":1}}"#).await;
        assert_eq!(merged.status, 202, "{}", merged.text());
        assert!(merged.header("x-lead-position").is_some());
        assert_eq!(merged.header("etag"), None, "its version is not known yet");
        let mut expected = before.json();
        expected["data"]["code"] = json!("B");
        expected["data"]["summary"] = json!({ "x": 1 });
        expected["data"]["updated_at"] = merged.json()["data"]["updated_at"].clone();
        assert_eq!(merged.json(), expected);
        // Too late by log order; nobody can know that yet, so it is no early 412.
        assert_eq!(send("\"1\"", r#"{"code":"C"}"#).await.status, 202);

        own.consumer.resume();
        let found =
            eventually_lead(api, key, &id, |answer| answer.header("etag") == Some("\"2\"")).await;
        assert_eq!(found.json(), merged.json(), "GET tells");
        eventually(DEADLINE, "the second is known to be too late", async || {
            own.system.number("SELECT count(*) FROM precondition_failures").await == 1
        })
        .await;
        let found = api.get_lead(key, &id).await;
        assert_eq!((found.header("etag"), found.json()), (Some("\"2\""), merged.json()));
    });
}

#[test]
fn an_update_that_waits_behind_a_dead_letter_is_accepted_but_not_applied() {
    run(async {
        let own = Own::start(System::new().await, &[]).await;
        let (api, key) = (&own.api, &own.key);
        let id = api.post_lead(key, FULL).await.lead_id();
        assert_eq!(api.get_lead(key, &id).await.status, 200);
        own.system.produce(Some(id.as_bytes()), Some(b"no event"), &[]).await;
        let answer = api.patch_lead(key, &id, r#"{"code":"B"}"#).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
        assert_eq!(answer.json()["data"]["code"], "B", "the lead as it will be");
        assert_eq!(api.get_lead(key, &id).await.json()["data"]["code"], "A");
    });
}
