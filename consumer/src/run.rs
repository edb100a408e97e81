//! `leads-consumer run`: from settings to a working projection, and down again.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use leads_shared::topic;
use tokio::sync::{Notify, watch};

use crate::config::RunConfig;
use crate::failure::{Failure, Halt};
use crate::health::Health;
use crate::source::admin::{Admin, AdminError};
use crate::source::consumer::Source;
use crate::store::{Store, Target};
use crate::worker::Worker;
use crate::{dead_letters, migrate, probes, telemetry, topics};

const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long leaving the group may take: the brokers may be away.
const LEAVE_WAIT: Duration = Duration::from_secs(5);

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
    let admin = Admin::new(&config.kafka).map_err(|error| RunError::Config(error.to_string()))?;
    let listener = TcpListener::bind(config.metrics_listen).map_err(|error| {
        RunError::Config(format!(
            "METRICS_LISTEN: {} can't be used: {error}",
            config.metrics_listen
        ))
    })?;
    let collected =
        telemetry::start_metrics().map_err(|error| RunError::Config(error.to_string()))?;
    let health = Arc::new(Health::default());
    let (address, server) = probes::serve(listener, Arc::clone(&health), collected)
        .map_err(|error| RunError::Config(format!("METRICS_LISTEN: {error}")))?;
    tracing::info!(metrics = %address, "listening");
    let result = project(&config, &admin, &health, stop).await;
    server.stop(false).await;
    result
}

async fn project(
    config: &RunConfig,
    admin: &Admin,
    health: &Health,
    mut stop: watch::Receiver<bool>,
) -> Result<(), RunError> {
    let partitions = tokio::select! {
        ready = dependencies(config, admin, health) => ready?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let (source, thread) =
        Source::start(&config.kafka, &config.topic, &config.group).map_err(RunError::Config)?;
    let store =
        Store::new(&config.database.config, &config.database.tls, &config.topic, Target::Live);
    let told = Notify::new();
    let worker = Worker::new(source, store, health, &told, config.limits, partitions);
    let (ended, end) = watch::channel(false);
    let export = dead_letters::run(&config.database, &config.kafka, &config.topic, &told, end);
    let work = async {
        let result = worker.run(stop).await;
        let _ = ended.send(true);
        result
    };
    // The export may hang on a broker that is away; what it has not marked is exported next time.
    let result = tokio::select! {
        result = work => result,
        () = async { export.await; std::future::pending().await } => Ok(()),
    };
    let left = tokio::task::spawn_blocking(move || thread.join());
    if tokio::time::timeout(LEAVE_WAIT, left).await.is_err() {
        tracing::warn!("leaving the group took too long; its session will time out");
    }
    Ok(result?)
}

/// Waits until PostgreSQL and Kafka are there and as they must be; gives the number of partitions.
async fn dependencies(config: &RunConfig, admin: &Admin, health: &Health) -> Result<u32, Halt> {
    let mut said = Said::default();
    loop {
        match migrate::check(&config.database).await {
            Ok(()) => break,
            Err(Failure::Halt(halt)) => return Err(halt),
            Err(Failure::Retry { error, .. } | Failure::Data { error }) => {
                said.once(&format!("waiting for PostgreSQL: {error}"));
            }
            Err(Failure::Fenced) => {}
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    health.set_postgres(true);
    let spec = topic::events(&config.topic, 0);
    loop {
        match look(admin, &spec).await {
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
