//! `leads-consumer status`: how the projection stands, and whether someone has to get up.
//!
//! [`look`] asks Kafka and PostgreSQL, [`judge`] makes a [`report`] of what they say, and [`render`]
//! writes it down.

pub mod judge;
pub mod look;
pub mod read_model;
pub mod render;
pub mod report;
pub mod session;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use chrono::Utc;

use crate::config::Database;
use crate::source::client::Kafka;
use report::Status;

/// Clears the screen and goes to its first line (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is looked at.
#[derive(Clone)]
pub struct Settings {
    /// How to reach Kafka.
    pub kafka: Kafka,
    /// The topic of events.
    pub topic: String,
    /// The consumer group.
    pub group: String,
    /// How to reach PostgreSQL.
    pub database: Database,
}

/// How it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// A JSON object a line, not text.
    pub json: bool,
    /// Again and again, so long after the last time.
    pub watch: Option<Duration>,
}

/// Shows how things stand; whether all is well. With `watch` it ends when nobody reads any more.
///
/// # Errors
/// Nothing can be written to stdout.
pub async fn show(settings: &Settings, max_lag: Duration, show: Show) -> io::Result<bool> {
    let Show { json, watch } = show;
    let clear = !json && watch.is_some() && io::stdout().is_terminal();
    loop {
        let seen = look::look(settings).await;
        let status = judge::report(settings, &seen, Utc::now(), max_lag);
        let text = if json { line(&status)? } else { render::text(&status) };
        let mut out = io::stdout().lock();
        if clear {
            out.write_all(CLEAR.as_bytes())?;
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
        drop(out);
        match watch {
            None => return Ok(status.healthy),
            Some(interval) => tokio::time::sleep(interval).await,
        }
    }
}

fn line(status: &Status) -> io::Result<String> {
    Ok(serde_json::to_string(status)? + "\n")
}
