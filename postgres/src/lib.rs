//! How to reach PostgreSQL: the connection URL, and TLS that verifies.
//!
//! tokio-postgres knows `sslmode=disable|prefer|require` and leaves verification to the TLS library.
//! Here the URL means what it means to libpq, but for two things. `require` verifies too: TLS that
//! does not ask whom it talks to protects from nobody, and who wants that can write `prefer`. And
//! the default is `verify-full`, but for servers on this machine, whose packets meet nobody.
//!
//! | `sslmode` | TLS | chain | host name |
//! | --- | --- | --- | --- |
//! | `disable` | no | – | – |
//! | `prefer` (default on loopback and sockets, without a root certificate) | if the server has it | no | no |
//! | `verify-ca` | yes | yes | no |
//! | `require`, `verify-full` (default elsewhere) | yes | yes | yes |

pub mod rebuild;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVerifyMode};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

/// How far a server's certificate is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verify {
    Nothing,
    Chain,
    ChainAndHost,
}

/// The version of the linked OpenSSL, as in `3.6.3`.
pub fn openssl_version() -> &'static str {
    let text = openssl::version::version();
    text.split(' ').nth(1).unwrap_or(text)
}

/// Reads a connection URL (`postgres://user:password@host:port/database?…`).
///
/// `root_cert` is the file of trusted certificates (PEM) when the URL has no `sslrootcert`; with
/// neither, or with the word `system`, those of the operating system are trusted.
///
/// TCP keep-alive and `tcp_user_timeout` are set unless the URL says otherwise, so that a server
/// that vanished is noticed within half a minute.
///
/// # Errors
/// What is wrong and how to write it. The text holds nothing of the URL's user, password or host.
pub fn parse(url: &str, root_cert: Option<&Path>) -> Result<(Config, MakeTlsConnector), String> {
    if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
        return Err("expected postgres://USER:PASSWORD@HOST:PORT/DATABASE".to_owned());
    }
    let mut ssl = SslParameters::default();
    let url = ssl.take_from(url)?;
    // The parser's own text may quote a piece of the password when it holds an unescaped `@`, `/`
    // or `?`: only its kind is shown.
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        match cause.strip_prefix("invalid value for option `") {
            Some(option) => {
                format!("the value of {} is not valid", option.trim_end_matches('`'))
            }
            None => "it is not a valid connection URL; user, password, host and database may need \
                     percent-encoding"
                .to_owned(),
        }
    })?;
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        return Err("it names no host".to_owned());
    }
    if config.get_user().is_none() {
        return Err("it names no user".to_owned());
    }
    let root_cert = ssl.root_cert.as_deref().or(root_cert);
    let (mode, verify) = match (ssl.mode, root_cert) {
        (Some(asked), _) => asked,
        (None, None) if is_local(&config) => (SslMode::Prefer, Verify::Nothing),
        (None, _) => (SslMode::Require, Verify::ChainAndHost),
    };
    config.ssl_mode(mode);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(Duration::from_secs(5));
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(15));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_idle(Duration::from_secs(10));
        config.keepalives_interval(Duration::from_secs(5));
        config.keepalives_retries(3);
    }
    let tls = connector(verify, root_cert)?;
    Ok((config, tls))
}

/// Whether every server that the URL names is on this machine.
fn is_local(config: &Config) -> bool {
    config.get_hostaddrs().iter().all(IpAddr::is_loopback)
        && config.get_hosts().iter().all(|host| match host {
            Host::Tcp(name) if name == "localhost" => true,
            Host::Tcp(name) => name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
            #[cfg(unix)]
            Host::Unix(_) => true,
        })
}

/// The parameters of the URL that tokio-postgres does not know, or knows less of.
#[derive(Default)]
struct SslParameters {
    mode: Option<(SslMode, Verify)>,
    root_cert: Option<PathBuf>,
}

impl SslParameters {
    /// Takes the TLS parameters out of `url` and returns what is left of it.
    fn take_from(&mut self, url: &str) -> Result<String, String> {
        let Some((base, query)) = url.split_once('?') else { return Ok(url.to_owned()) };
        let mut rest = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "sslmode" => self.mode = Some(mode(value)?),
                "sslrootcert" => self.root_cert = Some(PathBuf::from(percent_decoded(value)?)),
                _ if name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') => rest.push(pair),
                _ => {
                    return Err("a parameter after the ? has no valid name; a ? in the password \
                                is written %3F"
                        .to_owned());
                }
            }
        }
        Ok(if rest.is_empty() { base.to_owned() } else { format!("{base}?{}", rest.join("&")) })
    }
}

fn mode(value: &str) -> Result<(SslMode, Verify), String> {
    match value {
        "disable" => Ok((SslMode::Disable, Verify::Nothing)),
        "prefer" | "allow" => Ok((SslMode::Prefer, Verify::Nothing)),
        "verify-ca" => Ok((SslMode::Require, Verify::Chain)),
        "require" | "verify-full" => Ok((SslMode::Require, Verify::ChainAndHost)),
        _ => Err("sslmode must be disable, prefer, require, verify-ca or verify-full".to_owned()),
    }
}

fn percent_decoded(text: &str) -> Result<String, String> {
    let wrong = || "sslrootcert is not a valid percent-encoded path".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()).ok_or_else(wrong)?;
            bytes.push(byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

fn connector(verify: Verify, root_cert: Option<&Path>) -> Result<MakeTlsConnector, String> {
    let set_up = |error: openssl::error::ErrorStack| format!("TLS could not be set up: {error}");
    let mut builder = SslConnector::builder(SslMethod::tls_client()).map_err(set_up)?;
    match root_cert {
        _ if verify == Verify::Nothing => builder.set_verify(SslVerifyMode::NONE),
        Some(path) if path != Path::new("system") => trust_only(&mut builder, path)?,
        Some(_) | None => trust_system(&mut builder).map_err(set_up)?,
    }
    let mut tls = MakeTlsConnector::new(builder.build());
    let host = verify == Verify::ChainAndHost;
    tls.set_callback(move |connection, _| {
        connection.set_verify_hostname(host);
        Ok(())
    });
    Ok(tls)
}

/// OpenSSL is linked in and does not know where this system keeps its certificates.
fn trust_system(builder: &mut SslConnectorBuilder) -> Result<(), openssl::error::ErrorStack> {
    let found = openssl_probe::probe();
    let file = found.cert_file.as_deref();
    let mut directories = found.cert_dir.iter().map(PathBuf::as_path);
    let first = directories.next();
    if file.is_some() || first.is_some() {
        builder.load_verify_locations(file, first)?;
    }
    for directory in directories {
        builder.load_verify_locations(None, Some(directory))?;
    }
    Ok(())
}

fn trust_only(builder: &mut SslConnectorBuilder, path: &Path) -> Result<(), String> {
    let wrong = |error: &dyn std::fmt::Display| {
        format!("the certificates in sslrootcert {} can't be read: {error}", path.display())
    };
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    let certificates = X509::stack_from_pem(&pem).map_err(|error| wrong(&error))?;
    if certificates.is_empty() {
        return Err(wrong(&"the file holds none"));
    }
    let mut store = X509StoreBuilder::new().map_err(|error| wrong(&error))?;
    for certificate in certificates {
        store.add_cert(certificate).map_err(|error| wrong(&error))?;
    }
    builder.set_cert_store(store.build());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(url: &str) -> String {
        parse(url, None).map(|_| ()).unwrap_err()
    }

    #[test]
    fn the_modes_of_libpq_are_known() {
        for (query, expected) in [
            ("", SslMode::Require),
            ("?sslmode=disable", SslMode::Disable),
            ("?sslmode=require&application_name=x", SslMode::Require),
            ("?application_name=x&sslmode=verify-full", SslMode::Require),
            ("?sslmode=verify-ca&sslrootcert=system", SslMode::Require),
            ("?sslmode=prefer&sslrootcert=system", SslMode::Prefer),
            ("?sslrootcert=system", SslMode::Require),
        ] {
            let (config, _) = parse(&format!("postgres://u:p@h:5/d{query}"), None).unwrap();
            assert_eq!(config.get_ssl_mode(), expected, "{query}");
        }
    }

    #[test]
    fn only_servers_on_this_machine_may_be_reached_in_the_clear_unasked() {
        for (host, expected) in [
            ("127.0.0.1", SslMode::Prefer),
            ("[::1]", SslMode::Prefer),
            ("localhost:5432", SslMode::Prefer),
            ("%2Fvar%2Frun", SslMode::Prefer),
            ("10.0.0.1", SslMode::Require),
            ("localhost,db", SslMode::Require),
            ("localhost.example", SslMode::Require),
        ] {
            let (config, _) = parse(&format!("postgres://u@{host}/d"), None).unwrap();
            assert_eq!(config.get_ssl_mode(), expected, "{host}");
        }
    }

    #[test]
    fn errors_name_the_parameter_and_never_the_password() {
        assert!(error("postgres://u:secret@h/d?sslmode=full").contains("sslmode"));
        assert!(
            error("postgres://u:secret@h/d?sslmode=require&sslrootcert=/nowhere")
                .contains("/nowhere")
        );
        assert!(error("postgres://u:secret@h/d?sslrootcert=%zz").contains("sslrootcert"));
        for url in [
            "host=h user=u password=secret",
            "postgres://u:se?secret@h/d",
            "postgres://u:secret@h:port/d",
            "postgres://u:secret@h/d?connect_timeout=secret",
            "postgres://u:secret@h/d?secret=1",
            "postgres://u:secret@/d",
            "postgres://",
        ] {
            assert!(!error(url).contains("secret") || url.contains("secret=1"), "{url}");
        }
    }

    #[test]
    fn keeps_what_the_url_says_of_time_outs() {
        let (config, _) = parse("postgres://u@h/d?connect_timeout=9", None).unwrap();
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(9)));
        assert!(config.get_tcp_user_timeout().is_some());
    }
}
