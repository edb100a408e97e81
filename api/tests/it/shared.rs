//! One running system for the tests that only talk HTTP, and what they all say of an answer.

use std::sync::{LazyLock, Mutex, PoisonError};

use leads_testkit::{Api, Consumer, DEADLINE, Key, KeySpec, Method, Response, System, eventually};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// One runtime for all tests: the connections of the shared clients live longer than one test.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));
static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// Runs a test.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// A system with an API and a consumer that are up for the whole run.
pub(crate) struct Shared {
    pub(crate) system: System,
    pub(crate) api: Api,
    pub(crate) consumer: Consumer,
    secrets: Mutex<Vec<String>>,
}

/// The shared system, started by whoever asks first.
pub(crate) async fn shared() -> &'static Shared {
    SHARED
        .get_or_init(async || {
            let system = System::new().await;
            let (api, consumer) = tokio::join!(system.start_api(), system.start_consumer());
            tokio::join!(api.wait_ready(), consumer.wait_ready());
            Shared { system, api, consumer, secrets: Mutex::default() }
        })
        .await
}

impl Shared {
    /// A key for a workspace of its own, without a rate limit, that the API knows already.
    pub(crate) async fn key(&self) -> Key {
        self.key_like(unlimited()).await
    }

    /// A key as described, that the API knows already.
    pub(crate) async fn key_like(&self, spec: KeySpec) -> Key {
        let key = known_key(&self.system, &self.api, spec).await;
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).push(key.secret.clone());
        key
    }

    /// Every secret that was handed out here so far.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A key without a rate limit.
pub(crate) fn unlimited() -> KeySpec {
    KeySpec { rate_limit: Some(0), ..KeySpec::default() }
}

/// Makes a key and waits until `api` takes it.
pub(crate) async fn known_key(system: &System, api: &Api, spec: KeySpec) -> Key {
    let key = system.create_key(spec).await;
    eventually(DEADLINE, "the API knows the key", async || {
        api.get(&key, "/api/v1/leads?limit=1").await.status != 401
    })
    .await;
    key
}

/// A system of its own with an API, a consumer and a key, for a test that does harm to them.
pub(crate) struct Own {
    pub(crate) system: System,
    pub(crate) api: Api,
    pub(crate) consumer: Consumer,
    pub(crate) key: Key,
}

impl Own {
    /// Starts all of it; `env` is for the API.
    pub(crate) async fn start(system: System, env: &[(&str, &str)]) -> Self {
        // Made before the API starts, so that it is known once the API is ready.
        let (key, consumer) = tokio::join!(system.create_key(unlimited()), system.start_consumer());
        let api = system.start_api_with(env).await;
        tokio::join!(api.wait_ready(), consumer.wait_ready());
        Self { system, api, consumer, key }
    }
}

/// Checks that an answer is an error as every error is, and gives its body.
#[track_caller]
pub(crate) fn assert_error(response: &Response, status: u16, code: &str) -> Value {
    let body = response.json();
    assert_eq!((response.status, body["error"].as_str()), (status, Some(code)), "{body}");
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert!(response.header("x-request-id").is_some(), "{response:?}");
    let mut names: Vec<_> = body.as_object().expect("an object").keys().cloned().collect();
    names.sort();
    let expected: &[&str] = match status {
        429 => &["details", "error", "message", "retry_after"],
        _ => &["details", "error", "message"],
    };
    assert_eq!(names, expected, "{body}");
    assert!(body["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
    assert!(body["details"].is_object(), "{body}");
    let seconds = response.header("retry-after").map(|text| text.parse::<u32>().expect("seconds"));
    assert_eq!(seconds.is_some(), matches!(status, 429 | 503), "Retry-After of {status}");
    assert_ne!(seconds, Some(0));
    body
}

/// `(field, code)` of each entry of `details.fields`.
#[track_caller]
pub(crate) fn field_errors(response: &Response) -> Vec<(String, String)> {
    let body = assert_error(response, 400, "validation_failed");
    let fields = body["details"]["fields"].as_array().expect("details.fields").clone();
    let text = |field: &Value, name: &str| field[name].as_str().expect("a text").to_owned();
    assert!(fields.iter().all(|field| text(field, "message").len() > 5), "{body}");
    fields.iter().map(|field| (text(field, "field"), text(field, "code"))).collect()
}

/// The same, in a form that compares with literals.
#[track_caller]
pub(crate) fn assert_field_errors(response: &Response, expected: &[(&str, &str)]) {
    let found = field_errors(response);
    let found: Vec<_> = found.iter().map(|(f, c)| (f.as_str(), c.as_str())).collect();
    assert_eq!(found, expected);
}

/// Waits until a GET of the lead gives what `wanted` holds for.
pub(crate) async fn eventually_lead(
    api: &Api,
    key: &Key,
    id: &str,
    wanted: impl Fn(&Response) -> bool,
) -> Response {
    eventually(DEADLINE, "GET gives the wanted lead", async || {
        let answer = api.get_lead(key, id).await;
        if wanted(&answer) { Ok(answer) } else { Err(answer) }
    })
    .await
}

/// A request with no body.
pub(crate) async fn call(
    api: &Api,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Response {
    let method = Method::from_bytes(method.as_bytes()).expect("a method");
    let request = api.request(method, path);
    api.send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value)))
        .await
}

/// A POST of a lead with more headers, which replace those of the same name.
pub(crate) async fn post_with(
    api: &Api,
    key: &Key,
    body: impl Into<Vec<u8>>,
    headers: &[(&str, &str)],
) -> Response {
    let request = api.request(Method::POST, "/api/v1/leads").bearer_auth(&key.secret);
    let own_type = headers.iter().any(|(name, _)| *name == "content-type");
    let request =
        if own_type { request } else { request.header("content-type", "application/json") };
    let request =
        headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    api.send(request.body(body.into())).await
}

/// The id by the `Location` of a 201, for bodies with numbers that [`Response::json`] can't hold.
#[track_caller]
pub(crate) fn located(posted: &Response) -> String {
    let location = posted.header("location").expect("Location");
    location.rsplit('/').next().expect("a path").to_owned()
}
