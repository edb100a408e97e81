//! Records as they come from the log, many in one buffer. Knows neither Kafka nor SQL.

/// A run of records in the order of their arrival, their bytes in one buffer: a record costs no
/// allocation of its own.
#[derive(Debug, Default)]
pub struct Chunk {
    bytes: Vec<u8>,
    headers: Vec<HeaderSpan>,
    records: Vec<Spans>,
}

#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Debug)]
struct HeaderSpan {
    name: Span,
    value: Option<Span>,
}

#[derive(Debug)]
struct Spans {
    partition: i32,
    epoch: u32,
    offset: i64,
    time_millis: Option<i64>,
    key: Option<Span>,
    value: Option<Span>,
    headers: Span,
}

impl Chunk {
    /// Appends a record. `epoch` tells which positioning of its partition it was read under.
    pub fn push<'h>(
        &mut self,
        place: Place,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl IntoIterator<Item = (&'h str, Option<&'h [u8]>)>,
    ) {
        let Place { partition, epoch, offset, time_millis } = place;
        let key = key.map(|key| self.copy(key));
        let value = value.map(|value| self.copy(value));
        let start = index(self.headers.len());
        for (name, value) in headers {
            let name = self.copy(name.as_bytes());
            let value = value.map(|value| self.copy(value));
            self.headers.push(HeaderSpan { name, value });
        }
        let headers = Span { start, end: index(self.headers.len()) };
        self.records.push(Spans { partition, epoch, offset, time_millis, key, value, headers });
    }

    /// How many records it holds.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Bytes of keys, values and headers.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The record at `index`, and the epoch it was read under.
    pub fn get(&self, index: usize) -> Option<(Record<'_>, u32)> {
        let spans = self.records.get(index)?;
        let record = Record {
            partition: spans.partition,
            offset: spans.offset,
            time_millis: spans.time_millis,
            key: spans.key.map(|span| self.at(span)),
            value: spans.value.map(|span| self.at(span)),
            headers: RecordHeaders { chunk: self, span: spans.headers },
        };
        Some((record, spans.epoch))
    }

    fn copy(&mut self, bytes: &[u8]) -> Span {
        let start = index(self.bytes.len());
        self.bytes.extend_from_slice(bytes);
        Span { start, end: index(self.bytes.len()) }
    }

    fn at(&self, span: Span) -> &[u8] {
        &self.bytes[span.start as usize..span.end as usize]
    }
}

/// A chunk is closed long before 4 GiB: the largest record that a broker hands out is 2 GiB.
fn index(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Where and when a record was read.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Its partition.
    pub partition: i32,
    /// Which positioning of the partition it was read under.
    pub epoch: u32,
    /// Its offset.
    pub offset: i64,
    /// The record's own time, in milliseconds since 1970.
    pub time_millis: Option<i64>,
}

/// One record, borrowed from its chunk. Its `Debug` shows no contents.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// The record's own time, in milliseconds since 1970.
    pub time_millis: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: RecordHeaders<'a>,
}

impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({}:{})", self.partition, self.offset)
    }
}

/// The headers of a record, in their order.
#[derive(Clone, Copy)]
pub struct RecordHeaders<'a> {
    chunk: &'a Chunk,
    span: Span,
}

impl<'a> RecordHeaders<'a> {
    /// Name and value of each header.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, Option<&'a [u8]>)> {
        let chunk = self.chunk;
        chunk.headers[self.span.start as usize..self.span.end as usize].iter().map(move |header| {
            // The name was copied from a str.
            let name = std::str::from_utf8(chunk.at(header.name)).unwrap_or_default();
            (name, header.value.map(|value| chunk.at(value)))
        })
    }
}
