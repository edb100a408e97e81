//! The binaries that are measured, on topics and a database of their own.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::cpu::Watched;
use crate::http::{Connection, Url};
use crate::kafka;
use crate::own_time::Probe;

const READY: Duration = Duration::from_mins(1);
/// Bytes of a service's output that are shown when it fails.
const TAIL: usize = 8 * 1024;

/// A binary beside this one.
pub(crate) fn binary(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os("LEADS_BIN_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => std::env::current_exe()?.parent().context("a folder")?.to_owned(),
    };
    let path = folder.join(name);
    ensure!(
        path.is_file(),
        "{} is not there; build it: cargo build --release -p leads-api -p leads-consumer",
        path.display()
    );
    Ok(path)
}

/// An address that nobody listens on right now.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Topics, group and database of one measurement.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) events_topic: String,
    pub(crate) brokers: String,
    pub(crate) database_url: String,
    server_url: String,
    name: String,
    env: Vec<(String, String)>,
}

impl System {
    /// Makes a database, and through `leads-consumer` the topics and the tables.
    pub(crate) async fn create(brokers: &str, server_url: &str) -> Result<Self> {
        Self::create_with(brokers, server_url, &[]).await
    }

    /// The same with more variables for every binary that is started here.
    pub(crate) async fn create_with(
        brokers: &str,
        server_url: &str,
        more: &[(&str, &str)],
    ) -> Result<Self> {
        let name = format!("bench_{}", Uuid::now_v7().simple());
        let server = connect(server_url).await?;
        server
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .await
            .context("CREATE DATABASE")?;
        let database_url = with_database(server_url, &name)?;
        let events_topic = format!("{name}.events");
        let mut env: Vec<(String, String)> = [
            ("KAFKA_BROKERS", brokers),
            ("DATABASE_URL", &database_url),
            ("LEADS_TOPIC", &events_topic),
            ("LEADS_ACCESS_TOPIC", &format!("{name}.access")),
            ("CONSUMER_GROUP", &name),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let system = Self {
            events_topic,
            brokers: brokers.to_owned(),
            database_url,
            server_url: server_url.to_owned(),
            name,
            env,
        };
        system.command("leads-consumer", &["topics"]).await?;
        system.command("leads-consumer", &["migrate"]).await?;
        Ok(system)
    }

    /// Removes topics and database, best effort.
    pub(crate) async fn remove(self) {
        let Self { events_topic, brokers, server_url, name, .. } = self;
        let dead_letters = leads_shared::topic::dead_letters(&events_topic);
        let topics = [&events_topic, &dead_letters, &format!("{name}.access")];
        kafka::delete_topics(&brokers, &topics.map(String::as_str)).await;
        if let Ok(client) = connect(&server_url).await {
            let _ = client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
        }
    }

    /// Runs a command to its end; gives what it wrote to stdout.
    pub(crate) async fn command(&self, name: &str, args: &[&str]) -> Result<Vec<u8>> {
        let mut command = tokio::process::Command::new(binary(name)?);
        command.args(args).envs(self.env.iter().cloned()).stdin(Stdio::null());
        let output = command.output().await.with_context(|| name.to_owned())?;
        ensure!(
            output.status.success(),
            "{name} {args:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output.stdout)
    }

    /// A key without a rate limit.
    pub(crate) async fn create_key(&self, workspace: Uuid) -> Result<String> {
        let workspace = workspace.to_string();
        let args = ["keys", "create", "--workspace", &workspace, "--rate-limit", "0", "--json"];
        key_of(&self.command("leads-api", &args).await?)
    }

    /// Starts the API; returns once it takes leads.
    pub(crate) async fn start_api(&self) -> Result<Service> {
        self.start_api_with(&[]).await
    }

    /// The same with these variables.
    pub(crate) async fn start_api_with(&self, env: &[(&str, &str)]) -> Result<Service> {
        let listen = free_address()?;
        self.start("api", "leads-api", "serve", listen, free_address()?, env).await
    }

    /// Starts the consumer without waiting for anything.
    pub(crate) fn spawn_consumer(&self) -> Result<Service> {
        let metrics = free_address()?;
        let mut command = Command::new(binary("leads-consumer")?);
        command.arg("run").envs(self.env.iter().cloned());
        command.env("METRICS_LISTEN", metrics.to_string());
        Service::spawn("consumer", command, metrics)
    }

    /// Starts a rebuild that swaps without comparing.
    pub(crate) fn spawn_rebuild(&self) -> Result<Service> {
        let mut command = Command::new(binary("leads-consumer")?);
        command.args(["rebuild", "--yes", "--accept-differences"]);
        command.envs(self.env.iter().cloned());
        Service::spawn("rebuild", command, free_address()?)
    }

    async fn start(
        &self,
        name: &str,
        file: &str,
        verb: &str,
        listen: SocketAddr,
        metrics: SocketAddr,
        env: &[(&str, &str)],
    ) -> Result<Service> {
        let mut command = Command::new(binary(file)?);
        command.arg(verb).envs(self.env.iter().cloned()).envs(env.iter().copied());
        command.env("API_LISTEN", listen.to_string()).env("METRICS_LISTEN", metrics.to_string());
        let mut service = Service::spawn(name, command, listen)?;
        service.metrics = Some(metrics);
        service.wait_answer("/readyz", 200).await?;
        Ok(service)
    }
}

/// The secret in what `keys create --json` printed.
pub(crate) fn key_of(output: &[u8]) -> Result<String> {
    let json: Value = serde_json::from_slice(output).context("keys create --json")?;
    Ok(json["key"].as_str().context("no key in what keys create printed")?.to_owned())
}

/// A connection to PostgreSQL.
pub(crate) async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.context("PostgreSQL")?;
    tokio::spawn(connection);
    Ok(client)
}

fn with_database(url: &str, name: &str) -> Result<String> {
    let (scheme, rest) = url.split_once("://").context("DATABASE_URL must be postgres://…")?;
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    let authority = rest.split('/').next().unwrap_or(rest);
    let mark = if query.is_empty() { "" } else { "?" };
    Ok(format!("{scheme}://{authority}/{name}{mark}{query}"))
}

/// A running process. Dropped: killed.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
    tail: Arc<Mutex<VecDeque<u8>>>,
    pub(crate) address: SocketAddr,
    /// Where its figures are, if it has any.
    metrics: Option<SocketAddr>,
}

impl Service {
    pub(crate) fn spawn(name: &str, mut command: Command, address: SocketAddr) -> Result<Self> {
        // Read and forgotten but for the tail: writing the log is part of what is measured.
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("start {name}"))?;
        let tail = Arc::<Mutex<VecDeque<u8>>>::default();
        let mut output = child.stdout.take().context("stdout is piped")?;
        let kept = Arc::clone(&tail);
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 * 1024];
            while let Ok(read @ 1..) = output.read(&mut chunk) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.extend(&chunk[read.saturating_sub(TAIL)..read]);
                let surplus = kept.len().saturating_sub(TAIL);
                kept.drain(..surplus);
            }
        });
        Ok(Self { name: name.to_owned(), child, tail, address, metrics: None })
    }

    pub(crate) fn watched(&self) -> Watched {
        Watched { name: self.name.clone(), pid: self.child.id() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/leads", self.address)
    }

    /// What asks it for its own time.
    pub(crate) fn probe(&self) -> Result<Probe> {
        let metrics = self.metrics.with_context(|| format!("{} has no metrics", self.name))?;
        Probe::new(&format!("http://{metrics}/metrics"))
    }

    /// Fails when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            bail!(
                "{} has ended ({status}); its last lines:\n{}",
                self.name,
                String::from_utf8_lossy(tail.make_contiguous())
            );
        }
        Ok(())
    }

    /// Polls a path until it answers with `status`.
    pub(crate) async fn wait_answer(&mut self, path: &str, status: u16) -> Result<()> {
        let url = Url::parse(&format!("http://{}", self.address))?;
        let request = url.request("GET", path, &[], None);
        let mut connection = Connection::new(self.address);
        let end = Instant::now() + READY;
        loop {
            self.check()?;
            match connection.exchange(&request).await {
                Ok(answer) if answer.status == status => return Ok(()),
                Ok(_) | Err(_) if Instant::now() < end => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => bail!("{}: {path} does not answer {status}: {other:?}", self.name),
            }
        }
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(mut self) -> Result<()> {
        self.check()?;
        // Through the shell: there is a `kill` everywhere, and it needs no unsafe.
        let pid = self.child.id().to_string();
        Command::new("sh").args(["-c", "kill -s TERM \"$1\"", "sh", &pid]).status()?;
        let end = Instant::now() + READY;
        while self.child.try_wait()?.is_none() {
            ensure!(Instant::now() < end, "{} does not end", self.name);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
