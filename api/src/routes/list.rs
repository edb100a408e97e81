//! `GET /api/v1/leads`

use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::Lead;
use serde::Serialize;
use utoipa::ToSchema;

use super::guard::{self, Terms};
use super::query::{ListQuery, cursor};
use crate::access::Scope;
use crate::context::Route;
use crate::error::ApiError;
use crate::read_model::Start;
use crate::startup::App;

/// A page of leads.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ListAnswer {
    /// The leads, newest first.
    data: Vec<Lead<'static>>,
    pagination: Pagination,
}

/// Where the page stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pagination {
    /// Most leads on a page.
    #[schema(minimum = 1, maximum = 100)]
    limit: i64,
    /// Leads before this page; null on a page by cursor.
    #[schema(required, minimum = 0)]
    offset: Option<i64>,
    /// Leads that the filter finds in all.
    total: i64,
    /// Where the next page begins; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
}

/// Answers with a page of the workspace's leads.
pub(super) async fn list(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Leads, scopes: &[Scope::LeadsRead], body: None };
    let caller = guard::admit(&request, &app, terms)?;
    let ListQuery { limit, start, filter } =
        ListQuery::parse(request.query_string()).map_err(ApiError::invalid_fields)?;
    let reading = caller.trace().reading("SELECT leads");
    let page = app.read_model.list(caller.workspace_id, &filter, start, limit).await?;
    drop(reading);
    let last = page.leads.last().filter(|_| page.more);
    let pagination = Pagination {
        limit,
        offset: match start {
            Start::Offset(offset) => Some(offset),
            Start::After(..) => None,
        },
        total: page.total,
        next_cursor: last.map(|lead| cursor(lead.created_at, lead.id)),
    };
    Ok(HttpResponse::Ok().json(ListAnswer { data: page.leads, pagination }))
}
