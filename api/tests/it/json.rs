//! Everything accepted is projectable: what PostgreSQL would refuse is refused first, and what is
//! taken reaches the log digit for digit and the row value for value.

use leads_testkit::{Key, Response};

use crate::shared::{Shared, assert_field_errors, located, run, shared};

fn nested(open: &str, close: &str, depth: usize) -> String {
    format!("{}1{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn what_postgresql_would_refuse_is_refused_with_field_and_code() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let digits = format!(r#"{{"a":{}}}"#, "9".repeat(1001));
        let small = format!(r#"{{"a":0.{}1}}"#, "0".repeat(1000));
        // The body is level 1 and the field's object level 2.
        let deep = format!(r#"{{"a":{}}}"#, nested("[", "]", 63));
        let deep_objects = format!(r#"{{"a":{}}}"#, nested(r#"{"a":"#, "}", 63));
        for (value, code) in [
            (r#"{"a":"x\u0000y"}"#, "nul_character"),
            (r#"{"a\u0000":1}"#, "nul_character"),
            (r#"{"a":[{"b":"\u0000"}]}"#, "nul_character"),
            (r#"{"a":"\ud800"}"#, "lone_surrogate"),
            (r#"{"a":"\uDBFFx"}"#, "lone_surrogate"),
            (r#"{"a":"\udc00"}"#, "lone_surrogate"),
            (r#"{"a":"\ude00\ud83d"}"#, "lone_surrogate"),
            (r#"{"\ud83d":1}"#, "lone_surrogate"),
            (r#"{"a":"\ud83d\\ude00"}"#, "lone_surrogate"),
            (r#"{"a":1e400000}"#, "number_out_of_range"),
            (r#"{"a":-1E+99999999999999999999}"#, "number_out_of_range"),
            (r#"{"a":1e-400000}"#, "number_out_of_range"),
            (r#"{"a":1e1000}"#, "number_out_of_range"),
            (digits.as_str(), "number_out_of_range"),
            (&small, "number_out_of_range"),
            (&deep, "nesting_too_deep"),
            (&deep_objects, "nesting_too_deep"),
        ] {
            for field in ["properties", "location"] {
                let answer = shared.api.post_lead(&key, &format!(r#"{{"{field}":{value}}}"#)).await;
                assert_field_errors(&answer, &[(field, code)]);
            }
        }
    });
}

/// Follows a lead to the log, to the row and to GET.
async fn assert_survives(shared: &Shared, key: &Key, properties: &str) -> Response {
    let body = format!(r#"{{"properties":{properties}}}"#);
    let posted = shared.api.post_lead(key, &body).await;
    assert_eq!(posted.status, 201, "{body}: {}", posted.text());
    let id = located(&posted);
    let found = shared.api.get_lead(key, &id).await;
    assert_eq!(found.status, 200, "{body}: {}", found.text());
    assert!(posted.text().contains(&format!(r#""properties":{properties}"#)), "{}", posted.text());

    let records = shared.system.records().await;
    let record = records.iter().find(|record| record.key.as_deref() == Some(id.as_bytes()));
    let value = record.and_then(|record| record.value.clone()).expect("the record");
    let value = String::from_utf8(value).expect("UTF-8");
    assert!(value.contains(&format!(r#""properties":{properties}"#)), "to the letter: {value}");

    let sql = "SELECT properties = $2::text::jsonb FROM leads WHERE id = $1::text::uuid";
    let rows = shared.system.rows(sql, &[&id, &properties]).await;
    assert!(rows[0].get::<_, bool>(0), "equal in value in its row: {properties}");
    found
}

#[test]
fn what_is_taken_survives_to_the_log_and_the_row() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let thousand = format!(r#"{{"a":{}}}"#, "9".repeat(1000));
        let deepest = format!(r#"{{"a":{}}}"#, nested("[", "]", 62));
        for properties in [
            r#"{"n":12345678901234567890,"m":-98765432109876543210.012345678901234567890}"#,
            r#"{"e":1E2,"f":1.10,"g":-0,"h":1e-5,"i":0.1e+999}"#,
            r#"{"":"😀","\ud83d\ude00":"","é":"\u00e9 \\u0000 \/ \u2028"}"#,
            r#"{"__proto__":{},"$ref":"$1","quote":"' \" \\"}"#,
            r#"{"a":"﷐￾\u007f"}"#,
            "{}",
            &thousand,
            &deepest,
        ] {
            assert_survives(shared, &key, properties).await;
        }
        let found = assert_survives(shared, &key, r#"{"n":12345678901234567890}"#).await;
        assert!(found.text().contains("12345678901234567890"), "{}", found.text());
        let found = assert_survives(shared, &key, r#"{"a":1,"b":0,"a":{"last":true}}"#).await;
        assert_eq!(found.json()["data"]["properties"]["a"]["last"], true, "the last one wins");
    });
}

/// An index key of PostgreSQL takes about 2.7 kB: the longest texts of four bytes a character fit.
#[test]
fn the_longest_texts_fit_every_index() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let text: String =
            (0..255_u32).map(|i| char::from_u32(0x2_0000 + i * 97).unwrap()).collect();
        let body = format!(r#"{{"code":"{text}","source":"{text}"}}"#);
        let posted = shared.api.post_lead(&key, &body).await;
        assert_eq!(posted.status, 201);
        assert_eq!(posted.json()["data"]["code"], text.as_str());
        assert_eq!(shared.api.get_lead(&key, &posted.lead_id()).await.json(), posted.json());
    });
}
