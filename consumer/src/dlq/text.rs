//! How values are shown to people: nothing in them reaches the terminal as a control character.

use std::fmt::Write as _;
use std::time::Duration;

/// The two largest units of a time.
pub(super) fn age(seconds: i64) -> String {
    let age = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let text = humantime::format_duration(age).to_string();
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// Rows under their headings, the last column as wide as it gets.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let line = |cells: [&str; N], text: &mut String| {
        let mut line = String::new();
        for (cell, width) in cells.into_iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    };
    line(headings, &mut text);
    for row in rows {
        line(row.each_ref().map(String::as_str), &mut text);
    }
    text
}

/// Bytes as text when they are, or as a dump.
pub(super) fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        Ok(_) | Err(_) => dump(bytes),
    }
}

/// Sixteen bytes a line: offset, hexadecimal, ASCII.
fn dump(bytes: &[u8]) -> String {
    let lines = bytes.chunks(16).enumerate().map(|(line, bytes)| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let ascii: String = bytes
            .iter()
            .map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' })
            .collect();
        format!("{:08x}  {:47}  {ascii}", line * 16, hex.join(" "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The text of a JSON value, if it is one.
pub(super) fn json(bytes: &[u8]) -> Option<&str> {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).ok()?;
    std::str::from_utf8(bytes).ok()
}

/// JSON with a line for each member. Works on the text: numbers and doubled names stay as they are,
/// which is often what one came to see.
pub(super) fn pretty(json: &str) -> String {
    let (mut out, mut depth, mut in_string, mut escaped) = (String::new(), 0, false, false);
    let mut open = false;
    for c in json.chars() {
        if in_string {
            if c.is_control() {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            } else {
                out.push(c);
            }
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
            continue;
        }
        if c.is_whitespace() {
            continue;
        }
        let closes = matches!(c, '}' | ']');
        if closes {
            depth -= 1;
        }
        if open != closes && (open || closes) {
            break_line(&mut out, depth);
        }
        open = matches!(c, '{' | '[');
        in_string = c == '"';
        out.push(c);
        match c {
            '{' | '[' => depth += 1,
            ',' => break_line(&mut out, depth),
            ':' => out.push(' '),
            _ => {}
        }
    }
    out
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    out.extend(std::iter::repeat_n("  ", depth));
}

/// Each line a step to the right.
pub(super) fn indent(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_digits_names_and_escapes() {
        let text = r#"{"a":1.50,"a" : [1e400, {}, []],"s":"x,{\"\\"}"#;
        assert!(json(text.as_bytes()).is_some());
        let expected = "{\n  \"a\": 1.50,\n  \"a\": [\n    1e400,\n    {},\n    []\n  ],\n  \"s\": \"x,{\\\"\\\\\"\n}";
        assert_eq!(pretty(text), expected);
        assert_eq!(pretty("\"\u{9b}\""), "\"\\u009b\"");
        assert!(json(b"{").is_none() && json(b"\xff").is_none());
    }

    #[test]
    fn bytes_that_are_no_text_are_dumped() {
        assert_eq!(bytes(b"key"), "key");
        assert_eq!(
            bytes(b"\x1b[2Jabc\xff"),
            "00000000  1b 5b 32 4a 61 62 63 ff                          .[2Jabc."
        );
        assert_eq!(bytes(&[b'\n'; 17]).lines().count(), 2);
    }

    #[test]
    fn ages_are_short_and_columns_line_up() {
        assert_eq!(age(0), "0s");
        assert_eq!(age(93_784), "1day 2h");
        let rows = [["1:2".to_owned(), "x".to_owned()], ["10:2000".to_owned(), String::new()]];
        assert_eq!(table(["RECORD", "ERROR"], &rows), "RECORD   ERROR\n1:2      x\n10:2000\n");
    }
}
