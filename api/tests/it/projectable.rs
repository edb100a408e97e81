//! Everything accepted is projectable, as a property: hostile bodies are refused or become rows.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use futures_util::{StreamExt, stream};
use leads_testkit::{DEADLINE, Key, Method, Response, System, eventually};
use serde_json::Value;

use crate::hostile::{Form, Hostile};
use crate::shared::{Own, Shared, located, run, shared};

/// Bodies that go in one by one.
const SINGLE: usize = 300;
/// Bodies that go in by batches.
const MANY: usize = 50_000;
const BATCH: usize = 1_000;
/// A batch takes 5 MiB; the last body may be one of the largest.
const BATCH_BYTES: usize = 4_500_000;
/// What the service says of itself; every code stands there.
const DOCUMENTED: &str = include_str!("../../../docs/http.md");

/// `FUZZ_SEED`, or another one every time.
fn seed() -> u64 {
    let given = std::env::var("FUZZ_SEED").ok();
    let given: Option<u64> = given.map(|seed| seed.parse().expect("FUZZ_SEED is a number"));
    let seed = given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        now.as_secs() ^ u64::from(now.subsec_nanos())
    });
    // Shown when the test fails.
    println!("FUZZ_SEED={seed}");
    seed
}

pub(crate) fn bodies(count: usize) -> Vec<String> {
    let mut hostile = Hostile::new(seed());
    (0..count).map(|_| hostile.body(Form::Anywhere)).collect()
}

/// `false` when it was refused as it should be.
fn taken(answer: &Response, body: &str) -> bool {
    match answer.status {
        200 | 201 => true,
        400 | 413 => false,
        _ => panic!("{} {} for {body}", answer.status, answer.text()),
    }
}

/// The bodies without a row that holds what they say, by PostgreSQL's own reading of them.
const UNLIKE: &str = "
    SELECT body FROM unnest($1::text[], $2::text[]) AS sent (lead_id, body)
    CROSS JOIN LATERAL (SELECT body::jsonb AS b) AS read
    LEFT JOIN leads ON id = lead_id::uuid
    WHERE id IS NULL OR (code, source) IS DISTINCT FROM (b->>'code', b->>'source')
    OR (visitor_id, identity_id, session_id, company_id) IS DISTINCT FROM
       ((b->>'visitor_id')::uuid, (b->>'identity_id')::uuid, (b->>'session_id')::uuid, (b->>'company_id')::uuid)
    OR (properties, location) IS DISTINCT FROM
       (NULLIF(b->'properties', 'null'), NULLIF(b->'location', 'null'))
    OR version <> 1";

async fn assert_rows_are(system: &System, sent: &[(String, String)]) {
    let (ids, bodies): (Vec<_>, Vec<_>) = sent.iter().map(|(id, body)| (id, body)).unzip();
    let rows = system.rows(UNLIKE, &[&ids, &bodies]).await;
    let unlike: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(unlike.is_empty(), "{} rows are not what was sent: {unlike:?}", unlike.len());
}

async fn follow(shared: &Shared, key: &Key, body: String) -> usize {
    let posted = shared.api.post_lead(key, &body).await;
    if !taken(&posted, &body) {
        return 0;
    }
    let id = located(&posted);
    let found = shared.api.get_lead(key, &id).await;
    assert_eq!(found.status, 200, "accepted and not projected: {body}: {}", found.text());
    assert_rows_are(&shared.system, &[(id, body)]).await;
    1
}

#[test]
fn whatever_is_accepted_becomes_a_row() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let follow = bodies(SINGLE).into_iter().map(|body| follow(shared, &key, body));
        let accepted: usize =
            stream::iter(follow).buffer_unordered(16).collect::<Vec<_>>().await.iter().sum();
        // Else the property would say nothing.
        assert!((SINGLE / 5..=SINGLE * 19 / 20).contains(&accepted), "{accepted} of {SINGLE}");
        assert_eq!(shared.system.number("SELECT count(*) FROM dead_letters").await, 0);
        // As text: there may be numbers in it that `Response::json` can't hold.
        let list = shared.api.get(&key, "/api/v1/leads?limit=1").await.text();
        assert!(list.contains(&format!("\"total\":{accepted},")), "{accepted}: {list}");
    });
}

#[test]
fn whatever_update_is_accepted_is_applied() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        let path = format!("/api/v1/leads/{id}");
        let mut version = 1;
        for body in bodies(SINGLE / 5) {
            let answer = shared.api.send(shared.api.json(Method::PATCH, &path, &key, &body)).await;
            if taken(&answer, &body) {
                version += 1;
                assert_eq!(
                    answer.header("etag"),
                    Some(format!("\"{version}\"").as_str()),
                    "{body}"
                );
            }
        }
        assert!(version > 5, "{version}");
        assert_eq!(shared.system.number("SELECT count(*) FROM dead_letters").await, 0);
    });
}

/// Bodies that go in together.
struct Batch {
    form: Form,
    bodies: Vec<String>,
}

impl Batch {
    fn next(hostile: &mut Hostile, number: usize, most: usize) -> Self {
        let form = if number.is_multiple_of(2) { Form::Anywhere } else { Form::Line };
        let (mut bodies, mut bytes) = (Vec::new(), 0);
        while bodies.len() < most && bytes < BATCH_BYTES {
            let body = hostile.body(form);
            bytes += body.len() + 1;
            bodies.push(body);
        }
        Self { form, bodies }
    }

    /// Sends it until the broker has what is taken: the key makes a retry harmless.
    async fn send(&self, own: &Own, number: usize) -> Vec<Value> {
        let (content_type, body) = match self.form {
            Form::Anywhere => ("application/json", format!("[{}]", self.bodies.join(",\n"))),
            Form::Line => ("application/x-ndjson", self.bodies.join("\n")),
        };
        let answer = eventually(DEADLINE, "the broker has the batch", async || {
            let request = own.api.request(Method::POST, "/api/v1/leads/batch");
            let request = request.bearer_auth(&own.key.secret).header("content-type", content_type);
            let request = request.header("idempotency-key", format!("batch-{number}"));
            let answer = own.api.send(request.body(body.clone())).await;
            let again = answer.text().contains("\"status\":503");
            if again { Err(answer.status) } else { Ok(answer) }
        })
        .await;
        let answer = answer.json();
        answer["data"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    }
}

/// The codes of a refusal; all of them are documented.
fn codes(item: &Value, body: &str) -> Vec<String> {
    let error = &item["error"];
    let code = error["error"].as_str().unwrap_or_else(|| panic!("{item} for {body}"));
    let expected = match code {
        "payload_too_large" => 413,
        _ => 400,
    };
    assert_eq!(item["status"], expected, "{item} for {body}");
    let fields = error["details"]["fields"].as_array().cloned().unwrap_or_default();
    assert_eq!(fields.is_empty(), code != "validation_failed", "{item}");
    let of_fields = fields.iter().map(|field| field["code"].as_str().expect("a code"));
    let codes: Vec<_> = of_fields.chain([code]).map(str::to_owned).collect();
    for code in &codes {
        assert!(DOCUMENTED.contains(&format!("`{code}`")), "{code} is not documented: {item}");
    }
    codes
}

/// What was refused because PostgreSQL can't hold it, it really can't.
async fn assert_refused_with_need(system: &System, bodies: &[String]) {
    let sql = "SELECT body FROM unnest($1::text[]) AS body WHERE pg_input_is_valid(body, 'jsonb')";
    let rows = system.rows(sql, &[&bodies]).await;
    let fine: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(fine.is_empty(), "refused without need: {fine:?}");
}

/// What became of a batch.
#[derive(Default)]
struct Sum {
    taken: usize,
    refused: BTreeMap<String, usize>,
}

async fn send_and_follow(own: &Own, number: usize, batch: Batch) -> Sum {
    let items = batch.send(own, number).await;
    assert_eq!(items.len(), batch.bodies.len());
    let (mut sent, mut unstorable) = (Vec::new(), Vec::new());
    let mut sum = Sum::default();
    for (item, body) in items.iter().zip(batch.bodies) {
        if item["status"] == 201 {
            sent.push((item["id"].as_str().expect("an id").to_owned(), body));
            continue;
        }
        let codes = codes(item, &body);
        if codes == ["nul_character", "validation_failed"]
            || codes == ["lone_surrogate", "validation_failed"]
        {
            unstorable.push(body);
        }
        for code in codes {
            *sum.refused.entry(code).or_default() += 1;
        }
    }
    sum.taken = sent.len();
    assert_refused_with_need(&own.system, &unstorable).await;
    let ids: Vec<_> = sent.iter().map(|(id, _)| id.clone()).collect();
    let count = "SELECT count(*) FROM leads WHERE id = ANY ($1::text[]::uuid[])";
    let db = own.system.db().await;
    let wanted = i64::try_from(ids.len()).expect("a count");
    eventually(DEADLINE, "every accepted lead is a row", async || {
        let found: i64 = db.query_one(count, &[&ids]).await.expect("a count").get(0);
        if found == wanted { Ok(()) } else { Err((found, wanted)) }
    })
    .await;
    assert_rows_are(&own.system, &sent).await;
    sum
}

#[test]
fn fifty_thousand_bodies_are_rows_or_refused_by_name() {
    run(async {
        // A flood: those who wait for the shared projection would wait in vain.
        let own = Own::start(System::new().await, &[]).await;
        let mut hostile = Hostile::new(seed());
        let (mut left, mut number) = (MANY, 0);
        let batches = std::iter::from_fn(|| {
            let batch = Batch::next(&mut hostile, number, left.min(BATCH));
            left -= batch.bodies.len();
            number += 1;
            (!batch.bodies.is_empty()).then_some((number, batch))
        });
        let batches =
            stream::iter(batches).map(|(number, batch)| send_and_follow(&own, number, batch));
        let sums: Vec<Sum> = batches.buffer_unordered(3).collect().await;

        let accepted: usize = sums.iter().map(|sum| sum.taken).sum();
        let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
        for (code, count) in sums.iter().flat_map(|sum| &sum.refused) {
            *refused.entry(code).or_default() += count;
        }
        println!("{accepted} of {MANY} accepted; refused: {refused:?}");
        // Else the property would say nothing.
        assert!((MANY / 2..=MANY * 19 / 20).contains(&accepted), "{accepted} of {MANY}");
        for code in [
            "control_character",
            "duplicate_field",
            "invalid_type",
            "invalid_uuid",
            "lone_surrogate",
            "malformed_json",
            "nesting_too_deep",
            "nul_character",
            "number_out_of_range",
            "payload_too_large",
            "too_long",
            "too_short",
            "unknown_field",
        ] {
            assert!(refused.get(code) > Some(&0), "no body met {code}: {refused:?}");
        }
        assert_eq!(own.system.number("SELECT count(*) FROM dead_letters").await, 0);
        let list = own.api.get(&own.key, "/api/v1/leads?limit=1").await.text();
        assert!(list.contains(&format!("\"total\":{accepted},")), "{accepted}: {list}");
    });
}
