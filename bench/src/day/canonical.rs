//! One text for all JSON of equal value: what `jsonb` may write differently is written the same.
//!
//! `jsonb` orders keys, keeps the last of duplicate ones, drops white space, and writes numbers as
//! `numeric` does (`1e2` → `100`). Numbers are compared as exact decimals: an `f64` would take
//! 12345678901234567890 and 12345678901234567891 for the same.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::value::RawValue;

/// The canonical text of a JSON value.
pub(super) fn canonical(json: &str) -> Result<String> {
    let mut text = String::with_capacity(json.len());
    write(serde_json::from_str::<&RawValue>(json)?.get(), &mut text)?;
    Ok(text)
}

fn write(json: &str, out: &mut String) -> Result<()> {
    match json.as_bytes().first().context("an empty value")? {
        b'{' => {
            // The last of duplicate keys wins, as in `jsonb`.
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json)?;
            out.push('{');
            for (name, value) in fields {
                out.push_str(&serde_json::to_string(&name)?);
                out.push(':');
                write(value.get(), out)?;
                out.push(',');
            }
            out.push('}');
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json)?;
            out.push('[');
            for item in items {
                write(item.get(), out)?;
                out.push(',');
            }
            out.push(']');
        }
        b'"' => out.push_str(&serde_json::to_string(&serde_json::from_str::<String>(json)?)?),
        b't' | b'f' | b'n' => out.push_str(json),
        _ => out.push_str(&decimal(json)?),
    }
    Ok(())
}

/// A grammatical JSON number as digits without zeros at either end, and the power of ten of the
/// last one: `-0.0120` is `-12e-3`.
fn decimal(number: &str) -> Result<String> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>()?),
        None => (number, 0),
    };
    let (sign, unsigned) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let (before, after) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{before}{after}");
    let significant = digits.trim_end_matches('0');
    let cut = digits.len() - significant.len();
    let power = exponent - i64::try_from(after.len())? + i64::try_from(cut)?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        // `numeric` has no negative zero.
        return Ok("0".to_owned());
    }
    Ok(format!("{sign}{significant}e{power}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        canonical(a).unwrap() == canonical(b).unwrap()
    }

    #[test]
    fn equal_values_have_one_text() {
        for (a, b) in [
            (r#"{"b":1,"a":[1,2]}"#, r#" { "a" : [ 1.0 , 20e-1 ] , "b" : 1E0 } "#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#""\u00e9\/\ud83d\ude00""#, "\"é/😀\""),
            ("1e2", "100"),
            ("-0.0", "0"),
            ("0e5", "0"),
            ("0.10", "1E-1"),
            ("12345678901234567890.500", "123456789012345678905e-1"),
            (r#"{"":{"":null}}"#, r#"{"":{"":null}}"#),
        ] {
            assert!(same(a, b), "{a} {b}");
        }
    }

    #[test]
    fn different_values_differ() {
        for (a, b) in [
            ("12345678901234567890", "12345678901234567891"),
            ("0.1", "0.10000000000000000001"),
            ("1", "\"1\""),
            ("-1", "1"),
            ("10", "1"),
            ("[1,2]", "[2,1]"),
            ("[[1],2]", "[[1,2]]"),
            (r#"{"a":null}"#, "{}"),
            (r#"["a","b"]"#, r#"["a,b"]"#),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert!(canonical("{").is_err());
    }

    #[test]
    fn takes_the_deepest_that_is_accepted() {
        let deep = "[".repeat(64) + &"]".repeat(64);
        assert!(canonical(&deep).is_ok());
    }
}
