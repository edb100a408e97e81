//! Logs and metrics.

use std::io::IsTerminal;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use metrics::{
    Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use tracing_subscriber::EnvFilter;

use crate::failure::CAUSES;
use crate::health::Readiness;
use crate::projection::{Reason, Tally};
use crate::store::Applied;

const EVENTS: &str = "leads_projection_events_total";
const DEAD_LETTERS: &str = "leads_dead_letters_total";
const LAG_RECORDS: &str = "leads_projection_lag_records";
const LAG_SECONDS: &str = "leads_projection_lag_seconds";
const BATCH_RECORDS: &str = "leads_projection_batch_records";
const BATCH_BYTES: &str = "leads_projection_batch_bytes";
const BATCH_SECONDS: &str = "leads_projection_batch_seconds";
const VISIBLE_SECONDS: &str = "leads_projection_visible_seconds";
const WAITING: &str = "leads_dead_letters_waiting";
const OLDEST_SECONDS: &str = "leads_dead_letters_oldest_seconds";
const LIMIT: &str = "leads_dead_letters_limit";
const REBUILDING: &str = "leads_rebuild_running";
const REBUILD_ABANDONED: &str = "leads_rebuild_abandoned";
const REBUILD_PROGRESS: &str = "leads_rebuild_progress";
const READY: &str = "leads_ready";
const DEPENDENCY_UP: &str = "leads_dependency_up";
static PROCESS: LazyLock<Collector> = LazyLock::new(|| Collector::new("leads_"));
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
    describe_gauge!(WAITING, "Dead letters that no redrive has projected yet, by reason");
    describe_gauge!(OLDEST_SECONDS, Unit::Seconds, "Age of the oldest dead letter that waits");
    describe_gauge!(LIMIT, "DLQ_MAX: more dead letters within DLQ_WINDOW halt it; 0 is no limit");
    describe_gauge!(REBUILDING, "1 while another generation is being built");
    describe_gauge!(REBUILD_ABANDONED, "1 when a generation is half built and nobody is at it");
    describe_gauge!(REBUILD_PROGRESS, "How much of the live generation's way it has gone, 0 to 1");
    describe_gauge!(READY, "Whether it projects: 1 or 0, as /readyz says");
    describe_gauge!(DEPENDENCY_UP, "1 for each dependency that answers, 0 for one that doesn't");
    describe_gauge!("leads_build_info", "1; the labels tell version and commit");
    PROCESS.describe();
    describe_counter!(RETRIES, "Tries that failed for a cause that passes, by cause");
    describe_counter!(REBALANCES, "Assignments and revocations of partitions");
    describe_counter!(FENCED, "Batches refused because the offsets had been moved by someone else");
    for outcome in Tally::default().outcomes() {
        counter!(EVENTS, "outcome" => outcome.0).increment(0);
    }
    for reason in Reason::ALL {
        counter!(DEAD_LETTERS, "reason" => reason.name()).increment(0);
    }
    for cause in CAUSES {
        counter!(RETRIES, "cause" => cause).increment(0);
    }
    let (version, commit) = (leads_version::VERSION, leads_version::COMMIT);
    gauge!("leads_build_info", "version" => version, "commit" => commit).set(1.0);
    set_rebuild(None, false);
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

/// Sets the gauges of what is true at the moment of asking.
pub fn set_standing(readiness: Readiness) {
    let Readiness { status, kafka, postgres, projection: _ } = readiness;
    let one_if = |yes: bool| f64::from(u8::from(yes));
    gauge!(READY).set(one_if(status == "ok"));
    gauge!(DEPENDENCY_UP, "dependency" => "kafka").set(one_if(kafka == "up"));
    gauge!(DEPENDENCY_UP, "dependency" => "postgres").set(one_if(postgres == "up"));
    PROCESS.collect();
}

/// Sets how many dead letters a window of the circuit breaker may have; 0 is no limit.
pub fn set_dead_letter_limit(max: u32) {
    gauge!(LIMIT).set(max);
}

/// Sets what waits in the dead letters: how many by the reason's name, and the age of the oldest.
#[allow(clippy::cast_precision_loss)]
pub fn set_dead_letters_waiting(counts: &[(String, i64)], oldest: Option<Duration>) {
    for reason in Reason::ALL.map(Reason::name) {
        let found = counts.iter().find(|(name, _)| name == reason);
        gauge!(WAITING, "reason" => reason).set(found.map_or(0, |(_, count)| *count) as f64);
    }
    gauge!(OLDEST_SECONDS).set(oldest.unwrap_or_default());
}

/// Sets how far another generation has got, from 0 to 1; `None`: there is none. `abandoned`: nobody
/// is at it.
pub fn set_rebuild(progress: Option<f64>, abandoned: bool) {
    gauge!(REBUILD_ABANDONED).set(f64::from(u8::from(abandoned)));
    gauge!(REBUILDING).set(f64::from(u8::from(progress.is_some())));
    gauge!(REBUILD_PROGRESS).set(progress.unwrap_or(0.0));
}
