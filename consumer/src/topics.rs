//! `leads-consumer topics`: the topics, made or checked.

use std::time::Duration;

use leads_shared::topic::{self, TopicSpec};
use tokio::time::Instant;

use crate::source::admin::{Admin, AdminError, Replicas, Topic};

/// How long a new topic may take until each partition has a leader.
const USABLE_WAIT: Duration = Duration::from_secs(30);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What came of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// A line for the operator.
    pub line: String,
    /// Settings that break a promise, a line each.
    pub violations: Vec<String>,
}

/// The topics of a system.
pub fn specs(events: &str, access: &str, partitions: u32) -> [TopicSpec; 3] {
    [
        topic::events(events, partitions),
        topic::dead_letter_spec(events, partitions),
        topic::access(access),
    ]
}

/// Makes the topic if it isn't there, waits until it can be used, and checks its settings.
///
/// # Errors
/// See [`AdminError`].
pub async fn ensure(
    admin: &Admin,
    spec: &TopicSpec,
    replicas: Replicas,
) -> Result<Outcome, AdminError> {
    let (topic, verb) = match admin.topic(&spec.name).await? {
        Some(topic) if topic.usable => (topic, "exists"),
        Some(_) => (usable(admin, spec).await?, "exists"),
        None => {
            let made = admin.create(spec, replicas).await?;
            (usable(admin, spec).await?, if made { "created" } else { "exists" })
        }
    };
    let violations = settled(admin, spec).await?;
    let state = if violations.is_empty() { "" } else { ", settings wrong" };
    let mut line = format!("{}: {verb}, {} partitions{state}", spec.name, topic.partitions);
    if topic.partitions != spec.partitions {
        use std::fmt::Write;
        // Writing to a String cannot fail.
        let _ = write!(line, " (not {}: fixed when it was made)", spec.partitions);
    }
    Ok(Outcome { line, violations })
}

/// The settings of a topic that break a promise, a line each.
///
/// # Errors
/// See [`AdminError`].
pub async fn check(admin: &Admin, spec: &TopicSpec) -> Result<Vec<String>, AdminError> {
    let settings = admin.settings(&spec.name).await?;
    Ok(spec.violations(&settings).iter().map(ToString::to_string).collect())
}

/// A broker that did not make the topic may hear of it a moment later.
async fn settled(admin: &Admin, spec: &TopicSpec) -> Result<Vec<String>, AdminError> {
    let deadline = Instant::now() + USABLE_WAIT;
    loop {
        match check(admin, spec).await {
            Err(AdminError::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(ASK_AGAIN).await;
            }
            settled => return settled,
        }
    }
}

async fn usable(admin: &Admin, spec: &TopicSpec) -> Result<Topic, AdminError> {
    let deadline = Instant::now() + USABLE_WAIT;
    loop {
        if let Some(topic) = admin.topic(&spec.name).await?.filter(|topic| topic.usable) {
            return Ok(topic);
        }
        if Instant::now() >= deadline {
            let why = format!("topic {} has partitions without a leader", spec.name);
            return Err(AdminError::Unavailable(why));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
