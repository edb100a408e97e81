//! One file per resource or verb; what they share stands in `guard` and `body`.

mod batch;
mod body;
mod console;
mod contract;
mod create;
mod docs;
mod docs_events;
mod docs_of_all;
mod events;
mod fetch;
mod guard;
mod health;
mod history;
mod list;
mod query;
mod system;
mod update;

use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::Lead;
use serde::Serialize;
use utoipa::ToSchema;

use crate::context::{RequestContext, Route};
use crate::error::{ApiError, ErrorCode};

pub use docs::openapi;
pub use guard::{check_accept, credentials, idempotency_key};
pub use health::report_standing;
pub use query::{ListQuery, cursor};
pub use update::expected_version;

/// Every route of the service.
pub fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/api/v1/leads")
                .route(web::post().to(create::create))
                .route(web::get().to(list::list))
                .route(web::head().to(list::list))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Leads, "GET, HEAD, POST")
                })),
        )
        .service(
            web::resource("/api/v1/leads/batch")
                .route(web::post().to(batch::create_batch))
                .default_service(web::to(|request| not_allowed(request, Route::Batch, "POST"))),
        )
        .service(
            // Before {id}, which would take it for a lead's.
            web::resource("/api/v1/leads/events")
                .route(web::get().to(events::stream))
                .route(web::head().to(events::stream))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Events, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/api/v1/leads/{id}")
                .route(web::get().to(fetch::fetch))
                .route(web::head().to(fetch::fetch))
                .route(web::patch().to(update::update))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Lead, "GET, HEAD, PATCH")
                })),
        )
        .service(
            web::resource("/api/v1/leads/{id}/events")
                .route(web::get().to(history::history))
                .route(web::head().to(history::history))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::History, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/livez")
                .route(web::get().to(health::livez))
                .route(web::head().to(health::livez))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Livez, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/readyz")
                .route(web::get().to(health::readyz))
                .route(web::head().to(health::readyz))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Readyz, "GET, HEAD")
                })),
        )
        .configure(system::configure)
        .configure(console::configure)
        .configure(docs::configure)
        .configure(contract::configure)
        .default_service(web::to(route_not_found));
}

async fn not_allowed(
    request: HttpRequest,
    route: Route,
    allow: &'static str,
) -> Result<HttpResponse, ApiError> {
    name_route(&request, route);
    Err(ApiError::method_not_allowed(allow))
}

async fn route_not_found() -> Result<HttpResponse, ApiError> {
    Err(no_such_route())
}

fn no_such_route() -> ApiError {
    ApiError::new(ErrorCode::RouteNotFound, "no such route; GET /docs lists them")
}

fn name_route(request: &HttpRequest, route: Route) {
    if let Some(context) = RequestContext::of(request) {
        context.set_route(route);
    }
}

/// The answer about one lead.
#[derive(Debug, Serialize, ToSchema)]
pub struct LeadAnswer<'a> {
    /// The lead.
    #[schema(value_type = Lead<'static>)]
    pub data: &'a Lead<'a>,
}
