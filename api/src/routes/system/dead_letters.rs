//! `GET /api/v1/system/dead-letters`

use std::ops::Range;

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::DateTime;
use leads_shared::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Pagination, cursor, invalid_cursor, operators, read_cursor};
use crate::context::Route;
use crate::domain::{FieldCode, FieldError};
use crate::error::ApiError;
use crate::read_model::{DeadLetter, DeadLetterPlace, FailedRedrive, WhichDeadLetters};
use crate::routes::docs::ErrorAnswer;
use crate::routes::guard;
use crate::routes::query::{Parsed, Take, integer, values};
use crate::startup::App;

const DEFAULT_LIMIT: i64 = 50;
const MAX_LIMIT: i64 = 100;
/// The reason of those that wait behind another one of their lead.
pub(super) const PARKED: &str = "parked";

/// A page of dead letters, the newest first.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct DeadLettersAnswer {
    data: Vec<ListedDeadLetter>,
    pagination: Pagination,
}

/// A record that could not be projected; never what is in it.
#[derive(Serialize, ToSchema)]
struct ListedDeadLetter {
    partition: i32,
    offset: i64,
    /// By the record's key, when that is a UUID.
    #[schema(required)]
    lead_id: Option<Uuid>,
    /// By the record's headers.
    #[schema(required)]
    workspace_id: Option<Uuid>,
    /// Why it was set aside.
    #[schema(example = "undecodable")]
    reason: String,
    /// The cause in words.
    error: String,
    /// Whether later events of the lead wait for it.
    holds_lead: bool,
    /// Whether it waits for an earlier one of the lead, and is none by itself.
    parked: bool,
    #[schema(value_type = String, format = DateTime)]
    dead_at: Timestamp,
    /// The record's own time.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    record_time: Option<Timestamp>,
    /// When a redrive projected it after all; null while it waits.
    #[schema(required, value_type = Option<String>, format = DateTime)]
    redriven_at: Option<Timestamp>,
    /// How many redrives failed.
    failed_redrives: usize,
    /// What it was set aside for before each of them, the oldest first.
    history: Vec<FailedRedrive>,
    /// Bytes of the record's value.
    #[schema(minimum = 0)]
    size_bytes: i32,
}

/// Answers with a page of the live generation's dead letters.
#[utoipa::path(
    get, path = "/api/v1/system/dead-letters", tag = "system",
    summary = "List dead letters, newest first",
    description = "Records of all workspaces that could not be projected, each with its cause and never with its \
        contents: `leads-consumer dlq show` has those. Needs the scope system:read.",
    params(
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 100, description = "Dead letters on a page; 50 by default"),
        ("cursor" = Option<String>, Query, description = "next_cursor of the page before"),
        ("state" = Option<String>, Query, description = "waiting (default), or all: redriven ones too"),
    ),
    responses(
        (status = 200, description = "A page", body = DeadLettersAnswer),
        (status = 400, body = ErrorAnswer, description = "validation_failed, ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting, read_model_unavailable"),
    ),
)]
pub(in crate::routes) async fn dead_letters(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let caller = guard::admit(&request, &app, operators(Route::DeadLetters))?;
    let Query { limit, after, which } =
        Query::parse(request.query_string()).map_err(ApiError::invalid_fields)?;
    let reading = caller.trace().reading("SELECT dead_letters");
    // One more than is shown tells whether there is a next page.
    let found = app.system.dead_letters(which, after, limit + 1).await?;
    let (waiting, all) = app.system.dead_letter_totals().await?;
    drop(reading);
    let shown = usize::try_from(limit).unwrap_or(0);
    let more = found.len() > shown;
    let last = found.get(shown.saturating_sub(1)).filter(|_| more);
    let pagination = Pagination {
        limit,
        next_cursor: last.map(|it| write_cursor(it.place)),
        total: match which {
            WhichDeadLetters::Waiting => waiting,
            WhichDeadLetters::All => all,
        },
    };
    let data = found.into_iter().take(shown).map(listed).collect();
    Ok(HttpResponse::Ok().json(DeadLettersAnswer { data, pagination }))
}

fn listed(found: DeadLetter) -> ListedDeadLetter {
    let DeadLetter {
        place: DeadLetterPlace { dead_at_micros: _, partition, offset },
        dead_at,
        lead_id,
        workspace_id,
        reason,
        error,
        holds_lead,
        record_time,
        redriven_at,
        history,
        size_bytes,
    } = found;
    ListedDeadLetter {
        partition,
        offset,
        lead_id,
        workspace_id,
        parked: reason == PARKED,
        reason,
        error,
        holds_lead,
        dead_at,
        record_time,
        redriven_at,
        failed_redrives: history.len(),
        history,
        size_bytes,
    }
}

#[derive(Debug, PartialEq)]
struct Query {
    limit: i64,
    after: Option<DeadLetterPlace>,
    which: WhichDeadLetters,
}

impl Query {
    fn parse(query: &str) -> Result<Self, Vec<FieldError>> {
        let ([limit, cursor, state], errors) = values(query, ["limit", "cursor", "state"]);
        let mut take = Take { errors };
        let limit = take.value("limit", limit, |text| integer(text, 1, MAX_LIMIT));
        let after = take.value("cursor", cursor, place);
        let which = take.value("state", state, state_of);
        if !take.errors.is_empty() {
            return Err(take.errors);
        }
        let which = which.unwrap_or(WhichDeadLetters::Waiting);
        Ok(Self { limit: limit.unwrap_or(DEFAULT_LIMIT), after, which })
    }
}

fn state_of(text: &str) -> Parsed<WhichDeadLetters> {
    match text {
        "waiting" => Ok(WhichDeadLetters::Waiting),
        "all" => Ok(WhichDeadLetters::All),
        _ => Err((FieldCode::OutOfRange, "must be waiting or all".to_owned())),
    }
}

fn write_cursor(place: DeadLetterPlace) -> String {
    let DeadLetterPlace { dead_at_micros, partition, offset } = place;
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&dead_at_micros.to_be_bytes());
    bytes[8..12].copy_from_slice(&partition.to_be_bytes());
    bytes[12..].copy_from_slice(&offset.to_be_bytes());
    cursor(&bytes)
}

fn place(text: &str) -> Parsed<DeadLetterPlace> {
    let bytes: [u8; 20] = read_cursor(text)?;
    let number = |range: Range<usize>| {
        bytes[range].iter().fold(0_i64, |number, byte| number << 8 | i64::from(*byte))
    };
    let dead_at_micros = number(0..8);
    // What PostgreSQL can't hold was never given out.
    if dead_at_micros < 0 || DateTime::from_timestamp_micros(dead_at_micros).is_none() {
        return Err(invalid_cursor());
    }
    let partition = i32::try_from(number(8..12)).map_err(|_| invalid_cursor())?;
    Ok(DeadLetterPlace { dead_at_micros, partition, offset: number(12..20) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_comes_back_as_it_was() {
        let place = DeadLetterPlace { dead_at_micros: 1 << 50, partition: 11, offset: 1 << 40 };
        let query = Query::parse(&format!("state=all&limit=7&cursor={}", write_cursor(place)));
        let expected = Query { limit: 7, after: Some(place), which: WhichDeadLetters::All };
        assert_eq!(query, Ok(expected));
    }

    #[test]
    fn all_errors_at_once() {
        let errors = Query::parse("limit=101&cursor=AAAA&state=dead&x=1").unwrap_err();
        let found: Vec<_> = errors.iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(found, ["x", "limit", "cursor", "state"]);
    }
}
