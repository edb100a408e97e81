//! Two instances behind a TCP balancer, restarted one after the other under load.

use std::collections::HashSet;

use leads_testkit::{Api, Balancer, DEADLINE, Key, RawConnection, Response, System, eventually};
use tokio::sync::watch;

use crate::shared::{run, unlimited};

const CLIENTS: usize = 6;
/// How often both are restarted.
const ROUNDS: usize = 2;
/// Long enough for the balancer to see that an instance is on its way out.
const GRACE: (&str, &str) = ("SHUTDOWN_GRACE", "500ms");

/// A client that keeps its connection and retries by the contract.
pub(crate) struct Client<'a> {
    balancer: &'a Balancer,
    key: &'a Key,
    connection: Option<RawConnection>,
    retries: usize,
}

impl<'a> Client<'a> {
    pub(crate) fn new(balancer: &'a Balancer, key: &'a Key) -> Self {
        Self { balancer, key, connection: None, retries: 0 }
    }

    /// Posts until it is taken, and gives the lead's id.
    async fn post(&mut self, idempotency_key: &str) -> String {
        for _ in 0..10 {
            match self.try_post(idempotency_key).await {
                Some(answer) if answer.status == 201 => return answer.lead_id(),
                Some(answer) => {
                    assert_eq!(answer.status, 503, "no error but 503: {}", answer.text());
                    assert!(answer.header("retry-after").is_some());
                }
                None => {}
            }
            self.retries += 1;
        }
        panic!("{idempotency_key} was refused ten times");
    }

    /// `None`: the connection was closed before any byte of an answer.
    pub(crate) async fn try_post(&mut self, idempotency_key: &str) -> Option<Response> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.balancer.connect().await,
        };
        let request = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\nidempotency-key: {idempotency_key}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}",
            self.key.secret
        );
        // One that is closed may still have an answer for us.
        let _ = connection.write(request.as_bytes()).await;
        let Some(answer) = connection.read_response(DEADLINE).await else {
            let rest = connection.read_to_close(DEADLINE).await;
            assert!(rest.is_empty(), "cut amid an answer: {}", String::from_utf8_lossy(&rest));
            return None;
        };
        if answer.header("connection") != Some("close") {
            self.connection = Some(connection);
        }
        Some(answer)
    }
}

async fn load(
    balancer: &Balancer,
    key: &Key,
    client: usize,
    stop: &watch::Receiver<bool>,
) -> (Vec<String>, usize) {
    let mut ids = Vec::new();
    let mut poster = Client::new(balancer, key);
    while !*stop.borrow() {
        ids.push(poster.post(&format!("{client}-{}", ids.len())).await);
    }
    (ids, poster.retries)
}

async fn start(system: &System, balancer: &Balancer) -> Api {
    let api = system.start_api_with(&[GRACE]).await;
    balancer.add(&api);
    api
}

#[test]
fn a_rolling_restart_fails_no_request_but_what_a_client_must_retry() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let balancer = Balancer::start().await;
        let mut apis = [start(&system, &balancer).await, start(&system, &balancer).await];
        eventually(DEADLINE, "both are ready", async || balancer.ready() == 2).await;

        let (stop, stopped) = watch::channel(false);
        let clients = (0..CLIENTS).map(|client| load(&balancer, &key, client, &stopped));
        let restarts = async {
            for _ in 0..ROUNDS {
                for api in &mut apis {
                    let served = r#"route="/api/v1/leads""#;
                    eventually(DEADLINE, "it has its part of the load", async || {
                        api.metric("leads_http_request_seconds_count", served).await > 50.0
                    })
                    .await;
                    assert_eq!(api.terminate().await.code(), Some(0));
                    balancer.remove(api);
                    *api = start(&system, &balancer).await;
                    eventually(DEADLINE, "both are ready", async || balancer.ready() == 2).await;
                }
            }
            stop.send_replace(true);
        };
        let (clients, ()) = tokio::join!(futures_util::future::join_all(clients), restarts);

        let retries: usize = clients.iter().map(|(_, retries)| retries).sum();
        let ids: Vec<_> = clients.into_iter().flat_map(|(ids, _)| ids).collect();
        let unique: HashSet<_> = ids.iter().map(String::as_str).collect();
        println!("{} leads, {retries} retries", ids.len());
        assert_eq!(unique.len(), ids.len());
        assert!(retries <= CLIENTS * ROUNDS * 2, "at most one a client and restart: {retries}");
        let records = system.records().await;
        let keys: Vec<_> = records
            .iter()
            .map(|record| {
                std::str::from_utf8(record.key.as_deref().expect("a key")).expect("an id")
            })
            .collect();
        assert_eq!(keys.iter().copied().collect::<HashSet<_>>(), unique, "the log has just these");
        assert!(keys.len() - unique.len() <= retries, "twice in the log is only what was retried");
        let _consumer = system.start_consumer().await;
        let wanted = i64::try_from(ids.len()).expect("a count");
        eventually(DEADLINE, "each lead is projected", async || {
            let found = system.number("SELECT count(*) FROM leads WHERE version = 1").await;
            if found == wanted { Ok(()) } else { Err(found) }
        })
        .await;
        assert_eq!(system.number("SELECT count(*) FROM leads").await, wanted);
        assert_eq!(system.number("SELECT count(*) FROM dead_letters").await, 0);
    });
}
