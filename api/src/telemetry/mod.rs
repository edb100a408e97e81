//! Logging to standard output: for people on a terminal, JSON elsewhere.

mod lines;

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use lines::JsonLines;

/// Lines are written together: one system call a line would cost more than the line.
const FLUSH_EVERY: Duration = Duration::from_millis(20);
/// Above this, the writer is woken at once.
const FLUSH_BYTES: usize = 64 * 1024;
/// Above this, lines are dropped and counted: whoever reads our output has stopped.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Starts logging; what is not written yet is written when the guard is dropped.
///
/// # Errors
/// When `filter` is no filter.
pub fn init(filter: &str) -> Result<FlushGuard, String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("LOG_LEVEL={filter}: {error}; write error, warn, info, debug or trace")
    })?;
    let registry = tracing_subscriber::registry().with(filter).with(filter_fn(keeps_contents));
    let output = Output::start();
    let writer = SharedWriter(Arc::clone(&output));
    if io::stdout().is_terminal() {
        registry.with(tracing_subscriber::fmt::layer().with_writer(writer)).init();
    } else {
        let json = tracing_subscriber::fmt::layer().event_format(JsonLines).with_writer(writer);
        registry.with(json).init();
    }
    Ok(FlushGuard(output))
}

/// Whatever level is set: tokio-postgres writes the parameters of statements at debug level, and
/// those are lead contents.
fn keeps_contents(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || !metadata.target().starts_with("tokio_postgres")
}

/// Writes what is left when it is dropped.
#[must_use = "the last lines are written when the guard is dropped"]
pub struct FlushGuard(Arc<Output>);

impl Drop for FlushGuard {
    fn drop(&mut self) {
        self.0.flush();
    }
}

#[derive(Default)]
struct Output {
    pending: Mutex<Pending>,
    full: Condvar,
    /// Held while writing, so that lines keep their order.
    writing: Mutex<()>,
}

#[derive(Default)]
struct Pending {
    bytes: Vec<u8>,
    dropped: u64,
}

impl Output {
    fn start() -> Arc<Self> {
        let output = Arc::new(Self::default());
        let shared = Arc::clone(&output);
        let thread = thread::Builder::new().name("log-writer".to_owned()).spawn(move || {
            loop {
                let pending = shared.lock();
                let wait = shared.full.wait_timeout(pending, FLUSH_EVERY);
                drop(wait.unwrap_or_else(PoisonError::into_inner));
                shared.flush();
            }
        });
        if thread.is_err() {
            // Without the thread the lines come at the end; there is nowhere to say so but here.
            let _ = io::stderr().write_all(b"no thread for the log could be started\n");
        }
        output
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: &[u8]) {
        let mut pending = self.lock();
        if pending.bytes.len() + line.len() > MAX_BYTES {
            pending.dropped += 1;
            return;
        }
        pending.bytes.extend_from_slice(line);
        if pending.bytes.len() > FLUSH_BYTES {
            self.full.notify_one();
        }
    }

    fn flush(&self) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let Pending { bytes, dropped } = std::mem::take(&mut *self.lock());
        let mut stdout = io::stdout().lock();
        // A closed output is no reason to stop taking leads in.
        if dropped > 0 {
            let _ = writeln!(
                stdout,
                "{{\"level\":\"WARN\",\"message\":\"{dropped} log lines were dropped\"}}"
            );
        }
        let _ = stdout.write_all(&bytes);
        let _ = stdout.flush();
    }
}

#[derive(Clone)]
struct SharedWriter(Arc<Output>);

impl Write for SharedWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for SharedWriter {
    type Writer = Self;
    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
