//! What operators are told while servers stand still, die and come back. One pair of servers is
//! stopped and started, so the outages come one after the other.

use std::time::{Duration, Instant};

use leads_testkit::{Server, Stack, System};
use serde_json::{Value, json};

use crate::shared::{Own, known_key, run};
use crate::system::{eventually_status, operator, status};

/// Four seconds at most, and a margin for a machine that is busy with other tests.
const ANSWERED: Duration = Duration::from_secs(10);

fn whole(status: &Value) -> bool {
    let projection = &status["projection"];
    status["ingest"]["status"] == "ready"
        && projection["status"] == "up"
        && projection["lag_records"] == 0
        && projection["error"] == Value::Null
}

#[test]
fn servers_away_are_named_and_what_is_known_is_told() {
    run(async {
        let system = System::builder().stack(Stack::dedicated().await).build().await;
        let own = Own::start(system, &[("PUBLISH_TIMEOUT", "3s")]).await;
        let (api, stack) = (&own.api, own.system.stack());
        let key = known_key(&own.system, api, operator()).await;
        assert_eq!(api.post_lead(&key, "{}").await.status, 201);
        eventually_status(api, &key, "all is well", whole).await;

        // The broker stands still: its silence is bounded.
        stack.pause(Server::Kafka).await;
        let told = eventually_status(api, &key, "the log is unknown", |it| {
            it["projection"]["status"] == "unknown"
        });
        let told = told.await;
        let asked = Instant::now();
        status(api, &key).await;
        assert!(asked.elapsed() < ANSWERED, "{:?}", asked.elapsed());
        let projection = &told["projection"];
        assert!(projection["error"].as_str().unwrap().contains("Kafka"), "{projection}");
        assert_eq!(
            (&projection["lag_records"], &projection["generation"]),
            (&json!(null), &json!(1))
        );
        assert_eq!(told["dead_letters"]["waiting"], 0, "PostgreSQL is there");
        stack.resume(Server::Kafka).await;
        eventually_status(api, &key, "the broker goes on", whole).await;

        stack.kill(Server::Kafka).await;
        let told = eventually_status(api, &key, "no broker", |it| {
            let ingest = &it["ingest"];
            let down = ingest["status"] == "no_broker" && ingest["kafka"] == "down";
            // The look is older than what the instance knows by itself.
            down && it["projection"]["status"] == "unknown"
        });
        let told = told.await;
        assert!(told["projection"]["error"].as_str().unwrap().contains("Kafka"), "{told}");
        let next = told["projection"]["partitions"].as_array().unwrap().iter();
        let next: i64 = next.filter_map(|it| it["next_offset"].as_i64()).sum();
        assert_eq!(next, 1, "how far it is stays known: {told}");

        // Both away: still an answer.
        stack.kill(Server::Postgres).await;
        let told =
            eventually_status(api, &key, "both away", |it| it["ingest"]["postgres"] == "down");
        let told = told.await;
        let error = told["projection"]["error"].as_str().unwrap();
        assert!(error.contains("Kafka") && error.contains("PostgreSQL"), "{error}");
        assert_eq!(told["projection"]["partitions"], json!([]));

        stack.start(Server::Postgres).await;
        api.wait_for_log(|line| line.message() == "a new client looks for kafka").await;
        stack.start(Server::Kafka).await;
        eventually_status(api, &key, "all is well again", whole).await;
    });
}
