//! What may be in flight is bounded; above, a request is refused at once and nothing is taken. A
//! key that floods is refused first.

use std::time::{Duration, Instant};

use leads_testkit::{Api, DEADLINE, Key, Method, System, eventually};
use tokio::sync::watch;

use crate::shared::{assert_error, run, unlimited};

#[test]
fn above_the_bound_it_is_503_and_nothing_is_taken() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let lead = format!(r#"{{"properties":{{"text":"{}"}}}}"#, "x".repeat(16 * 1024));
        for bound in [("MAX_IN_FLIGHT", "1"), ("MAX_IN_FLIGHT_BYTES", "320KiB")] {
            let before = system.records().await.len();
            let api = system.start_api_with(&[bound]).await;
            api.wait_ready().await;
            // All in the 2 ms that the producer waits for company, again until it is too much.
            let mut taken = 0;
            let refused = eventually(DEADLINE, "too much at once", async || {
                let post = async |_| api.post_lead(&key, &lead).await;
                let answers = futures_util::future::join_all((0..100).map(post)).await;
                let (good, refused): (Vec<_>, Vec<_>) =
                    answers.into_iter().partition(|answer| answer.status == 201);
                taken += good.len();
                (!refused.is_empty()).then_some(refused)
            })
            .await;
            for answer in &refused {
                assert_error(answer, 503, "overloaded");
            }
            // By the bound itself, or by the one key's share of it.
            let shed = api.metric("leads_shed_total", "").await;
            assert!(shed >= 1.0, "{shed}");
            assert_eq!(system.records().await.len() - before, taken, "{bound:?}");
            assert_eq!(api.post_lead(&key, "{}").await.status, 201, "room again");
            assert!(api.metric("leads_publish_in_flight", "").await < 1.0);
            assert!(api.metric("leads_publish_in_flight_bytes", "").await < 1.0);
        }
    });
}

/// Of 90 places one key has 80 at most.
const PLACES: (&str, &str) = ("MAX_IN_FLIGHT", "90");
/// A broker that answers no sooner: places are scarce, whatever the machine.
const SLOW: (&str, &str) = ("KAFKA_LINGER_MS", "100");
/// For a machine that is busy with other tests.
const NOISE: Duration = Duration::from_secs(2);
/// Leads of the key that doesn't flood.
const STEADY: usize = 30;
const MEBIBYTE: usize = 1024 * 1024;

/// What became of a flood's items.
#[derive(Default)]
struct Flood {
    taken: usize,
    shed: usize,
    /// The times of the batches that were taken in part.
    times: Vec<Duration>,
}

/// Batches of 100, one after the other, until told to stop.
async fn flood(api: &Api, key: &Key, stop: &watch::Receiver<bool>) -> Flood {
    let body = format!("[{}]", vec!["{}"; 100].join(","));
    let mut flood = Flood::default();
    while !*stop.borrow() {
        let asked = Instant::now();
        let answer =
            api.send(api.json(Method::POST, "/api/v1/leads/batch", key, &body)).await.json();
        let mut taken = 0;
        for item in answer["data"].as_array().expect("data") {
            if item["status"] == 201 {
                taken += 1;
                continue;
            }
            assert_eq!(item["error"]["error"], "overloaded", "{item}");
            let message = item["error"]["message"].as_str().expect("a message");
            assert!(message.starts_with("this key holds its share"), "{message}");
            flood.shed += 1;
        }
        if taken > 0 {
            flood.times.push(asked.elapsed());
        }
        flood.taken += taken;
    }
    flood
}

/// Leads one after the other, each of them taken. The median of their times: on a busy machine the
/// slowest says nothing, and is bounded by `PUBLISH_TIMEOUT` all the same.
async fn steady(api: &Api, key: &Key) -> Duration {
    let mut times = Vec::new();
    for _ in 0..STEADY {
        let asked = Instant::now();
        let answer = api.post_lead(key, "{}").await;
        assert_eq!(answer.status, 201, "the quiet key is never shed: {}", answer.text());
        times.push(asked.elapsed());
    }
    times.sort();
    times[STEADY / 2]
}

#[test]
fn a_flood_by_one_key_leaves_another_as_it_was() {
    run(async {
        let system = System::new().await;
        let (loud, quiet) =
            (system.create_key(unlimited()).await, system.create_key(unlimited()).await);
        let api = system.start_api_with(&[PLACES, SLOW]).await;
        api.wait_ready().await;
        let alone = steady(&api, &quiet).await;
        let mut taken = STEADY;
        let mut typical = Vec::new();
        let memory = api.peak_memory();
        // Ten times the share, and twice that.
        for clients in [8, 16] {
            let (stop, stopped) = watch::channel(false);
            let floods = (0..clients).map(|_| flood(&api, &loud, &stopped));
            let beside = async {
                let pressed = steady(&api, &quiet).await;
                stop.send_replace(true);
                pressed
            };
            let (floods, pressed) = tokio::join!(futures_util::future::join_all(floods), beside);
            assert!(pressed < alone * 3 + NOISE, "{pressed:?} beside {clients}, {alone:?} alone");
            let shed: usize = floods.iter().map(|flood| flood.shed).sum();
            let kept: usize = floods.iter().map(|flood| flood.taken).sum();
            assert!(shed > kept && kept > 80, "{shed} shed, {kept} taken: the flood has its share");
            let mut times: Vec<_> = floods.into_iter().flat_map(|flood| flood.times).collect();
            times.sort();
            typical.push(times[times.len() / 2]);
            taken += STEADY + kept;
        }
        assert!(typical[1] < typical[0] * 3 + NOISE, "what is taken is as fast: {typical:?}");
        println!("median: alone {alone:?}, the flood's {typical:?}");
        let shed = async |reason| api.metric("leads_shed_total", reason).await;
        assert!(shed(r#"reason="key_share""#).await > 0.0);
        assert!(shed(r#"reason="overloaded""#).await < 1.0, "the service was never full");
        let grown = api.peak_memory().zip(memory).map(|(after, before)| after - before);
        assert!(grown.is_none_or(|grown| grown < 64 * MEBIBYTE), "{grown:?} bytes more");
        assert_eq!(system.records().await.len(), taken, "taken is kept");
        eventually(DEADLINE, "all is given back", async || {
            api.metric("leads_publish_in_flight", "").await < 1.0
        })
        .await;
    });
}
