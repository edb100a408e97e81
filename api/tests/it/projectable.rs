//! Everything accepted is projectable, as a property: hostile bodies are refused or become rows.

use futures_util::{StreamExt, stream};
use leads_testkit::{Key, Method, Response};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::shared::{Shared, located, run, shared};

const BODIES: usize = 300;

/// What something on the way might trip over, as it stands inside a JSON string.
const GOOD: &[&str] = &[
    "a",
    "é",
    "😀",
    "𠀀",
    "\\ud83d\\ude00",
    "\\\"",
    "\\\\",
    "\\/",
    "'",
    "$1",
    "{",
    "]",
    ",",
    "\\u00e9",
    "\\ufffe",
    "\u{fffd}",
    "\u{feff}",
    "\u{2028}",
    "\\\\u0000",
    "\\\\N",
];
/// What `code` and `source` may not hold.
const CONTROL: &[&str] = &["\\n", "\\t", "\\b", "\\u0001", "\u{7f}", "\u{85}"];
/// What nothing may hold.
const BAD: &[&str] = &["\\u0000", "\\ud800", "\\udc00", "\\ude00\\ud83d", "\\ud83d\\n"];

fn string(most: usize) -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        300 => prop::sample::select(GOOD),
        40 => prop::sample::select(CONTROL),
        1 => prop::sample::select(BAD),
    ];
    prop::collection::vec(piece, 0..most).prop_map(|pieces| pieces.concat())
}

/// Of about as many characters as are taken at most.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        2000 => prop::sample::select(GOOD),
        1 => prop::sample::select(CONTROL),
        1 => prop::sample::select(BAD),
    ];
    prop::collection::vec(piece, 0..200).prop_map(|pieces| pieces.concat())
}

fn number() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-0".to_owned()),
        Just("0e0".to_owned()),
        "-?[1-9][0-9]{0,30}",
        "-?[1-9][0-9]{990,1010}",
        "-?(0|[1-9][0-9]{0,20})\\.[0-9]{1,40}",
        "-?[1-9](\\.[0-9]{1,5})?[eE][+-]?[0-9]{1,3}",
        "[1-9][eE][+-]?(99[0-9]|100[0-9]|[0-9]{6,30})",
    ]
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop::sample::select(vec!["null", "true", "false", "[]", "{}"]).prop_map(str::to_owned),
        number(),
        string(12).prop_map(|text| format!("\"{text}\"")),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|values| format!("[{}]", values.join(" , "))),
            object_of(inner.clone()),
            // Around the deepest that is taken.
            (50..70_usize, inner).prop_map(|(depth, value)| {
                format!("{}{value}{}", "[".repeat(depth), "]".repeat(depth))
            }),
        ]
    })
}

fn object_of(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((string(3), value), 0..5).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(",\n"))
    })
}

fn field() -> impl Strategy<Value = (&'static str, String)> {
    let uuid = "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}";
    let object = || object_of(value()).boxed();
    prop_oneof![
        (prop::sample::select(vec!["code", "source"]), text().prop_map(|t| format!("\"{t}\""))),
        (
            prop::sample::select(vec!["visitor_id", "company_id"]),
            uuid.prop_map(|t| format!("\"{t}\""))
        ),
        (prop::sample::select(vec!["properties", "location"]), object()),
        (prop::sample::select(vec!["properties", "location"]), object()),
    ]
}

fn body() -> impl Strategy<Value = String> {
    prop::collection::btree_map("[a-f]", field(), 1..4).prop_map(|fields| {
        let fields: Vec<_> = fields.values().map(|(k, v)| format!("\"{k}\":{v}")).collect();
        format!("{{{}}}", fields.join(","))
    })
}

pub(crate) fn bodies(count: usize) -> Vec<String> {
    let mut runner = TestRunner::default();
    let body = body();
    (0..count).map(|_| body.new_tree(&mut runner).expect("a body").current()).collect()
}

/// `false` when it was refused as it should be.
fn taken(answer: &Response, body: &str) -> bool {
    match answer.status {
        200 | 201 => true,
        400 => false,
        _ => panic!("{} {} for {body}", answer.status, answer.text()),
    }
}

/// Whether the row holds what the body says, by PostgreSQL's own reading of the body.
async fn assert_row_is(shared: &Shared, id: &str, body: &str) {
    let sql = "SELECT code IS NOT DISTINCT FROM b->>'code' AND source IS NOT DISTINCT FROM b->>'source' \
         AND visitor_id IS NOT DISTINCT FROM (b->>'visitor_id')::uuid \
         AND company_id IS NOT DISTINCT FROM (b->>'company_id')::uuid \
         AND properties IS NOT DISTINCT FROM b->'properties' \
         AND location IS NOT DISTINCT FROM b->'location' \
         FROM leads, (SELECT $2::text::jsonb AS b) AS body WHERE id = $1::text::uuid";
    let rows = shared.system.rows(sql, &[&id, &body]).await;
    assert!(rows[0].get::<_, bool>(0), "the row is not what was sent: {body}");
}

async fn follow(shared: &Shared, key: &Key, body: &str) -> usize {
    let posted = shared.api.post_lead(key, body).await;
    if !taken(&posted, body) {
        return 0;
    }
    let id = located(&posted);
    let found = shared.api.get_lead(key, &id).await;
    assert_eq!(found.status, 200, "accepted and not projected: {body}: {}", found.text());
    assert_row_is(shared, &id, body).await;
    1
}

#[test]
fn whatever_is_accepted_becomes_a_row() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let bodies = bodies(BODIES);
        let follow = bodies.iter().map(|body| follow(shared, &key, body));
        let accepted: usize =
            stream::iter(follow).buffer_unordered(16).collect::<Vec<_>>().await.iter().sum();
        // Else the property would say nothing.
        assert!((BODIES / 5..=BODIES * 9 / 10).contains(&accepted), "{accepted} of {BODIES}");
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
        for body in bodies(BODIES / 5) {
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
