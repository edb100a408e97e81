//! How a batch moves the counts behind the totals of lists.

use std::collections::HashMap;

use leads_shared::{Change, Text};
use uuid::Uuid;

use super::fold::Folded;

/// What leads are counted by, as it stands in `lead_counts_g<N>.field`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// By workspace alone; the value is empty.
    All,
    /// By code.
    Code,
    /// By source.
    Source,
}

impl Field {
    /// The name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Code => "code",
            Self::Source => "source",
        }
    }
}

/// The key of a count. Two partitions never share one: their writers never wait for each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct By<'a> {
    /// The workspace.
    pub workspace_id: Uuid,
    /// What is counted by.
    pub field: Field,
    /// The field's value.
    pub value: &'a str,
    /// The partition of the leads' events.
    pub partition: i32,
}

/// By how much each count changes, sorted by key, each key once and none by 0. `partition` tells that
/// of an event by its index; leads of events that have none are not counted.
pub fn counts<'a>(
    folded: &'a Folded<'_>,
    partition: impl Fn(usize) -> Option<i32>,
) -> Vec<(By<'a>, i64)> {
    let mut counts: HashMap<By<'a>, i64> = HashMap::new();
    for row in &folded.created {
        let Some(partition) = partition(row.index) else { continue };
        let workspace_id = row.lead.workspace_id;
        let mut add = |field, value| {
            *counts.entry(By { workspace_id, field, value, partition }).or_default() += 1;
        };
        add(Field::All, "");
        if let Some(code) = &row.lead.code {
            add(Field::Code, code.as_str());
        }
        if let Some(source) = &row.lead.source {
            add(Field::Source, source.as_str());
        }
    }
    for row in &folded.updated {
        let Some(partition) = partition(row.index) else { continue };
        let workspace_id = row.key.workspace_id;
        let fields = [
            (Field::Code, &row.before.code, &row.changes.code),
            (Field::Source, &row.before.source, &row.changes.source),
        ];
        for (field, before, change) in fields {
            let after = match change {
                Change::Keep => continue,
                Change::Clear => None,
                Change::Set(value) => Some(value),
            };
            let mut add = |value: &'a str, leads| {
                *counts.entry(By { workspace_id, field, value, partition }).or_default() += leads;
            };
            if let Some(value) = before {
                add(value.as_str(), -1);
            }
            if let Some(value) = after.map(Text::as_str) {
                add(value, 1);
            }
        }
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, leads)| *leads != 0).collect();
    counts.sort_unstable();
    counts
}

#[cfg(test)]
mod tests {
    use leads_shared::{Changes, Lead, Timestamp};

    use super::*;
    use crate::projection::{Counted, Created, Key, Known, Updated};

    const WORKSPACE: Uuid = Uuid::from_u128(1);

    fn created(code: Option<&'static str>, index: usize) -> Created<'static> {
        let at = Timestamp::from_unix_millis(10).unwrap();
        let lead = Lead {
            id: Uuid::from_u128(index as u128),
            visitor_id: None,
            workspace_id: WORKSPACE,
            code: code.map(Into::into),
            source: Some("web".into()),
            created_at: at,
            updated_at: at,
            properties: None,
            location: None,
            identity_id: None,
            session_id: None,
            summary: None,
            company_id: None,
        };
        Created { lead, version: 1, last_event_id: Uuid::from_u128(7), index }
    }

    fn updated(before: Option<&'static str>, code: Change<Text<'static>>) -> Updated<'static> {
        Updated {
            key: Key { workspace_id: WORKSPACE, id: Uuid::from_u128(9) },
            before: Counted { code: before.map(Into::into), source: Some("web".into()) },
            changes: Changes { code, ..Changes::default() },
            after: Known {
                version: 2,
                last_event_id: Uuid::from_u128(8),
                updated_at: Timestamp::from_unix_millis(10).unwrap(),
            },
            index: 0,
        }
    }

    fn of(folded: &Folded<'_>) -> Vec<(&'static str, String, i32, i64)> {
        let counts = counts(folded, |index| i32::try_from(index % 2).ok());
        let flat = |(by, leads): (By<'_>, i64)| {
            (by.field.name(), by.value.to_owned(), by.partition, leads)
        };
        counts.into_iter().map(flat).collect()
    }

    #[test]
    fn new_leads_are_counted_by_partition_and_value() {
        let created = vec![created(Some("a"), 0), created(None, 1), created(Some("a"), 2)];
        let expected = [
            ("all", "", 0, 2),
            ("all", "", 1, 1),
            ("code", "a", 0, 2),
            ("source", "web", 0, 2),
            ("source", "web", 1, 1),
        ];
        let expected: Vec<_> =
            expected.into_iter().map(|(field, v, p, n)| (field, v.to_owned(), p, n)).collect();
        assert_eq!(of(&Folded { created, ..Folded::default() }), expected);
    }

    #[test]
    fn an_update_moves_a_lead_from_one_value_to_the_other() {
        let of = |before, change| {
            of(&Folded { updated: vec![updated(before, change)], ..Folded::default() })
        };
        let a = ("code", "a".to_owned(), 0, -1);
        let b = ("code", "b".to_owned(), 0, 1);
        assert_eq!(of(Some("a"), Change::Set("b".into())), [a.clone(), b.clone()]);
        assert_eq!(of(Some("a"), Change::Clear), [a]);
        assert_eq!(of(None, Change::Set("b".into())), [b]);
        assert_eq!(of(Some("a"), Change::Set("a".into())), []);
        assert_eq!(of(Some("a"), Change::Keep), []);
    }
}
