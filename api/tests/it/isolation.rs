//! A workspace sees its own leads and nothing of any other.

use uuid::Uuid;

use crate::shared::{assert_error, run, shared};

#[test]
fn another_workspaces_lead_is_not_there() {
    run(async {
        let shared = shared().await;
        let (mine, other) = tokio::join!(shared.key(), shared.key());
        let lead = shared.api.post_lead(&mine, r#"{"code":"mine"}"#).await;
        let id = lead.lead_id();
        assert_eq!(shared.api.get_lead(&mine, &id).await.status, 200);

        assert_error(&shared.api.get_lead(&other, &id).await, 404, "lead_not_found");
        let patched = shared.api.patch_lead(&other, &id, r#"{"code":"stolen"}"#).await;
        assert_error(&patched, 404, "lead_not_found");
        let missing = shared.api.get_lead(&other, &Uuid::new_v4().to_string()).await.json();
        assert_eq!(shared.api.get_lead(&other, &id).await.json(), missing, "told apart by nothing");
        for query in ["", "?code=mine", "?limit=1&offset=0"] {
            let list = shared.api.get(&other, &format!("/api/v1/leads{query}")).await.json();
            assert_eq!(list["data"].as_array().map(Vec::len), Some(0));
            assert_eq!(list["pagination"]["total"], 0);
        }
        assert_eq!(shared.api.get_lead(&mine, &id).await.json(), lead.json(), "untouched");
    });
}

#[test]
fn another_workspaces_cursor_opens_nothing() {
    run(async {
        let shared = shared().await;
        let (mine, other) = tokio::join!(shared.key(), shared.key());
        for _ in 0..2 {
            let id = shared.api.post_lead(&mine, "{}").await.lead_id();
            shared.api.get_lead(&mine, &id).await;
        }
        let page = shared.api.get(&mine, "/api/v1/leads?limit=1").await.json();
        let cursor = page["pagination"]["next_cursor"].as_str().expect("a second page");
        let path = format!("/api/v1/leads?cursor={cursor}");
        assert_eq!(shared.api.get(&mine, &path).await.json()["data"].as_array().unwrap().len(), 1);
        assert_eq!(shared.api.get(&other, &path).await.json()["data"].as_array().unwrap().len(), 0);
    });
}

#[test]
fn one_idempotency_key_in_two_workspaces_makes_two_leads() {
    run(async {
        let shared = shared().await;
        let (mine, other) = tokio::join!(shared.key(), shared.key());
        let first = shared.api.post_lead_once(&mine, "same", r#"{"code":"1"}"#).await;
        let second = shared.api.post_lead_once(&other, "same", r#"{"code":"2"}"#).await;
        assert_eq!((first.status, second.status), (201, 201));
        assert_ne!(first.lead_id(), second.lead_id());
        for (key, lead) in [(&mine, &first), (&other, &second)] {
            assert_eq!(shared.api.get_lead(key, &lead.lead_id()).await.json(), lead.json());
        }
    });
}
