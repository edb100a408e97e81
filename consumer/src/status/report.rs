//! What a look means: lag, progress, and what is wrong. Pure; the shape is that of `--json`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use leads_shared::Timestamp;
use serde::Serialize;

use super::Settings;
use super::look::{Log, Model, Seen};
use super::read_model::{DeadLetters, Offset};
use crate::source::group::{Group, GroupMember};
use crate::source::inspect::Bounds;

const DOCTOR: &str = "leads-consumer doctor";

/// How things stand. Fields are `null` when they are not known; `docs/operations.md` lists them.
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

/// Judges what was seen at `now`. A record that waits for longer than `max_lag` is a problem.
pub fn report(settings: &Settings, seen: &Seen, now: DateTime<Utc>, max_lag: Duration) -> Status {
    let Seen { log, model } = seen;
    let partitions = partitions(log.as_ref().ok(), model.as_ref().ok(), now);
    let mut status = Status {
        at: Timestamp::from(now),
        healthy: false,
        problems: Vec::new(),
        topic: settings.topic.clone(),
        kafka: Server { up: log.is_ok(), error: log.as_ref().err().cloned() },
        postgres: Server {
            up: model.is_ok(),
            error: model.as_ref().err().map(|halt| halt.cause.clone()),
        },
        lag_records: partitions.iter().filter_map(|it| it.lag_records).reduce(|a, b| a + b),
        lag_seconds: partitions.iter().filter_map(|it| it.lag_seconds).reduce(f64::max),
        events_per_second: model.as_ref().ok().and_then(|model| model.rate),
        generations: model.as_ref().map_or_else(
            |_| Vec::new(),
            |model| generations(model, log.as_ref().ok().map(|log| &log.bounds)),
        ),
        dead_letters: model.as_ref().ok().map(|model| dead_letters(&model.dead_letters, now)),
        group: group(&settings.group, log.as_ref().ok().and_then(|log| log.group.as_ref().ok())),
        partitions,
    };
    status.problems = problems(&status, seen, max_lag);
    status.healthy = status.problems.is_empty();
    status
}

/// How long ago, in seconds; a clock that is behind makes it 0.
fn seconds_since(then: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    (now - then).to_std().map_or(0.0, |age| (age.as_secs_f64() * 1000.0).round() / 1000.0)
}

fn partitions(
    log: Option<&Log>,
    model: Option<&Model>,
    now: DateTime<Utc>,
) -> Vec<PartitionStatus> {
    let live = model.and_then(|model| model.live()).map(|it| it.number);
    let offsets = model.map_or(&[][..], |model| &model.offsets);
    let offsets: BTreeMap<i32, &Offset> = offsets
        .iter()
        .filter(|it| Some(it.generation) == live)
        .map(|it| (it.partition, it))
        .collect();
    let group = log.and_then(|log| log.group.as_ref().ok());
    let owners = group.map(Group::owners).unwrap_or_default();
    let ends = log.into_iter().flat_map(|log| log.bounds.keys());
    let known: BTreeSet<i32> = ends.chain(offsets.keys()).copied().collect();
    let status = |partition: i32| {
        let offset = offsets.get(&partition);
        let bounds = log.and_then(|log| log.bounds.get(&partition));
        let log_end = bounds.map(|bounds| bounds.end);
        let next_offset = offset.map(|it| it.next);
        let next = log.and_then(|log| log.around.get(&partition)).and_then(|it| it.next);
        let time = next.and_then(|it| DateTime::from_timestamp_millis(it.time_millis?));
        let owner = group.zip(owners.get(&partition)).map(|(group, at)| &group.members[*at].id);
        PartitionStatus {
            partition,
            next_offset,
            log_end,
            lag_records: bounds.zip(live).map(|(bounds, _)| {
                // Without a row nobody has looked at the topic yet.
                (bounds.end - next_offset.unwrap_or(bounds.start)).max(0)
            }),
            lag_seconds: time.map(|time| seconds_since(time, now)),
            sealed: offset.map(|it| it.sealed),
            owner: owner.cloned(),
        }
    };
    known.into_iter().map(status).collect()
}

fn generations(model: &Model, bounds: Option<&BTreeMap<i32, Bounds>>) -> Vec<GenerationStatus> {
    let status = |generation: &super::read_model::Generation| GenerationStatus {
        generation: generation.number,
        state: generation.state.clone(),
        created_at: Timestamp::from(generation.created_at),
        live_since: generation.live_since.map(Timestamp::from),
        builder: generation.builder.clone(),
        progress: bounds.and_then(|bounds| progress(generation.number, &model.offsets, bounds)),
    };
    model.generations.iter().map(status).collect()
}

/// `None` without a log; an empty one is projected whole by whoever has looked at it.
fn progress(generation: i32, offsets: &[Offset], bounds: &BTreeMap<i32, Bounds>) -> Option<f64> {
    let mine: Vec<_> = offsets.iter().filter(|it| it.generation == generation).collect();
    let done: i64 = mine.iter().map(|it| it.next).sum();
    let all: i64 = bounds.values().map(|bounds| bounds.end).sum();
    match (bounds.is_empty(), mine.is_empty(), all) {
        (true, ..) => None,
        (_, true, _) => Some(0.0),
        (_, _, 0) => Some(1.0),
        #[expect(clippy::cast_precision_loss, reason = "a share of offsets far below 2^52")]
        _ => Some((done as f64 / all as f64).min(1.0)),
    }
}

fn dead_letters(found: &DeadLetters, now: DateTime<Utc>) -> DeadLetterStatus {
    let reason = |it: &super::read_model::Waiting| ReasonStatus {
        reason: it.reason.clone(),
        waiting: it.count,
        oldest_seconds: seconds_since(it.oldest, now),
    };
    DeadLetterStatus {
        waiting: found.waiting.iter().map(|it| it.count).sum(),
        pending_export: found.pending_export,
        reasons: found.waiting.iter().map(reason).collect(),
    }
}

fn group(name: &str, group: Option<&Group>) -> GroupStatus {
    let member = |it: &GroupMember| MemberStatus {
        id: it.id.clone(),
        client: it.client.clone(),
        host: it.host.clone(),
        partitions: it.partitions.clone(),
    };
    let members = group.map_or(&[][..], |group| &group.members);
    GroupStatus {
        name: name.to_owned(),
        state: group.map(|group| group.state.clone()),
        members: members.iter().map(member).collect(),
    }
}

fn problems(status: &Status, seen: &Seen, max_lag: Duration) -> Vec<Problem> {
    let mut found = Vec::new();
    let mut add = |problem: String, next: &str| {
        found.push(Problem { problem, next: next.to_owned() });
    };
    match &seen.log {
        Err(why) => add(format!("Kafka can't be asked: {why}"), DOCTOR),
        Ok(log) if log.bounds.is_empty() => {
            add(format!("topic {} does not exist", status.topic), "leads-consumer topics");
        }
        Ok(Log { group: Err(why), .. }) => {
            add(format!("the consumer group can't be asked about: {why}"), DOCTOR);
        }
        Ok(Log { group: Ok(group), .. }) if !group.is_active() => {
            let (name, state) = (&status.group.name, &group.state);
            let (count, next) = match group.members.len() {
                0 => ("no member".to_owned(), "leads-consumer run"),
                many => (format!("{many} members without a partition"), DOCTOR),
            };
            add(format!("no active consumer: group {name} ({state}) has {count}"), next);
        }
        Ok(_) => {}
    }
    match &seen.model {
        Err(halt) => add(format!("PostgreSQL can't be asked: {}", halt.cause), &halt.cure),
        Ok(model) if model.live().is_none() => {
            add("no generation of the read model is live".to_owned(), DOCTOR);
        }
        Ok(_) => {}
    }
    if let Some(age) = status.lag_seconds.filter(|age| *age > max_lag.as_secs_f64()) {
        let limit = max_lag.as_secs_f64();
        add(
            format!("the oldest record not projected is {age:.0} s old, more than {limit} s"),
            DOCTOR,
        );
    }
    for partition in &status.partitions {
        let number = partition.partition;
        if partition.next_offset.zip(partition.log_end).is_some_and(|(next, end)| next > end) {
            add(format!("partition {number} is projected beyond the log's end"), DOCTOR);
        }
        if partition.sealed == Some(true) {
            add(format!("partition {number} of the live generation is sealed"), DOCTOR);
        }
    }
    if let Some(letters) = status.dead_letters.as_ref().filter(|it| it.waiting > 0) {
        add(format!("{} dead letters wait", letters.waiting), "leads-consumer dlq list");
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offset(generation: i32, partition: i32, next: i64) -> Offset {
        Offset { generation, partition, next, last_event_id: None, sealed: false }
    }

    #[test]
    fn progress_is_a_share_of_the_log() {
        let bounds: BTreeMap<i32, Bounds> =
            [(0, Bounds { start: 0, end: 30 }), (1, Bounds { start: 0, end: 10 })].into();
        let offsets = [offset(1, 0, 30), offset(1, 1, 10), offset(2, 0, 10), offset(2, 1, 0)];
        assert_eq!(progress(1, &offsets, &bounds), Some(1.0));
        assert_eq!(progress(2, &offsets, &bounds), Some(0.25));
        assert_eq!(progress(3, &offsets, &bounds), Some(0.0), "it has not looked yet");
        assert_eq!(progress(1, &offsets, &BTreeMap::new()), None);
        let empty = [(0, Bounds { start: 0, end: 0 })].into();
        assert_eq!(progress(2, &[offset(2, 0, 0)], &empty), Some(1.0));
    }

    #[test]
    fn a_time_to_come_has_age_zero() {
        let now = Utc::now();
        assert!(seconds_since(now + Duration::from_secs(3), now).abs() < f64::EPSILON);
        let before = now - Duration::from_millis(1500);
        assert!((seconds_since(before, now) - 1.5).abs() < 0.001);
    }
}
