//! The topics: names, and the settings without which a promise would not hold.

use std::collections::HashMap;

/// Default name of the events topic.
pub const EVENTS: &str = "leads.events.v1";
/// Default name of the topic that holds the API keys.
pub const ACCESS: &str = "leads.access.v1";
/// Partitions of a new events topic. Fixed at creation: growing it would move keys.
pub const DEFAULT_PARTITIONS: u32 = 12;
/// The largest record that the API publishes, in bytes: a lead of 256 KiB, its envelope and headers.
pub const MAX_RECORD_BYTES: u64 = 512 * 1024;

/// The dead letter topic of an events topic.
pub fn dead_letters(events_topic: &str) -> String {
    format!("{events_topic}.dlq")
}

/// What a topic has to be like.
#[derive(Debug, Clone)]
pub struct TopicSpec {
    /// The topic's name.
    pub name: String,
    /// Partitions when it is created.
    pub partitions: u32,
    /// The settings that must hold.
    pub rules: &'static [Rule],
}

/// One setting of a topic and what it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// The topic setting's name in Kafka.
    pub setting: &'static str,
    /// What holds.
    pub wanted: Wanted,
    /// What breaks otherwise.
    pub why: &'static str,
}

/// What a setting must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Exactly this; also set when the topic is created.
    Exactly(&'static str),
    /// A number of at least this; left to the broker when the topic is created, unless it is too low.
    AtLeast(u64),
}

/// A setting that would break a promise.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic {topic}: {}. Fix: {}", self.problem(), mend(topic, std::slice::from_ref(self)))]
pub struct Violation {
    /// The topic's name.
    pub topic: String,
    /// The setting's name.
    pub setting: &'static str,
    /// What it is now.
    pub found: String,
    /// What it must be, in words.
    pub wanted: String,
    /// What breaks otherwise.
    pub why: &'static str,
    /// The value to set.
    pub fix: String,
}

impl Violation {
    /// What it is, what it must be and why, without the topic.
    pub fn problem(&self) -> String {
        let Self { setting, found, wanted, why, .. } = self;
        format!("{setting} is {found}, must be {wanted}: {why}")
    }
}

/// The command that mends settings of a topic.
pub fn mend(topic: &str, violations: &[Violation]) -> String {
    let settings: Vec<_> =
        violations.iter().map(|it| format!("{}={}", it.setting, it.fix)).collect();
    format!(
        "kafka-configs.sh --bootstrap-server $KAFKA_BROKERS --alter --entity-type topics \
         --entity-name {topic} --add-config {}",
        settings.join(",")
    )
}

const NO_LOSS: &str = "the log is the truth, and history would be lost";

const EVENT_RULES: &[Rule] = &[
    Rule {
        setting: "cleanup.policy",
        wanted: Wanted::Exactly("delete"),
        why: "compaction would drop events of the same lead",
    },
    Rule { setting: "retention.ms", wanted: Wanted::Exactly("-1"), why: NO_LOSS },
    Rule { setting: "retention.bytes", wanted: Wanted::Exactly("-1"), why: NO_LOSS },
    Rule {
        setting: "max.message.bytes",
        wanted: Wanted::AtLeast(MAX_RECORD_BYTES),
        why: "a large lead would be refused after it was validated",
    },
];

const ACCESS_RULES: &[Rule] = &[Rule {
    setting: "cleanup.policy",
    wanted: Wanted::Exactly("compact"),
    why: "keys would be forgotten, or the topic grow for ever",
}];

/// The events topic.
pub fn events(name: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions, rules: EVENT_RULES }
}

/// The dead letter topic of the events topic `events_topic`.
pub fn dead_letter_spec(events_topic: &str, partitions: u32) -> TopicSpec {
    TopicSpec { name: dead_letters(events_topic), partitions, rules: EVENT_RULES }
}

/// The topic that holds the API keys.
pub fn access(name: &str) -> TopicSpec {
    TopicSpec { name: name.to_owned(), partitions: 1, rules: ACCESS_RULES }
}

impl TopicSpec {
    /// The settings to give when the topic is created.
    pub fn creation_settings(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.rules.iter().filter_map(|rule| match rule.wanted {
            Wanted::Exactly(value) => Some((rule.setting, value)),
            Wanted::AtLeast(_) => None,
        })
    }

    /// The settings in `actual` (as the broker reports them) that would break a promise.
    pub fn violations(&self, actual: &HashMap<String, String>) -> Vec<Violation> {
        self.rules
            .iter()
            .filter_map(|rule| {
                let found = actual.get(rule.setting).map_or("not reported", String::as_str);
                let (holds, wanted, fix) = match rule.wanted {
                    Wanted::Exactly(value) => (found == value, value.to_owned(), value.to_owned()),
                    Wanted::AtLeast(least) => (
                        found.parse::<u64>().is_ok_and(|value| value >= least),
                        format!("at least {least}"),
                        least.to_string(),
                    ),
                };
                (!holds).then(|| Violation {
                    topic: self.name.clone(),
                    setting: rule.setting,
                    found: found.to_owned(),
                    wanted,
                    why: rule.why,
                    fix,
                })
            })
            .collect()
    }
}

/// Whether Kafka takes `name`, with room for the dead letter topic's suffix.
///
/// Source: `org.apache.kafka.common.internals.Topic`: at most 249 characters, neither `.` nor `..`.
pub fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=245).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}
