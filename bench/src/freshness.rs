//! From the acknowledgement of a POST to the lead's being there for GET, at a constant rate.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::time::MissedTickBehavior;

use crate::http::{Connection, Url};
use crate::sample;

/// What came of it; times in µs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Freshness {
    pub(crate) leads: u64,
    pub(crate) per_second: u64,
    /// From when the POST was due to its 201.
    pub(crate) post_p50_micros: u64,
    pub(crate) post_p99_micros: u64,
    /// From the 201 to the 200 of the GET.
    pub(crate) visible_p50_micros: u64,
    pub(crate) visible_p99_micros: u64,
    pub(crate) visible_max_micros: u64,
}

struct Shared {
    url: Url,
    authorization: String,
    /// Connections that no lead uses right now.
    idle: RefCell<Vec<Connection>>,
    post: RefCell<Histogram<u64>>,
    visible: RefCell<Histogram<u64>>,
}

#[derive(Deserialize)]
struct Created<'a> {
    #[serde(borrow)]
    data: CreatedLead<'a>,
}

#[derive(Deserialize)]
struct CreatedLead<'a> {
    id: &'a str,
}

/// Runs the load; has to be called within a `LocalSet`.
pub(crate) async fn measure(
    url: &str,
    key: &str,
    per_second: u64,
    time: Duration,
) -> Result<Freshness> {
    let histogram = || Histogram::new_with_bounds(1, 60_000_000, 3).map(RefCell::new);
    let shared = Rc::new(Shared {
        url: Url::parse(url)?,
        authorization: format!("Bearer {key}"),
        idle: RefCell::default(),
        post: histogram()?,
        visible: histogram()?,
    });
    let leads = per_second * time.as_secs();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / u32::try_from(per_second)?);
    // Behind the beat, catch up: each lead is timed from when it was due.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = Vec::new();
    for number in 0..leads {
        let due = ticks.tick().await.into_std();
        tasks.push(tokio::task::spawn_local(one(Rc::clone(&shared), number, due)));
    }
    for task in tasks {
        task.await.context("a lead's task")??;
    }
    let (post, visible) = (shared.post.borrow(), shared.visible.borrow());
    Ok(Freshness {
        leads,
        per_second,
        post_p50_micros: post.value_at_quantile(0.5),
        post_p99_micros: post.value_at_quantile(0.99),
        visible_p50_micros: visible.value_at_quantile(0.5),
        visible_p99_micros: visible.value_at_quantile(0.99),
        visible_max_micros: visible.max(),
    })
}

async fn one(shared: Rc<Shared>, number: u64, due: Instant) -> Result<()> {
    let idle = shared.idle.borrow_mut().pop();
    let mut connection = idle.unwrap_or_else(|| Connection::new(shared.url.address));
    let authorization = ("authorization", shared.authorization.as_str());
    let headers = [authorization, ("content-type", "application/json")];
    let body = sample::body(number);
    let path = &shared.url.path;
    let post = shared.url.request("POST", path, &headers, Some(body.as_bytes()));
    let answer = connection.exchange(&post).await.context("POST")?;
    ensure!(
        answer.status == 201,
        "POST: {} {}",
        answer.status,
        String::from_utf8_lossy(answer.body)
    );
    let acknowledged = Instant::now();
    let created: Created<'_> = serde_json::from_slice(answer.body)?;
    let path = format!("{path}/{}", created.data.id);
    let get = shared.url.request("GET", &path, &[authorization], None);
    loop {
        let answer = connection.exchange(&get).await.context("GET")?;
        match answer.status {
            200 => break,
            // The service has waited its time for the projection: ask again.
            503 => {}
            status => bail!("GET: {status} {}", String::from_utf8_lossy(answer.body)),
        }
    }
    let visible = acknowledged.elapsed();
    record(&shared.post, acknowledged.saturating_duration_since(due));
    record(&shared.visible, visible);
    shared.idle.borrow_mut().push(connection);
    Ok(())
}

fn record(histogram: &RefCell<Histogram<u64>>, time: Duration) {
    histogram.borrow_mut().saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
}
