//! What happens on the log that the subscribers read: a bit of everything that the contract allows,
//! and a backlog.

use leads_shared::{Changes, Event, Payload, Timestamp};
use leads_testkit::{Api, Consumer, DEADLINE, Key, Method, System, eventually};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::unlimited;

/// Leads in the backlog: batches of a thousand.
const BATCHES: usize = 12;
/// Names that trip those who sort, quote or look up by them.
const SOURCES: [&str; 11] = [
    "web",
    "42",
    "7",
    "__proto__",
    "Zürich",
    "\u{ffee} last of the plane",
    "😀 first beyond it",
    "\"quoted\" \\ 'and' /more/",
    "\u{2028}",
    " ",
    "null",
];

pub(crate) struct Story {
    pub(crate) system: System,
    /// Two instances: what one remembers, the other doesn't.
    apis: [Api; 2],
    keys: [Key; 2],
    _consumer: Consumer,
}

impl Story {
    /// The first part.
    pub(crate) async fn tell() -> Self {
        let system = System::new().await;
        let keys = [system.create_key(unlimited()).await, system.create_key(unlimited()).await];
        let consumer = system.start_consumer().await;
        let apis = [system.start_api().await, system.start_api().await];
        for api in &apis {
            api.wait_ready().await;
        }
        let story = Self { system, apis, keys, _consumer: consumer };
        story.backlog().await;
        story.updates().await;
        story.duplicates().await;
        story.foreign_records().await;
        story
    }

    /// The second part, for those who follow.
    pub(crate) async fn go_on(&self) {
        self.updates().await;
        self.duplicates().await;
    }

    async fn backlog(&self) {
        for batch in 0..BATCHES {
            let leads: Vec<_> = (0..1000)
                .map(|i| json!({ "source": SOURCES[(i * i + batch) % SOURCES.len()] }))
                .collect();
            let body = json!(leads).to_string();
            let key = &self.keys[batch % 2];
            // The last one is sent again, to the instance that knows nothing of it.
            for api in if batch + 1 == BATCHES { &self.apis[..] } else { &self.apis[..1] } {
                let request = api.json(Method::POST, "/api/v1/leads/batch", key, &body);
                let request = request.header("idempotency-key", format!("backlog-{batch}"));
                assert_eq!(api.send(request).await.status, 201);
            }
        }
    }

    async fn post(&self, body: &Value) -> String {
        let answer = self.apis[0].post_lead(&self.keys[0], &body.to_string()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.lead_id()
    }

    async fn patch(&self, id: &str, body: &Value, headers: &[(&str, &str)]) -> u16 {
        let path = format!("/api/v1/leads/{id}");
        let mut request = self.apis[0].json(Method::PATCH, &path, &self.keys[0], &body.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.apis[0].send(request).await.status
    }

    async fn updates(&self) {
        for source in SOURCES {
            let id = self.post(&json!({ "source": source })).await;
            assert_eq!(self.patch(&id, &json!({ "code": "the source stays" }), &[]).await, 200);
            self.check(&id, 2, &json!(source)).await;
        }
        let id = self.post(&json!({})).await;
        self.check(&id, 1, &Value::Null).await;
        assert_eq!(
            self.patch(&id, &json!({ "source": "moved" }), &[("if-match", "\"1\"")]).await,
            200
        );
        assert_eq!(
            self.patch(&id, &json!({ "source": "late" }), &[("if-match", "\"1\"")]).await,
            412
        );
        self.check(&id, 2, &json!("moved")).await;
        assert_eq!(
            self.patch(&id, &json!({ "source": null }), &[("if-match", "\"2\"")]).await,
            200
        );
        self.check(&id, 3, &Value::Null).await;

        let digits = "9".repeat(1000);
        let body = format!(
            r#"{{"source":"numbers","properties":{{"a":1e999,"b":-{digits},"c":1.5e-990,"lead":{{}}}}}}"#
        );
        let answer = self.apis[0].post_lead(&self.keys[0], &body).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let id = answer.header("location").unwrap().rsplit('/').next().unwrap();
        self.check(id, 1, &json!("numbers")).await;
    }

    async fn duplicates(&self) {
        let name = Uuid::new_v4().to_string();
        let mut ids = vec![];
        for (api, body) in self.apis.iter().zip([r#"{"source":"first"}"#, r#"{"source":"second"}"#])
        {
            let answer = api.post_lead_once(&self.keys[0], &name, body).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            ids.push(answer.lead_id());
        }
        assert_eq!(ids[0], ids[1]);
        let id = &ids[0];
        self.check(id, 1, &json!("first")).await;
        // A duplicate of the last event has no effect; one that comes after another has.
        for (key, source, version) in [("a", "a", 2), ("a", "a", 2), ("b", "b", 3), ("a", "a", 4)] {
            let headers = [("idempotency-key", key)];
            assert_eq!(self.patch(id, &json!({ "source": source }), &headers).await, 200);
            self.check(id, version, &json!(source)).await;
        }
    }

    /// What isn't an event, or is one of a type to come, or of a lead that was never created.
    async fn foreign_records(&self) {
        let system = &self.system;
        system.produce(Some(b"k"), Some(b"no headers"), &[]).await;
        system.produce(Some(b"k"), None, &[]).await;
        let update = Event {
            event_id: Uuid::new_v4(),
            occurred_at: Timestamp::from_unix_millis(1_800_000_000_000).unwrap(),
            workspace_id: self.keys[0].workspace,
            lead_id: Uuid::new_v4(),
            payload: Payload::LeadUpdated { changes: Changes::default(), expected_version: None },
        };
        system.produce_event(&update).await;
        let value = update.encode().unwrap().value;
        let headers = |event_type: &'static str| {
            [
                ("ce_specversion", "1.0"),
                ("ce_id", "1"),
                ("ce_source", "/workspaces/1"),
                ("ce_type", event_type),
                ("ce_subject", "1"),
                ("content-type", "application/json"),
            ]
            .map(|(name, text)| (name, Some(text.as_bytes())))
        };
        system.produce(Some(b"k"), Some(&value), &headers("LeadMerged")).await;
        for value in ["", "null", "[]", "{", r#"{"schema_version":1,"lead":{}}"#] {
            system.produce(Some(b"k"), Some(value.as_bytes()), &headers("LeadCreated")).await;
        }
    }

    /// The lead as the API shows it.
    async fn check(&self, id: &str, version: u64, source: &Value) {
        let answer = self.apis[0].get_lead(&self.keys[0], id).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("etag"), Some(format!("\"{version}\"").as_str()));
        // As text: not every number is one that serde_json can take.
        assert!(answer.text().contains(&format!(r#","source":{source},"#)), "{}", answer.text());
    }

    pub(crate) async fn records(&self) -> i64 {
        i64::try_from(self.system.records().await.len()).unwrap()
    }

    /// The report that the read model gives, once it stands for the whole log.
    pub(crate) async fn expected(&self) -> String {
        let records = self.records().await;
        eventually(DEADLINE, "all is projected", async || {
            let sum = "SELECT coalesce(sum(next_offset), 0)::bigint FROM projection_offset";
            let projected = self.system.number(sum).await;
            if projected == records { Ok(()) } else { Err(projected) }
        })
        .await;
        let leads = "SELECT json_build_object('lead_id', id, 'workspace_id', workspace_id,
                            'source', source, 'version', version)::text FROM leads";
        let counts = "SELECT json_build_object('workspace_id', workspace_id, 'source', source,
                             'leads', count(*))::text FROM leads GROUP BY workspace_id, source";
        let mut lines = vec![];
        for query in [leads, counts] {
            for row in self.system.rows(query, &[]).await {
                // PostgreSQL puts spaces between.
                let line: Value = serde_json::from_str(row.get(0)).unwrap();
                lines.push(format!("{line}\n"));
            }
        }
        lines.sort_unstable();
        lines.concat()
    }
}
