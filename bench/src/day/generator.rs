//! The day: which lead is sent as the how-manieth, the same for the same seed on every machine.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};

use super::invalid::{self, Refusal};
use super::text::{
    NAMES, Random, SOURCES, chance, number, object, pick, quoted, sentence, user_agent, uuid,
};

/// One in so many is not valid.
const INVALID_ONE_IN: u64 = 50;
/// Bounds of what is aimed at, in bytes; a body ends up to 30 below, when nothing more fits.
const SIZES: (f64, f64) = (185.0, 20_480.0);
/// Half of the bodies are smaller.
const MEDIAN: f64 = 700.0;
/// Deepest nesting accepted, the body's own object counted as 1.
const MAX_DEPTH: usize = 64;

/// The values of a valid lead, as the answer has to repeat them.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Sent {
    pub(super) visitor_id: Option<String>,
    pub(super) identity_id: Option<String>,
    pub(super) session_id: Option<String>,
    pub(super) company_id: Option<String>,
    pub(super) code: Option<String>,
    pub(super) source: Option<String>,
    /// JSON text.
    pub(super) properties: Option<String>,
    /// JSON text.
    pub(super) location: Option<String>,
}

/// What has to come of a request.
#[derive(Debug)]
pub(super) enum Expected {
    Accepted(Box<Sent>),
    Refused(&'static Refusal),
}

/// One request of the day.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) workspace: usize,
    pub(super) body: Vec<u8>,
    pub(super) content_type: &'static str,
    pub(super) expected: Expected,
}

/// The request at a place of the day.
pub(super) fn request(seed: u64, index: u64, workspaces: usize) -> Request {
    // seed_from_u64 spreads its argument; the product keeps two seeds' days apart.
    let mut random =
        Random::seed_from_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index));
    // The first workspace is a large customer, the others share the rest.
    let workspace = if chance(&mut random, 40) { 0 } else { random.random_range(0..workspaces) };
    let (fields, sent) = lead(&mut random);
    if index % INVALID_ONE_IN == invalid_place(seed, index / INVALID_ONE_IN) {
        let kind = usize::try_from(index / INVALID_ONE_IN).unwrap_or(0) % invalid::KINDS.len();
        let refusal = &invalid::KINDS[kind];
        let (body, content_type) = invalid::spoil(refusal, fields, &mut random);
        return Request { workspace, body, content_type, expected: Expected::Refused(refusal) };
    }
    let body = object(&mut random, &fields).into_bytes();
    let content_type = if chance(&mut random, 10) {
        "application/json; charset=utf-8"
    } else {
        "application/json"
    };
    Request { workspace, body, content_type, expected: Expected::Accepted(Box::new(sent)) }
}

/// Where among its fifty the invalid one is.
fn invalid_place(seed: u64, block: u64) -> u64 {
    Random::seed_from_u64(seed ^ !block).random_range(0..INVALID_ONE_IN)
}

/// Log-normal, as sizes of payloads are.
fn size(random: &mut Random) -> usize {
    // Box and Muller; 1 - u is never 0.
    let (u, v): (f64, f64) = (random.random(), random.random());
    let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
    let bytes = (MEDIAN.ln() + normal).exp().clamp(SIZES.0, SIZES.1);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped above")]
    let bytes = bytes as usize;
    bytes
}

type Fields = Vec<(String, String)>;

/// The fields of a valid lead as JSON texts, in any order, and their values.
fn lead(random: &mut Random) -> (Fields, Sent) {
    let size = size(random);
    let mut fields = Fields::new();
    let mut sent = Sent::default();
    let mut id = |name: &str, percent: u32, random: &mut Random| {
        if !chance(random, percent) {
            // Null is the same as absent.
            if chance(random, 10) {
                fields.push((name.to_owned(), "null".to_owned()));
            }
            return None;
        }
        let id = uuid(random);
        let text = if chance(random, 10) { id.to_uppercase() } else { id.clone() };
        fields.push((name.to_owned(), format!("\"{text}\"")));
        Some(id)
    };
    sent.visitor_id = id("visitor_id", 95, random);
    sent.session_id = id("session_id", 50, random);
    sent.identity_id = id("identity_id", 20, random);
    sent.company_id = id("company_id", 10, random);
    if chance(random, 60) {
        sent.code = Some(short_text(random));
    }
    if chance(random, 90) {
        sent.source = Some(pick(random, SOURCES).to_owned());
    }
    for (name, value) in [("code", &sent.code), ("source", &sent.source)] {
        if let Some(value) = value {
            fields.push((name.to_owned(), quoted(random, value)));
        }
    }
    if chance(random, 40) {
        let location = location(random);
        fields.push(("location".to_owned(), location.clone()));
        sent.location = Some(location);
    }
    let so_far: usize = fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    let properties = properties(random, size.saturating_sub(so_far + 18));
    fields.push(("properties".to_owned(), properties.clone()));
    sent.properties = Some(properties);
    fields.shuffle(random);
    (fields, sent)
}

/// A code; now and then as long as one may be, in characters of up to four bytes.
fn short_text(random: &mut Random) -> String {
    match random.random_range(0..100) {
        0 => "🎁".repeat(255),
        1 => "x".repeat(255),
        2 => "é".to_owned(),
        _ => format!("SPRING-{}", random.random_range(0..10_000)),
    }
}

fn location(random: &mut Random) -> String {
    let mut fields: Fields = vec![
        ("country".to_owned(), quoted(random, "DE")),
        ("city".to_owned(), quoted(random, "Köln-Ehrenfeld")),
        (
            "lat".to_owned(),
            format!("{}.{:06}", random.random_range(-89..90), random.random_range(0..1_000_000)),
        ),
        (
            "lon".to_owned(),
            format!(
                "{}.{:014}",
                random.random_range(-179..180),
                random.random_range(0_i64..100_000_000_000_000)
            ),
        ),
    ];
    if chance(random, 20) {
        fields.push(("accuracy".to_owned(), number(random)));
    }
    object(random, &fields)
}

/// The free part, filled up to about `size` bytes.
fn properties(random: &mut Random, size: usize) -> String {
    let mut fields: Fields = vec![
        ("utm_source".to_owned(), quoted(random, "google")),
        ("utm_campaign".to_owned(), format!("\"spring-{}\"", random.random_range(0..100))),
    ];
    // What there is room for, odd things first.
    for odd in [nested_to_the_limit, empty_key, twice, control, oddities] {
        if chance(random, 3) {
            odd(random, &mut fields);
        }
    }
    let length = |fields: &Fields| -> usize {
        fields.iter().map(|(name, value)| name.len() + value.len() + 4).sum()
    };
    loop {
        let room = size.saturating_sub(length(&fields));
        if room < 30 {
            return object(random, &fields);
        }
        filler(random, &mut fields, room);
    }
}

fn nested_to_the_limit(_: &mut Random, fields: &mut Fields) {
    // The body and `properties` are the first two levels.
    let levels = MAX_DEPTH - 2;
    fields.push(("deep".to_owned(), "[".repeat(levels) + &"]".repeat(levels)));
}

fn empty_key(random: &mut Random, fields: &mut Fields) {
    fields.push((String::new(), number(random)));
}

fn twice(random: &mut Random, fields: &mut Fields) {
    fields.push(("utm_source".to_owned(), number(random)));
}

fn control(random: &mut Random, fields: &mut Fields) {
    fields.push(("note".to_owned(), quoted(random, "line\r\nbreak\ttab \u{1}\u{7f}\u{2028} end")));
}

fn oddities(_: &mut Random, fields: &mut Fields) {
    fields.push((
        "odd \"key\" 🔑".to_owned(),
        r#"[null,true,false,{},[],"",{"":{"":[]}}]"#.to_owned(),
    ));
}

/// One more field of at most about `room` bytes.
fn filler(random: &mut Random, fields: &mut Fields, room: usize) {
    let (name, value) = match random.random_range(0..7) {
        0 if room > 150 => ("user_agent", user_agent(random).to_owned()),
        1 => ("name", pick(random, NAMES).to_owned()),
        2 => {
            let value = number(random);
            fields.push((format!("metric_{}", fields.len()), value));
            return;
        }
        3 if room > 400 => {
            let steps: Vec<_> = (0..random.random_range(2..5)).map(|_| step(random)).collect();
            fields.push((format!("journey_{}", fields.len()), format!("[{}]", steps.join(","))));
            return;
        }
        4 if room > 2_000 => ("message", sentence(random, 120)),
        5 if room > 250 => ("referrer", format!("https://example.org/{}?q=a&b=%20", uuid(random))),
        _ => ("tag", sentence(random, 1)),
    };
    let value = quoted(random, &value);
    fields.push((format!("{name}_{}", fields.len()), value));
}

fn step(random: &mut Random) -> String {
    let page = sentence(random, 2);
    let fields = [
        ("page".to_owned(), quoted(random, &page)),
        ("ms".to_owned(), number(random)),
        ("ok".to_owned(), if chance(random, 90) { "true" } else { "null" }.to_owned()),
    ];
    object(random, &fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_day() {
        for index in 0..200 {
            assert_eq!(request(1, index, 5).body, request(1, index, 5).body);
        }
        assert_ne!(request(1, 7, 5).body, request(2, 7, 5).body);
        assert_ne!(request(1, 7, 5).body, request(1, 8, 5).body);
    }

    #[test]
    fn two_percent_are_invalid_of_every_kind() {
        let mut kinds = std::collections::BTreeMap::new();
        for index in 0..5_000 {
            if let Expected::Refused(refusal) = request(1, index, 5).expected {
                *kinds.entry(refusal.name).or_insert(0) += 1;
            }
        }
        assert_eq!(kinds.values().sum::<u32>(), 100);
        assert_eq!(kinds.len(), invalid::KINDS.len());
    }

    #[test]
    fn valid_bodies_are_json_of_the_sizes_and_numbers_spoken_of() {
        let mut sizes = Vec::new();
        for index in 0..3_000 {
            let Request { body, expected, workspace, .. } = request(1, index, 5);
            let Expected::Accepted(sent) = expected else { continue };
            assert!(workspace < 5);
            let text = String::from_utf8(body).unwrap();
            let read: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
                serde_json::from_str(&text).unwrap();
            assert_eq!(read["properties"].get(), sent.properties.unwrap());
            let source = sent.source.map(|source| {
                serde_json::from_str::<String>(read["source"].get()).unwrap() == source
            });
            assert_ne!(source, Some(false));
            sizes.push(text.len());
        }
        sizes.sort_unstable();
        let (smallest, median, largest) =
            (sizes[0], sizes[sizes.len() / 2], sizes[sizes.len() - 1]);
        assert!((150..260).contains(&smallest), "{smallest}");
        assert!((500..1_000).contains(&median), "{median}");
        assert!((8_000..23_000).contains(&largest), "{largest}");
    }
}
