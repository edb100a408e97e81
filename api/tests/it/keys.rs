//! Keys: made, listed, rotated and revoked by the command, and obeyed by a running API.

use std::process::Output;
use std::time::{Duration, Instant};

use chrono::Utc;
use leads_shared::Timestamp;
use leads_testkit::{DEADLINE, Key, KeySpec, Response, System, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shared::{Own, assert_error, post_with, run, shared, unlimited};

/// "Holds within a second everywhere", and one more for a busy machine.
const SOON: Duration = Duration::from_secs(2);
const LEADS: &str = "/api/v1/leads";

#[track_caller]
fn printed(output: &Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("--json prints JSON")
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &str) {
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(says), "{output:?}");
}

#[test]
fn create_prints_the_key_once_and_list_never() {
    run(async {
        let system = &shared().await.system;
        let workspace = Uuid::new_v4().to_string();
        let args = ["create", "--json", "--workspace", &workspace, "--name", "Ünï <x>"];
        let created = printed(&system.keys(&args).await);
        let secret = created["key"].as_str().unwrap();
        let mut shape = created.clone();
        for name in ["id", "key", "workspace_id", "created_at"] {
            shape[name] = json!(format!("<{name}>"));
        }
        insta::assert_snapshot!(shape, @r#"{"id":"<id>","key":"<key>","workspace_id":"<workspace_id>","name":"Ünï <x>","kind":"prod","scopes":["leads:write","leads:read"],"rate_limit":1000,"created_at":"<created_at>"}"#);
        assert!(secret.starts_with("lk_prod_") && secret.len() > 50, "{secret}");

        for json in [&["--json"][..], &[]] {
            let all = [&["list"][..], json].concat();
            let of_one = [&["list", "--workspace", &workspace][..], json].concat();
            for args in [all, of_one] {
                let output = system.keys(&args).await;
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(
                    text.contains(created["id"].as_str().unwrap()) && text.contains("Ünï"),
                    "{text}"
                );
                assert!(!text.contains(&secret[8..]), "{text}");
            }
        }
        let listed = printed(&system.keys(&["list", "--workspace", &workspace, "--json"]).await);
        let names: Vec<_> = listed[0].as_object().unwrap().keys().collect();
        assert_eq!(listed.as_array().map(Vec::len), Some(1));
        assert!(!names.iter().any(|name| ["key", "sha256"].contains(&name.as_str())), "{names:?}");
    });
}

#[test]
fn kinds_decide_prefix_and_default_limit() {
    run(async {
        let shared = shared().await;
        for (kind, prefix, limit) in [("prod", "lk_prod_", "1000"), ("dev", "lk_dev_", "100")] {
            let kind = Some(kind.to_owned());
            let key = shared.key_like(KeySpec { kind, ..KeySpec::default() }).await;
            assert!(key.secret.starts_with(prefix), "{}", key.secret);
            let answer = shared.api.get(&key, LEADS).await;
            assert_eq!(answer.header("x-ratelimit-limit"), Some(limit));
        }
    });
}

#[test]
fn wrong_usage_is_exit_code_2_and_a_key_that_is_not_there_1() {
    run(async {
        let system = &shared().await.system;
        let workspace = Uuid::new_v4().to_string();
        let id = Uuid::new_v4().to_string();
        for (args, code, says) in [
            (&["create"][..], 2, "--workspace"),
            (&["create", "--workspace", "nonsense"], 2, "nonsense"),
            (&["create", "--workspace", &workspace, "--scopes", "leads:admin"], 2, "leads:admin"),
            (&["create", "--workspace", &workspace, "--scopes", ""], 2, "scope"),
            (&["create", "--workspace", &workspace, "--kind", "test"], 2, "test"),
            (&["create", "--workspace", &workspace, "--rate-limit", "-1"], 2, "-1"),
            (&["create", "--workspace", &workspace, "--name", "a\nb"], 2, "--name"),
            (&["revoke"], 2, "<ID>"),
            (&["revoke", "nonsense"], 2, "nonsense"),
            (&["revoke", &id], 1, &id),
            (&["rotate", &id], 1, &id),
        ] {
            assert_fails(&system.keys(args).await, code, says);
        }
        let away = [("KAFKA_BROKERS", "127.0.0.1:1")];
        let args = ["keys", "create", "--workspace", &workspace];
        assert_fails(&system.run("leads-api", &args, &away).await, 1, "KAFKA_BROKERS");
    });
}

#[test]
fn a_revocation_holds_within_a_second() {
    run(async {
        let shared = shared().await;
        let (key, other) = tokio::join!(shared.key(), shared.key());
        let revoked = printed(&shared.system.keys(&["revoke", &key.id, "--json"]).await);
        let done = Instant::now();
        assert_eq!(revoked["id"], key.id);
        eventually(SOON, "the key is refused", async || {
            shared.api.get(&key, LEADS).await.status == 401
        })
        .await;
        assert!(done.elapsed() < SOON);
        assert_error(&shared.api.post_lead(&key, "{}").await, 401, "invalid_api_key");
        assert_eq!(shared.api.get(&other, LEADS).await.status, 200);
        for verb in ["revoke", "rotate"] {
            assert_fails(&shared.system.keys(&[verb, &key.id]).await, 1, "revoked");
        }
        let workspace = key.workspace.to_string();
        let listed =
            printed(&shared.system.keys(&["list", "--workspace", &workspace, "--json"]).await);
        assert_eq!(listed[0]["revoked_at"], revoked["revoked_at"]);
    });
}

#[test]
fn a_rotation_ends_the_old_key_and_keeps_the_rest() {
    run(async {
        let shared = shared().await;
        let spec = KeySpec { name: Some("rotated".to_owned()), ..unlimited() };
        let old = shared.key_like(spec).await;
        let lead = shared.api.post_lead(&old, "{}").await.lead_id();
        let new =
            Key::from_json(printed(&shared.system.keys(&["rotate", &old.id, "--json"]).await));
        assert_ne!(new.secret, old.secret);
        let mut expected = old.json.clone();
        expected["key"] = json!(new.secret);
        assert_eq!(new.json, expected, "the same in all else, in the same shape");
        eventually(SOON, "the old text ends and the new one opens", async || {
            let (of_old, of_new) =
                tokio::join!(shared.api.get(&old, LEADS), shared.api.get(&new, LEADS));
            (of_old.status, of_new.status) == (401, 200)
        })
        .await;
        assert_eq!(shared.api.get_lead(&new, &lead).await.status, 200);
    });
}

#[test]
fn a_scope_that_is_not_there_is_named() {
    run(async {
        let shared = shared().await;
        let scoped = |scopes: &str| KeySpec { scopes: Some(scopes.to_owned()), ..unlimited() };
        let (writer, reader) = tokio::join!(
            shared.key_like(scoped("leads:write")),
            shared.key_like(scoped("leads:read"))
        );
        let api = &shared.api;
        let needs = |answer: &Response, scope: &str| {
            let body = assert_error(answer, 403, "insufficient_scope");
            assert!(body["message"].as_str().unwrap().contains(scope), "{body}");
            assert_eq!(body["details"]["required_scope"], scope);
        };
        let lead = api.post_lead(&writer, "{}").await;
        assert_eq!(lead.status, 201);
        let id = lead.lead_id();
        needs(&api.post_lead(&reader, "{}").await, "leads:write");
        needs(&api.get(&writer, LEADS).await, "leads:read");
        needs(&api.get_lead(&writer, &id).await, "leads:read");
        // PATCH answers with the lead: it needs both.
        needs(&api.patch_lead(&writer, &id, r#"{"code":"x"}"#).await, "leads:read");
        needs(&api.patch_lead(&reader, &id, r#"{"code":"x"}"#).await, "leads:write");
        assert_eq!(api.get(&reader, LEADS).await.status, 200);
        assert!(
            api.get(&writer, LEADS).await.header("x-workspace-id").is_some(),
            "the key is known"
        );
    });
}

/// Whatever passes the key check counts; a scope that is not there is told first.
#[test]
fn a_403_counts_and_tells_what_is_left() {
    run(async {
        let shared = shared().await;
        let spec = KeySpec {
            scopes: Some("leads:read".to_owned()),
            rate_limit: Some(4),
            ..KeySpec::default()
        };
        let key = shared.key_like(spec).await;
        let number = |answer: &Response, name: &str| -> i64 {
            answer.header(name).unwrap_or_else(|| panic!("{name}: {answer:?}")).parse().unwrap()
        };
        // All in one minute of the clock; a run that meets its end starts again.
        let answers = eventually(DEADLINE, "five answers within one minute", async || {
            let mut answers = Vec::new();
            for _ in 0..5 {
                answers.push(shared.api.post_lead(&key, "{}").await);
            }
            let reset = number(&answers[0], "x-ratelimit-reset");
            let same = answers.iter().all(|it| number(it, "x-ratelimit-reset") == reset);
            same.then_some(answers)
        })
        .await;
        for pair in answers.windows(2) {
            assert_error(&pair[1], 403, "insufficient_scope");
            let left = number(&pair[0], "x-ratelimit-remaining");
            assert_eq!(number(&pair[1], "x-ratelimit-remaining"), (left - 1).max(0));
        }
    });
}

#[test]
fn above_the_limit_it_is_429_until_the_minute_ends() {
    run(async {
        let shared = shared().await;
        let key = shared.key_like(KeySpec { rate_limit: Some(3), ..KeySpec::default() }).await;
        let number = |answer: &Response, name: &str| -> i64 {
            answer.header(name).unwrap_or_else(|| panic!("{name}: {answer:?}")).parse().unwrap()
        };
        // All in one minute of the clock; a run that meets its end starts again.
        let answers = eventually(DEADLINE, "six answers within one minute", async || {
            let mut answers = Vec::new();
            for _ in 0..6 {
                answers.push(post_with(&shared.api, &key, "{}", &[]).await);
            }
            let reset = |answer: &Response| number(answer, "x-ratelimit-reset");
            let same = reset(&answers[0]) == reset(&answers[5]);
            same.then_some(answers)
        })
        .await;
        let mut remaining = number(&answers[0], "x-ratelimit-remaining");
        assert!(remaining <= 2, "of three");
        let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|a| a.status == 201);
        assert!(refused.len() >= 3, "at most three are taken");
        for answer in taken.into_iter().skip(1) {
            remaining -= 1;
            assert_eq!(number(answer, "x-ratelimit-remaining"), remaining);
        }
        for answer in refused {
            let body = assert_error(answer, 429, "rate_limit_exceeded");
            assert_eq!(number(answer, "x-ratelimit-limit"), 3);
            assert_eq!(number(answer, "x-ratelimit-remaining"), 0);
            let wait = number(answer, "retry-after");
            assert_eq!(body["retry_after"], wait);
            assert!((1..=60).contains(&wait), "{wait}");
            let reset = number(answer, "x-ratelimit-reset");
            assert_eq!(reset % 60, 0, "the end of a minute of the clock");
        }
    });
}

#[test]
fn no_limit_has_no_limit_headers() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let answer = shared.api.get(&key, LEADS).await;
        assert_eq!(answer.status, 200);
        assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")));
    });
}

#[test]
fn the_last_use_is_listed_at_the_latest_when_the_api_has_ended() {
    run(async {
        let own = Own::start(System::new().await, &[("SHUTDOWN_GRACE", "1ms")]).await;
        let unused = own.system.create_key(unlimited()).await;
        let before = Timestamp::from(Utc::now());
        assert_eq!(own.api.post_lead(&own.key, "{}").await.status, 201);
        own.api.terminate().await;
        let after = Timestamp::from(Utc::now());
        let listed = printed(&own.system.keys(&["list", "--json"]).await);
        let last_use = |key: &Key| {
            let keys = listed.as_array().expect("a list");
            let found = keys.iter().find(|listed| listed["id"] == key.id).expect("the key");
            found["last_used_at"].as_str().map(|text| Timestamp::parse(text).expect("a time"))
        };
        let used = last_use(&own.key).expect("it was used");
        assert!(before <= used && used <= after, "{used}");
        assert_eq!(last_use(&unused), None);
        // The list needs Kafka alone: without PostgreSQL it does without the times.
        let away = [("DATABASE_URL", "postgres://nobody@127.0.0.1:1/x?sslmode=disable")];
        let listed = own.system.run("leads-api", &["keys", "list", "--json"], &away).await;
        assert_eq!(printed(&listed).as_array().map(Vec::len), Some(2));
    });
}
