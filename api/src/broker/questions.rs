//! What the events topic holds, asked on a thread of its own for all who want to know.

use std::collections::HashMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::reader::{LogReader, LogSource, Read, ReadAhead, Unreachable};

/// The longest an answer takes once its turn has come.
const ANSWER: Duration = Duration::from_secs(2);
/// A client that nobody asks anything is given up.
const IDLE: Duration = Duration::from_mins(1);

/// What the partitions hold: from `starts` to before `ends`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bounds {
    /// The first offset that each partition holds.
    pub starts: Vec<i64>,
    /// The offset behind the last record of each partition.
    pub ends: Vec<i64>,
}

/// When records were made, in Unix milliseconds, by partition.
pub type Times = HashMap<usize, i64>;

enum Question {
    Bounds(oneshot::Sender<Result<Bounds, Unreachable>>),
    AtTime(i64, oneshot::Sender<Result<Vec<i64>, Unreachable>>),
    IdAt(usize, i64, oneshot::Sender<Result<Option<u32>, Unreachable>>),
    TimesAt(Vec<(usize, i64)>, oneshot::Sender<Result<Times, Unreachable>>),
}

/// Takes questions about the log.
#[derive(Debug)]
pub struct Questions(mpsc::Sender<Question>);

impl Questions {
    /// Starts the thread that answers; it ends when this is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn start(source: LogSource) -> std::io::Result<Self> {
        let (sender, questions) = mpsc::channel();
        thread::Builder::new().name("log-questions".to_owned()).spawn(move || {
            while let Ok(first) = questions.recv() {
                serve(&source, &questions, first);
            }
        })?;
        Ok(Self(sender))
    }

    /// What the partitions hold now.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn bounds(&self) -> Result<Bounds, Unreachable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::Bounds(reply), answer).await
    }

    /// The first offset of each partition whose record is of that time or later; the end where there
    /// is none.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn at_time(&self, unix_millis: i64) -> Result<Vec<i64>, Unreachable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::AtTime(unix_millis, reply), answer).await
    }

    /// The checksum (CRC-32) of the id of the record at an offset; `None` when the partition holds
    /// no such record.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn id_at(&self, partition: usize, offset: i64) -> Result<Option<u32>, Unreachable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::IdAt(partition, offset, reply), answer).await
    }

    /// When the first record from an offset on was made, of each of these partitions. Those are left
    /// out whose record could not be had in time.
    ///
    /// # Errors
    /// [`Unreachable`].
    pub async fn times_at(&self, places: Vec<(usize, i64)>) -> Result<Times, Unreachable> {
        let (reply, answer) = oneshot::channel();
        self.ask(Question::TimesAt(places, reply), answer).await
    }

    async fn ask<T>(
        &self,
        question: Question,
        answer: oneshot::Receiver<Result<T, Unreachable>>,
    ) -> Result<T, Unreachable> {
        self.0.send(question).map_err(|_| Unreachable)?;
        let answer = tokio::time::timeout(ANSWER * 2, answer).await;
        answer.map_err(|_| Unreachable)?.map_err(|_| Unreachable)?
    }
}

/// Answers with one client, until it fails or nobody asks any more.
fn serve(source: &LogSource, questions: &mpsc::Receiver<Question>, first: Question) {
    let Ok(reader) = LogReader::open(source, ReadAhead::Little) else { return };
    let mut next = Some(first);
    while let Some(question) = next.take().or_else(|| questions.recv_timeout(IDLE).ok()) {
        // All who want to know the bounds at this moment have one answer, asked after they came.
        let mut bounds = Vec::new();
        let mut others = Vec::new();
        for question in std::iter::once(question).chain(questions.try_iter()) {
            match question {
                Question::Bounds(reply) => bounds.push(reply),
                other => others.push(other),
            }
        }
        let mut failed = false;
        if !bounds.is_empty() {
            let found = look(&reader);
            failed |= found.is_err();
            for reply in bounds {
                let _ = reply.send(found.clone());
            }
        }
        for question in others {
            failed |= match question {
                Question::Bounds(_) => false,
                Question::AtTime(time, reply) => told(reply, at_time(&reader, time)),
                Question::IdAt(partition, offset, reply) => {
                    told(reply, id_at(&reader, partition, offset))
                }
                Question::TimesAt(places, reply) => told(reply, times_at(&reader, &places)),
            };
        }
        if failed {
            return;
        }
    }
}

/// Whether it failed.
fn told<T>(reply: oneshot::Sender<Result<T, Unreachable>>, found: Result<T, Unreachable>) -> bool {
    let failed = found.is_err();
    let _ = reply.send(found);
    failed
}

fn look(reader: &LogReader) -> Result<Bounds, Unreachable> {
    let partitions = reader.partitions(ANSWER)?;
    let starts = reader.starts(partitions, ANSWER)?;
    Ok(Bounds { starts, ends: reader.ends(partitions, ANSWER)? })
}

fn at_time(reader: &LogReader, unix_millis: i64) -> Result<Vec<i64>, Unreachable> {
    let partitions = reader.partitions(ANSWER)?;
    let ends = reader.ends(partitions, ANSWER)?;
    let found = reader.at_time(partitions, unix_millis, ANSWER)?;
    Ok(found.into_iter().zip(ends).map(|(offset, end)| offset.unwrap_or(end)).collect())
}

fn id_at(reader: &LogReader, partition: usize, offset: i64) -> Result<Option<u32>, Unreachable> {
    reader.read_one(partition, offset)?;
    let deadline = Instant::now() + ANSWER;
    let found = loop {
        match reader.poll(Duration::from_millis(50)) {
            // Of an assignment before this one, still in the queue.
            Read::Record(record) if record.partition() != partition => {}
            Read::Record(record) if record.offset() < offset => {}
            Read::Record(record) => {
                let found = record.offset() == offset;
                break Ok(found.then(|| record.id_checksum()));
            }
            Read::Gone => break Ok(None),
            Read::End(_) | Read::Nothing | Read::Trouble => {}
        }
        if Instant::now() > deadline {
            break Err(Unreachable);
        }
    };
    let _ = reader.read_from(&[]);
    found
}

fn times_at(reader: &LogReader, places: &[(usize, i64)]) -> Result<Times, Unreachable> {
    let mut missing: HashMap<usize, i64> = places.iter().copied().collect();
    let mut times = Times::new();
    reader.read_some(places)?;
    let deadline = Instant::now() + ANSWER;
    while !missing.is_empty() && Instant::now() < deadline {
        match reader.poll(Duration::from_millis(50)) {
            Read::Record(record) => {
                let partition = record.partition();
                // An earlier one is of an assignment before this one, still in the queue. Later
                // ones come while others are waited for: pausing would outlast the assignment.
                if missing.get(&partition).is_some_and(|offset| record.offset() >= *offset) {
                    missing.remove(&partition);
                    times.extend(record.time_millis().map(|time| (partition, time)));
                }
            }
            Read::End(partition) => {
                missing.retain(|missing, _| i32::try_from(*missing) != Ok(partition));
            }
            Read::Gone => break,
            Read::Nothing | Read::Trouble => {}
        }
    }
    let _ = reader.read_from(&[]);
    Ok(times)
}
