//! `GET /console`: the operators' console. Its files are compiled in.

use std::sync::LazyLock;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::fetch::client_has;
use super::{name_route, no_such_route, not_allowed};
use crate::context::Route;
use crate::error::ApiError;
use crate::server::compress;
use crate::startup::App;

/// Nothing from elsewhere, nothing inline, nothing that could be made into code.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// The page at `/console` itself.
const PAGE: &str = "index.html";

/// A file of `api/console`.
struct File {
    name: &'static str,
    bytes: &'static [u8],
    /// The start of the SHA-256 of its bytes.
    tag: String,
}

macro_rules! files {
    ($($name:literal),+ $(,)?) => {
        [$((
            $name,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/console/", $name)).as_slice(),
        )),+]
    };
}

/// All of `api/console`: a test looks for what is missing.
static FILES: LazyLock<Vec<File>> = LazyLock::new(|| {
    let files = files![
        "api.js",
        "chrome.js",
        "console.css",
        "dom.js",
        "feed.js",
        "format.js",
        "health.js",
        "help.js",
        "icon.svg",
        "index.html",
        "json.js",
        "main.js",
        "pager.js",
        "parts.js",
        "plot.js",
        "reasons.js",
        "series.js",
        "sse.js",
        "verdict.js",
        "view-dead.js",
        "view-key.js",
        "view-keys.js",
        "view-lead.js",
        "view-live.js",
        "view-overview.js",
        "view-search.js",
    ];
    files
        .into_iter()
        .map(|(name, bytes)| {
            let tag = URL_SAFE_NO_PAD.encode(&Sha256::digest(bytes)[..12]);
            File { name, bytes, tag }
        })
        .collect()
});

pub(super) fn configure(config: &mut web::ServiceConfig) {
    config
        .service(
            web::resource("/console")
                .route(web::get().to(page))
                .route(web::head().to(page))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Console, "GET, HEAD")
                })),
        )
        .service(
            web::resource("/console/{file}")
                .route(web::get().to(file))
                .route(web::head().to(file))
                .default_service(web::to(|request| {
                    not_allowed(request, Route::Console, "GET, HEAD")
                })),
        );
}

async fn page(request: HttpRequest, app: web::Data<App>) -> Result<HttpResponse, ApiError> {
    serve(&request, &app, PAGE)
}

async fn file(request: HttpRequest, app: web::Data<App>) -> Result<HttpResponse, ApiError> {
    serve(&request, &app, request.match_info().get("file").unwrap_or_default())
}

fn serve(request: &HttpRequest, app: &App, name: &str) -> Result<HttpResponse, ApiError> {
    name_route(request, Route::Console);
    let file = FILES.iter().find(|file| file.name == name).ok_or_else(no_such_route)?;
    let encoded = compress::fixed(request, file.bytes, &app.kept);
    // A tag names bytes, and each coding has its own: RFC 9110, 8.8.3.
    let tag = match &encoded {
        Some((coding, _)) => format!("\"{}-{coding}\"", file.tag),
        None => format!("\"{}\"", file.tag),
    };
    let has_it = client_has(request.headers(), &tag);
    let mut response = if has_it { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((header::ETAG, tag))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::VARY, "accept-encoding"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header(("cross-origin-opener-policy", "same-origin"));
    if has_it {
        return Ok(response.finish());
    }
    response.content_type(content_type(file.name));
    Ok(match encoded {
        Some((coding, bytes)) => {
            response.insert_header((header::CONTENT_ENCODING, coding)).body(bytes)
        }
        None => response.body(file.bytes),
    })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, ending)| ending) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("png") => "image/png",
        Some("webmanifest") => "application/manifest+json",
        _ => "application/octet-stream",
    }
}
