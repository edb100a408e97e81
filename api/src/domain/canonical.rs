//! One way to write a JSON value, so that two bodies can be compared by what they say.
//!
//! White space, the order of an object's members and escapes make no difference; of a name that
//! stands there twice the last one counts, as in `jsonb`. A number counts by its digits as they
//! stand: a client that sends the same again writes it the same.

use std::ops::Range;

use sha2::{Digest, Sha256};

/// An object that takes more bytes than this is written as its digest.
const LARGE: usize = 64;

/// What `text` says, a grammatical JSON value without lone surrogates, in bytes that are no JSON.
pub(super) fn canonical(text: &str) -> Vec<u8> {
    let mut writer = Writer { text, at: 0, out: Vec::with_capacity(text.len()) };
    writer.value();
    writer.out
}

struct Writer<'a> {
    text: &'a str,
    at: usize,
    out: Vec<u8>,
}

/// Where a member of an object stands in what is written, and its name in that.
struct Member {
    name: Range<usize>,
    whole: Range<usize>,
}

impl Writer<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The next byte that is neither white space nor a separator, which tell nothing here.
    fn next_token(&mut self) -> Option<u8> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r' | b',' | b':') = self.peek() {
            self.at += 1;
        }
        self.peek()
    }

    /// As deep as `super::MAX_DEPTH` at most: the scan has looked.
    fn value(&mut self) {
        match self.next_token() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(),
            Some(b'[') => self.array(),
            Some(_) => self.literal(),
            None => {}
        }
    }

    fn array(&mut self) {
        self.at += 1;
        self.out.push(b'[');
        while self.next_token().is_some_and(|byte| byte != b']') {
            self.value();
        }
        self.at += 1;
        self.out.push(b']');
    }

    fn object(&mut self) {
        self.at += 1;
        let start = self.out.len();
        self.out.push(b'{');
        let mut members = Vec::new();
        while self.next_token().is_some_and(|byte| byte != b'}') {
            let begin = self.out.len();
            self.string();
            let name = begin..self.out.len();
            self.value();
            members.push(Member { name, whole: begin..self.out.len() });
        }
        self.at += 1;
        self.in_order(members);
        self.out.push(b'}');
        // So that what is around it, out of order as it may be, moves it as one.
        if self.out.len() - start > LARGE {
            let digest = Sha256::digest(&self.out[start..]);
            self.out.truncate(start);
            self.out.push(b'#');
            self.out.extend(digest);
        }
    }

    /// Sorts the members just written by name.
    fn in_order(&mut self, mut members: Vec<Member>) {
        let out = &self.out;
        if members.is_sorted_by(|a, b| out[a.name.clone()] < out[b.name.clone()]) {
            return;
        }
        let start = members[0].whole.start;
        // The last of those with one name comes first of them, and stays.
        members.reverse();
        members.sort_by(|a, b| out[a.name.clone()].cmp(&out[b.name.clone()]));
        members.dedup_by(|a, b| out[a.name.clone()] == out[b.name.clone()]);
        let mut sorted = Vec::with_capacity(out.len() - start);
        for member in &members {
            sorted.extend_from_slice(&out[member.whole.clone()]);
        }
        self.out.truncate(start);
        self.out.extend(sorted);
    }

    /// With its length, so that no two strings run together to the same bytes.
    fn string(&mut self) {
        let start = self.at;
        self.at += 1;
        let mut escaped = false;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    self.at += 1;
                }
                _ => {}
            }
        }
        let quoted = &self.text[start..self.at];
        let unescaped = if escaped { serde_json::from_str::<String>(quoted).ok() } else { None };
        let contents = unescaped.as_deref().unwrap_or_else(|| quoted.trim_matches('"'));
        self.out.push(b'"');
        self.out.extend((contents.len() as u64).to_be_bytes());
        self.out.extend(contents.as_bytes());
    }

    /// A number, `true`, `false` or `null`, and what ends it.
    fn literal(&mut self) {
        let start = self.at;
        while let Some(byte) = self.peek()
            && !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',' | b']' | b'}')
        {
            self.at += 1;
        }
        self.out.extend(&self.text.as_bytes()[start..self.at]);
        self.out.push(b',');
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::*;

    fn values() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,6}|[\"\\\\\n,:{}]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec(("[ab\"\\\\é]{0,2}", inner), 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The members of all objects the other way round.
    fn reversed(value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(reversed).collect(),
            Value::Object(members) => {
                let members: Vec<_> = members.iter().collect();
                let turned =
                    members.into_iter().rev().map(|(name, it)| (name.clone(), reversed(it)));
                Value::Object(turned.collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    proptest! {
        #[test]
        fn the_same_is_the_same_however_it_is_written(value in values()) {
            let plain = canonical(&value.to_string());
            let turned = reversed(&value);
            prop_assert_eq!(&plain, &canonical(&serde_json::to_string_pretty(&turned).unwrap()));
            let mut ascii = String::new();
            for c in turned.to_string().chars() {
                if c.is_ascii() {
                    ascii.push(c);
                } else {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(ascii, "\\u{unit:04X}").unwrap();
                    }
                }
            }
            prop_assert_eq!(&plain, &canonical(&ascii));
        }

        #[test]
        fn what_differs_differs(a in values(), b in values()) {
            let same = canonical(&a.to_string()) == canonical(&b.to_string());
            prop_assert_eq!(same, a == b);
        }
    }

    #[test]
    fn borders() {
        let same = |a, b| canonical(a) == canonical(b);
        assert!(same(r#"{"a":1,"a":2}"#, r#"{"a":2}"#), "the last one counts");
        assert!(same(r#"{"\u0061":"\/"}"#, r#"{ "a" : "/" }"#));
        assert!(!same(r#"["ab"]"#, r#"["a","b"]"#));
        assert!(!same("[1,2]", "[12]"));
        assert!(!same("[[1],2]", "[[1,2]]"));
        assert!(!same(r#"["1"]"#, "[1]"));
        assert!(!same("{}", "[]"));
    }
}
