//! `leads-consumer doctor`: everything that can be wrong, and what to do about it.
//!
//! `look` gathers, and never judges; each check in `CHECKS` judges, and never asks.

mod database;
mod finding;
mod kafka;
mod look;
mod projection;
mod server;
mod topics;

use std::io::{self, Write};

use chrono::Utc;
use leads_shared::Timestamp;
use serde::Serialize;

use crate::source::admin::{Admin, AdminError};
use crate::status::Settings;
use finding::{Finding, Verdict};
use look::Looked;

/// A question about the system.
struct Check {
    /// What it is about; stable, for scripts.
    name: &'static str,
    judge: fn(&Looked) -> Finding,
}

const fn check(name: &'static str, judge: fn(&Looked) -> Finding) -> Check {
    Check { name, judge }
}

/// In the order in which one thing rests on another.
const CHECKS: &[Check] = &[
    check("kafka names", kafka::names),
    check("kafka connection", kafka::connections),
    check("kafka tls", kafka::tls),
    check("kafka credentials", kafka::credentials),
    check("events topic", topics::events),
    check("events settings", topics::events_settings),
    check("dead letter topic", topics::dead_letters),
    check("dead letter settings", topics::dead_letter_settings),
    check("access topic", topics::access),
    check("access settings", topics::access_settings),
    check("replication", topics::replication),
    check("postgres connection", database::connection),
    check("postgres tls", database::tls),
    check("postgres credentials", database::credentials),
    check("database", database::exists),
    check("schema", database::schema),
    check("permissions", database::permissions),
    check("writable", server::writable),
    check("connections", server::connections),
    check("transactions", server::transactions),
    check("disk", server::disk_room),
    check("clock", server::clock),
    check("live generation", projection::live),
    check("partitions", projection::partitions),
    check("offsets", projection::in_bounds),
    check("same log", projection::same_log),
    check("sealed", projection::sealed),
    check("builder", projection::builder),
    check("consumers", projection::group),
    check("movement", projection::movement),
    check("dead letters", projection::dead_letters),
    check("export", projection::export),
];

/// What all checks found; the shape of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    /// When it was looked.
    at: Timestamp,
    /// Whether no check failed.
    ok: bool,
    /// Each check, in order.
    checks: Vec<Outcome>,
}

/// What a check found.
#[derive(Debug, Serialize)]
struct Outcome {
    /// What it is about.
    check: &'static str,
    #[serde(flatten)]
    finding: Finding,
}

/// Runs all checks and shows what they found; whether none failed.
///
/// # Errors
/// [`Trouble::Settings`] when the Kafka settings don't work.
pub async fn show(settings: &Settings, access_topic: &str, json: bool) -> Result<bool, Trouble> {
    let admin = Admin::new(&settings.kafka)?;
    let looked = look::look(settings, &admin, access_topic).await;
    // Closing a client waits for what it has under way, a name server that hangs included.
    std::thread::spawn(move || drop(admin));
    let outcome = |check: &Check| Outcome { check: check.name, finding: (check.judge)(&looked) };
    let checks: Vec<_> = CHECKS.iter().map(outcome).collect();
    let ok = checks.iter().all(|it| it.finding.verdict != Verdict::Failed);
    let report = Report { at: Timestamp::from(Utc::now()), ok, checks };
    let text = if json { serde_json::to_string(&report)? + "\n" } else { text(&report) };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(ok)
}

/// Why nothing could be shown.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The Kafka settings don't work.
    #[error(transparent)]
    Settings(#[from] AdminError),
    /// Nothing can be written to stdout.
    #[error("stdout: {0}")]
    Output(#[from] io::Error),
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Output(error.into())
    }
}

/// A line a check, and a second one with what to do.
fn text(report: &Report) -> String {
    let mut lines = Vec::new();
    for Outcome { check, finding: Finding { verdict, found, fix } } in &report.checks {
        lines.push(format!("{:<8} {check:<21} {found}", word(*verdict)));
        lines.extend(fix.iter().map(|fix| format!("{:<8} {:<21} do: {fix}", "", "")));
    }
    let count = |wanted: Verdict| {
        let found = report.checks.iter().filter(|it| it.finding.verdict == wanted).count();
        format!("{found} {}", word(wanted))
    };
    let counts = [Verdict::Ok, Verdict::Warning, Verdict::Failed, Verdict::Skipped].map(count);
    lines.push(format!("{} checks: {}", report.checks.len(), counts.join(", ")));
    lines.join("\n") + "\n"
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "ok",
        Verdict::Warning => "warning",
        Verdict::Failed => "FAILED",
        Verdict::Skipped => "skipped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_catches_the_eye_and_says_what_to_do() {
        let outcome = |check, finding| Outcome { check, finding };
        let report = Report {
            at: Timestamp::from(Utc::now()),
            ok: false,
            checks: vec![
                outcome("schema", Finding::ok("version 2")),
                outcome("writable", Finding::failed("it is not", "make it so")),
            ],
        };
        let text = text(&report);
        assert!(text.contains("\nFAILED   writable "), "{text}");
        assert!(text.contains(" do: make it so\n"), "{text}");
        assert!(text.ends_with("2 checks: 1 ok, 0 warning, 1 FAILED, 0 skipped\n"), "{text}");
    }
}
