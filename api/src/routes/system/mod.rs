//! `GET /api/v1/system/…`: how the whole system stands, for its operators.

pub(super) mod dead_letters;
pub(super) mod keys;
mod projection;
pub(super) mod status;
pub(super) mod whoami;

use actix_web::web;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::guard::Terms;
use super::not_allowed;
use super::query::Parsed;
use crate::access::Scope;
use crate::context::Route;
use crate::domain::FieldCode;

const ALLOW: &str = "GET, HEAD";

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource(Route::SystemStatus.pattern())
                .route(web::get().to(status::status))
                .route(web::head().to(status::status))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::SystemStatus, ALLOW)
                })),
        )
        .service(
            web::resource(Route::DeadLetters.pattern())
                .route(web::get().to(dead_letters::dead_letters))
                .route(web::head().to(dead_letters::dead_letters))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::DeadLetters, ALLOW)
                })),
        )
        .service(
            web::resource(Route::Keys.pattern())
                .route(web::get().to(keys::keys))
                .route(web::head().to(keys::keys))
                .default_service(web::to(|request| not_allowed(request, Route::Keys, ALLOW))),
        )
        .service(
            web::resource(Route::Whoami.pattern())
                .route(web::get().to(whoami::whoami))
                .route(web::head().to(whoami::whoami))
                .default_service(web::to(|request| not_allowed(request, Route::Whoami, ALLOW))),
        );
}

/// What a route about the system asks of its callers.
fn operators(route: Route) -> Terms {
    Terms { route, scopes: &[Scope::SystemRead], body: None }
}

/// Where the page stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SystemPagination)]
struct Pagination {
    /// Most entries on a page.
    #[schema(minimum = 1, maximum = 100)]
    limit: i64,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    /// Entries in all.
    total: i64,
}

/// A cursor of `bytes`. Opaque to clients.
fn cursor(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of a cursor that has this many.
fn read_cursor<const N: usize>(text: &str) -> Parsed<[u8; N]> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(invalid_cursor)
}

fn invalid_cursor() -> (FieldCode, String) {
    (FieldCode::InvalidCursor, "must be a next_cursor of this list, unchanged".to_owned())
}
