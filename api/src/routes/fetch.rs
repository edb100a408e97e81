//! `GET /api/v1/leads/{id}`

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::partition;
use tokio::time::Instant;
use uuid::Uuid;

use super::LeadAnswer;
use super::guard::{self, Terms};
use crate::access::Scope;
use crate::context::Route;
use crate::domain::hyphenated_uuid;
use crate::error::{ApiError, ErrorCode};
use crate::read_model::StoredLead;
use crate::startup::App;

/// Answers with one lead, as of the log.
pub(super) async fn fetch(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Lead, scopes: &[Scope::LeadsRead], body: None };
    let caller = guard::admit(&request, &app, terms)?;
    let id = lead_id(&request)?;
    let deadline = Instant::now() + app.limits.read_wait;
    let reading = caller.trace().reading("SELECT leads");
    let stored = find(&app, caller.workspace_id, id, deadline).await?;
    drop(reading);
    Ok(answer(request.headers(), &stored))
}

/// The lead, or 404 that is true as of now: a miss waits until the projection has passed the end
/// that the lead's partition has at this moment.
pub(super) async fn find(
    app: &App,
    workspace_id: Uuid,
    id: Uuid,
    deadline: Instant,
) -> Result<StoredLead, ApiError> {
    if let Some(stored) = app.read_model.lead(workspace_id, id, deadline).await? {
        return Ok(stored);
    }
    let mut key = Uuid::encode_buffer();
    let key = id.hyphenated().encode_lower(&mut key).as_bytes();
    let unknown = || {
        ApiError::new(
            ErrorCode::BrokerUnavailable,
            "the lead is not in the read model, and the log can't be asked whether it is on its way. Try again",
        )
    };
    let partitions = match app.broker.partitions() {
        0 => return Err(unknown()),
        partitions => partitions,
    };
    let partition = partition::of_key(key, partitions);
    // Most often it was taken in here a moment ago: then the log need not be asked.
    if let Some(end) = app.broker.acknowledged_end(partition) {
        app.projection.passed(partition, end, deadline).await?;
        if let Some(stored) = app.read_model.lead(workspace_id, id, deadline).await? {
            return Ok(stored);
        }
    }
    let remaining = deadline.saturating_duration_since(Instant::now());
    let end = app.broker.end_offset(partition, remaining).await.ok_or_else(unknown)?;
    app.projection.passed(partition, end, deadline).await?;
    app.read_model.lead(workspace_id, id, deadline).await?.ok_or_else(ApiError::lead_not_found)
}

/// The id in the path. What is no UUID is the id of no lead.
pub(super) fn lead_id(request: &HttpRequest) -> Result<Uuid, ApiError> {
    // Not by an extractor: its errors are not ours.
    request.match_info().get("id").and_then(hyphenated_uuid).ok_or_else(ApiError::lead_not_found)
}

/// 200 with the lead and its entity tag, or 304 when the client has this version.
pub(super) fn answer(headers: &HeaderMap, stored: &StoredLead) -> HttpResponse {
    let tag = format!("\"{}\"", stored.version);
    let matches = client_has(headers, &tag);
    let status = if matches { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = HttpResponse::build(status);
    response.insert_header((header::ETAG, tag));
    if matches { response.finish() } else { response.json(LeadAnswer { data: &stored.lead }) }
}

/// Whether `If-None-Match` names the entity tag.
pub(super) fn client_has(headers: &HeaderMap, tag: &str) -> bool {
    headers.get_all(header::IF_NONE_MATCH).filter_map(|v| v.to_str().ok()).any(|v| {
        // Weak comparison: RFC 9110, 13.1.2.
        v.split(',').map(str::trim).any(|v| v == "*" || v.strip_prefix("W/").unwrap_or(v) == tag)
    })
}
