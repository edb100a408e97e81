//! The trace of a request: its span, and those of what it asks of Kafka and PostgreSQL.
//!
//! Names and attributes: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>,
//! <https://opentelemetry.io/docs/specs/semconv/messaging/kafka/>.

use std::cell::RefCell;

use actix_web::dev::ServiceRequest;
use leads_traces::{Begin, Place, Span, SpanKind, Traces};
use uuid::Uuid;

/// Where a request stands in a trace: in that of its `traceparent`, or in one of its own when traces
/// are on.
#[derive(Debug)]
pub struct RequestTrace {
    traces: Traces,
    /// Of the span; without one what the request came with.
    place: Option<Place>,
    span: RefCell<Span>,
}

impl RequestTrace {
    /// Begins the span of a request. Probes and looks of a console have none: they come every second
    /// and say nothing new.
    pub(crate) fn begin(traces: &Traces, request: &ServiceRequest) -> Self {
        let given = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let given = given.and_then(Place::parse);
        let is_probe = matches!(request.path(), "/livez" | "/readyz" | "/api/v1/system/status");
        if !traces.is_on() || is_probe {
            let span = RefCell::new(Span::none());
            return Self { traces: Traces::off(), place: given, span };
        }
        let method = request.method().as_str();
        let begin = Begin::new(method.to_owned(), SpanKind::Server)
            .under(given.as_ref())
            .with("http.request.method", method.to_owned());
        let span = traces.begin(begin);
        Self { traces: traces.clone(), place: span.place(), span: RefCell::new(span) }
    }

    /// The trace's id, for the log.
    pub(crate) fn trace_id(&self) -> Option<String> {
        self.place.as_ref().map(Place::trace_id)
    }

    /// Ends the span with what became of the request.
    pub(crate) fn end(&self, end: &End<'_>) {
        let End { method, route, status, workspace_id, error } = *end;
        let mut span = self.span.replace(Span::none());
        if span.place().is_none() {
            return;
        }
        span.rename(format!("{method} {route}"));
        span.set("http.route", route);
        span.set("http.response.status_code", i64::from(status));
        if let Some(workspace_id) = workspace_id {
            span.set("leads.workspace_id", workspace_id.to_string());
        }
        if let Some(error) = error {
            span.set("error.type", error);
        }
        if status >= 500 {
            span.fail(error.unwrap_or_default());
        }
    }

    /// Begins the publishing of so many events.
    pub(crate) fn publishing(&self, topic: &str, events: usize) -> Publishing {
        if !self.traces.is_on() {
            let traceparent = self.place.as_ref().map(Place::traceparent);
            return Publishing { span: Span::none(), traceparent };
        }
        let begin = Begin::new(format!("send {topic}"), SpanKind::Producer)
            .under(self.place.as_ref())
            .with("messaging.system", "kafka")
            .with("messaging.operation.type", "send")
            .with("messaging.destination.name", topic.to_owned())
            .with("messaging.batch.message_count", i64::try_from(events).unwrap_or(i64::MAX));
        let span = self.traces.begin(begin);
        let traceparent = span.place().map(|place| place.traceparent());
        Publishing { span, traceparent }
    }

    /// Begins a read of PostgreSQL; ends when it is dropped.
    pub(crate) fn reading(&self, name: &'static str) -> Span {
        if !self.traces.is_on() {
            return Span::none();
        }
        let begin = Begin::new(name, SpanKind::Client)
            .under(self.place.as_ref())
            .with("db.system.name", "postgresql");
        self.traces.begin(begin)
    }
}

/// What became of a request.
pub(crate) struct End<'a> {
    pub(crate) method: &'a str,
    pub(crate) route: &'static str,
    pub(crate) status: u16,
    pub(crate) workspace_id: Option<Uuid>,
    /// The code of the error.
    pub(crate) error: Option<&'static str>,
}

/// Events on their way to the broker; ends when it is dropped.
pub(crate) struct Publishing {
    span: Span,
    traceparent: Option<String>,
}

impl Publishing {
    /// For the records' header: where whoever reads them goes on.
    pub(crate) fn traceparent(&self) -> Option<&str> {
        self.traceparent.as_deref()
    }

    /// Some of them were not acknowledged.
    pub(crate) fn fail(&mut self, why: &'static str) {
        self.span.fail(why);
    }
}
