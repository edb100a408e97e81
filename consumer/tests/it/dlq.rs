use std::process::Output;

use leads_testkit::{Position, System, eventually};
use serde_json::{Value, json};

use crate::model::{Fact, assert_rows, produce, projected};
use crate::parking::{dead_letters, produce_bad};

async fn dlq(system: &System, args: &[&str]) -> Output {
    let args: Vec<&str> = ["dlq"].iter().chain(args).copied().collect();
    system.consumer_command(&args).await
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json_lines(output: &Output) -> Vec<Value> {
    text(output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `dlq redrive` and gives its exit code and offset, outcome and reason of each record.
async fn redrive(system: &System, args: &[&str]) -> (i32, Vec<(i64, String, Value)>) {
    let args: Vec<&str> = ["redrive", "--json"].iter().chain(args).copied().collect();
    let output = dlq(system, &args).await;
    let line = |it: Value| {
        (
            it["offset"].as_i64().unwrap(),
            it["outcome"].as_str().unwrap().into(),
            it["reason"].clone(),
        )
    };
    let lines = json_lines(&output).into_iter().map(line).collect();
    (output.status.code().unwrap(), lines)
}

fn outcomes(lines: &[(i64, String, Value)]) -> Vec<&str> {
    lines.iter().map(|(_, outcome, _)| outcome.as_str()).collect()
}

/// PostgreSQL refuses leads of this code from now on.
async fn refuse(system: &System, code: &str) {
    let sql = format!("ALTER TABLE leads_g1 ADD CONSTRAINT no_{code} CHECK (code <> '{code}')");
    system.db().await.batch_execute(&sql).await.unwrap();
}

async fn accept(system: &System, code: &str) {
    let sql = format!("ALTER TABLE leads_g1 DROP CONSTRAINT no_{code}");
    system.db().await.batch_execute(&sql).await.unwrap();
}

/// All that a redrive could change.
async fn state(system: &System) -> Vec<String> {
    let query = "SELECT to_jsonb(d)::text FROM
             (SELECT partition, \"offset\", reason, error, holds_lead, history, redriven_at
              FROM dead_letters) AS d
         UNION ALL SELECT to_jsonb(l)::text FROM leads AS l
         UNION ALL SELECT to_jsonb(c)::text FROM lead_counts AS c ORDER BY 1";
    system.rows(query, &[]).await.iter().map(|row| row.get(0)).collect()
}

fn place(position: Position) -> String {
    format!("{}:{}", position.partition, position.offset)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_projects_the_record_and_what_is_parked_behind_it() {
    let system = System::builder().partitions(1).build().await;
    refuse(&system, "bad").await;
    let lead = Fact::created(system.workspace(), json!({"code": "good"}));
    let mut facts = vec![
        lead.clone(),
        lead.updated(json!({"code": "bad"}), Some(1)),
        lead.updated(json!({"source": "s", "summary": {"n": 1.50}}), Some(2)),
        lead.updated(json!({"source": "late"}), Some(2)),
        Fact::created(system.workspace(), json!({"code": "other"})),
    ];
    let bad = produce(&system, &facts).await[1];
    let consumer = system.start_consumer().await;
    projected(&system, 5).await;
    assert_rows(&system, &[lead.clone(), facts[4].clone()]).await;

    // A dry run changes nothing, whatever it says.
    let before = state(&system).await;
    let (code, lines) = redrive(&system, &[&place(bad)]).await;
    assert_eq!((code, outcomes(&lines)), (1, vec!["failed", "waits", "waits"]));
    assert_eq!(lines[0].2, "refused_by_postgres");
    accept(&system, "bad").await;
    let all = vec!["projected", "projected", "projected"];
    for which in [&["--all"][..], &["--lead", &lead.key()], &[&place(bad)]] {
        let (code, lines) = redrive(&system, which).await;
        assert_eq!((code, outcomes(&lines)), (0, all.clone()));
    }
    assert_eq!(state(&system).await, before);

    let (code, lines) = redrive(&system, &[&place(bad), "--yes"]).await;
    assert_eq!((code, outcomes(&lines)), (0, all));
    assert_rows(&system, &facts).await;
    assert_eq!(system.number("SELECT max(version) FROM leads").await, 3);
    assert_eq!(system.number("SELECT count(*) FROM precondition_failures").await, 1);
    // The lead is free again, and redriven once is redriven.
    facts.push(lead.updated(json!({"code": "after"}), Some(3)));
    produce(&system, &facts[5..]).await;
    projected(&system, 6).await;
    let output = dlq(&system, &["redrive", &place(bad), "--yes"]).await;
    assert!(output.status.success() && text(&output).contains("was redriven at"), "{output:?}");
    assert_eq!(redrive(&system, &["--all", "--yes"]).await, (0, vec![]));
    assert_rows(&system, &facts).await;
    assert_eq!(text(&dlq(&system, &["list"]).await), "no dead letters wait\n");
    let listed = json_lines(&dlq(&system, &["list", "--all", "--json"]).await);
    assert!(listed.len() == 3 && listed.iter().all(|it| it["redriven_at"].is_string()));
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_again_stays_with_its_history_and_other_leads_go_on() {
    let system = System::builder().partitions(1).build().await;
    refuse(&system, "bad").await;
    let broken = Fact::created(system.workspace(), json!({"code": "secret"}));
    let refused = Fact::created(system.workspace(), json!({"code": "bad"}));
    let update = refused.updated(json!({"source": "s"}), Some(1));
    let bad = produce_bad(&system, &broken).await;
    produce(&system, &[broken.clone(), refused.clone(), update.clone()]).await;
    let consumer = system.start_consumer().await;
    projected(&system, 4).await;
    accept(&system, "bad").await;

    for round in 1..=2 {
        let (code, lines) = redrive(&system, &["--all", "--yes"]).await;
        let (of_broken, of_refused): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|(offset, ..)| *offset <= 1);
        assert_eq!((code, outcomes(&of_broken)), (1, vec!["failed", "waits"]));
        let expected = if round == 1 { vec!["projected", "projected"] } else { vec![] };
        assert_eq!(outcomes(&of_refused), expected);
    }
    assert_rows(&system, &[refused, update]).await;
    let found = dead_letters(&system).await;
    assert_eq!((found[0].2.as_str(), found[1].2.as_str()), ("undecodable", "parked"));

    let listed = json_lines(&dlq(&system, &["list", "--json"]).await);
    assert_eq!(listed.len(), 2);
    assert_eq!(
        (&listed[0]["parked_behind"], &listed[0]["failed_redrives"]),
        (&json!(1), &json!(2))
    );
    let table = text(&dlq(&system, &["list"]).await);
    assert!(table.starts_with("RECORD  LEAD") && table.contains("0:0     "), "{table}");
    assert!(table.ends_with("2 waiting: 1 parked, 1 undecodable\n"), "{table}");
    let table = text(&dlq(&system, &["list", "--limit", "1", "--lead", &broken.key()]).await);
    assert!(table.ends_with("; the oldest 1 are shown, --limit shows more\n"), "{table}");
    let parked = text(&dlq(&system, &["list", "--reason", "parked", "--json"]).await);
    assert!(parked.lines().count() == 1 && parked.contains("waits behind 0:0"), "{parked}");

    let shown = &json_lines(&dlq(&system, &["show", &place(bad), "--json"]).await)[0];
    let history = shown["history"].as_array().unwrap();
    assert!(history.len() == 2 && history.iter().all(|it| it["reason"] == "undecodable"));
    assert!(history[0]["at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&shown["parked_behind"], &shown["value_base64"]),
        (&json!(["0:1"]), &json!("ew=="))
    );
    let shown = text(&dlq(&system, &["show", &place(bad)]).await);
    assert!(
        shown.contains("failed again at") && shown.contains("1 bytes that are no JSON"),
        "{shown}"
    );
    // The contents of a lead are shown here and nowhere else.
    let shown = text(&dlq(&system, &["show", "0:1"]).await);
    assert!(shown.contains("\"code\": \"secret\"") && shown.contains("header ce_id"), "{shown}");
    assert!(!table.contains("secret"));
    assert!(!consumer.logs().iter().any(|line| line.text.contains("secret")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_goes_as_far_as_the_next_record_that_fails() {
    let system = System::builder().partitions(1).build().await;
    refuse(&system, "bad1").await;
    refuse(&system, "bad2").await;
    let lead = Fact::created(system.workspace(), json!({}));
    let mut facts = vec![lead.clone(), lead.updated(json!({"code": "bad1"}), Some(1))];
    facts.extend((2..9).map(|n| lead.updated(json!({"source": format!("s{n}")}), Some(n))));
    facts.push(lead.updated(json!({"code": "bad2"}), Some(9)));
    facts.extend((10..14).map(|n| lead.updated(json!({"summary": {"n": n}}), Some(n))));
    produce(&system, &facts).await;
    let consumer = system.start_consumer().await;
    projected(&system, facts.len()).await;

    accept(&system, "bad1").await;
    let (code, lines) = redrive(&system, &["--lead", &lead.key(), "--yes"]).await;
    assert_eq!(code, 1);
    let found = outcomes(&lines);
    assert!(found[..8].iter().all(|it| *it == "projected"), "{found:?}");
    assert!(found[8] == "failed" && found[9..] == ["waits"; 4], "{found:?}");
    assert_rows(&system, &facts[..9]).await;
    let dead = dead_letters(&system).await;
    assert_eq!(dead[8].2, "refused_by_postgres");
    assert!(dead[9..].iter().all(|it| it.3 == "waits behind 0:9"), "{dead:?}");
    // It is still held.
    facts.push(lead.updated(json!({"source": "end"}), Some(14)));
    produce(&system, &facts[14..]).await;
    projected(&system, facts.len()).await;
    assert_rows(&system, &facts[..9]).await;
    accept(&system, "bad2").await;
    assert_eq!(redrive(&system, &["--lead", &lead.key(), "--yes"]).await.0, 0);
    assert_rows(&system, &facts).await;
    drop(consumer);
}

/// As docs/operations.md tells to do it.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_given_up_lets_its_lead_go_on() {
    let system = System::builder().partitions(1).build().await;
    let lead = Fact::created(system.workspace(), json!({"code": "good"}));
    let mut facts = vec![lead.clone(), lead.updated(json!({"source": "parked"}), Some(1))];
    produce(&system, &facts[..1]).await;
    let bad = produce_bad(&system, &lead).await;
    produce(&system, &facts[1..]).await;
    let consumer = system.start_consumer().await;
    projected(&system, 3).await;
    let given_up = "UPDATE dead_letters SET holds_lead = false WHERE \"offset\" = 1";
    system.db().await.execute(given_up, &[]).await.unwrap();
    // Until the redrive the parked ones hold it themselves.
    facts.push(lead.updated(json!({"source": "later"}), Some(2)));
    produce(&system, &facts[2..]).await;
    projected(&system, 4).await;
    let (code, lines) = redrive(&system, &[&place(bad), "--yes"]).await;
    assert_eq!((code, outcomes(&lines)), (1, vec!["failed", "projected", "projected"]));
    facts.push(lead.updated(json!({"source": "last"}), Some(3)));
    produce(&system, &facts[3..]).await;
    projected(&system, 5).await;
    assert_rows(&system, &facts).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_overtaken_is_not_put_in_another_place() {
    let system = System::builder().partitions(1).build().await;
    let lead = Fact::created(system.workspace(), json!({"code": "new"}));
    let early = lead.updated(json!({"code": "old"}), None);
    produce(&system, &[early, lead.clone()]).await;
    // A record without a key has no lead.
    let keyless = system.produce(None, Some(&lead.value()), &[]).await;
    let consumer = system.start_consumer().await;
    projected(&system, 3).await;
    let (code, lines) = redrive(&system, &["--all", "--yes"]).await;
    assert_eq!((code, outcomes(&lines)), (1, vec!["failed", "failed"]));
    assert_eq!((&lines[0].2, &lines[1].2), (&json!("unknown_lead"), &json!("inconsistent")));
    let (code, lines) = redrive(&system, &[&place(keyless), "--yes"]).await;
    assert_eq!((code, outcomes(&lines)), (1, vec!["failed"]));
    assert_rows(&system, &[lead]).await;
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_projection_of_the_partition_waits_for_a_redrive_and_then_goes_on() {
    let system = System::builder().partitions(1).build().await;
    refuse(&system, "bad").await;
    let lead = Fact::created(system.workspace(), json!({"code": "good"}));
    let mut facts = vec![
        lead.clone(),
        lead.updated(json!({"code": "bad"}), Some(1)),
        lead.updated(json!({"source": "parked"}), Some(2)),
    ];
    produce(&system, &facts).await;
    let consumer = system.start_consumer().await;
    projected(&system, 3).await;
    accept(&system, "bad").await;
    facts.push(lead.updated(json!({"source": "meanwhile"}), Some(3)));

    // The redrive is stopped right before its end: it can't note that the row is done.
    let mut db = system.db().await;
    let lock = db.transaction().await.unwrap();
    lock.execute("SELECT FROM dead_letters FOR UPDATE", &[]).await.unwrap();
    let redriving = redrive(&system, &["--all", "--yes"]);
    let meanwhile = async {
        waiting_for_locks(&system, 1).await;
        produce(&system, &facts[3..]).await;
        waiting_for_locks(&system, 2).await;
        lock.rollback().await.unwrap();
    };
    let ((code, lines), ()) = tokio::join!(redriving, meanwhile);
    assert_eq!((code, outcomes(&lines)), (0, vec!["projected", "projected"]));
    projected(&system, 4).await;
    assert_rows(&system, &facts).await;
    assert_eq!(dead_letters(&system).await.len(), 2, "what came meanwhile was not parked");
    drop(consumer);
}

async fn waiting_for_locks(system: &System, count: i64) {
    let query = "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually(leads_testkit::DEADLINE, "they wait for a lock", async || {
        let found = system.number(query).await;
        if found == count { Ok(()) } else { Err(found) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lead_that_is_posted_to_meanwhile_loses_nothing_and_keeps_its_order() {
    const ROUNDS: i64 = 6;
    let system = System::builder().partitions(1).build().await;
    let consumer = system.start_consumer_with(&[("BATCH_MAX_RECORDS", "5")]).await;
    let lead = Fact::created(system.workspace(), json!({"code": "good"}));
    let mut facts = vec![lead.clone()];
    produce(&system, &facts).await;
    for round in 0..ROUNDS {
        let bad = format!("bad{round}");
        projected(&system, facts.len()).await;
        refuse(&system, &bad).await;
        let version = |facts: &[Fact]| i64::try_from(facts.len()).unwrap();
        facts.push(lead.updated(json!({"code": bad}), Some(version(&facts))));
        produce(&system, &facts[facts.len() - 1..]).await;
        eventually(leads_testkit::DEADLINE, "it is set aside", async || {
            let waiting = "SELECT count(*) FROM dead_letters WHERE redriven_at IS NULL";
            system.number(waiting).await > 0
        })
        .await;
        accept(&system, &bad).await;
        // Each expects the version that it has if none before it was lost or overtaken.
        let first = version(&facts);
        let more: Vec<Fact> = (0..60)
            .map(|n| lead.updated(json!({"source": format!("{round}.{n}")}), Some(first + n)))
            .collect();
        let producing = produce(&system, &more);
        let redriving = async {
            for _ in 0..4 {
                assert_eq!(redrive(&system, &["--all", "--yes"]).await.0, 0);
            }
        };
        tokio::join!(producing, redriving);
        facts.extend(more);
        projected(&system, facts.len()).await;
        assert_eq!(redrive(&system, &["--all", "--yes"]).await.0, 0);
    }
    assert_rows(&system, &facts).await;
    let version = system.number("SELECT max(version) FROM leads").await;
    assert_eq!(usize::try_from(version).unwrap(), facts.len());
    let set_aside = dead_letters(&system).await.len();
    assert!(set_aside > 6 && set_aside < facts.len(), "some were parked, and some went on");
    drop(consumer);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_usage_is_told_from_what_is_not_there() {
    let system = System::builder().without_topics().build().await;
    for (args, code) in [
        (&["redrive"][..], 2),
        (&["redrive", "--all", "1:2"], 2),
        (&["redrive", "1-2"], 2),
        (&["list", "--reason", "bad luck"], 2),
        (&["show", "1:2"], 1),
        (&["redrive", "1:2", "--yes"], 1),
        (&["redrive", "--all"], 0),
        (&["list"], 0),
    ] {
        let output = dlq(&system, args).await;
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(code != 1 || stderr.contains("`leads-consumer dlq list --all`"), "{stderr}");
    }
}
