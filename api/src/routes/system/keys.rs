//! `GET /api/v1/system/keys`

use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pagination, cursor, operators, read_cursor};
use crate::access::{AccessRecord, KeyKind, KeyPage, Scope};
use crate::context::Route;
use crate::error::ApiError;
use crate::routes::docs::ErrorAnswer;
use crate::routes::guard;
use crate::routes::query::{Take, integer, values};
use crate::startup::App;

const MAX_LIMIT: i64 = 100;

/// A page of keys, the newest first.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct KeysAnswer<'a> {
    data: Vec<ListedKey<'a>>,
    pagination: Pagination,
}

/// A key; never its text.
#[derive(Serialize, ToSchema)]
struct ListedKey<'a> {
    id: Uuid,
    workspace_id: Uuid,
    /// A name for people.
    #[schema(required)]
    name: Option<&'a str>,
    #[schema(value_type = String, example = "prod")]
    kind: KeyKind,
    #[schema(value_type = Vec<String>, example = json!(["leads:read", "leads:write"]))]
    scopes: &'a [Scope],
    /// Requests a minute and instance; 0 is none.
    rate_limit: u32,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    /// When its text was last replaced.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    rotated_at: Option<Timestamp>,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
    /// Null when it was never used, or when PostgreSQL can't be asked. A minute late for what
    /// other instances saw.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Timestamp>,
}

/// Answers with a page of the keys of all workspaces.
#[utoipa::path(
    get, path = "/api/v1/system/keys", tag = "system",
    summary = "List the keys of all workspaces",
    description = "The newest first, revoked ones too. Never a secret. Needs the scope system:read.",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Keys on a page; 100 by default"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
    ),
    responses(
        (status = 200, description = "A page", body = KeysAnswer<'static>),
        (status = 400, body = ErrorAnswer, description = "validation_failed, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting"),
    ),
)]
pub(in crate::routes) async fn keys(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let caller = guard::admit(&request, &app, operators(Route::Keys))?;
    let ([limit, before], errors) = values(request.query_string(), ["limit", "cursor"]);
    let mut take = Take { errors };
    let limit = take.value("limit", limit, |text| integer(text, 1, MAX_LIMIT));
    let before = take.value("cursor", before, read_cursor).map(Uuid::from_bytes);
    if !take.errors.is_empty() {
        return Err(ApiError::invalid_fields(take.errors));
    }
    let limit = limit.unwrap_or(MAX_LIMIT);
    let page = app.directory.page(before, usize::try_from(limit).unwrap_or(1));
    let KeyPage { keys, more, total } = &page;
    let ids: Vec<Uuid> = keys.iter().map(|(record, _)| record.id).collect();
    let reading = caller.trace().reading("SELECT access_key_usage");
    let uses = app.system.key_uses(&ids).await;
    drop(reading);
    let data = keys.iter().map(|(record, used)| {
        let seen_here = used.and_then(|millis| Timestamp::from_unix_millis(millis).ok());
        listed(record, seen_here.max(uses.get(&record.id).copied()))
    });
    let last = ids.last().filter(|_| *more);
    let pagination = Pagination {
        limit,
        next_cursor: last.map(|id| cursor(id.as_bytes())),
        total: i64::try_from(*total).unwrap_or(i64::MAX),
    };
    Ok(HttpResponse::Ok().json(KeysAnswer { data: data.collect(), pagination }))
}

fn listed(record: &AccessRecord, last_used_at: Option<Timestamp>) -> ListedKey<'_> {
    let AccessRecord {
        id,
        workspace_id,
        name,
        kind,
        scopes,
        rate_limit,
        sha256: _,
        created_at,
        rotated_at,
        revoked_at,
    } = record;
    ListedKey {
        id: *id,
        workspace_id: *workspace_id,
        name: name.as_deref(),
        kind: *kind,
        scopes,
        rate_limit: *rate_limit,
        created_at: *created_at,
        rotated_at: *rotated_at,
        revoked_at: *revoked_at,
        last_used_at,
    }
}
