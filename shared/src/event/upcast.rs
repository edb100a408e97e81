//! Turns the bodies of older schema versions into today's.
//!
//! Each type of event has a list with a reader for each version, the oldest first. A new version is
//! one more reader at its end, and the one before it turns what it reads into what is new; the test
//! below does it once.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{DecodeError, Envelope, EventType};
use crate::{Changes, Lead};

/// Reads the body of one version as today's.
type Read<'a, T> = fn(&'a RawValue) -> serde_json::Result<T>;

pub(super) fn lead_created<'a>(envelope: &Envelope<'a>) -> Result<Lead<'a>, DecodeError> {
    let versions = [as_it_is as Read<'a, Lead<'a>>];
    read(&versions, EventType::LeadCreated, envelope, "lead is missing")
}

pub(super) fn lead_updated<'a>(envelope: &Envelope<'a>) -> Result<Changes<'a>, DecodeError> {
    let versions = [as_it_is as Read<'a, Changes<'a>>];
    read(&versions, EventType::LeadUpdated, envelope, "changes are missing")
}

/// The body of the newest version.
fn as_it_is<'a, T: Deserialize<'a>>(body: &'a RawValue) -> serde_json::Result<T> {
    serde_json::from_str(body.get())
}

fn read<'a, T>(
    versions: &[Read<'a, T>],
    event_type: EventType,
    envelope: &Envelope<'a>,
    missing: &'static str,
) -> Result<T, DecodeError> {
    let body = match event_type {
        EventType::LeadCreated => envelope.lead,
        EventType::LeadUpdated => envelope.changes,
    };
    let version = envelope.schema_version;
    let index = usize::try_from(version).ok().and_then(|version| version.checked_sub(1));
    let Some(read) = index.and_then(|index| versions.get(index)) else {
        let newest = u32::try_from(versions.len()).unwrap_or(u32::MAX);
        let event_type = event_type.name();
        return Err(DecodeError::UnknownVersion { event_type, version, newest });
    };
    Ok(read(body.ok_or(DecodeError::Inconsistent(missing))?)?)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::Text;

    const V1: &str = include_str!("../../tests/fixtures/LeadCreated.v1.json");
    const V2: &str = include_str!("../../tests/fixtures/LeadCreated.v2-test.json");

    /// A lead as it might look one day: `code` and `source` have become `campaign`.
    #[derive(Debug, PartialEq, Deserialize)]
    struct LeadOfV2<'a> {
        id: Uuid,
        #[serde(borrow)]
        campaign: Campaign<'a>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Campaign<'a> {
        #[serde(borrow)]
        code: Option<Text<'a>>,
        #[serde(borrow)]
        channel: Option<Text<'a>>,
    }

    impl<'a> From<Lead<'a>> for LeadOfV2<'a> {
        fn from(lead: Lead<'a>) -> Self {
            let Lead { id, code, source, .. } = lead;
            Self { id, campaign: Campaign { code, channel: source } }
        }
    }

    /// What `lead_created` would be then.
    fn lead_created_of_v2<'a>(envelope: &Envelope<'a>) -> Result<LeadOfV2<'a>, DecodeError> {
        let versions: [Read<'a, LeadOfV2<'a>>; 2] =
            [|body| as_it_is::<Lead<'a>>(body).map(LeadOfV2::from), as_it_is];
        read(&versions, EventType::LeadCreated, envelope, "lead is missing")
    }

    fn envelope(text: &str) -> Envelope<'_> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_second_version_reads_what_the_first_wrote() {
        let (old, new) = (envelope(V1), envelope(V2));
        assert_eq!((old.schema_version, new.schema_version), (1, 2));
        let upcast = lead_created_of_v2(&old).unwrap();
        assert_eq!(upcast, lead_created_of_v2(&new).unwrap());
        assert_eq!(upcast.campaign.code, Some("SPRING-26".into()));
        assert_eq!(upcast.campaign.channel, Some("landing \"é\" 😀".into()));
        // The contents decide nothing: each version is read as what it says it is.
        let mislabelled = V1.replace(r#""schema_version":1"#, r#""schema_version":2"#);
        let error = lead_created_of_v2(&envelope(&mislabelled)).unwrap_err();
        assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
    }

    #[test]
    fn a_version_without_a_reader_is_named() {
        for version in [0, 2, u32::MAX] {
            let mut unknown = envelope(V2);
            unknown.schema_version = version;
            let error = lead_created(&unknown).unwrap_err();
            let DecodeError::UnknownVersion { version: found, newest: 1, .. } = error else {
                panic!("{error}")
            };
            assert_eq!(found, version);
        }
    }

    /// Otherwise what is written today could not be read today.
    #[test]
    fn the_version_that_is_written_is_the_newest_that_is_read() {
        let mut unknown = envelope(V1);
        unknown.schema_version = u32::MAX;
        let newest = |error| match error {
            DecodeError::UnknownVersion { newest, .. } => newest,
            other => panic!("{other}"),
        };
        let created = newest(lead_created(&unknown).unwrap_err());
        let updated = newest(lead_updated(&unknown).unwrap_err());
        assert_eq!(created, EventType::LeadCreated.schema_version());
        assert_eq!(updated, EventType::LeadUpdated.schema_version());
    }
}
