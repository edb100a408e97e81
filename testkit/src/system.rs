//! One isolated system: topics, group, database, and the binaries that work on them.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::database::{self, Database};
use crate::log::Log;
use crate::process::{command, command_of};
use crate::stack::Servers;
use crate::{Api, Consumer, Process, Stack};

/// The longest a command of the binaries may take.
const COMMAND: Duration = Duration::from_mins(2);
/// Few, so that a hundred tests don't fill the broker; more than one, so that order isn't given.
const PARTITIONS: u32 = 3;

type Env = Vec<(String, String)>;

/// How a [`System`] is to be set up.
#[derive(Debug)]
pub struct Builder {
    stack: Option<Stack>,
    partitions: u32,
    topics: bool,
    migrations: bool,
    env: Env,
}

impl Builder {
    /// Servers of its own, to be stopped and frozen; the shared ones otherwise.
    #[must_use]
    pub fn stack(mut self, stack: Stack) -> Self {
        self.stack = Some(stack);
        self
    }

    /// Partitions of the events topic; 3 otherwise.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Leaves the topics to the test.
    #[must_use]
    pub fn without_topics(mut self) -> Self {
        self.topics = false;
        self
    }

    /// Leaves the database empty.
    #[must_use]
    pub fn without_migrations(mut self) -> Self {
        self.migrations = false;
        self
    }

    /// A variable for every binary that is started here.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Creates the database, and topics and tables through `leads-consumer`.
    ///
    /// # Panics
    /// Without servers, and when a command fails.
    pub async fn build(self) -> System {
        let Self { stack, partitions, topics, migrations, env: extra } = self;
        let servers = stack.as_ref().map_or_else(Servers::shared, |stack| stack.servers().clone());
        let name = unique_name();
        let database = Database::create(&servers.database_url, servers.root_cert(), &name).await;
        let events = format!("{name}.events");
        let mut env: Env = [
            ("KAFKA_BROKERS", servers.kafka_brokers.as_str()),
            ("DATABASE_URL", &database.url),
            ("LEADS_TOPIC", &events),
            ("LEADS_ACCESS_TOPIC", &format!("{name}.access")),
            ("CONSUMER_GROUP", &name),
            ("TOPIC_PARTITIONS", &partitions.to_string()),
            ("API_LISTEN", "127.0.0.1:0"),
            ("METRICS_LISTEN", "127.0.0.1:0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
        env.extend(servers.security.iter().cloned());
        env.extend(extra);
        let log = Log::new(&servers);
        let system =
            System { env, log, events, workspace: Uuid::new_v4(), database, servers, stack };
        if topics {
            system.run_to_success("leads-consumer", &["topics"]).await;
        }
        if migrations {
            system.run_to_success("leads-consumer", &["migrate"]).await;
        }
        system
    }
}

/// Letters, digits and underscores: good as a topic, a group and a database, on a server that
/// other test runs use too.
pub(crate) fn unique_name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let [random, ..] = Uuid::new_v4().into_bytes();
    format!("t{}_{count}_{random:02x}", std::process::id())
}

/// An isolated system. Dropped: its database is removed and a [`Stack`] of its own ends; topics
/// stay on a shared broker.
#[derive(Debug)]
pub struct System {
    env: Env,
    pub(crate) log: Log,
    events: String,
    workspace: Uuid,
    servers: Servers,
    // In this order: the database is dropped while its server still runs.
    database: Database,
    stack: Option<Stack>,
}

impl System {
    /// A system on the shared servers, with topics and tables.
    ///
    /// # Panics
    /// As [`Builder::build`].
    pub async fn new() -> Self {
        Self::builder().build().await
    }

    /// What [`System::new`] does, to be varied.
    pub fn builder() -> Builder {
        Builder {
            stack: None,
            partitions: PARTITIONS,
            topics: true,
            migrations: true,
            env: Vec::new(),
        }
    }

    /// The servers of its own, when it has some.
    ///
    /// # Panics
    /// When it runs on the shared ones.
    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().expect("the system was built with .stack(Stack::dedicated().await)")
    }

    /// A workspace of this system's; a [`crate::KeySpec`] has to name it to make keys for it.
    pub fn workspace(&self) -> Uuid {
        self.workspace
    }

    /// `KAFKA_BROKERS` of this system.
    pub fn kafka_brokers(&self) -> &str {
        &self.servers.kafka_brokers
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// `DATABASE_URL` of this system.
    pub fn database_url(&self) -> &str {
        &self.database.url
    }

    /// The events topic's name.
    pub fn events_topic(&self) -> &str {
        &self.events
    }

    /// The dead letter topic's name.
    pub fn dead_letter_topic(&self) -> String {
        leads_shared::topic::dead_letters(&self.events)
    }

    /// The access topic's name.
    pub fn access_topic(&self) -> String {
        self.variable("LEADS_ACCESS_TOPIC").to_owned()
    }

    /// The consumer group's name.
    pub(crate) fn group(&self) -> &str {
        self.variable("CONSUMER_GROUP")
    }

    fn variable(&self, name: &str) -> &str {
        let found = self.env.iter().rfind(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str()).expect("it is always set")
    }

    /// The environment that every binary gets here.
    pub fn env(&self) -> &[(String, String)] {
        &self.env
    }

    fn env_with(&self, extra: &[(&str, &str)]) -> Env {
        let mut env = self.env.clone();
        env.extend(extra.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        env
    }

    /// Starts `leads-api serve`, and returns once it listens.
    pub async fn start_api(&self) -> Api {
        self.start_api_with(&[]).await
    }

    /// The same with more variables; they win.
    pub async fn start_api_with(&self, env: &[(&str, &str)]) -> Api {
        Api::new(self.spawn("leads-api", &["serve"], env)).await
    }

    /// Starts `leads-consumer run`, and returns once it listens.
    pub async fn start_consumer(&self) -> Consumer {
        self.start_consumer_with(&[]).await
    }

    /// The same with more variables; they win.
    pub async fn start_consumer_with(&self, env: &[(&str, &str)]) -> Consumer {
        Consumer::new(self.spawn("leads-consumer", &["run"], env)).await
    }

    /// Starts a binary without waiting for anything: for one that is to end by itself.
    pub fn spawn(&self, binary: &str, args: &[&str], env: &[(&str, &str)]) -> Process {
        Process::spawn(binary, args, &self.env_with(env))
    }

    /// The same for a program that is none of the workspace's.
    pub fn spawn_program(&self, program: &Path, args: &[&str]) -> Process {
        Process::start(&program.to_string_lossy(), command_of(program, args, &self.env))
    }

    /// Runs a binary to its end, whatever that is.
    ///
    /// # Panics
    /// When it takes longer than two minutes.
    pub async fn run(&self, binary: &str, args: &[&str], env: &[(&str, &str)]) -> Output {
        to_the_end(command(binary, args, &self.env_with(env)), COMMAND).await
    }

    /// The same for a program that is none of the workspace's.
    ///
    /// # Panics
    /// After `deadline`.
    pub async fn run_program(&self, program: &Path, args: &[&str], deadline: Duration) -> Output {
        to_the_end(command_of(program, args, &self.env), deadline).await
    }

    async fn run_to_success(&self, binary: &str, args: &[&str]) {
        let output = self.run(binary, args, &[]).await;
        assert!(
            output.status.success(),
            "{binary} {args:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Runs `leads-consumer` with `args` to its end.
    pub async fn consumer_command(&self, args: &[&str]) -> Output {
        self.run("leads-consumer", args, &[]).await
    }

    /// Runs `leads-api keys` with `args` to its end.
    pub async fn keys(&self, args: &[&str]) -> Output {
        let args: Vec<_> = std::iter::once(&"keys").chain(args).copied().collect();
        self.run("leads-api", &args, &[]).await
    }

    /// A new connection to this system's database.
    pub async fn db(&self) -> Client {
        database::connect(&self.database.url, self.servers.root_cert()).await
    }

    /// Another database on the same server, empty; removed when it is dropped.
    pub async fn spare_database(&self) -> Spare {
        let Servers { database_url, .. } = self.servers();
        let database =
            Database::create(database_url, self.servers.root_cert(), &unique_name()).await;
        Spare { database, root_cert: self.servers.root_cert().map(Path::to_owned) }
    }

    /// The rows of a query, over a connection of its own.
    ///
    /// # Panics
    /// When the query fails.
    pub async fn rows(&self, query: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        let rows = self.db().await.query(query, params).await;
        rows.unwrap_or_else(|error| panic!("{query}: {error:?}"))
    }

    /// The one number that a query such as `SELECT count(*) FROM leads` gives (a `bigint`).
    ///
    /// # Panics
    /// When the query fails or gives anything else.
    pub async fn number(&self, query: &str) -> i64 {
        self.rows(query, &[]).await.first().expect("one row").get(0)
    }
}

async fn to_the_end(command: std::process::Command, deadline: Duration) -> Output {
    let what = format!("{} {:?}", command.get_program().display(), command.get_args());
    let mut command = tokio::process::Command::from(command);
    let running = command.stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(deadline, running)
        .await
        .unwrap_or_else(|_| panic!("{what} takes longer than {deadline:?}"))
        .unwrap_or_else(|error| panic!("{what} does not start: {error}"))
}

/// A database besides the system's own.
#[derive(Debug)]
pub struct Spare {
    database: Database,
    root_cert: Option<PathBuf>,
}

impl Spare {
    /// Its `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.database.url
    }

    /// A new connection to it.
    pub async fn db(&self) -> Client {
        database::connect(&self.database.url, self.root_cert.as_deref()).await
    }
}
