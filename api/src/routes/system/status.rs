//! `GET /api/v1/system/status`

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::Utc;
use leads_shared::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::operators;
use super::projection::{DeadLetters, Projection, Rebuild};
use crate::buckets::Counted;
use crate::context::Route;
use crate::error::{ApiError, ErrorCode};
use crate::metrics::Shed;
use crate::routes::docs::ErrorAnswer;
use crate::routes::guard;
use crate::routes::health;
use crate::startup::App;
use crate::system::Seen;

/// How the whole system stands.
#[derive(Serialize, ToSchema)]
pub(in crate::routes) struct StatusAnswer<'a> {
    data: Status<'a>,
}

/// Null is what is not known; `projection.error` says why.
#[derive(Serialize, ToSchema)]
struct Status<'a> {
    /// When it was answered.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// Of the API.
    version: &'static str,
    instance: InstanceAnswer<'a>,
    ingest: Ingest,
    projection: Projection<'a>,
    /// Of the live generation.
    #[schema(required)]
    dead_letters: Option<DeadLetters<'a>>,
    /// Null while none is under way.
    #[schema(required)]
    rebuild: Option<Rebuild<'a>>,
}

/// The process that answers.
#[derive(Serialize, ToSchema)]
#[schema(as = Instance)]
struct InstanceAnswer<'a> {
    /// `HOST:PID`; with `started_at` it names the process.
    id: &'a str,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
}

/// How leads come in at the instance that answers.
#[derive(Serialize, ToSchema)]
struct Ingest {
    /// `ready`, `starting`, `no_broker` or `stopping`. Leads are taken when it is `ready`.
    #[schema(example = "ready")]
    status: &'static str,
    /// `up`, `down`, `connecting`, `topic_missing`, `stalled` or `replacing`, as `/readyz` has it.
    #[schema(example = "up")]
    kafka: &'static str,
    /// `up` or `down`.
    #[schema(example = "up")]
    postgres: &'static str,
    in_flight: InFlightAnswer,
    /// Records that the broker acknowledged since the start.
    acknowledged_total: u64,
    refused_total: Refused,
    acknowledge_seconds: Histogram,
}

/// Handed over to the broker and not answered for yet, and the bounds.
#[derive(Serialize, ToSchema)]
#[schema(as = InFlight)]
struct InFlightAnswer {
    leads: usize,
    bytes: usize,
    max_leads: u64,
    max_bytes: u64,
}

/// Leads refused with 503 since the start, by reason.
#[derive(Serialize, ToSchema)]
struct Refused {
    /// The broker could not be reached.
    unavailable: u64,
    /// The broker had stopped answering.
    stalled: u64,
    /// Too much was in flight.
    overloaded: u64,
    /// The key held its share of what is in flight.
    key_share: u64,
    /// The broker did not acknowledge in time.
    unacknowledged: u64,
}

/// How long the broker took to acknowledge, since the start; a batch is one.
#[derive(Serialize, ToSchema)]
struct Histogram {
    /// Each counts what is not above its bound; the last one has none and counts all.
    buckets: Vec<Bucket>,
    /// Seconds in all.
    sum: f64,
    count: u64,
}

#[derive(Serialize, ToSchema)]
struct Bucket {
    /// Seconds.
    #[schema(required)]
    le: Option<f64>,
    count: u64,
}

/// Answers with how ingest and projection stand.
#[utoipa::path(
    get, path = "/api/v1/system/status", tag = "system",
    summary = "How the whole system stands",
    description = "Ingest at the instance that answers; projection, dead letters and rebuild of the whole \
        system, looked at up to a second ago. 200 also while Kafka or PostgreSQL is away. Needs the scope \
        system:read.",
    responses(
        (status = 200, description = "As far as it is known", body = StatusAnswer<'static>),
        (status = 400, body = ErrorAnswer, description = "ambiguous_credentials"),
        (status = 401, body = ErrorAnswer, description = "missing_api_key, invalid_api_key"),
        (status = 403, body = ErrorAnswer, description = "insufficient_scope"),
        (status = 406, body = ErrorAnswer, description = "not_acceptable"),
        (status = 429, body = ErrorAnswer, description = "rate_limit_exceeded"),
        (status = 503, body = ErrorAnswer, description = "starting"),
    ),
)]
pub(in crate::routes) async fn status(
    request: HttpRequest,
    app: web::Data<App>,
) -> Result<HttpResponse, ApiError> {
    guard::admit(&request, &app, operators(Route::SystemStatus))?;
    let seen = app.system.seen().await.ok_or_else(|| {
        ApiError::new(ErrorCode::ShuttingDown, "this instance is on its way out; ask another")
    })?;
    let instance = app.system.instance();
    let data = Status {
        at: Timestamp::from(Utc::now()),
        version: env!("CARGO_PKG_VERSION"),
        instance: InstanceAnswer { id: &instance.id, started_at: instance.started_at },
        ingest: ingest(&app, &seen),
        projection: Projection::of(&seen, app.events_topic()),
        dead_letters: seen.model.as_ref().ok().map(DeadLetters::of),
        rebuild: Rebuild::of(&seen),
    };
    Ok(HttpResponse::Ok().json(StatusAnswer { data }))
}

fn ingest(app: &App, seen: &Seen) -> Ingest {
    let standing = health::Standing::of(app);
    let in_flight = app.in_flight();
    let (max_leads, max_bytes) = in_flight.bounds();
    let refused = |reason| app.metrics.refused(reason);
    let Counted { buckets, sum, count } = app.metrics.acknowledged();
    Ingest {
        status: if standing.shutting_down {
            "stopping"
        } else if standing.kafka == "connecting" {
            "starting"
        } else if standing.takes_leads() {
            "ready"
        } else {
            "no_broker"
        },
        kafka: standing.kafka,
        postgres: if seen.model.is_ok() { "up" } else { "down" },
        in_flight: InFlightAnswer {
            leads: in_flight.count(),
            bytes: in_flight.bytes(),
            max_leads,
            max_bytes,
        },
        acknowledged_total: app.broker.acknowledged(),
        refused_total: Refused {
            unavailable: refused(Shed::Unavailable),
            stalled: refused(Shed::Stalled),
            overloaded: refused(Shed::Overloaded),
            key_share: refused(Shed::KeyShare),
            unacknowledged: refused(Shed::Unacknowledged),
        },
        acknowledge_seconds: Histogram {
            buckets: buckets.into_iter().map(|(le, count)| Bucket { le, count }).collect(),
            sum,
            count,
        },
    }
}
