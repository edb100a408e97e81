//! What may be in flight is bounded; above, a request is refused at once and nothing is taken.

use leads_testkit::{DEADLINE, System, eventually};

use crate::shared::{assert_error, run, unlimited};

#[test]
fn above_the_bound_it_is_503_and_nothing_is_taken() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let lead = format!(r#"{{"properties":{{"text":"{}"}}}}"#, "x".repeat(16 * 1024));
        for bound in [("MAX_IN_FLIGHT", "1"), ("MAX_IN_FLIGHT_BYTES", "320KiB")] {
            let before = system.records().await.len();
            let api = system.start_api_with(&[bound]).await;
            api.wait_ready().await;
            // All in the 2 ms that the producer waits for company, again until it is too much.
            let mut taken = 0;
            let refused = eventually(DEADLINE, "too much at once", async || {
                let post = async |_| api.post_lead(&key, &lead).await;
                let answers = futures_util::future::join_all((0..100).map(post)).await;
                let (good, refused): (Vec<_>, Vec<_>) =
                    answers.into_iter().partition(|answer| answer.status == 201);
                taken += good.len();
                (!refused.is_empty()).then_some(refused)
            })
            .await;
            for answer in &refused {
                assert_error(answer, 503, "overloaded");
            }
            let shed = api.metric("leads_shed_total", r#"reason="overloaded""#).await;
            assert!(shed >= 1.0, "{shed}");
            assert_eq!(system.records().await.len() - before, taken, "{bound:?}");
            assert_eq!(api.post_lead(&key, "{}").await.status, 201, "room again");
            assert!(api.metric("leads_publish_in_flight", "").await < 1.0);
            assert!(api.metric("leads_publish_in_flight_bytes", "").await < 1.0);
        }
    });
}
