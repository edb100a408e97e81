//! `GET /api/v1/system/whoami`

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{AccessRecord, KeyKind, Scope};
use crate::context::Route;
use crate::error::{ApiError, ErrorCode};
use crate::routes::docs::ErrorAnswer;
use crate::routes::guard::{self, Terms};
use crate::startup::App;

/// What a key is good for.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct WhoamiAnswer<'a> {
    data: Whoami<'a>,
}

/// The key that the request came with; never its text.
#[derive(Serialize, ToSchema)]
struct Whoami<'a> {
    key_id: Uuid,
    /// A name for people.
    #[schema(required)]
    name: Option<&'a str>,
    #[schema(value_type = String, example = "prod")]
    kind: KeyKind,
    workspace_id: Uuid,
    #[schema(value_type = Vec<String>, example = json!(["leads:read", "system:read"]))]
    scopes: &'a [Scope],
    /// Requests a minute and instance; 0 is none.
    rate_limit: u32,
}

/// Tells a key what it is good for.
#[utoipa::path(
    get, path = "/api/v1/system/whoami", tag = "system",
    summary = "What the key is good for",
    description = "Any key that is valid; no scope is needed.",
    responses(
        (status = 200, description = "The key, without its text", body = WhoamiAnswer<'static>),
        (status = 400, body = ErrorAnswer, description = "ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting"),
    ),
)]
pub(in crate::routes) async fn whoami(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Whoami, scopes: &[], body: None };
    let caller = guard::admit(&request, &app, terms)?;
    let record = app.directory.record(caller.key.id).ok_or_else(|| {
        // Taken back in this very moment.
        ApiError::new(ErrorCode::InvalidApiKey, "the API key is unknown or was revoked")
    })?;
    let AccessRecord { id, workspace_id, name, kind, scopes, rate_limit, .. } = &*record;
    let data = Whoami {
        key_id: *id,
        name: name.as_deref(),
        kind: *kind,
        workspace_id: *workspace_id,
        scopes,
        rate_limit: *rate_limit,
    };
    Ok(HttpResponse::Ok().json(WhoamiAnswer { data }))
}
