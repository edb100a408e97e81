//! `GET /asyncapi.json` and `GET /schemas/{event}/{version}`: the contract of the log.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::documents::{ASYNCAPI, SCHEMAS};
use serde_json::json;

use super::fetch::client_has;
use super::{name_route, not_allowed};
use crate::context::Route;
use crate::error::{ApiError, ErrorCode};

/// A version of an event may gain fields; a reader that learns of them an hour later loses nothing.
const CACHE: &str = "public, max-age=3600";

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/asyncapi.json")
                .route(web::get().to(asyncapi))
                .route(web::head().to(asyncapi))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::AsyncApi, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/schemas/{event}/{version}")
                .route(web::get().to(schema))
                .route(web::head().to(schema))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Schema, "GET, HEAD")
                })),
        );
}

#[utoipa::path(
    get, path = "/asyncapi.json", tag = "log", summary = "The log as an AsyncAPI 3 document",
    params(("If-None-Match" = Option<String>, Header, description = "The ETag that the client has")),
    responses(
        (status = 200, description = "The document", body = Object, headers(
            ("ETag" = String, description = "Of this text"),
            ("Cache-Control" = String, description = "public, max-age=3600"))),
        (status = 304, description = "The client has it"),
    ),
    security(()),
)]
async fn asyncapi(request: HttpRequest) -> HttpResponse {
    name_route(&request, Route::AsyncApi);
    serve(&request, ASYNCAPI, "application/json")
}

#[utoipa::path(
    get, path = "/schemas/{event}/{version}", tag = "log",
    summary = "The JSON Schema of a version of an event",
    description = "What the header ce_dataschema of a record points to.",
    params(
        ("event" = String, Path, description = "As ce_type names it", example = "LeadCreated"),
        ("version" = u32, Path, description = "The schema_version", example = 1),
        ("If-None-Match" = Option<String>, Header, description = "The ETag that the client has"),
    ),
    responses(
        (status = 200, description = "The schema", body = Object, content_type = "application/schema+json",
            headers(
                ("ETag" = String, description = "Of this text"),
                ("Cache-Control" = String, description = "public, max-age=3600"))),
        (status = 304, description = "The client has it"),
        (status = 404, body = super::docs::ErrorAnswer, description = "schema_not_found"),
    ),
    security(()),
)]
async fn schema(
    request: HttpRequest,
    path: web::Path<(String, String)>,
) -> Result<HttpResponse, ApiError> {
    name_route(&request, Route::Schema);
    let (event, version) = path.into_inner();
    let found = SCHEMAS.iter().find(|it| it.event == event && it.version.to_string() == version);
    let found = found.ok_or_else(|| {
        let known: Vec<_> =
            SCHEMAS.iter().map(|it| format!("/schemas/{}/{}", it.event, it.version)).collect();
        ApiError::new(
            ErrorCode::SchemaNotFound,
            "no such event, or no such version of it; details.schemas lists those that there are",
        )
        .with_details(json!({ "schemas": known }))
    })?;
    Ok(serve(&request, found.text, "application/schema+json"))
}

fn serve(request: &HttpRequest, text: &'static str, content_type: &'static str) -> HttpResponse {
    let tag = format!("\"{:08x}\"", crc32fast::hash(text.as_bytes()));
    let has_it = client_has(request.headers(), &tag);
    let mut response = if has_it { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::ETAG, tag)).insert_header((header::CACHE_CONTROL, CACHE));
    if has_it { response.finish() } else { response.content_type(content_type).body(text) }
}
