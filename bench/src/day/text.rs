//! Words, names and numbers as a tracking pipeline sees them, and the ways to write them in JSON.

use rand::RngExt;
use rand::rngs::Xoshiro256PlusPlus;
use rand::seq::IndexedRandom;

pub(super) type Random = Xoshiro256PlusPlus;

pub(super) const SOURCES: &[&str] = &[
    "landing-page",
    "google-ads",
    "newsletter",
    "partner/acme",
    "Messe Köln 2026",
    "紹介",
    "podcast 🎙️",
    "web",
];

pub(super) const NAMES: &[&str] = &[
    "Zoë Müller-Lüdenscheidt",
    "José García Ñíguez",
    "李小龍",
    "Владимир Петров",
    "محمد عبد الله",
    "नरेन्द्र शर्मा",
    "Þórður Ægisson",
    "O'Brien, \"Bob\"",
    "Nguyễn Thị Hồng",
    "👩‍👩‍👧‍👦 Family \\ Co.",
    "e\u{301}clair (combining)",
    "\u{202e}right-to-left override",
];

const USER_AGENTS: &[&str] = &[
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.1 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "curl/8.16.0",
    "",
];

const WORDS: &[&str] = &[
    "pricing",
    "demo",
    "enterprise",
    "größer",
    "trial",
    "résumé",
    "checkout",
    "配送",
    "cookie",
    "consent",
    "webinar",
    "скидка",
    "blog",
    "📈",
    "integration",
    "api",
    "naïve",
    "contact",
];

/// Numbers that a careless reader would change.
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "-17",
    "42.50",
    "0.1",
    "0.30000000000000004",
    "1e2",
    "1E+2",
    "2.5e-3",
    "1e-7",
    "12345678901234567890",
    "-98765432109876543210",
    "9007199254740993",
    "18446744073709551616",
    "3.14159265358979323846264338327950288",
    "100.000",
    "1e300",
    "0.000000000000000000000000000001",
    "19.99",
    "1767225600000",
];

pub(super) fn pick<'a>(random: &mut Random, from: &[&'a str]) -> &'a str {
    from.choose(random).copied().unwrap_or_default()
}

pub(super) fn chance(random: &mut Random, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

pub(super) fn number(random: &mut Random) -> String {
    match random.random_range(0..10) {
        0..4 => pick(random, NUMBERS).to_owned(),
        4..7 => random.random_range(-1_000_i64..1_000_000).to_string(),
        7 => (0..20).map(|_| random.random_range('1'..='9')).collect(),
        _ => format!("{}.{:02}", random.random_range(0..10_000), random.random_range(0..100)),
    }
}

pub(super) fn uuid(random: &mut Random) -> String {
    uuid::Builder::from_random_bytes(random.random()).into_uuid().to_string()
}

pub(super) fn user_agent(random: &mut Random) -> &'static str {
    pick(random, USER_AGENTS)
}

pub(super) fn sentence(random: &mut Random, words: usize) -> String {
    let words: Vec<_> = (0..words).map(|_| pick(random, WORDS)).collect();
    words.join(" ")
}

/// A JSON string, in one of the ways that clients write them.
pub(super) fn quoted(random: &mut Random, text: &str) -> String {
    let plain = || serde_json::to_string(text).unwrap_or_default();
    match random.random_range(0..10) {
        // As Python's json.dumps does: ASCII only, pairs of surrogates beyond the BMP.
        0..2 => plain().chars().map(ascii).collect(),
        // As PHP's json_encode does.
        2 => plain().replace('/', "\\/"),
        _ => plain(),
    }
}

fn ascii(character: char) -> String {
    if character.is_ascii() {
        return character.to_string();
    }
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units);
    units.iter().fold(String::new(), |text, unit| format!("{text}\\u{unit:04x}"))
}

/// An object; compact, or with white space as a careless client sends it.
pub(super) fn object(random: &mut Random, fields: &[(String, String)]) -> String {
    let (open, colon, comma, close) =
        if chance(random, 5) { ("{\n  ", " : ", ",\r\n\t", "\n}") } else { ("{", ":", ",", "}") };
    let fields: Vec<_> = fields
        .iter()
        .map(|(name, value)| format!("{}{colon}{value}", quoted(random, name)))
        .collect();
    format!("{open}{}{close}", fields.join(comma))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn each_way_to_write_a_string_reads_back_as_it() {
        let mut random = Random::seed_from_u64(1);
        for text in NAMES.iter().chain(WORDS).chain(USER_AGENTS).chain(&["a\n\t\u{1}/\\"]) {
            for _ in 0..20 {
                let json = quoted(&mut random, text);
                assert_eq!(serde_json::from_str::<String>(&json).unwrap(), **text, "{json}");
            }
        }
    }

    #[test]
    fn numbers_and_objects_are_json() {
        let mut random = Random::seed_from_u64(2);
        for _ in 0..500 {
            let value = number(&mut random);
            let json = object(&mut random, &[(String::new(), value)]);
            serde_json::from_str::<&serde_json::value::RawValue>(&json).unwrap();
        }
    }
}
