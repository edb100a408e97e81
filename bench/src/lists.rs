//! How long lists take, one after the other, on the read model that a drain has filled.

use std::time::Instant;

use anyhow::{Result, ensure};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::http::{Connection, Url};
use crate::service::System;

const REQUESTS: usize = 500;

/// Times of one list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// The query, without its value.
    pub(crate) filter: String,
    pub(crate) p50_micros: u64,
    pub(crate) p99_micros: u64,
}

/// Lists of `workspace`: all of it, a visitor's, a source's, a code's, a second of it.
pub(crate) async fn measure(system: &System, workspace: Uuid) -> Result<Vec<Listed>> {
    let key = system.create_key(workspace).await?;
    let api = system.start_api().await?;
    let url = Url::parse(&api.url())?;
    let mut connection = Connection::new(url.address);
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str())];
    let list =
        |query: &str| url.request("GET", &format!("{}?limit=50{query}", url.path), &headers, None);
    let answer = connection.exchange(&list("")).await?;
    ensure!(answer.status == 200, "list: {}", String::from_utf8_lossy(answer.body));
    let page: Value = serde_json::from_slice(answer.body)?;
    let lead = &page["data"][25];
    let (visitor, time) = (lead["visitor_id"].as_str(), lead["created_at"].as_str());
    let visitor = format!("&visitor_id={}", visitor.unwrap_or_default());
    let before = format!("&created_after={}", time.unwrap_or_default());
    let source = format!("&source={}", lead["source"].as_str().unwrap_or_default());
    let code = format!("&code={}", lead["code"].as_str().unwrap_or_default());
    let mut listed = Vec::new();
    for (filter, query) in [
        ("none", ""),
        ("visitor_id", visitor.as_str()),
        ("source", &source),
        ("code", &code),
        ("created_after", &before),
    ] {
        let request = list(query);
        let mut times = Histogram::<u64>::new_with_bounds(1, 60_000_000, 3)?;
        for _ in 0..REQUESTS {
            let start = Instant::now();
            let answer = connection.exchange(&request).await?;
            ensure!(answer.status == 200, "{filter}: {}", answer.status);
            times.saturating_record(u64::try_from(start.elapsed().as_micros())?);
        }
        listed.push(Listed {
            filter: filter.to_owned(),
            p50_micros: times.value_at_quantile(0.5),
            p99_micros: times.value_at_quantile(0.99),
        });
    }
    api.stop().await?;
    Ok(listed)
}
