//! The figures of the API, on the metrics port in Prometheus' text format.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;

use crate::broker::Replaced;
use crate::buckets::{Buckets, Counted};
use crate::context::Route;

/// Upper bounds in seconds: below a millisecond for the service itself, seconds for outages.
const BUCKETS: &[f64] = &[
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
    10.0,
];

/// Upper bounds in seconds of the service's own time: it is spent in tens of microseconds.
const OWN_BUCKETS: &[f64] = &[
    0.000_025, 0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.000_75, 0.001, 0.002, 0.005, 0.01,
    0.05, 0.25, 1.0,
];

/// The histogram of [`Metrics::request`]'s `own`.
const OWN_SECONDS: &str = "leads_request_own_seconds";

/// Why a lead is refused for want of room or of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The broker can't be reached.
    Unavailable,
    /// The broker has stopped answering.
    Stalled,
    /// Too much is in flight.
    Overloaded,
    /// The key holds its share of what is in flight.
    KeyShare,
    /// The broker did not acknowledge in time.
    Unacknowledged,
}

/// The names of [`Shed`] as a label, in its order.
const SHED: [&str; 5] = ["unavailable", "stalled", "overloaded", "key_share", "unacknowledged"];

/// Handles, made once: the hot path looks up no names.
pub struct Metrics {
    handle: PrometheusHandle,
    requests: RwLock<HashMap<(Route, u16), Answered>>,
    shed: [Counter; SHED.len()],
    /// The same as `shed`, to be read back.
    refused: [AtomicU64; SHED.len()],
    publish_seconds: Histogram,
    /// The same as `publish_seconds`, to be read back.
    acknowledge: Buckets,
    in_flight: Gauge,
    in_flight_bytes: Gauge,
    producer_queue: Gauge,
    partitions_avoided: Gauge,
    conflicts: Counter,
    replays: Counter,
    recent_bytes: Gauge,
    process: Collector,
    replaced_fatal: Counter,
    replaced_lost: Counter,
}

/// The histograms of a route and status.
struct Answered {
    all: Histogram,
    /// Only where something was published.
    own: Option<Histogram>,
}

impl Metrics {
    /// Installs the recorder of the process.
    ///
    /// # Errors
    /// When one is installed already.
    pub fn install() -> Result<Arc<Self>, String> {
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), BUCKETS)
            .and_then(|builder| {
                let own = Matcher::Full(OWN_SECONDS.to_owned());
                builder.set_buckets_for_metric(own, OWN_BUCKETS)
            })
            .map_err(|error| error.to_string())?
            .build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|error| error.to_string())?;
        describe();
        let (version, commit) = (leads_version::VERSION, leads_version::COMMIT);
        metrics::gauge!("leads_build_info", "version" => version, "commit" => commit).set(1.0);
        let process = Collector::new("leads_");
        process.describe();
        Ok(Arc::new(Self {
            handle,
            requests: RwLock::default(),
            shed: SHED.map(|reason| {
                let counter = metrics::counter!("leads_shed_total", "reason" => reason);
                // There from the start: a rate finds no first step in a series that begins with it.
                counter.increment(0);
                counter
            }),
            refused: Default::default(),
            publish_seconds: metrics::histogram!("leads_publish_seconds"),
            acknowledge: Buckets::new(BUCKETS),
            in_flight: metrics::gauge!("leads_publish_in_flight"),
            in_flight_bytes: metrics::gauge!("leads_publish_in_flight_bytes"),
            producer_queue: metrics::gauge!("leads_producer_queue_records"),
            partitions_avoided: metrics::gauge!("leads_partitions_avoided"),
            conflicts: metrics::counter!("leads_precondition_failed_total"),
            replays: metrics::counter!("leads_idempotency_replayed_total"),
            recent_bytes: metrics::gauge!("leads_idempotency_cache_bytes"),
            process,
            replaced_fatal: metrics::counter!("leads_producer_replaced_total", "reason" => "fatal"),
            replaced_lost: metrics::counter!("leads_producer_replaced_total", "reason" => "lost"),
        }))
    }

    /// Counts an answered request; `own` is its time without the wait for the broker, of one that
    /// published.
    pub fn request(&self, route: Route, status: u16, took: Duration, own: Option<Duration>) {
        let key = (route, status);
        let known = self.requests.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(answered) = known.get(&key)
            && answered.record(took, own)
        {
            return;
        }
        drop(known);
        let answered = Answered {
            all: metrics::histogram!(
                "leads_http_request_seconds",
                "route" => route.pattern(),
                "status" => status.to_string(),
            ),
            own: own.map(|_| metrics::histogram!(OWN_SECONDS, "route" => route.pattern())),
        };
        answered.record(took, own);
        self.requests.write().unwrap_or_else(PoisonError::into_inner).insert(key, answered);
    }

    /// Counts a lead that was refused for want of room or of a broker.
    pub fn shed(&self, reason: Shed) {
        self.shed[reason as usize].increment(1);
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many leads were refused for this reason.
    pub fn refused(&self, reason: Shed) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts an acknowledged publish.
    pub fn published(&self, took: Duration) {
        self.publish_seconds.record(took);
        self.acknowledge.record(took);
    }

    /// How long acknowledged publishes took; a batch is one.
    pub fn acknowledged(&self) -> Counted {
        self.acknowledge.read()
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

    /// Sets how many partitions new leads pass over now.
    pub fn partitions_avoided(&self, count: usize) {
        self.partitions_avoided.set(gauge(count));
    }

    /// Sets the most that may be in flight.
    #[allow(clippy::cast_precision_loss)]
    pub fn bounds(&self, count: u64, bytes: u64) {
        metrics::gauge!("leads_publish_in_flight_limit").set(count as f64);
        metrics::gauge!("leads_publish_in_flight_limit_bytes").set(bytes as f64);
    }

    /// Sets whether leads are taken in, which of `states` the broker is in, and how many keys there
    /// are.
    pub fn standing(&self, ready: bool, state: &str, states: &[&'static str], keys: usize) {
        metrics::gauge!("leads_ready").set(f64::from(u8::from(ready)));
        for known in states {
            metrics::gauge!("leads_broker_state", "state" => *known)
                .set(f64::from(u8::from(*known == state)));
        }
        metrics::gauge!("leads_keys").set(gauge(keys));
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
        self.process.collect();
        self.handle.render()
    }
}

impl Answered {
    /// False, and nothing recorded, when a histogram is wanting.
    fn record(&self, took: Duration, own: Option<Duration>) -> bool {
        match (&self.own, own) {
            (Some(histogram), Some(own)) => histogram.record(own),
            (None, Some(_)) => return false,
            (_, None) => {}
        }
        self.all.record(took);
        true
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
    describe_gauge!("leads_build_info", "1; the labels tell version and commit");
    describe_gauge!("leads_ready", "Whether leads are taken in: 1 or 0, as /readyz says");
    describe_gauge!(
        "leads_broker_state",
        "1 for the state that the broker is in, 0 for the others"
    );
    describe_gauge!("leads_keys", "Keys that open something");
    describe_gauge!("leads_publish_in_flight_limit", "MAX_IN_FLIGHT");
    describe_gauge!("leads_publish_in_flight_limit_bytes", Unit::Bytes, "MAX_IN_FLIGHT_BYTES");
    describe_histogram!(
        OWN_SECONDS,
        Unit::Seconds,
        "Time of a request that published without the wait from hand-over to delivery report, by route"
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
    describe_gauge!(
        "leads_partitions_avoided",
        "Partitions that are slow or have no leader: new leads go to others"
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
