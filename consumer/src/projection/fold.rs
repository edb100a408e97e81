//! The fold: events in log order + what is known of their leads → what changes.
//!
//! | event | lead is there | lead is not there |
//! | --- | --- | --- |
//! | `LeadCreated` | no effect | version 1 |
//! | `LeadUpdated`, its id is the lead's last one | no effect | dead letter |
//! | … expecting another version | no effect, the failure is recorded | dead letter |
//! | … otherwise | fields replaced, version + 1 | dead letter |

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use leads_shared::{Change, Changes, Event, Lead, Payload, Timestamp, UpdateEffect};
use uuid::Uuid;

use super::{Counted, Created, Key, Known, PreconditionFailure, Reason, Rejection, Tally, Updated};

/// What a batch changes.
#[derive(Debug, Default, PartialEq)]
pub struct Folded<'a> {
    /// Rows to insert, in the order of their creation.
    pub created: Vec<Created<'a>>,
    /// Rows to update, in the order of their first update.
    pub updated: Vec<Updated<'a>>,
    /// Updates that came too late for the version they expected.
    pub precondition_failures: Vec<PreconditionFailure>,
    /// By index into the events given: those that can't be projected.
    pub rejected: Vec<(usize, Rejection)>,
    /// How many events had which effect.
    pub tally: Tally,
}

enum State {
    /// Created in this batch: index into `created`.
    Created(usize),
    /// There before, and updated in this batch: index into `updated`.
    Updated(usize),
    /// There before.
    Known(Known, Counted),
}

/// Folds `events`, in log order for each lead, onto what is `known`; a lead that isn't is not there.
pub fn fold<'a>(
    events: impl IntoIterator<Item = (usize, Event<'a>)>,
    known: impl IntoIterator<Item = (Key, (Known, Counted))>,
) -> Folded<'a> {
    let mut folded = Folded::default();
    let mut states: HashMap<Key, State> =
        known.into_iter().map(|(key, (known, by))| (key, State::Known(known, by))).collect();
    for (index, event) in events {
        let Event { event_id, occurred_at, workspace_id, lead_id, payload } = event;
        let key = Key { workspace_id, id: lead_id };
        match payload {
            Payload::LeadCreated { lead } => {
                folded.create(&mut states, key, lead, (event_id, index));
            }
            Payload::LeadUpdated { changes, expected_version } => {
                let update = Update { event_id, occurred_at, changes, expected_version };
                folded.update(&mut states, key, update, index);
            }
        }
    }
    folded
}

struct Update<'a> {
    event_id: Uuid,
    occurred_at: Timestamp,
    changes: Changes<'a>,
    expected_version: Option<u64>,
}

impl<'a> Folded<'a> {
    fn create(
        &mut self,
        states: &mut HashMap<Key, State>,
        key: Key,
        lead: Lead<'a>,
        (event_id, index): (Uuid, usize),
    ) {
        match states.entry(key) {
            Entry::Occupied(_) => self.tally.duplicate_creation += 1,
            Entry::Vacant(entry) => {
                entry.insert(State::Created(self.created.len()));
                self.created.push(Created { lead, version: 1, last_event_id: event_id, index });
                self.tally.created += 1;
            }
        }
    }

    fn update(
        &mut self,
        states: &mut HashMap<Key, State>,
        key: Key,
        update: Update<'a>,
        index: usize,
    ) {
        let Some(state) = states.get_mut(&key) else {
            self.tally.dead_letter += 1;
            let error = "the log never created the lead in this workspace".to_owned();
            self.rejected.push((index, Rejection { reason: Reason::UnknownLead, error }));
            return;
        };
        let (version, last_event_id) = match state {
            State::Created(at) => (self.created[*at].version, self.created[*at].last_event_id),
            State::Updated(at) => {
                (self.updated[*at].after.version, self.updated[*at].after.last_event_id)
            }
            State::Known(known, _) => (known.version, known.last_event_id),
        };
        let Update { event_id, occurred_at, changes, expected_version } = update;
        match UpdateEffect::of(event_id, expected_version, version, last_event_id) {
            UpdateEffect::AlreadyTaken => {
                self.tally.duplicate_update += 1;
                return;
            }
            UpdateEffect::TooLate => {
                self.tally.precondition_failed += 1;
                self.precondition_failures.push(PreconditionFailure { event_id, occurred_at });
                return;
            }
            UpdateEffect::Takes => self.tally.updated += 1,
        }
        match state {
            State::Created(at) => {
                let row = &mut self.created[*at];
                row.lead.apply(changes, occurred_at);
                row.version += 1;
                row.last_event_id = event_id;
            }
            State::Updated(at) => {
                let row = &mut self.updated[*at];
                merge(&mut row.changes, changes);
                row.after = after(row.after, event_id, occurred_at);
            }
            State::Known(known, counted) => {
                let after = after(*known, event_id, occurred_at);
                let before = std::mem::take(counted);
                *state = State::Updated(self.updated.len());
                self.updated.push(Updated { key, before, changes, after, index });
            }
        }
    }
}

/// `updated_at` never goes back, as in [`Lead::apply`].
fn after(before: Known, event_id: Uuid, occurred_at: Timestamp) -> Known {
    Known {
        version: before.version + 1,
        last_event_id: event_id,
        updated_at: before.updated_at.max(occurred_at),
    }
}

/// Puts `later` over `earlier`, so that applying the result is applying one after the other.
fn merge<'a>(earlier: &mut Changes<'a>, later: Changes<'a>) {
    fn over<T>(earlier: &mut Change<T>, later: Change<T>) {
        if !later.is_keep() {
            *earlier = later;
        }
    }
    let Changes {
        visitor_id,
        code,
        source,
        properties,
        location,
        identity_id,
        session_id,
        summary,
        company_id,
    } = later;
    over(&mut earlier.visitor_id, visitor_id);
    over(&mut earlier.code, code);
    over(&mut earlier.source, source);
    over(&mut earlier.properties, properties);
    over(&mut earlier.location, location);
    over(&mut earlier.identity_id, identity_id);
    over(&mut earlier.session_id, session_id);
    over(&mut earlier.summary, summary);
    over(&mut earlier.company_id, company_id);
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: Uuid = Uuid::from_u128(1);
    const LEAD: Uuid = Uuid::from_u128(2);

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_unix_millis(millis).unwrap()
    }

    fn created(event: u128) -> Event<'static> {
        let lead = Lead {
            id: LEAD,
            visitor_id: None,
            workspace_id: WORKSPACE,
            code: None,
            source: None,
            created_at: at(10),
            updated_at: at(10),
            properties: None,
            location: None,
            identity_id: None,
            session_id: None,
            summary: None,
            company_id: None,
        };
        event_of(event, WORKSPACE, 10, Payload::LeadCreated { lead })
    }

    fn updated(
        event: u128,
        workspace_id: Uuid,
        millis: i64,
        expected: Option<u64>,
    ) -> Event<'static> {
        let changes = Changes { code: Change::Set("x".into()), ..Changes::default() };
        let payload = Payload::LeadUpdated { changes, expected_version: expected };
        event_of(event, workspace_id, millis, payload)
    }

    fn event_of(event: u128, workspace_id: Uuid, millis: i64, payload: Payload<'_>) -> Event<'_> {
        Event {
            event_id: Uuid::from_u128(event),
            occurred_at: at(millis),
            workspace_id,
            lead_id: LEAD,
            payload,
        }
    }

    fn run(events: Vec<Event<'_>>, known: Option<Known>) -> Folded<'_> {
        let key = Key { workspace_id: WORKSPACE, id: LEAD };
        fold(events.into_iter().enumerate(), known.map(|known| (key, (known, Counted::default()))))
    }

    fn known() -> Known {
        Known { version: 3, last_event_id: Uuid::from_u128(9), updated_at: at(0) }
    }

    #[test]
    fn the_first_creation_stands() {
        let folded = run(vec![created(1), created(2)], None);
        assert_eq!(folded.created.len(), 1);
        assert_eq!((folded.created[0].version, folded.created[0].last_event_id.as_u128()), (1, 1));
        assert_eq!(folded.tally, Tally { created: 1, duplicate_creation: 1, ..Tally::default() });
        assert!(run(vec![created(1)], Some(known())).created.is_empty());
    }

    #[test]
    fn an_update_counts_and_time_never_goes_back() {
        let folded = run(vec![created(1), updated(2, WORKSPACE, 5, Some(1))], None);
        let row = &folded.created[0];
        assert_eq!((row.version, row.last_event_id.as_u128(), row.lead.updated_at), (2, 2, at(10)));
        let folded = run(
            vec![updated(1, WORKSPACE, 7, None), updated(2, WORKSPACE, 6, Some(4))],
            Some(known()),
        );
        assert_eq!(folded.updated.len(), 1);
        let after = folded.updated[0].after;
        assert_eq!((after.version, after.last_event_id.as_u128(), after.updated_at), (5, 2, at(7)));
    }

    #[test]
    fn an_update_has_no_effect_twice_or_too_late() {
        let folded = run(
            vec![
                updated(9, WORKSPACE, 7, None),
                updated(4, WORKSPACE, 7, Some(2)),
                updated(5, WORKSPACE, 7, Some(3)),
                updated(5, WORKSPACE, 7, Some(3)),
            ],
            Some(known()),
        );
        let expected =
            Tally { duplicate_update: 2, precondition_failed: 1, updated: 1, ..Tally::default() };
        assert_eq!(folded.tally, expected);
        assert_eq!(folded.precondition_failures[0].event_id.as_u128(), 4);
    }

    #[test]
    fn an_update_of_a_lead_that_is_not_there_is_set_aside() {
        let other = Uuid::from_u128(77);
        let folded =
            run(vec![updated(1, WORKSPACE, 1, None), created(2), updated(3, other, 1, None)], None);
        let rejected: Vec<_> =
            folded.rejected.iter().map(|(index, why)| (*index, why.reason)).collect();
        assert_eq!(rejected, [(0, Reason::UnknownLead), (2, Reason::UnknownLead)]);
        assert_eq!(folded.created[0].version, 1);
    }

    #[test]
    fn merged_changes_are_the_same_as_one_after_the_other() {
        let mut earlier =
            Changes { code: Change::Set("a".into()), source: Change::Clear, ..Changes::default() };
        let later = Changes { code: Change::Clear, ..Changes::default() };
        merge(&mut earlier, later);
        assert_eq!((earlier.code, earlier.source), (Change::Clear, Change::Clear));
        assert!(earlier.summary.is_keep());
    }
}
