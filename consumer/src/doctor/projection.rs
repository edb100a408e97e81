//! Whether the projection stands where the log says, and moves.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Looked;
use super::finding::{Finding, judge, judge_both};
use crate::failure::{GONE, REPARTITION, RESTORE};
use crate::source::inspect::{Around, Bounds};
use crate::status::read_model::{DeadLetters, Generation, Offset};

/// One generation is live.
pub(super) fn live(looked: &Looked) -> Finding {
    judge(&looked.generations, |all| match all.iter().find(|it| it.state == "live") {
        Some(live) => Finding::ok(format!("generation {} is live", live.number)),
        None => Finding::failed(
            "no generation of the read model is live",
            "psql \"$DATABASE_URL\" -c 'SELECT * FROM projection_generation', and mark the one \
             that `leads` is a view of as live",
        ),
    })
}

/// A generation that is being built has someone who builds it.
pub(super) fn builder(looked: &Looked) -> Finding {
    judge(&looked.generations, |all| judge_builder(all))
}

fn judge_builder(all: &[Generation]) -> Finding {
    let Some(building) = all.iter().find(|it| it.state == "building") else {
        return Finding::ok("no generation is being built");
    };
    let Generation { number, builder, abandoned, .. } = building;
    let builder = builder.as_deref().unwrap_or("nobody");
    if !abandoned {
        return Finding::ok(format!("generation {number} is being built by {builder}"));
    }
    Finding::warning(
        format!("generation {number} is half built, and its builder {builder} is gone"),
        "leads-consumer rebuild goes on where it was; leads-consumer rebuild discard drops it",
    )
}

/// The topic has as many partitions as were projected.
pub(super) fn partitions(looked: &Looked) -> Finding {
    judge_both(&looked.events.shape, &looked.offsets, |shape, offsets| {
        let Some(shape) = shape else { return Finding::skipped("there is no such topic") };
        judge_partitions(shape.partitions as usize, offsets)
    })
}

fn judge_partitions(partitions: usize, offsets: &[Offset]) -> Finding {
    let mut rows: BTreeMap<i32, usize> = BTreeMap::new();
    for offset in offsets {
        *rows.entry(offset.generation).or_default() += 1;
    }
    match rows.into_iter().find(|(_, count)| *count != partitions) {
        Some((generation, count)) => Finding::failed(
            format!(
                "the topic has {partitions} partitions, generation {generation} was projected with \
                 {count}: keys have moved and their order is lost"
            ),
            REPARTITION,
        ),
        None if offsets.is_empty() => Finding::ok("nothing is projected yet"),
        None => Finding::ok(format!("{partitions} partitions, as projected")),
    }
}

/// The offsets of the live generation lie in the log.
pub(super) fn in_bounds(looked: &Looked) -> Finding {
    judge_both(&looked.live_offsets(), &looked.bounds, |offsets, bounds| {
        judge_bounds(offsets, bounds)
    })
}

fn judge_bounds(offsets: &[Offset], bounds: &BTreeMap<i32, Bounds>) -> Finding {
    for Offset { partition, next, .. } in offsets {
        let Some(Bounds { start, end }) = bounds.get(partition) else { continue };
        if next > end {
            let found = format!(
                "partition {partition} is projected up to {next}, but its log ends at {end}: the \
                 topic was recreated or truncated"
            );
            return Finding::failed(found, RESTORE);
        }
        if next < start {
            let found = format!(
                "partition {partition} is projected up to {next}, but its log starts at {start}: \
                 records between them are gone"
            );
            return Finding::failed(found, GONE);
        }
    }
    match bounds.values().find(|bounds| bounds.start > 0) {
        Some(bounds) => Finding::warning(
            format!("the log is not whole: a partition starts at {}", bounds.start),
            "a rebuild would miss what is gone: leads-consumer topics checks the settings",
        ),
        None => Finding::ok("all offsets lie in the log"),
    }
}

/// The record before each offset is the one that was projected.
pub(super) fn same_log(looked: &Looked) -> Finding {
    judge_both(&looked.live_offsets(), &looked.around, |offsets, around| {
        judge_same_log(offsets, around)
    })
}

fn judge_same_log(offsets: &[Offset], around: &BTreeMap<i32, Around>) -> Finding {
    let mut unread = Vec::new();
    for offset in offsets.iter().filter(|it| it.next > 0) {
        let Offset { partition, next, last_event_id, .. } = offset;
        let Some(around) = around.get(partition).filter(|it| it.complete || it.before.is_some())
        else {
            unread.push(*partition);
            continue;
        };
        if around.outside {
            continue;
        }
        if around.before.is_none_or(|before| before.event_id != *last_event_id) {
            let found = format!(
                "partition {partition}: the record at offset {} is another one than was projected: \
                 the topic was recreated",
                next - 1
            );
            return Finding::failed(found, RESTORE);
        }
    }
    if unread.is_empty() {
        return Finding::ok("the records before the offsets are those that were projected");
    }
    Finding::warning(
        format!("partitions {unread:?} could not be read in time"),
        "leads-consumer doctor, once more",
    )
}

/// Someone projects.
pub(super) fn group(looked: &Looked) -> Finding {
    judge(&looked.group, |group| {
        let (name, state, count) = (&looked.group_name, &group.state, group.members.len());
        match (group.is_active(), count) {
            (true, _) => Finding::ok(format!("{name}: {state}, {count} members")),
            (false, 0) => Finding::failed(
                format!("group {name} ({state}) has no member: nothing is projected"),
                "leads-consumer run",
            ),
            (false, _) => Finding::failed(
                format!("group {name} ({state}) has {count} members, and none has a partition"),
                "leads-consumer doctor in ten seconds; if it stays, the log of leads-consumer run",
            ),
        }
    })
}

/// What is behind moves.
pub(super) fn movement(looked: &Looked) -> Finding {
    judge_both(&looked.live_offsets(), &looked.bounds, |offsets, bounds| {
        judge_both(&looked.moved, &looked.group, |later, group| {
            let stuck = stuck(offsets, later, bounds);
            match (stuck.as_slice(), group.is_active()) {
                ([], _) => Finding::ok("no partition stands still with records to project"),
                (_, false) => Finding::skipped("the group has no active member"),
                (stuck, true) => Finding::failed(
                    format!("{} and did not move for two seconds", list(stuck)),
                    "look at the log of leads-consumer run, and at its readiness: curl \
                     localhost:9465/readyz",
                ),
            }
        })
    })
}

/// Partitions with records to project, and how many, whose offset is where it was.
fn stuck(before: &[Offset], later: &[Offset], bounds: &BTreeMap<i32, Bounds>) -> Vec<(i32, i64)> {
    let behind = |offset: &&Offset| {
        let end = bounds.get(&offset.partition).map_or(0, |bounds| bounds.end);
        offset.next < end && later.contains(offset)
    };
    let lag = |offset: &Offset| bounds[&offset.partition].end - offset.next;
    before.iter().filter(behind).map(|offset| (offset.partition, lag(offset))).collect()
}

fn list(stuck: &[(i32, i64)]) -> String {
    let mut text = String::from("partition");
    for (at, (partition, lag)) in stuck.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma} {partition} ({lag} records behind)");
    }
    text
}

/// No swap has closed the live generation.
pub(super) fn sealed(looked: &Looked) -> Finding {
    judge(&looked.live_offsets(), |offsets| match offsets.iter().find(|offset| offset.sealed) {
        None => Finding::ok("no partition of the live generation is sealed"),
        Some(Offset { generation, partition, .. }) => Finding::failed(
            format!("partition {partition} of the live generation {generation} is sealed"),
            format!(
                "psql \"$DATABASE_URL\" -c 'UPDATE projection_offset SET sealed = false WHERE \
                     generation = {generation}'"
            ),
        ),
    })
}

/// Nothing waits to be redriven.
pub(super) fn dead_letters(looked: &Looked) -> Finding {
    judge(&looked.dead_letters, judge_dead_letters)
}

fn judge_dead_letters(found: &DeadLetters) -> Finding {
    if found.waiting.is_empty() {
        return Finding::ok("none waits");
    }
    let reasons: Vec<_> =
        found.waiting.iter().map(|it| format!("{} {}", it.count, it.reason)).collect();
    Finding::failed(format!("waiting: {}", reasons.join(", ")), "leads-consumer dlq list")
}

/// What was set aside is in the dead letter topic, too.
pub(super) fn export(looked: &Looked) -> Finding {
    judge(&looked.dead_letters, |found| match found.pending_export {
        0 => Finding::ok("all are in their topic"),
        count => Finding::warning(
            format!("{count} are not in the dead letter topic yet"),
            "leads-consumer run exports them; its log tells why it can't",
        ),
    })
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::Verdict;
    use super::*;
    use crate::source::inspect::Glimpse;

    fn at(partition: i32, next: i64) -> Offset {
        Offset { generation: 1, partition, next, last_event_id: None, sealed: false }
    }

    fn bounds(start: i64, end: i64) -> BTreeMap<i32, Bounds> {
        [(0, Bounds { start, end })].into()
    }

    #[test]
    fn stuck_is_behind_and_still() {
        let log = bounds(0, 10);
        assert_eq!(stuck(&[at(0, 4)], &[at(0, 4)], &log), [(0, 6)]);
        assert_eq!(stuck(&[at(0, 4)], &[at(0, 5)], &log), []);
        assert_eq!(stuck(&[at(0, 10)], &[at(0, 10)], &log), []);
    }

    #[test]
    fn offsets_outside_of_the_log_are_found() {
        let found = |next, start, end| judge_bounds(&[at(0, next)], &bounds(start, end));
        assert_eq!(found(5, 0, 5).verdict, Verdict::Ok);
        assert!(found(6, 0, 5).found.contains("ends at 5"));
        assert!(found(2, 3, 5).found.contains("starts at 3"));
        assert_eq!(found(4, 3, 5).verdict, Verdict::Warning);
    }

    #[test]
    fn another_record_is_another_log() {
        let id = Uuid::from_u128(1);
        let offset = Offset { last_event_id: Some(id), ..at(0, 3) };
        let judge = |before: Option<Uuid>| {
            let before = Some(Glimpse { time_millis: None, event_id: before });
            let around = Around { before, complete: true, ..Around::default() };
            judge_same_log(std::slice::from_ref(&offset), &[(0, around)].into()).verdict
        };
        assert_eq!(judge(Some(id)), Verdict::Ok);
        assert_eq!(judge(Some(Uuid::from_u128(2))), Verdict::Failed);
        assert_eq!(judge(None), Verdict::Failed);
        let nothing = judge_same_log(std::slice::from_ref(&offset), &BTreeMap::new());
        assert_eq!(nothing.verdict, Verdict::Warning);
    }

    #[test]
    fn each_generation_has_a_row_for_each_partition() {
        assert_eq!(judge_partitions(2, &[at(0, 0), at(1, 0)]).verdict, Verdict::Ok);
        assert_eq!(judge_partitions(2, &[]).verdict, Verdict::Ok);
        assert_eq!(judge_partitions(3, &[at(0, 0), at(1, 0)]).verdict, Verdict::Failed);
        assert_eq!(judge_partitions(1, &[at(0, 0), at(1, 0)]).verdict, Verdict::Failed);
    }
}
