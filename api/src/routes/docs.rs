//! `GET /openapi.json` and `GET /docs`

use std::sync::Arc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::Lead;
use serde::Deserialize;
use serde_json::Value;
use utoipa::{OpenApi, ToSchema};
use utoipa_swagger_ui as swagger;

use super::docs_events::{self, HistoryAnswer, HistoryEntry, HistoryPagination};
use super::docs_of_all::{OfConnections, Security};
use super::health::{Liveness, Readiness};
use super::list::{ListAnswer, Pagination};
use super::{LeadAnswer, name_route, no_such_route, not_allowed};
use crate::context::Route;
use crate::domain::{FieldCode, FieldError};
use crate::error::ApiError;

/// The document, generated from the types that the handlers answer with.
pub fn openapi() -> utoipa::openapi::OpenApi {
    Document::openapi()
}

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/openapi.json")
                .route(web::get().to(document))
                .route(web::head().to(document))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::OpenApi, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/docs")
                .route(web::get().to(to_docs))
                .route(web::head().to(to_docs))
                .default_service(web::to(|request| not_allowed(request, Route::Docs, "GET, HEAD"))),
        )
        .service(
            web::resource("/docs/{file:.*}")
                .route(web::get().to(page))
                .route(web::head().to(page))
                .default_service(web::to(|request| not_allowed(request, Route::Docs, "GET, HEAD"))),
        );
}

async fn document(request: HttpRequest) -> HttpResponse {
    name_route(&request, Route::OpenApi);
    HttpResponse::Ok().json(openapi())
}

async fn to_docs(request: HttpRequest) -> HttpResponse {
    name_route(&request, Route::Docs);
    HttpResponse::Found().insert_header((header::LOCATION, "/docs/")).finish()
}

/// A file of the pages; they are compiled in.
async fn page(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    name_route(&request, Route::Docs);
    let config = swagger::Config::new(["/openapi.json"]).try_it_out_enabled(true);
    let path = request.match_info().get("file").unwrap_or_default();
    let file = swagger::serve(path, Arc::new(config)).ok().flatten().ok_or_else(no_such_route)?;
    Ok(HttpResponse::Ok().content_type(file.content_type).body(file.bytes.into_owned()))
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "leads",
        description = "Takes leads in. A 2xx on a write means that the message broker has the event on \
            all in-sync replicas.",
    ),
    paths(
        create, create_batch, list, docs_events::stream, fetch, update, docs_events::history, livez, readyz,
        super::contract::asyncapi, super::contract::schema, super::system::status::status,
        super::system::dead_letters::dead_letters, super::system::keys::keys, super::system::whoami::whoami,
    ),
    components(schemas(
        CreateLead, BatchItem, BatchAnswer, BatchOutcome, UpdateLead, Lead<'static>, LeadAnswer<'static>, ListAnswer, Pagination, ErrorAnswer,
        FieldError, FieldCode, Liveness, Readiness, HistoryAnswer, HistoryEntry, HistoryPagination,
    )),
    security(("bearer" = []), ("api_key" = [])),
    modifiers(&Security, &OfConnections),
)]
struct Document;

/// The body of a POST. Every field is optional; `null` is the same as absent; an unknown field is
/// an error. At most 256 KiB, nested at most 64 levels deep.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "describes what domain::NewLead reads")]
struct CreateLead {
    visitor_id: Option<uuid::Uuid>,
    identity_id: Option<uuid::Uuid>,
    session_id: Option<uuid::Uuid>,
    company_id: Option<uuid::Uuid>,
    #[schema(min_length = 1, max_length = 255)]
    code: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    source: Option<String>,
    /// Free data. Numbers of up to 1,000 digits are kept; `\u0000` and lone surrogates are refused.
    #[schema(value_type = Option<Object>)]
    properties: Option<Value>,
    #[schema(value_type = Option<Object>)]
    location: Option<Value>,
}

/// A lead of a batch, and the idempotency key beside it.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what domain::parse_item reads")]
struct BatchItem {
    #[serde(flatten)]
    lead: CreateLead,
    /// Visible ASCII characters. Wins over the request's Idempotency-Key.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// What became of the items of a batch, in their order.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what routes::batch writes")]
struct BatchAnswer {
    /// When no item was taken: the code of the whole.
    error: Option<String>,
    /// The same in words.
    message: Option<String>,
    data: Vec<BatchOutcome>,
}

/// What became of an item.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what routes::batch writes")]
struct BatchOutcome {
    /// From 0.
    #[schema(minimum = 0)]
    index: u32,
    /// 201 when it was taken.
    status: u16,
    /// The lead's id, when it was taken.
    id: Option<uuid::Uuid>,
    /// The lead, when it was taken and `Prefer: return=representation` was sent.
    #[schema(value_type = Option<Lead<'static>>)]
    lead: Option<Value>,
    /// Why it was not taken.
    error: Option<ErrorAnswer>,
}

/// The body of a PATCH: a given field is replaced whole, `null` clears it, an absent one stays.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(min_properties = 1)]
#[allow(dead_code, reason = "describes what domain::parse_changes reads")]
struct UpdateLead {
    visitor_id: Option<uuid::Uuid>,
    identity_id: Option<uuid::Uuid>,
    session_id: Option<uuid::Uuid>,
    company_id: Option<uuid::Uuid>,
    #[schema(min_length = 1, max_length = 255)]
    code: Option<String>,
    #[schema(min_length = 1, max_length = 255)]
    source: Option<String>,
    #[schema(value_type = Option<Object>)]
    properties: Option<Value>,
    #[schema(value_type = Option<Object>)]
    location: Option<Value>,
    #[schema(value_type = Option<Object>)]
    summary: Option<Value>,
}

/// Every error of the service has this shape.
#[derive(ToSchema)]
#[allow(dead_code, reason = "describes what error::ApiError writes")]
pub(super) struct ErrorAnswer {
    /// Stable code.
    #[schema(example = "validation_failed")]
    error: String,
    /// What is wrong, where, and how to mend it.
    message: String,
    /// More, by code; `fields` lists every field that is not valid.
    #[schema(value_type = Object)]
    details: Value,
    /// Seconds; with 429 only.
    retry_after: Option<u32>,
}

#[utoipa::path(
    post, path = "/api/v1/leads", tag = "leads",
    summary = "Create a lead",
    description = "Answered when the broker has the event. Needs the scope leads:write.",
    params(("Idempotency-Key" = Option<String>, Header,
        description = "1 to 255 visible ASCII characters: a retry with the same key makes no second lead")),
    request_body = CreateLead,
    responses(
        (status = 201, description = "Taken", body = LeadAnswer<'static>, headers(
            ("Location" = String, description = "Path of the lead"),
            ("ETag" = String, description = "\"1\""),
            ("X-Lead-Position" = String, description = "<partition>:<offset> in the log"),
            ("Idempotency-Replayed" = Option<String>, description = "true: the answer of an earlier request"))),
        (status = 400, body = ErrorAnswer, description = "malformed_json, validation_failed, \
            invalid_idempotency_key, malformed_encoding, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 408, body = ErrorAnswer, description = "request_timeout"),
        (status = 413, body = ErrorAnswer, description = "payload_too_large"),
        (status = 415, body = ErrorAnswer, description = "unsupported_media_type, unsupported_content_encoding"),
        (status = 422, body = ErrorAnswer, description = "idempotency_key_reused"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, broker_unavailable, overloaded: \
            nothing was taken; publish_timeout: it may have been taken"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::create")]
fn create() {}

#[utoipa::path(
    post, path = "/api/v1/leads/batch", tag = "leads",
    summary = "Create many leads",
    description = "Up to 1,000 leads and 5 MiB after decompression. Each item has its own outcome. Needs \
        the scope leads:write.",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "The item at index i has the key `<this>:i`, unless it has one of its own"),
        ("Prefer" = Option<String>, Header,
            description = "return=representation for whole leads; return=minimal is the default"),
    ),
    request_body(content(
        (Vec<BatchItem> = "application/json"),
        (String = "application/x-ndjson"),
    )),
    responses(
        (status = 201, description = "All taken", body = BatchAnswer),
        (status = 207, description = "Some taken", body = BatchAnswer),
        (status = 400, body = BatchAnswer, description = "batch_refused: none taken, each for its content. \
            Without data: malformed_json, empty_batch, invalid_idempotency_key, malformed_encoding, \
            ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 408, body = ErrorAnswer, description = "request_timeout"),
        (status = 413, body = ErrorAnswer, description = "payload_too_large"),
        (status = 415, body = ErrorAnswer, description = "unsupported_media_type, unsupported_content_encoding"),
        (status = 422, body = ErrorAnswer, description = "idempotency_key_reused, of an item"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = BatchAnswer, description = "None taken, at least one for want of the broker: \
            broker_unavailable, overloaded, publish_timeout. Without data: starting"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::batch")]
fn create_batch() {}

#[utoipa::path(
    get, path = "/api/v1/leads", tag = "leads",
    summary = "List leads, newest first",
    description = "Needs the scope leads:read. An unknown parameter is an error.",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Leads on a page; 50 by default"),
        ("offset" = Option<i64>, Query, minimum = 0, description = "Leads to leave out; not together with cursor"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("source" = Option<String>, Query),
        ("code" = Option<String>, Query),
        ("visitor_id" = Option<uuid::Uuid>, Query),
        ("created_after" = Option<String>, Query, format = DateTime, description = "RFC 3339, exclusive"),
        ("created_before" = Option<String>, Query, format = DateTime, description = "RFC 3339, exclusive"),
    ),
    responses(
        (status = 200, description = "A page", body = ListAnswer),
        (status = 400, body = ErrorAnswer, description = "validation_failed, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, read_model_unavailable"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::list")]
fn list() {}

#[utoipa::path(
    get, path = "/api/v1/leads/{id}", tag = "leads",
    summary = "Read a lead",
    description = "A miss is checked against the log, so that a 404 is true as of the log. Needs the \
        scope leads:read.",
    params(
        ("id" = uuid::Uuid, Path),
        ("If-None-Match" = Option<String>, Header, description = "The ETag that the client has"),
    ),
    responses(
        (status = 200, description = "The lead", body = LeadAnswer<'static>,
            headers(("ETag" = String, description = "\"<version>\""))),
        (status = 304, description = "The client has this version"),
        (status = 400, body = ErrorAnswer, description = "ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 404, body = ErrorAnswer, description = "lead_not_found"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, read_model_behind, \
            read_model_unavailable, broker_unavailable"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::fetch")]
fn fetch() {}

#[utoipa::path(
    patch, path = "/api/v1/leads/{id}", tag = "leads",
    summary = "Update a lead",
    description = "Answers with the lead at or after the update. Needs the scopes leads:write and \
        leads:read.",
    params(
        ("id" = uuid::Uuid, Path),
        ("If-Match" = Option<String>, Header, description = "The ETag that the update rests on, or *"),
        ("Idempotency-Key" = Option<String>, Header, description = "A retry with the same key has no second effect"),
    ),
    request_body = UpdateLead,
    responses(
        (status = 200, description = "The lead at or after the update", body = LeadAnswer<'static>, headers(
            ("ETag" = String, description = "\"<version>\""),
            ("X-Lead-Position" = String, description = "<partition>:<offset> in the log"))),
        (status = 202, description = "Taken, not projected yet: the lead as it will be", body = LeadAnswer<'static>),
        (status = 400, body = ErrorAnswer, description = "malformed_json, validation_failed, \
            empty_update, invalid_if_match, invalid_idempotency_key, malformed_encoding, \
            ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 404, body = ErrorAnswer, description = "lead_not_found"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 408, body = ErrorAnswer, description = "request_timeout"),
        (status = 412, body = ErrorAnswer, description = "precondition_failed"),
        (status = 413, body = ErrorAnswer, description = "payload_too_large"),
        (status = 415, body = ErrorAnswer, description = "unsupported_media_type, unsupported_content_encoding"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, read_model_behind, read_model_unavailable, \
            broker_unavailable, overloaded: nothing was taken; publish_timeout: it may have been taken"),
    ),
)]
#[allow(dead_code, reason = "the document's text of routes::update")]
fn update() {}

#[utoipa::path(
    get, path = "/livez", tag = "health", summary = "Whether the process lives",
    responses((status = 200, description = "It does", body = Liveness)), security(()),
)]
#[allow(dead_code, reason = "the document's text of routes::health::livez")]
fn livez() {}

#[utoipa::path(
    get, path = "/readyz", tag = "health", summary = "Whether leads can be taken in",
    responses(
        (status = 200, description = "They can; `degraded` when reads can't be answered", body = Readiness),
        (status = 503, description = "They can't", body = Readiness),
    ),
    security(()),
)]
#[allow(dead_code, reason = "the document's text of routes::health::readyz")]
fn readyz() {}
