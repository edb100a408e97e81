//! The poll thread: a member of the group that reads from where it is told to.
//!
//! librdkafka runs the rebalance callback synchronously on the thread that polls. It must neither
//! wait for PostgreSQL nor stop polling (`max.poll.interval.ms`). So a partition that the group
//! assigns is only noted in the callback: the incremental assign is answered with an empty list.
//! The partition joins the fetched ones when the worker has its offset from PostgreSQL and sends
//! [`Command::Position`]. The group's own offsets are never asked for.
//!
//! Partitions are shared out between lanes, each with a worker of its own: partition modulo lanes.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc as std_mpsc;
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use tokio::sync::mpsc;

use super::client::Kafka;
use super::member::Member;
use super::outlet::{CHUNK_RECORDS, Outlet};
use super::{Command, Event, Membership, Position, lane_of};
use crate::record::{Chunk, Place};

/// How many chunks may wait for the workers, in all.
const CHUNKS_WAITING: usize = 12;
/// How long a worker may leave us waiting before its partitions are paused and polling goes on.
const PATIENCE: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// After this long without a broker, the client is made anew.
const GIVE_UP_CLIENT: Duration = Duration::from_secs(10);
/// A member that is fenced again so soon has a twin.
const FENCED_AGAIN: Duration = Duration::from_secs(20);

/// One worker's end of the poll thread.
#[derive(Debug)]
pub struct Source {
    /// What happens, in order.
    pub events: mpsc::UnboundedReceiver<Event>,
    /// What is read.
    pub records: Records,
    commands: std_mpsc::Sender<Command>,
}

/// The records read, in chunks. Taking one tells the poll thread that there is room.
#[derive(Debug)]
pub struct Records {
    chunks: mpsc::Receiver<Chunk>,
    poller: Thread,
}

impl Records {
    /// The next chunk; cancel-safe. `None` when the thread has ended.
    pub async fn next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.recv().await;
        self.poller.unpark();
        chunk
    }

    /// The next chunk if it is there.
    pub fn try_next(&mut self) -> Option<Chunk> {
        let chunk = self.chunks.try_recv().ok();
        self.poller.unpark();
        chunk
    }
}

impl Source {
    /// Starts reading `topic` on a thread of its own: one source for each of `lanes` lanes. The
    /// handle ends when every lane has sent [`Command::Close`].
    ///
    /// # Errors
    /// The settings are wrong, in librdkafka's words.
    pub fn start(
        kafka: &Kafka,
        topic: &str,
        membership: &Membership,
        lanes: usize,
    ) -> Result<(Vec<Self>, JoinHandle<()>), String> {
        let (commands, command_receiver) = std_mpsc::channel();
        let (mut ends, mut event_senders, mut outlets) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..lanes {
            let (event_sender, events) = mpsc::unbounded_channel();
            let (chunk_sender, chunks) = mpsc::channel((CHUNKS_WAITING / lanes).max(4));
            event_senders.push(event_sender);
            outlets.push(Outlet::new(chunk_sender));
            ends.push((events, chunks));
        }
        let member = Member::new(topic.to_owned(), event_senders);
        let consumer = create(kafka, membership, member).map_err(|error| error.to_string())?;
        let poller = Poller {
            kafka: kafka.clone(),
            membership: membership.clone(),
            consumer,
            outlets,
            commands: command_receiver,
            closing: Vec::new(),
            closed: 0,
            fenced: None,
        };
        let thread = thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || poller.run())
            .map_err(|error| error.to_string())?;
        let sources = ends.into_iter().map(|(events, chunks)| {
            let records = Records { chunks, poller: thread.thread().clone() };
            Self { events, records, commands: commands.clone() }
        });
        Ok((sources.collect(), thread))
    }

    /// Asks the thread for something. It looks every 50 ms at least.
    pub fn send(&self, command: Command) {
        // A thread that has ended has said so by an event.
        let _ = self.commands.send(command);
        self.records.poller.unpark();
    }
}

fn create(
    kafka: &Kafka,
    membership: &Membership,
    member: Member,
) -> KafkaResult<BaseConsumer<Member>> {
    let defaults = [
        // A killed member is replaced after this; the broker's own lower bound is 6 s.
        ("session.timeout.ms", "6000"),
        ("heartbeat.interval.ms", "1500"),
        ("queued.max.messages.kbytes", "16384"),
        ("queued.min.messages", "20000"),
        ("fetch.message.max.bytes", "1048576"),
        ("fetch.max.bytes", "8388608"),
        ("fetch.error.backoff.ms", "100"),
        // The default second would be a pause in every drain that fills the queue.
        ("fetch.queue.backoff.ms", "20"),
        ("topic.metadata.refresh.interval.ms", "30000"),
        ("check.crcs", "true"),
    ];
    let fixed = [
        ("group.id", membership.group()),
        ("partition.assignment.strategy", "cooperative-sticky"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "error"),
        ("allow.auto.create.topics", "false"),
        ("enable.partition.eof", "false"),
        ("statistics.interval.ms", "1000"),
    ];
    let topic = member.topic.clone();
    let consumer: BaseConsumer<Member> =
        kafka.config(&defaults, &fixed).create_with_context(member)?;
    match membership {
        Membership::Group(_) => consumer.subscribe(&[&topic])?,
        Membership::Alone(partitions) => consumer.context().assign_all(*partitions),
    }
    Ok(consumer)
}

struct Poller {
    kafka: Kafka,
    membership: Membership,
    consumer: BaseConsumer<Member>,
    outlets: Vec<Outlet>,
    commands: std_mpsc::Receiver<Command>,
    /// What the lanes that have ended wanted committed, and how many they are.
    closing: Vec<(i32, i64)>,
    closed: usize,
    /// When a client was fenced the last time.
    fenced: Option<Instant>,
}

impl Poller {
    fn run(mut self) {
        loop {
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Position(positions) => self.position(&positions),
                    Command::Commit(offsets) => self.commit(&offsets, CommitMode::Async),
                    Command::Close(offsets) => {
                        self.closing.extend(offsets);
                        self.closed += 1;
                    }
                }
            }
            if self.closed == self.outlets.len() {
                // Dropping the consumer leaves the group; its revoke finds the workers gone.
                return self.commit(&self.closing, CommitMode::Sync);
            }
            if let Some(reason) = self.consumer.context().take_broken() {
                self.on_broken(&reason);
            }
            if self.consumer.context().away_for() > GIVE_UP_CLIENT {
                self.make_anew();
            }
            if self.outlets.iter().any(|outlet| outlet.stalled.is_some() && !outlet.paused) {
                self.wait_for_room();
            } else {
                self.fetch();
            }
        }
    }

    /// A static member can be fenced by itself: after a broker was away for longer than the session,
    /// a request that it had given up may come before the one that took its place.
    fn on_broken(&mut self, reason: &str) {
        let fatal = self.consumer.client().fatal_error();
        let fenced = matches!(fatal, Some((RDKafkaErrorCode::FencedInstanceId, _)));
        let again = self.fenced.is_some_and(|last| last.elapsed() < FENCED_AGAIN);
        if fenced && !again {
            tracing::warn!(reason, "fenced by a member of the same KAFKA_GROUP_INSTANCE_ID");
            self.fenced = Some(Instant::now());
            self.make_anew();
        } else {
            self.consumer.context().fail(
                &format!("the Kafka client failed for good: {reason}"),
                "start it again; two instances with the same KAFKA_GROUP_INSTANCE_ID fence each \
                 other",
            );
        }
    }

    /// Joins the group with a new client. librdkafka forgets its brokers when a broker that is just
    /// coming back names none, and does not ask the bootstrap servers again:
    /// <https://github.com/confluentinc/librdkafka/issues/5301>.
    fn make_anew(&mut self) {
        let successor = self.consumer.context().successor();
        self.consumer.context().retire();
        match create(&self.kafka, &self.membership, successor) {
            Ok(consumer) => {
                let old = std::mem::replace(&mut self.consumer, consumer);
                // Closing may wait for ever for brokers that are not there.
                thread::spawn(move || drop(old));
                self.outlets.iter_mut().for_each(|outlet| outlet.paused = false);
                tracing::info!("a new client looks for kafka");
            }
            Err(error) => {
                let cause = format!("no new Kafka client could be made: {error}");
                self.consumer.context().tell_failed(&cause, "start it again");
            }
        }
    }

    /// Waits for a record, takes what else is there, hands it on.
    fn fetch(&mut self) {
        let mut wait = POLL;
        let mut taken = 0;
        let full = |outlet: &Outlet| outlet.is_full() && !outlet.paused;
        while taken < CHUNK_RECORDS && !self.outlets.iter().any(full) {
            match self.consumer.poll(wait) {
                Some(Ok(message)) => take(&mut self.outlets, self.consumer.context(), &message),
                // The error callback has seen it.
                Some(Err(_)) => {}
                None => break,
            }
            taken += 1;
            wait = Duration::ZERO;
        }
        self.hand_on();
    }

    /// Lanes that have room again go on.
    fn hand_on(&mut self) {
        for lane in 0..self.outlets.len() {
            self.outlets[lane].hand_on();
            if self.outlets[lane].stalled.is_none() && self.outlets[lane].paused {
                self.pause(lane, false);
            }
        }
    }

    /// A worker takes long: wait for it, so that what was fetched is not thrown away, but not so
    /// long that the group takes us for dead or the other lanes for idle.
    fn wait_for_room(&mut self) {
        thread::park_timeout(Duration::from_millis(20));
        self.hand_on();
        for lane in 0..self.outlets.len() {
            let Outlet { stalled, paused, .. } = self.outlets[lane];
            if !paused && stalled.is_some_and(|since| since.elapsed() >= PATIENCE) {
                self.pause(lane, true);
            }
        }
    }

    fn pause(&mut self, lane: usize, pause: bool) {
        let member = self.consumer.context();
        let positioned: Vec<i32> = member
            .partitions()
            .iter()
            .filter(|(partition, _)| lane_of(**partition, self.outlets.len()) == lane)
            .filter_map(|(partition, epoch)| epoch.map(|_| *partition))
            .collect();
        let list = member.list(positioned);
        let result = if pause { self.consumer.pause(&list) } else { self.consumer.resume(&list) };
        if let Err(error) = result {
            tracing::debug!(%error, pause, "pausing failed");
        }
        tracing::debug!(lane, pause, "a lane's partitions are paused or resumed");
        // One that could not be paused is left to fill up by a record a time, and tried again.
        self.outlets[lane].paused = pause;
    }

    fn position(&mut self, positions: &[Position]) {
        // A lane that still has no room pauses again, the new partitions with the others.
        for lane in 0..self.outlets.len() {
            if self.outlets[lane].paused {
                self.pause(lane, false);
            }
        }
        let member = self.consumer.context();
        let mut leave = BTreeSet::new();
        let mut join = TopicPartitionList::new();
        for position in positions {
            // Revoked while the command was under way: not ours any more.
            let mut ours = member.partitions();
            let Some(epoch) = ours.get_mut(&position.partition) else { continue };
            if epoch.replace(position.epoch).is_some() {
                leave.insert(position.partition);
            }
            let offset = Offset::Offset(position.offset);
            if let Err(error) = join.add_partition_offset(&member.topic, position.partition, offset)
            {
                tracing::error!(%error, ?position, "an offset that can't be");
            }
        }
        let result = if leave.is_empty() {
            Ok(())
        } else {
            self.consumer.incremental_unassign(&member.list(leave))
        };
        // librdkafka leaves a partition paused that was paused when it was taken away.
        let result = result.and_then(|()| self.consumer.resume(&join));
        if let Err(error) = result.and_then(|()| self.consumer.incremental_assign(&join)) {
            member.fail(&format!("positioning partitions failed: {error}"), "start it again");
        }
    }

    fn commit(&self, offsets: &[(i32, i64)], mode: CommitMode) {
        if matches!(self.membership, Membership::Alone(_)) {
            return;
        }
        let member = self.consumer.context();
        let mut list = TopicPartitionList::new();
        for (partition, offset) in offsets {
            if member.partitions().contains_key(partition) {
                let _ =
                    list.add_partition_offset(&member.topic, *partition, Offset::Offset(*offset));
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, mode)
        {
            tracing::debug!(%error, "the group's offsets, kept for lag tools, were not committed");
        }
    }
}

fn take(outlets: &mut [Outlet], member: &Member, message: &BorrowedMessage<'_>) {
    let partition = message.partition();
    let chunk = &mut outlets[lane_of(partition, outlets.len())].chunk;
    let Some(epoch) = member.partitions().get(&partition).copied().flatten() else { return };
    let place = Place {
        partition,
        epoch,
        offset: message.offset(),
        time_millis: message.timestamp().to_millis(),
    };
    let headers = message.headers();
    let headers = headers.into_iter().flat_map(|all| (0..all.count()).map(|i| header(all, i)));
    chunk.push(place, message.key(), message.payload(), headers);
}

/// rust-rdkafka panics on a header whose name is not UTF-8, which any client can produce. Such a
/// name is lost, the record isn't.
fn header(headers: &BorrowedHeaders, index: usize) -> (&str, Option<&[u8]>) {
    let read = || headers.try_get(index).map(|header| (header.key, header.value));
    std::panic::catch_unwind(AssertUnwindSafe(read)).ok().flatten().unwrap_or(("\u{fffd}", None))
}
