//! The open loop: its figures add up, and what it says was taken is in the log.

use leads_testkit::{DEADLINE, KeySpec, System, eventually};
use serde_json::Value;

const RATE: u64 = 100;

/// Runs `leads-bench open` for a second after half a second of warming up.
async fn open(system: &System, args: &[&str]) -> Value {
    let rate = RATE.to_string();
    let mut all = vec!["open", "--rate", &rate, "--seconds", "1", "--warm-up", "0.5", "--json"];
    all.extend(args);
    let output = system.run("leads-bench", &all, &[]).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("--json prints JSON")
}

fn count(run: &Value, name: &str) -> u64 {
    run[name].as_u64().unwrap_or_else(|| panic!("no {name} in {run}"))
}

fn assert_adds_up(run: &Value) {
    let refused = run["refused"].as_object().expect("refused");
    let refused: u64 = refused.values().filter_map(Value::as_u64).sum();
    let (offered, succeeded) = (count(run, "offered"), count(run, "succeeded"));
    assert_eq!(offered, succeeded + refused + count(run, "unsent"), "{run}");
    assert_eq!(count(&run["latency"], "count"), succeeded, "{run}");
    assert_eq!(count(&run["generator"]["behind"], "count"), succeeded + refused, "{run}");
    let micros = ["p50", "p90", "p99", "p999", "max"].map(|name| format!("{name}_micros"));
    let micros = micros.map(|name| count(&run["latency"], &name));
    assert!(micros[0] > 0 && micros.is_sorted(), "{run}");
    assert!(run["curve"].as_array().is_some_and(|curve| !curve.is_empty()), "{run}");
}

#[tokio::test]
async fn figures_add_up_and_agree_with_the_log() {
    let system = System::new().await;
    let spec = KeySpec { rate_limit: Some(0), ..KeySpec::default() };
    let key = system.create_key(spec).await;
    let api = system.start_api().await;
    let _consumer = system.start_consumer().await;
    api.wait_ready().await;
    // The key is followed, not asked for.
    eventually(DEADLINE, "the key is known", async || {
        api.get(&key, "/api/v1/leads").await.status == 200
    })
    .await;
    let url = format!("{}/api/v1/leads", api.url());
    let to = ["--url", &url, "--key", &key.secret];

    let listening = api.wait_for_log(|line| line.message() == "listening").await;
    let metrics = format!("http://{}/metrics", listening.str("metrics").expect("its address"));
    let single = open(&system, &[&to[..], &["--metrics", &metrics]].concat()).await;
    assert_adds_up(&single);
    let own = &single["own"]["/api/v1/leads"];
    // The looks at the figures come about when the measuring starts and ends.
    assert!((1..=RATE * 3 / 2).contains(&count(own, "count")), "{own}");
    assert!(own["mean_micros"].as_f64() > Some(0.0), "{own}");
    assert!(own["within_a_millisecond"].is_u64(), "{own}");
    assert_eq!(count(&single, "offered"), RATE, "a constant rate for a second");
    assert_eq!(count(&single, "acknowledged"), count(&single, "succeeded"));

    let args = [&to[..], &["--recipe", "mixed", "--arrivals", "poisson", "--seed", "3"]].concat();
    let mixed = open(&system, &args).await;
    assert_adds_up(&mixed);
    let kinds = mixed["kinds"].as_object().expect("kinds");
    let by_kind: u64 = kinds.values().map(|kind| count(kind, "count")).sum();
    assert_eq!(by_kind, count(&mixed, "succeeded"), "{mixed}");
    assert!(kinds.contains_key("post") && kinds.contains_key("batch"), "{mixed}");

    // What was sent to warm up is there as well.
    let leads = count(&single, "acknowledged") + count(&mixed, "acknowledged");
    let records = u64::try_from(system.records().await.len()).expect("few");
    assert!(records >= leads, "{leads} acknowledged, {records} in the log");
}

#[tokio::test]
async fn refusals_are_counted_by_status_and_a_wrong_rate_is_an_error() {
    let system = System::new().await;
    let api = system.start_api().await;
    api.wait_ready().await;
    let url = format!("{}/api/v1/leads", api.url());
    let run = open(&system, &["--url", &url, "--key", "lk_prod_nobody"]).await;
    assert_eq!((count(&run, "succeeded"), count(&run["refused"], "401")), (0, RATE), "{run}");
    assert_eq!(count(&run, "offered"), RATE);
    let output = system.run("leads-bench", &["open", "--key", "k", "--rate", "0"], &[]).await;
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}
