//! The document says what the service does: its paths, its fields, its answers.

use std::collections::BTreeSet;

use leads_testkit::{Api, DEADLINE, Key, KeySpec, Response, eventually};
use serde_json::Value;
use uuid::Uuid;

use crate::shared::{assert_field_errors, call, post_with, run, shared, unlimited};

async fn document(api: &Api) -> Value {
    let answer = api.get_open("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    answer.json()
}

/// `(path, method, operation)`
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let all = paths.iter().flat_map(|(path, item)| {
        let item = item.as_object().expect("a path item");
        item.iter().map(|(m, operation)| (path.clone(), m.to_uppercase(), operation.clone()))
    });
    all.collect()
}

#[test]
fn every_path_and_method_is_there() {
    run(async {
        let api = &shared().await.api;
        let operations = operations(&document(api).await);
        let names: Vec<_> = operations.iter().map(|(path, m, _)| format!("{m} {path}")).collect();
        insta::assert_snapshot!(names.join(", "), @"GET /api/v1/leads, POST /api/v1/leads, POST /api/v1/leads/batch, GET /api/v1/leads/events, GET /api/v1/leads/{id}, PATCH /api/v1/leads/{id}, GET /api/v1/leads/{id}/events, GET /api/v1/system/dead-letters, GET /api/v1/system/keys, GET /api/v1/system/status, GET /api/v1/system/whoami, GET /asyncapi.json, GET /livez, GET /readyz, GET /schemas/{event}/{version}");
        for (path, method, _) in operations {
            let path = path.replace("{id}", &Uuid::new_v4().to_string());
            let path = path.replace("{event}/{version}", "LeadCreated/1");
            let status = call(api, &method, &path, &[]).await.status;
            let open = !path.starts_with("/api");
            assert_eq!(status, if open { 200 } else { 401 }, "{method} {path}");
        }
    });
}

#[test]
fn every_reference_leads_somewhere() {
    fn check(node: &Value, root: &Value) {
        match node {
            Value::Object(fields) => {
                if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                    let pointer = reference.strip_prefix('#').expect("within the document");
                    assert!(root.pointer(pointer).is_some(), "{reference}");
                }
                fields.values().for_each(|field| check(field, root));
            }
            Value::Array(items) => items.iter().for_each(|item| check(item, root)),
            _ => {}
        }
    }
    run(async {
        let shared = shared().await;
        let document = document(&shared.api).await;
        assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
        check(&document, &document);
        let printed = shared.system.run("leads-api", &["openapi"], &[]).await;
        assert_eq!(serde_json::from_slice::<Value>(&printed.stdout).unwrap(), document);
    });
}

/// A value of the type that a property's schema names.
fn example(schema: &Value) -> &'static str {
    let types = schema["type"].to_string();
    match schema["format"].as_str() {
        Some("uuid") => r#""0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55""#,
        _ if types.contains("string") => r#""x""#,
        _ if types.contains("object") => "{}",
        _ => panic!("no example for {schema}"),
    }
}

#[test]
fn bodies_are_taken_as_documented_and_not_otherwise() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let schemas = document(&shared.api).await["components"]["schemas"].clone();
        let id = shared.api.post_lead(&key, "{}").await.lead_id();
        for (name, fields) in [("CreateLead", 8), ("UpdateLead", 9)] {
            let schema = &schemas[name];
            assert_eq!(schema["additionalProperties"], false, "{name}");
            assert_eq!(schema["required"], Value::Null, "all are optional");
            let properties = schema["properties"].as_object().expect("properties");
            assert_eq!(properties.len(), fields, "{name}");
            let send = async |body: &str| match name {
                "CreateLead" => shared.api.post_lead(&key, body).await,
                _ => shared.api.patch_lead(&key, &id, body).await,
            };
            for (field, schema) in properties {
                for value in [example(schema), "null"] {
                    let answer = send(&format!(r#"{{"{field}":{value}}}"#)).await;
                    assert!(answer.status < 300, "{name}.{field}: {}", answer.text());
                }
                let types = schema["type"].to_string();
                assert!(types.contains("null"), "{name}.{field} may be null: {schema}");
            }
            assert_field_errors(&send(r#"{"extra":1}"#).await, &[("extra", "unknown_field")]);
        }
    });
}

#[test]
fn an_answered_lead_has_the_documented_fields_in_their_order() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let lead = document(&shared.api).await["components"]["schemas"]["Lead"].clone();
        let answer = shared.api.post_lead(&key, "{}").await.json();
        let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect();
        let documented: Vec<String> = keys(&lead["properties"]);
        assert_eq!(documented, keys(&answer["data"]) as Vec<String>);
        let required = lead["required"].as_array().expect("required");
        assert_eq!(required.len(), documented.len(), "absent optionals are null, never omitted");
    });
}

/// Provokes what can be provoked without doing harm, for the comparison below.
async fn provoke(api: &Api, key: &Key, others: &[&Key]) -> Vec<Response> {
    let secret = ("x-api-key", key.secret.as_str());
    let id = api.post_lead(key, "{}").await.lead_id();
    let (lead, none) = (format!("/api/v1/leads/{id}"), format!("/api/v1/leads/{}", Uuid::new_v4()));
    let mut answers = Vec::new();
    for (method, path) in
        [("POST", "/api/v1/leads"), ("GET", "/api/v1/leads"), ("GET", &lead), ("PATCH", &lead)]
    {
        let json = ("content-type", "application/json");
        let json = if method == "GET" { ("x-nothing", "") } else { json };
        for headers in [
            &[][..],
            &[secret, json],
            &[("x-api-key", "x")],
            &[secret, ("authorization", "Bearer x")],
            &[secret, ("accept", "text/html")],
            &[secret, json, ("content-encoding", "br")],
            &[secret, json, ("content-encoding", "gzip")],
            &[secret, json, ("idempotency-key", "a b")],
            &[secret, json, ("if-match", "x")],
            &[secret, ("if-none-match", "*")],
        ] {
            answers.push(call(api, method, path, headers).await);
        }
        for other in others {
            answers.push(call(api, method, path, &[("x-api-key", &other.secret)]).await);
            answers.push(call(api, method, path, &[("x-api-key", &other.secret)]).await);
        }
    }
    answers.push(post_with(api, key, vec![b' '; 300_000], &[]).await);
    for body in ["{}", "[]", r#"{"x":1}"#, r#"{"code":"x"}"#, &" ".repeat(300_000)] {
        answers.push(api.patch_lead(key, &id, body).await);
    }
    answers.push(api.patch_lead(key, &none[14..], r#"{"code":"x"}"#).await);
    answers.push(api.get(key, &none).await);
    answers.push(api.get(key, "/api/v1/leads?limit=0").await);
    answers
}

/// By the log of the shared API: whatever any test of this run has got out of it so far.
#[test]
fn every_answer_is_documented() {
    run(async {
        let shared = shared().await;
        let operations = operations(&document(&shared.api).await);
        let limited = KeySpec { rate_limit: Some(1), ..KeySpec::default() };
        let powerless = KeySpec { scopes: Some("leads:write".to_owned()), ..unlimited() };
        let reader = KeySpec { scopes: Some("leads:read".to_owned()), ..unlimited() };
        let (key, limited, powerless, reader) = tokio::join!(
            shared.key(),
            shared.key_like(limited),
            shared.key_like(powerless),
            shared.key_like(reader)
        );
        let answers = provoke(&shared.api, &key, &[&limited, &powerless, &reader]).await;
        let last =
            answers.last().and_then(|answer| answer.header("x-request-id")).unwrap().to_owned();
        let logs = eventually(DEADLINE, "the log is written", async || {
            let logs = shared.api.logs();
            logs.iter().any(|line| line.str("request_id") == Some(&last)).then_some(logs)
        })
        .await;
        let mut missing = BTreeSet::new();
        let mut seen = BTreeSet::new();
        for line in logs.iter().filter(|line| line.message() == "request") {
            let (Some(method), Some(route)) = (line.str("method"), line.str("route")) else {
                continue;
            };
            let method = if method == "HEAD" { "GET" } else { method };
            let operation = operations.iter().find(|(path, m, _)| path == route && m == method);
            let Some((_, _, operation)) = operation else { continue };
            let status = line.field("status").expect("status").to_string();
            let description = operation["responses"][&status]["description"].as_str();
            let error = line.str("error");
            if !description.is_some_and(|text| error.is_none_or(|code| text.contains(code))) {
                missing.insert(format!("{method} {route}: {status} {}", error.unwrap_or_default()));
            }
            seen.insert(format!("{method} {route}: {status} {}", error.unwrap_or_default()));
        }
        assert!(missing.is_empty(), "not in the document: {missing:#?}");
        assert!(seen.len() > 35, "too little was provoked to say anything: {seen:#?}");
    });
}

#[test]
fn the_docs_page_needs_nothing_from_elsewhere() {
    run(async {
        let api = &shared().await.api;
        let mut raw = api.raw().await;
        raw.write(b"GET /docs HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let answer = raw.read_response(DEADLINE).await.expect("an answer");
        assert_eq!((answer.status, answer.header("location")), (302, Some("/docs/")));

        let page = api.get_open("/docs/").await;
        assert_eq!(page.status, 200);
        assert!(page.header("content-type").is_some_and(|t| t.starts_with("text/html")));
        let text = page.text();
        let assets: Vec<_> = ["src=\"", "href=\""]
            .iter()
            .flat_map(|attribute| text.split(attribute).skip(1))
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(assets.len() > 2, "{text}");
        for asset in assets {
            assert!(!asset.contains("//"), "{asset}");
            let path = format!("/docs/{}", asset.trim_start_matches("./"));
            let get = api.get_open(&path).await;
            let head = call(api, "HEAD", &path, &[]).await;
            assert_eq!((get.status, head.status, head.body.len()), (200, 200, 0), "{path}");
        }
    });
}
