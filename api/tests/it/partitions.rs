//! A partition that takes nothing costs its own leads, and no others: new leads go elsewhere.

use std::time::{Duration, Instant};

use leads_api::domain::idempotency::IdempotencyKey;
use leads_shared::partition;
use leads_testkit::{DEADLINE, Method, Response, eventually};
use serde_json::{Value, json};

use crate::faults::Faulty;
use crate::shared::{assert_error, run};

/// The partition with the trouble.
const LAME: i32 = 0;
const LEADS: usize = 60;
/// A partition that has been seen to be slow, at half a second, counts as stopped within this time.
const STALLED_WITHIN: Duration = Duration::from_secs(2);

/// Idempotency keys whose leads belong to a partition; others whose leads don't.
fn keys(faulty: &Faulty, of_the_lame: bool) -> impl Iterator<Item = String> {
    let (workspace, partitions) = (faulty.key.workspace, faulty.mock.partitions());
    (0..).map(move |i| format!("{of_the_lame}-{i}")).filter(move |key| {
        let id = IdempotencyKey::parse(key.as_bytes()).expect("a key").lead_id(workspace);
        (partition::of_key(id.to_string().as_bytes(), partitions) == LAME) == of_the_lame
    })
}

async fn avoided(faulty: &Faulty, wanted: f64) {
    eventually(DEADLINE, "so many partitions are avoided", async || {
        let found = faulty.api.metric("leads_partitions_avoided", "").await;
        if (found - wanted).abs() < 0.1 { Ok(()) } else { Err(found) }
    })
    .await;
}

/// A new lead: taken, and by another partition.
async fn taken_elsewhere(faulty: &Faulty) -> String {
    let answer = faulty.api.post_lead(&faulty.key, "{}").await;
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_ne!(partition_of(&answer), LAME);
    answer.lead_id()
}

fn partition_of(answer: &Response) -> i32 {
    let position = answer.header("x-lead-position").expect("a position");
    let (partition, _) = position.split_once(':').expect("partition:offset");
    partition.parse().expect("a number")
}

async fn retried(faulty: &Faulty, key: &str) -> String {
    eventually(DEADLINE, "a retry is taken", async || {
        let answer = faulty.api.post_lead_once(&faulty.key, key, "{}").await;
        if answer.status == 201 { Ok(answer.lead_id()) } else { Err(answer.text()) }
    })
    .await
}

#[test]
fn new_leads_pass_over_a_partition_without_a_leader() {
    run(async {
        let faulty = Faulty::start_with(1, "8s").await;
        let mut acknowledged = Vec::new();
        faulty.mock.lead(LAME, None);
        avoided(&faulty, 1.0).await;
        for _ in 0..LEADS {
            acknowledged.push(taken_elsewhere(&faulty).await);
        }
        // Where a key leads, no other partition will do.
        let key = keys(&faulty, true).next().expect("a key");
        let answer = faulty.api.post_lead_once(&faulty.key, &key, "{}").await;
        assert_error(&answer, 503, "publish_timeout");
        assert_eq!(faulty.api.get_open("/readyz").await.status, 200);

        faulty.mock.lead(LAME, Some(1));
        avoided(&faulty, 0.0).await;
        acknowledged.push(retried(&faulty, &key).await);
        let answer = eventually(DEADLINE, "it has turns again", async || {
            let answer = faulty.api.post_lead(&faulty.key, "{}").await;
            acknowledged.push(answer.lead_id());
            (partition_of(&answer) == LAME).then_some(answer)
        })
        .await;
        assert_eq!(answer.status, 201);
        faulty.assert_kept(&acknowledged).await;
    });
}

#[test]
fn a_leader_that_hangs_costs_the_leads_of_its_partitions_alone() {
    run(async {
        let faulty = Faulty::start_with(2, "8s").await;
        let mut of_the_lame = keys(&faulty, true);
        let mut key = || of_the_lame.next().expect("a key");
        let (first, waits, refused) = (key(), key(), key());
        let other = keys(&faulty, false).next().expect("a key");
        faulty.mock.lead(LAME, Some(2));
        // The second broker is known to lead it, and then hangs.
        let mut acknowledged = vec![retried(&faulty, &first).await];
        faulty.mock.delay_broker(2, Duration::from_mins(1));

        let waiting = faulty.api.post_lead_once(&faulty.key, &waits, "{}");
        let meanwhile = async {
            avoided(&faulty, 1.0).await;
            let slow = Instant::now();
            let mut ids = vec![taken_elsewhere(&faulty).await];
            while slow.elapsed() < STALLED_WITHIN {
                ids.push(taken_elsewhere(&faulty).await);
            }
            // What must go there is refused without a wait; the rest of the batch is not.
            let items = json!([{"idempotency_key": refused}, {"idempotency_key": other}]);
            let path = "/api/v1/leads/batch";
            let batch = faulty.api.json(Method::POST, path, &faulty.key, &items.to_string());
            let batch = faulty.api.send(batch).await;
            assert_eq!(batch.status, 207, "{}", batch.text());
            let found = batch.json();
            let statuses: Vec<&Value> =
                vec![&found["data"][0]["status"], &found["data"][1]["status"]];
            assert_eq!(statuses, [&json!(503), &json!(201)]);
            assert_eq!(found["data"][0]["error"]["error"], "broker_unavailable");
            assert_eq!(faulty.api.get_open("/readyz").await.status, 200);
            for _ in 0..LEADS {
                ids.push(taken_elsewhere(&faulty).await);
            }
            ids
        };
        let (answer, ids) = tokio::join!(waiting, meanwhile);
        assert_error(&answer, 503, "publish_timeout");
        acknowledged.extend(ids);

        faulty.mock.delay_broker(2, Duration::ZERO);
        for key in [waits, refused, other] {
            acknowledged.push(retried(&faulty, &key).await);
        }
        avoided(&faulty, 0.0).await;
        faulty.assert_kept(&acknowledged).await;
    });
}
