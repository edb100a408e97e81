//! Logs and metrics.

use std::io::IsTerminal;
use std::time::{Duration, SystemTime};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

use crate::projection::Tally;
use crate::store::Applied;

const EVENTS: &str = "leads_projection_events_total";
const DEAD_LETTERS: &str = "leads_dead_letters_total";
const LAG_RECORDS: &str = "leads_projection_lag_records";
const LAG_SECONDS: &str = "leads_projection_lag_seconds";
const BATCH_RECORDS: &str = "leads_projection_batch_records";
const BATCH_BYTES: &str = "leads_projection_batch_bytes";
const BATCH_SECONDS: &str = "leads_projection_batch_seconds";
const VISIBLE_SECONDS: &str = "leads_projection_visible_seconds";
/// Dead letters that the dead letter topic has not acknowledged yet.
pub const DEAD_LETTERS_PENDING: &str = "leads_dead_letters_pending_export";
/// Tries that failed for a cause that passes.
pub const RETRIES: &str = "leads_projection_retries_total";
/// Rebalances seen.
pub const REBALANCES: &str = "leads_projection_rebalances_total";
/// Batches refused because someone else had moved the offsets.
pub const FENCED: &str = "leads_projection_fenced_total";

/// Sends log lines to stdout: for people on a terminal, JSON elsewhere.
pub fn start_logs(filter: EnvFilter) {
    let builder = tracing_subscriber::fmt().with_env_filter(filter);
    if std::io::stdout().is_terminal() {
        builder.with_target(false).init();
    } else {
        builder.json().with_current_span(false).with_span_list(false).init();
    }
}

/// Sends log lines of a command to stderr, since its answer goes to stdout: warnings only, unless
/// another level than the default is asked for.
pub fn start_command_logs(level: &str) {
    let level = if level == "info" { "warn" } else { level };
    let filter = EnvFilter::builder().parse_lossy(format!("refinery_core=warn,{level}"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(std::io::stderr)
        .init();
}

/// Starts collecting metrics; the handle renders them.
///
/// # Errors
/// When something else collects them already.
pub fn start_metrics() -> Result<PrometheusHandle, BuildError> {
    let seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let sizes = [1.0, 10.0, 100.0, 1e3, 2.5e3, 5e3, 1e4, 2.5e4, 1e5, 1e6, 4e6, 8e6, 1.6e7];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)?
        .set_buckets(&sizes)?
        .install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    describe_gauge!(LAG_RECORDS, "Records of the partition that are not projected yet");
    describe_gauge!(LAG_SECONDS, Unit::Seconds, "Age of the oldest record not projected yet");
    describe_histogram!(BATCH_RECORDS, "Records a transaction");
    describe_histogram!(BATCH_BYTES, Unit::Bytes, "Bytes of keys and values a transaction");
    describe_histogram!(BATCH_SECONDS, Unit::Seconds, "From the start of a batch to its commit");
    describe_histogram!(
        VISIBLE_SECONDS,
        Unit::Seconds,
        "From the time of a batch's youngest record to its commit"
    );
    describe_counter!(EVENTS, "Records projected, by what came of them");
    describe_counter!(DEAD_LETTERS, "Records set aside, by reason");
    describe_gauge!(DEAD_LETTERS_PENDING, "Dead letters not yet in the dead letter topic");
    describe_counter!(RETRIES, "Tries that failed for a cause that passes, by cause");
    describe_counter!(REBALANCES, "Assignments and revocations of partitions");
    describe_counter!(FENCED, "Batches refused because the offsets had been moved by someone else");
    for outcome in Tally::default().outcomes() {
        counter!(EVENTS, "outcome" => outcome.0).increment(0);
    }
    counter!(REBALANCES).increment(0);
    counter!(FENCED).increment(0);
    gauge!(DEAD_LETTERS_PENDING).set(0.0);
}

impl Tally {
    fn outcomes(self) -> [(&'static str, u64); 6] {
        let Self {
            created,
            updated,
            duplicate_creation,
            duplicate_update,
            precondition_failed,
            dead_letter,
        } = self;
        [
            ("created", created),
            ("updated", updated),
            ("duplicate_creation", duplicate_creation),
            ("duplicate_update", duplicate_update),
            ("precondition_failed", precondition_failed),
            ("dead_letter", dead_letter),
        ]
    }
}

/// Counts a committed batch; `youngest` is the time of its youngest record, in milliseconds since
/// 1970.
#[allow(clippy::cast_precision_loss)]
pub fn record_batch(
    applied: &Applied,
    records: usize,
    bytes: usize,
    took: Duration,
    youngest: Option<i64>,
) {
    histogram!(BATCH_RECORDS).record(records as f64);
    histogram!(BATCH_BYTES).record(bytes as f64);
    histogram!(BATCH_SECONDS).record(took);
    if let Some(age) = youngest.and_then(age) {
        histogram!(VISIBLE_SECONDS).record(age);
    }
    for (outcome, count) in applied.tally.outcomes() {
        counter!(EVENTS, "outcome" => outcome).increment(count);
    }
    for rejection in &applied.rejected {
        counter!(DEAD_LETTERS, "reason" => rejection.reason.name()).increment(1);
    }
}

fn age(millis: i64) -> Option<Duration> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(millis).ok()?);
    SystemTime::now().duration_since(time).ok()
}

/// How far a partition is behind the end of the log.
#[allow(clippy::cast_precision_loss)]
pub fn set_lag(partition: i32, records: i64, millis: i64) {
    let partition = partition.to_string();
    gauge!(LAG_RECORDS, "partition" => partition.clone()).set(records as f64);
    gauge!(LAG_SECONDS, "partition" => partition).set(millis as f64 / 1_000.0);
}

/// Sets the number of dead letters that wait for their export.
#[allow(clippy::cast_precision_loss)]
pub fn set_dead_letters_pending(count: i64) {
    gauge!(DEAD_LETTERS_PENDING).set(count as f64);
}
