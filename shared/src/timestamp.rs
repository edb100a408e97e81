//! Points in time as the contract writes them: RFC 3339, UTC, milliseconds, `Z`.

use std::fmt;

use chrono::{DateTime, Datelike, SecondsFormat, Utc};
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
        f.write_str(&self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
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
    fn refuses_what_has_no_time_or_cannot_be_written() {
        for text in ["", "2026-01-31", "2026-01-31T12:00:00", "0000-01-01T00:00:00+01:00", "x"] {
            assert_eq!(Timestamp::parse(text), Err(TimestampError), "{text}");
        }
        assert_eq!(Timestamp::from_unix_millis(i64::MAX), Err(TimestampError));
    }
}
