//! Where the poll thread puts what it reads.

use std::time::Instant;

use tokio::sync::mpsc;

use crate::record::Chunk;

/// A chunk is closed at this size, or when nothing more is there.
const CHUNK_BYTES: usize = 512 * 1024;
pub(super) const CHUNK_RECORDS: usize = 2_000;

/// Where the records of one lane go.
pub(super) struct Outlet {
    chunks: mpsc::Sender<Chunk>,
    pub(super) chunk: Chunk,
    /// Since when the worker has had no room for the chunk.
    pub(super) stalled: Option<Instant>,
    pub(super) paused: bool,
}

impl Outlet {
    pub(super) fn new(chunks: mpsc::Sender<Chunk>) -> Self {
        Self { chunks, chunk: Chunk::default(), stalled: None, paused: false }
    }

    /// Whether a chunk is to be handed on before more is read.
    pub(super) fn is_full(&self) -> bool {
        self.chunk.len() >= CHUNK_RECORDS || self.chunk.size() >= CHUNK_BYTES
    }

    pub(super) fn hand_on(&mut self) {
        if self.chunk.is_empty() {
            return;
        }
        match self.chunks.try_send(std::mem::take(&mut self.chunk)) {
            // With the worker gone, Close is on its way.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => self.stalled = None,
            Err(mpsc::error::TrySendError::Full(chunk)) => {
                self.chunk = chunk;
                self.stalled.get_or_insert_with(Instant::now);
            }
        }
    }
}
