//! A TCP balancer before several APIs: whole connections, in turn, to those that say they are ready.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::http::Http;
use crate::{Api, RawConnection};

/// Time between two looks at `/readyz`; far below the grace of a shutdown.
const LOOK_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Backend {
    http: Http,
    ready: bool,
}

#[derive(Debug, Default)]
struct Backends {
    all: Mutex<Vec<Backend>>,
    turn: AtomicUsize,
}

impl Backends {
    fn with<T>(&self, work: impl FnOnce(&mut Vec<Backend>) -> T) -> T {
        work(&mut self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those that are ready, beginning with the one whose turn it is.
    fn in_turn(&self) -> Vec<SocketAddr> {
        let mut ready = self.with(|all| {
            let ready = all.iter().filter(|backend| backend.ready);
            ready.map(|backend| backend.http.address()).collect::<Vec<_>>()
        });
        if !ready.is_empty() {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % ready.len();
            ready.rotate_left(turn);
        }
        ready
    }
}

/// Stands before APIs that come and go. Dropped: its connections end.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    backends: Arc<Backends>,
    tasks: [JoinHandle<()>; 2],
}

impl Balancer {
    /// A balancer with nobody behind it.
    ///
    /// # Panics
    /// Without a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound address");
        let backends = Arc::<Backends>::default();
        let tasks = [
            tokio::spawn(accept(listener, Arc::clone(&backends))),
            tokio::spawn(look(Arc::clone(&backends))),
        ];
        Self { address, backends, tasks }
    }

    /// Takes an API in; it gets connections once it was seen to be ready.
    pub fn add(&self, api: &Api) {
        let http = Http::new(&api.address().to_string());
        self.backends.with(|all| all.push(Backend { http, ready: false }));
    }

    /// Forgets an API that is gone.
    pub fn remove(&self, api: &Api) {
        self.backends.with(|all| all.retain(|backend| backend.http.address() != api.address()));
    }

    /// How many get connections now.
    pub fn ready(&self) -> usize {
        self.backends.with(|all| all.iter().filter(|backend| backend.ready).count())
    }

    /// A connection through it.
    pub async fn connect(&self) -> RawConnection {
        RawConnection::open(self.address).await
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn accept(listener: TcpListener, backends: Arc<Backends>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((client, _)) = accepted {
                connections.spawn(pass(client, backends.in_turn()));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// To the first that takes the connection; with none it is closed.
async fn pass(mut client: TcpStream, backends: Vec<SocketAddr>) {
    for backend in backends {
        if let Ok(mut server) = TcpStream::connect(backend).await {
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let _ = copy_bidirectional(&mut client, &mut server).await;
            return;
        }
    }
}

async fn look(backends: Arc<Backends>) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let requests = backends.with(|all| {
            let request = |backend: &Backend| {
                let request = backend.http.request(reqwest::Method::GET, "/readyz");
                (backend.http.address(), request.timeout(LOOK_EVERY * 20))
            };
            all.iter().map(request).collect::<Vec<_>>()
        });
        for (address, request) in requests {
            let ready = Http::try_send(request).await.is_ok_and(|answer| answer.status == 200);
            backends.with(|all| {
                for backend in all.iter_mut().filter(|it| it.http.address() == address) {
                    backend.ready = ready;
                }
            });
        }
    }
}
