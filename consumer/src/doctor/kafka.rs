//! Whether the brokers can be reached: names, connections, TLS, credentials.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use futures_util::future::join_all;

use super::Looked;
use super::finding::Finding;
use crate::source::inspect::Obstacle;
use crate::status::look::detached;

const RESOLVE: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(2);
const DEFAULT_PORT: u16 = 9092;

/// What came of an address in `KAFKA_BROKERS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// As it is written there.
    pub(super) broker: String,
    /// Whether a connection could be made.
    pub(super) outcome: Outcome,
}

/// What came of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was made.
    Connected,
    /// The name is not known.
    NoSuchName(String),
    /// It was refused, or nothing came.
    NoConnection(String),
}

/// Tries every address of `KAFKA_BROKERS`.
pub(super) async fn try_addresses(brokers: &str) -> Vec<Address> {
    join_all(brokers.split(',').map(|broker| try_address(broker.trim()))).await
}

async fn try_address(broker: &str) -> Address {
    let (host, port) = host_and_port(broker);
    // A name server that hangs must not hold up the end of the process.
    let outcome = detached(RESOLVE + CONNECT, move || connect(&host, port)).await;
    let silent = || Outcome::NoSuchName("the name server does not answer".to_owned());
    Address { broker: broker.to_owned(), outcome: outcome.unwrap_or_else(silent) }
}

fn connect(host: &str, port: u16) -> Outcome {
    let addresses: Vec<SocketAddr> = match (host, port).to_socket_addrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Outcome::NoSuchName(error.to_string()),
    };
    let share = CONNECT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = Outcome::NoSuchName("the name has no address".to_owned());
    for address in addresses {
        match TcpStream::connect_timeout(&address, share) {
            Ok(_) => return Outcome::Connected,
            Err(error) => last = Outcome::NoConnection(format!("({address}) {error}")),
        }
    }
    last
}

/// Splits what librdkafka takes as a broker: `[PROTOCOL://]HOST[:PORT]`, IPv6 in brackets.
fn host_and_port(broker: &str) -> (String, u16) {
    let address = broker.split_once("://").map_or(broker, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port.parse().unwrap_or(DEFAULT_PORT)),
        _ => (address, DEFAULT_PORT),
    };
    (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port)
}

/// The names in `KAFKA_BROKERS` are known.
pub(super) fn names(looked: &Looked) -> Finding {
    let unknown: Vec<_> = looked
        .addresses
        .iter()
        .filter_map(|address| match &address.outcome {
            Outcome::NoSuchName(why) => Some(format!("{}: {why}", address.broker)),
            Outcome::Connected | Outcome::NoConnection(_) => None,
        })
        .collect();
    if let (Err(away), []) = (&looked.contact, unknown.as_slice())
        && away.obstacle == Obstacle::Name
    {
        return Finding::failed(
            away.cause.clone(),
            "the brokers name themselves so: correct their advertised.listeners",
        );
    }
    some_wrong(
        looked,
        &unknown,
        "names resolve",
        "correct the host names in KAFKA_BROKERS, or the name server: getent hosts HOST",
    )
}

/// The brokers take connections, and speak Kafka.
pub(super) fn connections(looked: &Looked) -> Finding {
    let refused: Vec<_> = looked
        .addresses
        .iter()
        .filter_map(|address| match &address.outcome {
            Outcome::NoConnection(why) => Some(format!("{} {why}", address.broker)),
            Outcome::Connected | Outcome::NoSuchName(_) => None,
        })
        .collect();
    let connected = looked.addresses.iter().any(|it| it.outcome == Outcome::Connected);
    match &looked.contact {
        _ if !refused.is_empty() => {
            some_wrong(looked, &refused, "", "start the broker, or correct KAFKA_BROKERS")
        }
        Err(away) if connected && away.obstacle >= Obstacle::Connection => Finding::failed(
            format!("{} takes connections, but does not answer: {away}", looked.brokers),
            "look at the broker's log; does KAFKA_SECURITY_PROTOCOL fit the port?",
        ),
        // A certificate or a password that is refused was sent over a connection.
        _ if connected => Finding::ok("a broker takes connections"),
        _ => Finding::skipped("no name resolves"),
    }
}

/// One broker of several that is away is a warning as long as another answers.
fn some_wrong(looked: &Looked, wrong: &[String], fine: &str, fix: &str) -> Finding {
    match (wrong, &looked.contact) {
        ([], _) => Finding::ok(format!("{}: {fine}", looked.brokers)),
        (_, Ok(())) => Finding::warning(wrong.join("; "), fix),
        (_, Err(_)) => Finding::failed(wrong.join("; "), fix),
    }
}

/// TLS to the brokers.
pub(super) fn tls(looked: &Looked) -> Finding {
    match &looked.contact {
        Err(away) if away.obstacle == Obstacle::Tls => Finding::failed(
            away.cause.clone(),
            "set KAFKA_SSL_CA_LOCATION to the authority that signed the broker's certificate, and \
             use a host name of the certificate in KAFKA_BROKERS",
        ),
        Err(away) if away.obstacle > Obstacle::Tls => Finding::skipped("no broker answers"),
        _ if looked.protocol.contains("ssl") => Finding::ok("the certificate is trusted"),
        _ => Finding::ok("not used (KAFKA_SECURITY_PROTOCOL)"),
    }
}

/// User and password for the brokers.
pub(super) fn credentials(looked: &Looked) -> Finding {
    match &looked.contact {
        Err(away) if away.obstacle == Obstacle::Credentials => Finding::failed(
            away.cause.clone(),
            "check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
        ),
        Err(_) => Finding::skipped("no broker answers"),
        Ok(()) if looked.protocol.contains("sasl") => Finding::ok("they are accepted"),
        Ok(()) => Finding::ok("not used (KAFKA_SECURITY_PROTOCOL)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_are_read_as_librdkafka_does() {
        for (broker, host, port) in [
            ("b:1", "b", 1),
            ("b", "b", 9092),
            ("SASL_SSL://b:1", "b", 1),
            ("[::1]:7", "::1", 7),
            ("[::1]", "::1", 9092),
        ] {
            assert_eq!(host_and_port(broker), (host.to_owned(), port), "{broker}");
        }
    }
}
