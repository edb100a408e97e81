//! A GET right after a POST finds the lead, and a 404 is true as of the log.

use std::time::{Duration, Instant};

use leads_testkit::{DEADLINE, System, eventually};
use uuid::Uuid;

use crate::shared::{Own, assert_error, run, shared};

#[test]
fn five_hundred_at_once_without_a_single_404() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        let one = async |i: usize| {
            let posted = shared.api.post_lead(&key, &format!(r#"{{"code":"{i}"}}"#)).await;
            assert_eq!(posted.status, 201, "{}", posted.text());
            // A busy machine may make it 503, which says to ask again; 404 would be a lie.
            let found = eventually(DEADLINE, "the lead is read", async || {
                let answer = shared.api.get_lead(&key, &posted.lead_id()).await;
                assert!([200, 503].contains(&answer.status), "{}", answer.text());
                (answer.status == 200).then_some(answer)
            })
            .await;
            assert_eq!(found.json(), posted.json());
        };
        futures_util::future::join_all((0..500).map(one)).await;
        let list = shared.api.get(&key, "/api/v1/leads?limit=1").await.json();
        assert_eq!(list["pagination"]["total"], 500);
    });
}

#[test]
fn while_the_projection_stands_still_a_new_lead_is_503_and_never_404() {
    run(async {
        let own = Own::start(System::new().await, &[("READ_WAIT", "200ms")]).await;
        let old = own.api.post_lead(&own.key, "{}").await;
        eventually(DEADLINE, "the first lead is projected", async || {
            own.api.get_lead(&own.key, &old.lead_id()).await.status == 200
        })
        .await;

        own.consumer.pause();
        let new = own.api.post_lead(&own.key, "{}").await;
        assert_eq!(new.status, 201, "ingest goes on");
        let asked = Instant::now();
        let answer = own.api.get_lead(&own.key, &new.lead_id()).await;
        assert_error(&answer, 503, "read_model_behind");
        assert!(asked.elapsed() >= Duration::from_millis(200), "it waits before it gives up");
        let answer = own.api.patch_lead(&own.key, &new.lead_id(), r#"{"code":"x"}"#).await;
        assert_error(&answer, 503, "read_model_behind");
        let answer = own.api.get_lead(&own.key, &old.lead_id()).await;
        assert_eq!(answer.json(), old.json(), "what is projected is answered");

        own.consumer.resume();
        let found = eventually(DEADLINE, "the lead is there", async || {
            let answer = own.api.get_lead(&own.key, &new.lead_id()).await;
            assert_ne!(answer.status, 404, "never a 404 for a lead that was acknowledged");
            if answer.status == 200 { Ok(answer) } else { Err(answer) }
        })
        .await;
        assert_eq!(found.json(), new.json());
    });
}

/// A miss waits for the projection to come, it does not fail at once.
#[test]
fn a_miss_waits_for_the_projection() {
    run(async {
        let own = Own::start(System::new().await, &[("READ_WAIT", "30s")]).await;
        own.consumer.pause();
        let new = own.api.post_lead(&own.key, "{}").await;
        let id = new.lead_id();
        let get = own.api.get_lead(&own.key, &id);
        let resume = async {
            eventually(DEADLINE, "the GET is being served", async || {
                let waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leads-api' \
                     AND datname = current_database() AND query LIKE '%projection_offset%'";
                own.system.number(waiting).await > 0
            })
            .await;
            own.consumer.resume();
        };
        let (found, ()) = tokio::join!(get, resume);
        assert_eq!((found.status, found.json()), (200, new.json()));
    });
}

#[test]
fn an_unknown_id_is_404() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        for id in [Uuid::new_v4(), Uuid::now_v7(), Uuid::nil(), Uuid::max()] {
            let id = id.to_string();
            assert_error(&shared.api.get_lead(&key, &id).await, 404, "lead_not_found");
            let answer = shared.api.patch_lead(&key, &id, r#"{"code":"x"}"#).await;
            assert_error(&answer, 404, "lead_not_found");
        }
    });
}
