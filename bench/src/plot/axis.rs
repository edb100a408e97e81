//! Axes: where they begin and end, and where they are labelled.

/// An axis in the plot's own coordinates, with what stands at its ticks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Axis {
    pub(crate) label: String,
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) ticks: Vec<(f64, String)>,
}

/// Ticks of a linear axis, at most.
const TICKS: f64 = 6.0;

impl Axis {
    /// From 0 to a round number from `largest` on.
    pub(crate) fn linear(label: &str, largest: f64) -> Self {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let step = round_step(largest / TICKS);
        let steps = (largest / step).ceil();
        let ticks = counted(0.0, steps).map(|n| (n * step, number(n * step))).collect();
        Self { label: label.to_owned(), from: 0.0, to: steps * step, ticks }
    }

    /// The same, ending at `largest` itself.
    pub(crate) fn linear_to(label: &str, largest: f64) -> Self {
        let mut axis = Self::linear(label, largest);
        axis.to = largest;
        axis.ticks.retain(|(at, _)| *at <= largest);
        axis
    }

    /// Logarithms to base 10, whole decades labelled and 2 and 5 between them.
    pub(crate) fn logarithmic(label: &str, smallest: f64, largest: f64) -> Self {
        let smallest = smallest.max(1e-6);
        let (from, to) = (smallest.log10(), largest.max(smallest * 2.0).log10());
        let decades = counted(from.floor(), to.ceil());
        let all: Vec<(f64, f64)> = decades
            .flat_map(|decade| [1.0, 2.0, 5.0].map(|n: f64| n * 10_f64.powf(decade)))
            .map(|value| (value.log10(), value))
            .collect();
        // The ticks just outside are the ends.
        let below = all.iter().rev().find(|(at, _)| *at <= from + 1e-9);
        let above = all.iter().find(|(at, _)| *at >= to - 1e-9);
        let from = below.map_or(from, |(at, _)| *at);
        let to = above.map_or(to, |(at, _)| *at);
        let ticks = all.iter().filter(|(at, _)| (from - 1e-9..=to + 1e-9).contains(at));
        Self {
            label: label.to_owned(),
            from,
            to,
            ticks: ticks.map(|(at, value)| (*at, number(*value))).collect(),
        }
    }

    /// A few names, at 0, 1, 2 …
    pub(crate) fn names(label: &str, names: impl Iterator<Item = String>) -> Self {
        let ticks: Vec<_> = counted(0.0, 1e3).zip(names).collect();
        let to = ticks.last().map_or(0.0, |(at, _)| *at) + 0.5;
        Self { label: label.to_owned(), from: -0.5, to, ticks }
    }

    /// Shares of 1 by how rare the rest is: 0, 90 %, 99 %, 99.9 % are as far from each other.
    pub(crate) fn shares(label: &str, rarest: f64) -> Self {
        let nines = (rarest + 1e-9).floor().clamp(1.0, 6.0);
        let ticks = counted(0.0, nines).map(|n| {
            // The precision is that of the nines: 99.9 has one digit behind the point.
            let digits = if n > 2.0 { n - 2.0 } else { 0.0 };
            (n, format!("{:.*} %", whole_number(digits), 100.0 * (1.0 - 10_f64.powf(-n))))
        });
        Self { label: label.to_owned(), from: 0.0, to: rarest.max(1.0), ticks: ticks.collect() }
    }

    /// What stands at this place.
    pub(crate) fn text_at(&self, place: f64) -> String {
        let near = |at: f64| (at - place).abs() < (self.to - self.from) * 1e-6;
        let tick = self.ticks.iter().find(|(at, _)| near(*at));
        tick.map(|(_, text)| text.clone()).unwrap_or_default()
    }
}

/// Where a share stands on the axis of [`Axis::shares`].
pub(crate) fn rarity(share: f64) -> f64 {
    -(1.0 - share).max(1e-9).log10()
}

/// from, from + 1, … to
fn counted(from: f64, to: f64) -> impl Iterator<Item = f64> {
    std::iter::successors(Some(from), |n| Some(n + 1.0)).take_while(move |n| *n <= to + 1e-9)
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few digits")]
fn whole_number(value: f64) -> usize {
    value as usize
}

/// The next of 1, 2, 5, 10, … from `least` on.
fn round_step(least: f64) -> f64 {
    let decade = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|n| n * decade);
    steps.into_iter().find(|step| *step >= least * 0.999_999).unwrap_or(decade * 10.0)
}

/// As short as it gets: 0.5, 20, 1,500, 2M.
fn number(value: f64) -> String {
    if value >= 1e6 {
        format!("{}M", trimmed(value / 1e6))
    } else if value >= 1_000.0 {
        crate::report::whole(value)
    } else {
        trimmed(value)
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, text)| text.as_str()).collect()
    }

    #[test]
    fn a_linear_axis_ends_at_a_round_number() {
        let axis = Axis::linear("MiB", 53.0);
        assert_eq!(texts(&axis), ["0", "10", "20", "30", "40", "50", "60"]);
        assert_eq!(texts(&Axis::linear("", 90_987.0)).last(), Some(&"100,000"));
        assert_eq!(texts(&Axis::linear("", 0.9)).last(), Some(&"1"));
        assert_eq!(texts(&Axis::linear("", 0.0)).first(), Some(&"0"));
        assert_eq!(Axis::linear_to("s", 53.0).ticks.len(), 6);
    }

    #[test]
    fn a_logarithmic_axis_holds_all_values() {
        let axis = Axis::logarithmic("ms", 0.73, 34.0);
        assert_eq!(texts(&axis), ["0.5", "1", "2", "5", "10", "20", "50"]);
        assert!(axis.from <= 0.73_f64.log10() && axis.to >= 34_f64.log10());
        let same = Axis::logarithmic("ms", 1.0, 1.0);
        assert!(same.to > same.from, "{same:?}");
    }

    #[test]
    fn shares_are_told_by_their_nines() {
        let axis = Axis::shares("", rarity(0.9999));
        assert_eq!(texts(&axis), ["0 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert!((rarity(0.99) - 2.0).abs() < 1e-9);
        assert!(rarity(1.0).is_finite());
    }

    #[test]
    fn names_stand_at_their_places() {
        let axis = Axis::names("connections", ["8", "64"].map(str::to_owned).into_iter());
        assert_eq!((axis.text_at(1.0), axis.text_at(0.4)), ("64".to_owned(), String::new()));
        assert!((axis.from + 0.5).abs() < 1e-9 && (axis.to - 1.5).abs() < 1e-9);
    }
}
