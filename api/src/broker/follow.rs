//! Reading a compacted topic from its start, and the few broker calls of the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::config::create;
use super::{ConfigError, Context, GIVE_UP_CLIENT, KafkaConfig, Pending, SharedState};

/// How often the brokers are asked whether they are there.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// The pause after a client that could not be made: a certificate is being replaced.
const AGAIN: Duration = Duration::from_secs(1);

/// One record of a compacted topic.
#[derive(Debug, Clone, Copy)]
pub enum Followed<'a> {
    /// Key and value; a tombstone has no value.
    Record(&'a [u8], Option<&'a [u8]>),
    /// Everything that was there when reading began has been seen.
    CaughtUp,
}

/// Reads a compacted topic from its start, for ever, until `handle` says `false` or `stop` is set.
/// Blocks: give it a thread. Waits for the broker and for the topic as long as it takes.
///
/// # Errors
/// When a setting is refused by librdkafka at first. What is refused later is tried again.
pub fn follow(
    config: &KafkaConfig,
    topic: &str,
    stop: &AtomicBool,
    mut handle: impl FnMut(Followed<'_>) -> bool,
) -> Result<(), ConfigError> {
    let mut place = Place::default();
    loop {
        match follow_with_one_client(config, topic, stop, &mut place, &mut handle) {
            Ok(Ended::Asked) => return Ok(()),
            Ok(Ended::Lost) => tracing::debug!(topic, "making a new client"),
            Err(error) if !place.has_begun => return Err(error),
            Err(error) => {
                tracing::warn!(topic, %error, "the topic can't be followed; trying again");
                thread::sleep(AGAIN);
            }
        }
    }
}

/// How far a topic is read, by whichever client.
#[derive(Debug, Default)]
struct Place {
    has_begun: bool,
    /// Partitions that were read to their ends.
    ended: BTreeSet<i32>,
    caught_up: bool,
    /// By partition.
    next: BTreeMap<i32, i64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// As asked.
    Asked,
    /// The client has lost its brokers, see [`super::Broker::watch`]. The next one goes on where it
    /// was: a compacted topic keeps older states of a key for days, and a key that was revoked must
    /// not open anything while they are read again.
    Lost,
}

fn follow_with_one_client(
    config: &KafkaConfig,
    topic: &str,
    stop: &AtomicBool,
    place: &mut Place,
    handle: &mut impl FnMut(Followed<'_>) -> bool,
) -> Result<Ended, ConfigError> {
    let consumer: BaseConsumer<Quiet> =
        create(config, || config.reader().create_with_context(Quiet))?;
    place.has_begun = true;
    let Some(partitions) = wait_for_topic(&consumer, topic, stop) else {
        return Ok(if stop.load(Ordering::Relaxed) { Ended::Asked } else { Ended::Lost });
    };
    let mut assignment = TopicPartitionList::new();
    for partition in 0..partitions {
        // A partition of the list that was just made takes any offset.
        let from =
            place.next.get(&partition).map_or(Offset::Beginning, |next| Offset::Offset(*next));
        let _ = assignment.add_partition_offset(topic, partition, from);
    }
    consumer.assign(&assignment).map_err(|error| ConfigError(error.to_string()))?;
    let mut reached = Instant::now();
    let mut asked = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if asked.elapsed() > ASK_EVERY {
            if consumer.fetch_metadata(Some(topic), Duration::from_secs(2)).is_ok() {
                reached = Instant::now();
            } else if reached.elapsed() > GIVE_UP_CLIENT {
                return Ok(Ended::Lost);
            }
            asked = Instant::now();
        }
        let go_on = match consumer.poll(Duration::from_millis(100)) {
            None => true,
            Some(Ok(message)) => {
                place.next.insert(message.partition(), message.offset() + 1);
                message.key().is_none_or(|key| handle(Followed::Record(key, message.payload())))
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                // One may come to its end twice while another is read for the first time.
                place.ended.insert(partition);
                let all = usize::try_from(partitions).is_ok_and(|all| place.ended.len() >= all);
                let is_news = all && !std::mem::replace(&mut place.caught_up, all);
                !is_news || handle(Followed::CaughtUp)
            }
            Some(Err(error)) => {
                tracing::debug!(topic, %error, "reading the topic failed for now");
                true
            }
        };
        if !go_on {
            break;
        }
    }
    Ok(Ended::Asked)
}

fn wait_for_topic(consumer: &BaseConsumer<Quiet>, topic: &str, stop: &AtomicBool) -> Option<i32> {
    let mut told = false;
    let mut reached = Instant::now();
    while !stop.load(Ordering::Relaxed) && reached.elapsed() < GIVE_UP_CLIENT {
        if let Ok(metadata) = consumer.fetch_metadata(Some(topic), Duration::from_secs(2)) {
            reached = Instant::now();
            let count = metadata.topics().first().map_or(0, |t| t.partitions().len());
            if count > 0 {
                return i32::try_from(count).ok();
            }
            if !told {
                tracing::warn!(topic, "the topic does not exist: run `leads-consumer topics`");
                told = true;
            }
        }
        thread::sleep(Duration::from_millis(200));
    }
    None
}

/// Connection trouble is told by the producer's state.
pub(super) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        super::log(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: "librdkafka", %error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Quiet {}

/// Publishes one record and waits for its acknowledgement; for the commands.
///
/// # Errors
/// In words for the operator.
pub fn publish_once(
    config: &KafkaConfig,
    topic: &str,
    key: &str,
    value: &[u8],
) -> Result<(), String> {
    let state = SharedState::new();
    let producer: ThreadedProducer<Context> = create(config, || {
        config.producer().create_with_context(Context { state: Arc::clone(&state) })
    })
    .map_err(|error| error.to_string())?;
    let (reply, answer) = oneshot::channel();
    let pending = Box::new(Pending { reply, permit: None });
    producer
        .send(BaseRecord::with_opaque_to(topic, pending).key(key).payload(value))
        .map_err(|(error, _)| error.to_string())?;
    let deadline = config.message_timeout + Duration::from_secs(1);
    producer.flush(deadline).map_err(|error| error.to_string())?;
    match answer.blocking_recv() {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(failure)) => Err(match state.trouble() {
            Some(trouble) => format!("{failure} ({})", trouble.reason),
            None => failure.to_string(),
        }),
        Err(_) => Err("the producer ended without an answer".to_owned()),
    }
}

/// Reads a compacted topic to its present end; for the commands.
///
/// # Errors
/// In words for the operator, when the end was not reached in time.
pub fn read_to_end(
    config: &KafkaConfig,
    topic: &str,
    timeout: Duration,
    mut each: impl FnMut(&[u8], Option<&[u8]>),
) -> Result<(), String> {
    let stop = Arc::new(AtomicBool::new(false));
    let (done, finished) = mpsc::channel::<()>();
    let deadline = Instant::now() + timeout;
    let timer = Arc::clone(&stop);
    let watchdog = thread::spawn(move || {
        let _ = finished.recv_timeout(deadline.saturating_duration_since(Instant::now()));
        timer.store(true, Ordering::Relaxed);
    });
    let mut caught_up = false;
    let outcome = follow(config, topic, &stop, |followed| match followed {
        Followed::Record(key, value) => {
            each(key, value);
            true
        }
        Followed::CaughtUp => {
            caught_up = true;
            false
        }
    });
    drop(done);
    let _ = watchdog.join();
    outcome.map_err(|error| error.to_string())?;
    if caught_up {
        Ok(())
    } else {
        Err(format!(
            "topic {topic} could not be read within {timeout:?}: is KAFKA_BROKERS right, and has `leads-consumer topics` been run?"
        ))
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;

    #[test]
    fn the_next_client_goes_on_where_the_last_one_was() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        cluster.create_topic("access", 2, 1).unwrap();
        let config = KafkaConfig {
            brokers: cluster.bootstrap_servers(),
            settings: Vec::new(),
            message_timeout: Duration::from_secs(30),
        };
        let publish =
            |value: &str| publish_once(&config, "access", "key", value.as_bytes()).unwrap();
        publish("active");
        publish("revoked");
        let mut place = Place::default();
        let mut read_until = |last: &str| {
            let mut seen = Vec::new();
            let stop = AtomicBool::new(false);
            let mut handle = |followed: Followed<'_>| {
                seen.push(match followed {
                    Followed::Record(_, value) => {
                        String::from_utf8(value.unwrap().to_vec()).unwrap()
                    }
                    Followed::CaughtUp => "caught up".to_owned(),
                });
                seen.last().is_none_or(|it| it != last)
            };
            follow_with_one_client(&config, "access", &stop, &mut place, &mut handle).unwrap();
            seen
        };
        assert_eq!(read_until("caught up"), ["active", "revoked", "caught up"]);
        publish("active again");
        assert_eq!(read_until("active again"), ["active again"]);
    }
}
