//! `/metrics`, `/livez`, `/readyz`.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpResponse, HttpServer, web};
use metrics_exporter_prometheus::PrometheusHandle;

use crate::health::Health;
use crate::telemetry;

const UPKEEP: Duration = Duration::from_secs(5);

/// Serves the probes on `listener` until the handle stops them.
///
/// # Errors
/// The listener does not work.
pub fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: PrometheusHandle,
) -> std::io::Result<(SocketAddr, ServerHandle)> {
    let address = listener.local_addr()?;
    let upkeep = metrics.clone();
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(UPKEEP).await;
            upkeep.run_upkeep();
        }
    });
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(Arc::clone(&health)))
            .app_data(web::Data::new(metrics.clone()))
            .route("/livez", web::get().to(livez))
            .route("/readyz", web::get().to(readyz))
            .route("/metrics", web::get().to(render))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)?
    .run();
    let handle = server.handle();
    tokio::spawn(server);
    Ok((address, handle))
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok().json(serde_json::json!({ "status": "ok" }))
}

async fn readyz(health: web::Data<Health>) -> HttpResponse {
    let readiness = health.readiness();
    if readiness.status == "ok" {
        HttpResponse::Ok().json(readiness)
    } else {
        HttpResponse::ServiceUnavailable().json(readiness)
    }
}

async fn render(health: web::Data<Health>, metrics: web::Data<PrometheusHandle>) -> HttpResponse {
    telemetry::set_standing(health.readiness());
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(metrics.render())
}
