//! What valid JSON may still hold that PostgreSQL's `jsonb` refuses.
//!
//! `jsonb` refuses `\u0000` and lone surrogates, and reads numbers as `numeric`. The text has passed
//! `serde_json`'s grammar before it comes here, so the scan only looks for what the grammar allows.

use super::{FieldCode, MAX_DEPTH, MAX_DIGITS};

/// What was found, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: FieldCode,
    /// Byte offset in the text.
    pub(super) at: usize,
}

/// Looks through `text`, a grammatical JSON value that stands inside `depth` objects or arrays.
pub(super) fn scan(text: &str, mut depth: usize) -> Result<(), Fault> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at + 1)?,
            b'{' | b'[' => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Fault { code: FieldCode::NestingTooDeep, at });
                }
                at += 1;
            }
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            b'-' | b'0'..=b'9' => {
                let end = bytes[at..].iter().position(|b| !is_number_byte(*b));
                let end = end.map_or(bytes.len(), |length| at + length);
                if !number_fits(&bytes[at..end]) {
                    return Err(Fault { code: FieldCode::NumberOutOfRange, at });
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    Ok(())
}

/// The offset behind the closing quote of the string whose contents start at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> Result<usize, Fault> {
    // The grammar was checked: there is a closing quote, and every escape is whole.
    while let Some(skip) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += skip;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        if bytes.get(at + 1) != Some(&b'u') {
            at += 2;
            continue;
        }
        let fault = |code| Err(Fault { code, at });
        at += match code_unit(bytes, at) {
            Some(0) => return fault(FieldCode::NulCharacter),
            Some(0xD800..=0xDBFF) => match code_unit(bytes, at + 6) {
                Some(0xDC00..=0xDFFF) => 12,
                _ => return fault(FieldCode::LoneSurrogate),
            },
            Some(0xDC00..=0xDFFF) => return fault(FieldCode::LoneSurrogate),
            Some(_) | None => 6,
        };
    }
    Ok(bytes.len())
}

/// The UTF-16 code unit of the escape `\uXXXX` at `at`, if one stands there.
fn code_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

/// Whether a grammatical JSON number, written out without an exponent, has at most [`MAX_DIGITS`].
fn number_fits(number: &[u8]) -> bool {
    let (mantissa, exponent) = match memchr::memchr2(b'e', b'E', number) {
        Some(at) => (&number[..at], exponent_of(&number[at + 1..])),
        None => (number, 0),
    };
    if exponent == 0 {
        return mantissa.len() <= MAX_DIGITS
            || mantissa.iter().filter(|byte| byte.is_ascii_digit()).count() <= MAX_DIGITS;
    }
    let point = memchr::memchr(b'.', mantissa).unwrap_or(mantissa.len());
    let sign = usize::from(mantissa.first() == Some(&b'-'));
    // Both fit: a body has less than 2^31 bytes, and the exponent is cut to ±10^6.
    let before = i64::try_from(point - sign).unwrap_or(i64::MAX);
    let after = i64::try_from(mantissa.len().saturating_sub(point + 1)).unwrap_or(i64::MAX);
    let digits = (before + exponent).max(1) + (after - exponent).max(0);
    digits <= i64::try_from(MAX_DIGITS).unwrap_or(i64::MAX)
}

/// The exponent, cut to ±10^6: further out, no body is long enough to bring the number back.
fn exponent_of(text: &[u8]) -> i64 {
    const FAR: i64 = 1_000_000;
    let negative = text.first() == Some(&b'-');
    let digits = text.strip_prefix(b"-").or_else(|| text.strip_prefix(b"+")).unwrap_or(text);
    let magnitude = digits
        .iter()
        .fold(0, |value: i64, digit| (value * 10 + i64::from(digit.wrapping_sub(b'0'))).min(FAR));
    if negative { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> Option<FieldCode> {
        scan(text, 0).err().map(|fault| fault.code)
    }

    #[test]
    fn finds_what_jsonb_refuses() {
        use FieldCode::{LoneSurrogate, NulCharacter, NumberOutOfRange};
        for (text, expected) in [
            (r#"{"a":"\u0000"}"#, NulCharacter),
            (r#"{"\u0000":1}"#, NulCharacter),
            (r#""\ud800""#, LoneSurrogate),
            (r#""\udc00""#, LoneSurrogate),
            (r#""\ud800\ud800""#, LoneSurrogate),
            (r#""\ud800x""#, LoneSurrogate),
            (r#""\ud83d\n""#, LoneSurrogate),
            ("1e400000", NumberOutOfRange),
            ("-1E+99999999999999999999999", NumberOutOfRange),
            ("1e-1000", NumberOutOfRange),
            ("[1,2,1e1000]", NumberOutOfRange),
            ("0e1000", NumberOutOfRange),
        ] {
            assert_eq!(code(text), Some(expected), "{text}");
        }
        assert_eq!(code(&"9".repeat(MAX_DIGITS + 1)), Some(NumberOutOfRange));
    }

    #[test]
    fn lets_the_rest_through() {
        for text in [
            r#"{"":"😀 \ud83d\ude00 \\u0000 \" é","n":[12345678901234567890,-0.5e-3,1e999]}"#,
            r#""\\""#,
            "1e-999",
            "-0",
            "1.5e3",
        ] {
            assert_eq!(code(text), None, "{text}");
        }
        assert_eq!(code(&format!("-0.{}", "9".repeat(MAX_DIGITS - 1))), None);
    }

    #[test]
    fn counts_depth_from_where_it_stands() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(scan(&nested(MAX_DEPTH), 0), Ok(()));
        assert_eq!(code(&nested(MAX_DEPTH + 1)), Some(FieldCode::NestingTooDeep));
        assert!(scan(&nested(MAX_DEPTH), 1).is_err());
    }
}
