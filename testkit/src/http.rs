//! The HTTP client that tests speak through.

use std::net::SocketAddr;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

/// Longer than any wait of the service.
const TIMEOUT: Duration = Duration::from_mins(1);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Vec<u8>,
}

impl Response {
    /// A header's text, when it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON. Numbers beyond 64 bits lose digits here: compare [`Response::text`] then.
    ///
    /// # Panics
    /// When it is no JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| {
            panic!("{} with a body that is no JSON ({error}): {}", self.status, self.text())
        })
    }

    /// `data.id` of a lead that was answered.
    ///
    /// # Panics
    /// When there is none.
    pub fn lead_id(&self) -> String {
        let json = self.json();
        let id = json["data"]["id"].as_str();
        id.unwrap_or_else(|| panic!("{} without data.id: {json}", self.status)).to_owned()
    }

    /// The error code of an error's body; empty when it has none.
    pub fn error_code(&self) -> String {
        self.json()["error"].as_str().unwrap_or_default().to_owned()
    }
}

/// A client for one address.
#[derive(Debug)]
pub(crate) struct Http {
    client: Client,
    address: SocketAddr,
}

impl Http {
    pub(crate) fn new(address: &str) -> Self {
        let client = Client::builder().timeout(TIMEOUT).no_proxy();
        Self {
            client: client.build().expect("a client can be built"),
            address: address.parse().unwrap_or_else(|error| panic!("address {address}: {error}")),
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub(crate) async fn try_send(request: RequestBuilder) -> Result<Response, reqwest::Error> {
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await?.into();
        Ok(Response { status, headers, body })
    }

    pub(crate) async fn send(&self, request: RequestBuilder) -> Response {
        Self::try_send(request)
            .await
            .unwrap_or_else(|error| panic!("no answer from {}: {error:?}", self.address))
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.send(self.request(Method::GET, path)).await
    }

    /// Whether `/readyz` says 200; else what it says.
    pub(crate) async fn ready(&self) -> Result<(), String> {
        match Self::try_send(self.request(Method::GET, "/readyz")).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    pub(crate) async fn metric(&self, name: &str, labels: &str) -> f64 {
        sum_of(&self.get("/metrics").await.text(), name, labels)
    }
}

/// Sums the samples of a metric in Prometheus' text format.
fn sum_of(text: &str, name: &str, labels: &str) -> f64 {
    text.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::sum_of;

    #[test]
    fn sums_a_metric_over_its_labels() {
        let text = "# HELP a x\na{p=\"1\"} 2\na{p=\"2\"} 3.5\nab 9\n";
        assert!((sum_of(text, "a", "") - 5.5).abs() < f64::EPSILON);
        assert!((sum_of(text, "a", "p=\"1\"") - 2.0).abs() < f64::EPSILON);
        assert!(sum_of(text, "c", "").abs() < f64::EPSILON);
    }
}
