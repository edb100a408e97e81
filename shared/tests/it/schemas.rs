//! The documents of the contract are what the types say, and what was published stays readable.
//!
//! `make schemas` writes `shared/schemas`, and keeps each new state of a schema in
//! `shared/tests/published`, where nothing is ever edited.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use leads_shared::event::EventType;
use leads_shared::headers::Headers;
use leads_shared::schema::{Document, documents};
use leads_shared::{Event, documents};
use serde_json::Value;

use crate::compatibility::{breaks, structure};

const UPDATE: &str = "UPDATE_SCHEMAS";

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(path: &Path) -> Option<Value> {
    let text = fs::read_to_string(path).ok()?;
    Some(serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())))
}

fn text(json: &Value) -> String {
    format!("{json:#}\n")
}

fn write(path: &Path, json: &Value) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text(json)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// The states in which a schema was ever published, the oldest first: `LeadCreated.v1/1.json`, …
fn published(document: &Document) -> (PathBuf, Vec<Value>) {
    let name = document.path.strip_suffix(".json").unwrap().replace('/', ".v");
    let folder = folder("tests/published").join(name);
    let states = (1..).map_while(|n| read(&folder.join(format!("{n}.json")))).collect();
    (folder, states)
}

fn schemas() -> impl Iterator<Item = Document> {
    documents().into_iter().filter(|document| document.path != "asyncapi.json")
}

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

/// Before it is written down: what would break a reader is never taken over.
fn assert_compatible(document: &Document) {
    let (folder, states) = published(document);
    for (n, state) in (1..).zip(&states) {
        let found = breaks(state, &document.json);
        assert!(
            found.is_empty(),
            "readers of {} would break. Against {}/{n}.json:\n  {}\nWhat is published stays as it is: \
             give the event a new schema_version (a line in shared/src/schema.rs, a reader in \
             shared/src/event/upcast.rs, a fixture beside the old one), as CONTRIBUTING.md tells under \
             \"The schema of events\".",
            document.path,
            folder.display(),
            found.join("\n  "),
        );
    }
}

#[test]
fn no_reader_of_a_published_schema_breaks() {
    schemas().for_each(|document| assert_compatible(&document));
    let now: BTreeSet<_> = schemas().map(|document| published(&document).0).collect();
    for known in fs::read_dir(folder("tests/published")).unwrap() {
        let known = known.unwrap().path();
        assert!(now.contains(&known), "{} was published and is generated no more", known.display());
    }
}

#[test]
fn the_documents_are_those_of_the_types() {
    let update = std::env::var_os(UPDATE).is_some();
    for document in documents() {
        let path = folder("schemas").join(&document.path);
        let (states_in, states) = published(&document);
        let is_schema = document.path != "asyncapi.json";
        let is_new = states.last().map(structure) != Some(structure(&document.json));
        if update {
            if is_schema && is_new {
                assert_compatible(&document);
                write(&states_in.join(format!("{}.json", states.len() + 1)), &document.json);
            }
            write(&path, &document.json);
            continue;
        }
        let found = fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text(&document.json) && !(is_schema && is_new),
            "{} is not what the types say; `make schemas` writes it anew",
            path.display()
        );
    }
}

#[test]
fn every_event_that_is_written_has_its_schema() {
    for event in EventType::ALL {
        let found = documents::SCHEMAS.iter().find(|schema| {
            (schema.event, schema.version) == (event.name(), event.schema_version())
        });
        let found = found.unwrap_or_else(|| panic!("{event:?} is not in documents::SCHEMAS"));
        let json: Value = serde_json::from_str(found.text).unwrap();
        assert_eq!(json["$id"], event.dataschema());
        assert_eq!(json["$schema"], "https://json-schema.org/draft/2020-12/schema");
        jsonschema::meta::validate(&json).unwrap_or_else(|error| panic!("{event:?}: {error}"));
    }
    let generated: BTreeSet<_> = schemas().map(|document| document.path).collect();
    let served = documents::SCHEMAS.iter().map(|it| format!("{}/{}.json", it.event, it.version));
    assert_eq!(generated, served.collect(), "documents::SCHEMAS names each of them");
}

/// The golden fixtures against each state of the schema of their version.
#[test]
fn what_was_ever_written_is_valid_for_ever() {
    for document in schemas() {
        let name = document.path.strip_suffix(".json").unwrap().replace('/', ".v");
        let path = folder("tests/fixtures").join(format!("{name}.json"));
        let fixture = read(&path).unwrap_or_else(|| panic!("{} is missing", path.display()));
        let (states_in, states) = published(&document);
        assert!(!states.is_empty(), "{}", states_in.display());
        for (n, state) in (1..).zip(states.iter().chain([&document.json])) {
            assert_valid(&validator(state), &fixture, &format!("{name}, state {n}"));
        }
    }
}

/// Nothing is written that no schema names: `additionalProperties` is closed for this.
#[test]
fn the_schemas_name_every_field_that_is_written() {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(keywords) => {
                if let Some(open) = keywords.get_mut("additionalProperties") {
                    *open = Value::Bool(false);
                }
                keywords.values_mut().for_each(close);
            }
            Value::Array(all) => all.iter_mut().for_each(close),
            _ => {}
        }
    }
    for mut document in schemas() {
        let name = document.path.strip_suffix(".json").unwrap().replace('/', ".v");
        let fixture = read(&folder("tests/fixtures").join(format!("{name}.json"))).unwrap();
        close(&mut document.json);
        let validator = validator(&document.json);
        assert_valid(&validator, &fixture, &name);
        for field in fixture.as_object().unwrap().keys() {
            let mut less = fixture.clone();
            less.as_object_mut().unwrap().remove(field);
            assert!(!validator.is_valid(&less), "{name} without {field}");
        }
        let mut more = fixture.clone();
        more["new"] = Value::Null;
        assert!(!validator.is_valid(&more), "{name}");
    }
}

#[test]
fn values_out_of_bounds_are_not_valid() {
    let schema = schemas().find(|it| it.path == "LeadCreated/1.json").unwrap();
    let validator = validator(&schema.json);
    let fixture = read(&folder("tests/fixtures/LeadCreated.v1.json")).unwrap();
    let long = Value::from("é".repeat(255));
    for (pointer, value, valid) in [
        ("/lead/code", long.clone(), true),
        ("/lead/code", Value::from("é".repeat(256)), false),
        ("/lead/code", Value::from(""), false),
        ("/lead/code", Value::Null, true),
        ("/lead/source", Value::from(1), false),
        ("/lead/properties", Value::from("x"), false),
        ("/lead/visitor_id", Value::from("x"), false),
        ("/lead/created_at", Value::from("2026-01-31T12:00:00Z"), false),
        ("/lead/created_at", Value::Null, false),
        ("/event_id", Value::Null, false),
        ("/type", Value::from("LeadUpdated"), false),
        ("/schema_version", Value::from(2), false),
    ] {
        let mut changed = fixture.clone();
        *changed.pointer_mut(pointer).unwrap() = value.clone();
        assert_eq!(validator.is_valid(&changed), valid, "{pointer} {value}");
    }
}

#[test]
fn the_asyncapi_document_is_valid_and_whole() {
    let schema = read(&folder("tests/asyncapi/3.0.0.json")).unwrap();
    let document: Value = serde_json::from_str(documents::ASYNCAPI).unwrap();
    let options = jsonschema::options().with_draft(jsonschema::Draft::Draft7);
    let validator = options.build(&schema).unwrap_or_else(|error| panic!("{error}"));
    assert_valid(&validator, &document, "asyncapi.json");
    let mut wrong = document.clone();
    wrong["operations"]["publishEvents"]["action"] = Value::from("shout");
    assert!(!validator.is_valid(&wrong), "the schema of AsyncAPI refuses something");
    assert_references(&document, &document);

    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(messages.len(), documents::SCHEMAS.len());
    for schema in &documents::SCHEMAS {
        let message = &messages[&format!("{}V{}", schema.event, schema.version)];
        let alone: Value = serde_json::from_str(schema.text).unwrap();
        assert_eq!(structure(&message["payload"]), structure(&alone));
    }
}

fn assert_references(node: &Value, root: &Value) {
    match node {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect("within the document");
                assert!(root.pointer(pointer).is_some(), "{reference}");
            }
            fields.values().for_each(|field| assert_references(field, root));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_references(item, root)),
        _ => {}
    }
}

#[test]
fn the_asyncapi_document_knows_every_header() {
    let document: Value = serde_json::from_str(documents::ASYNCAPI).unwrap();
    for event in EventType::ALL {
        let name = format!("{}.v{}.json", event.name(), event.schema_version());
        let fixture = fs::read_to_string(folder("tests/fixtures").join(name)).unwrap();
        let written = Event::decode(Some(fixture.as_bytes())).unwrap();
        let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let headers = Headers::of(&written, Some(trace));
        let message = format!("{}V{}", event.name(), event.schema_version());
        let schema = &document["components"]["messages"][message]["headers"];
        let named: BTreeSet<_> = schema["properties"].as_object().unwrap().keys().collect();
        let sent: Value =
            headers.iter().map(|(n, text)| (n.to_owned(), Value::from(text))).collect();
        assert_eq!(named, sent.as_object().unwrap().keys().collect());
        let validator = validator(schema);
        assert_valid(&validator, &sent, event.name());
        for required in schema["required"].as_array().unwrap() {
            let mut less = sent.clone();
            less.as_object_mut().unwrap().remove(required.as_str().unwrap());
            assert!(!validator.is_valid(&less), "{required}");
        }
    }
}
