//! Closed-loop load: each connection sends its next request when it has the answer to the last.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use uuid::fmt::Hyphenated;

use crate::cpu::{Meter, Used, Watched};
use crate::http::{Connection, Url};
use crate::sample;

/// Different requests that are sent in turn.
const REQUESTS: u64 = 1024;
/// Different batches that are sent in turn.
const BATCHES: u64 = 16;
/// Time between two looks at the memory of the processes.
const SAMPLE: Duration = Duration::from_millis(500);

/// Where the requests go, and which.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) url: Url,
    /// Written beforehand, sent in turn.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Leads of a request.
    pub(crate) leads: u64,
    /// Where the `Idempotency-Key` stands in each request, which is another one whenever it is sent.
    key_at: Option<usize>,
}

impl Target {
    /// POSTs of sample leads.
    pub(crate) fn leads(url: &str, key: Option<&str>) -> Result<Self> {
        let bodies = (0..REQUESTS).map(sample::body);
        Self::posts(url, key, "application/json", bodies, 1)
    }

    /// POSTs of batches of so many sample leads, a line each, to the batches beside `url`.
    pub(crate) fn batches(url: &str, key: Option<&str>, leads: u64) -> Result<Self> {
        let url = format!("{}/batch", url.trim_end_matches('/'));
        let lines = |i| (0..leads).map(move |j| sample::body(i * leads + j)).collect::<Vec<_>>();
        let bodies = (0..BATCHES).map(|i| lines(i).join("\n"));
        Self::posts(&url, key, "application/x-ndjson", bodies, leads)
    }

    fn posts(
        url: &str,
        key: Option<&str>,
        content_type: &str,
        bodies: impl Iterator<Item = String>,
        leads: u64,
    ) -> Result<Self> {
        let url = Url::parse(url)?;
        let authorization = key.map(|key| format!("Bearer {key}"));
        let mut headers = vec![("content-type", content_type)];
        headers.extend(authorization.iter().map(|value| ("authorization", value.as_str())));
        let requests = bodies
            .map(|body| url.request("POST", &url.path, &headers, Some(body.as_bytes())))
            .collect();
        Ok(Self { url, requests, leads, key_at: None })
    }

    /// The same with an `Idempotency-Key`, never the same twice: the ids of the leads, and with them
    /// their partitions, are spread evenly.
    pub(crate) fn keyed(mut self) -> Self {
        let header = format!("idempotency-key: {}\r\n", Uuid::nil());
        // After the request line, which is the same in all of them.
        let first = self.requests.first().map_or(&[][..], Vec::as_slice);
        let at = first.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        for request in &mut self.requests {
            request.splice(at..at, header.bytes());
        }
        self.key_at = Some(at + header.len() - "\r\n".len() - Hyphenated::LENGTH);
        self
    }

    /// `request` as it is to be sent now; `copy` is room for one with a key of its own.
    fn now<'a>(&self, request: &'a [u8], copy: &'a mut Vec<u8>) -> &'a [u8] {
        let Some(at) = self.key_at else { return request };
        copy.clear();
        copy.extend_from_slice(request);
        Uuid::now_v7().hyphenated().encode_lower(&mut copy[at..at + Hyphenated::LENGTH]);
        copy
    }
}

/// How much load, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    /// End after that many answers, if that comes first.
    pub(crate) answers: Option<u64>,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct HttpRun {
    /// What was measured.
    pub(crate) name: String,
    pub(crate) connections: usize,
    pub(crate) seconds: f64,
    /// Leads of answers 2xx.
    pub(crate) acknowledged: u64,
    pub(crate) per_second: f64,
    /// Of the acknowledged ones, in µs.
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
    pub(crate) max_micros: u64,
    /// How many of each other status; `connection` are those without an answer.
    pub(crate) refused: BTreeMap<String, u64>,
    pub(crate) processes: Vec<Used>,
}

struct Recorder {
    latency: Histogram<u64>,
    refused: BTreeMap<String, u64>,
    answers: u64,
    over: bool,
}

impl Recorder {
    fn new() -> Result<Self> {
        // Up to a minute, to three digits.
        let latency = Histogram::new_with_bounds(1, 60_000_000, 3)?;
        Ok(Self { latency, refused: BTreeMap::new(), answers: 0, over: false })
    }

    fn record(&mut self, outcome: &std::io::Result<u16>, took: Duration) {
        self.answers += 1;
        let name = match outcome {
            Ok(200..=299) => {
                self.latency.saturating_record(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
                return;
            }
            Ok(status) => status.to_string(),
            Err(_) => "connection".to_owned(),
        };
        *self.refused.entry(name).or_default() += 1;
    }
}

/// Runs the load; has to be called within a `LocalSet`.
pub(crate) async fn closed_loop(
    name: &str,
    target: Target,
    plan: &Plan,
    watched: &[Watched],
) -> Result<HttpRun> {
    let target = Rc::new(target);
    let recorder = Rc::new(RefCell::new(Recorder::new()?));
    let workers: Vec<_> = (0..plan.connections)
        .map(|i| {
            let first = i * target.requests.len() / plan.connections;
            tokio::task::spawn_local(worker(Rc::clone(&target), first, Rc::clone(&recorder)))
        })
        .collect();

    tokio::time::sleep(plan.warm_up).await;
    let mut meter = Meter::start(watched);
    *recorder.borrow_mut() = Recorder::new()?;
    let start = Instant::now();
    let mut sampled = start;
    let enough = |recorder: &Recorder| plan.answers.is_some_and(|limit| recorder.answers >= limit);
    while start.elapsed() < plan.measure && !enough(&recorder.borrow()) {
        let left = plan.measure.saturating_sub(start.elapsed());
        let step = if plan.answers.is_some() { Duration::from_millis(5) } else { SAMPLE };
        tokio::time::sleep(left.min(step)).await;
        if sampled.elapsed() >= SAMPLE {
            meter.sample();
            sampled = Instant::now();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let measured = std::mem::replace(&mut *recorder.borrow_mut(), Recorder::new()?);
    let processes = meter.finish();
    recorder.borrow_mut().over = true;
    for worker in workers {
        worker.await.context("a connection's task")?;
    }

    let Recorder { latency, refused, .. } = measured;
    let acknowledged = latency.len() * target.leads;
    ensure!(
        acknowledged > 0,
        "{name}: nothing was acknowledged at {}: {refused:?}",
        target.url.authority
    );
    Ok(HttpRun {
        name: name.to_owned(),
        connections: plan.connections,
        seconds,
        acknowledged,
        per_second: rate(acknowledged, seconds),
        p50_micros: latency.value_at_quantile(0.5),
        p99_micros: latency.value_at_quantile(0.99),
        max_micros: latency.max(),
        refused,
        processes,
    })
}

async fn worker(target: Rc<Target>, first: usize, recorder: Rc<RefCell<Recorder>>) {
    let mut connection = Connection::new(target.url.address);
    let mut copy = Vec::new();
    for request in target.requests.iter().cycle().skip(first) {
        if recorder.borrow().over {
            return;
        }
        let request = target.now(request, &mut copy);
        let sent = Instant::now();
        let outcome = connection.exchange(request).await.map(|answer| answer.status);
        if outcome.is_err() {
            // Not a busy loop against a server that is gone.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        recorder.borrow_mut().record(&outcome, sent.elapsed());
    }
}

/// So many a second.
#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_sent_twice_and_the_rest_always() {
        let key_and_rest = |request: &[u8]| {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut head = httparse::Request::new(&mut headers);
            let start = head.parse(request).unwrap().unwrap();
            let key = head.headers.iter().find(|it| it.name == "idempotency-key").unwrap();
            let key = Uuid::try_parse_ascii(key.value).unwrap();
            (key, (head.headers.len(), request[start..].to_vec()))
        };
        let plain = Target::batches("http://127.0.0.1:1/leads", Some("lk"), 2).unwrap();
        let (before, mut copy) = (plain.requests[1].clone(), Vec::new());
        assert_eq!(plain.now(&before, &mut copy), before);
        let keyed = plain.keyed();
        let (first, rest) = key_and_rest(keyed.now(&keyed.requests[1], &mut copy));
        let (second, again) = key_and_rest(keyed.now(&keyed.requests[1], &mut copy));
        assert!(!first.is_nil() && first != second);
        assert_eq!(rest, again);
        assert!(before.ends_with(&rest.1) && rest.1.ends_with(b"}"));
    }
}
