//! The log over HTTP: what comes, in which order, and from where on.

use std::collections::{BTreeMap, BTreeSet};

use leads_shared::{Change, Changes, Event, Payload, Timestamp};
use leads_testkit::{
    Api, DEADLINE, EventStream, Key, KeySpec, Position, Record, StreamEvent, System, eventually,
};
use uuid::Uuid;

use crate::shared::{
    Own, assert_error, assert_field_errors, call, known_key, run, shared, unlimited,
};

pub(crate) const EVENTS: &str = "/api/v1/leads/events";

/// What belongs to a workspace, by place.
pub(crate) async fn records_of(system: &System, key: &Key) -> BTreeMap<Position, Record> {
    let records = system.records().await.into_iter();
    let source = format!("/workspaces/{}", key.workspace);
    let mine = records.filter(|record| record.header("ce_source") == Some(&source));
    mine.map(|record| (record.position, record)).collect()
}

/// Each record once, byte for byte, those of a partition in their order.
pub(crate) fn assert_is_the_log(events: &[StreamEvent], log: &BTreeMap<Position, Record>) {
    let by_value: BTreeMap<&[u8], Position> = log
        .values()
        .map(|record| (record.value.as_deref().expect("a value"), record.position))
        .collect();
    let mut last: BTreeMap<i32, i64> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    for event in events {
        let place = by_value.get(event.data.as_bytes());
        let place = *place.unwrap_or_else(|| panic!("not byte for byte in the log: {event:?}"));
        assert!(seen.insert(place), "twice: {place:?}");
        assert_eq!(log[&place].header("ce_type"), Some(event.event.as_str()));
        let before = last.insert(place.partition, place.offset);
        assert!(before.is_none_or(|before| before < place.offset), "order within a partition");
    }
    assert_eq!(seen.len(), log.len(), "all of the log");
}

pub(crate) async fn post(api: &Api, key: &Key, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for n in 0..count {
        let answer = api.post_lead(key, &format!(r#"{{"code":"c{n}"}}"#)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        ids.push(answer.lead_id());
    }
    ids
}

fn ids(events: &[StreamEvent]) -> Vec<String> {
    events.iter().map(StreamEvent::event_id).collect()
}

#[test]
fn everything_comes_once_in_order_from_the_past_into_the_present() {
    run(async {
        let shared = shared().await;
        let (api, key, other) = (&shared.api, shared.key().await, shared.key().await);
        let leads = post(api, &key, 10).await;
        post(api, &other, 3).await;
        for lead in &leads {
            let change = r#"{"properties":{"a":[1e2,0.10]}}"#;
            assert_eq!(api.patch_lead(&key, lead, change).await.status, 200);
        }
        let mut stream = api.stream(&key, "from=beginning", None).await;
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        assert_eq!(stream.header("cache-control"), Some("no-store"));
        assert_eq!(stream.header("x-accel-buffering"), Some("no"));
        assert_eq!(stream.header("content-encoding"), None);
        assert_eq!(stream.header("x-workspace-id"), Some(key.workspace.to_string().as_str()));
        let mut events = stream.take(20).await;
        post(api, &other, 3).await;
        post(api, &key, 10).await;
        events.extend(stream.take(10).await);
        assert_is_the_log(&events, &records_of(&shared.system, &key).await);
    });
}

/// Each id is a place at which any instance goes on: nothing is left out, nothing comes again.
#[test]
fn every_id_is_a_place_to_resume_at_any_instance() {
    run(async {
        let own = Own::start(System::new().await, &[]).await;
        let second = own.system.start_api().await;
        second.wait_ready().await;
        post(&own.api, &own.key, 12).await;
        let mut stream = own.api.stream(&own.key, "from=beginning", None).await;
        let first_id = stream.last_id().to_owned();
        let events = stream.take(12).await;
        let all = ids(&events);
        let places = std::iter::once(&first_id).chain(events.iter().map(|event| &event.id));
        for (seen, place) in places.enumerate() {
            let api = if seen % 2 == 0 { &second } else { &own.api };
            // The header wins: a browser sends it with the URL it began with.
            let mut resumed = api.stream(&own.key, "from=beginning", Some(place)).await;
            assert_eq!(ids(&resumed.take(12 - seen).await), all[seen..], "after {seen}");
            let mut by_query = api.stream(&own.key, &format!("from={place}"), None).await;
            assert_eq!(ids(&by_query.take(12 - seen).await), all[seen..], "after {seen}");
        }
        assert_is_the_log(&events, &records_of(&own.system, &own.key).await);
    });
}

#[test]
fn a_filter_narrows_and_its_positions_go_on() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let lead = &post(api, &key, 3).await[0];
        api.patch_lead(&key, lead, r#"{"code":"x"}"#).await;
        for (query, expected) in [
            ("type=LeadUpdated", vec!["LeadUpdated"]),
            ("type=LeadCreated", vec!["LeadCreated"; 3]),
            (
                "type=LeadUpdated,LeadCreated",
                vec!["LeadCreated", "LeadCreated", "LeadCreated", "LeadUpdated"],
            ),
        ] {
            let mut stream = api.stream(&key, &format!("from=beginning&{query}"), None).await;
            let events = stream.take(expected.len()).await;
            let mut types: Vec<_> = events.iter().map(|event| event.event.clone()).collect();
            types.sort();
            assert_eq!(types, expected, "{query}");
            let place = stream.last_id().to_owned();
            drop(stream);
            let mut rest = api.stream(&key, query, Some(&place)).await;
            api.patch_lead(&key, lead, r#"{"code":"y"}"#).await;
            let created = post(api, &key, 1).await;
            let next = rest.next().await.unwrap();
            if query == "type=LeadCreated" {
                assert_eq!(next.json()["lead_id"], created[0].as_str());
            } else {
                assert_eq!(next.event, "LeadUpdated");
            }
            if query == "type=LeadUpdated" {
                break;
            }
        }
    });
}

#[test]
fn now_is_now_and_a_time_is_when_it_came() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        post(api, &key, 3).await;
        let middle = Timestamp::from(chrono::Utc::now()).unix_millis();
        eventually(DEADLINE, "the clock goes on", async || {
            Timestamp::from(chrono::Utc::now()).unix_millis() > middle + 1
        })
        .await;
        let mut now = api.stream(&key, "", None).await;
        let later = post(api, &key, 2).await;
        let leads = |events: Vec<StreamEvent>| -> BTreeSet<String> {
            events.iter().map(|it| it.json()["lead_id"].as_str().unwrap().to_owned()).collect()
        };
        let expected: BTreeSet<_> = later.into_iter().collect();
        assert_eq!(leads(now.take(2).await), expected);
        let time = serde_json::to_value(Timestamp::from_unix_millis(middle + 1).unwrap()).unwrap();
        let query = format!("from={}", time.as_str().unwrap());
        assert_eq!(leads(api.stream(&key, &query, None).await.take(2).await), expected);
    });
}

async fn refused(api: &Api, key: &Key, query: &str) -> leads_testkit::Response {
    let path = format!("{EVENTS}?{query}");
    call(api, "GET", &path, &[("x-api-key", &key.secret)]).await
}

#[test]
fn a_position_that_is_none_is_refused_in_words() {
    run(async {
        let shared = shared().await;
        let (api, key, other) = (&shared.api, shared.key().await, shared.key().await);
        post(api, &key, 1).await;
        let mut stream = api.stream(&key, "from=beginning", None).await;
        stream.take(1).await;
        let mine = stream.last_id().to_owned();
        let foreign = refused(api, &other, &format!("from={mine}")).await;
        assert_field_errors(&foreign, &[("from", "invalid_position")]);
        assert!(foreign.text().contains("another workspace"), "{}", foreign.text());
        let mut forged = mine.clone();
        forged.replace_range(6..7, if &mine[6..7] == "x" { "y" } else { "x" });
        for text in [forged.as_str(), "x", &mine[1..], "2026-01-01", "%00"] {
            let answer = refused(api, &key, &format!("from={text}")).await;
            let (_, code) = crate::shared::field_errors(&answer).remove(0);
            assert!(
                ["invalid_position", "invalid_time"].contains(&code.as_str()),
                "{text}: {code}"
            );
        }
        let headers = [("x-api-key", key.secret.as_str()), ("last-event-id", forged.as_str())];
        assert_field_errors(
            &call(api, "GET", EVENTS, &headers).await,
            &[("Last-Event-ID", "invalid_position")],
        );
        assert_field_errors(
            &refused(api, &key, "from=2999-01-01T00:00:00Z&type=LeadDeleted&x=1&type=").await,
            &[
                ("x", "unknown_field"),
                ("type", "duplicate_field"),
                ("from", "out_of_range"),
                ("type", "unknown_type"),
            ],
        );
        let headers = [("x-api-key", key.secret.as_str()), ("accept", "application/json")];
        assert_error(&call(api, "GET", EVENTS, &headers).await, 406, "not_acceptable");
        let headers = [("x-api-key", key.secret.as_str())];
        assert_eq!(call(api, "POST", EVENTS, &headers).await.header("allow"), Some("GET, HEAD"));
        let head = call(api, "HEAD", &format!("{EVENTS}?from=beginning"), &headers).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        let writer = KeySpec { scopes: Some("leads:write".to_owned()), ..unlimited() };
        let writer = shared.key_like(writer).await;
        assert_error(&refused(api, &writer, "").await, 403, "insufficient_scope");
    });
}

/// A log that was made anew, with fewer records and with more; and one whose beginning is gone.
#[test]
fn a_position_that_the_log_does_not_hold_is_refused() {
    run(async {
        let system = System::builder().partitions(1).build().await;
        let own = Own::start(system, &[]).await;
        post(&own.api, &own.key, 4).await;
        let mut stream = own.api.stream(&own.key, "from=beginning", None).await;
        let begin = stream.last_id().to_owned();
        let places: Vec<_> = stream.take(4).await.into_iter().map(|event| event.id).collect();
        drop(stream);
        let ask =
            async |api: &Api, place: &str| refused(api, &own.key, &format!("from={place}")).await;

        own.system.truncate_events_topic(3).await;
        let api = own.system.start_api().await;
        api.wait_ready().await;
        assert_error(&ask(&api, &begin).await, 410, "position_gone");
        assert_error(&ask(&api, &places[1]).await, 410, "position_gone");
        // Nothing behind it is missing.
        let mut goes_on = api.stream(&own.key, "", Some(&places[2])).await;
        assert_eq!(goes_on.next().await.unwrap().id, places[3]);
        drop((goes_on, api));

        drop(own.consumer);
        own.api.kill().await;
        own.system.recreate_events_topic().await;
        let api = own.system.start_api().await;
        api.wait_ready().await;
        assert_error(&ask(&api, &places[2]).await, 409, "position_ahead");
        post(&api, &own.key, 6).await;
        assert_error(&ask(&api, &places[2]).await, 410, "position_gone");
    });
}

/// Line breaks that a client sent between values are gone from our own events; those of another
/// producer are passed on as the protocol allows.
#[test]
fn a_line_break_never_ends_an_event() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let mut stream = api.stream(&key, "", None).await;
        let body = "{\r\n\"properties\":{\r\n\n\"a\":\r[1,\n2],\"id: 7\\n\\r\":\"data: x\"}\n}";
        assert_eq!(api.post_lead(&key, body).await.status, 201);
        let event = stream.next().await.unwrap();
        assert!(!event.data.contains('\n'));
        assert_eq!(event.json()["lead"]["properties"]["a"][1], 2);
        assert_is_the_log(&[event], &records_of(&shared.system, &key).await);

        let id = Uuid::new_v4();
        let value = format!(
            "{{\"event_id\":\"{}\",\n\n\"type\":\"LeadUpdated\",\"schema_version\":1,\"occurred_at\":\"2026-01-01T00:00:00.000Z\",\"workspace_id\":\"{}\",\"lead_id\":\"{id}\",\"changes\":{{}},\n\"expected_version\":null}}",
            Uuid::new_v4(),
            key.workspace
        );
        shared.system.produce(Some(id.to_string().as_bytes()), Some(value.as_bytes()), &[]).await;
        assert_eq!(stream.next().await.unwrap().data, value, "without headers, by its value");
    });
}

/// A quiet workspace's position moves on with the log, so that coming back costs little.
#[test]
fn a_heartbeat_carries_the_position_of_the_log() {
    run(async {
        let system = System::builder().partitions(1).build().await;
        let own = Own::start(system, &[("STREAM_HEARTBEAT", "200ms")]).await;
        let other = known_key(&own.system, &own.api, unlimited()).await;
        let mut quiet = own.api.stream(&own.key, "", None).await;
        let begin = quiet.last_id().to_owned();
        post(&own.api, &other, 3).await;
        while quiet.last_id() == begin {
            quiet.quiet().await;
        }
        assert!(quiet.comments() > 0);
        let mut resumed = own.api.stream(&own.key, "", Some(quiet.last_id())).await;
        post(&own.api, &own.key, 1).await;
        assert_eq!(resumed.next().await, quiet.next().await);
    });
}

#[test]
fn streams_are_counted_by_key_and_by_instance() {
    run(async {
        let limits =
            [("MAX_STREAMS_PER_KEY", "2"), ("MAX_STREAMS", "3"), ("STREAM_HEARTBEAT", "200ms")];
        let own = Own::start(System::new().await, &limits).await;
        let other = known_key(&own.system, &own.api, unlimited()).await;
        let open = async |key: &Key| own.api.stream(key, "", None).await;
        let streams: Vec<EventStream> = vec![open(&own.key).await, open(&own.key).await];
        let answer = refused(&own.api, &own.key, "").await;
        let body = assert_error(&answer, 429, "too_many_streams");
        assert_eq!(body["details"]["limit_streams"], 2);
        let _third = open(&other).await;
        assert_error(&refused(&own.api, &other, "").await, 503, "overloaded");
        assert!((own.api.metric("leads_streams", "").await - 3.0).abs() < 0.1);
        drop(streams);
        // A client that goes away makes room.
        eventually(DEADLINE, "room again", async || {
            own.api.try_stream(&own.key, "", None).await.is_ok()
        })
        .await;
        let gone = own.api.wait_for_log(|line| line.str("end") == Some("client_gone")).await;
        assert_eq!((gone.message(), gone.str("route")), ("request", Some(EVENTS)));
        assert_eq!(gone.field("status").unwrap(), 200);
    });
}

/// An event that the projection can't apply is an event of the log all the same.
#[test]
fn an_update_written_past_the_api_comes_too() {
    run(async {
        let shared = shared().await;
        let (api, key) = (&shared.api, shared.key().await);
        let mut stream = api.stream(&key, "", None).await;
        let changes = Changes { code: Change::Set("x".into()), ..Changes::default() };
        let event = Event {
            event_id: Uuid::new_v4(),
            occurred_at: Timestamp::from_unix_millis(0).unwrap(),
            workspace_id: key.workspace,
            lead_id: Uuid::new_v4(),
            payload: Payload::LeadUpdated { changes, expected_version: None },
        };
        shared.system.produce_event(&event).await;
        assert_eq!(stream.next().await.unwrap().event_id(), event.event_id.to_string());
    });
}
