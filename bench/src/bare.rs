//! The baseline: what actix-web alone costs for a request of this size.

use std::net::SocketAddr;

use actix_web::{App, HttpResponse, HttpServer, web};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// About what a lead is, and nothing checked that serde doesn't.
#[derive(Debug, Deserialize, Serialize)]
struct BareLead {
    visitor_id: Option<Uuid>,
    code: Option<String>,
    source: Option<String>,
    properties: Option<Box<serde_json::value::RawValue>>,
}

async fn take(lead: web::Json<BareLead>) -> HttpResponse {
    HttpResponse::Created().json(lead.into_inner())
}

/// Serves until it is told to end.
pub(crate) fn serve(listen: SocketAddr) -> Result<()> {
    actix_web::rt::System::new()
        .block_on(async move {
            HttpServer::new(|| App::new().route("/api/v1/leads", web::post().to(take)))
                .bind(listen)?
                .run()
                .await
        })
        .with_context(|| format!("serving on {listen}"))
}
