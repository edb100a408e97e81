//! Consumers come and go under load.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leads_testkit::{Consumer, DEADLINE, LogLine, System, eventually};

use serde_json::json;

use crate::load::{Load, goes_on, heavy};
use crate::model::{Fact, assert_rows, produce, projected};

const PARTITIONS: u32 = 6;

async fn member(system: &System, instance: Option<&str>) -> Consumer {
    let instance = instance.map(|id| ("KAFKA_GROUP_INSTANCE_ID", id));
    let env: Vec<_> = instance.into_iter().chain([("BATCH_MAX_RECORDS", "50")]).collect();
    system.start_consumer_with(&env).await
}

/// Every partition that came to a consumer (`true`) or was taken from it, by its own word.
fn moves(consumer: &Consumer) -> Vec<(bool, i32)> {
    let mut moves = Vec::new();
    for line in consumer.logs() {
        let assigned = match line.message() {
            "partitions assigned" => true,
            "partitions revoked" => false,
            _ => continue,
        };
        let list: Vec<i32> = serde_json::from_str(line.str("partitions").unwrap()).unwrap();
        moves.extend(list.into_iter().map(|partition| (assigned, partition)));
    }
    moves
}

fn held(consumer: &Consumer) -> BTreeSet<i32> {
    let mut held = BTreeSet::new();
    for (assigned, partition) in moves(consumer) {
        if assigned {
            held.insert(partition)
        } else {
            held.remove(&partition)
        };
    }
    held
}

/// Waits until they share all partitions evenly. None may lose on the way what it has in the end.
async fn shared_by(consumers: &[&Consumer], before: &[(BTreeSet<i32>, usize)]) {
    eventually(DEADLINE, "the partitions are shared evenly", async || {
        let held: Vec<_> = consumers.iter().map(|consumer| held(consumer)).collect();
        let all: BTreeSet<_> = held.iter().flatten().collect();
        let each = PARTITIONS as usize / consumers.len();
        let even = held.iter().all(|held| held.len() == each);
        if even && all.len() == PARTITIONS as usize { Ok(()) } else { Err(held) }
    })
    .await;
    for (consumer, (had, moved)) in consumers.iter().zip(before) {
        let kept: BTreeSet<i32> = had.intersection(&held(consumer)).copied().collect();
        let since = &moves(consumer)[*moved..];
        let touched: Vec<_> = since.iter().filter(|(_, it)| kept.contains(it)).collect();
        assert!(touched.is_empty(), "{touched:?} moved, though all the time at {had:?}");
        assert!(!kept.is_empty(), "nothing was kept of {had:?}");
    }
}

fn now(consumers: &[&Consumer]) -> Vec<(BTreeSet<i32>, usize)> {
    consumers.iter().map(|consumer| (held(consumer), moves(consumer).len())).collect()
}

/// From one to three and back.
async fn there_and_back(instances: [Option<&str>; 3]) {
    let _heavy = heavy().await;
    let system = System::builder().partitions(PARTITIONS).build().await;
    let mut load = Load::new(&system, 1);
    let done = AtomicBool::new(false);
    let scaling = async {
        let first = member(&system, instances[0]).await;
        shared_by(&[&first], &[]).await;
        let before = now(&[&first]);
        let second = member(&system, instances[1]).await;
        shared_by(&[&first, &second], &before).await;
        let before = now(&[&first, &second]);
        let third = member(&system, instances[2]).await;
        shared_by(&[&first, &second, &third], &before).await;
        goes_on(&system).await;
        let before = now(&[&first]);
        let ends = tokio::join!(second.terminate(), third.terminate());
        assert_eq!((ends.0.code(), ends.1.code()), (Some(0), Some(0)));
        shared_by(&[&first], &before).await;
        goes_on(&system).await;
        done.store(true, Ordering::Relaxed);
        first
    };
    let ((), first) = tokio::join!(load.run(&done), scaling);
    load.written().await.assert_projected(&system).await;
    assert_eq!(first.exit_status(), None);
}

/// librdkafka keeps a partition paused that was paused when it was taken away.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_that_left_while_they_were_paused_flow_when_they_are_back() {
    let system = System::builder().partitions(PARTITIONS).build().await;
    let env = [("LOG_LEVEL", "info,leads_consumer::source=debug")];
    let first = system.start_consumer_with(&env).await;
    first.wait_ready().await;
    let mut facts = Vec::new();
    let one_each = async |facts: &mut Vec<Fact>| {
        let more: Vec<_> = (0..30).map(|_| Fact::created(system.workspace(), json!({}))).collect();
        produce(&system, &more).await;
        facts.extend(more);
    };
    let mut db = system.db().await;
    let stop = db.transaction().await.unwrap();
    stop.batch_execute("LOCK TABLE projection_offset IN EXCLUSIVE MODE").await.unwrap();
    let paused = |line: &LogLine| {
        line.message().contains("paused or resumed")
            && line.field("pause").is_some_and(|pause| *pause == true)
    };
    // Nothing is taken from the poll thread any more: what it reads piles up, a chunk a time.
    eventually(DEADLINE, "both lanes' partitions are paused", async || {
        one_each(&mut facts).await;
        let lanes: BTreeSet<_> = first
            .logs()
            .iter()
            .filter(|line| paused(line))
            .filter_map(|line| line.field("lane")?.as_u64())
            .collect();
        lanes.len() == 2
    })
    .await;
    let second = member(&system, None).await;
    eventually(DEADLINE, "it has some of them", async || !held(&second).is_empty()).await;
    assert_eq!(second.terminate().await.code(), Some(0));
    eventually(DEADLINE, "they are back", async || held(&first).len() == PARTITIONS as usize).await;
    stop.rollback().await.unwrap();
    projected(&system, facts.len()).await;
    one_each(&mut facts).await;
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_three_and_back_with_dynamic_members() {
    there_and_back([None; 3]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn to_three_and_back_with_static_members() {
    there_and_back([Some("one"), Some("two"), Some("three")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_static_member_is_back_at_work_within_seconds() {
    let system = System::builder().partitions(PARTITIONS).build().await;
    let mut load = Load::new(&system, 1);
    let done = AtomicBool::new(false);
    let kill = async {
        let one = member(&system, Some("one")).await;
        let two = member(&system, Some("two")).await;
        shared_by(&[&one, &two], &[]).await;
        goes_on(&system).await;
        let (other, moved) = now(&[&two]).remove(0);
        one.kill().await;
        let killed = Instant::now();
        let one = member(&system, Some("one")).await;
        goes_on(&system).await;
        let away = killed.elapsed();
        println!("back at work after {away:?}");
        assert!(away < Duration::from_secs(10), "{away:?}");
        assert_eq!((held(&two), moves(&two).len()), (other, moved), "the other one's stay");
        done.store(true, Ordering::Relaxed);
        (one, two)
    };
    let ((), consumers) = tokio::join!(load.run(&done), kill);
    load.written().await.assert_projected(&system).await;
    drop(consumers);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_with_one_instance_id_one_halts_and_the_other_projects() {
    let system = System::new().await;
    let mut load = Load::new(&system, 1);
    let done = AtomicBool::new(false);
    let twins = async {
        let twins = [member(&system, Some("one")).await, member(&system, Some("one")).await];
        let ended = eventually(DEADLINE, "one of them halts", async || {
            twins.iter().position(|twin| twin.exit_status().is_some())
        })
        .await;
        assert_eq!(twins[ended].exit_status().unwrap().code(), Some(1));
        let halted = |line: &LogLine| line.message() == "the projection halts";
        let line = twins[ended].wait_for_log(halted).await;
        assert!(line.str("cure").unwrap().contains("same KAFKA_GROUP_INSTANCE_ID"), "{line:?}");
        goes_on(&system).await;
        done.store(true, Ordering::Relaxed);
        assert_eq!(twins[1 - ended].exit_status(), None);
        twins
    };
    let ((), twins) = tokio::join!(load.run(&done), twins);
    load.written().await.assert_projected(&system).await;
    drop(twins);
}
