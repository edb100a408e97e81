//! One fault after the other under constant load, chosen at random: `CHAOS_SEED` repeats a run,
//! `CHAOS_SECONDS` makes it longer (`make chaos`).

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leads_testkit::{AtCommit, Consumer, DEADLINE, Proxy, Server, Stack, System, eventually};
use proptest::prelude::*;
use proptest::test_runner::TestRng;

use crate::load::{Load, Written, goes_on, heavy, random};
use crate::rebuild::{LIVE, phase, rebuild, succeeded};

const SECONDS: u64 = 60;

#[derive(Debug, Clone, Copy)]
enum Fault {
    KillConsumer,
    FreezeConsumer,
    PauseKafka,
    KillKafka,
    PausePostgres,
    KillPostgres,
    EndSessions,
    LoseCommit,
    LoseAnswer,
    ResetGroupOffsets,
    ThirdConsumer,
    Rebuild,
}

const FAULTS: [Fault; 12] = [
    Fault::KillConsumer,
    Fault::FreezeConsumer,
    Fault::PauseKafka,
    Fault::KillKafka,
    Fault::PausePostgres,
    Fault::KillPostgres,
    Fault::EndSessions,
    Fault::LoseCommit,
    Fault::LoseAnswer,
    Fault::ResetGroupOffsets,
    Fault::ThirdConsumer,
    Fault::Rebuild,
];

/// A system and the two consumers on it; the second is a static member of the group.
struct Chaos<'a> {
    system: &'a System,
    proxy: &'a Proxy,
    consumers: Vec<Consumer>,
    random: TestRng,
}

async fn start(system: &System, proxy: &Proxy, which: usize) -> Consumer {
    let mut env = vec![("DATABASE_URL", proxy.url()), ("BATCH_MAX_RECORDS", "50")];
    if which == 1 {
        env.push(("KAFKA_GROUP_INSTANCE_ID", "static"));
    }
    system.start_consumer_with(&env).await
}

impl Chaos<'_> {
    async fn run(&mut self, length: Duration) {
        let started = Instant::now();
        let mut deck = Vec::new();
        while started.elapsed() < length {
            let fault = deck.pop().unwrap_or_else(|| {
                deck.extend(FAULTS);
                // Shuffled, so that each has its turn.
                for at in (1..deck.len()).rev() {
                    deck.swap(at, self.random.random_range(0..=at));
                }
                deck.pop().unwrap()
            });
            println!("{:>6.1} s: {fault:?}", started.elapsed().as_secs_f64());
            self.inflict(fault).await;
            goes_on(self.system).await;
            for consumer in &self.consumers {
                assert_eq!(consumer.exit_status(), None, "a consumer gave up after {fault:?}");
            }
        }
    }

    async fn inflict(&mut self, fault: Fault) {
        let stack = self.system.stack();
        match fault {
            Fault::KillConsumer => self.kill_one().await,
            Fault::FreezeConsumer => {
                let frozen = self.either();
                self.consumers[frozen].pause();
                // The other one has all partitions, so the frozen one's session is over.
                goes_on(self.system).await;
                self.consumers[frozen].resume();
            }
            Fault::PauseKafka => {
                stack.pause(Server::Kafka).await;
                self.meanwhile(8_000).await;
                stack.resume(Server::Kafka).await;
            }
            Fault::KillKafka => {
                stack.kill(Server::Kafka).await;
                self.meanwhile(2_000).await;
                stack.start(Server::Kafka).await;
            }
            Fault::PausePostgres => {
                stack.pause(Server::Postgres).await;
                self.meanwhile(4_000).await;
                stack.resume(Server::Postgres).await;
            }
            Fault::KillPostgres => {
                stack.kill(Server::Postgres).await;
                self.meanwhile(1_000).await;
                stack.start(Server::Postgres).await;
            }
            Fault::EndSessions => {
                let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                    WHERE application_name LIKE 'leads-consumer%'";
                self.system.number(end).await;
            }
            Fault::LoseCommit => self.cut(AtCommit::Lost).await,
            Fault::LoseAnswer => self.cut(AtCommit::AnswerLost).await,
            Fault::ResetGroupOffsets => {
                for consumer in self.consumers.drain(..) {
                    assert_eq!(consumer.terminate().await.code(), Some(0));
                }
                self.system.reset_group_offsets().await;
                for which in 0..2 {
                    self.consumers.push(start(self.system, self.proxy, which).await);
                }
            }
            Fault::ThirdConsumer => {
                let third = start(self.system, self.proxy, 2).await;
                third.wait_ready().await;
                goes_on(self.system).await;
                if self.random.random() {
                    assert_eq!(third.terminate().await.code(), Some(0));
                } else {
                    third.kill().await;
                }
            }
            Fault::Rebuild => self.rebuild().await,
        }
    }

    /// A new generation is built, verified and swapped in, while consumers are killed.
    async fn rebuild(&mut self) {
        let live = self.system.number(LIVE).await;
        let rebuilding = self.system.spawn("leads-consumer", &["rebuild", "--yes"], &[]);
        self.kill_one().await;
        let ended = rebuilding.wait_exit(DEADLINE).await;
        assert_eq!(ended.code(), Some(0), "{:#?}", rebuilding.logs());
        assert_eq!(self.system.number(LIVE).await, live + 1);
    }

    fn either(&mut self) -> usize {
        self.random.random_range(0..self.consumers.len())
    }

    async fn kill_one(&mut self) {
        let which = self.either();
        self.consumers[which].kill().await;
        self.consumers[which] = start(self.system, self.proxy, which).await;
    }

    /// What happens while a server is away: a consumer may be killed too. Up to so many milliseconds,
    /// which is the fault's length and waits for nothing.
    async fn meanwhile(&mut self, longest: u64) {
        let length = Duration::from_millis(self.random.random_range(0..longest));
        if self.random.random_range(0..3) == 0 {
            println!("          and a consumer is killed");
            self.kill_one().await;
        }
        tokio::time::sleep(length).await;
    }

    async fn cut(&mut self, what: AtCommit) {
        let before = self.proxy.met();
        self.proxy.at_commit(what);
        eventually(DEADLINE, "a COMMIT", async || self.proxy.met() > before).await;
    }
}

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_doubled_or_stuck() {
    let _heavy = heavy().await;
    let now = || u64::try_from(chrono::Utc::now().timestamp_micros()).unwrap();
    let seed = variable("CHAOS_SEED").unwrap_or_else(now);
    let length = Duration::from_secs(variable("CHAOS_SECONDS").unwrap_or(SECONDS));
    println!("CHAOS_SEED={seed} CHAOS_SECONDS={}", length.as_secs());

    let stack = Stack::dedicated().await;
    // A long run has many dead letters on purpose.
    let system =
        System::builder().stack(stack).partitions(6).env("DLQ_MAX", "1000000").build().await;
    let proxy = system.proxy().await;
    let consumers = vec![start(&system, &proxy, 0).await, start(&system, &proxy, 1).await];
    for consumer in &consumers {
        consumer.wait_ready().await;
    }
    let mut load = Load::new(&system, seed).with_poison();
    let mut chaos = Chaos { system: &system, proxy: &proxy, consumers, random: random(seed) };
    let done = AtomicBool::new(false);
    let faults = async {
        chaos.run(length).await;
        done.store(true, Ordering::Relaxed);
    };
    tokio::join!(load.run(&done), faults);

    let written = load.written().await;
    println!("{} events, {} poison records", written.facts.len(), written.poison.len());
    written.assert_projected(&system).await;
    assert_exported(&system, &proxy, &written).await;

    let live = system.number(LIVE).await;
    let lines = succeeded(&rebuild(&system, &[]).await);
    assert_eq!(phase(&lines, "verify")["differences"], 0);
    assert_eq!(phase(&lines, "swapped")["live"], live + 1);
    written.assert_projected(&system).await;
    for consumer in &chaos.consumers {
        assert_eq!(consumer.exit_status(), None);
    }
}

async fn assert_exported(system: &System, proxy: &Proxy, written: &Written) {
    // What a killed consumer left is exported by the next one that starts.
    let _next = start(system, proxy, 2).await;
    eventually(DEADLINE, "the dead letters are exported", async || {
        let waiting =
            "SELECT count(*) FROM dead_letters JOIN projection_generation USING (generation)
            WHERE state = 'live' AND exported_at IS NULL";
        system.number(waiting).await == 0
    })
    .await;
    let wanted: BTreeSet<(String, String)> =
        written.poison.iter().map(|it| (it.partition.to_string(), it.offset.to_string())).collect();
    eventually(DEADLINE, "each is in its topic, and nothing else", async || {
        let records = system.dead_letter_records().await;
        let header = |it: &leads_testkit::Record, name| it.header(name).unwrap().to_owned();
        let found: BTreeSet<_> = records
            .iter()
            .map(|it| (header(it, "dlq_partition"), header(it, "dlq_offset")))
            .collect();
        if found == wanted { Ok(()) } else { Err((found.len(), wanted.len())) }
    })
    .await;
}
