//! What stands in the topic is what the served documents say.

use std::collections::HashMap;

use jsonschema::Validator;
use leads_shared::documents;
use leads_testkit::{Method, Record};
use serde_json::Value;

use crate::projectable::bodies;
use crate::shared::{Shared, assert_error, call, located, post_with, run, shared};

const BODIES: usize = 60;

fn validator(schema: &Value) -> Validator {
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema).unwrap_or_else(|error| panic!("{error}"))
}

#[track_caller]
fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let errors: Vec<_> = validator
        .iter_errors(value)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?}");
}

/// The validators of values and headers, by `ce_dataschema`, as a subscriber would get them.
async fn validators(shared: &Shared) -> HashMap<String, (Validator, Validator)> {
    let asyncapi = shared.api.get_open("/asyncapi.json").await.json();
    let mut all = HashMap::new();
    for message in asyncapi["components"]["messages"].as_object().expect("messages").values() {
        let path = message["headers"]["properties"]["ce_dataschema"]["const"].as_str();
        let path = path.expect("a path").to_owned();
        let schema = shared.api.get_open(&path).await;
        assert_eq!(schema.status, 200, "{path}");
        let both = (validator(&schema.json()), validator(&message["headers"]));
        all.insert(path, both);
    }
    all
}

fn headers(record: &Record) -> Value {
    let text = |value: &Option<Vec<u8>>| {
        Value::from(String::from_utf8(value.clone().expect("a value")).expect("UTF-8"))
    };
    record.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

#[test]
fn every_record_is_valid_by_the_schema_that_its_header_names() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let most = format!(r#"{{"code":"{0}","source":"{0}"}}"#, "😀".repeat(255));
        let mut ids = Vec::new();
        for body in bodies(BODIES).into_iter().chain(["{}".to_owned(), most.clone()]) {
            let posted = post_with(&shared.api, &key, body, &[("traceparent", trace)]).await;
            if posted.status == 201 {
                ids.push(located(&posted));
            }
        }
        for (id, body) in ids.iter().rev().zip(
            [r#"{"summary":{"a":[1,{"b":null}]},"code":null}"#.to_owned(), most]
                .into_iter()
                .chain(bodies(BODIES)),
        ) {
            let request =
                shared.api.json(Method::PATCH, &format!("/api/v1/leads/{id}"), &key, &body);
            shared.api.send(request.header("if-match", "\"1\"")).await;
        }
        assert!(ids.len() > BODIES / 3, "most bodies were refused: {}", ids.len());

        let validators = validators(shared).await;
        let source = format!("/workspaces/{}", key.workspace);
        let records = shared.system.records().await;
        let mut counts = HashMap::<&str, usize>::new();
        for record in records.iter().filter(|it| it.header("ce_source") == Some(&source)) {
            let path = record.header("ce_dataschema").expect("ce_dataschema");
            let (value, header) = &validators[path];
            assert_valid(header, &headers(record), path);
            // Numbers that a double can't hold are for the tests of digits.
            let text = record.value.as_deref().expect("a value");
            let Ok(json) = serde_json::from_slice::<Value>(text) else { continue };
            assert_valid(value, &json, &String::from_utf8_lossy(text));
            let mut wrong = json.clone();
            wrong["lead_id"] = Value::from(7);
            assert!(!value.is_valid(&wrong) && !value.is_valid(&Value::Null), "it refuses some");
            *counts.entry(path).or_default() += 1;
        }
        assert!(counts["/schemas/LeadCreated/1"] > BODIES / 4, "{counts:?}");
        assert!(counts["/schemas/LeadUpdated/1"] > BODIES / 4, "{counts:?}");
    });
}

#[test]
fn the_documents_are_served_to_everyone_and_can_be_kept() {
    run(async {
        let api = &shared().await.api;
        let schemas = documents::SCHEMAS.map(|schema| {
            let path = format!("/schemas/{}/{}", schema.event, schema.version);
            (path, "application/schema+json", schema.text)
        });
        let asyncapi = ("/asyncapi.json".to_owned(), "application/json", documents::ASYNCAPI);
        for (path, content_type, text) in schemas.into_iter().chain([asyncapi]) {
            let answer = api.get_open(&path).await;
            assert_eq!((answer.status, answer.text().as_str()), (200, text), "{path}");
            assert_eq!(answer.header("content-type"), Some(content_type));
            assert_eq!(answer.header("cache-control"), Some("public, max-age=3600"));
            let tag = answer.header("etag").expect("an ETag");

            let head = call(api, "HEAD", &path, &[]).await;
            assert_eq!((head.status, head.header("etag"), head.body.len()), (200, Some(tag), 0));
            let known = call(api, "GET", &path, &[("if-none-match", tag)]).await;
            assert_eq!((known.status, known.header("etag"), known.body.len()), (304, Some(tag), 0));
            let other = call(api, "GET", &path, &[("if-none-match", "\"other\"")]).await;
            assert_eq!((other.status, other.text().as_str()), (200, text));

            let posted = call(api, "POST", &path, &[]).await;
            assert_error(&posted, 405, "method_not_allowed");
            assert_eq!(posted.header("allow"), Some("GET, HEAD"));
        }
    });
}

#[test]
fn a_schema_that_is_not_there_is_a_404_that_lists_those_that_are() {
    run(async {
        let api = &shared().await.api;
        for path in ["LeadCreated/2", "LeadCreated/01", "LeadCreated/x", "Other/1", "leadcreated/1"]
        {
            let answer = api.get_open(&format!("/schemas/{path}")).await;
            let body = assert_error(&answer, 404, "schema_not_found");
            let known = ["/schemas/LeadCreated/1", "/schemas/LeadUpdated/1"];
            assert_eq!(body["details"]["schemas"], serde_json::json!(known));
        }
        for path in ["/schemas", "/schemas/LeadCreated", "/schemas/LeadCreated/1/"] {
            assert_error(&api.get_open(path).await, 404, "route_not_found");
        }
    });
}
