//! SIGTERM: not ready, a grace, what is in flight answered, everything acknowledged in the log.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use leads_testkit::{Api, DEADLINE, System, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::shared::{run, unlimited};

const CLIENTS: usize = 8;

#[test]
fn under_load_every_acknowledged_lead_is_in_the_log() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let api = system.start_api_with(&[("SHUTDOWN_GRACE", "500ms")]).await;
        api.wait_ready().await;
        let acknowledged = Mutex::new(HashSet::new());
        let client = async |_| {
            // Until the API is gone: then there is no answer at all.
            let post = || api.json(leads_testkit::Method::POST, "/api/v1/leads", &key, "{}");
            while let Ok(answer) = api.try_send(post()).await {
                assert_eq!(answer.status, 201, "in the grace it still serves: {}", answer.text());
                acknowledged.lock().unwrap().insert(answer.lead_id());
            }
        };
        let clients = futures_util::future::join_all((0..CLIENTS).map(client));
        let end = async {
            let count = || acknowledged.lock().unwrap().len();
            eventually(DEADLINE, "some load", async || count() > 100).await;
            let before = count();
            api.signal("TERM");
            eventually(DEADLINE, "not ready, and still serving", async || {
                let answer = api.get_open("/readyz").await;
                answer.status == 503 && answer.json()["shutting_down"] == true
            })
            .await;
            eventually(DEADLINE, "leads are taken during the grace", async || count() > before)
                .await;
            api.wait_exit(DEADLINE).await
        };
        let (_, status) = tokio::join!(clients, end);
        assert_eq!(status.code(), Some(0));
        let acknowledged = acknowledged.into_inner().unwrap();
        let records = system.records().await;
        let keys: Vec<_> = records
            .iter()
            .map(|record| String::from_utf8(record.key.clone().unwrap()).unwrap())
            .collect();
        let unique: HashSet<_> = keys.iter().cloned().collect();
        assert_eq!(unique.len(), keys.len(), "nothing twice");
        assert!(acknowledged.is_subset(&unique), "all that was acknowledged is in the log");
        assert!(unique.len() - acknowledged.len() <= CLIENTS, "at most one unanswered each");
    });
}

/// Whether a new connection gets an answer.
async fn is_served(api: &Api) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(api.address()).await.ok()?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
        stream.read_u8().await.ok()
    };
    matches!(tokio::time::timeout(Duration::from_millis(300), ask).await, Ok(Some(_)))
}

/// A request that began before the end is read, published and answered.
#[test]
fn what_is_in_flight_is_answered() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let api = system.start_api_with(&[("SHUTDOWN_GRACE", "1ms")]).await;
        api.wait_ready().await;
        // The head of the slow request has arrived before this process can end: connections are taken
        // in the order in which they were made.
        let mut slow = api.raw().await;
        let head = format!(
            "POST /api/v1/leads HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\n\
             content-type: application/json\r\ncontent-length: 2\r\n\r\n{{",
            key.secret
        );
        slow.write(head.as_bytes()).await.unwrap();
        api.signal("TERM");
        eventually(DEADLINE, "no new connections are served", async || !is_served(&api).await)
            .await;
        slow.write(b"}").await.unwrap();
        let answer = slow.read_response(DEADLINE).await.expect("an answer");
        assert_eq!(answer.status, 201, "{}", answer.text());
        let status = api.wait_exit(DEADLINE).await;
        assert_eq!(status.code(), Some(0));
        assert_eq!(system.records().await.len(), 1);
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        for (first, second) in [("TERM", "TERM"), ("INT", "INT")] {
            let api = system.start_api_with(&[("SHUTDOWN_GRACE", "10m")]).await;
            api.signal(first);
            eventually(DEADLINE, "the first is seen", async || {
                api.get_open("/readyz").await.json()["shutting_down"] == true
            })
            .await;
            assert_eq!(api.get_open("/livez").await.status, 200, "alive in the grace");
            api.signal(second);
            let status = api.wait_exit(Duration::from_secs(5)).await;
            assert_ne!(status.code(), Some(0), "it did not end in order");
        }
    });
}

#[test]
fn without_load_it_ends_soon_after_the_grace() {
    run(async {
        let system = System::builder().without_topics().without_migrations().build().await;
        let api = system.start_api_with(&[("SHUTDOWN_GRACE", "10ms")]).await;
        api.signal("TERM");
        assert_eq!(api.wait_exit(Duration::from_secs(10)).await.code(), Some(0));
    });
}
