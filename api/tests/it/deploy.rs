//! No container engine runs here: what can be known of the containers by reading is held by reading.

use std::path::{Path, PathBuf};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(name: &str) -> String {
    let path = root().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between two texts.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let start = text.find(before).unwrap_or_else(|| panic!("{before} is not there")) + before.len();
    text[start..].split(after).next().unwrap_or_default()
}

struct Versions {
    kafka: String,
    postgres: String,
    rust: String,
    prometheus: String,
    grafana: String,
}

/// By the pom and the toolchain file, and what neither has by the compose file; everything else has
/// to agree with them.
fn versions() -> Versions {
    let (pom, toolchain) = (read("dev/pom.xml"), read("rust-toolchain.toml"));
    let compose = read("docker-compose.yml");
    Versions {
        kafka: between(&pom, "<kafka.version>", "<").to_owned(),
        postgres: between(&pom, "<postgres.version>", "<").to_owned(),
        rust: between(&toolchain, "channel = \"", "\"").to_owned(),
        prometheus: between(&compose, "image: prom/prometheus:v", "\n").to_owned(),
        grafana: between(&compose, "image: grafana/grafana:", "\n").to_owned(),
    }
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("docker-compose.yml")).expect("docker-compose.yml is YAML")
}

#[test]
fn containers_run_the_versions_of_the_local_stack() {
    let Versions { kafka, postgres, rust, .. } = versions();
    let compose = compose();
    assert_eq!(compose["services"]["kafka"]["image"], format!("apache/kafka:{kafka}"));
    assert_eq!(compose["services"]["postgres"]["image"], format!("postgres:{postgres}"));
    assert!(read("Dockerfile").contains(&format!("\nFROM rust:{rust}-")), "Rust {rust}");
    let minimum = between(&read("Cargo.toml"), "rust-version = \"", "\"").to_owned();
    assert!(rust.starts_with(&minimum), "rust-version {minimum}, toolchain {rust}");
}

fn markdown(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// A page may leave digits out (`PostgreSQL 18`), but not say another version. Decisions and the
/// changelog speak of the past.
#[test]
fn pages_name_the_same_versions() {
    let Versions { kafka, postgres, rust, prometheus, grafana } = versions();
    let named = [
        ("Kafka ", &kafka),
        ("PostgreSQL ", &postgres),
        ("Rust ", &rust),
        ("Prometheus ", &prometheus),
        ("Grafana ", &grafana),
    ];
    let pages = [markdown(&root()), markdown(&root().join("docs"))].concat();
    for page in pages.iter().filter(|page| !page.ends_with("CHANGELOG.md")) {
        let text = std::fs::read_to_string(page).expect("a page");
        for (name, version) in named {
            for rest in text.split(name).skip(1) {
                let digits = |c: char| c.is_ascii_digit() || c == '.';
                let found = rest.split(|c| !digits(c)).next().unwrap_or_default();
                let named = found.trim_end_matches('.');
                let agrees = *version == named || version.starts_with(&format!("{named}."));
                assert!(
                    named.is_empty() || agrees,
                    "{}: {name}{named}, but {version} it is",
                    page.display()
                );
            }
        }
    }
}

#[test]
fn the_services_are_there_and_wait_for_each_other() {
    let services = compose()["services"].clone();
    let names: Vec<_> = services.as_object().expect("services").keys().cloned().collect();
    assert_eq!(
        names,
        ["kafka", "postgres", "topics", "migrate", "api", "consumer", "prometheus", "grafana"]
    );
    let waits = |service: &str| services[service]["depends_on"].clone();
    let done = "service_completed_successfully";
    assert_eq!(waits("topics")["kafka"]["condition"], "service_healthy");
    assert_eq!(waits("migrate")["postgres"]["condition"], "service_healthy");
    assert_eq!(waits("consumer")["topics"]["condition"], done);
    assert_eq!(waits("consumer")["migrate"]["condition"], done);
    assert_eq!(waits("api")["topics"]["condition"], done);
    let api = waits("api");
    assert_eq!(api.as_object().map(serde_json::Map::len), Some(1), "ingest needs Kafka alone");
    for service in ["kafka", "postgres"] {
        assert!(services[service]["healthcheck"]["test"].is_array(), "{service}");
        assert!(services[service]["volumes"].is_array(), "{service} keeps its data");
    }
    for service in ["api", "consumer"] {
        assert_eq!(services[service]["build"]["target"], service);
        assert_ne!(services[service]["healthcheck"]["disable"], true, "{service}");
    }
    for (name, service) in services.as_object().expect("services") {
        let ports = service["ports"].as_array().cloned().unwrap_or_default();
        for port in ports {
            let port = port.as_str().expect("a text").to_owned();
            assert!(port.starts_with("127.0.0.1:"), "{name} is open to the network: {port}");
        }
        // An alias that leads nowhere would be null.
        let environment = service.get("environment");
        let filled = |given: &Value| given.as_object().is_some_and(|given| !given.is_empty());
        assert!(environment.is_none_or(filled), "{name}");
    }
    for service in ["topics", "migrate", "api", "consumer"] {
        let environment = &services[service]["environment"];
        for variable in ["KAFKA_BROKERS", "DATABASE_URL"] {
            assert!(environment[variable].is_string(), "{service}: {variable}");
        }
    }
}

/// The lines of a stage of the Dockerfile.
fn stage<'a>(dockerfile: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines = dockerfile.lines();
    let head = format!(" AS {name}");
    lines.find(|line| line.starts_with("FROM ") && line.ends_with(&head)).expect("the stage");
    lines.take_while(|line| !line.starts_with("FROM ")).collect()
}

#[test]
fn images_run_as_nobody_special_and_say_whether_they_are_well() {
    let dockerfile = read("Dockerfile");
    let user = |lines: &[&str]| {
        lines.iter().rev().find_map(|line| line.strip_prefix("USER ").map(str::to_owned))
    };
    let runtime = stage(&dockerfile, "runtime");
    assert_eq!(user(&runtime).as_deref(), Some("10001"));
    for name in ["api", "consumer"] {
        assert!(dockerfile.contains(&format!("FROM runtime AS {name}")), "{name}");
        let lines = stage(&dockerfile, name);
        assert_eq!(user(&lines), None, "{name} stays who the runtime is");
        for instruction in ["HEALTHCHECK ", "ENTRYPOINT [", "EXPOSE "] {
            assert!(
                lines.iter().any(|line| line.starts_with(instruction)),
                "{name}: {instruction}"
            );
        }
    }
}
