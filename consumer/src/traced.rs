//! Traces of a batch: a span of its own, linked to its leads, and in each lead's trace a span from the
//! start of the batch to its commit. Only leads whose trace is recorded have one.

use std::time::SystemTime;

use leads_shared::Payload;
use leads_shared::headers::TRACEPARENT;
use leads_traces::{Begin, Place, Span, SpanKind, Traces};

use crate::record::Record;
use crate::store::Batch;

/// A batch under way, some of whose leads are traced.
pub struct TracedBatch {
    began: SystemTime,
    /// The transaction; ends first.
    transaction: Span,
    span: Span,
    leads: Vec<TracedLead>,
}

struct TracedLead {
    /// Where its event was published.
    published: Place,
    name: &'static str,
    partition: i32,
    offset: i64,
}

impl TracedBatch {
    /// None when traces are off, or when none of the batch's leads is recorded.
    pub fn begin(traces: &Traces, topic: &str, batch: &Batch<'_>) -> Option<Self> {
        if !traces.is_on() {
            return None;
        }
        let traced = batch.events.iter().filter_map(|(index, event)| {
            let record = batch.records.get(*index)?;
            let name = match event.payload {
                Payload::LeadCreated { .. } => "project LeadCreated",
                Payload::LeadUpdated { .. } => "project LeadUpdated",
            };
            let published = published(record)?;
            Some(TracedLead { published, name, partition: record.partition, offset: record.offset })
        });
        let leads: Vec<TracedLead> = traced.collect();
        if leads.is_empty() {
            return None;
        }
        let links = leads.iter().map(|lead| lead.published.clone()).collect();
        let count = i64::try_from(batch.records.len()).unwrap_or(i64::MAX);
        let began = SystemTime::now();
        let begin = Begin::new("project batch", SpanKind::Consumer)
            .linked(links)
            .at(began)
            .with("messaging.system", "kafka")
            .with("messaging.operation.type", "process")
            .with("messaging.destination.name", topic.to_owned())
            .with("messaging.batch.message_count", count);
        let span = traces.begin(begin);
        let place = span.place();
        let begin = Begin::new("postgresql transaction", SpanKind::Client)
            .under(place.as_ref())
            .with("db.system.name", "postgresql")
            .with("db.operation.batch.size", count);
        let transaction = traces.begin(begin);
        Some(Self { began, transaction, span, leads })
    }

    /// For the SQL of the batch.
    pub fn traceparent(&self) -> Option<String> {
        self.transaction.place().map(|place| place.traceparent())
    }

    /// The batch is committed: its leads' rows can be read.
    pub fn committed(self, traces: &Traces, topic: &str) {
        let Self { began, transaction, span, leads } = self;
        drop(transaction);
        let batch = span.place();
        for TracedLead { published, name, partition, offset } in leads {
            let begin = Begin::new(name, SpanKind::Consumer)
                .under(Some(&published))
                .linked(batch.iter().cloned().collect())
                .at(began)
                .with("messaging.system", "kafka")
                .with("messaging.operation.type", "process")
                .with("messaging.destination.name", topic.to_owned())
                .with("messaging.destination.partition.id", partition.to_string())
                .with("messaging.kafka.offset", offset);
            traces.begin(begin);
        }
    }

    /// The batch came to nothing this time; it is tried again.
    pub fn failed(mut self, why: &'static str) {
        self.transaction.fail(why);
        self.span.fail(why);
    }
}

/// Where the record was published, if that is recorded.
fn published(record: &Record<'_>) -> Option<Place> {
    let mut headers = record.headers.iter();
    let (_, value) = headers.find(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT))?;
    Place::parse(std::str::from_utf8(value?).ok()?).filter(Place::is_sampled)
}
