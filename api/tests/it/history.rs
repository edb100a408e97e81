//! The history of one lead, out of the log.

use leads_shared::{Change, Changes, Event, Lead, Payload, Timestamp};
use leads_testkit::{Api, DEADLINE, Key, System, eventually};
use serde_json::Value;
use uuid::Uuid;

use crate::shared::{assert_error, assert_field_errors, run, shared};

/// All pages together; each page's events.
async fn pages(api: &Api, key: &Key, id: &str, limit: usize) -> Vec<Vec<Value>> {
    let mut pages = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/api/v1/leads/{id}/events?limit={limit}{cursor}");
        let answer = api.get(key, &path).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        assert_eq!(json["pagination"]["limit"], limit);
        pages.push(json["data"].as_array().expect("data").clone());
        match json["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return pages,
        }
    }
}

async fn projected(system: &System, id: Uuid, version: i64) {
    let sql = format!("SELECT count(*) FROM leads WHERE id = '{id}' AND version = {version}");
    eventually(DEADLINE, "it is projected", async || system.number(&sql).await == 1).await;
}

fn summary(events: &[Value]) -> Vec<(String, bool, u64)> {
    let text = |event: &Value| event["type"].as_str().expect("type").to_owned();
    events
        .iter()
        .map(|it| {
            let effective = it["effective"].as_bool().expect("effective");
            (text(it), effective, it["version"].as_u64().expect("version"))
        })
        .collect()
}

#[test]
fn a_history_tells_what_changed_the_lead_page_by_page() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let posted = api.post_lead_once(&key, "once", r#"{"properties":{"a":1e2}}"#).await;
        let id = posted.lead_id();
        assert_eq!(
            summary(&pages(api, &key, &id, 50).await.concat()),
            [("LeadCreated".into(), true, 1)]
        );
        let patch = async |body: &str| api.patch_lead(&key, &id, body).await;
        patch(r#"{"code":"a"}"#).await;
        let expecting = |version: &str| {
            let lead = format!("/api/v1/leads/{id}");
            api.json(leads_testkit::Method::PATCH, &lead, &key, r#"{"code":"b"}"#)
                .header("if-match", format!("\"{version}\""))
        };
        assert_eq!(api.send(expecting("9")).await.status, 412);
        assert_eq!(api.send(expecting("2")).await.status, 200);
        patch(r#"{"summary":{"x":1}}"#).await;
        let all = pages(api, &key, &id, 50).await.concat();
        let expected: Vec<(String, bool, u64)> = [
            ("LeadCreated", true, 1),
            ("LeadUpdated", true, 2),
            ("LeadUpdated", false, 2),
            ("LeadUpdated", true, 3),
            ("LeadUpdated", true, 4),
        ]
        .map(|(name, effective, version)| (name.to_owned(), effective, version))
        .into();
        assert_eq!(summary(&all), expected);
        assert_eq!(all[0]["position"].as_str(), posted.header("x-lead-position"));
        assert_eq!(all[4]["event"]["changes"]["summary"]["x"], 1);
        for event in &all {
            for (outer, inner) in
                [("event_id", "event_id"), ("type", "type"), ("time", "occurred_at")]
            {
                assert_eq!(event[outer], event["event"][inner]);
            }
        }
        for limit in [1, 2, 3] {
            let small = pages(api, &key, &id, limit).await;
            assert!(small.iter().all(|page| page.len() <= limit));
            assert_eq!(small.concat(), all);
        }
        let raw = api.get(&key, &format!("/api/v1/leads/{id}/events")).await;
        assert!(raw.text().contains(r#""properties":{"a":1e2}"#), "as it stands in the log");
    });
}

/// Two events a day apart in the log's order are found without what lies between; one whose time is
/// not that of its record is found by looking through everything.
#[test]
fn an_event_is_found_wherever_it_stands() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        for time in ["2026-01-01T00:00:00Z", "2999-01-01T00:00:00Z"] {
            let time = Timestamp::parse(time).unwrap();
            let id = Uuid::new_v4();
            let event = |payload| Event {
                event_id: Uuid::new_v4(),
                occurred_at: time,
                workspace_id: key.workspace,
                lead_id: id,
                payload,
            };
            let lead = Lead {
                id,
                visitor_id: None,
                workspace_id: key.workspace,
                code: None,
                source: None,
                created_at: time,
                updated_at: time,
                properties: None,
                location: None,
                identity_id: None,
                session_id: None,
                summary: None,
                company_id: None,
            };
            let created = event(Payload::LeadCreated { lead });
            shared.system.produce_event(&created).await;
            shared.system.produce_event(&created).await;
            let changes = Changes { code: Change::Set("x".into()), ..Changes::default() };
            let update = event(Payload::LeadUpdated { changes, expected_version: None });
            shared.system.produce_event(&update).await;
            projected(&shared.system, id, 2).await;
            let found = pages(api, &key, &id.to_string(), 50).await.concat();
            let effective: Vec<_> = summary(&found).into_iter().filter(|it| it.1).collect();
            assert_eq!(effective.len(), 2, "{found:?}");
            assert_eq!(found.last().unwrap()["event_id"], update.event_id.to_string());
        }
    });
}

#[test]
fn a_history_is_the_workspaces_own() {
    run(async {
        let shared = shared().await;
        let (api, key, other) = (&shared.api, shared.key().await, shared.key().await);
        let (id, second) =
            (api.post_lead(&key, "{}").await.lead_id(), api.post_lead(&key, "{}").await.lead_id());
        for lead in [&id, &second] {
            assert_eq!(api.patch_lead(&key, lead, r#"{"code":"x"}"#).await.status, 200);
        }
        let path = |id: &str, query: &str| format!("/api/v1/leads/{id}/events{query}");
        assert_error(&api.get(&other, &path(&id, "")).await, 404, "lead_not_found");
        assert_error(&api.get(&key, &path("x", "")).await, 404, "lead_not_found");
        let page = api.get(&key, &path(&id, "?limit=1")).await.json();
        let cursor = page["pagination"]["next_cursor"].as_str().expect("a next page").to_owned();
        let wrong = api.get(&key, &path(&second, &format!("?cursor={cursor}&limit=0&x=1"))).await;
        assert_field_errors(
            &wrong,
            &[("x", "unknown_field"), ("limit", "out_of_range"), ("cursor", "invalid_cursor")],
        );
    });
}
