//! What is checked before a body is read, in this order:
//! route → method → size → key → scope → rate → accept and content type.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use actix_web::HttpRequest;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use uuid::Uuid;

use crate::access::{ActiveKey, Digest, Scope};
use crate::context::{BatchCount, RequestContext, Route};
use crate::domain::MAX_LEAD_BYTES;
use crate::domain::idempotency::IdempotencyKey;
use crate::error::{ApiError, ErrorCode};
use crate::in_flight::Share;
use crate::rate_limit::Decision;
use crate::startup::App;
use crate::traced::RequestTrace;

/// What a route asks of its callers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) route: Route,
    pub(super) scopes: &'static [Scope],
    /// The body, where one is taken.
    pub(super) body: Option<Body>,
}

/// What a route takes as a body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Body {
    /// Most bytes of it.
    pub(super) max: usize,
    /// Its content types.
    pub(super) types: &'static [&'static str],
}

/// The content type of everything but batches of lines.
pub(super) const JSON: &str = "application/json";
/// A JSON value a line.
pub(super) const LINES: &str = "application/x-ndjson";

/// Server-Sent Events.
pub(super) const EVENT_STREAM: &str = "text/event-stream";

/// One lead or one update.
pub(super) const LEAD_BODY: Option<Body> = Some(Body { max: MAX_LEAD_BYTES, types: &[JSON] });

/// A caller that was let in.
pub(super) struct Caller {
    pub(super) workspace_id: Uuid,
    /// The digest of its key's text.
    pub(super) digest: Digest,
    /// Which of the route's content types the body has; none where no body is taken.
    pub(super) content_type: Option<&'static str>,
    pub(super) key: Arc<ActiveKey>,
    context: Rc<RequestContext>,
}

impl Caller {
    /// The key's share of what may be in flight.
    pub(super) fn share(&self) -> &Arc<Share> {
        &self.key.share
    }

    /// Notes what became of a batch, for the log line.
    pub(super) fn note_batch(&self, batch: BatchCount) {
        self.context.set_batch(batch);
    }

    /// The answer is a stream: its end is logged through what this gives.
    pub(super) fn stream_context(&self) -> Rc<RequestContext> {
        self.context.set_stream();
        Rc::clone(&self.context)
    }

    /// Notes how long the broker was waited for.
    pub(super) fn note_wait(&self, waited: Duration) {
        self.context.set_waited(waited);
    }

    /// Where the request stands in a trace.
    pub(super) fn trace(&self) -> &RequestTrace {
        self.context.trace()
    }
}

/// Lets a request in or says why not.
pub(super) fn admit(request: &HttpRequest, app: &App, terms: Terms) -> Result<Caller, ApiError> {
    admit_to(request, app, terms, JSON)
}

/// The same for answers of another content type.
pub(super) fn admit_to(
    request: &HttpRequest,
    app: &App,
    terms: Terms,
    answer: &'static str,
) -> Result<Caller, ApiError> {
    let context = RequestContext::of(request)
        .ok_or_else(|| ApiError::new(ErrorCode::InternalError, "the request has no context"))?;
    context.set_route(terms.route);
    let headers = request.headers();
    if let Some(body) = terms.body {
        check_declared_size(headers, body.max)?;
    }
    let (key, digest) = authenticate(headers, app)?;
    context.set_workspace(key.workspace_id);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    // Whatever passes the key check counts, so that a 403 tells what is left as every answer does.
    let decision = key.window.count(seconds);
    match decision {
        Decision::Unlimited => {}
        Decision::Allowed(status) | Decision::Refused(status) => context.set_rate(status),
    }
    if let Some(missing) = terms.scopes.iter().find(|scope| !key.allows(**scope)) {
        return Err(ApiError::insufficient_scope(*missing));
    }
    if let Decision::Refused(status) = decision {
        return Err(ApiError::rate_limited(status, seconds));
    }
    key.used(i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
    check_accept(headers, answer)?;
    let content_type = terms.body.map(|body| content_type(headers, body.types)).transpose()?;
    let workspace_id = key.workspace_id;
    Ok(Caller { workspace_id, digest, content_type, key, context })
}

/// The idempotency key, if the request has one.
///
/// # Errors
/// When it is none, or is given more than once.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, ApiError> {
    let mut values = headers.get_all("idempotency-key");
    let Some(value) = values.next() else { return Ok(None) };
    let key = IdempotencyKey::parse(value.as_bytes());
    match (key, values.next()) {
        (Ok(key), None) => Ok(Some(key)),
        (Ok(_), Some(_)) => Err(ApiError::new(
            ErrorCode::InvalidIdempotencyKey,
            "Idempotency-Key is given more than once",
        )),
        (Err(error), _) => Err(ApiError::new(ErrorCode::InvalidIdempotencyKey, error.to_string())),
    }
}

fn check_declared_size(headers: &HeaderMap, limit: usize) -> Result<(), ApiError> {
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    match declared.and_then(|text| text.parse::<usize>().ok()) {
        Some(length) if length > limit => Err(ApiError::too_large(limit)),
        Some(_) | None => Ok(()),
    }
}

fn authenticate(headers: &HeaderMap, app: &App) -> Result<(Arc<ActiveKey>, Digest), ApiError> {
    if !app.directory.is_loaded() {
        return Err(ApiError::new(
            ErrorCode::Starting,
            "the service is starting: its keys are not loaded yet. Try again",
        ));
    }
    let text = credentials(headers)?.ok_or_else(|| {
        ApiError::new(
            ErrorCode::MissingApiKey,
            "send the API key as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        )
    })?;
    let digest = crate::access::digest(text);
    let key = app.directory.find(&digest).ok_or_else(|| {
        ApiError::new(ErrorCode::InvalidApiKey, "the API key is unknown or was revoked")
    })?;
    Ok((key, digest))
}

/// The key as it was sent, by either header or by both alike.
///
/// # Errors
/// When the headers hold different keys.
pub fn credentials(headers: &HeaderMap) -> Result<Option<&[u8]>, ApiError> {
    let bearer = headers.get_all(header::AUTHORIZATION).map(|value| {
        let value = value.as_bytes();
        match value.split_at_checked(7) {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case(b"bearer ") => key.trim_ascii(),
            // Another scheme is no key of ours: it is answered as an unknown one.
            Some(_) | None => value,
        }
    });
    let mut sent = bearer.chain(headers.get_all("x-api-key").map(HeaderValue::as_bytes));
    let Some(first) = sent.next() else { return Ok(None) };
    if sent.all(|other| other == first) {
        Ok(Some(first))
    } else {
        Err(ApiError::new(
            ErrorCode::AmbiguousCredentials,
            "the request has different keys in its headers; send one",
        ))
    }
}

/// Whether the client takes `answer`, a content type.
///
/// # Errors
/// When it does not: 406.
pub fn check_accept(headers: &HeaderMap, answer: &str) -> Result<(), ApiError> {
    let mut given = headers.get_all(header::ACCEPT).peekable();
    if given.peek().is_none() {
        return Ok(());
    }
    let ranges = given.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    // The most specific range decides: RFC 9110, 12.5.1.
    let best = ranges
        .filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let range = parts.next()?;
            let specificity = match range.strip_suffix("/*") {
                Some("*") => 1,
                Some(kind) if answer.split('/').next()?.eq_ignore_ascii_case(kind) => 2,
                None if range.eq_ignore_ascii_case(answer) => 3,
                Some(_) | None => return None,
            };
            let refused = parts.any(|part| {
                part.strip_prefix("q=").is_some_and(|q| q.parse::<f32>().is_ok_and(|q| q <= 0.0))
            });
            Some((specificity, !refused))
        })
        .max();
    match best {
        Some((_, true)) => Ok(()),
        Some((_, false)) | None => Err(ApiError::new(
            ErrorCode::NotAcceptable,
            format!("answers are {answer}; send an Accept header that takes it, or none"),
        )),
    }
}

/// Which of `types` the body has.
fn content_type(headers: &HeaderMap, types: &[&'static str]) -> Result<&'static str, ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.map(|value| value.split(';').next().unwrap_or_default().trim());
    let found = types.iter().find(|known| essence.is_some_and(|it| it.eq_ignore_ascii_case(known)));
    found.copied().ok_or_else(|| {
        ApiError::new(
            ErrorCode::UnsupportedMediaType,
            format!(
                "send the body with `Content-Type: {}` (with curl: --json)",
                types.join("` or `")
            ),
        )
    })
}
