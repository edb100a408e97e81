//! A connection to PostgreSQL that ends with its owner.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use postgres_openssl::MakeTlsConnector;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, Error};

use crate::failure::describe;

/// For all of connecting, TLS and authentication included. `connect_timeout` ends with the TCP
/// connection, and a proxy or the kernel makes that without the server.
const PATIENCE: Duration = Duration::from_secs(10);

/// PostgreSQL can't be asked.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    /// By its own word, or that of the connection.
    #[error("{}", describe(.0))]
    Postgres(#[from] Error),
    /// It takes the connection and says nothing for so long.
    #[error("the server takes the connection and does not answer within {0:?}")]
    Silent(Duration),
}

/// A client, and the task that moves its bytes. Dropped: the socket is closed at once, a statement
/// under way notwithstanding.
pub struct Connection {
    client: Client,
    task: Task,
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Connects; the connection's end shows in the client's errors.
    ///
    /// # Errors
    /// See [`Unreachable`]; it takes ten seconds at most for each host that is named.
    pub async fn open(config: &Config, tls: &MakeTlsConnector) -> Result<Self, Unreachable> {
        // Hosts are tried one after the other, each as long as its `connect_timeout`.
        let hosts = u32::try_from(config.get_hosts().len()).unwrap_or(1).max(1);
        let each = config.get_connect_timeout().map_or(PATIENCE, |it| PATIENCE.max(*it * 2));
        let patience = each * hosts;
        let connecting = tokio::time::timeout(patience, config.connect(tls.clone()));
        let (client, connection) =
            connecting.await.map_err(|_| Unreachable::Silent(patience))??;
        let task = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        });
        Ok(Self { client, task: Task(task) })
    }

    /// The same under a name that `status` and `pg_stat_activity` show.
    ///
    /// # Errors
    /// As those of [`Connection::open`].
    pub async fn named(
        config: &Config,
        tls: &MakeTlsConnector,
        name: &str,
    ) -> Result<Self, Unreachable> {
        let mut config = config.clone();
        config.application_name(name);
        Self::open(&config, tls).await
    }

    /// Ends the connection in order, after what was sent.
    pub async fn close(self) {
        let Self { client, mut task } = self;
        drop(client);
        let _ = (&mut task.0).await;
    }
}

impl Deref for Connection {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}
