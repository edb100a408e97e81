//! A status as text for a terminal.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use super::report::{DeadLetterStatus, GenerationStatus, PartitionStatus, Status};

/// The status in lines of a label and what is known; what is wrong comes last.
pub fn text(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(&mut out, status);
    out
}

fn write(out: &mut String, status: &Status) -> std::fmt::Result {
    writeln!(out, "{} at {}", status.topic, status.at)?;
    for (name, server) in [("kafka", &status.kafka), ("postgres", &status.postgres)] {
        writeln!(out, "{name:<12} {}", server.error.as_deref().unwrap_or("up"))?;
    }
    writeln!(out, "{:<12} {}", "lag", lag(status))?;
    writeln!(out, "{:<12} {}", "rate", rate(status.events_per_second))?;
    for generation in &status.generations {
        writeln!(out, "{:<12} {}", "generation", describe(generation))?;
    }
    if let Some(letters) = &status.dead_letters {
        writeln!(out, "{:<12} {}", "dead letters", waiting(letters))?;
    }
    let group = &status.group;
    let state = group.state.as_deref().unwrap_or("not known");
    writeln!(out, "{:<12} {}: {state}, {} members", "group", group.name, group.members.len())?;
    for member in &group.members {
        let partitions = list(&member.partitions);
        writeln!(out, "{:<12} {} at {}: {partitions}", "", member.client, member.host)?;
    }
    table(out, status)?;
    if status.healthy {
        return writeln!(out, "healthy");
    }
    writeln!(out, "not healthy:")?;
    for problem in &status.problems {
        writeln!(out, "  {}; next: {}", problem.problem, problem.next)?;
    }
    Ok(())
}

fn lag(status: &Status) -> String {
    match (status.lag_records, status.lag_seconds) {
        (None, _) => "not known".to_owned(),
        (Some(0), _) => "none".to_owned(),
        (Some(records), None) => format!("{records} records"),
        (Some(records), Some(age)) => format!("{records} records, the oldest {}", span(age)),
    }
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "not known".to_owned(), |rate| format!("{rate:.0} events/s"))
}

fn describe(generation: &GenerationStatus) -> String {
    let GenerationStatus {
        generation,
        state,
        created_at,
        live_since,
        builder,
        abandoned,
        progress,
    } = generation;
    match state.as_str() {
        "live" => match live_since {
            Some(since) => format!("{generation} live since {since}"),
            None => format!("{generation} live"),
        },
        "building" => {
            let builder = builder.as_deref().unwrap_or("nobody");
            let done = progress
                .map_or_else(String::new, |progress| format!(", {:.1} % done", progress * 100.0));
            let gone = if *abandoned { ": its process is gone, start it again" } else { "" };
            format!("{generation} building since {created_at} by {builder}{done}{gone}")
        }
        _ => format!("{generation} {state}, kept for rollback"),
    }
}

fn waiting(letters: &DeadLetterStatus) -> String {
    let mut line = format!("{} waiting", letters.waiting);
    for reason in &letters.reasons {
        let age = span(reason.oldest_seconds);
        // Writing to a String cannot fail.
        let _ = write!(line, ", {} {} (oldest {age})", reason.waiting, reason.reason);
    }
    if letters.pending_export > 0 {
        let _ = write!(line, "; {} to export", letters.pending_export);
    }
    line
}

fn list(partitions: &[i32]) -> String {
    if partitions.is_empty() {
        return "no partition".to_owned();
    }
    let texts: Vec<_> = partitions.iter().map(ToString::to_string).collect();
    format!("partitions {}", texts.join(" "))
}

fn table(out: &mut String, status: &Status) -> std::fmt::Result {
    if status.partitions.is_empty() {
        return Ok(());
    }
    let hosts: BTreeMap<&str, &str> =
        status.group.members.iter().map(|it| (it.id.as_str(), it.host.as_str())).collect();
    writeln!(
        out,
        "{:>9} {:>12} {:>12} {:>9} {:>9}  owner",
        "partition", "next offset", "log end", "lag", "age"
    )?;
    for partition in &status.partitions {
        let PartitionStatus { next_offset, log_end, lag_records, lag_seconds, owner, .. } =
            partition;
        let owner = owner.as_deref().map_or("-", |id| hosts.get(id).copied().unwrap_or(id));
        let sealed = if partition.sealed == Some(true) { " sealed" } else { "" };
        writeln!(
            out,
            "{:>9} {:>12} {:>12} {:>9} {:>9}  {owner}{sealed}",
            partition.partition,
            known(next_offset.as_ref()),
            known(log_end.as_ref()),
            known(lag_records.as_ref()),
            lag_seconds.map_or_else(|| "-".to_owned(), span),
        )?;
    }
    Ok(())
}

fn known(value: Option<&impl Display>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

/// A time span, in the unit that suits it.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

#[cfg(test)]
mod tests {
    use super::span;

    #[test]
    fn spans_read_well() {
        let texts = [0.04, 9.9, 59.6, 600.0, 86_400.0, 1e6].map(span);
        assert_eq!(texts, ["0.0 s", "9.9 s", "60 s", "10 min", "24 h", "12 days"]);
    }
}
