//! Puts the parts together, runs them, and ends them in order.

use std::any::Any;
use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_cors::Cors;
use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::{Condition, from_fn};
use actix_web::rt::net::TcpStream;
use actix_web::{App as ActixApp, HttpResponse, HttpServer, web};
use leads_shared::Event;
use uuid::Uuid;

use crate::access::{Directory, spawn_follower};
use crate::broker::{Broker, LogSource};
use crate::config::{HttpConfig, ServeConfig};
use crate::context;
use crate::error::ApiError;
use crate::in_flight::InFlight;
use crate::metrics::Metrics;
use crate::projection_wait::ProjectionWait;
use crate::publisher::{PublishError, Published, Publisher};
use crate::read_model::ReadModel;
use crate::recent::Recent;
use crate::routes;
use crate::stream::Streams;

/// How often the last use of keys is written down.
const KEY_USE_PERIOD: Duration = Duration::from_mins(1);

/// What the routes work with.
pub struct App {
    /// The active keys.
    pub directory: Arc<Directory>,
    /// The connection to Kafka.
    pub broker: Arc<Broker>,
    /// The reads.
    pub read_model: ReadModel,
    /// Waits for the projection.
    pub projection: Arc<ProjectionWait>,
    /// Recent creations under an idempotency key.
    pub recent: Arc<Recent>,
    /// What event streams share.
    pub streams: Arc<Streams>,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Time limits of a request.
    pub limits: Limits,
    publisher: Publisher,
    /// Requests being served.
    active: AtomicUsize,
    shutting_down: AtomicBool,
}

/// A request being served; ends when it is dropped.
pub struct Active<'a>(&'a AtomicUsize);

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Time limits of a request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// For a body to arrive.
    pub body_timeout: Duration,
    /// For the projection to catch up.
    pub read_wait: Duration,
    /// For the broker's acknowledgement.
    pub publish_timeout: Duration,
}

impl App {
    /// Publishes an event; counts what is shed.
    ///
    /// # Errors
    /// See [`PublishError`].
    pub async fn publish(
        &self,
        event: &Event<'_>,
        traceparent: Option<&str>,
    ) -> Result<Published, ApiError> {
        self.publisher.publish(event, traceparent).await.map_err(|error| self.shed(error))
    }

    /// Publishes events together; one result for each.
    pub async fn publish_all(
        &self,
        events: &[Event<'_>],
        traceparent: Option<&str>,
    ) -> Vec<Result<Published, ApiError>> {
        let results = self.publisher.publish_all(events, traceparent).await;
        results.into_iter().map(|result| result.map_err(|error| self.shed(error))).collect()
    }

    /// Counts a lead that was not taken for want of the broker.
    fn shed(&self, error: PublishError) -> ApiError {
        let shed = match error {
            PublishError::Unavailable => Some("unavailable"),
            PublishError::Stalled => Some("stalled"),
            PublishError::Overloaded => Some("overloaded"),
            PublishError::Unacknowledged => Some("unacknowledged"),
            PublishError::TooLarge | PublishError::Encoding => None,
        };
        if let Some(reason) = shed {
            self.metrics.shed(reason);
        }
        ApiError::from(error)
    }

    /// An id for a new lead.
    pub fn new_lead_id(&self) -> Uuid {
        self.publisher.new_lead_id()
    }

    /// Whether a lead sent now would be handed to the broker.
    pub fn can_publish(&self) -> bool {
        self.publisher.refuse_early().is_ok()
    }

    /// Counts a request as being served.
    pub fn enter(&self) -> Active<'_> {
        self.active.fetch_add(1, Ordering::Relaxed);
        Active(&self.active)
    }

    /// Whether the process is on its way out.
    pub fn is_shutting_down(&self) -> bool {
        self.shutting_down.load(Ordering::Relaxed)
    }
}

/// The running service.
pub struct Application {
    app: web::Data<App>,
    server: Server,
    metrics_server: Server,
    address: SocketAddr,
    metrics_address: SocketAddr,
    grace: Duration,
    patience: Duration,
    stop_follower: Arc<AtomicBool>,
}

impl Application {
    /// Starts everything that needs no dependency to be there, and binds the ports.
    ///
    /// # Errors
    /// In words for the operator: a port that is taken, a setting that is refused.
    pub fn build(config: ServeConfig) -> Result<Self, String> {
        let ServeConfig { http, kafka, events_topic, access_topic, postgres, publishing, streams } =
            config;
        let metrics = Metrics::install()?;
        let listener = bind(http.listen, "API_LISTEN")?;
        let metrics_listener = bind(http.metrics_listen, "METRICS_LISTEN")?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let metrics_address = metrics_listener.local_addr().map_err(|error| error.to_string())?;

        let source = LogSource { kafka: kafka.clone(), topic: events_topic.clone() };
        let streams = Streams::start(streams, source)
            .map_err(|error| format!("no thread for event streams: {error}"))?;
        let broker = Broker::start(&kafka, &events_topic).map_err(|e| e.to_string())?;
        let directory = Arc::new(Directory::default());
        let stop_follower = Arc::new(AtomicBool::new(false));
        spawn_follower(Arc::clone(&directory), kafka, access_topic, Arc::clone(&stop_follower))
            .map_err(|error| format!("no thread for the access topic: {error}"))?;
        let read_model = ReadModel::new(
            postgres.config,
            postgres.tls,
            postgres.connections,
            events_topic.clone(),
        )?;
        let app = web::Data::new(App {
            directory,
            broker: Arc::clone(&broker),
            read_model,
            projection: ProjectionWait::new(),
            streams,
            recent: Recent::new(publishing.idempotency_cache),
            limits: Limits {
                body_timeout: http.body_timeout,
                read_wait: http.read_wait,
                publish_timeout: publishing.timeout,
            },
            publisher: Publisher::new(
                broker,
                events_topic,
                InFlight::new(publishing.max_in_flight, publishing.max_in_flight_bytes),
                publishing.timeout,
                Arc::clone(&metrics),
            ),
            metrics,
            active: AtomicUsize::new(0),
            shutting_down: AtomicBool::new(false),
        });
        let server = api_server(listener, &http, app.clone()).map_err(|e| e.to_string())?;
        let metrics_server =
            metrics_server(metrics_listener, app.clone()).map_err(|e| e.to_string())?;
        Ok(Self {
            app,
            server,
            metrics_server,
            address,
            metrics_address,
            grace: http.shutdown_grace,
            patience: http.shutdown_timeout,
            stop_follower,
        })
    }

    /// The API's port; what was bound when 0 was asked for.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `shutdown` resolves, then ends in order: not ready, a grace for balancers to see
    /// it, no new connections, requests in flight answered, the producer flushed.
    ///
    /// # Errors
    /// When a server fails.
    pub async fn run_until_stopped(
        self,
        shutdown: impl Future<Output = ()>,
    ) -> std::io::Result<()> {
        let Self {
            app,
            server,
            metrics_server,
            address,
            metrics_address,
            grace,
            patience,
            stop_follower,
        } = self;
        tracing::info!(api = %address, metrics = %metrics_address, "listening");
        let handles = [server.handle(), metrics_server.handle()];
        let waiter = app.clone();
        actix_web::rt::spawn(async move { waiter.projection.run(waiter.read_model.clone()).await });
        let upkeep = app.clone();
        actix_web::rt::spawn(async move { keep_up(&upkeep).await });
        let uses = app.clone();
        actix_web::rt::spawn(async move { note_key_uses(&uses).await });
        let metrics_task = actix_web::rt::spawn(metrics_server);
        let api_task = actix_web::rt::spawn(server);

        shutdown.await;
        tracing::info!(grace = ?grace, "shutting down");
        app.shutting_down.store(true, Ordering::Relaxed);
        app.streams.stop();
        tokio::time::sleep(grace).await;
        let [api, metrics]: [ServerHandle; 2] = handles;
        // The server's own graceful stop waits for idle connections as well, so it comes second, and
        // has a second to write the last answers.
        api.pause().await;
        if tokio::time::timeout(patience, all_answered(&app)).await.is_err() {
            tracing::warn!(?patience, "requests in flight were cut");
        }
        api.stop(true).await;
        api_task.await.map_err(std::io::Error::other)??;
        stop_follower.store(true, Ordering::Relaxed);
        let flushed = app.clone();
        tokio::task::spawn_blocking(move || flushed.publisher.close())
            .await
            .map_err(std::io::Error::other)?;
        let _ = tokio::time::timeout(Duration::from_secs(1), write_key_uses(&app)).await;
        metrics.stop(false).await;
        metrics_task.await.map_err(std::io::Error::other)??;
        tracing::info!("stopped");
        Ok(())
    }
}

fn bind(address: SocketAddr, variable: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address).map_err(|error| {
        format!("{variable}={address} can't be listened on: {error}; choose another address or end who has it")
    })
}

fn api_server(
    listener: TcpListener,
    http: &HttpConfig,
    app: web::Data<App>,
) -> std::io::Result<Server> {
    let origins = http.cors_origins.clone();
    let write_timeout = app.streams.write_timeout();
    let server = HttpServer::new(move || {
        ActixApp::new()
            .app_data(app.clone())
            .wrap(Condition::new(!origins.is_empty(), cors(&origins)))
            .wrap(from_fn(context::observe))
            .configure(routes::configure)
    })
    .on_connect(move |connection, _| limit_writes(connection, write_timeout))
    .workers(http.workers)
    .client_request_timeout(http.header_timeout)
    .keep_alive(http.keep_alive)
    .max_connections(http.max_connections)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

/// A peer that is gone without a word, or takes nothing of what was written, is given up by the
/// kernel after `timeout`: the server's own writing has no limit.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
fn limit_writes(connection: &dyn Any, timeout: Duration) {
    #[cfg(target_os = "linux")]
    if let Some(stream) = connection.downcast_ref::<TcpStream>() {
        let millis = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(stream, millis) {
            tracing::debug!(%error, "a connection has no limit for writing");
        }
    }
}

fn cors(origins: &[String]) -> Cors {
    origins
        .iter()
        .fold(Cors::default(), |cors, origin| match origin.as_str() {
            "*" => cors.allow_any_origin(),
            origin => cors.allowed_origin(origin),
        })
        .allowed_methods(["GET", "HEAD", "POST", "PATCH"])
        .allow_any_header()
        .expose_headers([
            "Location",
            "ETag",
            "X-Lead-Position",
            "X-Request-Id",
            "X-Workspace-Id",
            "X-RateLimit-Limit",
            "X-RateLimit-Remaining",
            "X-RateLimit-Reset",
            "Retry-After",
        ])
        .max_age(3600)
}

fn metrics_server(listener: TcpListener, app: web::Data<App>) -> std::io::Result<Server> {
    let server = HttpServer::new(move || {
        ActixApp::new().app_data(app.clone()).route("/metrics", web::get().to(render_metrics))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

async fn render_metrics(app: web::Data<App>) -> HttpResponse {
    app.publisher.report();
    HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(app.metrics.render())
}

async fn all_answered(app: &App) {
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    while app.active.load(Ordering::Relaxed) > 0 {
        ticks.tick().await;
    }
}

async fn keep_up(app: &App) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        app.publisher.report();
        app.metrics.recent(app.recent.bytes());
        app.metrics.upkeep();
    }
}

async fn note_key_uses(app: &App) {
    let mut ticks = tokio::time::interval(KEY_USE_PERIOD);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        write_key_uses(app).await;
    }
}

/// Best effort: what PostgreSQL doesn't take now is forgotten.
async fn write_key_uses(app: &App) {
    let uses = app.directory.take_last_uses();
    // At shutdown a pooled connection may be ending with the worker that opened it: try another.
    for _ in 0..2 {
        if uses.is_empty() || app.read_model.note_key_uses(&uses).await.is_ok() {
            return;
        }
    }
    tracing::debug!("the last use of keys was not written down");
}
