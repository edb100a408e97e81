//! Which partitions are ours, and how far each is projected.

use std::collections::{BTreeMap, HashSet};
use std::time::SystemTime;

use leads_shared::event::event_id_of;
use uuid::Uuid;

use crate::failure::{GAP, Halt, RESTORE};
use crate::projection::parking::LeadAt;
use crate::record::Record;
use crate::source::Position;
use crate::store::{Advance, Applied, Positions};
use crate::telemetry;

#[derive(Debug, Default)]
pub(super) struct Partitions {
    generation: i32,
    /// Grows with every positioning, so that records fetched before it are known by it.
    epoch: u32,
    ours: BTreeMap<i32, Partition>,
}

#[derive(Debug, Default)]
struct Partition {
    /// `None`: PostgreSQL has not said yet where it stands.
    standing: Option<Standing>,
    /// Offsets were missing from here on, and it was read once more from here.
    reread_from: Option<i64>,
    /// Since when it has been behind the log's end, in milliseconds since 1970.
    behind_since: Option<i64>,
}

#[derive(Debug)]
struct Standing {
    epoch: u32,
    next_offset: i64,
    last_event_id: Option<Uuid>,
    /// The record before `next_offset` was read back and is the one that was projected.
    verified: bool,
    uncommitted: bool,
    /// Leads whose events may have to wait behind one that was set aside.
    held: HashSet<Uuid>,
}

/// What to do with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// Project it.
    Record,
    /// It is not ours any more, was fetched before the last positioning, or is projected already.
    Skip,
    /// Records before it are missing: read the partition again, in case we lost them. A second time
    /// they are not in the log (control records of transactions take offsets), and it is taken.
    Gap,
}

impl Partitions {
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    pub(super) fn assign(&mut self, partitions: &[i32]) {
        self.ours.extend(partitions.iter().map(|partition| (*partition, Partition::default())));
    }

    pub(super) fn revoke(&mut self, partitions: &[i32]) {
        for partition in partitions {
            if self.ours.remove(partition).is_some() {
                // Whoever has it now reports its lag.
                telemetry::set_lag(*partition, 0, 0);
            }
        }
    }

    pub(super) fn unposition_all(&mut self) {
        for partition in self.ours.values_mut() {
            partition.standing = None;
        }
    }

    pub(super) fn any_unpositioned(&self) -> bool {
        self.ours.values().any(|partition| partition.standing.is_none())
    }

    pub(super) fn unpositioned(&self) -> Vec<i32> {
        let without = self.ours.iter().filter(|(_, partition)| partition.standing.is_none());
        without.map(|(partition, _)| *partition).collect()
    }

    /// Notes where partitions stand, and tells where to read them from: a record earlier, to be
    /// compared.
    pub(super) fn position(&mut self, found: &Positions) -> Vec<Position> {
        if self.generation != found.generation {
            self.generation = found.generation;
            self.unposition_all();
        }
        self.epoch += 1;
        let mut positions = Vec::new();
        for projected in &found.partitions {
            let Some(partition) = self.ours.get_mut(&projected.partition) else { continue };
            partition.standing = Some(Standing {
                epoch: self.epoch,
                next_offset: projected.next_offset,
                last_event_id: projected.last_event_id,
                verified: projected.next_offset == 0,
                uncommitted: true,
                held: HashSet::new(),
            });
            positions.push(Position {
                partition: projected.partition,
                offset: (projected.next_offset - 1).max(0),
                epoch: self.epoch,
            });
        }
        self.hold(&found.held);
        positions
    }

    fn standing(&mut self, partition: i32) -> Option<&mut Standing> {
        self.ours.get_mut(&partition)?.standing.as_mut()
    }

    fn hold(&mut self, leads: &[LeadAt]) {
        for LeadAt { partition, lead_id } in leads {
            if let Some(standing) = self.standing(*partition) {
                standing.held.insert(*lead_id);
            }
        }
    }

    /// Whether events of the lead may have to wait. PostgreSQL knows better: a redrive ends it.
    pub(super) fn is_held(&self, lead: LeadAt) -> bool {
        let ours = self.ours.get(&lead.partition);
        let standing = ours.and_then(|ours| ours.standing.as_ref());
        standing.is_some_and(|it| !it.held.is_empty() && it.held.contains(&lead.lead_id))
    }

    /// Decides about the next record of a batch, and moves the batch's offset over it.
    ///
    /// # Errors
    /// The log is not the one that was projected.
    pub(super) fn take(
        &mut self,
        record: &Record<'_>,
        epoch: u32,
        advances: &mut BTreeMap<i32, Advance>,
        pass_gaps: bool,
    ) -> Result<Take, Halt> {
        let Some(ours) = self.ours.get_mut(&record.partition) else { return Ok(Take::Skip) };
        let Some(standing) = ours.standing.as_mut().filter(|standing| standing.epoch == epoch)
        else {
            return Ok(Take::Skip);
        };
        if !standing.verified {
            verify(standing, record)?;
            standing.verified = true;
        }
        let from = standing.next_offset;
        let expected = advances.get(&record.partition).map_or(from, |advance| advance.to);
        if record.offset < expected {
            return Ok(Take::Skip);
        }
        if record.offset > expected && ours.reread_from != Some(expected) {
            return Ok(Take::Gap);
        }
        if record.offset > expected && !pass_gaps {
            let (partition, last) = (record.partition, record.offset - 1);
            return Err(Halt::new(
                format!(
                    "offsets {expected} to {last} of partition {partition} are missing: records \
                     were lost on the brokers, or compacted away"
                ),
                GAP,
            ));
        }
        let to = record.offset + 1;
        let partition = record.partition;
        let advance = Advance { partition, from, to, last_event_id: None };
        advances.entry(partition).or_insert(advance).to = to;
        Ok(Take::Record)
    }

    /// Reads `partition` again from where it stands; see [`Take::Gap`].
    pub(super) fn read_again(&mut self, partition: i32) {
        if let Some(ours) = self.ours.get_mut(&partition) {
            ours.reread_from = ours.standing.take().map(|standing| standing.next_offset);
            tracing::warn!(
                partition,
                offset = ours.reread_from,
                "offsets are missing; reading again"
            );
        }
    }

    /// Notes what a batch did that moved the offsets so.
    pub(super) fn advance(&mut self, advances: &[Advance], applied: &Applied) {
        for advance in advances {
            let ours = self.ours.get_mut(&advance.partition);
            if let Some(standing) = ours.and_then(|ours| ours.standing.as_mut()) {
                standing.next_offset = advance.to;
                standing.last_event_id = advance.last_event_id;
                standing.uncommitted = true;
            }
        }
        for LeadAt { partition, lead_id } in &applied.released {
            if let Some(standing) = self.standing(*partition) {
                standing.held.remove(lead_id);
            }
        }
        self.hold(&applied.held);
    }

    /// Partition and next offset of those that are positioned.
    pub(super) fn committed(&self) -> Vec<(i32, i64)> {
        let positioned = self.ours.iter().filter_map(|(partition, ours)| {
            ours.standing.as_ref().map(|standing| (*partition, standing.next_offset))
        });
        positioned.collect()
    }

    pub(super) fn uncommitted(&self) -> bool {
        self.ours.values().any(|ours| ours.standing.as_ref().is_some_and(|it| it.uncommitted))
    }

    /// Partition and next offset of those that moved since the last call.
    pub(super) fn take_uncommitted(&mut self) -> Vec<(i32, i64)> {
        let mut moved = Vec::new();
        for (partition, ours) in &mut self.ours {
            if let Some(standing) = ours.standing.as_mut().filter(|it| it.uncommitted) {
                standing.uncommitted = false;
                moved.push((*partition, standing.next_offset));
            }
        }
        moved
    }

    /// Sets the gauges of lag, given the log's ends and the times of the oldest pending records.
    pub(super) fn report_lag(&mut self, ends: &[(i32, i64)], oldest: &BTreeMap<i32, i64>) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX));
        for (partition, end) in ends {
            let Some(ours) = self.ours.get_mut(partition) else { continue };
            let Some(standing) = &ours.standing else { continue };
            let records = (end - standing.next_offset).max(0);
            ours.behind_since = (records > 0).then(|| {
                let seen = ours.behind_since.unwrap_or(now);
                oldest.get(partition).copied().unwrap_or(seen)
            });
            let millis = ours.behind_since.map_or(0, |since| (now - since).max(0));
            telemetry::set_lag(*partition, records, millis);
        }
    }
}

fn verify(standing: &Standing, record: &Record<'_>) -> Result<(), Halt> {
    let Standing { next_offset, last_event_id, .. } = standing;
    if record.offset == next_offset - 1 && event_id_of(record.value) == *last_event_id {
        return Ok(());
    }
    Err(Halt::new(
        format!(
            "partition {} was projected up to offset {}, but the record there is another one: the \
             topic was recreated or truncated",
            record.partition,
            next_offset - 1
        ),
        RESTORE,
    ))
}
