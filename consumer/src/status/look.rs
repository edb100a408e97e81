//! One look at Kafka and PostgreSQL, each as far as it can be had.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Settings;
use super::read_model::{self, DeadLetters, Generation, Offset};
use super::session::{Session, explain};
use crate::failure::Halt;
use crate::source::group::Group;
use crate::source::inspect::{Around, Bounds, Inspector};

/// How long the brokers may take to be found, and to answer a question.
const CONTACT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(3);
/// Between the two looks that the rate is measured by.
const RATE_INTERVAL: Duration = Duration::from_secs(1);

/// What the brokers tell.
#[derive(Debug, Clone)]
pub struct Log {
    /// Where each partition starts and ends; empty when there is no such topic.
    pub bounds: BTreeMap<i32, Bounds>,
    /// The records at the live generation's offsets.
    pub around: BTreeMap<i32, Around>,
    /// The consumer group, or why it is not known: other brokers may know of it.
    pub group: Result<Group, String>,
}

/// What PostgreSQL tells.
#[derive(Debug, Clone, Default)]
pub struct Model {
    /// All generations.
    pub generations: Vec<Generation>,
    /// The offsets of all generations.
    pub offsets: Vec<Offset>,
    /// The dead letters.
    pub dead_letters: DeadLetters,
    /// How many records a second were projected into the live generation.
    pub rate: Option<f64>,
}

impl Model {
    /// The generation that reads see.
    pub fn live(&self) -> Option<&Generation> {
        self.generations.iter().find(|it| it.state == "live")
    }
}

/// What one look has seen.
pub struct Seen {
    /// Kafka's half, or why there is none.
    pub log: Result<Log, String>,
    /// PostgreSQL's half, or why there is none and what to do.
    pub model: Result<Model, Halt>,
}

/// Looks; takes a second, and ten at most.
pub async fn look(settings: &Settings) -> Seen {
    let (contacted, model) = tokio::join!(contact(settings), ask_model(settings));
    let log = match contacted {
        Ok((inspector, group)) => read_log(inspector, group, &live_offsets(&model)).await,
        Err(why) => Err(why),
    };
    Seen { log, model }
}

fn live_offsets(model: &Result<Model, Halt>) -> BTreeMap<i32, i64> {
    let Ok(model) = model else { return BTreeMap::new() };
    let live = model.live().map(|it| it.number);
    let offsets = model.offsets.iter().filter(|it| Some(it.generation) == live);
    offsets.map(|it| (it.partition, it.next)).collect()
}

async fn contact(settings: &Settings) -> Result<(Inspector, Result<Group, String>), String> {
    let Settings { kafka, topic, group, .. } = settings.clone();
    let asked = detached(CONTACT + ANSWER, move || {
        let inspector = Inspector::new(&kafka, &topic, &group)?;
        inspector.contact(CONTACT).map_err(|away| away.to_string())?;
        let group = inspector.group(ANSWER);
        Ok((inspector, group))
    });
    asked.await.unwrap_or_else(|| Err("Kafka does not answer".to_owned()))
}

/// Asked after PostgreSQL: no offset is then beyond an end that is older than it.
async fn read_log(
    inspector: Inspector,
    group: Result<Group, String>,
    offsets: &BTreeMap<i32, i64>,
) -> Result<Log, String> {
    let offsets = offsets.clone();
    let asked = detached(3 * ANSWER, move || {
        let partitions = inspector.shape_of_events(ANSWER)?.map_or(0, |shape| shape.partitions);
        let bounds = inspector.bounds(partitions, ANSWER)?;
        let around = inspector.around(&offsets, &bounds, ANSWER);
        Ok(Log { bounds, around, group })
    });
    asked.await.unwrap_or_else(|| Err("Kafka does not answer".to_owned()))
}

async fn ask_model(settings: &Settings) -> Result<Model, Halt> {
    let session = Session::open(&settings.database, "leads-consumer status").await;
    let session = session.map_err(explain)?;
    let told = try_ask_model(&session, &settings.topic).await;
    told.map_err(explain)
}

async fn try_ask_model(session: &Session, topic: &str) -> Result<Model, tokio_postgres::Error> {
    let client = &session.client;
    let generations = read_model::generations(client).await?;
    let before = read_model::offsets(client, topic).await?;
    let started = Instant::now();
    let dead_letters = read_model::dead_letters(client, topic).await?;
    tokio::time::sleep_until(started + RATE_INTERVAL).await;
    let offsets = read_model::offsets(client, topic).await?;
    let elapsed = started.elapsed();
    let mut model = Model { generations, offsets, dead_letters, rate: None };
    if let Some(live) = model.live().map(|it| it.number) {
        model.rate = rate(live, &before, &model.offsets, elapsed);
    }
    Ok(model)
}

/// Records a second by how far the offsets of a generation moved; `None` when they moved back.
fn rate(generation: i32, before: &[Offset], after: &[Offset], elapsed: Duration) -> Option<f64> {
    let sum = |offsets: &[Offset]| {
        offsets.iter().filter(|it| it.generation == generation).map(|it| it.next).sum::<i64>()
    };
    let moved = u32::try_from(sum(after) - sum(before)).ok()?;
    Some(f64::from(moved) / elapsed.as_secs_f64())
}

/// Runs what blocks on a thread of its own, which is left behind when the time is over: a runtime
/// would wait for it.
pub(crate) async fn detached<T: Send + 'static>(
    wait: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || sender.send(work()));
    tokio::time::timeout(wait, receiver).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(generation: i32, next: i64) -> Offset {
        Offset { generation, partition: 0, next, last_event_id: None, sealed: false }
    }

    #[test]
    fn the_rate_is_of_one_generation_and_never_negative() {
        let second = Duration::from_secs(1);
        let rate = |before: &[Offset], after: &[Offset]| rate(1, before, after, second);
        assert_eq!(rate(&[at(1, 5), at(2, 0)], &[at(1, 8), at(2, 90)]), Some(3.0));
        assert_eq!(rate(&[at(1, 5)], &[at(1, 4)]), None);
    }
}
