//! An independent model of the log and the read model: plain JSON and a map. It shares no code with
//! what it is compared to.

use std::collections::{BTreeMap, BTreeSet};

use leads_testkit::{Position, System, eventually, tokio_postgres};
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// The fields of a lead that an update can change, in JSON.
pub(crate) const FIELDS: [&str; 9] = [
    "visitor_id",
    "code",
    "source",
    "properties",
    "location",
    "identity_id",
    "session_id",
    "summary",
    "company_id",
];

#[derive(Debug, Clone)]
pub(crate) struct Fact {
    pub event_id: Uuid,
    pub at_millis: i64,
    pub workspace_id: Uuid,
    pub lead_id: Uuid,
    pub kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Created(Map<String, Value>),
    Updated { changes: Map<String, Value>, expected_version: Option<i64> },
}

impl Fact {
    pub(crate) fn created(workspace_id: Uuid, fields: Value) -> Self {
        Self {
            event_id: Uuid::new_v4(),
            at_millis: 1_800_000_000_000,
            workspace_id,
            lead_id: Uuid::now_v7(),
            kind: Kind::Created(object(fields)),
        }
    }

    pub(crate) fn updated(&self, changes: Value, expected_version: Option<i64>) -> Self {
        Self {
            event_id: Uuid::new_v4(),
            at_millis: self.at_millis + 1,
            kind: Kind::Updated { changes: object(changes), expected_version },
            ..self.clone()
        }
    }

    pub(crate) fn key(&self) -> String {
        self.lead_id.to_string()
    }

    pub(crate) fn value(&self) -> Vec<u8> {
        let time = rfc3339(self.at_millis);
        let mut envelope = json!({
            "event_id": self.event_id,
            "schema_version": 1,
            "occurred_at": time,
            "workspace_id": self.workspace_id,
            "lead_id": self.lead_id,
        });
        match &self.kind {
            Kind::Created(fields) => {
                let mut lead = json!({
                    "id": self.lead_id,
                    "workspace_id": self.workspace_id,
                    "created_at": time,
                    "updated_at": time,
                });
                for field in FIELDS {
                    lead[field] = fields.get(field).cloned().unwrap_or_default();
                }
                envelope["type"] = json!("LeadCreated");
                envelope["lead"] = lead;
            }
            Kind::Updated { changes, expected_version } => {
                envelope["type"] = json!("LeadUpdated");
                envelope["changes"] = Value::Object(changes.clone());
                envelope["expected_version"] = json!(expected_version);
            }
        }
        serde_json::to_vec(&envelope).unwrap()
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

fn rfc3339(millis: i64) -> String {
    chrono::DateTime::from_timestamp_millis(millis)
        .unwrap()
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    pub fields: Map<String, Value>,
    pub created_at: i64,
    pub updated_at: i64,
    pub version: i64,
    pub last_event_id: Uuid,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Model {
    pub rows: BTreeMap<(Uuid, Uuid), Row>,
    pub precondition_failures: Vec<Uuid>,
    pub unknown_leads: Vec<Uuid>,
}

impl Model {
    pub(crate) fn of<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Self {
        let mut model = Self::default();
        for fact in facts {
            model.apply(fact);
        }
        model.precondition_failures.sort();
        model.precondition_failures.dedup();
        model
    }

    fn apply(&mut self, fact: &Fact) {
        let key = (fact.workspace_id, fact.lead_id);
        match (&fact.kind, self.rows.get_mut(&key)) {
            (Kind::Created(_), Some(_)) => {}
            (Kind::Created(given), None) => {
                let fields = FIELDS
                    .map(|name| (name.to_owned(), given.get(name).cloned().unwrap_or_default()));
                let row = Row {
                    fields: Map::from_iter(fields),
                    created_at: fact.at_millis,
                    updated_at: fact.at_millis,
                    version: 1,
                    last_event_id: fact.event_id,
                };
                self.rows.insert(key, row);
            }
            (Kind::Updated { .. }, None) => self.unknown_leads.push(fact.event_id),
            (Kind::Updated { changes, expected_version }, Some(row)) => {
                if row.last_event_id == fact.event_id {
                    return;
                }
                if expected_version.is_some_and(|expected| expected != row.version) {
                    self.precondition_failures.push(fact.event_id);
                    return;
                }
                row.fields.extend(changes.clone());
                row.updated_at = row.updated_at.max(fact.at_millis);
                row.version += 1;
                row.last_event_id = fact.event_id;
            }
        }
    }
}

/// The read model of these workspaces, as the model has it.
pub(crate) async fn rows(
    db: &tokio_postgres::Client,
    workspaces: &[Uuid],
) -> BTreeMap<(Uuid, Uuid), Row> {
    let query = "
        SELECT l.workspace_id, l.id, l.version, l.last_event_id,
            round(extract(epoch FROM created_at) * 1000)::bigint,
            round(extract(epoch FROM updated_at) * 1000)::bigint,
            to_jsonb(l)::text
        FROM leads AS l WHERE l.workspace_id = ANY($1)";
    let rows = db.query(query, &[&workspaces]).await.unwrap();
    let row = |row: tokio_postgres::Row| {
        let all = object(serde_json::from_str(row.get(6)).unwrap());
        let fields = FIELDS.map(|name| (name.to_owned(), all[name].clone()));
        let found = Row {
            fields: Map::from_iter(fields),
            version: row.get(2),
            last_event_id: row.get(3),
            created_at: row.get(4),
            updated_at: row.get(5),
        };
        ((row.get(0), row.get(1)), found)
    };
    rows.into_iter().map(row).collect()
}

/// Produces facts one after the other's acknowledgement, so that their order is the log's.
pub(crate) async fn produce(system: &System, facts: &[Fact]) -> Vec<Position> {
    let mut positions = Vec::new();
    for fact in facts {
        let headers = [("ce_id", Some(b"x".as_slice()))];
        let key = fact.key();
        positions.push(system.produce(Some(key.as_bytes()), Some(&fact.value()), &headers).await);
    }
    positions
}

/// Waits until everything in the log is projected into the live generation.
pub(crate) async fn projected(system: &System, records: usize) {
    let wanted = i64::try_from(records).unwrap();
    eventually(leads_testkit::DEADLINE, "everything is projected", async || {
        let sum = "SELECT COALESCE(sum(next_offset), 0)::bigint FROM projection_offset
            JOIN projection_generation USING (generation) WHERE state = 'live'";
        let found = system.number(sum).await;
        if found == wanted { Ok(()) } else { Err(format!("{found} of {wanted}")) }
    })
    .await;
}

/// How many counts, by workspace, by code and by source, are not what the rows say.
pub(crate) const MISCOUNTED: &str = "
    SELECT count(*) FROM
        (SELECT workspace_id, field, value, sum(leads) AS n FROM
            (SELECT workspace_id, 'all' AS field, '' COLLATE \"C\" AS value, leads FROM lead_counts
             UNION ALL SELECT workspace_id, field, value, leads FROM lead_value_counts) AS all_counts
         GROUP BY 1, 2, 3 HAVING sum(leads) <> 0) AS counted
    FULL JOIN
        (SELECT workspace_id, field, value COLLATE \"C\" AS value, count(*) AS n FROM leads,
            LATERAL (VALUES ('all', ''), ('code', code), ('source', source)) AS by (field, value)
         WHERE value IS NOT NULL GROUP BY 1, 2, 3) AS there
    USING (workspace_id, field, value) WHERE counted.n IS DISTINCT FROM there.n";

/// Compares the read model of the facts' workspaces with the model, counts included.
pub(crate) async fn assert_rows(system: &System, facts: &[Fact]) {
    let db = system.db().await;
    let mut workspaces: Vec<Uuid> = facts.iter().map(|fact| fact.workspace_id).collect();
    workspaces.sort();
    workspaces.dedup();
    let expected = Model::of(facts);
    let found = rows(&db, &workspaces).await;
    let keys: BTreeSet<_> = found.keys().chain(expected.rows.keys()).collect();
    let differs = |key: &_| found.get(key) != expected.rows.get(key);
    let different: Vec<_> = keys.into_iter().filter(|key| differs(*key)).collect();
    if let Some(first) = different.first() {
        let (found, expected) = (found.get(first), expected.rows.get(first));
        panic!("{} leads differ; {first:?}: {found:#?}, not {expected:#?}", different.len());
    }
    assert_eq!(system.number(MISCOUNTED).await, 0, "counts that are wrong");
}
