//! Each expression of the dashboard and of the alert rules finds its figures in running processes.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::process::Command;

use leads_testkit::{Authority, DEADLINE, Folder, KeySpec, System, eventually};
use promql_parser::label::MatchOp;
use promql_parser::parser::{self, Expr, LabelModifier, VectorSelector};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::Value;
use tokio::sync::OnceCell;

use crate::shared::{Own, call, known_key, run};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ops").join(name)
}

fn read(name: &str) -> String {
    let path = path(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// An expression and where it stands.
struct Found {
    place: String,
    expr: String,
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    panels.into_iter().filter(|panel| panel["type"] != "row").collect()
}

fn of_the_dashboard() -> Vec<Found> {
    let mut all = Vec::new();
    for panel in panels() {
        let targets = panel["targets"].as_array().expect("targets").clone();
        assert!(!targets.is_empty(), "{panel}");
        all.extend(targets.iter().map(|target| {
            Found {
                place: format!("dashboard, {}", panel["title"]),
                // As Grafana fills them in.
                expr: target["expr"]
                    .as_str()
                    .expect("an expression")
                    .replace("$__rate_interval", "1m")
                    .replace("$api", ".*")
                    .replace("$consumer", ".*"),
            }
        }));
    }
    all
}

fn rules() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read("alerts.yaml")).expect("YAML");
    let groups = rules["groups"].as_array().expect("groups").clone();
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules").clone()).collect()
}

fn of_the_alerts() -> Vec<Found> {
    let found = |rule: &Value| Found {
        place: format!("alert {}", rule["alert"]),
        expr: rule["expr"].as_str().expect("an expression").to_owned(),
    };
    rules().iter().map(found).collect()
}

type Labels = HashMap<String, String>;

/// The series that Prometheus would have of the processes.
#[derive(Default)]
struct Series(HashMap<String, Vec<Labels>>);

impl Series {
    /// What one process tells, with the labels that Prometheus adds.
    fn scrape(&mut self, job: &str, text: &str) {
        let target = [("job", job), ("instance", "host:1")];
        let target = target.map(|(name, value)| (name.to_owned(), value.to_owned()));
        self.0.entry("up".to_owned()).or_default().push(target.clone().into());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (series, _) = line.rsplit_once(' ').expect("a value");
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.strip_suffix('}').unwrap_or_default().split("\",");
            let labels = labels
                .filter_map(|label| label.split_once("=\""))
                .map(|(name, value)| (name.to_owned(), value.trim_end_matches('"').to_owned()));
            let labels = labels.chain(target.clone()).collect();
            self.0.entry(name.to_owned()).or_default().push(labels);
        }
    }

    /// The series that a selector selects. A regular expression may select what has not happened yet:
    /// its label has to be there.
    fn select(&self, selector: &VectorSelector) -> Result<Vec<&Labels>, String> {
        let name = selector.name.as_ref().ok_or("a selector without a name")?;
        let series = self.0.get(name).ok_or_else(|| format!("no figure {name}"))?;
        let matches = |labels: &&Labels| {
            selector.matchers.matchers.iter().all(|matcher| {
                labels.get(&matcher.name).is_some_and(|value| match matcher.op {
                    MatchOp::Re(_) | MatchOp::NotRe(_) => true,
                    MatchOp::Equal | MatchOp::NotEqual => matcher.is_match(value),
                })
            })
        };
        let selected: Vec<_> = series.iter().filter(matches).collect();
        if selected.is_empty() { Err(format!("{selector} selects nothing")) } else { Ok(selected) }
    }
}

/// Collects the selectors of an expression, and the labels that it groups or matches by.
#[derive(Default)]
struct Parts {
    selectors: Vec<VectorSelector>,
    labels: BTreeSet<String>,
}

impl ExprVisitor for Parts {
    type Error = Infallible;

    fn pre_visit(&mut self, expr: &Expr) -> Result<bool, Infallible> {
        let modifier = match expr {
            Expr::VectorSelector(selector) => {
                self.selectors.push(selector.clone());
                None
            }
            Expr::MatrixSelector(matrix) => {
                self.selectors.push(matrix.vs.clone());
                None
            }
            Expr::Aggregate(aggregate) => aggregate.modifier.as_ref(),
            Expr::Binary(binary) => binary.modifier.as_ref().and_then(|it| it.matching.as_ref()),
            _ => None,
        };
        if let Some(LabelModifier::Include(labels) | LabelModifier::Exclude(labels)) = modifier {
            self.labels.extend(labels.labels.iter().cloned());
        }
        Ok(true)
    }
}

/// What is wrong with an expression.
fn check(series: &Series, expr: &str) -> Result<(), String> {
    let mut parts = Parts::default();
    let Ok(_) = walk_expr(&mut parts, &parser::parse(expr)?);
    if parts.selectors.is_empty() {
        return Err("no figure in it".to_owned());
    }
    let mut known = BTreeSet::new();
    for selector in &parts.selectors {
        known
            .extend(series.select(selector)?.into_iter().flat_map(|labels| labels.keys().cloned()));
    }
    let unknown: Vec<_> = parts.labels.difference(&known).collect();
    if unknown.is_empty() { Ok(()) } else { Err(format!("no label {unknown:?}")) }
}

/// Of a system in which everything that a label names has happened; once for all tests here.
async fn eventful() -> &'static Series {
    static SERIES: OnceCell<Series> = OnceCell::const_new();
    SERIES.get_or_init(scraped).await
}

async fn scraped() -> Series {
    let (folder, identity) = (Folder::new(), Authority::new().issue(&["localhost"]));
    let file = |name: &str, pem: &[u8]| folder.write(name, pem).display().to_string();
    let (cert, key) =
        (file("tls.crt", &identity.certificate_pem()), file("tls.key", &identity.key_pem()));
    let own = Own::start(System::new().await, &[]).await;
    let tls = [("API_TLS_CERT", cert.as_str()), ("API_TLS_KEY", &key)];
    let in_tls = own.system.start_api_with(&tls).await;
    let Own { system, api, consumer, key } = &own;
    let id = api.post_lead(key, "{}").await.lead_id();
    assert_eq!(api.get_lead(key, &id).await.status, 200);
    assert_eq!(api.patch_lead(key, &id, r#"{"code":"x"}"#).await.status, 200);
    let batch = api.json(leads_testkit::Method::POST, "/api/v1/leads/batch", key, "[{}]");
    assert_eq!(api.send(batch).await.status, 201);
    assert_eq!(call(api, "GET", "/api/v1/leads", &[]).await.status, 401);
    let limited = KeySpec { rate_limit: Some(1), ..KeySpec::default() };
    let limited = known_key(system, api, limited).await;
    eventually(DEADLINE, "a request is over the limit", async || {
        api.get(&limited, "/api/v1/leads").await.status == 429
    })
    .await;
    system.produce(Some(b"junk"), Some(b"junk"), &[]).await;
    eventually(DEADLINE, "the dead letter and every lag are told", async || {
        let waiting = consumer.metric("leads_dead_letters_waiting", "undecodable").await;
        let lags = consumer.get("/metrics").await.text().matches("lag_seconds{").count();
        if waiting > 0.0 && lags == 3 { Ok(()) } else { Err((waiting, lags)) }
    })
    .await;
    let mut series = Series::default();
    series.scrape("leads-api", &api.get_metrics("/metrics").await.text());
    series.scrape("leads-api", &in_tls.get_metrics("/metrics").await.text());
    series.scrape("leads-consumer", &consumer.get("/metrics").await.text());
    series
}

#[test]
fn every_expression_finds_its_figures() {
    run(async {
        let series = eventful().await;
        let all: Vec<_> = of_the_dashboard().into_iter().chain(of_the_alerts()).collect();
        assert!(all.len() > 60, "{}", all.len());
        let wrong: Vec<_> = all
            .iter()
            .filter_map(|Found { place, expr }| {
                check(series, expr).err().map(|error| format!("{place}: {error}: {expr}"))
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        // And it would tell.
        for wrong in [
            "leads_no_such_figure",
            r#"leads_ready{job="other"}"#,
            r#"leads_shed_total{cause=~".*"}"#,
            r#"rate(leads_shed_total{reason="boredom"}[1m])"#,
            "sum by (lane) (leads_projection_lag_records)",
            "sum(leads_ready",
            "1",
        ] {
            assert!(check(series, wrong).is_err(), "{wrong}");
        }
    });
}

/// A figure that no panel shows is one that nobody sees.
#[test]
fn every_figure_is_on_the_dashboard() {
    run(async {
        let shown: String = of_the_dashboard().into_iter().map(|found| found.expr).collect();
        // By itself it says nothing that the others don't.
        let left_out = [
            "leads_process_start_time_seconds",
            "leads_process_threads",
            "leads_process_virtual_memory_bytes",
            "leads_process_virtual_memory_max_bytes",
        ];
        let series = eventful().await;
        let bare = |name: &str| {
            let suffixes = ["_bucket", "_sum", "_count"];
            suffixes.iter().find_map(|it| name.strip_suffix(it)).unwrap_or(name).to_owned()
        };
        let unseen: BTreeSet<_> = series.0.keys().map(|name| bare(name)).collect();
        let unseen: Vec<_> = unseen
            .iter()
            .filter(|name| *name != "up" && !left_out.contains(&name.as_str()))
            .filter(|name| !shown.contains(name.as_str()))
            .collect();
        assert!(unseen.is_empty(), "{unseen:?}");
    });
}

#[test]
fn every_panel_and_every_alert_is_explained() {
    let page = read("README.md");
    for panel in panels() {
        let text = |name: &str| panel[name].as_str().unwrap_or_default().to_owned();
        let row = format!("| {} | {} | ", text("title"), text("description"));
        assert!(page.contains(&row), "docs/ops/README.md needs the row: {row}");
    }
    let mut names = BTreeSet::new();
    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        assert!(
            page.contains(&format!("\n### {name}\n")),
            "docs/ops/README.md says nothing of {name}"
        );
        let severity = rule["labels"]["severity"].as_str();
        assert!(matches!(severity, Some("critical" | "warning")), "{name}: {severity:?}");
        for annotation in ["summary", "description"] {
            assert!(rule["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
        let runbook = format!("docs/ops/README.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook"], runbook, "{name}");
    }
    for heading in page.lines().filter_map(|line| line.strip_prefix("### Leads")) {
        assert!(names.contains(&format!("Leads{heading}")), "no such alert: Leads{heading}");
    }
}

/// Prometheus' own tool has the last word, where it is to be had.
#[test]
fn promtool_agrees() {
    let promtool =
        |args: &[&str], file: &str| Command::new("promtool").args(args).arg(path(file)).output();
    if promtool(&["--version"], "").is_err() {
        eprintln!("promtool is not on the PATH: the rules were read here, and not run");
        return;
    }
    for (args, file) in
        [(["check", "rules"], "alerts.yaml"), (["test", "rules"], "alerts_test.yaml")]
    {
        let output = promtool(&args, file).expect("promtool runs");
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    }
    // Each rule has to fire in the test of its trouble.
    let tests = read("alerts_test.yaml");
    for rule in rules() {
        let name = rule["alert"].as_str().expect("a name");
        assert!(tests.contains(&format!("alertname=\"{name}\"")), "{name} has no test");
    }
}
