//! A running `leads-consumer run`.

use std::ops::Deref;

use crate::http::{Http, Response};
use crate::{DEADLINE, Process, eventually};

/// A running consumer. Its [`Process`] is reached through it: `consumer.kill()`.
#[derive(Debug)]
pub struct Consumer {
    process: Process,
    metrics: Http,
}

impl Consumer {
    pub(crate) async fn new(process: Process) -> Self {
        let line = process.wait_for_log(|line| line.message() == "listening").await;
        let metrics = Http::new(line.str("metrics").expect("`metrics` in the line `listening`"));
        Self { process, metrics }
    }

    /// Waits until `/readyz` says 200: partitions assigned, and able to commit.
    pub async fn wait_ready(&self) {
        eventually(DEADLINE, "the consumer is ready", async || self.metrics.ready().await).await;
    }

    /// GET on its metrics port: `/metrics`, `/livez`, `/readyz`.
    pub async fn get(&self, path: &str) -> Response {
        self.metrics.get(path).await
    }

    /// The sum of a metric over its labels, those that contain `labels`; 0 when there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metrics.metric(name, labels).await
    }
}

impl Deref for Consumer {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}
