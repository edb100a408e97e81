//! `GET /api/v1/leads/events`

use std::time::{SystemTime, UNIX_EPOCH};

use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use leads_shared::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::guard::{self, EVENT_STREAM, Terms};
use super::query;
use crate::access::Scope;
use crate::context::Route;
use crate::domain::{FieldCode, FieldError};
use crate::error::{ApiError, ErrorCode};
use crate::startup::App;
use crate::stream::position::Position;
use crate::stream::{self, Full, NoStart, Opening, Types};

const LAST_EVENT_ID: &str = "Last-Event-ID";
/// A time that lies further ahead is a mistake, not a clock that differs.
const CLOCKS_DIFFER_MILLIS: i64 = 60_000;

/// Where a stream was asked to begin.
#[derive(Debug, Clone, PartialEq)]
enum From {
    Beginning,
    Now,
    Position(Position),
    Time(Timestamp),
}

#[derive(Debug, PartialEq)]
struct StreamQuery {
    from: From,
    types: Types,
}

/// Streams the workspace's events.
pub(super) async fn stream(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Events, scopes: &[Scope::LeadsRead], body: None };
    let caller = guard::admit_to(&request, &app, terms, EVENT_STREAM)?;
    let workspace_id = caller.workspace_id;
    let StreamQuery { from, types } =
        StreamQuery::parse(request.query_string(), request.headers(), workspace_id)
            .map_err(ApiError::invalid_fields)?;
    let room = app.streams.enter(caller.key.id).map_err(full)?;
    let from = match from {
        From::Now => None,
        From::Beginning => Some(app.streams.beginning().await.map_err(no_start)?),
        From::Time(time) => Some(app.streams.at_time(time.unix_millis()).await.map_err(no_start)?),
        From::Position(position) => {
            app.streams.check(&position).await.map_err(no_start)?;
            Some(position)
        }
    };
    let mut response = HttpResponse::Ok();
    response
        .insert_header((header::CONTENT_TYPE, EVENT_STREAM))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx would hold events back until its buffer is full.
        .insert_header(("X-Accel-Buffering", "no"))
        // Whoever comes back after the end is to find any instance.
        .force_close();
    if request.method() == Method::HEAD {
        return Ok(response.finish());
    }
    let digest = caller.digest;
    let context = caller.stream_context();
    let opening = Opening { room, workspace_id, digest, types, from, context };
    let bytes = stream::open(app.clone(), opening).await.map_err(no_start)?;
    Ok(response.streaming(bytes))
}

fn full(full: Full) -> ApiError {
    match full {
        Full::Key(most) => ApiError::new(
            ErrorCode::TooManyStreams,
            format!(
                "the key has {most} streams open here, which is all it may have; end one. A client that went away without a word counts until the next heartbeat"
            ),
        )
        .with_details(json!({ "limit_streams": most })),
        Full::Instance => ApiError::new(
            ErrorCode::Overloaded,
            "this instance has as many streams open as it may; try again, or another one",
        ),
    }
}

fn no_start(no_start: NoStart) -> ApiError {
    match no_start {
        NoStart::Gone => ApiError::new(
            ErrorCode::PositionGone,
            "the log does not hold what follows this position any more, or was made anew; begin with from=beginning",
        ),
        NoStart::Ahead => ApiError::new(
            ErrorCode::PositionAhead,
            "this position lies beyond the end of the log: is it of another system? Begin with from=beginning or from=now",
        ),
        NoStart::Stopping => ApiError::new(
            ErrorCode::Overloaded,
            "this instance is ending; try again at another one",
        ),
        NoStart::Unreachable => ApiError::new(
            ErrorCode::BrokerUnavailable,
            "the message broker can't be reached, so the stream can't begin. Try again",
        ),
    }
}

impl StreamQuery {
    /// `Last-Event-ID` wins over `from`: a browser that connects again sends the same URL.
    fn parse(
        query: &str,
        headers: &HeaderMap,
        workspace_id: Uuid,
    ) -> Result<Self, Vec<FieldError>> {
        let ([from, types], mut errors) = query::values(query, ["from", "type"]);
        let header = headers.get(LAST_EVENT_ID).filter(|value| !value.is_empty());
        let from = match (header, from) {
            (Some(value), _) => {
                let text = value.to_str().unwrap_or_default();
                position(text, workspace_id).map_err(|message| {
                    FieldError::new(LAST_EVENT_ID, FieldCode::InvalidPosition, message)
                })
            }
            (None, None) => Ok(From::Now),
            (None, Some(text)) => read_from(&text, workspace_id)
                .map_err(|(code, message)| FieldError::new("from", code, message)),
        };
        let types = match types.as_deref().map(Types::parse) {
            None => Ok(Types::All),
            Some(Ok(types)) => Ok(types),
            Some(Err(_)) => Err(FieldError::new(
                "type",
                FieldCode::UnknownType,
                "must be LeadCreated, LeadUpdated, or both with a comma between them",
            )),
        };
        match (from, types) {
            (Ok(from), Ok(types)) if errors.is_empty() => Ok(Self { from, types }),
            (from, types) => {
                errors.extend(from.err());
                errors.extend(types.err());
                Err(errors)
            }
        }
    }
}

fn position(text: &str, workspace_id: Uuid) -> Result<From, String> {
    Position::read(text, workspace_id).map(From::Position).map_err(|error| error.to_string())
}

fn read_from(text: &str, workspace_id: Uuid) -> Result<From, (FieldCode, String)> {
    match text {
        "beginning" => return Ok(From::Beginning),
        "now" => return Ok(From::Now),
        _ => {}
    }
    // Only a time begins with a year and a hyphen; the first byte of a position is its version.
    if text.get(4..5) == Some("-") && text.as_bytes().iter().take(4).all(u8::is_ascii_digit) {
        let time = query::time(text)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let latest = i64::try_from(now).unwrap_or(i64::MAX).saturating_add(CLOCKS_DIFFER_MILLIS);
        if time.unix_millis() > latest {
            let message = "lies in the future; from=now begins with the next event";
            return Err((FieldCode::OutOfRange, message.to_owned()));
        }
        return Ok(From::Time(time));
    }
    position(text, workspace_id).map_err(|message| {
        let message =
            format!("{message}; nor is it beginning, now, or an RFC 3339 time with an offset");
        (FieldCode::InvalidPosition, message)
    })
}
