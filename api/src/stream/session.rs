//! One stream, from its first byte to its last.

use std::convert::Infallible;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::web;
use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use futures_util::stream::poll_fn;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep_until, timeout};
use uuid::Uuid;

use super::filter::Types;
use super::frame::{closing, heartbeat, opening, write_id};
use super::position::{Position, PositionWriter};
use super::queue::{Over, Taken};
use super::replay::{self, CHUNK, Chunk, Order, Step};
use super::tail::Subscription;
use super::{NoStart, READY, Room, Streams};
use crate::access::{Digest, Scope};
use crate::context::{RequestContext, StreamSummary};
use crate::startup::App;

/// Milliseconds after which a client should connect again.
const RETRY: u32 = 1_000;
/// A replay that others wait for gives its turn away after this long.
const TURN: Duration = Duration::from_secs(5);
/// The longest that a stream's last words may take when the process ends.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Why a stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed the connection.
    ClientGone,
    /// More events waited for it than `STREAM_BUFFER` holds.
    SlowReader,
    /// It took nothing for `STREAM_WRITE_TIMEOUT`.
    Stalled,
    /// This instance ends.
    Shutdown,
    /// The key was revoked or replaced.
    KeyRevoked,
    /// The log does not go on where it was.
    LogChanged,
}

impl End {
    pub(super) const ALL: [Self; 6] = [
        Self::ClientGone,
        Self::SlowReader,
        Self::Stalled,
        Self::Shutdown,
        Self::KeyRevoked,
        Self::LogChanged,
    ];

    /// The name in the last event, in metrics and in log lines.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::ClientGone => "client_gone",
            Self::SlowReader => "slow_reader",
            Self::Stalled => "stalled",
            Self::Shutdown => "shutdown",
            Self::KeyRevoked => "key_revoked",
            Self::LogChanged => "log_changed",
        }
    }
}

/// A stream that may begin.
pub struct Opening {
    /// Its room, given back when it ends.
    pub room: Room,
    /// Whose events.
    pub workspace_id: Uuid,
    /// The key it was opened with.
    pub digest: Digest,
    /// Which events.
    pub types: Types,
    /// Where it begins; `None` is now.
    pub from: Option<Position>,
    /// What is known of the request.
    pub context: Rc<RequestContext>,
}

/// Begins a stream: its bytes.
///
/// # Errors
/// When it is to begin now, and the log can't be asked where that is or the process is ending.
pub async fn open(
    app: web::Data<App>,
    opening: Opening,
) -> Result<impl Stream<Item = Result<Bytes, Infallible>> + 'static, NoStart> {
    let Opening { room, workspace_id, digest, types, from, context } = opening;
    let streams = Arc::clone(&app.streams);
    let (position, live) = if let Some(position) = from {
        (position, None)
    } else {
        let live = streams.tail.subscribe(workspace_id, types);
        let mut stop = streams.stop.subscribe();
        let start = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => return Err(NoStart::Stopping),
            start = timeout(READY, live.start()) => start.map_err(|_| NoStart::Unreachable)?,
        };
        (start.clone(), Some((live, start)))
    };
    let (out, mut chunks) = mpsc::channel(1);
    let watch = Watch {
        out: out.clone(),
        stop: streams.stop.subscribe(),
        keys: app.directory.changes(),
        app,
        digest,
    };
    let beat = tokio::time::Instant::now() + streams.config.heartbeat;
    let session = Session {
        writer: PositionWriter::new(workspace_id),
        streams,
        workspace_id,
        types,
        position,
        out,
        watch,
        beat,
        events: 0,
        bytes: 0,
    };
    actix_web::rt::spawn(session.run(live, room, context));
    Ok(poll_fn(move |cx| chunks.poll_recv(cx).map(|chunk| chunk.map(Ok))))
}

/// A subscription, and from where on everything comes over it.
type Live = (Subscription, Position);

struct Session {
    streams: Arc<Streams>,
    workspace_id: Uuid,
    types: Types,
    /// All before it was handed to the connection.
    position: Position,
    writer: PositionWriter,
    out: mpsc::Sender<Bytes>,
    watch: Watch,
    /// When the next heartbeat is due.
    beat: tokio::time::Instant,
    events: u64,
    bytes: u64,
}

/// What ends a stream from outside.
struct Watch {
    out: mpsc::Sender<Bytes>,
    stop: watch::Receiver<bool>,
    keys: watch::Receiver<u64>,
    app: web::Data<App>,
    digest: Digest,
}

impl Watch {
    async fn end(&mut self) -> End {
        loop {
            tokio::select! {
                () = self.out.closed() => return End::ClientGone,
                _ = self.stop.wait_for(|stop| *stop) => return End::Shutdown,
                changed = self.keys.changed() => {
                    let key = self.app.directory.find(&self.digest);
                    if changed.is_err() || !key.is_some_and(|key| key.allows(Scope::LeadsRead)) {
                        return End::KeyRevoked;
                    }
                }
            }
        }
    }
}

impl Session {
    async fn run(mut self, live: Option<Live>, room: Room, context: Rc<RequestContext>) {
        let started = Instant::now();
        let Err(end) = self.stream(live).await;
        self.last_words(end).await;
        self.streams.figures.ended(end);
        context.log_stream(&StreamSummary {
            took: started.elapsed(),
            events: self.events,
            bytes: self.bytes,
            end: end.name(),
        });
        drop(room);
    }

    async fn stream(&mut self, mut live: Option<Live>) -> Result<Infallible, End> {
        let opening = opening(&mut self.writer, &self.position, RETRY);
        self.deliver(opening.freeze(), 0).await?;
        loop {
            let subscription = match live.take() {
                Some((subscription, _)) => subscription,
                None => self.catch_up().await?,
            };
            self.follow(&subscription).await?;
        }
    }

    /// Reads the log until the stream is as far as the shared reader.
    async fn catch_up(&mut self) -> Result<Subscription, End> {
        let (subscription, start) = self.subscribe().await?;
        if self.position.covers(&start) {
            return Ok(subscription);
        }
        drop(subscription);
        loop {
            if let Some(subscription) = self.replay().await? {
                return Ok(subscription);
            }
        }
    }

    /// Reads the log for a turn; gives a subscription that goes on where it ended, if it got so far.
    async fn replay(&mut self) -> Result<Option<Subscription>, End> {
        let streams = Arc::clone(&self.streams);
        let Some(permit) = self.until(streams.turn(), None).await? else {
            return Err(End::Shutdown);
        };
        let _counted = streams.figures.replay();
        let order = Order {
            source: streams.source.clone(),
            from: self.position.clone(),
            workspace_id: self.workspace_id,
            types: self.types,
            permit,
        };
        let Ok(mut steps) = replay::start(order) else { return Ok(None) };
        let began = Instant::now();
        let mut live: Option<Live> = None;
        while let Some(step) = self.until(steps.recv(), None).await? {
            let Chunk { bytes, events, position, near_end } = match step {
                Step::Chunk(chunk) => chunk,
                Step::Gone => return Err(End::LogChanged),
            };
            if !bytes.is_empty() {
                self.deliver(bytes, events).await?;
            }
            self.position = position;
            if live.is_none() && near_end {
                live = Some(self.subscribe().await?);
            }
            match live.take() {
                // What came meanwhile was more than may wait: read on, and try it again.
                Some((subscription, _)) if subscription.is_over() => {}
                Some((subscription, start)) if self.position.covers(&start) => {
                    return Ok(Some(subscription));
                }
                Some(waiting) => live = Some(waiting),
                None if began.elapsed() > TURN && streams.others_wait() => return Ok(None),
                None => {}
            }
        }
        Ok(None)
    }

    async fn subscribe(&mut self) -> Result<Live, End> {
        let subscription = self.streams.tail.subscribe(self.workspace_id, self.types);
        let start = self.until(subscription.start(), None).await?;
        Ok((subscription, start))
    }

    /// Passes on what comes at the end of the log.
    async fn follow(&mut self, subscription: &Subscription) -> Result<(), End> {
        loop {
            let taken = self.until(subscription.next(), Some(subscription)).await?;
            let Taken { events, progress, over } = taken;
            let mut ahead = self.position.clone();
            let mut buffer = BytesMut::new();
            let mut count = 0;
            for event in events {
                if ahead.has_seen(event.partition, event.offset) {
                    continue;
                }
                ahead.see(event.partition, event.offset, event.id);
                write_id(&mut self.writer, &ahead, &mut buffer);
                buffer.extend_from_slice(&event.body);
                count += 1;
                if buffer.len() >= CHUNK {
                    self.deliver(buffer.split().freeze(), std::mem::take(&mut count)).await?;
                    self.position.clone_from(&ahead);
                }
            }
            if count > 0 {
                self.deliver(buffer.freeze(), count).await?;
            }
            if let Some(progress) = progress {
                ahead.merge(&progress);
            }
            self.position = ahead;
            match over {
                None => {}
                Some(Over::TooSlow) => return Err(End::SlowReader),
                Some(Over::LogChanged) => return Err(End::LogChanged),
            }
        }
    }

    /// Waits for `work`; meanwhile the heart beats, and what ends the stream ends it.
    async fn until<T>(
        &mut self,
        work: impl Future<Output = T>,
        live: Option<&Subscription>,
    ) -> Result<T, End> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                end = self.watch.end() => return Err(end),
                done = &mut work => return Ok(done),
                () = sleep_until(self.beat) => {}
            }
            if let Some(progress) = live.and_then(Subscription::progress) {
                self.position.merge(&progress);
            }
            let beat = heartbeat(&mut self.writer, &self.position);
            self.deliver(beat.freeze(), 0).await?;
        }
    }

    /// Hands bytes to the connection; waits while it has not taken those before.
    async fn deliver(&mut self, bytes: Bytes, events: u64) -> Result<(), End> {
        let length = bytes.len();
        let limit = self.streams.config.write_timeout;
        tokio::select! {
            biased;
            end = self.watch.end() => return Err(end),
            sent = timeout(limit, self.out.send(bytes)) => match sent {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(End::ClientGone),
                Err(_) => return Err(End::Stalled),
            },
        }
        self.beat = tokio::time::Instant::now() + self.streams.config.heartbeat;
        self.events += events;
        self.bytes += length as u64;
        self.streams.figures.delivered(events, length);
        Ok(())
    }

    /// Says why the stream ends and where to go on. Not to one that takes nothing: its position is
    /// that of the last event it took.
    async fn last_words(&mut self, end: End) {
        let patience = match end {
            End::ClientGone | End::Stalled => return,
            End::SlowReader => self.streams.config.write_timeout,
            End::Shutdown | End::KeyRevoked | End::LogChanged => LAST_WORDS,
        };
        let words = closing(&mut self.writer, &self.position, end.name()).freeze();
        let mut stop = self.streams.stop.subscribe();
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        tokio::select! {
            _ = timeout(patience, self.out.send(words)) => {}
            () = stopped => {}
        }
    }
}
