//! Three brokers, of which one is lost, then another, then two: two APIs behind a balancer and two
//! consumers go on without a restart, and every acknowledged lead is there once.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use leads_testkit::{Api, Balancer, Consumer, DEADLINE, Key, Server, Stack, System, eventually};
use tokio::sync::watch;

use crate::rolling::Client;
use crate::shared::{run, unlimited};

const CLIENTS: usize = 8;
/// Each client posts as often, so that the machine is left time to start brokers.
const PACE: Duration = Duration::from_millis(20);
/// The outages last longer than a request may wait; this is the shortest.
const WAIT: (&str, &str) = ("PUBLISH_TIMEOUT", "2s");
const BROKERS: [i32; 3] = [1, 2, 3];
/// A broker starts, and a leader is found, in seconds; on a busy machine in more.
const PATIENCE: Duration = Duration::from_mins(3);

/// What the clients saw.
#[derive(Default)]
struct Seen {
    acknowledged: Vec<String>,
    /// By client: answers 201, and those that it had to retry.
    taken: [usize; CLIENTS],
    refused: [usize; CLIENTS],
    /// When the last lead was acknowledged, and the longest time without one.
    last: Option<Instant>,
    longest: Duration,
}

#[derive(Default)]
struct Clients(Mutex<Seen>);

impl Clients {
    fn with<T>(&self, work: impl FnOnce(&mut Seen) -> T) -> T {
        work(&mut self.0.lock().expect("no panic"))
    }

    fn acknowledged(&self) -> usize {
        self.with(|seen| seen.acknowledged.len())
    }

    /// A client that sends a lead until it is taken, and then the next.
    async fn load(&self, client: usize, post: &mut Client<'_>, stop: &watch::Receiver<bool>) {
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for number in 0.. {
            pace.tick().await;
            let name = format!("{client}-{number}");
            let id = eventually(PATIENCE, "the lead is taken", async || {
                let answer = post.try_post(&name).await;
                let refused = answer.as_ref().map(|it| (it.status, it.text()));
                if let Some(taken) = answer.filter(|it| it.status == 201) {
                    return Ok(taken.lead_id());
                }
                let retry = refused.as_ref().is_none_or(|(status, _)| *status == 503);
                assert!(retry, "a client must retry 503 and nothing else: {refused:?}");
                self.with(|seen| seen.refused[client] += 1);
                Err(refused)
            })
            .await;
            self.with(|seen| {
                let now = Instant::now();
                let since = seen.last.replace(now).map_or(Duration::ZERO, |last| now - last);
                seen.longest = seen.longest.max(since);
                seen.taken[client] += 1;
                seen.acknowledged.push(id);
            });
            if *stop.borrow() {
                return;
            }
        }
    }

    /// Each client has another lead acknowledged.
    async fn go_on(&self) {
        let before = self.with(|seen| seen.taken);
        eventually(PATIENCE, "every client goes on", async || {
            let now = self.with(|seen| seen.taken);
            if now.iter().zip(before).all(|(now, was)| *now > was) { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Each client is refused so many times more.
    async fn are_refused(&self, times: usize) {
        let before = self.with(|seen| seen.refused);
        eventually(PATIENCE, "every client is refused", async || {
            let now = self.with(|seen| seen.refused);
            let refused = now.iter().zip(before).all(|(now, was)| *now >= was + times);
            if refused { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// Nothing is acknowledged from now on: what was sent before is answered for when each client
    /// was refused, and then all of them are refused again and again.
    async fn none_is_acknowledged(&self) {
        self.are_refused(1).await;
        let before = self.acknowledged();
        self.are_refused(3).await;
        assert_eq!(self.acknowledged(), before, "acknowledged by too few replicas");
    }

    fn tell(&self, what: &str) {
        self.with(|seen| {
            let longest = std::mem::take(&mut seen.longest);
            println!("{what}: {} leads, the longest gap {longest:?}", seen.acknowledged.len());
        });
    }
}

async fn all_in_sync(system: &System) {
    eventually(PATIENCE, "every partition has three replicas in sync", async || {
        let leaders = system.leaders().await;
        if leaders.iter().all(|(_, in_sync)| *in_sync == 3) { Ok(()) } else { Err(leaders) }
    })
    .await;
}

async fn min_insync(system: &System, replicas: &str) {
    let settings = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("min.insync.replicas", replicas),
    ];
    system.alter_topic(system.events_topic(), &settings).await;
}

/// The broker that leads the first partition; it acknowledges, and would alone if it were let.
async fn leader(system: &System) -> i32 {
    system.leaders().await[0].0
}

async fn lose_them(system: &System, clients: &Clients) {
    let stack = system.stack();
    clients.go_on().await;

    let lost = Server::Broker(leader(system).await);
    stack.kill(lost).await;
    clients.go_on().await;
    clients.tell("a leader is killed");
    // Two replicas are left, and now three are asked for: NOT_ENOUGH_REPLICAS.
    min_insync(system, "3").await;
    clients.none_is_acknowledged().await;
    min_insync(system, "2").await;
    clients.go_on().await;
    stack.start(lost).await;
    all_in_sync(system).await;
    clients.tell("one replica too few, and back");

    let lost = stack.controller().await;
    stack.kill(lost).await;
    clients.go_on().await;
    stack.start(lost).await;
    all_in_sync(system).await;
    clients.go_on().await;
    clients.tell("the controller is killed, and back");

    let others = others_than(leader(system).await);
    stack.kill_all(&others).await;
    clients.none_is_acknowledged().await;
    stack.start_all(&others).await;
    all_in_sync(system).await;
    clients.go_on().await;
    clients.tell("two are killed, and back");

    // What the last one has alone would be lost with it, had it been acknowledged. The others hang
    // meanwhile: of brokers that were killed, Kafka would not trust the logs without the last leader's.
    let only = leader(system).await;
    let others = others_than(only);
    stack.pause_all(&others).await;
    clients.none_is_acknowledged().await;
    stack.kill(Server::Broker(only)).await;
    stack.resume_all(&others).await;
    clients.go_on().await;
    stack.start(Server::Broker(only)).await;
    all_in_sync(system).await;
    clients.go_on().await;
    clients.tell("two hang, the last is killed, and back");
}

fn others_than(id: i32) -> Vec<Server> {
    BROKERS.into_iter().filter(|other| *other != id).map(Server::Broker).collect()
}

async fn each_is_there_once(system: &System, ids: &[String], retries: usize) {
    let unique: HashSet<_> = ids.iter().map(String::as_str).collect();
    assert_eq!(unique.len(), ids.len());
    let records = system.records().await;
    let keys: Vec<_> = records
        .iter()
        .map(|record| std::str::from_utf8(record.key.as_deref().expect("a key")).expect("an id"))
        .collect();
    let logged: HashSet<_> = keys.iter().copied().collect();
    let missing: Vec<_> = unique.difference(&logged).collect();
    assert!(missing.is_empty(), "acknowledged, and not in the log: {missing:?}");
    assert_eq!(logged, unique, "each was sent until it was taken");
    assert!(keys.len() - unique.len() <= retries, "twice in the log is only what was retried");

    let wanted = i64::try_from(ids.len()).expect("a count");
    eventually(DEADLINE, "each lead is projected", async || {
        let found = system.number("SELECT count(*) FROM leads WHERE version = 1").await;
        if found == wanted { Ok(()) } else { Err((found, wanted)) }
    })
    .await;
    assert_eq!(system.number("SELECT count(*) FROM leads").await, wanted);
    assert_eq!(system.number("SELECT sum(leads)::bigint FROM lead_counts").await, wanted);
    assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 0);
}

async fn replication_is_sound(system: &System) {
    let output = system.consumer_command(&["doctor", "--json"]).await;
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let checks = found["checks"].as_array().expect("checks");
    let check = checks.iter().find(|it| it["check"] == "replication").expect("the check");
    assert_eq!(
        (&check["verdict"], &check["found"]),
        (&"ok".into(), &"3 replicas, min.insync.replicas=2".into())
    );
}

async fn start(system: &System, balancer: &Balancer) -> (Key, Vec<Api>, Vec<Consumer>) {
    let key = system.create_key(unlimited()).await;
    let (mut apis, mut consumers) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let api = system.start_api_with(&[WAIT]).await;
        balancer.add(&api);
        apis.push(api);
        consumers.push(system.start_consumer().await);
    }
    eventually(DEADLINE, "both APIs are ready", async || balancer.ready() == 2).await;
    for consumer in &consumers {
        consumer.wait_ready().await;
    }
    (key, apis, consumers)
}

#[test]
fn of_three_brokers_any_may_be_lost_and_no_acknowledged_lead_with_them() {
    run(async {
        let stack = Stack::of_three_brokers().await;
        let system = System::builder().stack(stack).env("TOPIC_REPLICATION", "3").build().await;
        let balancer = Balancer::start().await;
        let (key, apis, consumers) = start(&system, &balancer).await;
        replication_is_sound(&system).await;

        let clients = Clients::default();
        let (stop, stopped) = watch::channel(false);
        let load = (0..CLIENTS).map(async |client| {
            clients.load(client, &mut Client::new(&balancer, &key), &stopped).await;
        });
        let faults = async {
            lose_them(&system, &clients).await;
            stop.send_replace(true);
        };
        tokio::join!(futures_util::future::join_all(load), faults);

        let seen = clients.0.into_inner().expect("no panic");
        let retries = seen.refused.iter().sum();
        println!("{} leads, {retries} retries", seen.acknowledged.len());
        each_is_there_once(&system, &seen.acknowledged, retries).await;
        for process in apis.iter().map(|it| &**it).chain(consumers.iter().map(|it| &**it)) {
            assert_eq!(process.exit_status(), None, "nobody was restarted");
        }
    });
}
