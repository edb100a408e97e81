//! A reader of Server-Sent Events, as strict as a test needs it.
//!
//! Source: <https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation>.

use std::time::Duration;

use reqwest::{Method, Response};
use serde_json::Value;

use crate::{Api, DEADLINE, Key};

const FOR_EVER: Duration = Duration::from_hours(1);

/// An event as a reader is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEvent {
    /// The position behind it.
    pub id: String,
    /// Its type.
    pub event: String,
    /// Its data: several lines with line feeds between them.
    pub data: String,
}

impl StreamEvent {
    /// The data as JSON.
    ///
    /// # Panics
    /// When it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.data))
    }

    /// The event id in the data.
    ///
    /// # Panics
    /// When there is none.
    pub fn event_id(&self) -> String {
        self.json()["event_id"].as_str().expect("event_id").to_owned()
    }
}

/// An open stream. Dropped: the connection is closed.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    unread: Vec<u8>,
    /// How many of the unread bytes hold no end of a block.
    looked: usize,
    last_id: String,
    comments: usize,
}

impl EventStream {
    /// A header of the answer.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// The position to resume from.
    pub fn last_id(&self) -> &str {
        &self.last_id
    }

    /// The comments so far.
    pub fn comments(&self) -> usize {
        self.comments
    }

    /// The next event, or `None` at the end of the stream, however it came.
    ///
    /// # Panics
    /// When no event comes for [`DEADLINE`], and when a line is none of the protocol's.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        let next = async {
            loop {
                if let Some(event) = self.block().await? {
                    return Some(event);
                }
            }
        };
        // Heartbeats are no events: they don't keep a test waiting for one that is lost.
        let event = tokio::time::timeout(DEADLINE, next).await;
        event.unwrap_or_else(|_| panic!("no event on the stream for {DEADLINE:?}"))
    }

    /// So many events.
    ///
    /// # Panics
    /// When the stream ends before.
    pub async fn take(&mut self, count: usize) -> Vec<StreamEvent> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            let event = self.next().await;
            events.push(event.unwrap_or_else(|| panic!("ended after {} events", events.len())));
        }
        events
    }

    /// Reads until a position or a comment comes that is no event's.
    ///
    /// # Panics
    /// When the stream ends, or an event comes.
    pub async fn quiet(&mut self) {
        let block = self.block().await;
        assert_eq!(block, Some(None), "a block without an event");
    }

    /// One block up to its empty line; `Some(None)` is one that tells of no event.
    async fn block(&mut self) -> Option<Option<StreamEvent>> {
        let end = loop {
            if let Some(at) = end_of_block(&self.unread, self.looked) {
                break at;
            }
            self.looked = self.unread.len().saturating_sub(1);
            let chunk = tokio::time::timeout(DEADLINE, self.response.chunk()).await;
            let chunk = chunk.unwrap_or_else(|_| panic!("nothing on the stream for {DEADLINE:?}"));
            self.unread.extend_from_slice(&chunk.ok()??);
        };
        let mut block: Vec<u8> = self.unread.drain(..end + 2).collect();
        block.truncate(end);
        self.looked = 0;
        let block = String::from_utf8(block).expect("a stream is UTF-8");
        assert!(!block.contains('\r'), "the service ends lines by line feeds: {block:?}");
        let (mut event, mut data) = (String::new(), Vec::new());
        for line in block.lines() {
            match line.split_once(':').expect("a field or a comment") {
                ("", _) => self.comments += 1,
                (name, value) => {
                    let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                    match name {
                        "id" => self.last_id = value,
                        "event" => event = value,
                        "data" => data.push(value),
                        "retry" => assert!(value.parse::<u32>().is_ok(), "{line}"),
                        _ => panic!("a field that is none of the protocol's: {line}"),
                    }
                }
            }
        }
        let id = self.last_id.clone();
        Some((!data.is_empty()).then(|| StreamEvent { id, event, data: data.join("\n") }))
    }
}

/// Where the empty line that ends a block begins, looked for from `from` on.
fn end_of_block(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        let at = from + bytes.get(from..)?.iter().position(|byte| *byte == b'\n')?;
        if bytes.get(at + 1) == Some(&b'\n') {
            return Some(at);
        }
        from = at + 1;
    }
}

impl Api {
    /// Opens a stream: `query` as it stands behind the question mark, and the position to resume from.
    ///
    /// # Errors
    /// When there is no answer, and the answer when it is an error's.
    pub async fn try_stream(
        &self,
        key: &Key,
        query: &str,
        last_event_id: Option<&str>,
    ) -> Result<EventStream, String> {
        let path = format!("/api/v1/leads/events?{query}");
        let mut request = self.request(Method::GET, &path).bearer_auth(&key.secret);
        request = request.header("accept", "text/event-stream").timeout(FOR_EVER);
        if let Some(id) = last_event_id {
            request = request.header("last-event-id", id);
        }
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        if response.status() != 200 {
            let status = response.status();
            return Err(format!("{status} {}", response.text().await.unwrap_or_default()));
        }
        let mut stream = EventStream {
            response,
            unread: Vec::new(),
            looked: 0,
            last_id: String::new(),
            comments: 0,
        };
        // The first block is the position at which it begins.
        if stream.block().await != Some(None) {
            return Err("the stream ended at once".to_owned());
        }
        Ok(stream)
    }

    /// The same, and it has to open.
    ///
    /// # Panics
    /// When it doesn't.
    pub async fn stream(&self, key: &Key, query: &str, from: Option<&str>) -> EventStream {
        let opened = self.try_stream(key, query, from).await;
        opened.unwrap_or_else(|error| panic!("no stream: {error}"))
    }
}
