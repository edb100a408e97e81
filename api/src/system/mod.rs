//! How the whole system stands, for its operators: `GET /api/v1/system/…`.
//!
//! PostgreSQL and Kafka are looked at once for all who ask within a moment: a hundred consoles cost
//! them as much as one. What can't be had in time is told as unknown, with the cause.

mod shared;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use leads_shared::Timestamp;
use tokio::time::timeout;
use uuid::Uuid;

use crate::broker::{Bounds, Broker, BrokerState, LogSource, Questions};
use crate::read_model::{
    DeadLetter, DeadLetterPlace, ReadModel, ReadModelError, Standing, WhichDeadLetters,
};
use shared::Shared;

/// The longest wait for PostgreSQL.
const POSTGRES: Duration = Duration::from_secs(1);
/// The longest wait for each of two answers by Kafka.
const KAFKA: Duration = Duration::from_millis(1500);

/// Looks, and remembers for a moment what it saw.
pub struct System {
    instance: Instance,
    looker: Arc<Looker>,
    seen: Shared<Seen>,
    totals: Shared<Result<(i64, i64), ReadModelError>>,
}

/// Which process this is.
#[derive(Debug, Clone)]
pub struct Instance {
    /// `HOST:PID`
    pub id: String,
    /// When it was started.
    pub started_at: Timestamp,
}

/// What one look has seen.
#[derive(Debug)]
pub struct Seen {
    /// When it began.
    pub at: Timestamp,
    /// PostgreSQL's half, or why there is none.
    pub model: Result<Standing, String>,
    /// Kafka's half, or why there is none.
    pub log: Result<Log, String>,
}

/// What the brokers tell.
#[derive(Debug, Clone)]
pub struct Log {
    /// What the partitions hold.
    pub bounds: Bounds,
    /// When the oldest record that is not projected was made, in Unix milliseconds; of partitions
    /// that have one, as far as it could be read.
    pub oldest: BTreeMap<i32, i64>,
}

struct Looker {
    read_model: ReadModel,
    broker: Arc<Broker>,
    questions: Questions,
    /// Offset and time of what was read last, by partition: while nothing is projected, nothing is
    /// read again.
    read: Mutex<HashMap<i32, (i64, i64)>>,
}

impl System {
    /// Starts a thread for questions about the log; it makes no connection before the first.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(
        read_model: ReadModel,
        broker: Arc<Broker>,
        source: LogSource,
    ) -> std::io::Result<Self> {
        let questions = Questions::start(source)?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let instance = Instance {
            id: format!("{host}:{}", std::process::id()),
            started_at: Timestamp::from(Utc::now()),
        };
        let looker = Looker { read_model, broker, questions, read: Mutex::default() };
        let (seen, totals) = (Shared::default(), Shared::default());
        Ok(Self { instance, looker: Arc::new(looker), seen, totals })
    }

    /// Which process this is.
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// PostgreSQL and Kafka as they are now, or were a moment ago. Takes four seconds at most. `None`
    /// when the process is ending.
    pub async fn seen(&self) -> Option<Arc<Seen>> {
        let looker = Arc::clone(&self.looker);
        self.seen.get(|| async move { looker.look().await }).await
    }

    /// How many dead letters wait, and how many there are in all, now or a moment ago.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn dead_letter_totals(&self) -> Result<(i64, i64), ReadModelError> {
        let read_model = self.looker.read_model.clone();
        let look = || async move { in_time(read_model.dead_letter_totals()).await };
        self.totals.get(look).await.map_or(Err(ReadModelError::Unavailable), |found| *found)
    }

    /// A page of dead letters, the newest first.
    ///
    /// # Errors
    /// [`ReadModelError::Unavailable`].
    pub async fn dead_letters(
        &self,
        which: WhichDeadLetters,
        after: Option<DeadLetterPlace>,
        limit: i64,
    ) -> Result<Vec<DeadLetter>, ReadModelError> {
        in_time(self.looker.read_model.dead_letters(which, after, limit)).await
    }

    /// When these keys were last used, as far as it is known.
    pub async fn key_uses(&self, keys: &[Uuid]) -> HashMap<Uuid, Timestamp> {
        // Best effort: keys are listed without PostgreSQL too.
        in_time(self.looker.read_model.key_uses_of(keys)).await.unwrap_or_default()
    }
}

impl Looker {
    async fn look(&self) -> Seen {
        let at = Timestamp::from(Utc::now());
        let model = self.ask_model().await;
        // After PostgreSQL: no offset is then beyond an end that is older than it.
        let log = self.ask_log(model.as_ref().ok()).await;
        Seen { at, model, log }
    }

    async fn ask_model(&self) -> Result<Standing, String> {
        match timeout(POSTGRES, self.read_model.standing()).await {
            Ok(Ok(standing)) => Ok(standing),
            Ok(Err(_)) => Err(match self.read_model.trouble() {
                Some(cause) => format!("PostgreSQL is away: {cause}"),
                None => "PostgreSQL refuses to answer: the API's log has its SQLSTATE; \
                     `leads-consumer doctor` tells what to do"
                    .to_owned(),
            }),
            Err(_) => Err(format!("PostgreSQL is away: no answer within {POSTGRES:?}")),
        }
    }

    async fn ask_log(&self, model: Option<&Standing>) -> Result<Log, String> {
        if self.broker.state() != BrokerState::Up {
            let cause = self.broker.trouble().map(|cause| format!(": {cause}"));
            return Err(format!("Kafka is away{}", cause.unwrap_or_default()));
        }
        let silent = || format!("Kafka does not answer within {KAFKA:?}");
        let bounds = timeout(KAFKA, self.questions.bounds()).await;
        let bounds = bounds.ok().and_then(Result::ok).ok_or_else(silent)?;
        let oldest = match model {
            Some(model) => self.oldest(&waiting(model, &bounds)).await,
            None => BTreeMap::new(),
        };
        Ok(Log { bounds, oldest })
    }

    /// The times of the records at these offsets.
    async fn oldest(&self, waiting: &BTreeMap<i32, i64>) -> BTreeMap<i32, i64> {
        let mut times = {
            let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
            read.retain(|partition, (offset, _)| waiting.get(partition) == Some(offset));
            read.iter()
                .map(|(partition, (_, time))| (*partition, *time))
                .collect::<BTreeMap<_, _>>()
        };
        let missing = waiting.iter().filter(|(partition, _)| !times.contains_key(partition));
        let places: Vec<(usize, i64)> = missing
            .filter_map(|(partition, offset)| Some((usize::try_from(*partition).ok()?, *offset)))
            .collect();
        if places.is_empty() {
            return times;
        }
        let found = timeout(KAFKA, self.questions.times_at(places)).await;
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        for (partition, time) in found.ok().and_then(Result::ok).unwrap_or_default() {
            let Ok(partition) = i32::try_from(partition) else { continue };
            times.insert(partition, time);
            read.extend(waiting.get(&partition).map(|offset| (partition, (*offset, time))));
        }
        times
    }
}

async fn in_time<T>(
    read: impl Future<Output = Result<T, ReadModelError>>,
) -> Result<T, ReadModelError> {
    timeout(POSTGRES, read).await.unwrap_or(Err(ReadModelError::Unavailable))
}

/// Where the live projection goes on, of partitions that hold something for it.
fn waiting(model: &Standing, bounds: &Bounds) -> BTreeMap<i32, i64> {
    let partitions = bounds.starts.iter().zip(&bounds.ends).zip(0_i32..);
    let waiting = partitions.filter_map(|((start, end), partition)| {
        let live = model.live.as_ref()?;
        let next = live.next.get(&partition).copied().unwrap_or(0).max(*start);
        (next < *end).then_some((partition, next))
    });
    waiting.collect()
}
