//! A database of its own on the shared server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Client;

/// `url` with another database. Understands both forms that libpq does.
fn with_database(url: &str, name: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return format!("{url} dbname={name}");
    };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    let authority = rest.split_once('/').map_or(rest, |(authority, _)| authority);
    format!("{scheme}://{authority}/{name}{query}")
}

/// A connection; its background task ends with the client.
pub(crate) async fn connect(url: &str, root_cert: Option<&Path>) -> Client {
    let (mut config, tls) = leads_postgres::parse(url, root_cert)
        .unwrap_or_else(|error| panic!("DATABASE_URL: {error}"));
    config.connect_timeout(Duration::from_secs(10)).application_name("leads-testkit");
    let (client, connection) =
        config.connect(tls).await.unwrap_or_else(|error| panic!("PostgreSQL: {error}"));
    tokio::spawn(connection);
    client
}

/// A new, empty database. Dropped: removed from the server, best effort.
#[derive(Debug)]
pub(crate) struct Database {
    server: String,
    root_cert: Option<PathBuf>,
    name: String,
    pub(crate) url: String,
}

impl Database {
    pub(crate) async fn create(server: &str, root_cert: Option<&Path>, name: &str) -> Self {
        // template0: nobody connects to it, so two tests can copy it at once; and UTF-8
        // whatever the server's default is.
        let create = format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'");
        connect(server, root_cert)
            .await
            .batch_execute(&create)
            .await
            .expect("a database can be created");
        Self {
            server: server.to_owned(),
            root_cert: root_cert.map(Path::to_owned),
            name: name.to_owned(),
            url: with_database(server, name),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let root_cert = self.root_cert.clone();
        // A thread with a runtime of its own: Drop can't wait inside the test's.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime
                .block_on(async {
                    let work = async {
                        let (config, tls) = leads_postgres::parse(&server, root_cert.as_deref())?;
                        let (client, connection) =
                            config.connect(tls).await.map_err(|error| error.to_string())?;
                        tokio::spawn(connection);
                        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                        client.batch_execute(&drop).await.map_err(|error| error.to_string())
                    };
                    tokio::time::timeout(Duration::from_secs(5), work).await
                })?
                .map_err(std::io::Error::other)
        });
        let _ = dropping.join();
    }
}

#[cfg(test)]
mod tests {
    use super::with_database;

    #[test]
    fn puts_the_database_into_either_form() {
        for (url, expected) in [
            ("postgres://u:p@h:1/a?sslmode=disable", "postgres://u:p@h:1/x?sslmode=disable"),
            ("postgres://h", "postgres://h/x"),
            ("host=h dbname=a", "host=h dbname=a dbname=x"),
        ] {
            assert_eq!(with_database(url, "x"), expected);
        }
    }
}
