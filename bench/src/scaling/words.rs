//! Figures as a reader wants them.

use crate::report::whole;

/// As many digits as mean something.
fn short(value: f64) -> String {
    match value {
        ..0.095 => format!("{value:.2}"),
        ..9.95 => format!("{value:.1}"),
        _ => whole(value),
    }
}

pub(crate) fn micros(value: f64) -> String {
    format!("{value:.1} µs")
}

/// Decimal units.
pub(crate) fn bytes(value: f64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = value;
    let mut units = UNITS.iter();
    let mut unit = units.next();
    while value >= 1_000.0 {
        let Some(larger) = units.next() else { break };
        unit = Some(larger);
        value /= 1_000.0;
    }
    match unit {
        Some(&"B") | None => format!("{} B", whole(value)),
        Some(unit) => format!("{} {unit}", short(value)),
    }
}

/// Bytes a second as bits a second.
pub(crate) fn bits(value: f64) -> String {
    let megabits = value * 8.0 / 1e6;
    if megabits < 1_000.0 {
        format!("{} Mbit/s", whole(megabits))
    } else {
        format!("{} Gbit/s", short(megabits / 1_000.0))
    }
}

pub(crate) fn span(seconds: f64) -> String {
    const UNITS: [(&str, f64); 4] =
        [("years", 365.0 * 86_400.0), ("days", 86_400.0), ("h", 3_600.0), ("min", 60.0)];
    let found = UNITS.iter().find(|(_, unit)| seconds >= 2.0 * unit);
    let (name, unit) = found.copied().unwrap_or(("s", 1.0));
    format!("{} {name}", short(seconds / unit))
}

/// Leads: 1,000,000 as `1 M`.
pub(crate) fn leads(value: f64) -> String {
    const UNITS: [(&str, f64); 4] = [("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)];
    let found = UNITS.iter().find(|(_, unit)| value >= *unit);
    match found {
        Some((name, unit)) => {
            let text = format!("{:.1}", value / unit);
            format!("{} {name}", text.strip_suffix(".0").unwrap_or(&text))
        }
        None => whole(value),
    }
}

/// Cores.
pub(crate) fn cores(value: f64) -> String {
    short(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_fit() {
        assert_eq!((bytes(749.0), bytes(1.5e13)), ("749 B".to_owned(), "15 TB".to_owned()));
        assert_eq!((bits(4.4e6), bits(4.4e8)), ("35 Mbit/s".to_owned(), "3.5 Gbit/s".to_owned()));
        assert_eq!((span(90.0), span(7_200.0)), ("90 s".to_owned(), "2.0 h".to_owned()));
        assert_eq!((leads(1e8), leads(3.15e12)), ("100 M".to_owned(), "3.1 T".to_owned()));
    }
}
