//! Puts the parts together, runs them, and ends them in order.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use actix_web::dev::{Server, ServerHandle};
use actix_web::web;
use leads_shared::Event;
use leads_traces::Traces;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::access::{Directory, spawn_follower};
use crate::broker::{Broker, LogSource};
use crate::config::ServeConfig;
use crate::error::ApiError;
use crate::in_flight::{InFlight, Share};
use crate::metrics::{Metrics, Shed};
use crate::projection_wait::ProjectionWait;
use crate::publisher::{PublishError, Published, Publisher};
use crate::read_model::ReadModel;
use crate::recent::Recent;
use crate::routes;
use crate::server::compress::Kept;
use crate::server::tls::Tls;
use crate::server::{self, bind};
use crate::stream::Streams;
use crate::system::System;
use crate::traced::{Publishing, RequestTrace};

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
    /// How the whole system stands.
    pub system: System,
    /// The figures.
    pub metrics: Arc<Metrics>,
    /// Time limits of a request.
    pub limits: Limits,
    /// Compressed answers that are the same for everybody.
    pub(crate) kept: Kept,
    /// Where spans go.
    pub traces: Traces,
    publisher: Publisher,
    /// Requests being served.
    active: AtomicUsize,
    shutting_down: AtomicBool,
    /// No new connections are taken.
    closed: AtomicBool,
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
        share: &Arc<Share>,
        trace: &RequestTrace,
    ) -> Result<Published, ApiError> {
        let mut publishing = trace.publishing(self.publisher.topic(), 1);
        let result = self.publisher.publish(event, share, publishing.traceparent()).await;
        result.map_err(|error| self.refused(error, &mut publishing))
    }

    /// Publishes events together; one result for each.
    pub async fn publish_all(
        &self,
        events: &[Event<'_>],
        share: &Arc<Share>,
        trace: &RequestTrace,
    ) -> Vec<Result<Published, ApiError>> {
        let mut publishing = trace.publishing(self.publisher.topic(), events.len());
        let results = self.publisher.publish_all(events, share, publishing.traceparent()).await;
        let answers = results.into_iter();
        answers.map(|result| result.map_err(|error| self.refused(error, &mut publishing))).collect()
    }

    /// Counts a lead that was not taken for want of the broker, and marks the span of its publishing.
    fn refused(&self, error: PublishError, publishing: &mut Publishing) -> ApiError {
        let shed = match error {
            PublishError::Unavailable => Some(Shed::Unavailable),
            PublishError::Stalled => Some(Shed::Stalled),
            PublishError::Overloaded => Some(Shed::Overloaded),
            PublishError::OverShare => Some(Shed::KeyShare),
            PublishError::Unacknowledged => Some(Shed::Unacknowledged),
            PublishError::TooLarge | PublishError::Encoding => None,
        };
        if let Some(reason) = shed {
            self.metrics.shed(reason);
        }
        let error = ApiError::from(error);
        publishing.fail(error.code_name());
        error
    }

    /// An id for a new lead.
    pub fn new_lead_id(&self) -> Uuid {
        self.publisher.new_lead_id()
    }

    /// What is handed over to the broker and not answered for yet.
    pub fn in_flight(&self) -> &InFlight {
        self.publisher.in_flight()
    }

    /// The topic of events.
    pub fn events_topic(&self) -> &str {
        self.publisher.topic()
    }

    /// Whether a lead sent now would be handed to the broker.
    pub fn can_publish(&self) -> bool {
        self.publisher.refuse_early(Instant::now()).is_ok()
    }

    /// The figures as of now, in Prometheus' text format.
    pub fn render_metrics(&self) -> String {
        self.publisher.report();
        routes::report_standing(self);
        self.metrics.render()
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

    /// Whether the grace is over: whoever has a connection is to leave it.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
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
    tls: Option<Tls>,
}

impl Application {
    /// Starts everything that needs no dependency to be there, and binds the ports.
    ///
    /// # Errors
    /// In words for the operator: a port that is taken, a setting that is refused.
    pub fn build(config: ServeConfig) -> Result<Self, String> {
        let ServeConfig {
            http,
            tls,
            kafka,
            events_topic,
            access_topic,
            postgres,
            publishing,
            traces,
            streams,
        } = config;
        let metrics = Metrics::install()?;
        let listener = bind(http.listen, "API_LISTEN")?;
        let metrics_listener = bind(http.metrics_listen, "METRICS_LISTEN")?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let metrics_address = metrics_listener.local_addr().map_err(|error| error.to_string())?;

        let source = LogSource { kafka: kafka.clone(), topic: events_topic.clone() };
        let streams = Streams::start(streams, source.clone())
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
        let system = System::start(read_model.clone(), Arc::clone(&broker), source)
            .map_err(|error| format!("no thread for questions about the log: {error}"))?;
        let app = web::Data::new(App {
            directory,
            broker: Arc::clone(&broker),
            read_model,
            system,
            projection: ProjectionWait::new(),
            streams,
            recent: Recent::new(publishing.idempotency_cache),
            traces,
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
            kept: Kept::default(),
            active: AtomicUsize::new(0),
            shutting_down: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let server = server::api(listener, &http, tls.as_ref(), app.clone())?;
        let metrics_server = server::metrics(metrics_listener, app.clone())?;
        Ok(Self {
            app,
            server,
            metrics_server,
            address,
            metrics_address,
            grace: http.shutdown_grace,
            patience: http.shutdown_timeout,
            stop_follower,
            tls,
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
            tls,
        } = self;
        if let Some(Tls { certificate, period }) = &tls {
            certificate.report(&app.metrics);
            let (certificate, metrics) = (Arc::clone(certificate), Arc::clone(&app.metrics));
            let hangup = signal(SignalKind::hangup())?;
            actix_web::rt::spawn(certificate.keep_fresh(metrics, *period, hangup));
        }
        tracing::info!(api = %address, tls = tls.is_some(), metrics = %metrics_address, "listening");
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
        app.closed.store(true, Ordering::Relaxed);
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
        let traces = app.traces.clone();
        let _ = tokio::task::spawn_blocking(move || traces.close()).await;
        let _ = tokio::time::timeout(Duration::from_secs(1), write_key_uses(&app)).await;
        metrics.stop(false).await;
        metrics_task.await.map_err(std::io::Error::other)??;
        tracing::info!("stopped");
        Ok(())
    }
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
