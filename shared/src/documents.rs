//! The contract of the log as documents: a JSON Schema for each version of each event, and `AsyncAPI`.
//!
//! They stand in `shared/schemas`. `make schemas` writes them anew from the types of this crate; a
//! test holds them to the types.

/// The `AsyncAPI` 3 document of the events topic.
///
/// Source: <https://www.asyncapi.com/docs/reference/specification/v3.0.0>.
pub const ASYNCAPI: &str = include_str!("../schemas/asyncapi.json");

/// Every schema there is, the versions of an event in their order.
pub const SCHEMAS: [EventSchema; 2] = [
    EventSchema {
        event: "LeadCreated",
        version: 1,
        text: include_str!("../schemas/LeadCreated/1.json"),
    },
    EventSchema {
        event: "LeadUpdated",
        version: 1,
        text: include_str!("../schemas/LeadUpdated/1.json"),
    },
];

/// The JSON Schema (2020-12) of the values of one version of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSchema {
    /// The event's type, as `ce_type` names it.
    pub event: &'static str,
    /// The `schema_version`.
    pub version: u32,
    /// The schema.
    pub text: &'static str,
}
