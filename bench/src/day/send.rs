//! The requests of the day, repeated while the answer is one that a retry can mend.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use uuid::Uuid;

use super::check;
use super::generator::{Expected, Request};
use super::{Day, WorkspaceKey};
use crate::http::Connection;

/// How long a request is repeated.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two tries, when the answer doesn't say.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Deserialize)]
struct Page {
    data: Vec<Listed>,
    pagination: Pagination,
}

#[derive(Deserialize)]
struct Listed {
    id: Uuid,
}

#[derive(Deserialize)]
struct Pagination {
    total: u64,
    next_cursor: Option<String>,
}

/// A request's last answer.
struct Sent {
    status: u16,
    body: Vec<u8>,
    /// Whether there were tries before.
    retried: bool,
}

/// One connection of the day.
pub(super) struct Client {
    day: Rc<Day>,
    connection: Connection,
}

impl Client {
    pub(super) fn new(day: Rc<Day>) -> Self {
        let connection = Connection::new(day.url.address);
        Self { day, connection }
    }

    /// Sends until the answer is neither 429 nor 503, nor none.
    async fn send(&mut self, request: &[u8]) -> Result<Sent> {
        let mut retried = false;
        let end = Instant::now() + PATIENCE;
        loop {
            let pause = match self.connection.exchange(request).await {
                Ok(answer) if !matches!(answer.status, 429 | 503) => {
                    let (status, body) = (answer.status, answer.body.to_vec());
                    return Ok(Sent { status, body, retried });
                }
                Ok(answer) if Instant::now() < end => {
                    answer.retry_after.map_or(PAUSE, Duration::from_secs)
                }
                Err(_) if Instant::now() < end => PAUSE,
                other => {
                    let answer = other.context("no answer")?;
                    bail!("still {}: {}", answer.status, String::from_utf8_lossy(answer.body));
                }
            };
            retried = true;
            self.day.summary.borrow_mut().retries += 1;
            tokio::time::sleep(pause).await;
        }
    }

    async fn get(&mut self, path: &str, key: &str) -> Result<Sent> {
        let authorization = format!("Bearer {key}");
        let headers = [("authorization", authorization.as_str())];
        let request = self.day.url.request("GET", path, &headers, None);
        self.send(&request).await
    }

    /// A key that was just made is known to the API shortly after.
    pub(super) async fn wait_for_key(&mut self, key: &WorkspaceKey) -> Result<()> {
        let path = format!("{}?limit=1", self.day.url.path);
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let Sent { status, body, .. } = self.get(&path, &key.key).await?;
            match status {
                200 => return Ok(()),
                401 if Instant::now() < end => tokio::time::sleep(PAUSE).await,
                _ => bail!("GET {path}: {status} {}", String::from_utf8_lossy(&body)),
            }
        }
    }

    async fn page(&mut self, key: &str, query: &str) -> Result<Page> {
        let path = format!("{}?{query}", self.day.url.path);
        let Sent { status, body, .. } = self.get(&path, key).await?;
        ensure!(status == 200, "GET {path}: {status} {}", String::from_utf8_lossy(&body));
        Ok(serde_json::from_slice(&body)?)
    }

    /// The exact number of leads in a workspace.
    pub(super) async fn total(&mut self, key: &WorkspaceKey) -> Result<u64> {
        Ok(self.page(&key.key, "limit=1").await?.pagination.total)
    }

    /// Sends one lead and looks at the answer.
    pub(super) async fn post(&mut self, index: u64) -> Result<()> {
        let day = Rc::clone(&self.day);
        let Request { workspace, body, content_type, expected } = day.request(index);
        let WorkspaceKey { workspace: id, key } = &day.keys[workspace];
        let authorization = format!("Bearer {key}");
        let idempotency_key = format!("{}-{index}", day.run);
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", content_type),
            ("idempotency-key", &idempotency_key),
        ];
        let request = day.url.request("POST", &day.url.path, &headers, Some(&body));
        let Sent { status, body: answer, retried } = self.send(&request).await?;

        let mut summary = day.summary.borrow_mut();
        match expected {
            Expected::Accepted(sent) => {
                summary.accepted(workspace, body.len());
                match check::accepted(status, &answer, &sent, (workspace, *id), retried) {
                    Ok(receipt) => {
                        day.receipts.borrow_mut()[usize::try_from(index)?] = Some(receipt);
                    }
                    Err(error) => summary.differs(index, &error),
                }
            }
            Expected::Refused(refusal) => {
                summary.refused(workspace, refusal);
                if let Err(error) = check::refused(status, &answer, refusal) {
                    summary.differs(index, &error);
                }
            }
        }
        Ok(())
    }

    /// Reads an accepted lead and compares it with what was sent.
    pub(super) async fn read_back(&mut self, index: u64) -> Result<()> {
        let day = Rc::clone(&self.day);
        let at = usize::try_from(index)?;
        let id = day.receipts.borrow()[at].as_ref().map(|receipt| receipt.given.id);
        let (Some(id), request) = (id, day.request(index)) else { return Ok(()) };
        let Expected::Accepted(sent) = request.expected else { return Ok(()) };
        let WorkspaceKey { workspace, key } = &day.keys[request.workspace];
        let path = format!("{}/{id}", day.url.path);
        let Sent { status, body, .. } = self.get(&path, key).await?;
        let mut receipts = day.receipts.borrow_mut();
        if let Some(receipt) = &mut receipts[at]
            && let Err(error) = check::read_back(status, &body, &sent, *workspace, receipt)
        {
            day.summary.borrow_mut().differs(index, &error);
        }
        Ok(())
    }

    /// Counts the leads of a workspace twice: by the total, and by reading all pages.
    pub(super) async fn count(&mut self, workspace: usize) -> Result<()> {
        let day = Rc::clone(&self.day);
        let key = &day.keys[workspace];
        let total = self.total(key).await?;
        let mut listed = HashSet::new();
        let mut query = "limit=100".to_owned();
        loop {
            let Page { data, pagination } = self.page(&key.key, &query).await?;
            listed.extend(data.iter().map(|lead| lead.id));
            let Some(cursor) = pagination.next_cursor else { break };
            query = format!("limit=100&cursor={cursor}");
        }
        let receipts = day.receipts.borrow();
        let receipts = receipts.iter().flatten().filter(|receipt| receipt.workspace == workspace);
        let (mut mine, mut missing) = (0, 0);
        for receipt in receipts {
            mine += 1;
            missing += u64::from(!listed.contains(&receipt.given.id));
        }
        let mut summary = day.summary.borrow_mut();
        summary.counted(workspace, total, listed.len() as u64, mine, missing);
        Ok(())
    }
}
