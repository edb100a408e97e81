//! Which partition new leads go to.
//!
//! librdkafka sends one request for each partition, so leads spread over twelve partitions at once
//! are twelve small requests: for the broker and for us most of a lead's cost. The partition follows
//! from the key, but the key of a new lead is ours to choose. The partitions take turns, each for
//! about as long as librdkafka lingers, and the leads of one turn travel together. Kafka's own producer does
//! the same for records without a key:
//! <https://cwiki.apache.org/confluence/display/KAFKA/KIP-480%3A+Sticky+Partitioner>.

use std::time::{Duration, Instant};

use leads_shared::partition;
use uuid::Uuid;

/// Length of one turn: twice the producer's default `linger.ms`. Twice or half of it costs no more.
const TURN: Duration = Duration::from_millis(2);

/// The turns of one instance.
#[derive(Debug)]
pub(crate) struct Turns {
    start: Instant,
    /// Instances that start together don't all begin with the same partition.
    first: u128,
}

impl Turns {
    /// Starts with a partition by chance.
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), first: u128::from(rand::random::<u16>()) }
    }

    /// An id in the partition whose turn it is; any id while `partitions` is 0, not known yet.
    pub(crate) fn new_id(&self, partitions: u32) -> Uuid {
        let id = Uuid::now_v7();
        let turn = self.first + self.start.elapsed().as_micros() / TURN.as_micros();
        match turn.checked_rem(u128::from(partitions)).map(u32::try_from) {
            Some(Ok(partition)) => partition::place(id, partition, partitions),
            Some(Err(_)) | None => id,
        }
    }
}
