//! Tables in Markdown, and figures in them.

use crate::cpu::Used;

/// Rows of cells as a Markdown table, its columns padded so that it reads on a terminal too.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..head.len())
        .map(|column| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
                .max(head[column].chars().count())
        })
        .collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let cells: Vec<_> = cells.collect();
        format!("| {} |\n", cells.join(" | "))
    };
    // The first column is text, the others are figures.
    let pad = |(column, cell): (usize, &str)| {
        let width = widths[column];
        if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    let mut text = line(&mut head.iter().copied().enumerate().map(pad));
    text += &line(&mut widths.iter().enumerate().map(|(column, width)| {
        if column == 0 { "-".repeat(*width) } else { "-".repeat(width - 1) + ":" }
    }));
    for row in rows {
        text += &line(&mut row.iter().map(String::as_str).enumerate().map(pad));
    }
    text
}

/// 1234567.8 as `1,234,568`.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    format!("{sign}{}", groups.join(","))
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn count(value: u64) -> String {
    whole(value as f64)
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn each(total: u64, units: u64) -> String {
    format!("{:.1}", total as f64 / units.max(1) as f64)
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn millis(micros: u64) -> String {
    let value = micros as f64 / 1_000.0;
    if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

#[allow(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(crate) fn mib(kib: u64) -> String {
    format!("{:.0}", kib as f64 / 1024.0)
}

/// `name 12.3` for each process.
pub(crate) fn uses(processes: &[Used], each_of: impl Fn(&Used) -> String) -> String {
    let texts: Vec<_> =
        processes.iter().map(|used| format!("{} {}", used.name, each_of(used))).collect();
    if texts.is_empty() { "–".to_owned() } else { texts.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_line_up() {
        let rows =
            [vec!["a".to_owned(), "1,000".to_owned()], vec!["höher".to_owned(), "2".to_owned()]];
        let expected =
            "| what  |     n |\n| ----- | ----: |\n| a     | 1,000 |\n| höher |     2 |\n";
        assert_eq!(table(&["what", "n"], &rows), expected);
    }

    #[test]
    fn groups_digits() {
        assert_eq!((whole(999.4), whole(1_234_567.8)), ("999".to_owned(), "1,234,568".to_owned()));
        assert_eq!(count(1_000), "1,000");
    }
}
