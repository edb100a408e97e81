//! Leads of the size that the benchmarks speak of: a request of 300 bytes, a record of 700.

use leads_shared::{Event, Json, Lead, Payload, Timestamp};
use uuid::Uuid;

/// Spreads consecutive numbers over 64 bits (`SplitMix64`'s finaliser), so that what is made from
/// them compresses and sorts like real data.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn uuid(number: u64, what: u64) -> Uuid {
    let high = mix(number ^ (what << 56));
    uuid::Builder::from_random_bytes(
        ((u128::from(high) << 64) | u128::from(mix(high))).to_be_bytes(),
    )
    .into_uuid()
}

fn properties(number: u64) -> String {
    let random = mix(number);
    format!(
        r#"{{"utm_source":"google","utm_medium":"cpc","utm_campaign":"spring-{}","page":"/pricing/{:x}","score":{}.{}}}"#,
        random % 97,
        random >> 40,
        random % 101,
        random % 10
    )
}

/// The body of a POST.
pub(crate) fn body(number: u64) -> String {
    format!(
        r#"{{"visitor_id":"{}","code":"SPRING{}","source":"landing-page","properties":{},"location":{{"country":"DE","city":"Köln"}}}}"#,
        uuid(number, 1),
        number % 100,
        properties(number)
    )
}

/// The record that the API would write for such a lead: key, value.
pub(crate) fn with_event<T>(
    number: u64,
    workspace_id: Uuid,
    millis: i64,
    use_it: impl FnOnce(&Event<'_>) -> T,
) -> anyhow::Result<T> {
    let time = Timestamp::from_unix_millis(millis)?;
    let random = uuid(number, 2);
    // As the API's own ids: the time in front, so that they sort by it.
    let mut bytes = *random.as_bytes();
    bytes[..6].copy_from_slice(&millis.to_be_bytes()[2..]);
    let id = uuid::Builder::from_bytes(bytes).with_version(uuid::Version::SortRand).into_uuid();
    let code = format!("SPRING{}", number % 100);
    let lead = Lead {
        id,
        visitor_id: Some(uuid(number, 1)),
        workspace_id,
        code: Some(code.into()),
        source: Some("landing-page".into()),
        created_at: time,
        updated_at: time,
        properties: Some(Json::from_string(properties(number))?),
        location: Some(Json::from_string(r#"{"country":"DE","city":"Köln"}"#.to_owned())?),
        identity_id: None,
        session_id: None,
        summary: None,
        company_id: None,
    };
    Ok(use_it(&Event {
        event_id: uuid(number, 3),
        occurred_at: time,
        workspace_id,
        lead_id: id,
        payload: Payload::LeadCreated { lead },
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_valid_distinct_and_of_the_size_spoken_of() {
        let event = |number| {
            with_event(number, Uuid::nil(), 1_750_000_000_000, |event| {
                let value = event.encode().unwrap().value;
                Event::decode_record(Some(event.lead_id.to_string().as_bytes()), Some(&value))
                    .unwrap();
                (event.lead_id, value.len())
            })
            .unwrap()
        };
        assert_ne!(event(1).0, event(2).0);
        assert_eq!(event(1).0.get_version_num(), 7);
        let size = event(3).1;
        assert!((650..800).contains(&size), "{size}");
        assert!((250..350).contains(&body(3).len()), "{}", body(3).len());
    }
}
