//! The open loop itself: each request is sent when it is due, however long others take, and its time
//! counts from then.
//!
//! A closed loop sends nothing while it waits for a slow answer, and so leaves out just the requests
//! that would have been slow too ("coordinated omission").

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::requests::{Kind, Requests};
use super::schedule::{End, Schedule, pace};
use crate::http::Connection;

/// A request without an answer for so long is given up; far above the time in which the service
/// promises one.
const GIVE_UP: Duration = Duration::from_secs(20);
/// A connection that was idle for longer is not used again: the server may be closing it.
const KEEP_IDLE: Duration = Duration::from_secs(20);
/// For so long after the end, requests that were due before it may still be sent.
const LATE: Duration = Duration::from_millis(500);

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with this status.
    Answered(u16),
    /// The connection broke, or was never made.
    Broken(io::ErrorKind),
    /// No answer in 20 s.
    GivenUp,
    /// Due, and never sent: all connections were busy, then or until the end.
    Unsent,
}

/// A request, once it is known what became of it. Times since the start of the load.
#[derive(Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) kind: Kind,
    pub(crate) leads: u64,
    pub(crate) due: Duration,
    /// When its first byte was handed over.
    pub(crate) sent: Duration,
    pub(crate) done: Duration,
    pub(crate) outcome: Outcome,
    pub(crate) body: &'a [u8],
}

/// When requests are due, and over how many connections at most.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) schedule: Schedule,
    /// No request is due later.
    pub(crate) end: End,
    /// As many are opened as requests are under way.
    pub(crate) max_connections: usize,
    pub(crate) when_busy: WhenBusy,
}

/// What becomes of a request while all connections are busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhenBusy {
    /// It waits for one, and the wait counts.
    Wait,
    /// It is never sent: more than the service takes would pile up here, and the times tell of the pile.
    Drop,
}

struct Pool {
    /// The one that was used last comes first.
    idle: RefCell<Vec<(Connection, Instant)>>,
    busy: Cell<usize>,
    peak: Cell<usize>,
    freed: Notify,
}

impl Pool {
    fn take(&self, requests: &Requests) -> Connection {
        self.busy.set(self.busy.get() + 1);
        self.peak.set(self.peak.get().max(self.busy.get()));
        let mut idle = self.idle.borrow_mut();
        match idle.pop() {
            Some((connection, used)) if used.elapsed() < KEEP_IDLE => connection,
            Some(_) | None => {
                // Those below were idle for longer still.
                idle.clear();
                Connection::new(requests.url.address)
            }
        }
    }

    fn give_back(&self, connection: Connection, now: Instant) {
        self.idle.borrow_mut().push((connection, now));
        self.busy.set(self.busy.get() - 1);
        self.freed.notify_one();
    }

    async fn until(&self, holds: impl Fn(usize) -> bool) {
        while !holds(self.busy.get()) {
            self.freed.notified().await;
        }
    }
}

/// Sends the load; gives the most connections that were busy at once. Each request that was due is
/// told to `tell` once. Has to be called within a `LocalSet`.
pub(crate) async fn drive(
    requests: Rc<Requests>,
    load: Load,
    start: Instant,
    tell: Rc<dyn Fn(&Seen<'_>)>,
) -> usize {
    let Load { schedule, end, max_connections, when_busy } = load;
    let pool = Rc::new(Pool {
        idle: RefCell::default(),
        busy: Cell::new(0),
        peak: Cell::new(0),
        freed: Notify::new(),
    });
    let mut arrivals = pace(schedule, start, end.clone());
    let mut number = 0;
    while let Some(due) = arrivals.recv().await {
        let over = tokio::time::Instant::from_std(start + end.get() + LATE);
        let room = pool.until(|busy| busy < max_connections);
        let sendable = pool.busy.get() < max_connections
            || (when_busy == WhenBusy::Wait && tokio::time::timeout_at(over, room).await.is_ok());
        if sendable && tokio::time::Instant::now() < over {
            let (requests, pool, tell) = (Rc::clone(&requests), Rc::clone(&pool), Rc::clone(&tell));
            // Taken here, so that the next arrival sees it busy.
            let connection = pool.take(&requests);
            tokio::task::spawn_local(async move {
                one(&requests, number, due, start, connection, &pool, &*tell).await;
            });
        } else {
            let (kind, _) = requests.of(number);
            let (leads, now) = (requests.leads(kind), start.elapsed());
            let outcome = Outcome::Unsent;
            tell(&Seen { kind, leads, due, sent: now, done: now, outcome, body: &[] });
        }
        number += 1;
    }
    pool.until(|busy| busy == 0).await;
    pool.peak.get()
}

async fn one(
    requests: &Requests,
    number: u64,
    due: Duration,
    start: Instant,
    mut connection: Connection,
    pool: &Pool,
    tell: &dyn Fn(&Seen<'_>),
) {
    let (kind, request) = requests.of(number);
    let sent = start.elapsed();
    let answer = tokio::time::timeout(GIVE_UP, connection.exchange(&request)).await;
    let now = Instant::now();
    let (outcome, body) = match &answer {
        Ok(Ok(answer)) => (Outcome::Answered(answer.status), answer.body),
        Ok(Err(error)) => (Outcome::Broken(error.kind()), [].as_slice()),
        Err(_) => (Outcome::GivenUp, [].as_slice()),
    };
    if kind == Kind::Post && outcome == Outcome::Answered(201) {
        requests.created(number, body);
    }
    let leads = requests.leads(kind);
    tell(&Seen { kind, leads, due, sent, done: now - start, outcome, body });
    pool.give_back(connection, now);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::requests::Recipe;
    use crate::open::schedule::Arrivals;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const OK: &[u8] = b"HTTP/1.1 201 X\r\ncontent-length: 0\r\n\r\n";

    /// A server that stalls once: from the `nth` request on, for `stall`, nothing is answered.
    async fn server(nth: usize, stall: Duration) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (count, until) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(Instant::now())));
        tokio::task::spawn_local(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, until) = (Rc::clone(&count), Rc::clone(&until));
                tokio::task::spawn_local(async move {
                    let mut request = [0; 2048];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        count.set(count.get() + 1);
                        if count.get() == nth {
                            until.set(Instant::now() + stall);
                        }
                        tokio::time::sleep_until(until.get().into()).await;
                        if stream.write_all(OK).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        format!("http://{address}/api/v1/leads")
    }

    async fn run(url: &str, max_connections: usize) -> (usize, Vec<(Duration, Duration, Outcome)>) {
        run_when(WhenBusy::Wait, url, max_connections).await
    }

    async fn run_when(
        when_busy: WhenBusy,
        url: &str,
        max_connections: usize,
    ) -> (usize, Vec<(Duration, Duration, Outcome)>) {
        let requests = Rc::new(Requests::new(Recipe::Single, url, "k").unwrap());
        let schedule = Schedule::new(Arrivals::Constant, 200.0, 0);
        let end = End::at(Duration::from_secs(1));
        let load = Load { schedule, end, max_connections, when_busy };
        let told = Rc::new(RefCell::new(Vec::new()));
        let all = Rc::clone(&told);
        let tell = Rc::new(move |seen: &Seen<'_>| {
            let since_due = |then: Duration| then.checked_sub(seen.due).unwrap();
            all.borrow_mut().push((since_due(seen.done), since_due(seen.sent), seen.outcome));
        });
        let peak = drive(requests, load, Instant::now(), tell).await;
        (peak, told.take())
    }

    #[tokio::test]
    async fn a_stall_of_the_server_is_seen_by_all_that_were_due_in_it() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let url = server(100, Duration::from_millis(300)).await;
                let (peak, told) = run(&url, 1_000).await;
                assert_eq!(told.len(), 200);
                assert!(told.iter().all(|(_, _, outcome)| *outcome == Outcome::Answered(201)));
                // 60 requests are due in those 300 ms; half of them find 150 ms left.
                let slow = told.iter().filter(|(took, ..)| *took > Duration::from_millis(150));
                assert!(slow.count() >= 25, "{told:?}");
                assert!(peak >= 40, "{peak} connections");
            })
            .await;
    }

    #[tokio::test]
    async fn what_finds_no_connection_can_be_dropped_and_then_no_time_tells_of_a_wait() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let url = server(50, Duration::from_millis(300)).await;
                let (peak, told) = run_when(WhenBusy::Drop, &url, 2).await;
                assert_eq!((peak, told.len()), (2, 200));
                let unsent = told.iter().filter(|(.., outcome)| *outcome == Outcome::Unsent);
                // 60 are due while both connections are busy.
                assert!((30..=80).contains(&unsent.count()), "{told:?}");
                assert!(told.iter().all(|(_, late, _)| *late < Duration::from_millis(200)));
            })
            .await;
    }

    #[tokio::test]
    async fn with_too_few_connections_the_wait_counts_and_what_is_never_sent_is_told() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let url = server(100, Duration::from_millis(1_500)).await;
                let (peak, told) = run(&url, 2).await;
                assert_eq!((peak, told.len()), (2, 200));
                let unsent = told.iter().filter(|(.., outcome)| *outcome == Outcome::Unsent);
                assert!((50..=100).contains(&unsent.count()), "{told:?}");
                let url = server(50, Duration::from_millis(300)).await;
                let (_, told) = run(&url, 2).await;
                assert!(told.iter().all(|(.., outcome)| *outcome == Outcome::Answered(201)));
                let late = told.iter().filter(|(_, late, _)| *late > Duration::from_millis(100));
                assert!(late.count() >= 30, "{told:?}");
            })
            .await;
    }
}
