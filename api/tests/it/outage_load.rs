//! The broker goes away under full load: memory stays bounded, and nothing acknowledged is lost or
//! doubled. One stack, so the outages come one after the other.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use leads_testkit::{DEADLINE, Method, Response, Server, Stack, System, eventually};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::shared::{Own, run};

const MEBIBYTE: usize = 1024 * 1024;
const BOUND: (&str, &str) = ("MAX_IN_FLIGHT_BYTES", "4MiB");
const CACHE: (&str, &str) = ("IDEMPOTENCY_CACHE", "8MiB");
/// A busy machine may let a connection wait.
const PATIENCE: (&str, &str) = ("HEADER_TIMEOUT", "1m");
/// The bound twice (the producer's copy and the request's), the cache, a body each that is being read.
const GROWTH: usize = 48 * MEBIBYTE;
/// How long a client waits in the outage, until it hangs up and sends the next.
const IMPATIENCE: Duration = Duration::from_millis(200);
const CLIENTS: usize = 16;
const LEAD: usize = 50 * 1024;
/// Twelve times what may be in flight.
const OFFERED: usize = 48 * MEBIBYTE;

/// What the clients saw.
#[derive(Default)]
struct Seen {
    acknowledged: Mutex<HashSet<String>>,
    /// Items that were refused, or that a client gave up on.
    refused: AtomicUsize,
}

impl Seen {
    fn taken(&self) -> usize {
        self.acknowledged.lock().expect("no panic").len()
    }

    fn note(&self, answer: &Response) {
        assert!([201, 207, 503].contains(&answer.status), "{answer:?}");
        for item in answer.json()["data"].as_array().expect("data") {
            if item["status"] == 201 {
                let id = item["id"].as_str().expect("an id").to_owned();
                self.acknowledged.lock().expect("no panic").insert(id);
            } else {
                assert_eq!(item["status"], 503, "{item}");
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// A batch whose items have keys of their own.
fn batch(name: &str, items: usize, text: &str) -> String {
    let item = |i| json!({"idempotency_key": format!("{name}-{i}"), "properties": {"text": text}});
    Value::from((0..items).map(item).collect::<Vec<_>>()).to_string()
}

async fn post(own: &Own, body: &str) -> Response {
    let request = own.api.json(Method::POST, "/api/v1/leads/batch", &own.key, body);
    own.api.send(request).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Well,
    Outage,
    End,
}

/// 20 leads of 50 KiB a batch. In the outage a client doesn't wait for the answer: what it sent is in
/// the producer's queue all the same, and it sends more.
async fn heavy_load(own: &Own, seen: &Seen, client: usize, phase: &watch::Receiver<Phase>) {
    let text = "all work and no play ".repeat(LEAD / 21);
    for number in 0.. {
        let body = batch(&format!("heavy-{client}-{number}"), 20, &text);
        let patience = match *phase.borrow() {
            Phase::Well => DEADLINE,
            Phase::Outage => IMPATIENCE,
            Phase::End => return,
        };
        match tokio::time::timeout(patience, post(own, &body)).await {
            Ok(answer) => seen.note(&answer),
            Err(_) => drop(seen.refused.fetch_add(20, Ordering::Relaxed)),
        }
    }
}

async fn memory_is_bounded(own: &Own, seen: &Seen) {
    let (phase, phases) = watch::channel(Phase::Well);
    let clients = (0..CLIENTS).map(|client| heavy_load(own, seen, client, &phases));
    let outage = async {
        eventually(DEADLINE, "some load", async || seen.taken() > 400).await;
        let before = own.api.peak_memory();
        own.system.stack().pause(Server::Kafka).await;
        phase.send_replace(Phase::Outage);
        let refused = seen.refused.load(Ordering::Relaxed);
        eventually(DEADLINE * 2, "much is refused", async || {
            let more = seen.refused.load(Ordering::Relaxed) - refused;
            if more * LEAD > OFFERED { Ok(()) } else { Err(more) }
        })
        .await;
        let peaks = before.zip(own.api.peak_memory());
        println!("peak bytes before the outage and at its end: {peaks:?}");
        assert_eq!(own.api.get_open("/livez").await.status, 200);
        phase.send_replace(Phase::Well);
        own.system.stack().resume(Server::Kafka).await;
        let taken = seen.taken();
        eventually(DEADLINE * 2, "leads are taken again", async || seen.taken() > taken).await;
        phase.send_replace(Phase::End);
        peaks
    };
    let (_, peaks) = tokio::join!(futures_util::future::join_all(clients), outage);
    let Some((before, after)) = peaks else {
        return eprintln!("skipped: this system does not tell how much memory a process held");
    };
    assert!(after < before + GROWTH, "{} MiB, then {}", before / MEBIBYTE, after / MEBIBYTE);
}

/// Each batch is sent until all of it is taken, the broker killed and started amid them.
async fn dies_amid_batches(own: &Own, seen: &Seen) {
    let (stop, stopped) = watch::channel(false);
    let client = async |client: usize| {
        for number in 0.. {
            let body = batch(&format!("light-{client}-{number}"), 100, "x");
            eventually(DEADLINE * 2, "the batch is taken", async || {
                let answer = post(own, &body).await;
                seen.note(&answer);
                if answer.status == 201 { Ok(()) } else { Err(answer.status) }
            })
            .await;
            if *stopped.borrow() {
                return;
            }
        }
    };
    let restarts = async {
        for _ in 0..2 {
            let (taken, refused) = (seen.taken(), seen.refused.load(Ordering::Relaxed));
            eventually(DEADLINE * 2, "batches under way", async || seen.taken() > taken + 500)
                .await;
            own.system.stack().kill(Server::Kafka).await;
            eventually(DEADLINE, "some are refused", async || {
                seen.refused.load(Ordering::Relaxed) > refused
            })
            .await;
            own.system.stack().start(Server::Kafka).await;
        }
        let taken = seen.taken();
        eventually(DEADLINE * 2, "and taken again", async || seen.taken() > taken).await;
        stop.send_replace(true);
    };
    tokio::join!(futures_util::future::join_all((0..2).map(client)), restarts);
}

#[test]
fn under_full_load_memory_is_bounded_and_nothing_is_lost_or_doubled() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[("PUBLISH_TIMEOUT", "3s"), BOUND, CACHE, PATIENCE]).await;
        let seen = Seen::default();
        memory_is_bounded(&own, &seen).await;
        dies_amid_batches(&own, &seen).await;

        let records = own.system.records().await;
        let logged: HashSet<_> = records
            .iter()
            .map(|record| String::from_utf8(record.key.clone().expect("a key")).expect("an id"))
            .collect();
        let acknowledged = seen.acknowledged.into_inner().expect("no panic");
        assert!(acknowledged.is_subset(&logged), "acknowledged is kept");
        let wanted = i64::try_from(logged.len()).expect("a count");
        eventually(DEADLINE * 2, "each lead is projected once", async || {
            let found = own.system.number("SELECT count(*) FROM leads WHERE version = 1").await;
            if found == wanted { Ok(()) } else { Err((found, wanted)) }
        })
        .await;
        assert_eq!(own.system.number("SELECT count(*) FROM leads").await, wanted);
        assert_eq!(own.system.number("SELECT count(*) FROM dead_letters").await, 0);
    });
}
