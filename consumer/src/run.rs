//! `leads-consumer run`: from settings to a working projection, and down again.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use leads_shared::topic;
use leads_traces::Traces;
use tokio::sync::{Notify, watch};

use crate::breaker::Breaker;
use crate::config::{Database, RunConfig};
use crate::failure::{Failure, Halt};
use crate::health::Health;
use crate::source::Membership;
use crate::source::admin::{Admin, AdminError};
use crate::store::{Store, Target};
use crate::worker::Shared;
use crate::worker::lanes::{self, Progress};
use crate::{dead_letters, migrate, probes, telemetry, topics};

const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Why `run` ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The settings don't work; exit code 2.
    #[error("{0}")]
    Config(String),
    /// Exit code 1.
    #[error(transparent)]
    Halt(#[from] Halt),
}

/// Projects until `stop` turns true.
///
/// # Errors
/// See [`RunError`].
pub async fn run(config: RunConfig, stop: watch::Receiver<bool>) -> Result<(), RunError> {
    let traces =
        Traces::from_env("leads-consumer", env!("CARGO_PKG_VERSION")).map_err(RunError::Config)?;
    let admin = Admin::new(&config.kafka).map_err(|error| RunError::Config(error.to_string()))?;
    let listener = TcpListener::bind(config.metrics_listen).map_err(|error| {
        RunError::Config(format!(
            "METRICS_LISTEN: {} can't be used: {error}",
            config.metrics_listen
        ))
    })?;
    let collected =
        telemetry::start_metrics().map_err(|error| RunError::Config(error.to_string()))?;
    let health = Arc::new(Health::new(config.lanes));
    let (address, server) = probes::serve(listener, Arc::clone(&health), collected)
        .map_err(|error| RunError::Config(format!("METRICS_LISTEN: {error}")))?;
    tracing::info!(metrics = %address, "listening");
    let result = project(&config, admin, &health, &traces, stop).await;
    server.stop(false).await;
    let _ = tokio::task::spawn_blocking(move || traces.close()).await;
    result
}

async fn project(
    config: &RunConfig,
    admin: Admin,
    health: &Health,
    traces: &Traces,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let partitions = tokio::select! {
        ready = dependencies(config, admin, health) => ready?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let Database { config: database, tls } = &config.database;
    telemetry::set_dead_letter_limit(config.dlq_max);
    let breaker = Arc::new(Breaker::new(config.dlq_max, config.dlq_window));
    let store = || Store::new(database, tls, &config.topic, Target::Live).with_breaker(&breaker);
    let stores = (0..config.lanes).map(|_| store()).collect();
    let told = Notify::new();
    let progress = Progress::new(partitions);
    let shared = Shared {
        health,
        dead_letters: &told,
        progress: &progress,
        limits: config.limits,
        partition_count: partitions,
        topic: &config.topic,
        traces,
    };
    let membership = Membership::Group(config.group.clone());
    let (ended, end) = watch::channel(false);
    let export = dead_letters::run(&config.database, &config.kafka, &config.topic, &told, end);
    let work = async {
        let result =
            lanes::run(&config.kafka, &config.topic, &membership, stores, shared, stop).await;
        let _ = ended.send(true);
        result
    };
    // The export may hang on a broker that is away; what it has not marked is exported next time.
    tokio::select! {
        result = work => result,
        () = async { export.await; std::future::pending().await } => Ok(()),
    }
}

/// Waits until PostgreSQL and Kafka are there and as they must be; gives the number of partitions.
async fn dependencies(config: &RunConfig, mut admin: Admin, health: &Health) -> Result<u32, Halt> {
    let mut said = Said::default();
    loop {
        match migrate::check(&config.database).await {
            Ok(()) => break,
            Err(Failure::Halt(halt)) => return Err(halt),
            Err(Failure::Retry { error, .. } | Failure::Data { error }) => {
                said.once(&format!("waiting for PostgreSQL: {error}"));
            }
            Err(Failure::Fenced | Failure::Again) => {}
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    health.lanes().iter().for_each(|lane| lane.set_postgres(true));
    let spec = topic::events(&config.topic, 0);
    loop {
        match look(&admin, &spec).await {
            Ok(Some((partitions, violations))) => {
                if violations.is_empty() {
                    health.set_kafka(true);
                    return Ok(partitions);
                }
                return Err(Halt::new(
                    violations.join("; "),
                    "the projection would lose history; it starts when the topic is mended",
                ));
            }
            Ok(None) => {
                let topic = &config.topic;
                said.once(&format!(
                    "waiting for topic {topic}: it does not exist; run `leads-consumer topics`"
                ));
            }
            Err(AdminError::Unavailable(error)) => {
                said.once(&format!("waiting for Kafka: {error}"));
                // A client that has lost its brokers does not find them again; see `source::consumer`.
                if let Ok(anew) = Admin::new(&config.kafka) {
                    admin = anew;
                }
            }
            Err(error) => {
                return Err(Halt::new(
                    error.to_string(),
                    "grant the user Describe and DescribeConfigs on the topic",
                ));
            }
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

async fn look(
    admin: &Admin,
    spec: &topic::TopicSpec,
) -> Result<Option<(u32, Vec<String>)>, AdminError> {
    match admin.topic(&spec.name).await? {
        Some(topic) if topic.usable => {
            Ok(Some((topic.partitions, topics::check(admin, spec).await?)))
        }
        Some(_) => Err(AdminError::Unavailable(format!("{} has no leader", spec.name))),
        None => Ok(None),
    }
}

/// Logs a state when it changes, not every time it is found.
#[derive(Default)]
struct Said(String);

impl Said {
    fn once(&mut self, line: &str) {
        if self.0 != line {
            line.clone_into(&mut self.0);
            tracing::warn!("{line}");
        }
    }
}
