use std::collections::BTreeMap;

use leads_consumer::config;
use leads_consumer::failure::Failure;
use leads_consumer::projection::decode::decode;
use leads_consumer::record::{Chunk, Place};
use leads_consumer::store::{Advance, Batch, Store, Target};
use leads_shared::partition;
use leads_testkit::System;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::{FIELDS, Fact, Kind, MISCOUNTED, Model, rows};

const PARTITIONS: u32 = 3;

/// A step of a generated log; small numbers, so that events meet.
#[derive(Debug, Clone)]
enum Step {
    Create {
        workspace: u8,
        lead: u8,
        fields: Map<String, Value>,
        at: i64,
    },
    Update {
        workspace: u8,
        lead: u8,
        changes: Map<String, Value>,
        at: i64,
        expected: Option<i64>,
    },
    /// The event that many steps back once more.
    Again(usize),
}

fn field_value(name: &'static str) -> BoxedStrategy<Value> {
    let value = match name {
        "code" | "source" => "[a-z🎉]{1,5}".prop_map(Value::from).boxed(),
        "properties" | "location" | "summary" => {
            prop::collection::btree_map("[a-c]{0,1}", 0..9_i64, 0..3)
                .prop_map(|map| json!(map))
                .boxed()
        }
        _ => any::<u128>().prop_map(|id| json!(Uuid::from_u128(id))).boxed(),
    };
    prop_oneof![1 => Just(Value::Null), 3 => value].boxed()
}

fn fields() -> impl Strategy<Value = Map<String, Value>> {
    let one = prop::sample::select(FIELDS.to_vec())
        .prop_flat_map(|name| field_value(name).prop_map(move |value| (name.to_owned(), value)));
    prop::collection::vec(one, 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn step() -> impl Strategy<Value = Step> {
    let at = 1_800_000_000_000..1_800_000_000_100_i64;
    prop_oneof![
        3 => (0..2_u8, 0..6_u8, fields(), at.clone())
            .prop_map(|(workspace, lead, fields, at)| Step::Create { workspace, lead, fields, at }),
        5 => (0..2_u8, 0..6_u8, fields(), at, prop::option::of(0..5_i64)).prop_map(
            |(workspace, lead, changes, at, expected)| Step::Update {
                workspace, lead, changes, at, expected
            }
        ),
        1 => (1..4_usize).prop_map(Step::Again),
    ]
}

/// A log, where the batches end, and after which of them the writer is lost.
fn case() -> impl Strategy<Value = (Vec<Step>, Vec<usize>, Vec<bool>)> {
    (
        prop::collection::vec(step(), 1..60),
        prop::collection::vec(1..20_usize, 60),
        prop::collection::vec(prop::bool::weighted(0.2), 60),
    )
}

fn facts(steps: &[Step]) -> Vec<Fact> {
    let workspaces = [Uuid::new_v4(), Uuid::new_v4()];
    let leads: [Uuid; 6] = std::array::from_fn(|_| Uuid::now_v7());
    let mut facts: Vec<Fact> = Vec::new();
    for step in steps {
        let (workspace, lead, at_millis, kind) = match step.clone() {
            Step::Create { workspace, lead, fields, at } => {
                (workspace, lead, at, Kind::Created(fields))
            }
            Step::Update { workspace, lead, changes, at, expected } => {
                (workspace, lead, at, Kind::Updated { changes, expected_version: expected })
            }
            Step::Again(back) => {
                if let Some(fact) = facts.len().checked_sub(back).map(|at| facts[at].clone()) {
                    facts.push(fact);
                }
                continue;
            }
        };
        facts.push(Fact {
            event_id: Uuid::new_v4(),
            at_millis,
            workspace_id: workspaces[usize::from(workspace)],
            lead_id: leads[usize::from(lead)],
            kind,
        });
    }
    facts
}

/// The facts as records, each with its offset in its partition.
fn log(facts: &[Fact]) -> Chunk {
    let mut chunk = Chunk::default();
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    for fact in facts {
        let key = fact.key();
        let partition = partition::of_key(key.as_bytes(), PARTITIONS);
        let offset = next.entry(partition).or_default();
        let place = Place { partition, epoch: 0, offset: *offset, time_millis: None };
        chunk.push(place, Some(key.as_bytes()), Some(&fact.value()), []);
        *offset += 1;
    }
    chunk
}

fn batch<'a>(
    log: &'a Chunk,
    range: std::ops::Range<usize>,
    generation: i32,
    next: &BTreeMap<i32, i64>,
) -> Batch<'a> {
    let mut advances: BTreeMap<i32, Advance> = BTreeMap::new();
    let mut batch = Batch {
        generation,
        advances: vec![],
        records: vec![],
        events: vec![],
        rejected: vec![],
        held: vec![],
        traceparent: None,
    };
    for at in range {
        let (record, _) = log.get(at).unwrap();
        let from = next[&record.partition];
        if record.offset < from {
            continue;
        }
        let event = decode(&record, PARTITIONS).unwrap();
        let advance = Advance { partition: record.partition, from, to: from, last_event_id: None };
        let advance = advances.entry(record.partition).or_insert(advance);
        advance.to = record.offset + 1;
        advance.last_event_id = Some(event.event_id);
        batch.events.push((batch.records.len(), event));
        batch.records.push(record);
    }
    batch.advances = advances.into_values().collect();
    batch
}

async fn positions(store: &mut Store) -> (i32, BTreeMap<i32, i64>) {
    let all: Vec<i32> = (0..3).collect();
    let found = store.positions(PARTITIONS, &all).await.unwrap();
    let next = found.partitions.iter().map(|it| (it.partition, it.next_offset)).collect();
    (found.generation, next)
}

#[test]
fn the_same_log_gives_the_same_rows_whatever_the_batches() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let system = runtime.block_on(System::builder().without_topics().build());
    let db = runtime.block_on(system.db());
    let args = leads_consumer::cli::DatabaseArgs {
        database_url: system.database_url().to_owned(),
        database_root_cert: None,
    };
    let database = config::database(&args).unwrap();
    let mut runner =
        TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let result = runner.run(&case(), |(steps, borders, losses)| {
        let facts = facts(&steps);
        let log = log(&facts);
        let topic = Uuid::new_v4().to_string();
        runtime.block_on(async {
            let mut store = Store::new(&database.config, &database.tls, &topic, Target::Live);
            let (mut generation, mut next) = positions(&mut store).await;
            let (mut start, mut turn) = (0, 0);
            while start < log.len() {
                let end = (start + borders[turn % borders.len()]).min(log.len());
                let before = next.clone();
                let the_batch = batch(&log, start..end, generation, &next);
                if !the_batch.records.is_empty() {
                    let mut applied = store.apply(the_batch).await;
                    if applied == Err(Failure::Again) {
                        let once_more = batch(&log, start..end, generation, &before);
                        applied = store.apply(once_more).await;
                    }
                    prop_assert!(applied.is_ok(), "{applied:?}");
                    // The same once more is fenced, and has no effect.
                    let again = store.apply(batch(&log, start..end, generation, &before)).await;
                    prop_assert_eq!(again, Err(Failure::Fenced));
                }
                (generation, next) = positions(&mut store).await;
                start = end;
                if losses[turn % losses.len()] {
                    // A new writer that starts somewhat earlier in the log: what is projected is
                    // passed over.
                    store = Store::new(&database.config, &database.tls, &topic, Target::Live);
                    start = start.saturating_sub(7);
                    (generation, next) = positions(&mut store).await;
                    // Go on from the end all the same, or it never ends.
                    let rest = batch(&log, start..end, generation, &next);
                    prop_assert!(rest.records.is_empty());
                    start = end;
                }
                turn += 1;
            }
            let mut workspaces: Vec<Uuid> = facts.iter().map(|fact| fact.workspace_id).collect();
            workspaces.dedup();
            let model = Model::of(&facts);
            prop_assert_eq!(rows(&db, &workspaces).await, model.rows.clone());
            let query = "SELECT count(*) FROM dead_letters WHERE topic = $1";
            let dead: i64 = db.query_one(query, &[&topic]).await.unwrap().get(0);
            prop_assert_eq!(usize::try_from(dead).unwrap(), model.unknown_leads.len());
            let query =
                "SELECT event_id FROM precondition_failures WHERE event_id = ANY($1) ORDER BY 1";
            let ids: Vec<Uuid> = facts.iter().map(|fact| fact.event_id).collect();
            let failed = db.query(query, &[&ids]).await.unwrap();
            let failed: Vec<Uuid> = failed.iter().map(|row| row.get(0)).collect();
            prop_assert_eq!(failed, model.precondition_failures);
            let miscounted: i64 = db.query_one(MISCOUNTED, &[]).await.unwrap().get(0);
            prop_assert_eq!(miscounted, 0);
            Ok(())
        })
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
