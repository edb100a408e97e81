//! What a look means: lag, progress, and what is wrong. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use leads_shared::Timestamp;

use super::Settings;
use super::look::{Log, Model, Seen};
use super::read_model::{DeadLetters, Generation, Offset, Waiting};
use super::report::{
    DeadLetterStatus, GenerationStatus, GroupStatus, MemberStatus, PartitionStatus, Problem,
    ReasonStatus, Server, Status,
};
use crate::source::group::{Group, GroupMember};
use crate::source::inspect::Bounds;

const DOCTOR: &str = "leads-consumer doctor";

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
    let status = |generation: &Generation| GenerationStatus {
        generation: generation.number,
        state: generation.state.clone(),
        created_at: Timestamp::from(generation.created_at),
        live_since: generation.live_since.map(Timestamp::from),
        builder: generation.builder.clone(),
        abandoned: generation.abandoned,
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
    let reason = |it: &Waiting| ReasonStatus {
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
    let any_is_projected = status.partitions.iter().any(|it| it.next_offset.is_some());
    for partition in &status.partitions {
        let number = partition.partition;
        if any_is_projected && partition.next_offset.is_none() && partition.log_end.is_some() {
            add(format!("partition {number} is not projected"), DOCTOR);
        }
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
    use crate::config::Database;
    use crate::source::client::Kafka;

    fn offset(generation: i32, partition: i32, next: i64) -> Offset {
        Offset { generation, partition, next, last_event_id: None, sealed: false }
    }

    fn settings() -> Settings {
        let (config, tls) = leads_postgres::parse("postgres://u@127.0.0.1/d", None).unwrap();
        Settings {
            kafka: Kafka { brokers: "b:1".to_owned(), settings: Vec::new() },
            topic: "t".to_owned(),
            group: "g".to_owned(),
            database: Database { config, tls },
        }
    }

    fn sound() -> (Log, Model) {
        let member = GroupMember {
            id: "m".to_owned(),
            client: "c".to_owned(),
            host: "h".to_owned(),
            partitions: vec![0],
        };
        let log = Log {
            bounds: [(0, Bounds { start: 0, end: 5 })].into(),
            around: BTreeMap::new(),
            group: Ok(Group { state: "Stable".to_owned(), members: vec![member] }),
        };
        let live = Generation {
            number: 1,
            state: "live".to_owned(),
            builder: None,
            abandoned: false,
            live_since: None,
            created_at: Utc::now(),
        };
        let model =
            Model { generations: vec![live], offsets: vec![offset(1, 0, 5)], ..Model::default() };
        (log, model)
    }

    /// The commands that the problems name.
    fn next(log: Log, model: Model) -> Vec<String> {
        let seen = Seen { log: Ok(log), model: Ok(model) };
        let status = report(&settings(), &seen, Utc::now(), Duration::from_mins(1));
        assert_eq!(status.healthy, status.problems.is_empty());
        status.problems.into_iter().map(|problem| problem.next).collect()
    }

    #[test]
    fn each_problem_names_the_next_command() {
        let (log, model) = sound();
        assert_eq!(next(log.clone(), model.clone()), [""; 0]);
        let no_topic = Log { bounds: BTreeMap::new(), ..log.clone() };
        assert_eq!(next(no_topic, model.clone()), ["leads-consumer topics"]);
        let unknown = Log { group: Err("partial".to_owned()), ..log.clone() };
        assert_eq!(next(unknown, model.clone()), [DOCTOR]);
        let nobody = Log { group: Ok(Group::default()), ..log.clone() };
        assert_eq!(next(nobody, model.clone()), ["leads-consumer run"]);
        let beyond = Model { offsets: vec![offset(1, 0, 6)], ..model.clone() };
        assert_eq!(next(log.clone(), beyond), [DOCTOR]);
        let sealed = Offset { sealed: true, ..offset(1, 0, 5) };
        assert_eq!(next(log.clone(), Model { offsets: vec![sealed], ..model.clone() }), [DOCTOR]);
        let (count, oldest) = (2, Utc::now());
        let waiting = vec![Waiting { reason: "r".to_owned(), count, oldest }];
        let dead_letters = DeadLetters { waiting, pending_export: 0 };
        assert_eq!(next(log.clone(), Model { dead_letters, ..model }), ["leads-consumer dlq list"]);
        assert_eq!(next(log, Model::default()), [DOCTOR], "no generation");
    }

    #[test]
    fn what_nobody_has_looked_at_yet_is_all_behind() {
        let (log, model) = sound();
        let partitions =
            partitions(Some(&log), Some(&Model { offsets: Vec::new(), ..model }), Utc::now());
        assert_eq!((partitions[0].lag_records, partitions[0].next_offset), (Some(5), None));
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
