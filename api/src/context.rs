//! What is known of a request beside its contents, and the one line that is logged of it.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest, HttpResponse, web};
use leads_traces::Traces;
use uuid::Uuid;

use crate::error::ApiError;
use crate::rate_limit::RateStatus;
use crate::server::compress::compressed;
use crate::server::{self, connection};
use crate::startup::App;
use crate::traced::{End, RequestTrace};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const WORKSPACE_ID: HeaderName = HeaderName::from_static("x-workspace-id");
const RATE_LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const RATE_REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RATE_RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// The routes, as metrics and log lines name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// `/api/v1/leads`
    Leads,
    /// `/api/v1/leads/batch`
    Batch,
    /// `/api/v1/leads/{id}`
    Lead,
    /// `/api/v1/leads/events`
    Events,
    /// `/api/v1/leads/{id}/events`
    History,
    /// `/api/v1/system/status`
    SystemStatus,
    /// `/api/v1/system/dead-letters`
    DeadLetters,
    /// `/api/v1/system/keys`
    Keys,
    /// `/api/v1/system/whoami`
    Whoami,
    /// `/console` and its files.
    Console,
    /// `/livez`
    Livez,
    /// `/readyz`
    Readyz,
    /// `/openapi.json`
    OpenApi,
    /// `/docs`
    Docs,
    /// `/asyncapi.json`
    AsyncApi,
    /// `/schemas/{event}/{version}`
    Schema,
    /// Everything else.
    Unmatched,
}

impl Route {
    /// The route's pattern.
    pub fn pattern(self) -> &'static str {
        match self {
            Self::Leads => "/api/v1/leads",
            Self::Batch => "/api/v1/leads/batch",
            Self::Lead => "/api/v1/leads/{id}",
            Self::Events => "/api/v1/leads/events",
            Self::History => "/api/v1/leads/{id}/events",
            Self::SystemStatus => "/api/v1/system/status",
            Self::DeadLetters => "/api/v1/system/dead-letters",
            Self::Keys => "/api/v1/system/keys",
            Self::Whoami => "/api/v1/system/whoami",
            Self::Console => "/console",
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::OpenApi => "/openapi.json",
            Self::Docs => "/docs",
            Self::AsyncApi => "/asyncapi.json",
            Self::Schema => "/schemas/{event}/{version}",
            Self::Unmatched => "unmatched",
        }
    }

    /// Whether its answers are the same for everybody until the process ends.
    fn is_fixed(self) -> bool {
        match self {
            Self::OpenApi | Self::Docs | Self::AsyncApi | Self::Schema | Self::Console => true,
            Self::Leads
            | Self::Batch
            | Self::Lead
            | Self::Events
            | Self::History
            | Self::SystemStatus
            | Self::DeadLetters
            | Self::Keys
            | Self::Whoami
            | Self::Livez
            | Self::Readyz
            | Self::Unmatched => false,
        }
    }

    /// What comes every second and says nothing new: its line is logged at debug level.
    fn is_quiet(self, status: StatusCode) -> bool {
        match self {
            Self::Livez | Self::Readyz => true,
            // A console asks each second; who is not let in is worth a line.
            Self::SystemStatus => status.is_success(),
            Self::Leads
            | Self::Batch
            | Self::Lead
            | Self::Events
            | Self::History
            | Self::DeadLetters
            | Self::Keys
            | Self::Whoami
            | Self::Console
            | Self::OpenApi
            | Self::Docs
            | Self::AsyncApi
            | Self::Schema
            | Self::Unmatched => false,
        }
    }
}

/// Filled while a request is served, read when it is answered.
#[derive(Debug)]
pub struct RequestContext {
    request_id: String,
    trace: RequestTrace,
    route: Cell<Route>,
    workspace_id: Cell<Option<Uuid>>,
    rate: Cell<Option<RateStatus>>,
    batch: Cell<Option<BatchCount>>,
    waited: Cell<Option<Duration>>,
    /// Its line is logged when the stream ends.
    is_stream: Cell<bool>,
}

/// What became of a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamSummary {
    /// From its first byte to its last.
    pub took: std::time::Duration,
    /// Events handed to the connection.
    pub events: u64,
    /// Bytes handed to the connection.
    pub bytes: u64,
    /// Why it ended.
    pub end: &'static str,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchCount {
    /// Items.
    pub items: usize,
    /// Those that were taken in.
    pub taken: usize,
}

impl RequestContext {
    /// The context of a request that went through [`observe`].
    pub fn of(request: &HttpRequest) -> Option<Rc<Self>> {
        request.extensions().get::<Rc<Self>>().cloned()
    }

    /// Names the route.
    pub fn set_route(&self, route: Route) {
        self.route.set(route);
    }

    /// Names the workspace, once the key is known.
    pub fn set_workspace(&self, workspace_id: Uuid) {
        self.workspace_id.set(Some(workspace_id));
    }

    /// Notes what the rate limit said.
    pub fn set_rate(&self, rate: RateStatus) {
        self.rate.set(Some(rate));
    }

    /// Notes what became of a batch.
    pub fn set_batch(&self, batch: BatchCount) {
        self.batch.set(Some(batch));
    }

    /// The answer is a stream: the request's line is logged at its end.
    pub fn set_stream(&self) {
        self.is_stream.set(true);
    }

    /// Logs the line of a stream that has ended.
    pub fn log_stream(&self, summary: &StreamSummary) {
        let StreamSummary { took, events, bytes, end } = *summary;
        tracing::info!(
            target: "http",
            method = "GET",
            route = self.route.get().pattern(),
            status = 200,
            us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            request_id = self.request_id,
            workspace = self.workspace_id.get().map(tracing::field::display),
            trace_id = self.trace.trace_id(),
            events,
            bytes,
            end,
            "request"
        );
    }

    /// Notes how long the broker was waited for.
    pub fn set_waited(&self, waited: Duration) {
        self.waited.set(Some(waited));
    }

    /// Where the request stands in a trace.
    pub fn trace(&self) -> &RequestTrace {
        &self.trace
    }

    fn new(request: &ServiceRequest, traces: &Traces) -> Self {
        let headers = request.headers();
        Self {
            request_id: given_request_id(headers)
                .unwrap_or_else(|| Uuid::now_v7().simple().to_string()),
            trace: RequestTrace::begin(traces, request),
            route: Cell::new(Route::Unmatched),
            workspace_id: Cell::new(None),
            rate: Cell::new(None),
            batch: Cell::new(None),
            is_stream: Cell::new(false),
            waited: Cell::new(None),
        }
    }

    fn write_headers(&self, headers: &mut HeaderMap) {
        // All values are ASCII by construction.
        let mut set = |name, text: &str| {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        };
        set(REQUEST_ID, &self.request_id);
        if let Some(workspace_id) = self.workspace_id.get() {
            let mut buffer = Uuid::encode_buffer();
            set(WORKSPACE_ID, workspace_id.hyphenated().encode_lower(&mut buffer));
        }
        if let Some(RateStatus { limit, remaining, reset }) = self.rate.get() {
            headers.insert(RATE_LIMIT, HeaderValue::from(limit));
            headers.insert(RATE_REMAINING, HeaderValue::from(remaining));
            headers.insert(RATE_RESET, HeaderValue::from(reset));
        }
    }
}

/// The request id that the client sent, when it is one: `[A-Za-z0-9._-]{1,64}`.
pub fn given_request_id(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(REQUEST_ID)?.to_str().ok()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    ((1..=64).contains(&text.len()) && text.bytes().all(allowed)).then(|| text.to_owned())
}

/// Middleware around everything: gives the request its id, adds the headers that every answer has,
/// measures, and logs one line.
///
/// # Errors
/// Those of what is inside.
pub async fn observe(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let started = Instant::now();
    let app = request.app_data::<web::Data<App>>().cloned();
    let off = Traces::off();
    let traces = app.as_ref().map_or(&off, |app| &app.traces);
    let context = Rc::new(RequestContext::new(&request, traces));
    request.extensions_mut().insert(Rc::clone(&context));
    let _active = app.as_ref().map(|app| app.enter());
    let response =
        match connection::admit(&request, app.as_ref().is_some_and(|app| app.is_closed())) {
            // Routes answer their errors themselves: an `Err` here would be a fault of a middleware.
            Ok(under_way) => {
                let response = next.call(request).await?.map_into_boxed_body();
                connection::hold(server::in_json(response), under_way)
            }
            Err(error) => request.into_response(HttpResponse::from_error(error)),
        };
    let kept = app.as_ref().filter(|_| context.route.get().is_fixed()).map(|app| &app.kept);
    let mut response = compressed(response, kept).await;
    context.write_headers(response.headers_mut());
    if matches!(*response.request().method(), Method::GET | Method::HEAD) {
        keep_from_caches(response.headers_mut());
    }
    if app.as_ref().is_some_and(|app| app.is_shutting_down()) {
        // The client's next request finds another instance.
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    let took = started.elapsed();
    if let Some(app) = &app {
        let own = context.waited.get().map(|waited| took.saturating_sub(waited));
        app.metrics.request(context.route.get(), response.status().as_u16(), took, own);
    }
    if !context.is_stream.get() || !response.status().is_success() {
        tell(&context, &response, took);
    }
    Ok(response)
}

/// What a key may see is for no cache that others share: those do not know that `x-api-key` tells
/// callers apart, and what is given to one would be given to all. Source: RFC 9111, 3 and 5.2.2.
fn keep_from_caches(headers: &mut HeaderMap) {
    if headers.contains_key(header::CACHE_CONTROL) {
        return;
    }
    // With a tag the client itself may keep it, and ask whether it still holds.
    let rule = if headers.contains_key(header::ETAG) { "private, no-cache" } else { "no-store" };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(rule));
}

/// Ends the span, and writes the line.
fn tell(context: &RequestContext, response: &ServiceResponse, took: Duration) {
    let route = context.route.get();
    let error = response.response().error().and_then(|error| error.as_error::<ApiError>());
    let batch = context.batch.get();
    let trace_id = context.trace.trace_id();
    context.trace.end(&End {
        method: response.request().method().as_str(),
        route: route.pattern(),
        status: response.status().as_u16(),
        workspace_id: context.workspace_id.get(),
        error: error.map(ApiError::code_name),
    });
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "http",
                method = response.request().method().as_str(),
                route = route.pattern(),
                status = response.status().as_u16(),
                us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
                request_id = context.request_id,
                workspace = context.workspace_id.get().map(tracing::field::display),
                items = batch.map(|batch| batch.items),
                taken = batch.map(|batch| batch.taken),
                trace_id,
                error = error.map(ApiError::code_name),
                "request"
            )
        };
    }
    if route.is_quiet(response.status()) { line!(debug) } else { line!(info) }
}
