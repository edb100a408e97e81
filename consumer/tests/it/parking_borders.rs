//! What is parked depends on the log alone: not on where batches end, nor on when the writer was lost.

use std::collections::{BTreeMap, BTreeSet};

use leads_consumer::config;
use leads_consumer::failure::Failure;
use leads_consumer::projection::decode::decode;
use leads_consumer::projection::parking::LeadAt;
use leads_consumer::record::{Chunk, Place};
use leads_consumer::store::{Advance, Batch, Positions, Store, Target};
use leads_shared::partition;
use leads_testkit::System;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use uuid::Uuid;

use crate::model::{Fact, Model, rows};

const PARTITIONS: u32 = 2;
const LEADS: usize = 4;

/// A record of one of a few leads.
#[derive(Debug, Clone, Copy)]
enum Step {
    Create(usize),
    Update(usize),
    /// No event.
    Bad(usize),
    /// An event that contradicts itself: it holds nothing.
    Inconsistent(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lead = || 0..LEADS;
    prop_oneof![
        3 => lead().prop_map(Step::Create),
        6 => lead().prop_map(Step::Update),
        1 => lead().prop_map(Step::Bad),
        1 => lead().prop_map(Step::Inconsistent),
    ]
}

/// The log, what of it is projected, and partition, offset and reason of the rest.
fn log(steps: &[Step]) -> (Chunk, Vec<Fact>, BTreeSet<(i32, i64, String)>) {
    let workspace = Uuid::new_v4();
    let leads: [Fact; LEADS] = std::array::from_fn(|_| Fact::created(workspace, json!({})));
    let (mut chunk, mut projected, mut dead) = (Chunk::default(), Vec::new(), BTreeSet::new());
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let mut first_bad: BTreeMap<usize, i64> = BTreeMap::new();
    let mut created = BTreeSet::new();
    for (n, step) in steps.iter().enumerate() {
        let (Step::Create(lead) | Step::Update(lead) | Step::Bad(lead) | Step::Inconsistent(lead)) =
            *step;
        let key = leads[lead].key();
        let partition = partition::of_key(key.as_bytes(), PARTITIONS);
        let offset = next.entry(partition).or_default();
        let fact = match step {
            Step::Create(_) => Fact { event_id: Uuid::new_v4(), ..leads[lead].clone() },
            Step::Update(_) => leads[lead].updated(json!({"code": n.to_string()}), None),
            Step::Bad(_) | Step::Inconsistent(_) => Fact::created(workspace, json!({})),
        };
        let value = if matches!(step, Step::Bad(_)) { b"{".to_vec() } else { fact.value() };
        let place = Place { partition, epoch: 0, offset: *offset, time_millis: None };
        chunk.push(place, Some(key.as_bytes()), Some(&value), []);
        let reason = match (step, first_bad.get(&lead)) {
            (Step::Bad(_), _) => Some("undecodable"),
            (Step::Inconsistent(_), _) => Some("inconsistent"),
            (_, Some(_)) => Some("parked"),
            (Step::Update(_), None) if !created.contains(&lead) => Some("unknown_lead"),
            (_, None) => None,
        };
        match reason {
            Some(reason) => drop(dead.insert((partition, *offset, reason.to_owned()))),
            None => projected.push(fact),
        }
        match step {
            Step::Bad(_) => drop(first_bad.entry(lead).or_insert(*offset)),
            Step::Create(_) if reason.is_none() => drop(created.insert(lead)),
            _ => {}
        }
        *offset += 1;
    }
    (chunk, projected, dead)
}

fn batch<'a>(
    log: &'a Chunk,
    range: std::ops::Range<usize>,
    positions: &Positions,
    held: &BTreeSet<LeadAt>,
) -> Batch<'a> {
    let from = |partition| {
        positions.partitions.iter().find(|it| it.partition == partition).unwrap().next_offset
    };
    let mut advances: BTreeMap<i32, Advance> = BTreeMap::new();
    let mut batch = Batch {
        generation: positions.generation,
        advances: vec![],
        records: vec![],
        events: vec![],
        rejected: vec![],
        held: vec![],
        traceparent: None,
    };
    for at in range {
        let (record, _) = log.get(at).unwrap();
        let partition = record.partition;
        let from = from(partition);
        let advance = Advance { partition, from, to: from, last_event_id: None };
        advances.entry(partition).or_insert(advance).to = record.offset + 1;
        let index = batch.records.len();
        match decode(&record, PARTITIONS) {
            Ok(event) => {
                batch.held.extend(held.get(&LeadAt { partition, lead_id: event.lead_id }));
                batch.events.push((index, event));
            }
            Err(why) => batch.rejected.push((index, why)),
        }
        batch.records.push(record);
    }
    batch.held.sort_unstable();
    batch.held.dedup();
    batch.advances = advances.into_values().collect();
    batch
}

#[test]
fn what_is_parked_depends_on_the_log_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let system = runtime.block_on(System::builder().without_topics().build());
    let db = runtime.block_on(system.db());
    let args = leads_consumer::cli::DatabaseArgs {
        database_url: system.database_url().to_owned(),
        database_root_cert: None,
    };
    let database = config::database(&args).unwrap();
    let case = (
        prop::collection::vec(step(), 1..40),
        prop::collection::vec(1..12_usize, 40),
        prop::collection::vec(prop::bool::weighted(0.3), 40),
    );
    let mut runner =
        TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let result = runner.run(&case, |(steps, borders, losses)| {
        let (log, projected, expected) = log(&steps);
        let topic = Uuid::new_v4().to_string();
        runtime.block_on(async {
            let mut store = Store::new(&database.config, &database.tls, &topic, Target::Live);
            let mut positions = store.positions(PARTITIONS, &[0, 1]).await.unwrap();
            let mut held = BTreeSet::new();
            let (mut start, mut turn) = (0, 0);
            while start < log.len() {
                let end = (start + borders[turn]).min(log.len());
                let mut applied = store.apply(batch(&log, start..end, &positions, &held)).await;
                if applied == Err(Failure::Again) {
                    applied = store.apply(batch(&log, start..end, &positions, &held)).await;
                }
                let applied = applied.unwrap();
                prop_assert!(applied.released.is_empty());
                held.extend(applied.held);
                positions = store.positions(PARTITIONS, &[0, 1]).await.unwrap();
                let there: BTreeSet<LeadAt> = positions.held.iter().copied().collect();
                prop_assert_eq!(&held, &there);
                if losses[turn] {
                    store = Store::new(&database.config, &database.tls, &topic, Target::Live);
                    held = there;
                }
                (start, turn) = (end, turn + 1);
            }
            let workspaces: Vec<Uuid> = projected.iter().map(|it| it.workspace_id).collect();
            prop_assert_eq!(rows(&db, &workspaces).await, Model::of(&projected).rows);
            let query = "SELECT partition, \"offset\", reason FROM dead_letters WHERE topic = $1";
            let found = db.query(query, &[&topic]).await.unwrap();
            let found: BTreeSet<(i32, i64, String)> =
                found.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
            prop_assert_eq!(found, expected);
            Ok(())
        })
    });
    result.unwrap_or_else(|error| panic!("{error}"));
}
