//! The servers: the shared ones, and an instance of one's own to break.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::children::Guard;
use crate::system::unique_name;
use crate::tls::{Folder, Identity};
use crate::wait::{DEADLINE, eventually};

/// What clients need to know besides the addresses; also that of the servers in the environment.
const SECURITY: &[&str] = &[
    "KAFKA_SECURITY_PROTOCOL",
    "KAFKA_SSL_CA_LOCATION",
    "KAFKA_SASL_MECHANISM",
    "KAFKA_SASL_USERNAME",
    "KAFKA_SASL_PASSWORD",
    "PGSSLROOTCERT",
];

/// Where Kafka and PostgreSQL are.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) kafka_brokers: String,
    pub(crate) database_url: String,
    /// Variables out of [`SECURITY`]; none when the servers want none of it.
    pub(crate) security: Vec<(String, String)>,
}

fn security(value: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    SECURITY.iter().filter_map(|name| Some(((*name).to_owned(), value(name)?))).collect()
}

impl Servers {
    /// The ones in the environment.
    pub(crate) fn shared() -> Self {
        let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let variable = |name: &str| {
            given(name).unwrap_or_else(|| {
                panic!(
                    "{name} is not set: run `make test`, or `dev/stack exec -- cargo test --workspace`"
                )
            })
        };
        Self {
            kafka_brokers: variable("KAFKA_BROKERS"),
            database_url: variable("DATABASE_URL"),
            security: security(given),
        }
    }

    /// The ones in an env file of `dev/stack`: `KEY=value` lines, the values maybe quoted.
    fn from_env_file(text: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut lines = text.lines().map(|line| line.trim_start_matches("export "));
            let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
            Some(value.trim_matches(['"', '\'']).to_owned())
        };
        Some(Self {
            kafka_brokers: value("KAFKA_BROKERS")?,
            database_url: value("DATABASE_URL")?,
            security: security(value),
        })
    }

    /// One of the variables of [`Servers::security`].
    fn variable(&self, name: &str) -> Option<&str> {
        self.security.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The file of certificates that PostgreSQL's is checked against.
    pub(crate) fn root_cert(&self) -> Option<&Path> {
        self.variable("PGSSLROOTCERT").map(Path::new)
    }
}

/// One of the servers of a [`Stack`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    /// The broker; the first of several.
    Kafka,
    /// The broker with that id, of [`Stack::of_three_brokers`].
    Broker(i32),
    /// The database.
    Postgres,
}

impl Server {
    fn name(self) -> String {
        match self {
            Self::Kafka | Self::Broker(1) => "kafka".to_owned(),
            Self::Broker(id) => format!("kafka-{id}"),
            Self::Postgres => "postgres".to_owned(),
        }
    }
}

/// Kafka and PostgreSQL for one test alone, through `dev/stack`. Dropped: stopped and wiped; the
/// same when the test runner is killed.
#[derive(Debug)]
pub struct Stack {
    name: String,
    servers: Servers,
    _guard: Guard,
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("testkit/ is in the repository")
}

fn script() -> PathBuf {
    repository().join("dev/stack")
}

/// Runs `dev/stack` to its end.
fn outcome_of(args: &[&str]) -> Output {
    let mut command = Command::new(script());
    // With servers given, the script starts none.
    command.args(args).current_dir(repository());
    command.env_remove("KAFKA_BROKERS").env_remove("DATABASE_URL");
    command.output().unwrap_or_else(|error| panic!("dev/stack: {error}"))
}

/// Runs `dev/stack` and panics with what it says when it fails.
fn dev_stack(args: &[&str]) {
    let output = outcome_of(args);
    assert!(
        output.status.success(),
        "dev/stack {args:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic.into_panic()),
    }
}

impl Stack {
    /// Starts an instance; takes some seconds and some hundred MB.
    ///
    /// # Panics
    /// When `dev/stack` fails.
    pub async fn dedicated() -> Self {
        Self::up(&[]).await
    }

    /// The same with three brokers, ids 1 to 3: topics have three replicas, and two of them have a record
    /// before it is acknowledged.
    ///
    /// # Panics
    /// When `dev/stack` fails.
    pub async fn of_three_brokers() -> Self {
        Self::up(&["--brokers", "3"]).await
    }

    /// The same as [`Stack::dedicated`], reached over TLS only; the services started on it are given the authority to trust.
    /// With `sasl`, Kafka also wants a user and a password, which they are given too.
    ///
    /// # Panics
    /// When `dev/stack` fails.
    pub async fn with_tls(identity: &Identity, sasl: bool) -> Self {
        let folder = Folder::new();
        identity.write_to(&folder);
        let files = folder.path().to_str().expect("a temporary folder has a plain name");
        let options: &[&str] = if sasl { &["--tls", files, "--sasl"] } else { &["--tls", files] };
        Self::up(options).await
    }

    async fn up(options: &[&str]) -> Self {
        let name = unique_name();
        let script = script();
        let wipe = "env -u KAFKA_BROKERS -u DATABASE_URL \"$1\" down --wipe --name \"$2\"";
        let guard = Guard::new(wipe, &[&script.to_string_lossy(), &name]);
        let up: Vec<String> =
            ["up", "--name", &name].iter().chain(options).map(|&arg| arg.to_owned()).collect();
        blocking(move || dev_stack(&up.iter().map(String::as_str).collect::<Vec<_>>())).await;
        let file = repository().join(".stack").join(&name).join("env");
        let text = std::fs::read_to_string(&file)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let servers = Servers::from_env_file(&text)
            .unwrap_or_else(|| panic!("{} names no servers: {text}", file.display()));
        Self { name, servers, _guard: guard }
    }

    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    async fn command(&self, verb: &'static str, servers: &[Server]) {
        let mut args = vec![verb.to_owned(), "--name".to_owned(), self.name.clone()];
        args.extend(servers.iter().map(|server| server.name()));
        blocking(move || dev_stack(&args.iter().map(String::as_str).collect::<Vec<_>>())).await;
    }

    /// The broker that is the active controller, once there is one that answers.
    ///
    /// # Panics
    /// After [`DEADLINE`] without one.
    pub async fn controller(&self) -> Server {
        eventually(DEADLINE, "a broker is the active controller", async || {
            let name = self.name.clone();
            // It fails while a server is stopped, and tells of the others.
            let status = blocking(move || outcome_of(&["status", "--name", &name])).await;
            let status = String::from_utf8_lossy(&status.stdout);
            let line = status.lines().find(|line| line.ends_with(", controller"))?;
            (1..=3).map(Server::Broker).find(|it| line.contains(&format!(": {} ", it.name())))
        })
        .await
    }

    /// SIGKILL: the server is gone, its data stay.
    pub async fn kill(&self, server: Server) {
        self.command("kill", &[server]).await;
    }

    /// SIGKILL to several at one moment.
    pub async fn kill_all(&self, servers: &[Server]) {
        self.command("kill", servers).await;
    }

    /// SIGSTOP to several at one moment.
    pub async fn pause_all(&self, servers: &[Server]) {
        self.command("pause", servers).await;
    }

    /// SIGCONT to them.
    pub async fn resume_all(&self, servers: &[Server]) {
        self.command("resume", servers).await;
    }

    /// Starts killed servers again together, and waits until all of them answer: of three brokers, one
    /// alone never would.
    pub async fn start_all(&self, servers: &[Server]) {
        self.command("start", servers).await;
    }

    /// Starts a killed server again at its old address, and waits until it answers.
    pub async fn start(&self, server: Server) {
        self.command("start", &[server]).await;
    }

    /// SIGSTOP: the server holds its connections and answers nothing.
    pub async fn pause(&self, server: Server) {
        self.command("pause", &[server]).await;
    }

    /// SIGCONT.
    pub async fn resume(&self, server: Server) {
        self.command("resume", &[server]).await;
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        let _ = Command::new(script())
            .args(["down", "--wipe", "--name", &self.name])
            .current_dir(repository())
            .env_remove("KAFKA_BROKERS")
            .env_remove("DATABASE_URL")
            .output();
    }
}

#[cfg(test)]
mod tests {
    use super::Servers;

    #[test]
    fn reads_the_env_file_quoted_or_not() {
        let text = "KAFKA_BROKERS=127.0.0.1:1\nexport DATABASE_URL='postgres://a@b/c?x=y'\n";
        let servers = Servers::from_env_file(text).unwrap();
        assert_eq!(servers.kafka_brokers, "127.0.0.1:1");
        assert_eq!(servers.database_url, "postgres://a@b/c?x=y");
        assert!(servers.security.is_empty());
        let servers = Servers::from_env_file(&format!("{text}PGSSLROOTCERT=/ca.pem\n")).unwrap();
        assert_eq!(servers.root_cert(), Some(std::path::Path::new("/ca.pem")));
        assert!(Servers::from_env_file("KAFKA_BROKERS=a").is_none());
    }
}
