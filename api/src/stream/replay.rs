//! What the log holds already, read for one stream by a reader of its own.

use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use uuid::Uuid;

use super::filter::{Types, owner};
use super::frame::{write_body, write_id};
use super::position::{Position, PositionWriter};
use crate::broker::{LogReader, LogRecord, LogSource, Read, ReadAhead};

/// Bytes of events that are handed on together.
pub(super) const CHUNK: usize = 64 * 1024;
/// Chunks that may wait for the stream.
const CHUNKS_AHEAD: usize = 4;
/// How often a stream learns how far the log was read when none of it is its own.
const PROGRESS: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// Without anything from the brokers for so long, the reader is given up.
const GIVE_UP: Duration = Duration::from_secs(10);

/// One step of a replay.
#[derive(Debug)]
pub(super) enum Step {
    /// Events, ready to be sent; maybe none.
    Chunk(Chunk),
    /// The log does not hold the position any more.
    Gone,
}

/// Events, ready to be sent.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Bytes,
    pub(super) events: u64,
    /// Behind the last of them.
    pub(super) position: Position,
    /// Every partition has been at its end: the tail is near.
    pub(super) near_end: bool,
}

/// What is replayed for whom.
pub(super) struct Order {
    pub(super) source: LogSource,
    pub(super) from: Position,
    pub(super) workspace_id: Uuid,
    pub(super) types: Types,
    /// Given back when the reader is gone.
    pub(super) permit: OwnedSemaphorePermit,
}

/// Starts reading. Ends when the receiver is dropped; the channel ends early when the brokers are
/// away for long.
pub(super) fn start(order: Order) -> std::io::Result<mpsc::Receiver<Step>> {
    let (steps, receiver) = mpsc::channel(CHUNKS_AHEAD);
    thread::Builder::new().name("log-replay".to_owned()).spawn(move || {
        let Order { source, from, workspace_id, types, permit } = order;
        if let Ok(reader) = LogReader::open(&source, ReadAhead::Much)
            && reader.read_from(from.next()).is_ok()
        {
            let at_end = vec![false; from.next().len()];
            let writer = PositionWriter::new(workspace_id);
            let buffer = BytesMut::with_capacity(CHUNK);
            let told = Instant::now();
            let mut replay = Replay {
                steps,
                workspace_id,
                types,
                position: from,
                writer,
                buffer,
                events: 0,
                moved: false,
                at_end,
                told,
            };
            replay.run(&reader);
        }
        drop(permit);
    })?;
    Ok(receiver)
}

struct Replay {
    steps: mpsc::Sender<Step>,
    workspace_id: Uuid,
    types: Types,
    position: Position,
    writer: PositionWriter,
    buffer: BytesMut,
    events: u64,
    /// Whether the position has changed since it was handed on.
    moved: bool,
    /// The partitions that have been at their end.
    at_end: Vec<bool>,
    told: Instant,
}

/// The stream takes no more.
struct Unwanted;

impl Replay {
    fn run(&mut self, reader: &LogReader) {
        let mut reached = Instant::now();
        let mut wait = POLL;
        while reached.elapsed() < GIVE_UP {
            let outcome = match reader.poll(wait) {
                Read::Record(record) => {
                    (reached, wait) = (Instant::now(), Duration::ZERO);
                    self.take(&record)
                }
                Read::End(partition) => {
                    reached = Instant::now();
                    self.note_end(partition)
                }
                Read::Nothing if wait.is_zero() => {
                    wait = POLL;
                    self.hand_on()
                }
                Read::Nothing | Read::Trouble if self.steps.is_closed() => Err(Unwanted),
                Read::Nothing | Read::Trouble => Ok(()),
                Read::Gone => {
                    let _ = self.steps.blocking_send(Step::Gone);
                    Err(Unwanted)
                }
            };
            if outcome.is_err() {
                return;
            }
            if self.is_near_end() {
                // At the end of a quiet log nothing comes, and nothing is wrong.
                reached = Instant::now();
            }
        }
    }

    fn take(&mut self, record: &LogRecord<'_>) -> Result<(), Unwanted> {
        let (partition, offset) = (record.partition(), record.offset());
        let (attributes, value) = (record.attributes(), record.value());
        self.position.see(partition, offset, attributes.id_checksum(value));
        self.moved = true;
        if let Some((workspace_id, event_type)) = owner(&attributes, value)
            && workspace_id == self.workspace_id
            && self.types.take(&event_type)
        {
            write_id(&mut self.writer, &self.position, &mut self.buffer);
            write_body(&event_type, value.unwrap_or_default(), &mut self.buffer);
            self.events += 1;
        }
        if self.buffer.len() >= CHUNK || self.told.elapsed() > PROGRESS {
            return self.hand_on();
        }
        Ok(())
    }

    fn note_end(&mut self, partition: i32) -> Result<(), Unwanted> {
        let place = usize::try_from(partition).ok();
        let Some(at_end) = place.and_then(|at| self.at_end.get_mut(at)) else { return Ok(()) };
        if std::mem::replace(at_end, true) || !self.is_near_end() {
            return Ok(());
        }
        self.moved = true;
        self.hand_on()
    }

    fn is_near_end(&self) -> bool {
        self.at_end.iter().all(|at_end| *at_end)
    }

    fn hand_on(&mut self) -> Result<(), Unwanted> {
        if !std::mem::take(&mut self.moved) {
            return Ok(());
        }
        self.told = Instant::now();
        let bytes = std::mem::replace(&mut self.buffer, BytesMut::with_capacity(CHUNK)).freeze();
        let step = Step::Chunk(Chunk {
            bytes,
            events: std::mem::take(&mut self.events),
            position: self.position.clone(),
            near_end: self.is_near_end(),
        });
        self.steps.blocking_send(step).map_err(|_| Unwanted)
    }
}
