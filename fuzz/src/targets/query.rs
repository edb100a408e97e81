//! Query strings of lists, cursors included.

use std::collections::HashSet;

use leads_api::read_model::Start;
use leads_api::routes::{ListQuery, cursor};

use crate::model;

const NAMES: [&str; 8] = [
    "limit",
    "offset",
    "cursor",
    "source",
    "code",
    "visitor_id",
    "created_after",
    "created_before",
];

/// What is taken keeps the bounds of the contract and says the same when it is written again; what is
/// refused names each parameter.
pub fn query(data: &[u8]) {
    // The path of a request is ASCII; what isn't arrives in percent signs.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let sent: Vec<(String, String)> = form_urlencoded::parse(data).into_owned().collect();
    match ListQuery::parse(text) {
        Ok(query) => is_taken(&query, &sent),
        Err(errors) => {
            assert!(!errors.is_empty() && errors.len() <= sent.len() + 1);
            for error in errors {
                assert!(error.field.chars().count() <= 64);
                let of_a_sent_one =
                    |(name, _): &(String, String)| name.starts_with(error.field.as_ref());
                assert!(sent.iter().any(of_a_sent_one), "{} was not sent", error.field);
                assert!((5..300).contains(&error.message.len()), "{}", error.message);
            }
        }
    }
}

fn is_taken(query: &ListQuery, sent: &[(String, String)]) {
    let names: HashSet<_> = sent.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.len(), sent.len(), "each at most once");
    assert!(names.iter().all(|name| NAMES.contains(name)), "each known");
    let given = |name: &str| sent.iter().find(|(found, _)| found == name).map(|(_, v)| v.as_str());

    assert!((1..=100).contains(&query.limit));
    assert_eq!(given("limit").map_or(Ok(50), str::parse), Ok(query.limit));
    let filter = &query.filter;
    for (name, text) in [("source", &filter.source), ("code", &filter.code)] {
        assert_eq!(given(name), text.as_deref());
        assert!(text.as_deref().is_none_or(model::is_short_text));
    }
    assert!(given("visitor_id").is_none_or(model::is_hyphenated_uuid));
    assert_eq!(given("visitor_id").and_then(|id| id.parse().ok()), filter.visitor_id);
    let place = match query.start {
        Start::Offset(offset) => {
            assert!(offset >= 0 && given("cursor").is_none());
            ("offset", offset.to_string())
        }
        Start::After(time, id) => {
            // A cursor has one text only: nobody comes to rely on another.
            assert_eq!(given("cursor"), Some(cursor(time, id).as_str()));
            assert_eq!(given("offset"), None);
            ("cursor", cursor(time, id))
        }
    };
    let again = written(query, place);
    assert_eq!(ListQuery::parse(&again).as_ref(), Ok(query), "{again}");
}

fn written(query: &ListQuery, (name, place): (&str, String)) -> String {
    let filter = &query.filter;
    let mut text = form_urlencoded::Serializer::new(String::new());
    text.append_pair("limit", &query.limit.to_string()).append_pair(name, &place);
    let optional = [
        ("source", filter.source.clone()),
        ("code", filter.code.clone()),
        ("visitor_id", filter.visitor_id.map(|id| id.to_string())),
        ("created_after", filter.created_after.map(|time| time.to_string())),
        ("created_before", filter.created_before.map(|time| time.to_string())),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            text.append_pair(name, &value);
        }
    }
    text.finish()
}
