//! How the whole system stands, as its operators see it: `GET /api/v1/system/…`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use leads_shared::Timestamp;
use leads_testkit::{Api, DEADLINE, Key, KeySpec, Response, System, eventually};
use serde_json::{Value, json};

use crate::shared::{
    Own, assert_error, assert_field_errors, call, known_key, run, shared, unlimited,
};

const STATUS: &str = "/api/v1/system/status";
pub(crate) const DEAD_LETTERS: &str = "/api/v1/system/dead-letters";
pub(crate) const KEYS: &str = "/api/v1/system/keys";
const WHOAMI: &str = "/api/v1/system/whoami";
const ALL: [&str; 4] = [STATUS, DEAD_LETTERS, KEYS, WHOAMI];

/// A key that may see everything, without a rate limit.
pub(crate) fn operator() -> KeySpec {
    KeySpec { scopes: Some("leads:write,leads:read,system:read".to_owned()), ..unlimited() }
}

/// `data` of an answer that is 200.
#[track_caller]
pub(crate) fn data(answer: &Response) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].clone()
}

pub(crate) async fn status(api: &Api, key: &Key) -> Value {
    data(&api.get(key, STATUS).await)
}

/// Asks until what the status says holds.
pub(crate) async fn eventually_status(
    api: &Api,
    key: &Key,
    what: &str,
    holds: impl Fn(&Value) -> bool,
) -> Value {
    eventually(DEADLINE, what, async || {
        let status = status(api, key).await;
        if holds(&status) { Ok(status) } else { Err(status) }
    })
    .await
}

#[test]
fn they_need_a_scope_of_their_own_and_whoami_needs_none() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let watcher = KeySpec { scopes: Some("system:read".to_owned()), ..unlimited() };
        let watcher = shared.key_like(watcher).await;
        for path in ALL {
            assert_error(&api.get_open(path).await, 401, "missing_api_key");
            assert_eq!(api.get(&watcher, path).await.status, 200, "{path}");
        }
        for path in [STATUS, DEAD_LETTERS, KEYS] {
            let refused = assert_error(&api.get(&key, path).await, 403, "insufficient_scope");
            assert_eq!(refused["details"]["required_scope"], "system:read");
        }
        let refused =
            assert_error(&api.get(&watcher, "/api/v1/leads").await, 403, "insufficient_scope");
        assert_eq!(refused["details"]["required_scope"], "leads:read");
        assert_error(&api.post_lead(&watcher, "{}").await, 403, "insufficient_scope");

        let told = data(&api.get(&watcher, WHOAMI).await);
        assert_eq!(
            told,
            json!({"key_id": watcher.id, "name": null, "kind": "prod",
                "workspace_id": watcher.workspace, "scopes": ["system:read"], "rate_limit": 0})
        );
        assert_eq!(
            data(&api.get(&key, WHOAMI).await)["scopes"],
            json!(["leads:write", "leads:read"])
        );
    });
}

#[test]
fn they_are_routes_like_all_others() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key_like(operator()).await);
        let secret = ("x-api-key", key.secret.as_str());
        for path in ALL {
            let head = call(api, "HEAD", path, &[secret]).await;
            assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
            let wrong = call(api, "POST", path, &[secret]).await;
            assert_error(&wrong, 405, "method_not_allowed");
            assert_eq!(wrong.header("allow"), Some("GET, HEAD"), "{path}");
            let html = call(api, "GET", path, &[secret, ("accept", "text/html")]).await;
            assert_error(&html, 406, "not_acceptable");
        }
        let query = "?limit=0&cursor=x&state=dead&nope=1";
        assert_field_errors(
            &api.get(&key, &format!("{DEAD_LETTERS}{query}")).await,
            &[
                ("nope", "unknown_field"),
                ("limit", "out_of_range"),
                ("cursor", "invalid_cursor"),
                ("state", "out_of_range"),
            ],
        );
        assert_field_errors(
            &api.get(&key, &format!("{KEYS}?limit=101&cursor=AAAA&state=all")).await,
            &[("state", "unknown_field"), ("limit", "out_of_range"), ("cursor", "invalid_cursor")],
        );
        let limited = KeySpec { rate_limit: Some(2), ..operator() };
        let limited = shared.key_like(limited).await;
        let codes = [STATUS, WHOAMI, KEYS].map(|path| api.get(&limited, path));
        let codes: Vec<_> = join_all(codes).await.iter().map(|it| it.status).collect();
        assert!(codes.contains(&429), "they count as all others do: {codes:?}");
    });
}

#[test]
fn the_status_tells_what_came_in_and_that_it_is_projected() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key_like(operator()).await);
        let before = status(api, &key).await;
        for _ in 0..3 {
            assert_eq!(api.post_lead(&key, "{}").await.status, 201);
        }
        let told = status(api, &key).await;
        let number = |status: &Value, path: &str| status.pointer(path).and_then(Value::as_u64);
        for figure in ["/ingest/acknowledged_total", "/ingest/acknowledge_seconds/count"] {
            assert!(number(&told, figure) >= number(&before, figure).map(|n| n + 3), "{told}");
        }
        let histogram = &told["ingest"]["acknowledge_seconds"];
        let buckets = histogram["buckets"].as_array().expect("buckets");
        let counts: Vec<_> = buckets.iter().map(|it| it["count"].as_u64().unwrap()).collect();
        assert!(counts.is_sorted(), "they are cumulative: {counts:?}");
        assert_eq!(counts.last().copied(), histogram["count"].as_u64());
        assert_eq!(buckets.last().unwrap()["le"], Value::Null);
        assert!(histogram["sum"].as_f64().unwrap() > 0.0);
        let in_flight = &told["ingest"]["in_flight"];
        assert_eq!(
            (&in_flight["max_leads"], &in_flight["max_bytes"]),
            (&json!(20_000), &json!(134_217_728))
        );
        assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
        let started = told["instance"]["started_at"].as_str().unwrap();
        assert!(
            Timestamp::parse(started).unwrap()
                < Timestamp::parse(told["at"].as_str().unwrap()).unwrap()
        );
        assert!(told["instance"]["id"].as_str().unwrap().contains(':'));

        let whole = eventually_status(api, &key, "all is projected", |it| {
            it["projection"]["lag_records"] == 0 && it["projection"]["lag_seconds"] == 0.0
        });
        let whole = whole.await;
        let ingest = &whole["ingest"];
        for (name, value) in [("status", "ready"), ("kafka", "up"), ("postgres", "up")] {
            assert_eq!(ingest[name], value, "{whole}");
        }
        let projection = &whole["projection"];
        assert_eq!((&projection["status"], &projection["error"]), (&json!("up"), &json!(null)));
        assert_eq!(projection["topic"], shared.system.events_topic());
        assert_eq!(projection["generation"], 1);
        assert_eq!(projection["partitions"].as_array().map(Vec::len), Some(3));
        assert_eq!(whole["rebuild"], Value::Null);
    });
}

#[test]
fn many_consoles_share_a_look() {
    run(async {
        let shared = shared().await;
        let key = shared.key_like(operator()).await;
        let started = Instant::now();
        let asked = (0..60).map(|_| status(&shared.api, &key));
        let at = |status: Value| status["projection"]["at"].as_str().unwrap().to_owned();
        let looks: BTreeSet<_> = join_all(asked).await.into_iter().map(at).collect();
        let most = 2 + started.elapsed().as_millis() / 900;
        assert!((looks.len() as u128) <= most, "{looks:?} in {:?}", started.elapsed());
    });
}

#[test]
fn a_lag_grows_while_nobody_projects_and_drains() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(operator()).await;
        let api = system.start_api().await;
        api.wait_ready().await;
        let ids = join_all((0..9).map(|_| async { api.post_lead(&key, "{}").await.lead_id() }));
        let posted = Instant::now();
        let ids = ids.await;
        let first = eventually_status(&api, &key, "nine wait", |it| {
            it["projection"]["lag_records"] == 9 && it["projection"]["lag_seconds"].is_f64()
        });
        let seconds = |status: &Value| status["projection"]["lag_seconds"].as_f64().unwrap();
        let first = seconds(&first.await);
        let later = eventually_status(&api, &key, "they get older", |it| {
            it["projection"]["lag_seconds"].as_f64().is_some_and(|it| it > first + 1.0)
        });
        let later = later.await;
        assert!(seconds(&later) <= posted.elapsed().as_secs_f64() + 5.0, "{later}");
        let partitions = later["projection"]["partitions"].as_array().unwrap().clone();
        let lags = partitions.iter().map(|it| it["lag_records"].as_i64().unwrap());
        assert_eq!(lags.sum::<i64>(), 9);
        let oldest = partitions.iter().filter_map(|it| it["lag_seconds"].as_f64());
        assert_eq!(oldest.reduce(f64::max), Some(seconds(&later)));

        let consumer = system.start_consumer().await;
        eventually_status(&api, &key, "all is projected", |it| {
            it["projection"]["lag_records"] == 0 && it["projection"]["lag_seconds"] == 0.0
        })
        .await;
        let found = system.number("SELECT count(*) FROM leads").await;
        assert_eq!(found, i64::try_from(ids.len()).unwrap(), "and it is true");
        drop(consumer);
    });
}

#[test]
fn a_rebuild_under_way_is_told() {
    run(async {
        let own = Own::start(System::new().await, &[]).await;
        let key = known_key(&own.system, &own.api, operator()).await;
        for _ in 0..6 {
            own.api.post_lead(&key, "{}").await;
        }
        let topic = own.system.events_topic();
        let begun = format!(
            "INSERT INTO projection_generation (generation, state, builder)
                 VALUES (2, 'building', 'there:42');
             INSERT INTO projection_offset (generation, topic, partition, next_offset)
                 VALUES (2, '{topic}', 0, 1), (2, '{topic}', 1, 1)"
        );
        own.system.db().await.batch_execute(&begun).await.unwrap();
        let told = eventually_status(&own.api, &key, "a rebuild", |it| it["rebuild"].is_object());
        let told = told.await;
        let mut rebuild = told["rebuild"].clone();
        assert!(Timestamp::parse(rebuild["started_at"].as_str().unwrap()).is_ok());
        rebuild["started_at"] = json!("<time>");
        assert_eq!(
            rebuild,
            json!({"generation": 2, "state": "building", "builder": "there:42",
                "abandoned": true, "started_at": "<time>", "done_records": 2, "total_records": 6, "lag_records": 4})
        );
        assert_eq!(told["projection"]["generation"], 1, "reads see the live one");

        let builder = own.system.db().await;
        let lock = format!("SELECT pg_advisory_lock({}, {})", 0x6c65_6164, 0x7265_6264);
        builder.batch_execute(&lock).await.unwrap();
        let at_work = |it: &Value| it["rebuild"]["abandoned"] == false;
        eventually_status(&own.api, &key, "its builder", at_work).await;
    });
}

/// Nobody listens there, or somebody does and says nothing.
#[test]
fn without_postgresql_it_is_told_what_is_known_and_why_the_rest_is_not() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(operator()).await;
        let proxy = system.proxy().await;
        let nowhere = "postgres://nobody@127.0.0.1:1/none?sslmode=disable";
        for (url, says) in [(nowhere, "refused"), (proxy.url(), "answer within 1s")] {
            proxy.freeze();
            let api = system.start_api_with(&[("DATABASE_URL", url)]).await;
            api.wait_ready().await;
            let asked = Instant::now();
            let told = status(&api, &key).await;
            assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
            assert_eq!(told["ingest"]["postgres"], "down");
            assert_eq!(
                (&told["ingest"]["status"], &told["ingest"]["kafka"]),
                (&json!("ready"), &json!("up"))
            );
            let projection = &told["projection"];
            assert_eq!(projection["status"], "unknown");
            let error = projection["error"].as_str().unwrap();
            assert!(error.contains("PostgreSQL") && error.contains(says), "{error}");
            for name in ["generation", "lag_records", "lag_seconds"] {
                assert_eq!(projection[name], Value::Null, "{projection}");
            }
            assert_eq!(projection["partitions"][0]["end_offset"], 0, "{projection}");
            assert_eq!((&told["dead_letters"], &told["rebuild"]), (&Value::Null, &Value::Null));
            assert_error(&api.get(&key, DEAD_LETTERS).await, 503, "read_model_unavailable");
            let listed = data(&api.get(&key, KEYS).await);
            assert_eq!(listed[0]["id"], json!(key.id));
            proxy.thaw();
            if url == proxy.url() {
                eventually_status(&api, &key, "it is back", |it| {
                    it["projection"]["status"] == "up" && it["ingest"]["postgres"] == "up"
                })
                .await;
            }
        }
    });
}
