//! The documents of the contract, generated from the types: see [`crate::documents`].
//!
//! Schemas say what is written. Readers may meet fields that no schema names: new ones may come at
//! any time, and every object is open for them.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::event::EventType;
use crate::lead::TEXT_MAX_CHARS;
use crate::{Change, Changes, Json, Lead, Text, Timestamp, topic};

/// A document, to be kept in a file.
#[derive(Debug, Clone)]
pub struct Document {
    /// Where it stands in `shared/schemas`, with `/` between folder and file.
    pub path: String,
    /// The document.
    pub json: Value,
}

/// Every document of the contract.
pub fn documents() -> Vec<Document> {
    let schemas = schemas();
    let asyncapi = Document { path: "asyncapi.json".to_owned(), json: asyncapi(&schemas) };
    let schemas = schemas.into_iter().map(|Generated { event, version, schema }| Document {
        path: format!("{}/{version}.json", event.name()),
        json: schema,
    });
    schemas.chain([asyncapi]).collect()
}

/// A version of an event.
struct Generated {
    event: EventType,
    version: u32,
    schema: Value,
}

/// A new version is one line here; those before it stay.
fn schemas() -> Vec<Generated> {
    vec![
        version::<LeadCreatedV1>(EventType::LeadCreated, 1),
        version::<LeadUpdatedV1>(EventType::LeadUpdated, 1),
    ]
}

/// The value of a record whose `ce_type` is `LeadCreated`: a lead was taken in. The first in log order
/// stands; later ones of the same lead have no effect.
#[derive(JsonSchema)]
#[schemars(title = "LeadCreated, version 1")]
#[allow(dead_code, reason = "describes what Event::encode writes")]
struct LeadCreatedV1 {
    /// Unique; the same for a retry with the same idempotency key. Drop duplicates by it.
    event_id: Uuid,
    /// What happened.
    #[schemars(rename = "type", schema_with = "lead_created")]
    event_type: String,
    /// Which version of the event this is.
    #[schemars(schema_with = "version_1")]
    schema_version: u32,
    /// When the API took the change in.
    occurred_at: Timestamp,
    /// The workspace that owns the lead.
    workspace_id: Uuid,
    /// The lead; also the record's key.
    lead_id: Uuid,
    /// The lead as it was then. Absent optionals are null, never omitted.
    lead: Lead<'static>,
}

/// The value of a record whose `ce_type` is `LeadUpdated`: fields of a lead were replaced or cleared.
#[derive(JsonSchema)]
#[schemars(title = "LeadUpdated, version 1")]
#[allow(dead_code, reason = "describes what Event::encode writes")]
struct LeadUpdatedV1 {
    /// Unique; the same for a retry with the same idempotency key. Drop duplicates by it.
    event_id: Uuid,
    /// What happened.
    #[schemars(rename = "type", schema_with = "lead_updated")]
    event_type: String,
    /// Which version of the event this is.
    #[schemars(schema_with = "version_1")]
    schema_version: u32,
    /// When the API took the change in.
    occurred_at: Timestamp,
    /// The workspace that owns the lead.
    workspace_id: Uuid,
    /// The lead; also the record's key.
    lead_id: Uuid,
    /// The fields that were given: a value replaces the field whole, null clears it, an absent one
    /// stays.
    changes: Changes<'static>,
    /// The update takes effect only if the lead has this version at this place in the log; null:
    /// always.
    expected_version: Option<u64>,
}

fn lead_created(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": EventType::LeadCreated.name() })
}

fn lead_updated(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "const": EventType::LeadUpdated.name() })
}

fn version_1(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "integer", "const": 1 })
}

impl JsonSchema for Timestamp {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "date-time",
            "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$",
        })
    }
}

impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1, "maxLength": TEXT_MAX_CHARS })
    }
}

impl JsonSchema for Json<'_> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        "Json".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object" })
    }
}

impl<T: JsonSchema> JsonSchema for Change<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Change_{}", T::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<Option<T>>()
    }
}

fn version<T: JsonSchema>(event: EventType, version: u32) -> Generated {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        // One file says it all: readers need no resolver.
        settings.inline_subschemas = true;
    });
    let mut schema =
        settings.with_transform(ForReaders).into_generator().into_root_schema_for::<T>();
    let id = format!("/schemas/{}/{version}", event.name());
    schema.insert("$id".to_owned(), json!(id));
    // People read it too: what it is comes first.
    let first = ["$schema", "$id", "title", "description", "type"];
    let mut rest = schema.to_value();
    let keywords = first.map(|name| (name.to_owned(), rest[name].take()));
    let rest = rest.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let rest = rest.map(|(name, value)| (name.clone(), value.clone()));
    Generated { event, version, schema: keywords.into_iter().chain(rest).collect() }
}

/// Opens every object whose fields are named, and leaves out what only speaks to Rust.
#[derive(Clone)]
struct ForReaders;

impl Transform for ForReaders {
    fn transform(&mut self, schema: &mut Schema) {
        if schema.get("properties").is_some() {
            schema.insert("additionalProperties".to_owned(), json!(true));
        }
        if let Some(Value::String(words)) = schema.remove("description") {
            // A link into the code says nothing to a reader.
            if !words.contains("[`") {
                schema.insert("description".to_owned(), json!(words.replace('\n', " ")));
            }
        }
        // The width of Rust's integers; the bounds say what there is to say.
        if schema.get("format").and_then(Value::as_str).is_some_and(|it| it.starts_with("uint")) {
            schema.remove("format");
        }
        transform_subschemas(self, schema);
    }
}

/// Source: <https://www.asyncapi.com/docs/reference/specification/v3.0.0> and its Kafka bindings.
fn asyncapi(versions: &[Generated]) -> Value {
    let reference = |at: &str, name: &str| json!({ "$ref": format!("#/{at}/{name}") });
    let named = |of: &dyn Fn(&Generated) -> Value| -> Map<String, Value> {
        versions.iter().map(|version| (message_name(version), of(version))).collect()
    };
    let settings = topic::events(topic::EVENTS, topic::DEFAULT_PARTITIONS);
    let settings: Map<String, Value> = settings
        .creation_settings()
        .map(|(name, value)| {
            // The bindings have a list of policies, and numbers as numbers.
            let value = value.parse::<i64>().map_or_else(|_| json!([value]), Value::from);
            (name.to_owned(), value)
        })
        .collect();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "leads: the log",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "CloudEvents 1.0 in binary mode. Drop duplicates by the event's id, ignore \
                fields that you don't know. A change that an old reader could not take comes as a new \
                schema_version.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": "application/json",
        "channels": {
            "events": {
                "address": topic::EVENTS,
                "title": "Everything that happened to leads",
                "description": "The key of a record is the lead's id, and its partition that of murmur2: \
                    all events of a lead stand in one partition, in the order in which they took \
                    effect. The number of partitions never changes.",
                "messages": named(&|version| {
                    reference("components/messages", &message_name(version))
                }),
                "bindings": { "kafka": {
                    "topic": topic::EVENTS,
                    "partitions": topic::DEFAULT_PARTITIONS,
                    "topicConfiguration": settings,
                    "bindingVersion": "0.5.0",
                } },
            },
        },
        "operations": {
            "publishEvents": {
                "action": "send",
                "summary": "The API publishes what it has taken in, before it says yes to its client.",
                "channel": reference("channels", "events"),
                "messages": versions
                    .iter()
                    .map(|version| reference("channels/events/messages", &message_name(version)))
                    .collect::<Vec<_>>(),
            },
        },
        "components": { "messages": named(&message) },
    })
}

fn message_name(Generated { event, version, .. }: &Generated) -> String {
    format!("{}V{version}", event.name())
}

fn message(version: &Generated) -> Value {
    // An AsyncAPI schema is its own dialect, and a part of this document.
    let mut payload = version.schema.clone();
    if let Some(payload) = payload.as_object_mut() {
        payload.shift_remove("$schema");
        payload.shift_remove("$id");
    }
    json!({
        "name": version.event.name(),
        "title": payload["title"],
        "summary": payload["description"],
        "contentType": "application/json",
        "headers": headers(version),
        "payload": payload,
        "bindings": { "kafka": {
            "key": { "type": "string", "format": "uuid", "description": "The lead's id." },
            "bindingVersion": "0.5.0",
        } },
    })
}

/// As [`crate::headers`] writes them.
fn headers(Generated { event, version, .. }: &Generated) -> Value {
    let exactly = |text: &str| json!({ "type": "string", "const": text });
    let formatted = |format: &str, what: &str| json!({ "type": "string", "format": format, "description": what });
    json!({
        "type": "object",
        "required": [
            "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time",
            "ce_dataschema", "content-type",
        ],
        "properties": {
            "ce_specversion": exactly("1.0"),
            "ce_id": formatted("uuid", "The event's id."),
            "ce_source": {
                "type": "string",
                "pattern": "^/workspaces/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
                "description": "The workspace that owns the lead.",
            },
            "ce_type": exactly(event.name()),
            "ce_subject": formatted("uuid", "The lead's id."),
            "ce_time": formatted("date-time", "When the API took the change in."),
            "ce_dataschema": exactly(&format!("/schemas/{}/{version}", event.name())),
            "content-type": exactly("application/json"),
            "traceparent": {
                "type": "string",
                "pattern": "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$",
                "description": "W3C trace context, when the request had one or is traced.",
            },
        },
        "additionalProperties": true,
    })
}
