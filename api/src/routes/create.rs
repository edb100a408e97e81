//! `POST /api/v1/leads`

use std::time::Instant;

use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use chrono::Utc;
use leads_shared::{Event, Payload, Timestamp};
use uuid::Uuid;

use super::body;
use super::guard::{self, Terms};
use crate::access::Scope;
use crate::broker::Position;
use crate::context::Route;
use crate::domain::idempotency::{IdempotencyKey, creation_event_id};
use crate::domain::{MAX_LEAD_BYTES, NewLead};
use crate::error::{ApiError, ErrorCode};
use crate::publisher::{PublishError, Published};
use crate::recent::{Begin, Content, Stored, Ticket};
use crate::startup::App;

const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const POSITION: HeaderName = HeaderName::from_static("x-lead-position");

/// Takes a lead in; answers when the broker has it.
pub(super) async fn create(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Leads, scopes: &[Scope::LeadsWrite], body: guard::LEAD_BODY };
    let caller = guard::admit(&request, &app, terms)?;
    let key = guard::idempotency_key(request.headers())?;
    let body = body::read(request.headers(), payload, MAX_LEAD_BYTES, &app).await?;
    let new_lead = NewLead::parse(&body)?;

    let workspace_id = caller.workspace_id;
    let (lead_id, event_id) = ids(key.as_ref(), workspace_id, &app);
    let ticket = match key {
        None => None,
        Some(_) => match begin(&app, lead_id, new_lead.digest()).await? {
            Start::First(ticket) => Some(ticket),
            Start::Stored(stored) => {
                app.metrics.replayed();
                let mut response = created(lead_id, stored.position, &stored.lead);
                response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
                return Ok(response);
            }
        },
    };
    let now = Timestamp::from(Utc::now());
    let lead = new_lead.into_lead(lead_id, workspace_id, now);
    let event = Event {
        event_id,
        occurred_at: now,
        workspace_id,
        lead_id,
        payload: Payload::LeadCreated { lead },
    };
    let Published { position, waited, encoded } =
        app.publish(&event, caller.share(), caller.trace()).await?;
    caller.note_wait(waited);
    // The lead was written once, for the log; the answer repeats those bytes.
    let lead = &encoded.value[encoded.body];
    if let Some(ticket) = ticket {
        let stored = Stored { position, lead: Bytes::copy_from_slice(lead) };
        app.recent.answer([(ticket, stored)], Instant::now());
    }
    Ok(created(lead_id, position, lead))
}

fn created(lead_id: Uuid, at: Position, lead: &[u8]) -> HttpResponse {
    let mut answer = Vec::with_capacity(lead.len() + 9);
    answer.extend_from_slice(br#"{"data":"#);
    answer.extend_from_slice(lead);
    answer.push(b'}');
    HttpResponse::Created()
        .insert_header((header::LOCATION, format!("/api/v1/leads/{lead_id}")))
        .insert_header((header::ETAG, HeaderValue::from_static("\"1\"")))
        .insert_header(position(at))
        .content_type("application/json")
        .body(answer)
}

enum Start {
    First(Ticket),
    Stored(Stored),
}

/// Looks the key up; waits for the same one that is under way here, as long as a publish may take.
async fn begin(app: &App, lead_id: Uuid, content: Content) -> Result<Start, ApiError> {
    let deadline = Instant::now() + app.limits.publish_timeout;
    loop {
        match app.recent.begin(lead_id, content, Instant::now()) {
            Begin::First(ticket) => return Ok(Start::First(ticket)),
            Begin::Stored(stored) => return Ok(Start::Stored(stored)),
            Begin::Reused => return Err(reused()),
            Begin::UnderWay(mut end) => {
                let ended = tokio::time::timeout_at(deadline.into(), end.changed()).await;
                ended.map_err(|_| ApiError::from(PublishError::Unacknowledged))?.ok();
            }
        }
    }
}

/// The key came before, with another body.
pub(super) fn reused() -> ApiError {
    ApiError::new(
        ErrorCode::IdempotencyKeyReused,
        "the idempotency key was used with another body; use a new key for another lead",
    )
}

/// The ids of a new lead and of its event: from the idempotency key, so that a retry has the same,
/// or new ones.
pub(super) fn ids(key: Option<&IdempotencyKey>, workspace_id: Uuid, app: &App) -> (Uuid, Uuid) {
    match key {
        Some(key) => {
            let lead_id = key.lead_id(workspace_id);
            (lead_id, creation_event_id(lead_id))
        }
        None => (app.new_lead_id(), Uuid::now_v7()),
    }
}

/// `X-Lead-Position: <partition>:<offset>`
pub(super) fn position(position: Position) -> (HeaderName, String) {
    (POSITION, format!("{}:{}", position.partition, position.offset))
}
