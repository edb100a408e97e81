//! `PATCH /api/v1/leads/{id}`

use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use leads_shared::{Changes, Event, Lead, Payload, Timestamp};
use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::create::position;
use super::guard::{self, Terms};
use super::{LeadAnswer, body, fetch};
use crate::access::Scope;
use crate::context::Route;
use crate::domain::{MAX_LEAD_BYTES, parse_changes};
use crate::error::{ApiError, ErrorCode};
use crate::publisher::Published;
use crate::read_model::{ReadModelError, StoredLead};
use crate::startup::App;

/// Publishes an update, and answers with the lead at or after it.
pub(super) async fn update(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms {
        route: Route::Lead,
        scopes: &[Scope::LeadsWrite, Scope::LeadsRead],
        body: guard::LEAD_BODY,
    };
    let caller = guard::admit(&request, &app, terms)?;
    let key = guard::idempotency_key(request.headers())?;
    let expected_version = expected_version(request.headers())?;
    let body = body::read(request.headers(), payload, MAX_LEAD_BYTES, &app).await?;
    let changes = parse_changes(&body)?;
    let workspace_id = caller.workspace_id;
    let lead_id = fetch::lead_id(&request)?;
    let before =
        fetch::find(&app, workspace_id, lead_id, Instant::now() + app.limits.read_wait).await?;

    let event = Event {
        event_id: key
            .map_or_else(Uuid::now_v7, |key| key.update_event_id(lead_id, expected_version)),
        occurred_at: Timestamp::from(Utc::now()),
        workspace_id,
        lead_id,
        payload: Payload::LeadUpdated { changes: changes.clone(), expected_version },
    };
    let published = app.publish(&event, caller.share(), caller.trace()).await?;
    // From here on the update is in the log: whatever PostgreSQL does, the answer is no error of ours.
    match outcome(&app, &event, &published, expected_version.is_some()).await {
        Ok(Outcome::Applied(stored)) => {
            let mut response = fetch::answer(&HeaderMap::new(), &stored);
            let (name, value) = position(published.position);
            if let Ok(value) = value.parse() {
                response.headers_mut().insert(name, value);
            }
            Ok(response)
        }
        Ok(Outcome::TooLate(stored)) => {
            app.metrics.precondition_failed();
            Err(precondition_failed(expected_version, &stored))
        }
        Err(ReadModelError::Behind | ReadModelError::Unavailable) => Ok(HttpResponse::Accepted()
            .insert_header(position(published.position))
            .json(LeadAnswer { data: &merged(before.lead, changes, event.occurred_at) })),
    }
}

enum Outcome {
    /// The lead at or after the update.
    Applied(StoredLead),
    /// Another write came first in the log; the lead as it is.
    TooLate(StoredLead),
}

async fn outcome(
    app: &App,
    event: &Event<'_>,
    published: &Published,
    conditional: bool,
) -> Result<Outcome, ReadModelError> {
    let deadline = Instant::now() + app.limits.read_wait;
    let at = published.position;
    app.projection.passed(at.partition, at.offset + 1, deadline).await?;
    let too_late =
        conditional && app.read_model.precondition_failed(event.event_id, deadline).await?;
    let stored = app.read_model.lead(event.workspace_id, event.lead_id, deadline).await?;
    // It was there before the update was published, and leads are never removed.
    let stored = stored.ok_or(ReadModelError::Behind)?;
    if app.read_model.is_set_aside(at.partition, at.offset, deadline).await? {
        // It waits behind a dead letter of the lead, and takes effect when that is redriven.
        return Err(ReadModelError::Behind);
    }
    Ok(if too_late { Outcome::TooLate(stored) } else { Outcome::Applied(stored) })
}

/// The lead as the update will leave it, unless another one comes first.
fn merged<'a>(mut lead: Lead<'a>, changes: Changes<'a>, at: Timestamp) -> Lead<'a> {
    lead.apply(changes, at);
    lead
}

/// `If-Match: "3"` expects version 3; `*` and no header expect nothing.
///
/// # Errors
/// When it is given more than once, or is anything else.
pub fn expected_version(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let invalid = || {
        ApiError::new(
            ErrorCode::InvalidIfMatch,
            "If-Match takes the ETag of the lead, such as \"3\", or *",
        )
    };
    let mut values = headers.get_all(header::IF_MATCH);
    let Some(value) = values.next() else { return Ok(None) };
    let value = value.to_str().map_err(|_| invalid())?.trim();
    if values.next().is_some() {
        return Err(invalid());
    }
    if value == "*" {
        return Ok(None);
    }
    let digits = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).ok_or_else(invalid)?;
    if digits.starts_with('+') {
        return Err(invalid());
    }
    digits.parse().map(Some).map_err(|_| invalid())
}

fn precondition_failed(expected: Option<u64>, stored: &StoredLead) -> ApiError {
    ApiError::new(
        ErrorCode::PreconditionFailed,
        "another write came first; GET the lead and apply the change to its present version",
    )
    .with_details(json!({ "expected_version": expected, "current_version": stored.version }))
}
