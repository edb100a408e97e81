//! One trace from the client to the row.

use leads_testkit::{Api, DEADLINE, Key, Method, OtlpReceiver, ReceivedSpan, Record, System};

use crate::shared::{run, unlimited};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

struct Traced {
    system: System,
    receiver: OtlpReceiver,
    api: Api,
    key: Key,
}

impl Traced {
    async fn start(more: &[(&str, &str)]) -> Self {
        let (system, receiver) = (System::new().await, OtlpReceiver::start().await);
        let key = system.create_key(unlimited()).await;
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url());
        let env: Vec<_> = [endpoint, ("OTEL_BSP_SCHEDULE_DELAY", "50")]
            .into_iter()
            .chain(more.iter().copied())
            .collect();
        let api = system.start_api_with(&env).await;
        api.wait_ready().await;
        Self { system, receiver, api, key }
    }

    async fn post(&self, traceparent: Option<&str>) -> String {
        let mut request =
            self.api.json(Method::POST, "/api/v1/leads", &self.key, r#"{"source":"web"}"#);
        if let Some(traceparent) = traceparent {
            request = request.header("traceparent", traceparent);
        }
        let answer = self.api.send(request).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.lead_id()
    }

    async fn span(&self, name: &str) -> ReceivedSpan {
        self.receiver.wait_for(name, |span| span.name == name).await
    }

    /// What stands in the header of the record of this lead.
    async fn traceparent(&self, lead_id: &str) -> Option<String> {
        let records = self.system.records().await;
        let of_lead = |record: &&Record| record.key.as_deref() == Some(lead_id.as_bytes());
        let record = records.iter().find(of_lead).expect("the record of the lead");
        record.header("traceparent").map(str::to_owned)
    }
}

fn traceparent(span: &ReceivedSpan) -> String {
    format!("00-{}-{}-01", span.trace_id, span.span_id)
}

#[test]
fn one_trace_leads_from_the_client_to_the_row() {
    run(async {
        let traced = Traced::start(&[]).await;
        let endpoint = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", traced.receiver.url()),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ];
        let consumer = traced.system.start_consumer_with(&endpoint).await;
        let id = traced.post(Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;

        let served = traced.span("POST /api/v1/leads").await;
        assert_eq!((served.trace_id.as_str(), served.parent.as_str()), (TRACE, CLIENT));
        assert_eq!(served.service, "leads-api");
        assert_eq!(served.attributes["http.response.status_code"], "201");
        assert_eq!(served.attributes["leads.workspace_id"], traced.key.workspace.to_string());
        let sent = traced.span(&format!("send {}", traced.system.events_topic())).await;
        assert_eq!((sent.trace_id.as_str(), &sent.parent), (TRACE, &served.span_id));
        assert_eq!(traced.traceparent(&id).await, Some(traceparent(&sent)));
        assert!(served.time.0 <= sent.time.0 && sent.time.1 <= served.time.1);
        let row = traced.span("project LeadCreated").await;
        assert_eq!((row.trace_id.as_str(), &row.parent), (TRACE, &sent.span_id));
        assert_eq!(row.service, "leads-consumer");
        let batch = traced.span("project batch").await;
        assert!(batch.links.contains(&(sent.trace_id.clone(), sent.span_id.clone())));

        assert_eq!(traced.api.get_lead(&traced.key, &id).await.status, 200);
        let read = traced.span("GET /api/v1/leads/{id}").await;
        let sql = traced.span("SELECT leads").await;
        assert_eq!((&sql.trace_id, &sql.parent), (&read.trace_id, &read.span_id));
        assert_eq!(read.parent, "", "a request without a traceparent begins a trace");
        let probes = |span: &&ReceivedSpan| span.name.contains("ready");
        assert_eq!(traced.receiver.spans().iter().filter(probes).count(), 0);
        drop(consumer);
    });
}

#[test]
fn what_is_not_to_be_recorded_is_passed_on_and_not_sent() {
    run(async {
        let never =
            [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0")];
        let traced = Traced::start(&never).await;
        let id = traced.post(None).await;
        let header = traced.traceparent(&id).await.expect("a traceparent");
        assert!(header.ends_with("-00"), "{header}");
        let id = traced.post(Some(&format!("00-{TRACE}-{CLIENT}-00"))).await;
        let header = traced.traceparent(&id).await.expect("a traceparent");
        assert!(header.starts_with(&format!("00-{TRACE}-")) && header.ends_with("-00"), "{header}");
        // The parent decides, whatever is said of roots.
        traced.post(Some(&format!("00-{TRACE}-{CLIENT}-01"))).await;
        traced.span("POST /api/v1/leads").await;
        assert_eq!(traced.api.terminate().await.code(), Some(0));
        assert_eq!(traced.receiver.spans().len(), 2, "{:?}", traced.receiver.spans());
    });
}

/// A collector that is away costs nothing but its traces.
#[test]
fn without_a_collector_leads_are_taken_and_it_ends_in_time() {
    run(async {
        let system = System::new().await;
        let key = system.create_key(unlimited()).await;
        let api = system.start_api_with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")]);
        let api = api.await;
        api.wait_ready().await;
        for _ in 0..20 {
            assert_eq!(api.post_lead(&key, "{}").await.status, 201);
        }
        let end = tokio::time::timeout(DEADLINE, api.terminate()).await;
        assert_eq!(end.expect("it ends").code(), Some(0));
    });
}

#[test]
fn an_error_is_told_by_its_code() {
    run(async {
        let traced = Traced::start(&[]).await;
        let answer = traced.api.post_lead(&traced.key, "{").await;
        assert_eq!(answer.status, 400);
        let span = traced.span("POST /api/v1/leads").await;
        assert_eq!(span.attributes["error.type"], "malformed_json");
        assert!(!span.failed, "a client's fault is no fault of ours");
    });
}
