//! The figures of streams.

use metrics::{Counter, Gauge, describe_counter, describe_gauge};

use super::session::End;

/// Handles, made once.
pub(super) struct Figures {
    open: Gauge,
    replays: Gauge,
    events: Counter,
    bytes: Counter,
}

impl Figures {
    pub(super) fn new() -> Self {
        describe_gauge!("leads_streams", "Event streams that are open");
        describe_gauge!(
            "leads_stream_replays",
            "Streams that read the past by a reader of their own"
        );
        describe_counter!("leads_stream_events_total", "Events handed to streams");
        describe_counter!("leads_stream_bytes_total", "Bytes handed to streams");
        describe_counter!("leads_streams_ended_total", "Event streams that have ended, by reason");
        // From 0 on: a rate sees the first step.
        for end in End::ALL {
            metrics::counter!("leads_streams_ended_total", "reason" => end.name()).increment(0);
        }
        Self {
            open: metrics::gauge!("leads_streams"),
            replays: metrics::gauge!("leads_stream_replays"),
            events: metrics::counter!("leads_stream_events_total"),
            bytes: metrics::counter!("leads_stream_bytes_total"),
        }
    }

    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub(super) fn open(&self, count: usize) {
        self.open.set(count as f64);
    }

    /// Counts a replay until it is dropped.
    pub(super) fn replay(&self) -> Replaying {
        self.replays.increment(1);
        Replaying(self.replays.clone())
    }

    pub(super) fn delivered(&self, events: u64, bytes: usize) {
        self.events.increment(events);
        self.bytes.increment(bytes as u64);
    }

    #[allow(clippy::unused_self, reason = "the handle is looked up: a stream ends rarely")]
    pub(super) fn ended(&self, end: End) {
        metrics::counter!("leads_streams_ended_total", "reason" => end.name()).increment(1);
    }
}

/// See [`Figures::replay`].
pub(super) struct Replaying(Gauge);

impl Drop for Replaying {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}
