//! The listeners: what is around the routes and does not know them.

pub(crate) mod compress;
pub(crate) mod connection;
pub mod tls;

use std::net::{SocketAddr, TcpListener};

use actix_cors::{Cors, CorsError};
use actix_web::dev::{Server, ServiceResponse};
use actix_web::middleware::{Condition, from_fn};
use actix_web::{App as ActixApp, HttpResponse, HttpServer, web};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::HttpConfig;
use crate::context;
use crate::error::{ApiError, ErrorCode};
use crate::routes;
use crate::startup::App;
use tls::Tls;

/// Bytes of bodies that a client may send ahead of being read, on one HTTP/2 connection and on one
/// stream of it.
const CONNECTION_WINDOW: u32 = 512 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;

/// Takes a port.
///
/// # Errors
/// In words for the operator, with the variable.
pub(crate) fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("{variable}={address} can't be listened on: {error}; choose another address or end who has it")
    })
}

/// The API's server: HTTP/1.1, or with a certificate HTTP/2 and HTTP/1.1 over TLS.
pub(crate) fn api(
    listener: TcpListener,
    http: &HttpConfig,
    tls: Option<&Tls>,
    app: web::Data<App>,
) -> Result<Server, String> {
    let origins = http.cors_origins.clone();
    let patience = http.keep_alive + http.header_timeout;
    let write_timeout = app.streams.write_timeout();
    raise_open_files();
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(app.clone())
            .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
            .wrap(from_fn(context::observe))
            .configure(routes::configure)
    })
    .workers(http.workers)
    .client_request_timeout(http.header_timeout)
    .tls_handshake_timeout(http.header_timeout)
    .keep_alive(http.keep_alive)
    .max_connections(http.max_connections)
    .h2_initial_window_size(STREAM_WINDOW)
    .h2_initial_connection_window_size(CONNECTION_WINDOW)
    .on_connect(move |io, data| {
        connection::limit_writes(io, write_timeout);
        connection::watch(io, patience, data);
    })
    .shutdown_timeout(1)
    .disable_signals();
    let server = match tls {
        None => server.listen(listener),
        Some(tls) => server.listen_rustls_0_23(listener, tls.server_config()?),
    };
    Ok(server.map_err(|error| error.to_string())?.run())
}

/// As many open files as the system lets the process have: a connection takes two. What is not
/// granted is not missed before there are as many.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn cors(origins: &[String]) -> Cors {
    origins
        .iter()
        .fold(Cors::default(), |cors, origin| match origin.as_str() {
            "*" => cors.allow_any_origin(),
            origin => cors.allowed_origin(origin),
        })
        .allowed_methods(["GET", "HEAD", "POST", "PATCH"])
        .allow_any_header()
        .expose_headers([
            "Location",
            "ETag",
            "X-Lead-Position",
            "X-Request-Id",
            "X-Workspace-Id",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "Retry-After",
        ])
        .max_age(3600)
}

/// Gives a refused preflight the shape that every error has.
pub(crate) fn in_json(response: ServiceResponse) -> ServiceResponse {
    let error = response.response().error().and_then(|error| error.as_error::<CorsError>());
    let Some(refused) = error else { return response };
    let error = ApiError::new(
        ErrorCode::CorsRefused,
        format!("{refused}; the operator names origins in CORS_ORIGINS"),
    );
    response.into_response(HttpResponse::from_error(error))
}

/// The server of the figures: plain HTTP/1.1 always.
pub(crate) fn metrics(listener: TcpListener, app: web::Data<App>) -> Result<Server, String> {
    let server = HttpServer::new(move || {
        ActixApp::new().app_data(app.clone()).route("/metrics", web::get().to(render_metrics))
    })
    .workers(1)
    .disable_signals()
    .listen(listener);
    Ok(server.map_err(|error| error.to_string())?.run())
}

async fn render_metrics(app: web::Data<App>) -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(app.render_metrics())
}
