//! Points in time as the contract writes them: RFC 3339, UTC, milliseconds, `Z`.

use std::fmt;

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point in time with millisecond resolution, from year 0 to 9999.
///
/// Finer digits are cut when a value is made, so what is published, stored and answered is the
/// same to the digit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(DateTime<Utc>);

/// The text or number is no point in time that the contract can write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an RFC 3339 date and time with an offset, such as 2026-01-31T12:00:00Z")]
pub struct TimestampError;

impl Timestamp {
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn unix_millis(self) -> i64 {
        self.0.timestamp_millis()
    }

    /// The point that lies `millis` milliseconds after 1970-01-01T00:00:00Z.
    ///
    /// # Errors
    /// When it lies outside the years 0 to 9999, which RFC 3339 can't write.
    pub fn from_unix_millis(millis: i64) -> Result<Self, TimestampError> {
        let time = DateTime::from_timestamp_millis(millis).ok_or(TimestampError)?;
        if (0..=9999).contains(&time.year()) { Ok(Self(time)) } else { Err(TimestampError) }
    }

    /// Reads an RFC 3339 text with any offset.
    ///
    /// # Errors
    /// When the text is anything else, a date without a time included.
    pub fn parse(text: &str) -> Result<Self, TimestampError> {
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError)?;
        Self::from_unix_millis(time.timestamp_millis())
    }

    /// The same, but finer digits are rounded up: what lies before the text lies before the result.
    ///
    /// # Errors
    /// As those of [`Timestamp::parse`].
    pub fn parse_up(text: &str) -> Result<Self, TimestampError> {
        let cut = Self::parse(text)?;
        let time = DateTime::parse_from_rfc3339(text).map_err(|_| TimestampError)?;
        let is_finer = time.timestamp_subsec_nanos() % 1_000_000 != 0;
        // The last millisecond of the year 9999 has none after it.
        Ok(if is_finer {
            Self::from_unix_millis(cut.unix_millis() + 1).unwrap_or(cut)
        } else {
            cut
        })
    }
}

impl Timestamp {
    /// Digit by digit: an event has it four times, and chrono's formatter takes as long for one as the
    /// lead's id takes for all.
    fn text(self, buffer: &mut [u8; 24]) -> &str {
        let Self(time) = self;
        let year = u32::try_from(time.year()).unwrap_or(0);
        let millis = time.timestamp_subsec_millis();
        buffer.copy_from_slice(b"0000-00-00T00:00:00.000Z");
        let digits = [
            (0, 4, year),
            (5, 2, time.month()),
            (8, 2, time.day()),
            (11, 2, time.hour()),
            (14, 2, time.minute()),
            (17, 2, time.second()),
            (20, 3, millis),
        ];
        for (start, length, mut number) in digits {
            for at in (start..start + length).rev() {
                // Below 10 each time.
                buffer[at] += (number % 10) as u8;
                number /= 10;
            }
        }
        std::str::from_utf8(buffer).unwrap_or_default()
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        // Cuts to milliseconds; the clock and PostgreSQL stay inside chrono's range.
        Self(DateTime::from_timestamp_millis(time.timestamp_millis()).unwrap_or(time))
    }
}

impl From<Timestamp> for DateTime<Utc> {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text(&mut [0; 24]))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.text(&mut [0; 24]))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an RFC 3339 date and time")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                Timestamp::parse(text).map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_milliseconds_and_z_whatever_the_offset() {
        let time = Timestamp::parse("2026-01-31T14:00:00.1239+02:00").unwrap();
        assert_eq!(time.to_string(), "2026-01-31T12:00:00.123Z");
    }

    #[test]
    fn rounded_up_nothing_that_lies_before_is_left_out() {
        for (text, rounded) in [
            ("2026-01-31T12:00:00.1239Z", "2026-01-31T12:00:00.124Z"),
            ("2026-01-31T12:00:00.123000001Z", "2026-01-31T12:00:00.124Z"),
            ("2026-01-31T12:00:00.123000Z", "2026-01-31T12:00:00.123Z"),
            ("9999-12-31T23:59:59.9999Z", "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::parse_up(text).unwrap().to_string(), rounded);
        }
        assert_eq!(Timestamp::parse_up("x"), Err(TimestampError));
    }

    #[test]
    fn digits_are_those_of_chrono() {
        let years = ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"];
        let [first, last] = years.map(|text| Timestamp::parse(text).unwrap().unix_millis());
        let step = (last - first) / 100_003;
        for millis in (0..=100_003).map(|n| (first + n * step).min(last)).chain([0, -1, last]) {
            let time = Timestamp::from_unix_millis(millis).unwrap();
            let expected = time.0.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
            assert_eq!(time.to_string(), expected);
            assert_eq!(serde_json::to_string(&time).unwrap(), format!("\"{expected}\""));
        }
    }

    #[test]
    fn refuses_what_has_no_time_or_cannot_be_written() {
        for text in ["", "2026-01-31", "2026-01-31T12:00:00", "0000-01-01T00:00:00+01:00", "x"] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError), "{text}");
        }
        assert_eq!(Timestamp::from_unix_millis(i64::MAX), Err(TimestampError));
    }
}
