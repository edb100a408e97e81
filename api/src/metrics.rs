//! The figures of the API, on the metrics port in Prometheus' text format.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::broker::Replaced;
use crate::context::Route;

/// Upper bounds in seconds: below a millisecond for the service itself, seconds for outages.
const BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// Handles, made once: the hot path looks up no names.
pub struct Metrics {
    handle: PrometheusHandle,
    requests: RwLock<HashMap<(Route, u16), Histogram>>,
    shed: RwLock<HashMap<&'static str, Counter>>,
    publish_seconds: Histogram,
    in_flight: Gauge,
    in_flight_bytes: Gauge,
    producer_queue: Gauge,
    conflicts: Counter,
    replays: Counter,
    recent_bytes: Gauge,
    replaced_fatal: Counter,
    replaced_lost: Counter,
}

impl Metrics {
    /// Installs the recorder of the process.
    ///
    /// # Errors
    /// When one is installed already.
    pub fn install() -> Result<Arc<Self>, String> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
            .map_err(|error| error.to_string())?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        describe();
        Ok(Arc::new(Self {
            handle,
            requests: RwLock::default(),
            shed: RwLock::default(),
            publish_seconds: metrics::histogram!("leads_publish_seconds"),
            in_flight: metrics::gauge!("leads_publish_in_flight"),
            in_flight_bytes: metrics::gauge!("leads_publish_in_flight_bytes"),
            producer_queue: metrics::gauge!("leads_producer_queue_records"),
            conflicts: metrics::counter!("leads_precondition_failed_total"),
            replays: metrics::counter!("leads_idempotency_replayed_total"),
            recent_bytes: metrics::gauge!("leads_idempotency_cache_bytes"),
            replaced_fatal: metrics::counter!("leads_producer_replaced_total", "reason" => "fatal"),
            replaced_lost: metrics::counter!("leads_producer_replaced_total", "reason" => "lost"),
        }))
    }

    /// Counts an answered request.
    pub fn request(&self, route: Route, status: u16, took: Duration) {
        let key = (route, status);
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(histogram) = known.get(&key) {
            histogram.record(took);
            return;
        }
        drop(known);
        let histogram = metrics::histogram!(
            "leads_http_request_seconds",
            "route" => route.pattern(),
            "status" => status.to_string(),
        );
        histogram.record(took);
        self.requests.write().unwrap_or_else(PoisonError::into_inner).insert(key, histogram);
    }

    /// Counts a lead that was refused for want of room or of a broker.
    pub fn shed(&self, reason: &'static str) {
        let known = self.shed.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(reason) {
            counter.increment(1);
            return;
        }
        drop(known);
        let counter = metrics::counter!("leads_shed_total", "reason" => reason);
        counter.increment(1);
        self.shed.write().unwrap_or_else(PoisonError::into_inner).insert(reason, counter);
    }

    /// Counts an acknowledged publish.
    pub fn published(&self, took: Duration) {
        self.publish_seconds.record(took);
    }

    /// Counts an update that came too late for the version it expected.
    pub fn precondition_failed(&self) {
        self.conflicts.increment(1);
    }

    /// Counts a retry that was answered as the first was.
    pub fn replayed(&self) {
        self.replays.increment(1);
    }

    /// Sets the bytes of the answers that are kept for retries.
    pub fn recent(&self, bytes: usize) {
        self.recent_bytes.set(gauge(bytes));
    }

    /// Sets the end of the certificate's validity. Without TLS there is no such figure.
    pub fn certificate_expiry(&self, unix_seconds: i64) {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
        metrics::gauge!("leads_tls_certificate_expiry_seconds").set(unix_seconds as f64);
    }

    /// Sets what is in flight now.
    pub fn in_flight(&self, count: usize, bytes: usize, queued: usize) {
        self.in_flight.set(gauge(count));
        self.in_flight_bytes.set(gauge(bytes));
        self.producer_queue.set(gauge(queued));
    }

    /// Sets how many producers were replaced since the start.
    pub fn clients_replaced(&self, replaced: Replaced) {
        self.replaced_fatal.absolute(replaced.fatal);
        self.replaced_lost.absolute(replaced.lost);
    }

    /// Folds recorded samples into their buckets. To be called every second or so, or they pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

/// Gauges are floating point; what is counted here stays far below 2^53.
#[allow(clippy::cast_precision_loss)]
fn gauge(value: usize) -> f64 {
    value as f64
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_histogram!(
        "leads_http_request_seconds",
        Unit::Seconds,
        "Time from the request's head to the answer, by route and status"
    );
    describe_histogram!(
        "leads_publish_seconds",
        Unit::Seconds,
        "Time from handing an event to the producer to the broker's acknowledgement"
    );
    describe_gauge!("leads_publish_in_flight", "Events handed over and not answered for yet");
    describe_gauge!(
        "leads_publish_in_flight_bytes",
        Unit::Bytes,
        "Bytes of the events handed over and not answered for yet"
    );
    describe_gauge!(
        "leads_producer_queue_records",
        "Records in the producer's queue and on the wire"
    );
    describe_counter!(
        "leads_shed_total",
        "Leads refused for want of room or of a broker, by reason"
    );
    describe_counter!(
        "leads_producer_replaced_total",
        "Producers made anew: failed for good (fatal), or ten seconds without a broker (lost)"
    );
    describe_counter!(
        "leads_idempotency_replayed_total",
        "Retries with an Idempotency-Key that were answered as the first was"
    );
    describe_gauge!(
        "leads_idempotency_cache_bytes",
        Unit::Bytes,
        "Bytes of the answers that are kept for retries"
    );
    describe_gauge!(
        "leads_tls_certificate_expiry_seconds",
        Unit::Seconds,
        "Unix time at which the certificate of the API expires"
    );
    describe_counter!(
        "leads_precondition_failed_total",
        "Updates answered with 412: another write came first in the log"
    );
}
