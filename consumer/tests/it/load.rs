//! Load on the log while something else happens, and what has to come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use leads_testkit::{DEADLINE, Position, Producer, System, eventually};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::model::{Fact, Model, assert_rows, projected};

/// The load's rate: a round each.
const ROUND: Duration = Duration::from_millis(100);
/// Leads that get half of the updates, several in one batch: done twice, they would count twice.
const HOT: usize = 20;
/// Rounds from one poison record to the next.
const POISON: usize = 20;

/// Tests that need much of the machine for long take one of these: two at a time, however many
/// threads there are.
pub(crate) async fn heavy() -> SemaphorePermit<'static> {
    static HEAVY: Semaphore = Semaphore::const_new(2);
    HEAVY.acquire().await.unwrap()
}

pub(crate) fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// Creates leads of several workspaces and updates them, each update after the acknowledgement of
/// what came before it.
pub(crate) struct Load<'a> {
    system: &'a System,
    producer: Producer,
    random: TestRng,
    workspaces: Vec<Uuid>,
    leads: Vec<(Fact, i64)>,
    facts: BTreeMap<Uuid, Fact>,
    poison: bool,
    poisoned: usize,
}

/// What is in the log after a [`Load`].
pub(crate) struct Written {
    pub facts: Vec<Fact>,
    pub poison: Vec<Position>,
}

impl<'a> Load<'a> {
    pub(crate) fn new(system: &'a System, seed: u64) -> Self {
        Self {
            system,
            producer: system.producer(),
            random: random(seed),
            workspaces: std::iter::repeat_with(Uuid::new_v4).take(4).collect(),
            leads: Vec::new(),
            facts: BTreeMap::new(),
            poison: false,
            poisoned: 0,
        }
    }

    /// With undecodable records in between, of leads that have no other events.
    pub(crate) fn with_poison(mut self) -> Self {
        self.poison = true;
        self
    }

    pub(crate) async fn run(&mut self, done: &AtomicBool) {
        let mut rounds = tokio::time::interval(ROUND);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut round = 0;
        while !done.load(Ordering::Relaxed) {
            rounds.tick().await;
            let mut facts = self.updates();
            facts.extend(self.creations());
            let mut records: Vec<_> = facts.iter().map(|it| (it.key(), it.value())).collect();
            self.facts.extend(facts.into_iter().map(|fact| (fact.event_id, fact)));
            round += 1;
            if self.poison && round % POISON == 0 {
                records.push((Uuid::now_v7().to_string(), b"{\"broken\":".to_vec()));
                self.poisoned += 1;
            }
            self.send(records).await;
        }
    }

    fn creations(&mut self) -> Vec<Fact> {
        let count = self.random.random_range(1..50);
        let facts: Vec<Fact> = (0..count)
            .map(|i| {
                let workspace = self.random.random_range(0..self.workspaces.len());
                let fields = json!({"code": format!("c{i}"), "properties": {"n": i}});
                let mut fact = Fact::created(self.workspaces[workspace], fields);
                fact.at_millis = chrono::Utc::now().timestamp_millis();
                fact
            })
            .collect();
        self.leads.extend(facts.iter().map(|fact| (fact.clone(), 1)));
        facts
    }

    /// Of leads that are acknowledged. Half of them expect no version, an eighth one that the lead
    /// hasn't got.
    fn updates(&mut self) -> Vec<Fact> {
        if self.leads.is_empty() {
            return Vec::new();
        }
        let count = self.random.random_range(1..50);
        let chosen: BTreeSet<usize> = (0..count)
            .map(|_| {
                let among = if self.random.random() { HOT } else { self.leads.len() };
                self.random.random_range(0..among.min(self.leads.len()))
            })
            .collect();
        chosen
            .into_iter()
            .map(|at| {
                let (lead, version) = &mut self.leads[at];
                let expected = match self.random.random_range(0..8) {
                    0 => Some(*version + 1),
                    1..=4 => None,
                    _ => Some(*version),
                };
                if expected.is_none_or(|expected| expected == *version) {
                    *version += 1;
                }
                lead.at_millis += 1;
                lead.updated(json!({"source": format!("s{version}")}), expected)
            })
            .collect()
    }

    /// Until all are acknowledged: one that was given up may be in the log twice.
    async fn send(&mut self, mut records: Vec<(String, Vec<u8>)>) {
        loop {
            let producer = &self.producer;
            let sent = records.iter().map(|(key, value)| producer.send(key.as_bytes(), value));
            let sent = join_all(sent).await;
            let left = records.into_iter().zip(sent).filter(|(_, sent)| sent.is_err());
            records = left.map(|(record, _)| record).collect();
            if records.is_empty() {
                return;
            }
            self.producer = self.system.producer();
        }
    }

    /// What stands in the log: everything that was acknowledged, at least.
    pub(crate) async fn written(self) -> Written {
        let mut written = Written { facts: Vec::new(), poison: Vec::new() };
        let mut missing: BTreeSet<&Uuid> = self.facts.keys().collect();
        for record in self.system.records().await {
            let json: Option<Value> = serde_json::from_slice(&record.value.unwrap()).ok();
            let Some(json) = json else {
                written.poison.push(record.position);
                continue;
            };
            let event_id: Uuid = json["event_id"].as_str().unwrap().parse().unwrap();
            missing.remove(&event_id);
            written.facts.push(self.facts[&event_id].clone());
        }
        assert!(missing.is_empty(), "acknowledged, and not in the log: {missing:?}");
        assert!(written.poison.len() >= self.poisoned);
        written
    }
}

impl Written {
    /// Waits until all of it is projected, and compares everything that the log says.
    pub(crate) async fn assert_projected(&self, system: &System) {
        projected(system, self.facts.len() + self.poison.len()).await;
        assert_rows(system, &self.facts).await;
        let failed = "SELECT event_id FROM precondition_failures ORDER BY 1";
        let failed = system.rows(failed, &[]).await;
        let failed: Vec<Uuid> = failed.iter().map(|row| row.get(0)).collect();
        assert_eq!(failed, Model::of(&self.facts).precondition_failures);

        let dead = "SELECT partition, \"offset\", reason FROM dead_letters
            JOIN projection_generation USING (generation) WHERE state = 'live' ORDER BY 1, 2";
        let dead = system.rows(dead, &[]).await;
        let dead: Vec<(i32, i64, String)> =
            dead.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
        let undecodable = |at: &Position| (at.partition, at.offset, "undecodable".to_owned());
        assert_eq!(dead, self.poison.iter().map(undecodable).collect::<Vec<_>>());
    }
}

/// How many records of the log are projected, in all partitions.
pub(crate) async fn committed(system: &System) -> i64 {
    let sum = "SELECT COALESCE(sum(next_offset), 0)::bigint FROM projection_offset";
    system.number(sum).await
}

/// The next offset of each partition.
async fn offsets(system: &System) -> BTreeMap<i32, i64> {
    let query = "SELECT partition, next_offset FROM projection_offset
        JOIN projection_generation USING (generation) WHERE state = 'live'";
    system.rows(query, &[]).await.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Waits until each partition is further than it is now: nothing is stuck.
pub(crate) async fn goes_on(system: &System) {
    let before = offsets(system).await;
    eventually(DEADLINE, "every partition goes on", async || {
        let now = offsets(system).await;
        let stuck: Vec<i32> =
            before.iter().filter(|(at, was)| now[*at] <= **was).map(|(at, _)| *at).collect();
        if stuck.is_empty() { Ok(()) } else { Err(stuck) }
    })
    .await;
}
