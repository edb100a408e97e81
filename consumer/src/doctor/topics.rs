//! Whether the topics are there, and would keep what is written to them.

use std::collections::HashMap;
use std::time::Duration;

use leads_shared::topic::{self, TopicSpec};

use super::Looked;
use super::finding::{Finding, Seen, Unseen, judge, judge_both};
use crate::source::admin::{Admin, AdminError};
use crate::source::inspect::Shape;

const ANSWER: Duration = Duration::from_secs(2);
const MIN_IN_SYNC: &str = "min.insync.replicas";

/// What was seen of a topic.
#[derive(Debug, Clone)]
pub(super) struct TopicLook {
    /// What it has to be like.
    pub(super) spec: TopicSpec,
    /// What it is like; `None` when it is not there.
    pub(super) shape: Seen<Option<Shape>>,
    /// Its settings.
    pub(super) settings: Seen<HashMap<String, String>>,
}

impl TopicLook {
    /// Nothing, for that reason.
    pub(super) fn unseen(spec: TopicSpec, why: &Unseen) -> Self {
        Self { spec, shape: Err(why.clone()), settings: Err(why.clone()) }
    }

    /// The settings of a topic, given what it is like.
    pub(super) async fn new(admin: &Admin, spec: TopicSpec, shape: Seen<Option<Shape>>) -> Self {
        let settings = match &shape {
            Err(why) => Err(why.clone()),
            Ok(None) => Err(Unseen::after("there is no such topic")),
            Ok(Some(_)) => settings(admin, &spec.name).await,
        };
        Self { spec, shape, settings }
    }
}

async fn settings(admin: &Admin, name: &str) -> Seen<HashMap<String, String>> {
    match tokio::time::timeout(ANSWER, admin.settings(name)).await {
        Ok(Ok(settings)) => Ok(settings),
        Ok(Err(AdminError::Refused(why))) => Err(Unseen::failed(
            why,
            format!(
                "kafka-acls.sh --bootstrap-server $KAFKA_BROKERS --add --allow-principal User:NAME \
                 --operation Describe --operation DescribeConfigs --topic {name}"
            ),
        )),
        Ok(Err(error)) => Err(Unseen::failed(error.to_string(), "look at the broker's log")),
        Err(_) => Err(Unseen::failed("no answer", "look at the broker's log")),
    }
}

/// The events topic is there.
pub(super) fn events(looked: &Looked) -> Finding {
    exists(&looked.events)
}

/// The dead letter topic is there.
pub(super) fn dead_letters(looked: &Looked) -> Finding {
    exists(&looked.dead_letter_topic)
}

/// The topic of keys is there.
pub(super) fn access(looked: &Looked) -> Finding {
    exists(&looked.access)
}

/// The settings of the events topic.
pub(super) fn events_settings(looked: &Looked) -> Finding {
    settings_hold(&looked.events)
}

/// The settings of the dead letter topic.
pub(super) fn dead_letter_settings(looked: &Looked) -> Finding {
    settings_hold(&looked.dead_letter_topic)
}

/// The settings of the topic of keys.
pub(super) fn access_settings(looked: &Looked) -> Finding {
    settings_hold(&looked.access)
}

fn exists(look: &TopicLook) -> Finding {
    let name = &look.spec.name;
    judge(&look.shape, |shape| match shape {
        None => Finding::failed(format!("topic {name} does not exist"), "leads-consumer topics"),
        Some(shape) if !shape.leaderless.is_empty() => Finding::failed(
            format!("topic {name}: partitions {:?} have no leader", shape.leaderless),
            "start the brokers that hold them: kafka-topics.sh --bootstrap-server $KAFKA_BROKERS \
             --describe --unavailable-partitions",
        ),
        Some(shape) => Finding::ok(format!("{name}: {} partitions", shape.partitions)),
    })
}

fn settings_hold(look: &TopicLook) -> Finding {
    let TopicLook { spec, settings, .. } = look;
    judge(settings, |settings| {
        let violations = spec.violations(settings);
        if violations.is_empty() {
            let rules: Vec<_> = spec
                .rules
                .iter()
                .map(|rule| format!("{}={}", rule.setting, settings[rule.setting]))
                .collect();
            return Finding::ok(rules.join(", "));
        }
        let problems: Vec<_> = violations.iter().map(topic::Violation::problem).collect();
        let found = format!("topic {}: {}", spec.name, problems.join("; "));
        Finding::failed(found, topic::mend(&spec.name, &violations))
    })
}

/// A broker may be lost without losing the log, and without refusing what comes.
pub(super) fn replication(looked: &Looked) -> Finding {
    let looks = [&looked.events, &looked.dead_letter_topic, &looked.access];
    let findings = looks.map(replicas);
    let worst = |wanted: super::Verdict| findings.iter().find(|it| it.verdict == wanted).cloned();
    worst(super::Verdict::Failed)
        .or_else(|| worst(super::Verdict::Warning))
        .or_else(|| worst(super::Verdict::Skipped))
        .unwrap_or_else(|| findings[0].clone())
}

fn replicas(look: &TopicLook) -> Finding {
    let name = &look.spec.name;
    judge_both(&look.shape, &look.settings, |shape, settings| {
        let Some(shape) = shape else { return Finding::skipped("there is no such topic") };
        let least = settings.get(MIN_IN_SYNC).and_then(|value| value.parse().ok());
        judge_replicas(name, shape, least.unwrap_or(1))
    })
}

/// `least` is `min.insync.replicas`.
fn judge_replicas(name: &str, shape: &Shape, least: usize) -> Finding {
    let Shape { replicas, in_sync, .. } = *shape;
    let set = |value: usize| {
        format!(
            "kafka-configs.sh --bootstrap-server $KAFKA_BROKERS --alter --entity-type topics \
             --entity-name {name} --add-config {MIN_IN_SYNC}={value}"
        )
    };
    if replicas < least {
        let found = format!(
            "topic {name} has {replicas} replicas and {MIN_IN_SYNC}={least}: every write is refused"
        );
        return Finding::failed(found, set(replicas));
    }
    if in_sync < least {
        let found = format!(
            "topic {name} has {in_sync} replicas in sync and {MIN_IN_SYNC}={least}: writes are \
             refused"
        );
        let fix = "start the brokers that are missing: kafka-topics.sh --bootstrap-server \
                   $KAFKA_BROKERS --describe --under-min-isr-partitions";
        return Finding::failed(found, fix);
    }
    match (replicas, least) {
        (1, _) => Finding::warning(
            format!("topic {name} has one replica: with its disk the log is lost"),
            "in production three: kafka-reassign-partitions.sh --bootstrap-server $KAFKA_BROKERS",
        ),
        (_, 1) => Finding::warning(
            format!(
                "topic {name} has {replicas} replicas and {MIN_IN_SYNC}=1: what one broker alone \
                 has acknowledged may be lost with it"
            ),
            set(2),
        ),
        _ => Finding::ok(format!("{replicas} replicas, {MIN_IN_SYNC}={least}")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn replicas_are_judged_by_what_a_lost_broker_costs() {
        for (replicas, in_sync, least, verdict, word) in [
            (3, 3, 2, Verdict::Ok, "3 replicas"),
            (3, 1, 2, Verdict::Failed, "in sync"),
            (1, 1, 2, Verdict::Failed, "every write"),
            (3, 3, 1, Verdict::Warning, "one broker alone"),
            (1, 1, 1, Verdict::Warning, "one replica"),
        ] {
            let shape = Shape { partitions: 1, leaderless: vec![], replicas, in_sync };
            let finding = judge_replicas("t", &shape, least);
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert!(finding.found.contains(word), "{finding:?}");
        }
    }
}
