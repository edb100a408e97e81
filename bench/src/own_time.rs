//! The time that the service itself takes for a request, without the wait for the broker: its
//! histogram `leads_request_own_seconds`, before and after.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::http::{Connection, Url};

const NAME: &str = "leads_request_own_seconds";

/// By route.
pub(crate) type OwnTime = BTreeMap<String, Own>;

/// Own times of a route. A histogram of buckets tells between which bounds a quantile lies; what is
/// given is the upper one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Own {
    pub(crate) count: u64,
    pub(crate) mean_micros: f64,
    /// None: above the largest bound.
    pub(crate) p50_at_most_micros: Option<f64>,
    pub(crate) p99_at_most_micros: Option<f64>,
    pub(crate) p999_at_most_micros: Option<f64>,
    /// How many of them took a millisecond at most.
    pub(crate) within_a_millisecond: u64,
}

/// Where the service's figures are.
#[derive(Debug, Clone)]
pub(crate) struct Probe(Url);

/// What a histogram holds, by route.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Counts(BTreeMap<String, Route>);

#[derive(Debug, Clone, Default, PartialEq)]
struct Route {
    /// Upper bound in seconds, and how many are at or below it.
    buckets: Vec<(f64, u64)>,
    count: u64,
    seconds: f64,
}

impl Probe {
    /// `http://host:port/metrics`
    pub(crate) fn new(url: &str) -> Result<Self> {
        Ok(Self(Url::parse(url)?))
    }

    pub(crate) async fn ask(&self) -> Result<Counts> {
        let Self(url) = self;
        let request = url.request("GET", &url.path, &[], None);
        let mut connection = Connection::new(url.address);
        let answer = connection.exchange(&request).await;
        let answer = answer.with_context(|| format!("metrics at {}", url.authority))?;
        ensure!(answer.status == 200, "metrics at {}: {}", url.authority, answer.status);
        Counts::parse(std::str::from_utf8(answer.body)?)
    }
}

impl Counts {
    /// Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>, text format.
    fn parse(text: &str) -> Result<Self> {
        let mut routes = BTreeMap::<String, Route>::new();
        let ours = text.lines().filter_map(|line| line.strip_prefix(NAME));
        for line in ours {
            let parts = line.split_once('{').and_then(|(what, rest)| {
                let (labels, value) = rest.rsplit_once("} ")?;
                Some((what, labels, value.trim()))
            });
            let (what, labels, value) = parts.with_context(|| format!("{NAME}{line}"))?;
            let route = label(labels, "route").unwrap_or_default();
            let route = routes.entry(route.to_owned()).or_default();
            match (what, label(labels, "le")) {
                ("_count", _) => route.count = value.parse()?,
                ("_sum", _) => route.seconds = value.parse()?,
                ("_bucket", Some("+Inf")) => {}
                ("_bucket", Some(bound)) => route.buckets.push((bound.parse()?, value.parse()?)),
                _ => {}
            }
        }
        for route in routes.values_mut() {
            route.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Ok(Self(routes))
    }

    /// What came after `before`.
    pub(crate) fn since(&self, before: &Self) -> OwnTime {
        let none = Route::default();
        let routes = self.0.iter().map(|(name, now)| {
            let then = before.0.get(name).unwrap_or(&none);
            (name.clone(), now.since(then))
        });
        routes.filter(|(_, own)| own.count > 0).collect()
    }
}

impl Route {
    #[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn since(&self, before: &Self) -> Own {
        let earlier = |bound: f64| {
            let same = before.buckets.iter().find(|(b, _)| b.total_cmp(&bound).is_eq());
            same.map_or(0, |(_, count)| *count)
        };
        let buckets: Vec<(f64, u64)> = self
            .buckets
            .iter()
            .map(|(bound, count)| (bound * 1e6, count.saturating_sub(earlier(*bound))))
            .collect();
        let count = self.count.saturating_sub(before.count);
        let at_most = |share: f64| {
            let wanted = share * count as f64;
            buckets.iter().find(|(_, below)| *below as f64 >= wanted).map(|(bound, _)| *bound)
        };
        let millisecond = buckets.iter().rev().find(|(bound, _)| *bound <= 1_000.5);
        Own {
            count,
            mean_micros: (self.seconds - before.seconds) * 1e6 / count.max(1) as f64,
            p50_at_most_micros: at_most(0.5),
            p99_at_most_micros: at_most(0.99),
            p999_at_most_micros: at_most(0.999),
            within_a_millisecond: millisecond.map_or(0, |(_, below)| *below),
        }
    }
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    // Our labels hold neither commas nor quotes.
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(low: u64, middle: u64, all: u64, sum: f64) -> String {
        let route = r#"route="/api/v1/leads""#;
        format!(
            "# TYPE {NAME} histogram\n\
             {NAME}_bucket{{{route},le=\"0.0001\"}} {low}\n\
             {NAME}_bucket{{{route},le=\"0.001\"}} {middle}\n\
             {NAME}_bucket{{{route},le=\"+Inf\"}} {all}\n\
             {NAME}_sum{{{route}}} {sum}\n\
             {NAME}_count{{{route}}} {all}\n\
             leads_publish_seconds_count 3\n"
        )
    }

    #[test]
    fn tells_what_came_between_two_looks() {
        let before = Counts::parse(&text(10, 10, 20, 5.0)).unwrap();
        let after = Counts::parse(&text(90, 109, 120, 5.01)).unwrap();
        let own = &after.since(&before)["/api/v1/leads"];
        assert_eq!((own.count, own.within_a_millisecond), (100, 99));
        assert!((own.mean_micros - 100.0).abs() < 1e-6, "{own:?}");
        assert!((own.p50_at_most_micros.unwrap() - 100.0).abs() < 1e-6, "{own:?}");
        assert!((own.p99_at_most_micros.unwrap() - 1_000.0).abs() < 1e-6, "{own:?}");
        assert_eq!(own.p999_at_most_micros, None);
        assert!(after.since(&after).is_empty());
    }

    #[test]
    fn a_service_without_the_figure_has_none() {
        let none = Counts::parse("leads_publish_seconds_count 3\n").unwrap();
        assert!(none.since(&Counts::default()).is_empty());
        assert!(Counts::parse(&format!("{NAME}_count{{route=\"x\"}} many\n")).is_err());
    }
}
