//! Rebuilding while everything goes on.

use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use leads_testkit::{AtCommit, DEADLINE, System, eventually};
use serde_json::{Value, json};

use crate::model::{Fact, Model, assert_rows, produce, projected, rows};

pub(crate) const LIVE: &str =
    "SELECT generation::bigint FROM projection_generation WHERE state = 'live'";

pub(crate) async fn some(system: &System, leads: usize) -> Vec<Fact> {
    let created: Vec<Fact> = (0..leads)
        .map(|i| {
            Fact::created(
                system.workspace(),
                json!({"code": format!("c{i}"), "properties": {"n": i}}),
            )
        })
        .collect();
    let updated: Vec<Fact> = created
        .iter()
        .step_by(3)
        .map(|lead| lead.updated(json!({"source": "s"}), Some(1)))
        .collect();
    let mut facts = Vec::new();
    for part in [created, updated] {
        let headers = [("ce_id", Some(b"x".as_slice()))];
        let sent = part.iter().map(|fact| async move {
            system.produce(Some(fact.key().as_bytes()), Some(&fact.value()), &headers).await
        });
        futures_util::future::join_all(sent).await;
        facts.extend(part);
    }
    facts
}

pub(crate) async fn rebuild(system: &System, args: &[&str]) -> Output {
    let args: Vec<&str> = ["rebuild"].iter().chain(args).chain(&["--yes"]).copied().collect();
    system.consumer_command(&args).await
}

pub(crate) fn succeeded(output: &Output) -> Vec<Value> {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn phase<'a>(lines: &'a [Value], name: &str) -> &'a Value {
    lines.iter().rfind(|line| line["phase"] == name).unwrap_or_else(|| panic!("{name}: {lines:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_the_new_generation_is_the_old_one_and_nobody_notices() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let mut facts = some(&system, 2_000).await;
    let done = AtomicBool::new(false);
    let load = async {
        let mut facts = Vec::new();
        while !done.load(Ordering::Relaxed) {
            facts.extend(some(&system, 30).await);
        }
        facts
    };
    let reads = async {
        let db = system.db().await;
        // As the API reads: prepared once, by the view's name.
        let count = db.prepare("SELECT count(*) FROM leads WHERE workspace_id = $1").await.unwrap();
        let mut last = 0;
        while !done.load(Ordering::Relaxed) {
            let now: i64 = db.query_one(&count, &[&system.workspace()]).await.unwrap().get(0);
            assert!(now >= last, "a reader went back from {last} leads to {now}");
            last = now;
        }
    };
    let work = async {
        let first = rebuild(&system, &[]).await;
        let second = rebuild(&system, &[]).await;
        done.store(true, Ordering::Relaxed);
        [first, second]
    };
    let (outputs, more, ()) = tokio::join!(work, load, reads);
    facts.extend(more);
    for output in &outputs {
        let lines = succeeded(output);
        let verified = phase(&lines, "verify");
        assert_eq!(verified["differences"], 0, "{verified}");
        assert!(verified["new_leads"].as_i64().unwrap() >= 2_000, "{verified}");
    }
    assert_eq!(system.number(LIVE).await, 3);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    assert_eq!(consumer.exit_status(), None, "the live projection went on");
    let indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = 'leads_g3'";
    assert_eq!(system.number(indexes).await, 5);
    assert_eq!(system.number("SELECT count(*) FROM projection_generation").await, 2);
}

/// A live writer that stands still in a COPY holds its offsets beyond every time-out.
#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_stands_still_does_not_hold_up_the_swap() {
    let system = System::builder().partitions(1).build().await;
    let proxy = system.proxy().await;
    let consumer = system.start_consumer_with(&[("DATABASE_URL", proxy.url())]).await;
    let mut facts = some(&system, 30).await;
    projected(&system, facts.len()).await;
    proxy.freeze_in_copy();
    facts.extend(some(&system, 30).await);
    eventually(DEADLINE, "it stands still", async || proxy.met() == 1).await;
    let lines = succeeded(&rebuild(&system, &[]).await);
    assert_eq!(phase(&lines, "swapped")["live"], 2);
    assert_rows(&system, &facts).await;
    proxy.thaw();
    facts.extend(some(&system, 30).await);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    assert_eq!(consumer.exit_status(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_ten_points_it_goes_on_where_it_was() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let facts = some(&system, 1_500).await;
    projected(&system, facts.len()).await;
    let env = [("BATCH_MAX_RECORDS", "40")];
    let built = "SELECT COALESCE(sum(next_offset), 0)::bigint FROM projection_offset
        WHERE generation = 2";
    for part in 1..=10 {
        let process = system.spawn("leads-consumer", &["rebuild", "--yes"], &env);
        let wanted = part * i64::try_from(facts.len()).unwrap() / 12;
        eventually(DEADLINE, "some more is built", async || {
            let now = system.number(built).await;
            if now >= wanted || process.exit_status().is_some() { Ok(()) } else { Err(now) }
        })
        .await;
        process.kill().await;
    }
    let lines = succeeded(&rebuild(&system, &[]).await);
    assert_eq!(phase(&lines, "swapped")["live"], 2);
    assert_rows(&system, &facts).await;
    let more = some(&system, 50).await;
    let all: Vec<Fact> = facts.into_iter().chain(more).collect();
    projected(&system, all.len()).await;
    assert_rows(&system, &all).await;
    drop(consumer);
}

/// PostgreSQL ended the connections, and what takes new ones says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ends_it_while_it_waits_for_a_silent_server() {
    let system = System::new().await;
    let facts = some(&system, 500).await;
    let proxy = system.proxy().await;
    let env = [("BATCH_MAX_RECORDS", "1"), ("DATABASE_URL", proxy.url())];
    let process = system.spawn("leads-consumer", &["rebuild", "--yes"], &env);
    let building = "SELECT count(*) FROM projection_generation WHERE builder IS NOT NULL";
    eventually(DEADLINE, "it builds", async || system.number(building).await == 1).await;
    process.pause();
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND application_name LIKE 'leads-consumer%'";
    let left = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND application_name LIKE 'leads-consumer%'";
    assert!(system.number(end).await > 0);
    eventually(DEADLINE, "its sessions end", async || system.number(left).await == 0).await;
    proxy.freeze();
    process.resume();
    process.wait_for_log(|line| line.str("phase") == Some("waiting")).await;
    assert_eq!(process.terminate().await.code(), Some(1), "interrupted");
    succeeded(&rebuild(&system, &[]).await);
    assert_rows(&system, &facts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_old_generation_to_the_end_of_the_log() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let mut facts = some(&system, 100).await;
    let none = rebuild(&system, &["rollback"]).await;
    assert_eq!(none.status.code(), Some(1), "{}", text(&none.stderr));
    assert!(text(&none.stderr).contains("no previous generation"), "{}", text(&none.stderr));

    let built = rebuild(&system, &[]).await;
    succeeded(&built);
    let plan = text(&built.stderr);
    assert!(plan.contains("besides what is there; its disk has "), "{plan}");
    facts.extend(some(&system, 100).await);
    projected(&system, facts.len()).await;
    succeeded(&rebuild(&system, &["rollback"]).await);
    assert_eq!(system.number(LIVE).await, 1);
    facts.extend(some(&system, 100).await);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;

    let discarded = rebuild(&system, &["discard", "--previous"]).await;
    assert_eq!(text(&discarded.stdout), "generation 2 is dropped\n", "{discarded:?}");
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename LIKE 'lead%\\_g%'";
    assert_eq!(system.number(tables).await, 2);
    assert_eq!(consumer.exit_status(), None);
}

/// Whoever has had nothing to write since the swap still knows the old generation.
#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_is_open_for_a_rollback_is_written_by_nobody_else() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    let mut facts = some(&system, 30).await;
    projected(&system, facts.len()).await;
    succeeded(&rebuild(&system, &[]).await);
    // As a rollback that was broken off leaves it.
    let open = "UPDATE projection_offset SET sealed = false WHERE generation = 1";
    system.db().await.execute(open, &[]).await.unwrap();
    facts.extend(some(&system, 30).await);
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts).await;
    let strays = "SELECT (SELECT count(*) FROM leads_g2) - (SELECT count(*) FROM leads_g1)";
    assert_eq!(system.number(strays).await, 30, "all of them are in the live one");
    assert_eq!(consumer.exit_status(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_whose_answer_was_lost_is_known_to_have_happened() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let facts = some(&system, 50).await;
    projected(&system, facts.len()).await;
    succeeded(&rebuild(&system, &[]).await);
    let proxy = system.proxy().await;
    let rollback = async || {
        let env = [("DATABASE_URL", proxy.url())];
        system.run("leads-consumer", &["rebuild", "rollback", "--yes"], &env).await
    };
    // Nothing is left to be projected: the swap's is the only COMMIT.
    proxy.at_commit(AtCommit::AnswerLost);
    let lines = succeeded(&rollback().await);
    assert_eq!((proxy.met(), system.number(LIVE).await), (1, 1));
    assert_eq!(phase(&lines, "swapped")["live"], 1);

    proxy.at_commit(AtCommit::Lost);
    let lost = rollback().await;
    assert_eq!((lost.status.code(), proxy.met()), (Some(1), 2), "{}", text(&lost.stderr));
    assert_eq!(system.number(LIVE).await, 1, "it never arrived");
    assert!(text(&lost.stderr).contains("from generation 1 to generation 2"));
    succeeded(&rollback().await);
    assert_eq!(system.number(LIVE).await, 2);
    assert_rows(&system, &facts).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn going_back_and_making_room_need_no_whole_log() {
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer().await;
    let facts = some(&system, 50).await;
    projected(&system, facts.len()).await;
    succeeded(&rebuild(&system, &[]).await);
    system.truncate_events_topic(10).await;
    let again = rebuild(&system, &[]).await;
    assert!(text(&again.stderr).contains("its history is gone"), "{}", text(&again.stderr));
    succeeded(&rebuild(&system, &["rollback"]).await);
    assert_eq!(system.number(LIVE).await, 1);
    assert_rows(&system, &facts).await;
    let nowhere = [("KAFKA_BROKERS", "127.0.0.1:1")];
    let discard = ["rebuild", "discard", "--previous", "--yes"];
    let discarded = system.run("leads-consumer", &discard, &nowhere).await;
    assert_eq!(text(&discarded.stdout), "generation 2 is dropped\n", "{discarded:?}");
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_rebuild_is_refused_by_name() {
    let system = System::new().await;
    let facts = some(&system, 500).await;
    let slow = [("BATCH_MAX_RECORDS", "1")];
    let first = system.spawn("leads-consumer", &["rebuild", "--yes"], &slow);
    let building = "SELECT count(*) FROM projection_generation WHERE builder IS NOT NULL";
    eventually(DEADLINE, "the first one builds", async || system.number(building).await == 1).await;
    first.pause();
    let second = rebuild(&system, &[]).await;
    assert_eq!(second.status.code(), Some(1));
    let why = text(&second.stderr);
    let by_name = format!(":{},", first.pid());
    assert!(why.contains("a rebuild is running") && why.contains(&by_name), "{why}");
    first.resume();
    assert_eq!(first.terminate().await.code(), Some(1), "interrupted");
    // The live one has projected nothing yet: that is no difference.
    succeeded(&rebuild(&system, &[]).await);
    assert_rows(&system, &facts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_that_differs_is_not_swapped_in_unless_it_is_asked_for() {
    let system = System::new().await;
    let consumer = system.start_consumer().await;
    let facts = some(&system, 60).await;
    projected(&system, facts.len()).await;
    let db = system.db().await;
    let wrong = facts[7].lead_id;
    db.execute("UPDATE leads_g1 SET code = 'wrong' WHERE id = $1", &[&wrong]).await.unwrap();
    db.execute("DELETE FROM leads_g1 WHERE id = $1", &[&facts[8].lead_id]).await.unwrap();

    let output = rebuild(&system, &[]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("--accept-differences"), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let verified = phase(&lines, "verify");
    assert_eq!(verified["differences"], 2, "{verified}");
    let listed = verified["listed"].as_array().unwrap();
    let kind = |id: uuid::Uuid| {
        let found = listed.iter().find(|it| it["lead_id"] == id.to_string());
        found.map(|it| it["kind"].as_str().unwrap())
    };
    assert_eq!((kind(wrong), kind(facts[8].lead_id)), (Some("different"), Some("only_new")));
    assert_eq!(verified["miscounted"], 0, "{verified}");
    assert_eq!(system.number(LIVE).await, 1, "the live one stays");

    let one_more = "UPDATE lead_counts_g2 SET leads = leads + $1
        WHERE (workspace_id, field, value, partition) IN
            (SELECT workspace_id, field, value, partition FROM lead_counts_g2
             WHERE field = 'source' ORDER BY value, partition LIMIT 1)";
    assert_eq!(db.execute(one_more, &[&1_i64]).await.unwrap(), 1);
    let output = rebuild(&system, &[]).await;
    assert_eq!(output.status.code(), Some(1), "the lists' totals are compared, too");
    assert!(text(&output.stdout).contains(r#""miscounted":1,"#), "{}", text(&output.stdout));
    db.execute(one_more, &[&-1_i64]).await.unwrap();

    succeeded(&rebuild(&system, &["--accept-differences"]).await);
    assert_rows(&system, &facts).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_database_is_filled_and_serves() {
    let system = System::new().await;
    let mut facts = some(&system, 200).await;
    let spare = system.spare_database().await;
    succeeded(&rebuild(&system, &["--into-new-database", spare.url()]).await);
    let again = rebuild(&system, &["--into-new-database", spare.url()]).await;
    assert_eq!(again.status.code(), Some(1), "it is not empty any more");

    let consumer = system.start_consumer_with(&[("DATABASE_URL", spare.url())]).await;
    facts.extend(some(&system, 50).await);
    let db = spare.db().await;
    let expected = Model::of(&facts).rows;
    eventually(DEADLINE, "the new database has it all", async || {
        rows(&db, &[system.workspace()]).await == expected
    })
    .await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_begun_without_being_asked_for_or_without_history() {
    let system = System::builder().partitions(1).build().await;
    produce(&system, &[Fact::created(system.workspace(), json!({}))]).await;
    let unasked = system.consumer_command(&["rebuild"]).await;
    assert_eq!(unasked.status.code(), Some(2), "off a terminal it needs --yes");
    assert!(text(&unasked.stderr).contains("--yes"), "{}", text(&unasked.stderr));
    assert_eq!(system.number("SELECT count(*) FROM projection_generation").await, 1);

    system.truncate_events_topic(1).await;
    let truncated = rebuild(&system, &[]).await;
    assert_eq!(truncated.status.code(), Some(1));
    assert!(text(&truncated.stderr).contains("history is gone"), "{}", text(&truncated.stderr));
}
