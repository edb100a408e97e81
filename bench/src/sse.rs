//! Reads an event stream, at little cost: it shares the cores with what it measures.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::http::Url;

/// Without a byte for so long, something is missing.
const STUCK: Duration = Duration::from_secs(30);

/// A stream as it comes: chunks taken apart, events put together.
pub(crate) struct Reader {
    stream: TcpStream,
    raw: Vec<u8>,
    /// Where unread bytes begin in `raw`.
    at: usize,
    /// Bytes of the present chunk that are still to come.
    chunk: usize,
    text: Vec<u8>,
    /// Bytes read so far.
    pub(crate) bytes: u64,
}

/// What is wanted of an event.
pub(crate) struct Seen {
    pub(crate) event_id: u128,
    pub(crate) lead_id: u128,
    pub(crate) created: bool,
}

impl Reader {
    pub(crate) async fn open(url: &Url, key: &str, query: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(url.address).await?;
        let authorization = format!("Bearer {key}");
        let path = format!("{}/events?{query}", url.path);
        let request = url.request("GET", &path, &[("authorization", &authorization)], None);
        stream.write_all(&request).await?;
        let mut raw = Vec::with_capacity(256 * 1024);
        let end = loop {
            ensure!(stream.read_buf(&mut raw).await? > 0, "the stream was not opened");
            if let Some(at) = raw.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
        };
        ensure!(
            raw.starts_with(b"HTTP/1.1 200"),
            "the stream was refused: {}",
            String::from_utf8_lossy(&raw)
        );
        Ok(Self { stream, raw, at: end, chunk: 0, text: Vec::new(), bytes: 0 })
    }

    /// Waits for bytes; gives each event that is whole.
    pub(crate) async fn read(&mut self, mut each: impl FnMut(Seen)) -> Result<()> {
        self.raw.drain(..std::mem::take(&mut self.at));
        let reading = self.stream.read_buf(&mut self.raw);
        let read = tokio::time::timeout(STUCK, reading).await.context("events are missing")??;
        ensure!(read > 0, "the stream has ended: {}", String::from_utf8_lossy(&self.text));
        self.bytes += read as u64;
        self.unchunk()?;
        let mut start = 0;
        while let Some(length) = end_of_event(&self.text[start..]) {
            if let Some(seen) = seen(&self.text[start..start + length])? {
                each(seen);
            }
            start += length;
        }
        self.text.drain(..start);
        Ok(())
    }

    fn unchunk(&mut self) -> Result<()> {
        loop {
            let unread = &self.raw[self.at..];
            if self.chunk > 0 {
                let length = self.chunk.min(unread.len());
                self.text.extend_from_slice(&unread[..length]);
                (self.at, self.chunk) = (self.at + length, self.chunk - length);
                if self.chunk > 0 {
                    return Ok(());
                }
                continue;
            }
            // The end of the chunk before, and the length of the next.
            let skip = if unread.starts_with(b"\r\n") { 2 } else { 0 };
            let Some(line) = unread[skip..].windows(2).position(|two| two == b"\r\n") else {
                return Ok(());
            };
            let digits = std::str::from_utf8(&unread[skip..skip + line])?;
            self.chunk = usize::from_str_radix(digits, 16).context("the length of a chunk")?;
            ensure!(self.chunk > 0, "the stream has ended");
            self.at += skip + line + 2;
        }
    }
}

fn end_of_event(text: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = text[from..].iter().position(|byte| *byte == b'\n') {
        if text.get(from + at + 1) == Some(&b'\n') {
            return Some(from + at + 2);
        }
        from += at + 1;
    }
    None
}

/// Reads what it needs by place: the service writes the envelope's fields in this order.
fn seen(event: &[u8]) -> Result<Option<Seen>> {
    let text = std::str::from_utf8(event)?;
    let Some((_, data)) = text.split_once("\ndata: {\"event_id\":\"") else { return Ok(None) };
    let head = &data[..data.len().min(320)];
    let (_, lead) = head.split_once("\"lead_id\":\"").context("an event without lead_id")?;
    let uuid = |text: &str| Uuid::try_parse(text.get(..36).unwrap_or_default());
    Ok(Some(Seen {
        event_id: uuid(data)?.as_u128(),
        lead_id: uuid(lead)?.as_u128(),
        created: head.contains("\"type\":\"LeadCreated\""),
    }))
}
