//! Streams that are cut, by either side, and go on elsewhere: no gap, no event id twice.

use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use leads_testkit::{
    Api, DEADLINE, EventStream, Key, Server, Stack, StreamEvent, System, eventually,
};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::shared::{Own, known_key, run, unlimited};
use crate::streams::{assert_is_the_log, post, records_of};

/// The events up to the stream's last word, and why it ended.
async fn read_to_end(stream: &mut EventStream) -> (Vec<StreamEvent>, Option<String>) {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        if event.event == "stream_end" {
            let json = event.json();
            assert_eq!(json["position"], event.id.as_str(), "{json}");
            return (events, json["reason"].as_str().map(str::to_owned));
        }
        events.push(event);
    }
    (events, None)
}

/// So many large leads are more than a socket's buffers hold.
const LARGE: usize = 70;

/// A lead of about 200 KB.
fn large(n: usize) -> String {
    format!(r#"{{"code":"c{n}","properties":{{"a":"{}"}}}}"#, "x".repeat(200_000))
}

#[test]
fn a_slow_reader_is_cut_with_its_place_and_others_feel_nothing() {
    run(async {
        // Its end at the end of the log is what is tested, not that it takes nothing.
        let limits = [("STREAM_BUFFER", "64KiB"), ("STREAM_WRITE_TIMEOUT", "5m")];
        let own = Own::start(System::new().await, &limits).await;
        let mut slow = own.api.stream(&own.key, "", None).await;
        let mut quick = own.api.stream(&own.key, "", None).await;
        let mut all = Vec::new();
        // More than the kernel's buffers hold; nobody reads the slow one.
        for n in 0..LARGE {
            assert_eq!(own.api.post_lead(&own.key, &large(n)).await.status, 201);
            all.extend(quick.take(1).await);
        }
        let (mut events, reason) = read_to_end(&mut slow).await;
        assert_eq!(reason.as_deref(), Some("slow_reader"));
        assert!(events.len() < LARGE, "something was cut");
        let rest = LARGE - events.len();
        let mut resumed = own.api.stream(&own.key, "", Some(slow.last_id())).await;
        events.extend(resumed.take(rest).await);
        let log = records_of(&own.system, &own.key).await;
        assert_is_the_log(&events, &log);
        assert_is_the_log(&all, &log);
        let cut = own.api.metric("leads_streams_ended_total", r#"reason="slow_reader""#).await;
        assert!((cut - 1.0).abs() < 0.1);
    });
}

/// One that takes nothing at all, while it reads the past: neither its turn nor its connection is
/// kept for it.
#[test]
fn a_reader_that_takes_nothing_is_given_up() {
    run(async {
        let limits = [("STREAM_WRITE_TIMEOUT", "1s"), ("MAX_REPLAYS", "1")];
        let own = Own::start(System::new().await, &limits).await;
        for n in 0..LARGE {
            assert_eq!(own.api.post_lead(&own.key, &large(n)).await.status, 201);
        }
        let mut dead = own.api.stream(&own.key, "from=beginning", None).await;
        let mut other = own.api.stream(&own.key, "from=beginning", None).await;
        let events = other.take(LARGE).await;
        assert_is_the_log(&events, &records_of(&own.system, &own.key).await);
        own.api
            .wait_for_log(|line| {
                matches!(line.str("end"), Some("stalled" | "client_gone"))
                    && line.field("events").is_some_and(|events| *events != LARGE)
            })
            .await;
        // What was on its way is still there to read, and then the connection is over.
        let (before, _) = read_to_end(&mut dead).await;
        assert!(before.len() < LARGE);
        let mut resumed = own.api.stream(&own.key, "", Some(dead.last_id())).await;
        let mut all = before;
        all.extend(resumed.take(LARGE - all.len()).await);
        assert_is_the_log(&all, &records_of(&own.system, &own.key).await);
    });
}

#[test]
fn a_stream_ends_with_its_key() {
    run(async {
        let own = Own::start(System::new().await, &[]).await;
        let key = known_key(&own.system, &own.api, unlimited()).await;
        let mut mine = own.api.stream(&key, "", None).await;
        let mut other = own.api.stream(&own.key, "", None).await;
        assert!(own.system.keys(&["revoke", &key.id]).await.status.success());
        assert_eq!(read_to_end(&mut mine).await.1.as_deref(), Some("key_revoked"));
        let again = own.api.try_stream(&key, "", Some(mine.last_id())).await;
        assert!(again.unwrap_err().starts_with("401"));
        post(&own.api, &own.key, 1).await;
        other.take(1).await;
    });
}

#[test]
fn at_shutdown_streams_end_at_once_with_their_place() {
    run(async {
        let own = Own::start(System::new().await, &[("SHUTDOWN_GRACE", "200ms")]).await;
        let other = own.system.start_api().await;
        other.wait_ready().await;
        post(&own.api, &own.key, 3).await;
        let mut behind = own.api.stream(&own.key, "from=beginning", None).await;
        let mut live = own.api.stream(&own.key, "", None).await;
        let mut events = behind.take(2).await;
        own.api.signal("TERM");
        assert_eq!(read_to_end(&mut live).await.1.as_deref(), Some("shutdown"));
        let (more, reason) = read_to_end(&mut behind).await;
        assert_eq!(reason.as_deref(), Some("shutdown"));
        events.extend(more);
        assert_eq!(own.api.wait_exit(Duration::from_secs(15)).await.code(), Some(0));
        let mut resumed = other.stream(&own.key, "", Some(behind.last_id())).await;
        post(&other, &own.key, 1).await;
        events.extend(resumed.take(4 - events.len()).await);
        assert_is_the_log(&events, &records_of(&own.system, &own.key).await);
    });
}

#[test]
fn a_broker_that_comes_back_leaves_no_gap() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[("STREAM_HEARTBEAT", "500ms")]).await;
        let mut stream = own.api.stream(&own.key, "", None).await;
        post(&own.api, &own.key, 3).await;
        let mut events = stream.take(3).await;
        own.system.stack().kill(Server::Kafka).await;
        let before = stream.comments();
        while stream.comments() == before {
            // It stays open, and says so.
            stream.quiet().await;
        }
        own.system.stack().start(Server::Kafka).await;
        eventually(DEADLINE, "leads are taken again", async || {
            own.api.post_lead(&own.key, "{}").await.status == 201
        })
        .await;
        post(&own.api, &own.key, 3).await;
        let log = records_of(&own.system, &own.key).await;
        events.extend(stream.take(log.len() - 3).await);
        assert_is_the_log(&events, &log);
        let mut resumed = own.api.stream(&own.key, "", Some(&events[1].id)).await;
        assert_eq!(resumed.take(log.len() - 2).await.len(), log.len() - 2);
    });
}

const CUTS: usize = 12;

fn seed() -> u64 {
    let given = std::env::var("STREAM_SEED").ok().and_then(|text| text.parse().ok());
    let now = || u64::try_from(chrono::Utc::now().timestamp_micros()).expect("after 1970");
    given.unwrap_or_else(now)
}

fn random(seed: u64) -> TestRng {
    let bytes: Vec<u8> = seed.to_be_bytes().repeat(4);
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// `STREAM_SEED` repeats a run: leads are posted and changed all the time, the stream is cut in one
/// of four ways, and goes on at one of two instances.
#[test]
fn cut_at_random_and_resumed_anywhere_everything_comes_once() {
    run(async {
        let seed = seed();
        println!("STREAM_SEED={seed}");
        let mut random = random(seed);
        let system = System::builder().partitions(6).build().await;
        let own = Own::start(system, &[]).await;
        let env = [("SHUTDOWN_GRACE", "1ms")];
        let mut readers = vec![own.system.start_api_with(&env).await];
        readers.push(own.system.start_api_with(&env).await);
        for reader in &readers {
            reader.wait_ready().await;
        }
        let done = AtomicBool::new(false);
        let writing = write_until(&own.api, &own.key, &done);
        let reading = async {
            let mut events: Vec<StreamEvent> = Vec::new();
            let mut place: Option<String> = None;
            for _ in 0..CUTS {
                let which = random.random_range(0..2);
                let mut stream =
                    readers[which].stream(&own.key, "from=beginning", place.as_deref()).await;
                let wanted = random.random_range(0..40);
                events.extend(stream.take(wanted).await);
                let way = random.random_range(0..4);
                println!("{wanted} events from instance {which}, then cut {way}");
                match way {
                    0 => readers[which].kill().await,
                    1 => {
                        readers[which].signal("TERM");
                        events.extend(read_to_end(&mut stream).await.0);
                        readers[which].wait_exit(DEADLINE).await;
                    }
                    // The client goes away, or reads what a killed instance left on the way.
                    2 => {}
                    _ => {
                        readers[which].kill().await;
                        events.extend(read_to_end(&mut stream).await.0);
                    }
                }
                place = Some(stream.last_id().to_owned());
                if way != 2 {
                    readers[which] = own.system.start_api_with(&env).await;
                    readers[which].wait_ready().await;
                }
            }
            done.store(true, Ordering::Relaxed);
            (events, place)
        };
        let ((mut events, place), ()) = tokio::join!(reading, writing);
        let log = records_of(&own.system, &own.key).await;
        let mut rest = readers[0].stream(&own.key, "from=beginning", place.as_deref()).await;
        events.extend(rest.take(log.len() - events.len()).await);
        assert_is_the_log(&events, &log);
        let unique: HashSet<_> = events.iter().map(StreamEvent::event_id).collect();
        assert_eq!(unique.len(), events.len(), "no event id twice");
        let keys: BTreeSet<_> = log.values().map(|record| record.key.clone()).collect();
        assert!(keys.len() > 10, "something was written: {}", keys.len());
    });
}

async fn write_until(api: &Api, key: &Key, done: &AtomicBool) {
    let mut ids: Vec<String> = Vec::new();
    while !done.load(Ordering::Relaxed) {
        ids.extend(post(api, key, 2).await);
        let lead = &ids[ids.len() / 2];
        // 202 while the consumer is behind.
        assert!(api.patch_lead(key, lead, r#"{"code":"x"}"#).await.status < 300);
    }
}
