//! Membership of the group: librdkafka's callbacks, which all run on the poll thread.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as std_mpsc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use tokio::sync::mpsc;

use super::client::{Trouble, log_line};
use super::{Event, Statistics, lane_of};
use crate::failure::RESTORE;

/// How long a rebalance waits for the worker to finish what it is writing. The offsets in
/// PostgreSQL fence it anyway; waiting spares the successor the collision.
const REVOKE_WAIT: Duration = Duration::from_secs(10);

/// Our membership of the group: the callbacks, and which partitions are ours.
pub(super) struct Member {
    pub(super) topic: String,
    /// One for each lane.
    events: Vec<mpsc::UnboundedSender<Event>>,
    /// Ours by the group's word; the epoch once positioned. Touched by the poll thread alone: the
    /// lock is for the type system.
    pub(super) partitions: Mutex<BTreeMap<i32, Option<u32>>>,
    trouble: Trouble,
    /// Whether the log has been told that no broker can be used.
    away: AtomicBool,
    /// Since when the statistics have shown no broker connected.
    away_since: Mutex<Option<Instant>>,
    retired: AtomicBool,
    /// Why the client is of no use any more.
    broken: Mutex<Option<String>>,
}

impl Member {
    pub(super) fn new(topic: String, events: Vec<mpsc::UnboundedSender<Event>>) -> Self {
        Self {
            topic,
            events,
            partitions: Mutex::default(),
            trouble: Trouble::default(),
            away: AtomicBool::default(),
            away_since: Mutex::default(),
            retired: AtomicBool::default(),
            broken: Mutex::default(),
        }
    }

    /// For a client that takes the place of this one's: owns no partition, and what the log has been
    /// told stays told.
    pub(super) fn successor(&self) -> Self {
        let away = AtomicBool::new(self.away.load(Ordering::Relaxed));
        Self { away, ..Self::new(self.topic.clone(), self.events.clone()) }
    }

    /// How long no broker has been connected; zero while one is.
    pub(super) fn away_for(&self) -> Duration {
        self.away_since().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Why the client is of no use any more, once.
    pub(super) fn take_broken(&self) -> Option<String> {
        self.broken().take()
    }

    fn broken(&self) -> MutexGuard<'_, Option<String>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn away_since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.away_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn partitions(&self) -> MutexGuard<'_, BTreeMap<i32, Option<u32>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn list(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    pub(super) fn fail(&self, cause: &str, cure: &str) {
        if !self.is_retired() {
            self.tell_failed(cause, cure);
        }
    }

    pub(super) fn tell_failed(&self, cause: &str, cure: &str) {
        for lane in &self.events {
            let _ = lane.send(Event::Failed { cause: cause.to_owned(), cure: cure.to_owned() });
        }
    }

    /// Takes all partitions as if a group had given them.
    pub(super) fn assign_all(&self, partitions: u32) {
        let all = (0..i32::try_from(partitions).unwrap_or(i32::MAX)).collect();
        self.tell_assigned(all);
    }

    /// Takes all partitions away from the workers, and tells them nothing from then on: another
    /// client takes the place of this one's.
    pub(super) fn retire(&self) {
        let all = std::mem::take(&mut *self.partitions()).into_keys().collect();
        self.tell_revoked(all);
        self.retired.store(true, Ordering::Relaxed);
    }

    fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Relaxed)
    }

    fn tell_assigned(&self, partitions: Vec<i32>) {
        self.partitions().extend(partitions.iter().map(|partition| (*partition, None)));
        for (lane, partitions) in self.by_lane(partitions) {
            let _ = lane.send(Event::Assigned(partitions));
        }
    }

    /// Waits until no worker writes any of them, or for [`REVOKE_WAIT`].
    fn tell_revoked(&self, partitions: Vec<i32>) {
        let (done, wait) = std_mpsc::channel();
        for (lane, partitions) in self.by_lane(partitions) {
            let _ = lane.send(Event::Revoked { partitions, done: done.clone() });
        }
        drop(done);
        let deadline = Instant::now() + REVOKE_WAIT;
        // Ends when every worker has dropped its sender, at once when they are gone.
        while wait.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_ok() {}
    }

    /// Every lane, with its share of the partitions.
    fn by_lane(
        &self,
        partitions: Vec<i32>,
    ) -> impl Iterator<Item = (&mpsc::UnboundedSender<Event>, Vec<i32>)> {
        let mut shares = vec![Vec::new(); self.events.len()];
        for partition in partitions {
            shares[lane_of(partition, self.events.len())].push(partition);
        }
        self.events.iter().zip(shares)
    }

    /// Tells once that Kafka is away and why, and that it is back.
    fn tell(&self, connected: bool) {
        if connected {
            *self.away_since() = None;
            self.trouble.over();
            if self.away.swap(false, Ordering::Relaxed) {
                tracing::info!("kafka is up");
            }
            return;
        }
        self.away_since().get_or_insert_with(Instant::now);
        if let Some(cause) = self.trouble.cause()
            && !self.away.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(cause, "kafka is away: the projection waits for it");
        }
    }

    fn assigned(&self, consumer: &BaseConsumer<Self>, partitions: Vec<i32>) -> KafkaResult<()> {
        consumer.incremental_assign(&TopicPartitionList::new())?;
        if !self.is_retired() {
            self.tell_assigned(partitions);
        }
        Ok(())
    }

    fn revoked(&self, consumer: &BaseConsumer<Self>, partitions: Vec<i32>) -> KafkaResult<()> {
        let mut positioned = Vec::new();
        for partition in &partitions {
            if self.partitions().remove(partition).flatten().is_some() {
                positioned.push(*partition);
            }
        }
        if !self.is_retired() {
            self.tell_revoked(partitions);
        }
        consumer.incremental_unassign(&self.list(positioned))
    }
}

impl ClientContext for Member {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.trouble.note(&error, reason);
        let code = error.rdkafka_error_code();
        match code {
            // `auto.offset.reset=error` turns an offset that isn't there into the second of these.
            Some(RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset) => self
                .fail(
                    &format!(
                        "topic {} does not hold the offset at which the projection stands: it was \
                     truncated or recreated ({reason})",
                        self.topic
                    ),
                    RESTORE,
                ),
            Some(RDKafkaErrorCode::Fatal | RDKafkaErrorCode::FencedInstanceId) => {
                *self.broken() = Some(reason.to_owned());
            }
            Some(
                RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::PollExceeded,
            ) => tracing::error!(%error, "Kafka: {reason}"),
            _ => tracing::debug!(target: "librdkafka", %error, "{reason}"),
        }
    }

    fn stats(&self, statistics: rdkafka::Statistics) {
        if self.is_retired() {
            return;
        }
        let connected = statistics.brokers.values().any(|broker| broker.state == "UP");
        self.tell(connected);
        let in_group = statistics.cgrp.is_some_and(|group| group.join_state == "steady");
        let ours = self.partitions();
        let mut ends = vec![Vec::new(); self.events.len()];
        let topic = statistics.topics.get(&self.topic);
        for partition in topic.into_iter().flat_map(|topic| topic.partitions.values()) {
            if partition.hi_offset >= 0 && ours.contains_key(&partition.partition) {
                let lane = lane_of(partition.partition, ends.len());
                ends[lane].push((partition.partition, partition.hi_offset));
            }
        }
        for (lane, ends) in self.events.iter().zip(ends) {
            let _ = lane.send(Event::Statistics(Statistics { connected, in_group, ends }));
        }
    }
}

impl ConsumerContext for Member {
    fn rebalance(
        &self,
        consumer: &BaseConsumer<Self>,
        kind: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let partitions: Vec<i32> =
            list.elements().iter().map(TopicPartitionListElem::partition).collect();
        let result = match kind {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                self.assigned(consumer, partitions)
            }
            _ => self.revoked(consumer, partitions),
        };
        if let Err(error) = result {
            self.fail(&format!("a rebalance failed: {error}"), "start it again");
        }
    }
}
