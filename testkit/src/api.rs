//! A running `leads-api serve`.

use std::net::SocketAddr;
use std::ops::Deref;

use reqwest::{Method, RequestBuilder};

use crate::http::{Http, Response};
use crate::{DEADLINE, Key, Process, RawConnection, eventually};

/// A running API. Its [`Process`] is reached through it: `api.terminate()`.
#[derive(Debug)]
pub struct Api {
    process: Process,
    http: Http,
    metrics: Http,
}

impl Api {
    pub(crate) async fn new(process: Process) -> Self {
        let line = process.wait_for_log(|line| line.message() == "listening").await;
        let http = |name: &str| {
            Http::new(line.str(name).unwrap_or_else(|| panic!("no {name} in {}", line.text)))
        };
        let (http, metrics) = (http("api"), http("metrics"));
        Self { process, http, metrics }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.http.address()
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end.
    pub fn url(&self) -> String {
        self.http.url("")
    }

    /// Waits until `/readyz` says 200: keys loaded, broker reachable.
    pub async fn wait_ready(&self) {
        eventually(DEADLINE, "the API is ready", async || self.http.ready().await).await;
    }

    /// A request to build on: `api.request(Method::GET, "/livez").header(…)`; then [`Api::send`].
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, path)
    }

    /// Sends a request and reads the whole answer.
    ///
    /// # Panics
    /// When there is no answer; see [`Api::try_send`].
    pub async fn send(&self, request: RequestBuilder) -> Response {
        self.http.send(request).await
    }

    /// Sends a request to an API that may refuse the connection or go away meanwhile.
    ///
    /// # Errors
    /// When there is no whole answer.
    pub async fn try_send(&self, request: RequestBuilder) -> Result<Response, reqwest::Error> {
        Http::try_send(request).await
    }

    /// GET with a key.
    pub async fn get(&self, key: &Key, path: &str) -> Response {
        self.send(self.request(Method::GET, path).bearer_auth(&key.secret)).await
    }

    /// GET without a key: probes, `/openapi.json`.
    pub async fn get_open(&self, path: &str) -> Response {
        self.http.get(path).await
    }

    /// A request with a key and a JSON text as its body, sent as it is.
    pub fn json(&self, method: Method, path: &str, key: &Key, body: &str) -> RequestBuilder {
        self.request(method, path)
            .bearer_auth(&key.secret)
            .header("content-type", "application/json")
            .body(body.to_owned())
    }

    /// POST of one lead.
    pub async fn post_lead(&self, key: &Key, body: &str) -> Response {
        self.send(self.json(Method::POST, "/api/v1/leads", key, body)).await
    }

    /// POST of one lead with an `Idempotency-Key`.
    pub async fn post_lead_once(&self, key: &Key, idempotency_key: &str, body: &str) -> Response {
        let request = self.json(Method::POST, "/api/v1/leads", key, body);
        self.send(request.header("idempotency-key", idempotency_key)).await
    }

    /// The same, for an answer that may not come.
    ///
    /// # Errors
    /// When the connection ends without an answer.
    pub async fn try_post_lead_once(
        &self,
        key: &Key,
        idempotency_key: &str,
        body: &str,
    ) -> Result<Response, reqwest::Error> {
        let request = self.json(Method::POST, "/api/v1/leads", key, body);
        self.try_send(request.header("idempotency-key", idempotency_key)).await
    }

    /// GET of one lead.
    pub async fn get_lead(&self, key: &Key, id: &str) -> Response {
        self.get(key, &format!("/api/v1/leads/{id}")).await
    }

    /// PATCH of one lead.
    pub async fn patch_lead(&self, key: &Key, id: &str, body: &str) -> Response {
        self.send(self.json(Method::PATCH, &format!("/api/v1/leads/{id}"), key, body)).await
    }

    /// GET on its metrics port.
    pub async fn get_metrics(&self, path: &str) -> Response {
        self.metrics.get(path).await
    }

    /// The sum of a metric over its labels, those that contain `labels`; 0 when there is none.
    pub async fn metric(&self, name: &str, labels: &str) -> f64 {
        self.metrics.metric(name, labels).await
    }

    /// A bare TCP connection, for what no HTTP client would send.
    pub async fn raw(&self) -> RawConnection {
        RawConnection::open(self.address()).await
    }
}

impl Deref for Api {
    type Target = Process;
    fn deref(&self) -> &Process {
        &self.process
    }
}
