//! Bodies that go to the limits of what is taken, and a little over them. Seeded.

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{RngExt, SeedableRng};

/// Most bytes of a lead.
const LIMIT: usize = 256 * 1024;

/// What something on the way might trip over, as it stands inside a JSON string.
const GOOD: &[&str] = &[
    "a",
    "é",
    "😀",
    "𠀀",
    "\\ud83d\\ude00",
    "\\uD83D\\uDe00",
    "\\\"",
    "\\\\",
    "\\/",
    "'",
    "$1",
    "{",
    "]",
    ",",
    "\\u00e9",
    "\\ufffe",
    "\\uFFFF",
    "\u{fffd}",
    "\u{feff}",
    "\u{2028}",
    "\u{202e}א",
    "e\u{301}",
    "👩\u{200d}👩\u{200d}👧",
    "\u{10ffff}",
    "\u{e000}",
    "\\\\u0000",
    "\\\\N",
    "\\\\x00",
    "%00",
];
/// What `code` and `source` may not hold.
const CONTROL: &[&str] = &["\\n", "\\t", "\\b", "\\u0001", "\u{7f}", "\u{85}", "\\u009f"];
/// What nothing may hold.
const BAD: &[&str] =
    &["\\u0000", "\\ud800", "\\udc00", "\\ude00\\ud83d", "\\ud83d\\n", "\\uDBFF\\\\udc00"];
/// What a body may hold.
const FIELDS: [&str; 8] = [
    "properties",
    "location",
    "code",
    "source",
    "visitor_id",
    "identity_id",
    "session_id",
    "company_id",
];
/// Few, so that members repeat; some that mean something to somebody.
const NAMES: &[&str] = &["a", "b", "c", "", "é", "__proto__", "$ref", "a.b", "\\u0061", "'", "id"];

/// How bodies stand in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// White space as it likes.
    Anywhere,
    /// In one line, which may hold no JSON at all.
    Line,
}

/// Makes bodies without end; the same seed makes the same.
pub(crate) struct Hostile {
    random: StdRng,
    form: Form,
}

impl Hostile {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), form: Form::Anywhere }
    }

    /// The next body.
    pub(crate) fn body(&mut self, form: Form) -> String {
        self.form = form;
        let mut fields = FIELDS.to_vec();
        fields.shuffle(&mut self.random);
        fields.truncate(self.random.random_range(0..6));
        if self.one_in(50) {
            fields.extend(fields.last().copied());
        }
        let mut members: Vec<_> = fields.into_iter().map(|name| self.field(name)).collect();
        if self.one_in(40) {
            members.push(self.wrong_field());
        }
        if self.one_in(700) {
            members.retain(|member| !member.starts_with("\"properties\""));
            members.push(self.filler(&members));
        }
        let body = self.object_of(&members);
        if form == Form::Line && self.one_in(100) { self.spoilt(&body) } else { body }
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.random_ratio(1, many)
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from.choose(&mut self.random).expect("something to pick from")
    }

    /// A member with a value as it should be, nearly always.
    fn field(&mut self, name: &str) -> String {
        let value = match name {
            _ if self.one_in(20) => "null".to_owned(),
            "properties" | "location" => {
                let object = self.object(0);
                self.nested(object)
            }
            "code" | "source" => self.short_text(),
            _ => self.uuid(),
        };
        format!("\"{name}\"{}:{}{value}", self.space(), self.space())
    }

    fn wrong_field(&mut self) -> String {
        let wrong = [
            "\"summary\":{}",
            "\"id\":null",
            "\"nope\":1",
            "\"properties\":[]",
            "\"location\":\"{}\"",
            "\"code\":1",
            "\"source\":\"\"",
            "\"visitor_id\":\"{0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55}\"",
            "\"company_id\":\"0190d5a47c3e7c1a9c391f0a8d2b6e55\"",
        ];
        self.pick(&wrong).to_owned()
    }

    /// Brings the body to the largest that is taken, or some bytes past it.
    fn filler(&mut self, members: &[String]) -> String {
        let others: usize = members.iter().map(|member| member.len() + 1).sum();
        let around = "\"properties\":{\"f\":\"\"}".len() + 2;
        let wanted = LIMIT + 2 - self.random.random_range(0..5);
        let letters = "x".repeat(wanted.saturating_sub(others + around));
        format!("\"properties\":{{\"f\":\"{letters}\"}}")
    }

    fn spoilt(&mut self, body: &str) -> String {
        match self.random.random_range(0..6) {
            0 => body[..body.len() - 1].to_owned(),
            1 => format!("{body}{body}"),
            2 => format!("\u{feff}{body}"),
            3 => format!("[{body}]"),
            4 => body.replacen(':', ":\"\u{1}\"", 1) + "x",
            _ => "{\"properties\":{\"a\":01}}".to_owned(),
        }
    }

    fn uuid(&mut self) -> String {
        let id = uuid_text(self.random.random());
        let id = if self.one_in(2) { id.to_uppercase() } else { id };
        format!("\"{id}\"")
    }

    /// Of about as many characters as are taken at most.
    fn short_text(&mut self) -> String {
        let length = if self.one_in(8) {
            self.random.random_range(250..258)
        } else {
            self.random.random_range(1..30)
        };
        let letter = self.character();
        let mut text = letter.repeat(length - 1);
        text.push_str(match self.random.random_range(0..60) {
            0 => self.pick(CONTROL),
            1 => self.pick(BAD),
            2..40 => self.pick(&GOOD[..14]),
            _ => "z",
        });
        format!("\"{text}\"")
    }

    /// One character from anywhere in Unicode, raw or as escapes.
    fn character(&mut self) -> String {
        let planes = if self.one_in(2) { 0x3000 } else { 0x11_0000 };
        let c = char::from_u32(self.random.random_range(0xA0..planes)).unwrap_or('ß');
        if self.one_in(2) {
            return c.to_string();
        }
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units);
        units.iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>().concat()
    }

    fn string(&mut self, most: usize) -> String {
        let mut text = String::from('"');
        for _ in 0..self.random.random_range(0..most) {
            match self.random.random_range(0..1_000) {
                0 => text.push_str(self.pick(BAD)),
                1..60 => text.push_str(self.pick(CONTROL)),
                60..200 => text.push_str(&self.character()),
                _ => text.push_str(self.pick(GOOD)),
            }
        }
        text.push('"');
        text
    }

    fn number(&mut self) -> String {
        let sign = if self.one_in(3) { "-" } else { "" };
        let number = match self.random.random_range(0..200) {
            0..80 => self.random.random_range(0..1_000_000_u32).to_string(),
            80..110 => format!("{}.{}", self.whole(20), self.digits(1..40)),
            110..140 => self.whole(40),
            140..150 => "0".to_owned(),
            150..152 => format!("9{}", self.digits(990..1_010)),
            152..155 => format!("0.{}", self.digits(990..1_005)),
            155..158 => format!("1{}{}", self.exponent(), self.random.random_range(990..1_010)),
            158 => format!("7{}{}", self.exponent(), self.digits(6..30)),
            159 => format!("0{}{}", self.exponent(), self.random.random_range(0..1_010)),
            160..165 => {
                self.pick(&["1e-999", "0e0", "0.0", "1E400", "0.1e+999", "1e-400"]).to_owned()
            }
            _ => {
                let mantissa = format!("{}.{}", self.whole(5), self.digits(1..5));
                format!("{mantissa}{}{}", self.exponent(), self.random.random_range(0..400))
            }
        };
        format!("{sign}{number}")
    }

    fn exponent(&mut self) -> &'static str {
        self.pick(&["e", "E", "e+", "E-", "e-"])
    }

    fn whole(&mut self, most: usize) -> String {
        let first = self.random.random_range(1..10_u32);
        format!("{first}{}", self.digits(0..most))
    }

    fn digits(&mut self, lengths: std::ops::Range<usize>) -> String {
        let length = self.random.random_range(lengths);
        (0..length).map(|_| char::from(self.random.random_range(b'0'..=b'9'))).collect()
    }

    fn value(&mut self, depth: usize) -> String {
        match self.random.random_range(0..100) {
            0..20 if depth < 4 => self.object(depth + 1),
            20..35 if depth < 4 => self.array(depth + 1),
            0..50 => self.number(),
            50..60 => self.pick(&["null", "true", "false", "[]", "{}", "\"\""]).to_owned(),
            _ => self.string(12),
        }
    }

    fn object(&mut self, depth: usize) -> String {
        let mut members = Vec::new();
        for _ in 0..self.random.random_range(0..5) {
            let name =
                if self.one_in(4) { self.string(4) } else { format!("\"{}\"", self.pick(NAMES)) };
            members.push(format!("{name}:{}{}", self.space(), self.value(depth)));
        }
        self.object_of(&members)
    }

    fn object_of(&mut self, members: &[String]) -> String {
        format!("{{{}}}", members.join(&format!("{},", self.space())))
    }

    fn array(&mut self, depth: usize) -> String {
        let values: Vec<_> = if self.one_in(60) {
            let value = self.pick(&["0", "[]", "\"\"", "1.50"]);
            vec![value.to_owned(); self.random.random_range(100..2_000)]
        } else {
            (0..self.random.random_range(0..5)).map(|_| self.value(depth)).collect()
        };
        format!("[{}]", values.join(&format!("{},", self.space())))
    }

    /// The object deeper in others, at times around the deepest that is taken.
    fn nested(&mut self, object: String) -> String {
        let levels = match self.random.random_range(0..40) {
            0 => self.random.random_range(55..66),
            1 => self.random.random_range(2..40),
            _ => return object,
        };
        let open = self.pick(&["{\"a\":", "{\"\":["]);
        let close: String = open.chars().rev().filter_map(closing).collect();
        format!("{}{object}{}", open.repeat(levels), close.repeat(levels))
    }

    fn space(&mut self) -> &'static str {
        match self.form {
            Form::Anywhere => self.pick(&["", "", " ", "\n", "\t\r\n "]),
            Form::Line => self.pick(&["", "", " ", "\t"]),
        }
    }
}

fn closing(open: char) -> Option<char> {
    match open {
        '{' => Some('}'),
        '[' => Some(']'),
        _ => None,
    }
}

fn uuid_text(number: u128) -> String {
    let hex = format!("{number:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
