//! What the document says of the log over HTTP.

use serde_json::Value;
use utoipa::ToSchema;

use super::docs::ErrorAnswer;

/// A page of a lead's history, in log order.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what routes::history writes")]
pub(super) struct HistoryAnswer {
    data: Vec<HistoryEntry>,
    pagination: HistoryPagination,
}

/// An event of the lead.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what routes::history writes")]
pub(super) struct HistoryEntry {
    /// Null when the record is no event that this version can read.
    #[schema(required)]
    event_id: Option<uuid::Uuid>,
    #[schema(required)]
    r#type: Option<String>,
    /// When the API took it in.
    #[schema(required, format = DateTime)]
    time: Option<String>,
    /// `<partition>:<offset>` in the log.
    position: String,
    /// Whether it changed the lead: not a second creation, nor an update that expected another version.
    effective: bool,
    /// The lead's version behind it.
    version: u64,
    /// The event as it stands in the log.
    #[schema(required, value_type = Option<Object>)]
    event: Option<Value>,
}

/// Where the page stands.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what routes::history writes")]
pub(super) struct HistoryPagination {
    /// Most events on a page.
    #[schema(minimum = 1, maximum = 100)]
    limit: i64,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

#[utoipa::path(
    get, path = "/api/v1/leads/events", tag = "events",
    summary = "Stream the workspace's events",
    description = "Server-Sent Events: event is the type, data the event as it stands in the log, id the \
        position to resume from, at any instance. In log order per lead. Needs the scope leads:read.",
    params(
        ("from" = Option<String>, Query, description = "beginning, now, a position, or an RFC 3339 time; \
            now by default"),
        ("type" = Option<String>, Query, description = "LeadCreated, LeadUpdated, or both with a comma; all \
            by default"),
        ("Last-Event-ID" = Option<String>, Header, description = "A position; wins over from"),
    ),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 400, body = ErrorAnswer, description = "validation_failed, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 409, body = ErrorAnswer, description = "position_ahead"),
        (status = 410, body = ErrorAnswer, description = "position_gone"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded, too_many_streams"),
        (status = 503, body = ErrorAnswer, description = "starting, overloaded, broker_unavailable"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::events")]
pub(super) fn stream() {}

#[utoipa::path(
    get, path = "/api/v1/leads/{id}/events", tag = "events",
    summary = "Read a lead's history",
    description = "Out of the log: each event up to the last that changed the lead. A page may be empty \
        although next_cursor says that there is more. Needs the scope leads:read.",
    params(
        ("id" = uuid::Uuid, Path),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Events on a page; 50 by default"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = HistoryAnswer),
        (status = 400, body = ErrorAnswer, description = "validation_failed, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 404, body = ErrorAnswer, description = "lead_not_found"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, read_model_behind, \
            read_model_unavailable, broker_unavailable, overloaded"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::history")]
pub(super) fn history() {}
