//! One log line a request, figures that move, and nothing of a lead or a key in either.

use leads_testkit::{Api, DEADLINE, LogLine, Method, eventually};

use crate::shared::{call, post_with, run, shared};

const LEADS: &str = "/api/v1/leads";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn lines_of(api: &Api, request_id: &str) -> Vec<LogLine> {
    let is_of = |line: &LogLine| line.str("request_id") == Some(request_id);
    api.logs().into_iter().filter(is_of).collect()
}

#[test]
fn each_request_has_one_line() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let id = |name: &str| format!("line-{name}-{}", key.id);
        let posted =
            post_with(api, &key, "{}", &[("x-request-id", &id("post")), ("traceparent", TRACE)])
                .await;
        let lead = format!("{LEADS}/{}?secret=1", posted.lead_id());
        let secret = key.secret.as_str();
        call(api, "GET", &lead, &[("x-request-id", &id("get")), ("x-api-key", secret)]).await;
        call(api, "DELETE", LEADS, &[("x-request-id", &id("delete"))]).await;
        call(api, "GET", "/no/such/route", &[("x-request-id", &id("nowhere"))]).await;
        post_with(api, &key, "{", &[("x-request-id", &id("bad"))]).await;

        let trace = Some("0af7651916cd43dd8448eb211c80319c");
        let workspace = key.workspace.to_string();
        let workspace = Some(workspace.as_str());
        for (name, method, route, status, trace, workspace, error) in [
            ("post", "POST", LEADS, 201, trace, workspace, None),
            ("get", "GET", "/api/v1/leads/{id}", 200, None, workspace, None),
            ("delete", "DELETE", LEADS, 405, None, None, Some("method_not_allowed")),
            ("nowhere", "GET", "unmatched", 404, None, None, Some("route_not_found")),
            ("bad", "POST", LEADS, 400, None, workspace, Some("malformed_json")),
        ] {
            let what = format!("the line of {name}");
            let lines = eventually(DEADLINE, &what, async || {
                let lines = lines_of(api, &id(name));
                (!lines.is_empty()).then_some(lines)
            })
            .await;
            assert_eq!(lines.len(), 1, "{lines:?}");
            let line = &lines[0];
            assert_eq!(line.level(), "INFO");
            assert_eq!((line.str("method"), line.str("route")), (Some(method), Some(route)));
            assert_eq!(line.field("status").and_then(serde_json::Value::as_u64), Some(status));
            assert!(line.field("us").is_some_and(|us| us.as_u64() > Some(0)), "{}", line.text);
            assert_eq!(line.str("trace_id"), trace, "{}", line.text);
            assert_eq!(line.str("workspace"), workspace, "{}", line.text);
            assert_eq!(line.str("error"), error, "{}", line.text);
        }
    });
}

/// At every level that an operator may set in production.
#[test]
fn nothing_of_a_lead_reaches_a_log() {
    run(async {
        const MARKER: &str = "zQ7marker";
        let shared = shared().await;
        let key = shared.key().await;
        let loud = shared.system.start_api_with(&[("LOG_LEVEL", "trace")]).await;
        loud.wait_ready().await;
        let uuid = "7a517a51-7a51-4a51-8a51-7a517a517a51";
        for api in [&shared.api, &loud] {
            let good = format!(
                r#"{{"visitor_id":"{uuid}","code":"{MARKER}","source":"{MARKER}","properties":{{"{MARKER}":"{MARKER}"}},"location":{{"{MARKER}":1}}}}"#
            );
            let posted = post_with(api, &key, good.clone(), &[("idempotency-key", MARKER)]).await;
            assert_eq!(posted.status, 201);
            let id = posted.lead_id();
            let change =
                format!(r#"{{"summary":{{"{MARKER}":"{MARKER}"}},"visitor_id":"{uuid}"}}"#);
            assert_eq!(api.patch_lead(&key, &id, &change).await.status, 200);
            for bad in [
                format!(r#"{{"{MARKER}":1}}"#),
                format!(
                    r#"{{"visitor_id":"{MARKER}","code":{{"{MARKER}":1}},"properties":"{MARKER}"}}"#
                ),
                format!(r#"{{"properties":{{"{MARKER}":"\u0000"}}}}"#),
                format!(r#"{{"code":{MARKER}}}"#),
                format!(r#""{MARKER}""#),
            ] {
                assert_eq!(api.post_lead(&key, &bad).await.status, 400, "{bad}");
                assert_eq!(api.patch_lead(&key, &id, &bad).await.status, 400, "{bad}");
            }
            for path in [
                format!("{LEADS}?source={MARKER}&code={MARKER}&visitor_id={uuid}"),
                format!("{LEADS}?{MARKER}={MARKER}&cursor={MARKER}"),
                format!("{LEADS}/{MARKER}"),
                format!("{LEADS}/{id}?{MARKER}"),
                format!("/{MARKER}"),
            ] {
                api.get(&key, &path).await;
            }
            let last = format!("last-{}", api.address().port());
            call(api, "GET", "/nowhere", &[("x-request-id", &last)]).await;
            eventually(DEADLINE, "the log is written", async || !lines_of(api, &last).is_empty())
                .await;
        }
        let logs = [shared.api.logs(), loud.logs(), shared.consumer.logs()].concat();
        for line in logs {
            assert!(!line.text.contains(MARKER), "{}", line.text);
            assert!(!line.text.contains(uuid), "{}", line.text);
            assert!(!line.text.contains(&key.secret[8..]), "{}", line.text);
        }
    });
}

#[test]
fn no_key_reaches_a_log_or_a_metric() {
    run(async {
        let shared = shared().await;
        shared.key().await;
        let metrics = shared.api.get_metrics("/metrics").await.text();
        let logs = [shared.api.logs(), shared.consumer.logs()].concat();
        for secret in shared.secrets() {
            // Without its prefix, which is no secret.
            let random = secret.rsplit('_').next().expect("a part").to_owned();
            assert!(!metrics.contains(&random));
            assert!(logs.iter().all(|line| !line.text.contains(&random)), "a key is in a log");
        }
    });
}

#[test]
fn figures_have_their_names_and_move() {
    run(async {
        let shared = shared().await;
        let api = &shared.api;
        let key = shared.key().await;
        let taken = r#"route="/api/v1/leads",status="201""#;
        let requests = "leads_http_request_seconds_count";
        let (own, creations) = ("leads_request_own_seconds_count", r#"route="/api/v1/leads""#);
        let before = (
            api.metric(requests, taken).await,
            api.metric("leads_publish_seconds_count", "").await,
            api.metric("leads_precondition_failed_total", "").await,
            api.metric(own, creations).await,
        );
        let id = api.post_lead(&key, "{}").await.lead_id();
        let request = api.json(Method::PATCH, &format!("{LEADS}/{id}"), &key, r#"{"code":"x"}"#);
        assert_eq!(api.send(request.header("if-match", "\"7\"")).await.status, 412);
        let after = (
            api.metric(requests, taken).await,
            api.metric("leads_publish_seconds_count", "").await,
            api.metric("leads_precondition_failed_total", "").await,
            api.metric(own, creations).await,
        );
        assert!(after.0 >= before.0 + 1.0, "{before:?} {after:?}");
        assert!(after.1 >= before.1 + 2.0, "a creation and an update: {before:?} {after:?}");
        assert!(after.2 >= before.2 + 1.0, "{before:?} {after:?}");
        assert!(after.3 >= before.3 + 1.0, "{before:?} {after:?}");

        let answer = api.get_metrics("/metrics").await;
        assert!(answer.header("content-type").is_some_and(|t| t.starts_with("text/plain")));
        let text = answer.text();
        for (name, kind) in [
            ("leads_http_request_seconds", "histogram"),
            ("leads_publish_seconds", "histogram"),
            ("leads_request_own_seconds", "histogram"),
            ("leads_publish_in_flight", "gauge"),
            ("leads_publish_in_flight_bytes", "gauge"),
            ("leads_producer_queue_records", "gauge"),
            ("leads_precondition_failed_total", "counter"),
        ] {
            assert!(text.contains(&format!("# TYPE {name} {kind}")), "{name}: {text}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        }
        let info = text.lines().find(|line| line.starts_with("leads_build_info{"));
        let info = info.expect("what is built");
        assert!(info.contains("version=\"") && info.contains("commit=\""), "{info}");
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(line.starts_with("leads_"), "{line}");
            assert!(!line.contains(&id) && !line.contains(&key.workspace.to_string()), "{line}");
        }
        // Whatever clients ask for, the number of series stays bounded.
        api.get_open("/some/path/of/a/scanner").await;
        assert!(!api.get_metrics("/metrics").await.text().contains("scanner"));
    });
}

#[test]
fn the_services_own_time_is_without_the_wait_for_the_broker() {
    run(async {
        let shared = shared().await;
        let key = shared.key().await;
        // Every record waits for company: a slow broker, as seen from a request.
        let api = shared.system.start_api_with(&[("KAFKA_LINGER_MS", "900")]).await;
        api.wait_ready().await;
        let seconds = async |name: &str, labels| api.metric(&format!("{name}_sum"), labels).await;
        assert_eq!(api.post_lead(&key, "{}").await.status, 201);
        let batch = api.json(Method::POST, &format!("{LEADS}/batch"), &key, "[{},{},{}]");
        assert_eq!(api.send(batch).await.status, 201);
        let all = seconds("leads_http_request_seconds", r#"status="201""#).await;
        let own = seconds("leads_request_own_seconds", "").await;
        assert!(own > 0.0 && all - own > 1.5, "two waits: {own} s of {all} s");
    });
}
