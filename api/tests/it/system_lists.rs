//! What operators are listed: dead letters with their causes, and keys without their secrets.

use leads_shared::{Change, Changes, Event, Payload, Timestamp};
use leads_testkit::{Api, DEADLINE, Key, KeySpec, System, eventually, tokio_postgres};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::shared::{Own, known_key, run, unlimited};
use crate::system::{DEAD_LETTERS, KEYS, data, eventually_status, operator};

/// All pages together.
async fn pages(api: &Api, key: &Key, path: &str, limit: usize) -> Vec<Value> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let separator = if path.contains('?') { '&' } else { '?' };
        let page = api.get(key, &format!("{path}{separator}limit={limit}{cursor}")).await;
        let entries = data(&page).as_array().expect("a list").clone();
        assert!(entries.len() <= limit);
        all.extend(entries);
        match page.json()["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

#[test]
fn a_dead_letter_is_told_with_its_cause_and_history_and_never_its_contents() {
    run(async {
        let system = System::builder().partitions(1).build().await;
        let (lead_id, workspace) = (Uuid::new_v4(), Uuid::new_v4());
        let lead = lead_id.to_string();
        let source = format!("/workspaces/{workspace}");
        let headers: &[(&str, Option<&[u8]>)] = &[("ce_source", Some(source.as_bytes()))];
        let value = br#"{"code":"hush-hush"}"#;
        system.produce(Some(lead.as_bytes()), Some(value), headers).await;
        let changes = Changes { code: Change::Set("hush-hush".into()), ..Changes::default() };
        let behind = Event {
            event_id: Uuid::new_v4(),
            occurred_at: Timestamp::parse("2026-01-01T00:00:00Z").unwrap(),
            workspace_id: workspace,
            lead_id,
            payload: Payload::LeadUpdated { changes, expected_version: None },
        };
        system.produce_event(&behind).await;
        system.produce(Some(b"no uuid"), None, &[]).await;
        let own = Own::start(system, &[]).await;
        let key = known_key(&own.system, &own.api, operator()).await;
        let told = eventually_status(&own.api, &key, "three wait", |it| {
            it["dead_letters"]["waiting"] == 3
        });
        let told = told.await["dead_letters"].clone();
        assert_eq!((&told["parked"], &told["oldest_at"].is_string()), (&json!(1), &true), "{told}");
        let by_reason = told["by_reason"].as_array().unwrap().clone();
        let total: i64 = by_reason.iter().map(|it| it["count"].as_i64().unwrap()).sum();
        assert_eq!(total, 3, "{told}");

        let redriven = own.system.consumer_command(&["dlq", "redrive", "--all", "--yes"]).await;
        assert_eq!(redriven.status.code(), Some(1), "{redriven:?}");
        let answer = own.api.get(&key, DEAD_LETTERS).await;
        assert!(!answer.text().contains("hush"), "{}", answer.text());
        let listed = data(&answer).as_array().unwrap().clone();
        let offsets: Vec<_> = listed.iter().map(|it| it["offset"].as_i64().unwrap()).collect();
        assert_eq!(offsets, [2, 1, 0], "the newest first");
        let [tombstone, parked, bad] = listed.try_into().expect("three");
        assert_eq!((&bad["reason"], &bad["holds_lead"]), (&json!("undecodable"), &json!(true)));
        assert_eq!((&bad["lead_id"], &bad["workspace_id"]), (&json!(lead), &json!(workspace)));
        assert_eq!((&bad["parked"], &bad["redriven_at"]), (&json!(false), &json!(null)));
        assert_eq!(bad["size_bytes"], value.len());
        assert!(bad["error"].as_str().is_some_and(|error| error.len() > 10), "{bad}");
        assert!(bad["dead_at"].is_string() && bad["record_time"].is_string(), "{bad}");
        assert_eq!(
            (&bad["failed_redrives"], &bad["history"][0]["reason"]),
            (&json!(1), &json!("undecodable"))
        );
        assert!(Timestamp::parse(bad["history"][0]["at"].as_str().unwrap()).is_ok());
        assert_eq!((&parked["parked"], &parked["reason"]), (&json!(true), &json!("parked")));
        assert!(parked["error"].as_str().unwrap().contains("0:0"), "{parked}");
        let nobody = (&tombstone["lead_id"], &tombstone["workspace_id"], &tombstone["size_bytes"]);
        assert_eq!(nobody, (&json!(null), &json!(null), &json!(0)));
    });
}

/// The beginning of a statement; the numbers `(FIRST, LAST) AS i` follow.
fn insert_dead_letters(system: &System) -> String {
    // Three at a time in one transaction, as a batch sets them aside.
    format!(
        "INSERT INTO dead_letters (generation, topic, partition, \"offset\", reason, error,
             header_names, header_values, dead_at, holds_lead, redriven_at)
         SELECT 1, '{}', i % 2, i, 'undecodable', 'no event', '{{}}', '{{}}',
             now() - interval '1 day' + (i / 3) * interval '1 second', false,
             CASE WHEN i % 5 = 0 THEN now() END
         FROM generate_series",
        system.events_topic()
    )
}

#[test]
fn pages_of_dead_letters_neither_skip_nor_repeat() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(operator()).await;
        let api = system.start_api().await;
        api.wait_ready().await;
        let (db, insert) = (system.db().await, insert_dead_letters(&system));
        db.batch_execute(&format!("{insert} (1, 20) AS i")).await.unwrap();
        let place =
            |it: &Value| (it["partition"].as_i64().unwrap(), it["offset"].as_i64().unwrap());
        let waiting: Vec<_> =
            pages(&api, &key, DEAD_LETTERS, 100).await.iter().map(place).collect();
        assert_eq!(waiting.len(), 16);
        for limit in [1, 3, 16] {
            let found = pages(&api, &key, DEAD_LETTERS, limit).await;
            assert_eq!(found.iter().map(place).collect::<Vec<_>>(), waiting, "{limit} a page");
        }
        let all = pages(&api, &key, &format!("{DEAD_LETTERS}?state=all"), 7).await;
        assert_eq!(all.len(), 20);
        assert_eq!(all.iter().filter(|it| it["redriven_at"].is_string()).count(), 4);
        let times: Vec<_> = all.iter().map(|it| it["dead_at"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|a, b| a >= b), "the newest first: {times:?}");

        let first = api.get(&key, &format!("{DEAD_LETTERS}?limit=5")).await.json();
        assert_eq!(first["pagination"]["total"], 16);
        let cursor = first["pagination"]["next_cursor"].as_str().unwrap();
        db.batch_execute(&format!("{insert} (21, 30) AS i")).await.unwrap();
        let next = api.get(&key, &format!("{DEAD_LETTERS}?limit=5&cursor={cursor}")).await;
        let next: Vec<_> = data(&next).as_array().unwrap().iter().map(place).collect();
        assert_eq!(next, waiting[5..10], "newer ones do not shift the pages");
    });
}

#[test]
fn a_page_of_many_dead_letters_is_found_by_an_index() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(operator()).await;
        let api = system.start_api().await;
        api.wait_ready().await;
        let db = system.db().await;
        db.batch_execute(&format!("{} (1, 20000) AS i; ANALYZE", insert_dead_letters(&system)))
            .await
            .unwrap();
        let scans = "SELECT indexrelname::text, idx_scan FROM pg_stat_user_indexes
             WHERE relname = 'dead_letters' AND indexrelname LIKE 'dead_letters_newest%'
             ORDER BY 1";
        let before = db.query(scans, &[]).await.unwrap();
        let count = |row: &tokio_postgres::Row| row.get::<_, i64>(1);
        // PostgreSQL tells what it has done a moment later.
        eventually(DEADLINE, "both indexes are used", async || {
            for state in ["waiting", "all"] {
                data(&api.get(&key, &format!("{DEAD_LETTERS}?state={state}")).await);
            }
            let after = db.query(scans, &[]).await.unwrap();
            after.len() == 2 && after.iter().zip(&before).all(|(a, b)| count(a) > count(b))
        })
        .await;
    });
}

#[test]
fn keys_are_told_with_their_last_use_and_never_a_secret() {
    run(async {
        let system = System::new().await;
        let name = Some("ops \u{202e}ü".to_owned());
        let key = system.create_key(KeySpec { name, ..operator() }).await;
        let unused =
            system.create_key(KeySpec { kind: Some("dev".to_owned()), ..KeySpec::default() }).await;
        let gone = system.create_key(unlimited()).await;
        let api = system.start_api().await;
        api.wait_ready().await;
        assert!(system.keys(&["revoke", &gone.id]).await.status.success());
        let rotated = system.keys(&["rotate", &unused.id, "--json"]).await;
        let rotated = Key::from_json(serde_json::from_slice(&rotated.stdout).unwrap());
        let answer = eventually(DEADLINE, "the API has followed", async || {
            let answer = api.get(&key, KEYS).await;
            let listed = data(&answer);
            let done = listed[0]["revoked_at"].is_string() && listed[1]["rotated_at"].is_string();
            if done { Ok(answer) } else { Err(answer) }
        })
        .await;
        let text = answer.text();
        for hidden in [&key.secret, &unused.secret, &gone.secret, &rotated.secret] {
            assert!(!text.contains(&hidden[8..]), "{text}");
        }
        assert!(!text.contains("sha256"), "{text}");
        let listed = data(&answer);
        let ids: Vec<_> =
            listed.as_array().unwrap().iter().map(|it| it["id"].as_str().unwrap()).collect();
        assert_eq!(ids, [&gone.id, &unused.id, &key.id], "the newest first");
        assert_eq!(
            answer.json()["pagination"],
            json!({"limit": 100, "next_cursor": null, "total": 3})
        );
        let of_unused = &listed[1];
        assert_eq!(of_unused["workspace_id"], json!(unused.workspace));
        assert_eq!((&of_unused["kind"], &of_unused["rate_limit"]), (&json!("dev"), &json!(100)));
        assert_eq!(of_unused["last_used_at"], Value::Null);
        assert_eq!(listed[2]["name"], "ops \u{202e}ü");
        assert!(listed[2]["last_used_at"].is_string(), "known here before it is written down");
        assert_eq!(pages(&api, &key, KEYS, 2).await.len(), 3);
        assert_eq!(pages(&api, &key, KEYS, 1).await.len(), 3);

        // Used at another instance, which has written it down.
        let used = "INSERT INTO access_key_usage VALUES ($1, '2026-01-02T03:04:05Z')";
        system.db().await.execute(used, &[&unused.id]).await.unwrap();
        let listed = data(&api.get(&key, KEYS).await);
        assert_eq!(listed[1]["last_used_at"], "2026-01-02T03:04:05.000Z");
    });
}
