//! Every error of the contract: its code, its status, its JSON.

use std::borrow::Cow;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use serde::Serialize;
use serde_json::{Value, json};

use crate::access::Scope;
use crate::domain::{BatchRejection, FieldError, MAX_BATCH_ITEMS, Rejection};
use crate::publisher::PublishError;
use crate::rate_limit::RateStatus;
use crate::read_model::ReadModelError;

/// The codes. They are API: stable, and listed in `docs/http.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorCode {
    /// The body is not one JSON object.
    MalformedJson,
    /// Fields or parameters are not valid; `details.fields` names them all.
    ValidationFailed,
    /// An update that names no field.
    EmptyUpdate,
    /// A batch without an item.
    EmptyBatch,
    /// Every item of a batch was refused for its content.
    BatchRefused,
    /// The same idempotency key with another body.
    IdempotencyKeyReused,
    /// Two different keys in one request.
    AmbiguousCredentials,
    /// `If-Match` is neither `*` nor one strong entity tag.
    InvalidIfMatch,
    /// `Idempotency-Key` is not 1 to 255 visible ASCII characters.
    InvalidIdempotencyKey,
    /// The body could not be decompressed.
    MalformedEncoding,
    /// No key.
    MissingApiKey,
    /// A key that is unknown or revoked.
    InvalidApiKey,
    /// The key may not do this.
    InsufficientScope,
    /// No such lead in the key's workspace.
    LeadNotFound,
    /// No such event, or no such version of it.
    SchemaNotFound,
    /// No such route.
    RouteNotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// `Accept` excludes JSON.
    NotAcceptable,
    /// The body did not arrive in time.
    RequestTimeout,
    /// A browser's preflight that the operator does not allow.
    CorsRefused,
    /// The head of the request is too long.
    HeadersTooLarge,
    /// Another write came first.
    PreconditionFailed,
    /// The body is too large.
    PayloadTooLarge,
    /// Not `application/json`.
    UnsupportedMediaType,
    /// A content encoding other than gzip or zstd.
    UnsupportedContentEncoding,
    /// The log does not hold what follows a position.
    PositionGone,
    /// A position beyond the end of the log.
    PositionAhead,
    /// The key has as many streams open as it may.
    TooManyStreams,
    /// The key's requests of this minute are used up.
    RateLimitExceeded,
    /// A fault of the service.
    InternalError,
    /// The keys are not loaded yet.
    Starting,
    /// Nothing was taken: the instance is on its way out.
    ShuttingDown,
    /// Nothing was taken: the broker can't be reached or has stopped answering.
    BrokerUnavailable,
    /// Nothing was taken: too much is in flight.
    Overloaded,
    /// The event was sent but not acknowledged: it may or may not be taken.
    PublishTimeout,
    /// The projection did not catch up in time.
    ReadModelBehind,
    /// PostgreSQL can't be reached.
    ReadModelUnavailable,
}

impl ErrorCode {
    fn parts(self) -> (StatusCode, &'static str) {
        match self {
            Self::MalformedJson => (StatusCode::BAD_REQUEST, "malformed_json"),
            Self::ValidationFailed => (StatusCode::BAD_REQUEST, "validation_failed"),
            Self::EmptyUpdate => (StatusCode::BAD_REQUEST, "empty_update"),
            Self::EmptyBatch => (StatusCode::BAD_REQUEST, "empty_batch"),
            Self::BatchRefused => (StatusCode::BAD_REQUEST, "batch_refused"),
            Self::IdempotencyKeyReused => {
                (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused")
            }
            Self::AmbiguousCredentials => (StatusCode::BAD_REQUEST, "ambiguous_credentials"),
            Self::InvalidIfMatch => (StatusCode::BAD_REQUEST, "invalid_if_match"),
            Self::InvalidIdempotencyKey => (StatusCode::BAD_REQUEST, "invalid_idempotency_key"),
            Self::MalformedEncoding => (StatusCode::BAD_REQUEST, "malformed_encoding"),
            Self::MissingApiKey => (StatusCode::UNAUTHORIZED, "missing_api_key"),
            Self::InvalidApiKey => (StatusCode::UNAUTHORIZED, "invalid_api_key"),
            Self::InsufficientScope => (StatusCode::FORBIDDEN, "insufficient_scope"),
            Self::LeadNotFound => (StatusCode::NOT_FOUND, "lead_not_found"),
            Self::SchemaNotFound => (StatusCode::NOT_FOUND, "schema_not_found"),
            Self::RouteNotFound => (StatusCode::NOT_FOUND, "route_not_found"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "not_acceptable"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::CorsRefused => (StatusCode::BAD_REQUEST, "cors_refused"),
            Self::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large")
            }
            Self::PreconditionFailed => (StatusCode::PRECONDITION_FAILED, "precondition_failed"),
            Self::PayloadTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::UnsupportedContentEncoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_content_encoding")
            }
            Self::PositionGone => (StatusCode::GONE, "position_gone"),
            Self::PositionAhead => (StatusCode::CONFLICT, "position_ahead"),
            Self::TooManyStreams => (StatusCode::TOO_MANY_REQUESTS, "too_many_streams"),
            Self::RateLimitExceeded => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            Self::InternalError => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
            Self::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Self::ShuttingDown => (StatusCode::SERVICE_UNAVAILABLE, "shutting_down"),
            Self::BrokerUnavailable => (StatusCode::SERVICE_UNAVAILABLE, "broker_unavailable"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::PublishTimeout => (StatusCode::SERVICE_UNAVAILABLE, "publish_timeout"),
            Self::ReadModelBehind => (StatusCode::SERVICE_UNAVAILABLE, "read_model_behind"),
            Self::ReadModelUnavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "read_model_unavailable")
            }
        }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        self.parts().0
    }

    /// Its name in answers, metrics and log lines.
    pub fn name(self) -> &'static str {
        self.parts().1
    }
}

/// An error answer: `{"error": code, "message": text, "details": {…}}`.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct ApiError {
    code: ErrorCode,
    message: Cow<'static, str>,
    /// Boxed: errors are rare, and the `Ok` of every route would have to have room for it.
    details: Box<Details>,
    retry_after: Option<u32>,
    allow: Option<&'static str>,
}

/// What is told beside the message.
#[derive(Debug, Clone, Serialize)]
#[serde(untagged)]
enum Details {
    /// A JSON object.
    Object(Value),
    /// As they are: a batch keeps those of all its items until it is answered.
    Fields { fields: Vec<FieldError> },
}

/// `{"error": …, "message": …, "details": …}`, and `retry_after` with a 429.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    error: &'static str,
    message: &'a str,
    details: &'a Details,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u32>,
}

impl ApiError {
    /// An error with a message that says what, where, and how to mend it.
    pub fn new(code: ErrorCode, message: impl Into<Cow<'static, str>>) -> Self {
        // Every 503 is one that a retry can mend, and so is having too many streams.
        let passes = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        let retry_after = passes.contains(&code.status()).then_some(1);
        Self {
            code,
            message: message.into(),
            details: Box::new(Details::Object(json!({}))),
            retry_after,
            allow: None,
        }
    }

    /// Adds `details`, a JSON object.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        *self.details = Details::Object(details);
        self
    }

    /// Fields or query parameters that are not valid.
    pub fn invalid_fields(fields: Vec<FieldError>) -> Self {
        let names: Vec<&str> = fields.iter().map(|field| field.field.as_ref()).collect();
        let message = format!("not valid: {}; details.fields says why", names.join(", "));
        let mut error = Self::new(ErrorCode::ValidationFailed, message);
        *error.details = Details::Fields { fields };
        error
    }

    /// No such lead.
    pub fn lead_not_found() -> Self {
        Self::new(ErrorCode::LeadNotFound, "no lead with this id in the key's workspace")
    }

    /// The method is not one of `allow`.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut error =
            Self::new(ErrorCode::MethodNotAllowed, format!("this route takes {allow} only"));
        error.allow = Some(allow);
        error
    }

    /// The key lacks `scope`.
    pub fn insufficient_scope(scope: Scope) -> Self {
        Self::new(ErrorCode::InsufficientScope, format!("the key lacks the scope {scope}"))
            .with_details(json!({ "required_scope": scope.name() }))
    }

    /// The key's requests of this minute are used up.
    pub fn rate_limited(status: RateStatus, now: i64) -> Self {
        let wait = u32::try_from((status.reset - now).max(1)).unwrap_or(60);
        let mut error = Self::new(
            ErrorCode::RateLimitExceeded,
            format!("{} requests a minute are used up; wait {wait} s", status.limit),
        );
        error.retry_after = Some(wait);
        error
    }

    /// The body has more than `limit` bytes.
    pub fn too_large(limit: usize) -> Self {
        Self::new(
            ErrorCode::PayloadTooLarge,
            format!(
                "the body may have at most {limit} bytes ({} KiB), after decompression",
                limit / 1024
            ),
        )
        .with_details(json!({ "limit_bytes": limit }))
    }

    /// What is wrong, where, and how to mend it.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The code's name.
    pub fn code_name(&self) -> &'static str {
        self.code.name()
    }

    /// The code.
    pub fn code(&self) -> ErrorCode {
        self.code
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }

    fn error_response(&self) -> HttpResponse {
        self.response().json(self.body())
    }
}

impl ApiError {
    /// The usual error object.
    pub fn body(&self) -> ErrorBody<'_> {
        let is_told = self.status_code() == StatusCode::TOO_MANY_REQUESTS;
        ErrorBody {
            error: self.code.name(),
            message: &self.message,
            details: &self.details,
            retry_after: self.retry_after.filter(|_| is_told),
        }
    }

    /// An answer with its status and headers.
    pub fn response(&self) -> HttpResponseBuilder {
        let mut response = HttpResponseBuilder::new(self.status_code());
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, HeaderValue::from(seconds)));
        }
        if let Some(allow) = self.allow {
            response.insert_header((header::ALLOW, allow));
        }
        if self.code == ErrorCode::UnsupportedContentEncoding {
            // What would be taken: RFC 9110, 12.5.3.
            response.insert_header((header::ACCEPT_ENCODING, "gzip, zstd"));
        }
        if self.status_code() == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, r#"Bearer realm="leads""#));
        }
        response
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::Malformed { message, line, column } => Self::new(
                ErrorCode::MalformedJson,
                format!(
                    "the body is not one JSON object: {message} (line {line}, column {column})"
                ),
            )
            .with_details(json!({ "line": line, "column": column })),
            Rejection::Invalid(fields) => Self::invalid_fields(fields),
            Rejection::EmptyUpdate => Self::new(
                ErrorCode::EmptyUpdate,
                "the body names no field; send at least one to change",
            ),
        }
    }
}

impl From<BatchRejection> for ApiError {
    fn from(rejection: BatchRejection) -> Self {
        match rejection {
            BatchRejection::Malformed(Rejection::Malformed { message, line, column }) => Self::new(
                ErrorCode::MalformedJson,
                format!("the body is not one JSON array: {message} (line {line}, column {column})"),
            )
            .with_details(json!({ "line": line, "column": column })),
            BatchRejection::Malformed(rejection) => rejection.into(),
            BatchRejection::Empty => {
                Self::new(ErrorCode::EmptyBatch, "the batch has no item; send at least one lead")
            }
            BatchRejection::TooMany => Self::new(
                ErrorCode::PayloadTooLarge,
                format!("a batch may have at most {MAX_BATCH_ITEMS} items; send more of them"),
            )
            .with_details(json!({ "limit_items": MAX_BATCH_ITEMS })),
        }
    }
}

impl From<PublishError> for ApiError {
    fn from(error: PublishError) -> Self {
        let (code, message) = match error {
            PublishError::Unavailable => (
                ErrorCode::BrokerUnavailable,
                "the message broker can't be reached; nothing was taken, send it again",
            ),
            PublishError::Stalled => (
                ErrorCode::BrokerUnavailable,
                "the message broker has stopped answering; nothing was taken, send it again",
            ),
            PublishError::Overloaded => (
                ErrorCode::Overloaded,
                "the service is full: too many leads are waiting for the message broker; nothing was taken, send it again",
            ),
            PublishError::OverShare => (
                ErrorCode::Overloaded,
                "this key holds its share: too many of its leads are waiting for the message broker; nothing was taken, send less at once, or send it again",
            ),
            PublishError::Unacknowledged => (
                ErrorCode::PublishTimeout,
                "the message broker did not acknowledge in time: it may have been taken. Send it again; with the same Idempotency-Key it can't be doubled",
            ),
            PublishError::TooLarge => {
                (ErrorCode::PayloadTooLarge, "the message broker refuses a record of this size")
            }
            PublishError::Encoding => {
                (ErrorCode::InternalError, "the event could not be written; nothing was taken")
            }
        };
        Self::new(code, message)
    }
}

impl From<ReadModelError> for ApiError {
    fn from(error: ReadModelError) -> Self {
        match error {
            ReadModelError::Unavailable => Self::new(
                ErrorCode::ReadModelUnavailable,
                "the read model can't be reached; leads are still taken in. Try again",
            ),
            ReadModelError::Behind => Self::new(
                ErrorCode::ReadModelBehind,
                "the read model has not caught up with the log yet. Try again",
            ),
        }
    }
}
