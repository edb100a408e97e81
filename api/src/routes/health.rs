//! `GET /livez` and `GET /readyz`

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::name_route;
use crate::broker::BrokerState;
use crate::context::Route;
use crate::startup::App;

/// The process lives.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Liveness {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether leads can be taken in, and what each dependency says.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// `ok`; `degraded`: leads are taken, reads are not; `unavailable`: no leads are taken.
    #[schema(example = "ok")]
    status: &'static str,
    /// `up`, `down`, `connecting`, `topic_missing`, `stalled` or `replacing`.
    #[schema(example = "up")]
    kafka: &'static str,
    /// `loaded` or `loading`.
    #[schema(example = "loaded")]
    keys: &'static str,
    /// `up` or `down`.
    #[schema(example = "up")]
    postgres: &'static str,
    /// Whether the process is shutting down.
    shutting_down: bool,
}

/// Depends on nothing but the process.
pub(super) async fn livez(request: HttpRequest) -> HttpResponse {
    name_route(&request, Route::Livez);
    HttpResponse::Ok().json(Liveness { status: "ok" })
}

/// What `kafka` of the readiness may be.
const KAFKA_STATES: [&str; 6] =
    ["up", "stalled", "connecting", "down", "topic_missing", "replacing"];

/// Whether leads are taken in, and what that rests on.
pub(super) struct Standing {
    pub(super) kafka: &'static str,
    pub(super) keys_are_loaded: bool,
    pub(super) shutting_down: bool,
}

impl Standing {
    pub(super) fn of(app: &App) -> Self {
        let kafka = match app.broker.state() {
            BrokerState::Up if app.can_publish() => "up",
            BrokerState::Up => "stalled",
            BrokerState::Connecting => "connecting",
            BrokerState::Down => "down",
            BrokerState::TopicMissing => "topic_missing",
            BrokerState::Replacing => "replacing",
        };
        Self {
            kafka,
            keys_are_loaded: app.directory.is_loaded(),
            shutting_down: app.is_shutting_down(),
        }
    }

    pub(super) fn takes_leads(&self) -> bool {
        self.kafka == "up" && self.keys_are_loaded && !self.shutting_down
    }
}

/// Tells the figures how things stand.
pub fn report_standing(app: &App) {
    let standing = Standing::of(app);
    let keys = app.directory.len();
    app.metrics.standing(standing.takes_leads(), standing.kafka, &KAFKA_STATES, keys);
}

/// 503 when leads can't be taken in. PostgreSQL away is no reason: ingest goes on without it.
pub(super) async fn readyz(request: HttpRequest, app: web::Data<App>) -> HttpResponse {
    name_route(&request, Route::Readyz);
    let postgres_is_up = app.read_model.is_up().await;
    let standing = Standing::of(&app);
    let takes_leads = standing.takes_leads();
    let Standing { kafka, keys_are_loaded, shutting_down } = standing;
    let body = Readiness {
        status: match (takes_leads, postgres_is_up) {
            (true, true) => "ok",
            (true, false) => "degraded",
            (false, _) => "unavailable",
        },
        kafka,
        keys: if keys_are_loaded { "loaded" } else { "loading" },
        postgres: if postgres_is_up { "up" } else { "down" },
        shutting_down,
    };
    if takes_leads {
        HttpResponse::Ok().json(body)
    } else {
        HttpResponse::ServiceUnavailable().insert_header(("retry-after", "1")).json(body)
    }
}
