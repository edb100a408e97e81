//! Lists: newest first, two ways through the pages, exact totals.

use leads_shared::{Event, Lead, Payload, Timestamp};
use leads_testkit::{Api, DEADLINE, Key, System, eventually};
use serde_json::Value;
use uuid::Uuid;

use crate::shared::{assert_error, assert_field_errors, run, shared};

/// 2026-01-01T00:00:00Z
const START: i64 = 1_767_225_600_000;

/// Puts a lead into the log past the API, so that the test decides when it was created.
async fn seed(system: &System, workspace_id: Uuid, i: i64, millis: i64) -> (i64, String) {
    let id = Uuid::new_v4();
    let at = Timestamp::from_unix_millis(millis).expect("a time");
    let lead = Lead {
        id,
        workspace_id,
        visitor_id: (i % 3 == 0).then_some(Uuid::from_u128(7)),
        code: Some(format!("code-{}", i % 5).into()),
        source: Some(["web", "Köln & Co"][usize::from(i % 2 == 0)].to_owned().into()),
        created_at: at,
        updated_at: at,
        properties: None,
        location: None,
        identity_id: None,
        session_id: None,
        summary: None,
        company_id: None,
    };
    let event = Event {
        event_id: Uuid::new_v4(),
        occurred_at: at,
        workspace_id,
        lead_id: id,
        payload: Payload::LeadCreated { lead },
    };
    system.produce_event(&event).await;
    (millis, id.to_string())
}

/// 25 leads, three to a second, so that ties occur; `(created_at, id)`, newest first.
async fn seeded(system: &System, api: &Api, key: &Key) -> Vec<(i64, String)> {
    let leads = (0..25).map(|i| seed(system, key.workspace, i, START + i / 3 * 1000));
    let mut leads = futures_util::future::join_all(leads).await;
    leads.sort();
    leads.reverse();
    eventually(DEADLINE, "all are projected", async || {
        api.get(key, "/api/v1/leads?limit=1").await.json()["pagination"]["total"] == 25
    })
    .await;
    leads
}

fn ids(page: &Value) -> Vec<String> {
    let leads = page["data"].as_array().unwrap_or_else(|| panic!("{page}"));
    leads.iter().map(|lead| lead["id"].as_str().expect("an id").to_owned()).collect()
}

async fn page(api: &Api, key: &Key, query: &str) -> Value {
    let answer = api.get(key, &format!("/api/v1/leads?{query}")).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.text());
    answer.json()
}

#[test]
fn an_empty_list_has_the_shape_of_a_full_one() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let answer = shared.api.get(&key, "/api/v1/leads").await;
        insta::assert_snapshot!(answer.text(), @r#"{"data":[],"pagination":{"limit":50,"offset":0,"total":0,"next_cursor":null}}"#);
    });
}

#[test]
fn a_listed_lead_is_the_lead() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let posted = shared.api.post_lead(&key, r#"{"code":"x","properties":{"a":[1]}}"#).await;
        let found = shared.api.get_lead(&key, &posted.lead_id()).await.text();
        let list = shared.api.get(&key, "/api/v1/leads").await.text();
        let lead = found.strip_prefix(r#"{"data":"#).and_then(|t| t.strip_suffix('}')).unwrap();
        assert_eq!(
            list,
            format!(
                r#"{{"data":[{lead}],"pagination":{{"limit":50,"offset":0,"total":1,"next_cursor":null}}}}"#
            )
        );
    });
}

#[test]
fn both_ways_through_the_pages_give_the_whole() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let leads = seeded(&shared.system, &shared.api, &key).await;
        let expected: Vec<_> = leads.iter().map(|(_, id)| id.clone()).collect();

        let whole = page(&shared.api, &key, "limit=100").await;
        assert_eq!(ids(&whole), expected, "newest first, ties by id descending");
        assert_eq!(whole["pagination"]["next_cursor"], Value::Null);

        for limit in [1, 7, 25] {
            let mut by_offset = Vec::new();
            while by_offset.len() < 25 {
                let query = format!("limit={limit}&offset={}", by_offset.len());
                let page = page(&shared.api, &key, &query).await;
                assert_eq!(page["pagination"]["offset"], by_offset.len());
                assert_eq!(page["pagination"]["total"], 25);
                by_offset.extend(ids(&page));
                let last = by_offset.len() == 25;
                assert_eq!(page["pagination"]["next_cursor"].is_null(), last, "{query}");
            }
            assert_eq!(by_offset, expected);

            let mut by_cursor = Vec::new();
            let mut query = format!("limit={limit}");
            loop {
                let page = page(&shared.api, &key, &query).await;
                if query.contains("cursor") {
                    assert_eq!(page["pagination"]["offset"], Value::Null);
                }
                assert_eq!(page["pagination"]["total"], 25);
                assert_eq!(page["pagination"]["limit"], limit);
                by_cursor.extend(ids(&page));
                let Some(next) = page["pagination"]["next_cursor"].as_str() else { break };
                query = format!("limit={limit}&cursor={next}");
            }
            assert_eq!(by_cursor, expected);
        }
        let beyond = page(&shared.api, &key, "offset=25").await;
        assert_eq!((ids(&beyond).len(), &beyond["pagination"]["total"]), (0, &25.into()));
    });
}

#[test]
fn a_cursor_neither_skips_nor_repeats_under_inserts() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let leads = seeded(&shared.system, &shared.api, &key).await;
        let expected: Vec<_> = leads.iter().map(|(_, id)| id.clone()).collect();
        let mut found = Vec::new();
        let mut query = "limit=4".to_owned();
        let mut total = 25;
        loop {
            let page = page(&shared.api, &key, &query).await;
            found.extend(ids(&page));
            let Some(next) = page["pagination"]["next_cursor"].as_str() else { break };
            query = format!("limit=4&cursor={next}");
            // Newer than all, and a twin in time of the first on this page: both are behind us.
            let first = ids(&page).remove(0);
            let at = leads.iter().find(|(_, id)| *id == first).expect("one of the seeded").0;
            for millis in [START + 3_600_000, at + 1] {
                seed(&shared.system, key.workspace, 0, millis).await;
                total += 1;
            }
            eventually(DEADLINE, "they are projected", async || {
                let page = super::list::page(&shared.api, &key, "limit=1").await;
                page["pagination"]["total"] == total
            })
            .await;
        }
        assert_eq!(found, expected);
    });
}

#[test]
fn each_filter_finds_what_it_says_and_counts_it() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let leads = seeded(&shared.system, &shared.api, &key).await;
        let visitor = format!("visitor_id={}", Uuid::from_u128(7)).to_uppercase().to_lowercase();
        for (query, total) in [
            ("source=web", 12),
            ("source=K%C3%B6ln+%26%20Co", 13),
            ("source=WEB", 0),
            ("code=code-4", 5),
            (visitor.as_str(), 9),
            ("code=code-0&source=web", 2),
            // The seconds are 0 to 8; both bounds are exclusive.
            ("created_after=2026-01-01T00:00:05Z", 7),
            ("created_after=2026-01-01T00:00:04.999Z", 10),
            ("created_before=2026-01-01T00:00:01.000Z", 3),
            ("created_before=2026-01-01T02:00:01%2B02:00", 3),
            // Finer digits than leads have.
            ("created_before=2026-01-01T00:00:01.0009Z", 6),
            ("created_after=2026-01-01T00:00:01.0009Z", 19),
            ("created_after=2026-01-01T00:00:01Z&created_before=2026-01-01T00:00:03Z", 3),
            ("created_after=2027-01-01T00:00:00Z", 0),
        ] {
            let whole = page(&shared.api, &key, &format!("{query}&limit=100")).await;
            assert_eq!(whole["pagination"]["total"], total, "{query}");
            assert_eq!(ids(&whole).len(), total, "{query}");
            let order: Vec<_> = leads.iter().map(|(_, id)| id.clone()).collect();
            let kept = ids(&whole);
            let expected: Vec<_> = order.into_iter().filter(|id| kept.contains(id)).collect();
            assert_eq!(kept, expected, "{query}: in order");

            // The same through a cursor: the total stays that of the filter.
            let mut walked = Vec::new();
            let mut next = format!("{query}&limit=2");
            loop {
                let page = page(&shared.api, &key, &next).await;
                assert_eq!(page["pagination"]["total"], total);
                walked.extend(ids(&page));
                let Some(cursor) = page["pagination"]["next_cursor"].as_str() else { break };
                next = format!("{query}&limit=2&cursor={cursor}");
            }
            assert_eq!(walked, kept, "{query}");
        }
        let upper = format!("visitor_id={}", Uuid::from_u128(7).to_string().to_uppercase());
        assert_eq!(page(&shared.api, &key, &upper).await["pagination"]["total"], 9);
    });
}

#[test]
fn totals_follow_a_lead_to_another_value() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let leads = seeded(&shared.system, &shared.api, &key).await;
        let total = async |query: &str| {
            page(&shared.api, &key, query).await["pagination"]["total"].as_i64().unwrap()
        };
        assert_eq!((total("source=web").await, total("code=code-0").await), (12, 5));
        let before = page(&shared.api, &key, "source=web&code=code-0&limit=1").await;
        let id = ids(&before).remove(0);
        assert!(leads.iter().any(|(_, seeded)| *seeded == id));
        for (change, expected) in [
            (r#"{"source":"moved"}"#, [11, 1, 5]),
            (r#"{"source":"moved","code":null}"#, [11, 1, 4]),
            (r#"{"source":"web","code":"code-0"}"#, [12, 0, 5]),
        ] {
            let answer = shared.api.patch_lead(&key, &id, change).await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            let found = [
                total("source=web").await,
                total("source=moved").await,
                total("code=code-0").await,
            ];
            assert_eq!(found, expected, "{change}");
        }
    });
}

#[test]
fn all_bad_parameters_are_named_at_once() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let query = "limit=0&offset=-1&cursor=x&source=&code=%00&visitor_id=1&created_after=2026-01-01\
             &created_before=2026-01-01T00:00:00+02:00&limit=2&nope=1";
        let answer = shared.api.get(&key, &format!("/api/v1/leads?{query}")).await;
        assert_field_errors(
            &answer,
            &[
                ("source", "too_short"),
                ("limit", "duplicate_field"),
                ("nope", "unknown_field"),
                ("offset", "mutually_exclusive"),
                ("limit", "out_of_range"),
                ("offset", "out_of_range"),
                ("cursor", "invalid_cursor"),
                ("code", "control_character"),
                ("visitor_id", "invalid_uuid"),
                ("created_after", "invalid_time"),
                ("created_before", "invalid_time"),
            ],
        );
        for (query, field, code) in [
            ("limit=101", "limit", "out_of_range"),
            ("limit=1e1", "limit", "out_of_range"),
            ("limit=%2B1", "limit", "out_of_range"),
            ("limit=99999999999999999999", "limit", "out_of_range"),
            ("offset=x", "offset", "out_of_range"),
            ("limit", "limit", "too_short"),
            ("cursor=AAAA", "cursor", "invalid_cursor"),
            ("cursor=%F0%9F%98%80", "cursor", "invalid_cursor"),
            ("created_after=yesterday", "created_after", "invalid_time"),
            ("Limit=1", "Limit", "unknown_field"),
        ] {
            let answer = shared.api.get(&key, &format!("/api/v1/leads?{query}")).await;
            assert_field_errors(&answer, &[(field, code)]);
        }
    });
}

/// Numbers at the edge are answered, not refused by PostgreSQL.
#[test]
fn extreme_values_that_are_valid_are_answered() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let cursor_of_all_ones = "_".repeat(32);
        for query in [
            "offset=9223372036854775807",
            "created_after=0000-01-01T00:00:00Z",
            "created_before=9999-12-31T23:59:59.999Z",
            "source=%F0%9F%98%80",
            "code=%27%3B%20DROP%20TABLE%20leads%3B--",
        ] {
            page(&shared.api, &key, query).await;
        }
        let answer =
            shared.api.get(&key, &format!("/api/v1/leads?cursor={cursor_of_all_ones}")).await;
        if answer.status != 200 {
            assert_error(&answer, 400, "validation_failed");
        }
    });
}
