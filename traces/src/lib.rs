//! Traces of the services by OTLP, set up by the usual `OTEL_*` variables.
//!
//! Off unless an endpoint is given; a span then costs a look at an `Option`.
//! Sources: <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>,
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

mod sampler;
mod settings;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use opentelemetry::trace::SpanKind;
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState,
    Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span as SdkSpan};

use settings::Settings;

/// How long the spans that are left may take on their way out at the end.
const LAST_EXPORT: Duration = Duration::from_secs(3);

/// Where spans are made and sent to; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Exporting>>);

#[derive(Debug)]
struct Exporting {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

impl Traces {
    /// No traces.
    pub fn off() -> Self {
        Self::default()
    }

    /// As the environment says: on when it has `OTEL_EXPORTER_OTLP_ENDPOINT` or
    /// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`. Starts the thread that exports. `service` is the
    /// service's name where the environment gives none.
    ///
    /// # Errors
    /// In words for the operator: a variable that says what can't be.
    pub fn from_env(service: &'static str, version: &'static str) -> Result<Self, String> {
        let Some(settings) = Settings::new(|name| std::env::var(name).ok())? else {
            return Ok(Self::off());
        };
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .build()
            .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?;
        let mut resource =
            Resource::builder().with_attribute(KeyValue::new("service.version", version));
        if !settings.names_the_service {
            resource = resource.with_service_name(service);
        }
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(settings.sampler)
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("leads");
        Ok(Self(Some(Arc::new(Exporting { provider, tracer }))))
    }

    /// Whether spans are made.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span; one that does nothing when traces are off.
    pub fn begin(&self, begin: Begin<'_>) -> Span {
        let Some(exporting) = &self.0 else { return Span::none() };
        let Begin { name, kind, parent, links, at, attributes } = begin;
        let links = links.into_iter().map(|link| Link::with_context(link.0)).collect();
        let mut builder = exporting
            .tracer
            .span_builder(name)
            .with_kind(kind)
            .with_links(links)
            .with_attributes(attributes);
        builder.start_time = at;
        let parent = match parent {
            Some(parent) => Context::new().with_remote_span_context(parent.0.clone()),
            None => Context::new(),
        };
        Span(Some(builder.start_with_context(&exporting.tracer, &parent)))
    }

    /// Sends what is left, and ends. Blocks for up to three seconds.
    pub fn close(&self) {
        if let Some(exporting) = &self.0 {
            // The exporter has said what it could not send.
            let _ = exporting.provider.shutdown_with_timeout(LAST_EXPORT);
        }
    }
}

/// How a span begins.
#[derive(Debug, Clone)]
pub struct Begin<'a> {
    name: Cow<'static, str>,
    kind: SpanKind,
    parent: Option<&'a Place>,
    links: Vec<Place>,
    at: Option<SystemTime>,
    attributes: Vec<KeyValue>,
}

impl<'a> Begin<'a> {
    /// A root, from now on.
    pub fn new(name: impl Into<Cow<'static, str>>, kind: SpanKind) -> Self {
        let (links, attributes) = (Vec::new(), Vec::new());
        Self { name: name.into(), kind, parent: None, links, at: None, attributes }
    }

    /// Under `parent`, if there is one.
    #[must_use]
    pub fn under(self, parent: Option<&'a Place>) -> Self {
        Self { parent, ..self }
    }

    /// Beside others that it has to do with; a root is sampled when one of them is.
    #[must_use]
    pub fn linked(self, links: Vec<Place>) -> Self {
        Self { links, ..self }
    }

    /// From `at` on.
    #[must_use]
    pub fn at(self, at: SystemTime) -> Self {
        Self { at: Some(at), ..self }
    }

    /// With an attribute. Names are those of the semantic conventions where there is one; values
    /// never hold contents of a lead.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push(KeyValue::new(name, value));
        self
    }
}

/// A span under way; ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<SdkSpan>);

impl Span {
    /// One that does nothing.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Its place in its trace, for what comes under it; none when traces are off.
    pub fn place(&self) -> Option<Place> {
        self.0.as_ref().map(|span| Place(span.span_context().clone()))
    }

    /// Names it anew.
    pub fn rename(&mut self, name: String) {
        if let Some(span) = &mut self.0 {
            span.update_name(name);
        }
    }

    /// Sets an attribute; see [`Begin::with`].
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(name, value));
        }
    }

    /// Marks it as failed; `why` holds no contents of a lead.
    pub fn fail(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why));
        }
    }
}

/// A place in a trace: what `traceparent` carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Place(SpanContext);

impl Place {
    /// Reads a `traceparent` of version 00.
    /// Source: <https://www.w3.org/TR/trace-context/#traceparent-header>
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |part: &str, length| {
            part.len() == length
                && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shaped = version == "00"
            && hex(trace, 32)
            && hex(span, 16)
            && hex(flags, 2)
            && parts.next().is_none();
        if !shaped {
            return None;
        }
        let context = SpanContext::new(
            TraceId::from_hex(trace).ok()?,
            SpanId::from_hex(span).ok()?,
            TraceFlags::new(u8::from_str_radix(flags, 16).ok()?),
            true,
            TraceState::default(),
        );
        context.is_valid().then_some(Self(context))
    }

    /// Whether the trace is recorded.
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        self.0.trace_id().to_string()
    }

    /// The header's text.
    pub fn traceparent(&self) -> String {
        let flags = self.0.trace_flags() & TraceFlags::SAMPLED;
        format!("00-{}-{}-{:02x}", self.0.trace_id(), self.0.span_id(), flags.to_u8())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_comes_back_as_it_was() {
        for text in [
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        ] {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.traceparent(), text);
            assert_eq!(place.is_sampled(), text.ends_with('1'));
            assert_eq!(place.trace_id(), "0af7651916cd43dd8448eb211c80319c");
        }
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
        ] {
            assert_eq!(Place::parse(text), None, "{text}");
        }
    }

    #[test]
    fn off_makes_nothing() {
        let mut span = Traces::off().begin(Begin::new("x", SpanKind::Server).with("a", 1));
        span.set("b", "c");
        span.fail("why");
        assert_eq!(span.place(), None);
    }
}
