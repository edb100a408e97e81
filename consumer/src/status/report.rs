//! What a look comes to. The shape is that of `--json`, and `docs/operations.md` lists its fields.

use leads_shared::Timestamp;
use serde::Serialize;

/// How things stand. Fields are `null` when they are not known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// When it was looked.
    pub at: Timestamp,
    /// Whether there is no problem.
    pub healthy: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// The events topic.
    pub topic: String,
    /// Whether Kafka answers.
    pub kafka: Server,
    /// Whether PostgreSQL answers.
    pub postgres: Server,
    /// Records that are not projected yet.
    pub lag_records: Option<i64>,
    /// The age of the oldest of them.
    pub lag_seconds: Option<f64>,
    /// How fast records are projected.
    pub events_per_second: Option<f64>,
    /// The generations of the read model, the oldest first.
    pub generations: Vec<GenerationStatus>,
    /// What could not be projected.
    pub dead_letters: Option<DeadLetterStatus>,
    /// The consumers.
    pub group: GroupStatus,
    /// Each partition.
    pub partitions: Vec<PartitionStatus>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// In words.
    pub problem: String,
    /// The command to run next, or what to do.
    pub next: String,
}

/// A server that is depended on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Server {
    /// Whether it answers.
    pub up: bool,
    /// Why it does not.
    pub error: Option<String>,
}

/// A generation of the read model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GenerationStatus {
    /// Its number.
    pub generation: i32,
    /// `live`, `building` or `previous`.
    pub state: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it became live the last time.
    pub live_since: Option<Timestamp>,
    /// Who builds it, as HOST:PID.
    pub builder: Option<String>,
    /// Whether it is half built and nobody is at it.
    pub abandoned: bool,
    /// How much of the log it holds, from 0 to 1.
    pub progress: Option<f64>,
}

/// The dead letters of the live generation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DeadLetterStatus {
    /// Those that no redrive has projected.
    pub waiting: i64,
    /// Those that the dead letter topic does not hold yet.
    pub pending_export: i64,
    /// The waiting ones by reason.
    pub reasons: Vec<ReasonStatus>,
}

/// Dead letters of one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReasonStatus {
    /// Why they were set aside.
    pub reason: String,
    /// How many wait.
    pub waiting: i64,
    /// How long the oldest has been waiting.
    pub oldest_seconds: f64,
}

/// The consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupStatus {
    /// Its name.
    pub name: String,
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, `Dead`, or `Unknown` to the
    /// brokers.
    pub state: Option<String>,
    /// Its members.
    pub members: Vec<MemberStatus>,
}

/// A member of the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MemberStatus {
    /// The id that Kafka gave it.
    pub id: String,
    /// What it calls itself.
    pub client: String,
    /// The address that it connects from.
    pub host: String,
    /// The partitions that it has.
    pub partitions: Vec<i32>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: i32,
    /// The offset of the next record to project.
    pub next_offset: Option<i64>,
    /// The offset after the log's last record.
    pub log_end: Option<i64>,
    /// Records between the two.
    pub lag_records: Option<i64>,
    /// The age of the record at `next_offset`; `null` too when there is none.
    pub lag_seconds: Option<f64>,
    /// Whether a swap has closed it.
    pub sealed: Option<bool>,
    /// The id of the member that has it.
    pub owner: Option<String>,
}
