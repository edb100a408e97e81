//! `GET /api/v1/leads/{id}/events`

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::{Timestamp, partition};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::fetch::{find, lead_id};
use super::guard::{self, Terms};
use super::query;
use crate::access::Scope;
use crate::context::Route;
use crate::domain::{FieldCode, FieldError};
use crate::error::{ApiError, ErrorCode};
use crate::history::{Cursor, Entry, Known, Page, read_page};
use crate::startup::App;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: i64 = 100;
/// The longest wait for a turn to read the log.
const TURN: Duration = Duration::from_secs(5);

#[derive(Serialize)]
struct Answer {
    data: Vec<Listed>,
    pagination: Pagination,
}

#[derive(Serialize)]
struct Listed {
    event_id: Option<Uuid>,
    #[serde(rename = "type")]
    event_type: Option<&'static str>,
    time: Option<Timestamp>,
    position: String,
    effective: bool,
    version: u64,
    event: Option<Box<RawValue>>,
}

#[derive(Serialize)]
struct Pagination {
    limit: usize,
    next_cursor: Option<String>,
}

/// Answers with a page of the lead's events, out of the log.
pub(super) async fn history(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::History, scopes: &[Scope::LeadsRead], body: None };
    let caller = guard::admit(&request, &app, terms)?;
    let id = lead_id(&request)?;
    let (limit, cursor) = parse(request.query_string(), id).map_err(ApiError::invalid_fields)?;
    let deadline = Instant::now() + app.limits.read_wait;
    let stored = find(&app, caller.workspace_id, id, deadline).await?;
    let partitions = app.broker.partitions();
    let mut key = Uuid::encode_buffer();
    let key = id.hyphenated().encode_lower(&mut key).as_bytes();
    let place = partition::of_key(key, partitions);
    let known = Known {
        lead_id: id,
        partition: usize::try_from(place).unwrap_or(0),
        partitions: usize::try_from(partitions).unwrap_or(0),
        version: u64::try_from(stored.version).unwrap_or(0),
        created_at: stored.lead.created_at,
        updated_at: stored.lead.updated_at,
    };
    let busy =
        || ApiError::new(ErrorCode::Overloaded, "all readers of the log are in use; try again");
    let permit = timeout(TURN, app.streams.turn()).await.ok().flatten().ok_or_else(busy)?;
    let source = app.streams.source().clone();
    let page = web::block(move || {
        let page = read_page(&source, &known, cursor, limit);
        drop(permit);
        page
    })
    .await;
    let Ok(Ok(Page { entries, next })) = page else {
        return Err(ApiError::new(
            ErrorCode::BrokerUnavailable,
            "the log can't be read now; try again",
        ));
    };
    Ok(HttpResponse::Ok().json(Answer {
        data: entries.into_iter().map(|entry| listed(place, entry)).collect(),
        pagination: Pagination { limit, next_cursor: next.map(|cursor| cursor.text(id)) },
    }))
}

fn listed(partition: i32, entry: Entry) -> Listed {
    let Entry { offset, event, facts, effective, version } = entry;
    Listed {
        event_id: facts.map(|(id, ..)| id),
        event_type: facts.map(|(_, event_type, _)| event_type),
        time: facts.map(|(.., time)| time),
        position: format!("{partition}:{offset}"),
        effective,
        version,
        event,
    }
}

fn parse(query: &str, lead_id: Uuid) -> Result<(usize, Option<Cursor>), Vec<FieldError>> {
    let ([limit, cursor], mut errors) = query::values(query, ["limit", "cursor"]);
    let mut refuse = |name, code, message| errors.push(FieldError::new(name, code, message));
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), |text| {
        query::integer(&text, 1, MAX_LIMIT).map(|limit| usize::try_from(limit).unwrap_or(1))
    });
    let limit = limit.unwrap_or_else(|(code, message)| {
        refuse("limit", code, message);
        DEFAULT_LIMIT
    });
    let cursor = cursor.and_then(|text| {
        let cursor = Cursor::read(&text, lead_id);
        if cursor.is_none() {
            let message = "must be a next_cursor of this lead's history, unchanged".to_owned();
            refuse("cursor", FieldCode::InvalidCursor, message);
        }
        cursor
    });
    if errors.is_empty() { Ok((limit, cursor)) } else { Err(errors) }
}
