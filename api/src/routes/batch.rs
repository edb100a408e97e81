//! `POST /api/v1/leads/batch`
//!
//! One bad item never spoils the rest: each has an outcome of its own. Items are published together
//! and awaited together.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use bytes::Bytes;
use chrono::Utc;
use leads_shared::{Event, Payload, Timestamp};
use serde_json::json;
use tokio::sync::watch;
use uuid::Uuid;

use super::body;
use super::create::{ids, reused};
use super::guard::{self, Body, Terms};
use crate::access::Scope;
use crate::context::{BatchCount, Route};
use crate::domain::idempotency::IdempotencyKey;
use crate::domain::{BatchFormat, MAX_BATCH_BYTES, MAX_LEAD_BYTES, Rejection, items, parse_item};
use crate::error::{ApiError, ErrorCode};
use crate::publisher::{PublishError, Published};
use crate::recent::{Begin, Content, Stored, Ticket};
use crate::startup::App;

const BODY: Body = Body { max: MAX_BATCH_BYTES, types: &[guard::JSON, guard::LINES] };

/// Takes leads in, up to a thousand; answers when the broker has all of them that it takes.
pub(super) async fn create_batch(
    request: HttpRequest,
    payload: web::Payload,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    let terms = Terms { route: Route::Batch, scopes: &[Scope::LeadsWrite], body: Some(BODY) };
    let caller = guard::admit(&request, &app, terms)?;
    let batch_key = guard::idempotency_key(request.headers())?;
    let format = match caller.content_type {
        Some(guard::LINES) => BatchFormat::Lines,
        Some(_) | None => BatchFormat::Array,
    };
    let body = body::read(request.headers(), payload, MAX_BATCH_BYTES, &app).await?;
    let items = items(&body, format)?;
    let deadline = Instant::now() + app.limits.publish_timeout;
    let mut waited: Option<Duration> = None;
    let mut outcomes = Vec::new();
    // Most often the first round is the only one: the next are of items whose key is under way here.
    let mut round: Vec<usize> = (0..items.len()).collect();
    while !round.is_empty() {
        let mut batch = Batch::begin(caller.workspace_id, &app);
        for &index in &round {
            let (item, line) = items[index];
            let key = batch_key.as_ref().map(|key| key.of_item(index));
            let item = batch.item(item, line, key);
            batch.items.push(item);
        }
        let results = app.publish_all(&batch.events, caller.share(), caller.trace()).await;
        if let Some(longest) = results.iter().flatten().map(|published| published.waited).max() {
            waited = Some(waited.unwrap_or_default() + longest);
        }
        let found = batch.outcomes(results);
        if outcomes.is_empty() {
            outcomes = found;
        } else {
            for (&index, outcome) in round.iter().zip(found) {
                outcomes[index] = outcome;
            }
        }
        // What is ours was answered before: two batches never wait for each other.
        let started = Instant::now();
        round = ended(&mut outcomes, deadline).await;
        waited = waited.map(|waited| waited + started.elapsed());
    }
    if let Some(waited) = waited {
        caller.note_wait(waited);
    }
    let outcomes: Vec<Result<Taken, ApiError>> =
        outcomes.into_iter().map(Outcome::settled).collect();
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    caller.note_batch(BatchCount { items: outcomes.len(), taken });
    let preference = preference(request.headers());
    Ok(answer(&outcomes, preference))
}

/// What became of an item.
enum Outcome {
    Settled(Result<Taken, ApiError>),
    /// The same key is under way here, in another request: its answer is this one's too.
    UnderWay(watch::Receiver<()>),
}

impl Outcome {
    fn settled(self) -> Result<Taken, ApiError> {
        match self {
            Self::Settled(result) => result,
            Self::UnderWay(_) => Err(PublishError::Unacknowledged.into()),
        }
    }
}

/// Waits for the items that are under way elsewhere; gives those to be looked at again. What has not
/// ended by the deadline may have been taken.
async fn ended(outcomes: &mut [Outcome], deadline: Instant) -> Vec<usize> {
    let mut again = Vec::new();
    for (index, outcome) in outcomes.iter_mut().enumerate() {
        let Outcome::UnderWay(end) = outcome else { continue };
        match tokio::time::timeout_at(deadline.into(), end.changed()).await {
            // By an answer, or by the sender's end without one.
            Ok(_) => again.push(index),
            Err(_) => *outcome = Outcome::Settled(Err(PublishError::Unacknowledged.into())),
        }
    }
    again
}

/// The items of a batch on their way to becoming events.
struct Batch<'a> {
    workspace_id: Uuid,
    app: &'a App,
    /// When it was taken up, by both clocks: reading them costs as much as reading an item.
    started: Instant,
    occurred_at: Timestamp,
    events: Vec<Event<'a>>,
    /// For each item what it comes to, or why it comes to nothing.
    items: Vec<Result<Item, ApiError>>,
    /// For each event the right to keep its answer for retries, if it has a key.
    tickets: Vec<Option<Ticket>>,
    /// The events of items with an idempotency key, and what they say, by their lead.
    keyed: HashMap<Uuid, (usize, Content)>,
}

/// What an item comes to.
enum Item {
    /// The event with this index.
    Event(usize),
    /// An earlier request took it in.
    Stored(Taken),
    /// Another request is taking it in.
    UnderWay(watch::Receiver<()>),
}

impl<'a> Batch<'a> {
    fn begin(workspace_id: Uuid, app: &'a App) -> Self {
        Self {
            workspace_id,
            app,
            started: Instant::now(),
            occurred_at: Timestamp::from(Utc::now()),
            events: Vec::new(),
            items: Vec::new(),
            tickets: Vec::new(),
            keyed: HashMap::new(),
        }
    }

    /// What an item comes to.
    fn item(
        &mut self,
        item: &'a [u8],
        line: usize,
        key: Option<IdempotencyKey>,
    ) -> Result<Item, ApiError> {
        if item.len() > MAX_LEAD_BYTES {
            return Err(ApiError::too_large(MAX_LEAD_BYTES));
        }
        let (new_lead, own_key) = parse_item(item).map_err(|rejection| at_line(rejection, line))?;
        // An item's own key wins: it stays the same when the batch is cut differently.
        let key = own_key.or(key);
        let (workspace_id, now) = (self.workspace_id, self.occurred_at);
        let (lead_id, event_id) = ids(key.as_ref(), workspace_id, self.app);
        let mut ticket = None;
        if key.is_some() {
            let content = new_lead.digest();
            match self.keyed.get(&lead_id) {
                // Twice the same: one event for both.
                Some((index, known)) if *known == content => return Ok(Item::Event(*index)),
                Some(_) => return Err(reused()),
                None => {}
            }
            match self.app.recent.begin(lead_id, content, self.started) {
                Begin::First(first) => ticket = Some(first),
                Begin::Stored(Stored { lead, .. }) => {
                    self.app.metrics.replayed();
                    return Ok(Item::Stored(Taken { lead_id, lead }));
                }
                Begin::UnderWay(end) => return Ok(Item::UnderWay(end)),
                Begin::Reused => return Err(reused()),
            }
            self.keyed.insert(lead_id, (self.events.len(), content));
        }
        let lead = new_lead.into_lead(lead_id, workspace_id, now);
        self.tickets.push(ticket);
        self.events.push(Event {
            event_id,
            occurred_at: now,
            workspace_id,
            lead_id,
            payload: Payload::LeadCreated { lead },
        });
        Ok(Item::Event(self.events.len() - 1))
    }

    /// What became of each item.
    fn outcomes(self, results: Vec<Result<Published, ApiError>>) -> Vec<Outcome> {
        let mut taken = Vec::with_capacity(results.len());
        let (mut kept, mut copies) = (Vec::new(), Vec::new());
        for ((event, ticket), result) in self.events.iter().zip(self.tickets).zip(results) {
            taken.push(result.map(|Published { position, waited: _, encoded }| {
                let lead = Bytes::from(encoded.value).slice(encoded.body);
                if let Some(ticket) = ticket {
                    // A copy: a slice would keep the whole record.
                    let start = copies.len();
                    copies.extend_from_slice(&lead);
                    kept.push((ticket, position, start..copies.len()));
                }
                Taken { lead_id: event.lead_id, lead }
            }));
        }
        if !kept.is_empty() {
            copies.shrink_to_fit();
            let copies = Bytes::from(copies);
            let answers = kept.into_iter().map(|(ticket, position, range)| {
                (ticket, Stored { position, lead: copies.slice(range) })
            });
            self.app.recent.answer(answers, Instant::now());
        }
        let outcome = |item: Result<Item, ApiError>| match item {
            Ok(Item::Event(index)) => Outcome::Settled(taken[index].clone()),
            Ok(Item::Stored(taken)) => Outcome::Settled(Ok(taken)),
            Ok(Item::UnderWay(end)) => Outcome::UnderWay(end),
            Err(error) => Outcome::Settled(Err(error)),
        };
        self.items.into_iter().map(outcome).collect()
    }
}

/// An item that the broker has.
#[derive(Clone)]
struct Taken {
    lead_id: Uuid,
    /// In JSON.
    lead: Bytes,
}

/// The line is that of the body, not of the item.
fn at_line(rejection: Rejection, first: usize) -> ApiError {
    match rejection {
        Rejection::Malformed { message, line, column } => {
            Rejection::Malformed { message, line: first + line - 1, column }.into()
        }
        other => other.into(),
    }
}

/// What the client wants to see of the leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Preference {
    Minimal,
    Representation,
}

/// Source: RFC 7240, 4.2. A preference that isn't known is passed over.
fn preference(headers: &HeaderMap) -> Option<Preference> {
    let values = headers.get_all("prefer").filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split([',', ';'])).find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("return") {
            return None;
        }
        match value.trim().trim_matches('"') {
            "minimal" => Some(Preference::Minimal),
            "representation" => Some(Preference::Representation),
            _ => None,
        }
    })
}

fn answer(outcomes: &[Result<Taken, ApiError>], preference: Option<Preference>) -> HttpResponse {
    let whole = preference == Some(Preference::Representation);
    let taken = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let none = if taken == 0 { Some(nothing_taken(outcomes)) } else { None };
    let size = outcomes.iter().flatten().map(|taken| taken.lead.len()).sum::<usize>();
    let mut body = Vec::with_capacity(outcomes.len() * 96 + if whole { size } else { 0 });
    // Writing to a Vec cannot fail.
    let _ = match &none {
        Some(error) => {
            let (code, message) = (error.code_name(), json!(error.message()));
            write!(body, r#"{{"error":"{code}","message":{message},"data":["#)
        }
        None => write!(body, r#"{{"data":["#),
    };
    for (index, outcome) in outcomes.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        match outcome {
            Ok(Taken { lead_id, lead }) => {
                let _ = write!(body, r#"{{"index":{index},"status":201,"id":"{lead_id}""#);
                if whole {
                    body.extend_from_slice(br#","lead":"#);
                    body.extend_from_slice(lead);
                }
                body.push(b'}');
            }
            Err(error) => {
                let status = error.status_code().as_u16();
                let _ = write!(body, r#"{{"index":{index},"status":{status},"error":"#);
                let _ = serde_json::to_writer(&mut body, &error.body());
                body.push(b'}');
            }
        }
    }
    body.extend_from_slice(b"]}");
    let mut response = match &none {
        Some(error) => error.response(),
        None if taken == outcomes.len() => HttpResponse::build(StatusCode::CREATED),
        None => HttpResponse::build(StatusCode::MULTI_STATUS),
    };
    if let Some(preference) = preference {
        let applied = match preference {
            Preference::Minimal => "return=minimal",
            Preference::Representation => "return=representation",
        };
        response.insert_header(("preference-applied", applied));
    }
    response.content_type("application/json").body(body)
}

/// The error of the whole: the broker's when it was one of the causes, since a retry can mend that.
fn nothing_taken(outcomes: &[Result<Taken, ApiError>]) -> ApiError {
    let errors = || outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    // One that may have been taken speaks for all: a client must not be told that none was.
    let unknown = errors().find(|error| error.code() == ErrorCode::PublishTimeout);
    let unavailable = || errors().find(|error| error.status_code().is_server_error());
    match unknown.or_else(unavailable) {
        Some(error) => ApiError::new(error.code(), error.message().to_owned()),
        None => ApiError::new(
            ErrorCode::BatchRefused,
            "no item was taken: each has its error; mend them and send them again",
        ),
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_whole_never_says_that_nothing_was_taken_when_an_item_may_have_been() {
        let of = |errors: &[PublishError]| {
            let outcomes: Vec<_> =
                errors.iter().map(|error| Err(ApiError::from(error.clone()))).collect();
            nothing_taken(&outcomes).code()
        };
        let (refused, unknown) = (PublishError::Stalled, PublishError::Unacknowledged);
        assert_eq!(of(&[refused.clone(), refused.clone()]), ErrorCode::BrokerUnavailable);
        assert_eq!(of(&[refused, unknown]), ErrorCode::PublishTimeout);
    }

    #[test]
    fn preferences_are_read_as_rfc_7240_writes_them() {
        let read = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(HeaderName::from_static("prefer"), HeaderValue::from_static(value));
            preference(&headers)
        };
        assert_eq!(read("return=representation"), Some(Preference::Representation));
        assert_eq!(read("respond-async, Return=\"minimal\"; x=1"), Some(Preference::Minimal));
        assert_eq!(read("return=all"), None);
        assert_eq!(preference(&HeaderMap::new()), None);
    }
}
