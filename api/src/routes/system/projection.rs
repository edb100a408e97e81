//! What a look at PostgreSQL and Kafka comes to. Pure.

use std::collections::BTreeSet;

use leads_shared::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::dead_letters::PARKED;
use crate::read_model::{self, Standing};
use crate::system::{Log, Seen};

/// How far the log is projected into the live generation.
#[derive(Serialize, ToSchema)]
pub(super) struct Projection<'a> {
    /// `up`; `unknown` when PostgreSQL or Kafka can't be asked.
    #[schema(example = "up")]
    status: &'static str,
    /// Why something is not known.
    #[schema(required)]
    error: Option<String>,
    /// When PostgreSQL and Kafka were looked at.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    topic: &'a str,
    /// The generation that reads see.
    #[schema(required)]
    generation: Option<i32>,
    /// Records that are not projected yet.
    #[schema(required)]
    lag_records: Option<i64>,
    /// The age of the oldest of them; 0 when there is none.
    #[schema(required)]
    lag_seconds: Option<f64>,
    partitions: Vec<Partition>,
}

/// How far a partition is projected.
#[derive(Serialize, ToSchema)]
struct Partition {
    #[serde(rename = "partition")]
    number: i32,
    /// The offset of the next record to project; null before the first one was.
    #[schema(required)]
    next_offset: Option<i64>,
    /// The offset behind the log's last record.
    #[schema(required)]
    end_offset: Option<i64>,
    #[schema(required)]
    lag_records: Option<i64>,
    #[schema(required)]
    lag_seconds: Option<f64>,
}

/// Records that could not be projected and that no redrive has projected yet.
#[derive(Serialize, ToSchema)]
pub(super) struct DeadLetters<'a> {
    /// All of them.
    waiting: i64,
    /// Those of them that only wait for an earlier one of their lead.
    parked: i64,
    #[schema(required, value_type = Option<String>, format = DateTime)]
    oldest_at: Option<Timestamp>,
    /// The most first.
    by_reason: Vec<ReasonCount<'a>>,
}

#[derive(Serialize, ToSchema)]
struct ReasonCount<'a> {
    #[schema(example = "undecodable")]
    reason: &'a str,
    count: i64,
}

/// A generation that is being built beside the live one.
#[derive(Serialize, ToSchema)]
pub(super) struct Rebuild<'a> {
    generation: i32,
    /// Always `building`.
    #[schema(example = "building")]
    state: &'static str,
    /// Who builds it, as HOST:PID.
    #[schema(required)]
    builder: Option<&'a str>,
    /// Whether that process is gone: the rebuild has to be started again.
    abandoned: bool,
    #[schema(value_type = String, format = DateTime)]
    started_at: Timestamp,
    /// Records that it holds.
    done_records: i64,
    /// Records that the log holds.
    #[schema(required)]
    total_records: Option<i64>,
    /// The difference.
    #[schema(required)]
    lag_records: Option<i64>,
}

impl<'a> Projection<'a> {
    pub(super) fn of(seen: &Seen, topic: &'a str) -> Self {
        let live = seen.model.as_ref().ok().and_then(|model| model.live.as_ref());
        let log = seen.log.as_ref().ok();
        let ends = log.map_or(0, |log| i32::try_from(log.bounds.ends.len()).unwrap_or(i32::MAX));
        let known = live.iter().flat_map(|live| live.next.keys().copied());
        let known: BTreeSet<i32> = (0..ends).chain(known).collect();
        let partitions: Vec<_> =
            known.into_iter().map(|number| Partition::of(number, live, log, seen.at)).collect();
        let errors = [seen.model.as_ref().err(), seen.log.as_ref().err()];
        let errors: Vec<_> = errors.into_iter().flatten().map(String::as_str).collect();
        let both = live.is_some() && log.is_some();
        let lagging = || partitions.iter().filter(|it| it.lag_records != Some(0));
        Self {
            status: if both { "up" } else { "unknown" },
            error: if errors.is_empty() { None } else { Some(errors.join("; ")) },
            at: seen.at,
            topic,
            generation: live.map(|live| live.generation),
            lag_records: both.then(|| partitions.iter().filter_map(|it| it.lag_records).sum()),
            lag_seconds: if both && lagging().next().is_none() {
                Some(0.0)
            } else {
                lagging().filter_map(|it| it.lag_seconds).reduce(f64::max)
            },
            partitions,
        }
    }
}

impl Partition {
    fn of(
        number: i32,
        live: Option<&read_model::Projection>,
        log: Option<&Log>,
        at: Timestamp,
    ) -> Self {
        let next_offset = live.and_then(|live| live.next.get(&number).copied());
        let bound = |bounds: &[i64]| bounds.get(usize::try_from(number).ok()?).copied();
        let start = log.and_then(|log| bound(&log.bounds.starts));
        let end_offset = log.and_then(|log| bound(&log.bounds.ends));
        let lag_records = live.and(start.zip(end_offset)).map(|(start, end)| {
            // Without a row nobody has looked at the partition yet.
            (end - next_offset.unwrap_or(start)).max(0)
        });
        let lag_seconds = match lag_records {
            Some(0) => Some(0.0),
            Some(_) => log.and_then(|log| log.oldest.get(&number)).map(|time| age(*time, at)),
            None => None,
        };
        Self { number, next_offset, end_offset, lag_records, lag_seconds }
    }
}

/// In seconds; a clock that is behind makes it 0.
#[allow(clippy::cast_precision_loss, reason = "milliseconds far below 2^53")]
fn age(unix_millis: i64, at: Timestamp) -> f64 {
    (at.unix_millis() - unix_millis).max(0) as f64 / 1000.0
}

impl<'a> DeadLetters<'a> {
    pub(super) fn of(model: &'a Standing) -> Self {
        let found = &model.dead_letters;
        let parked = found.by_reason.iter().filter(|(reason, _)| reason == PARKED);
        Self {
            waiting: found.by_reason.iter().map(|(_, count)| count).sum(),
            parked: parked.map(|(_, count)| count).sum(),
            oldest_at: found.oldest_at,
            by_reason: found
                .by_reason
                .iter()
                .map(|(reason, count)| ReasonCount { reason, count: *count })
                .collect(),
        }
    }
}

impl<'a> Rebuild<'a> {
    pub(super) fn of(seen: &'a Seen) -> Option<Self> {
        let building = seen.model.as_ref().ok()?.building.as_ref()?;
        // A rebuild needs the whole log: offsets count its records.
        let done_records = building.projection.next.values().sum();
        let total_records = seen.log.as_ref().ok().map(|log| log.bounds.ends.iter().sum::<i64>());
        Some(Self {
            generation: building.projection.generation,
            state: "building",
            builder: building.builder.as_deref(),
            abandoned: building.abandoned,
            started_at: building.started_at,
            done_records,
            total_records,
            lag_records: total_records.map(|total| (total - done_records).max(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;
    use crate::broker::Bounds;

    fn model(next: &[(i32, i64)]) -> Standing {
        let next = next.iter().copied().collect();
        let live = Some(read_model::Projection { generation: 3, next });
        Standing { live, ..Standing::default() }
    }

    fn log(starts: &[i64], ends: &[i64], oldest: &[(i32, i64)]) -> Log {
        let bounds = Bounds { starts: starts.into(), ends: ends.into() };
        Log { bounds, oldest: oldest.iter().copied().collect::<BTreeMap<_, _>>() }
    }

    fn told(model: Result<Standing, String>, log: Result<Log, String>) -> Value {
        let seen = Seen { at: Timestamp::from_unix_millis(10_000).unwrap(), model, log };
        serde_json::to_value(Projection::of(&seen, "t")).unwrap()
    }

    #[test]
    fn lag_is_what_the_log_holds_beyond_the_offsets() {
        let all = told(
            Ok(model(&[(0, 5), (1, 7)])),
            Ok(log(&[0, 0, 4], &[5, 9, 6], &[(1, 8_500), (2, 12_000)])),
        );
        assert_eq!((&all["status"], &all["generation"]), (&json!("up"), &json!(3)));
        assert_eq!((&all["lag_records"], &all["lag_seconds"]), (&json!(4), &json!(1.5)));
        let lags: Vec<_> = all["partitions"].as_array().unwrap().iter().collect();
        let lags: Vec<_> = lags.iter().map(|it| (&it["lag_records"], &it["lag_seconds"])).collect();
        let expected = [(json!(0), json!(0.0)), (json!(2), json!(1.5)), (json!(2), json!(0.0))];
        assert_eq!(lags, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
        assert_eq!(all["partitions"][2]["next_offset"], Value::Null, "nobody was there");
    }

    #[test]
    fn nothing_waits_and_the_age_is_zero() {
        let all = told(Ok(model(&[(0, 5)])), Ok(log(&[0], &[5], &[])));
        assert_eq!((&all["lag_records"], &all["lag_seconds"]), (&json!(0), &json!(0.0)));
        assert_eq!(all["error"], Value::Null);
    }

    #[test]
    fn what_is_not_known_is_null_and_the_cause_is_told() {
        let no_model = told(Err("PostgreSQL is away: x".into()), Ok(log(&[0], &[5], &[])));
        let no_log = told(Ok(model(&[(0, 5)])), Err("Kafka is away".into()));
        let no_time = told(Ok(model(&[(0, 4)])), Ok(log(&[0], &[5], &[])));
        for (told, error, next, end) in [
            (&no_model, json!("PostgreSQL is away: x"), json!(null), json!(5)),
            (&no_log, json!("Kafka is away"), json!(5), json!(null)),
        ] {
            assert_eq!((&told["status"], &told["error"]), (&json!("unknown"), &error));
            assert_eq!((&told["lag_records"], &told["lag_seconds"]), (&json!(null), &json!(null)));
            let partition = &told["partitions"][0];
            assert_eq!((&partition["next_offset"], &partition["end_offset"]), (&next, &end));
        }
        assert_eq!((&no_time["lag_records"], &no_time["lag_seconds"]), (&json!(1), &json!(null)));
    }
}
