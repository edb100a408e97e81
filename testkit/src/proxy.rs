//! A TCP proxy before PostgreSQL that can lose a COMMIT, or its answer, or stand still.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::config::Host;

use crate::System;

/// The simple query `COMMIT` as it is on the wire.
/// Source: <https://www.postgresql.org/docs/18/protocol-message-formats.html>
const COMMIT: &[u8] = b"Q\0\0\0\x0bCOMMIT\0";
const COPY_DATA: u8 = b'd';
/// The server has dealt with everything, and is in no transaction.
const IDLE: &[u8] = b"Z\0\0\0\x05I";
/// No message of a test is larger; what is, is none.
const LONGEST: usize = 256 * 1024 * 1024;

/// What happens at the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtCommit {
    /// It does not reach the server, and the connection is closed.
    Lost,
    /// It takes effect; its answer is swallowed, and the connection is closed.
    AnswerLost,
    /// Everything stands still before it reaches the server, until [`Proxy::thaw`].
    Freeze,
}

#[derive(Debug)]
struct Control {
    armed: Mutex<Option<AtCommit>>,
    copy: AtomicBool,
    met: AtomicU32,
    frozen: watch::Sender<bool>,
}

impl Control {
    fn take(&self) -> Option<AtCommit> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn thawed(&self) {
        let mut frozen = self.frozen.subscribe();
        let _ = frozen.wait_for(|frozen| !frozen).await;
    }
}

/// Stands between clients and the PostgreSQL of a [`System`]. Dropped: its connections end.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

impl System {
    /// A new proxy before this system's database.
    ///
    /// # Panics
    /// When the servers are reached over TLS only, or `DATABASE_URL` is no URL with a port.
    pub async fn proxy(&self) -> Proxy {
        let (config, _) = leads_postgres::parse(self.database_url(), None).expect("DATABASE_URL");
        let (Some(Host::Tcp(host)), Some(&port)) =
            (config.get_hosts().first(), config.get_ports().first())
        else {
            panic!("DATABASE_URL names no host and port");
        };
        let server = tokio::net::lookup_host((host.as_str(), port)).await;
        let server = server.expect("the host of DATABASE_URL").next().expect("an address of it");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let here = listener.local_addr().expect("a bound address");
        let (before, _) = self.database_url().split_once('?').unwrap_or((self.database_url(), ""));
        let url = before.replacen(&format!("@{host}:{port}/"), &format!("@{here}/"), 1);
        assert!(url != before, "DATABASE_URL has no `@HOST:PORT/`");
        let (armed, met) = (Mutex::default(), AtomicU32::default());
        let copy = AtomicBool::default();
        let control = Arc::new(Control { armed, copy, met, frozen: watch::channel(false).0 });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&control)));
        Proxy { url: format!("{url}?sslmode=disable"), control, accepting }
    }
}

impl Proxy {
    /// The `DATABASE_URL` that leads through it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets what happens at the next COMMIT, once; in place of what was set before.
    pub fn at_commit(&self, what: AtCommit) {
        *self.control.armed.lock().unwrap_or_else(PoisonError::into_inner) = Some(what);
    }

    /// Everything stands still before the next piece of a COPY reaches the server, until
    /// [`Proxy::thaw`].
    pub fn freeze_in_copy(&self) {
        self.control.copy.store(true, Ordering::Relaxed);
    }

    /// Takes back what [`Proxy::at_commit`] set, when no COMMIT has come since.
    pub fn disarm(&self) {
        self.control.take();
    }

    /// How many times it has happened; for a lost answer, once the server has given it.
    pub fn met(&self) -> u32 {
        self.control.met.load(Ordering::Relaxed)
    }

    /// Passes nothing on any more; connections stay, and new ones are taken.
    pub fn freeze(&self) {
        self.control.frozen.send_replace(true);
    }

    /// Goes on where it stood.
    pub fn thaw(&self) {
        self.control.frozen.send_replace(false);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, control: Arc<Control>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(pass(client, server, Arc::clone(&control)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, until one of its sides ends it or a COMMIT is met that does.
async fn pass(client: TcpStream, server: SocketAddr, control: Arc<Control>) {
    // A server that is down closes the client's connection too.
    let Ok(server) = TcpStream::connect(server).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let (deaf, heard) = watch::channel(false);
    tokio::select! {
        () = requests(from_client, to_server, &control, &deaf) => {}
        () = answers(from_server, to_client, &control, &heard) => {}
    }
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    control: &Control,
    deaf: &watch::Sender<bool>,
) {
    // The first message of a connection has no type.
    let mut type_length = 0;
    while let Some(message) = read(&mut client, type_length).await {
        type_length = 1;
        control.thawed().await;
        let armed = match message[0] {
            COPY_DATA if control.copy.swap(false, Ordering::Relaxed) => Some(AtCommit::Freeze),
            _ if message == COMMIT => control.take(),
            _ => None,
        };
        if let Some(what) = armed {
            match what {
                AtCommit::Lost => {
                    control.met.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                AtCommit::AnswerLost => {
                    deaf.send_replace(true);
                }
                AtCommit::Freeze => {
                    control.frozen.send_replace(true);
                    control.met.fetch_add(1, Ordering::Relaxed);
                    control.thawed().await;
                }
            }
        }
        if server.write_all(&message).await.is_err() {
            return;
        }
    }
}

async fn answers(
    mut server: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    control: &Control,
    deaf: &watch::Receiver<bool>,
) {
    while let Some(message) = read(&mut server, 1).await {
        control.thawed().await;
        if *deaf.borrow() {
            if message == IDLE {
                control.met.fetch_add(1, Ordering::Relaxed);
                return;
            }
        } else if client.write_all(&message).await.is_err() {
            return;
        }
    }
}

/// A whole message: its type, its length (which counts itself), its contents.
async fn read(from: &mut OwnedReadHalf, type_length: usize) -> Option<Vec<u8>> {
    let mut message = vec![0; type_length + 4];
    from.read_exact(&mut message).await.ok()?;
    let length = u32::from_be_bytes(message[type_length..].try_into().ok()?);
    let whole = type_length + usize::try_from(length).ok()?;
    if !(message.len()..LONGEST).contains(&whole) {
        return None;
    }
    let head = message.len();
    message.resize(whole, 0);
    from.read_exact(&mut message[head..]).await.ok()?;
    Some(message)
}
