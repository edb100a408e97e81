//! The body of a batch, cut into items.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::fields::{utf8, without_position};
use super::{MAX_BATCH_ITEMS, Rejection};

/// How the items of a batch are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchFormat {
    /// One JSON array.
    Array,
    /// A JSON value a line. Blank lines are passed over.
    Lines,
}

/// The body is no batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchRejection {
    /// The items can't be told apart.
    Malformed(Rejection),
    /// There is no item.
    Empty,
    /// There are more than [`MAX_BATCH_ITEMS`].
    TooMany,
}

/// Cuts a body into items: the bytes of each, and the line that it starts on, from 1.
///
/// # Errors
/// See [`BatchRejection`]. What is wrong inside an item is that item's own.
pub fn items(body: &[u8], format: BatchFormat) -> Result<Vec<(&[u8], usize)>, BatchRejection> {
    let items = match format {
        BatchFormat::Array => array(body)?,
        BatchFormat::Lines => lines(body)?,
    };
    if items.is_empty() { Err(BatchRejection::Empty) } else { Ok(items) }
}

fn lines(body: &[u8]) -> Result<Vec<(&[u8], usize)>, BatchRejection> {
    let mut items = Vec::new();
    for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if items.len() == MAX_BATCH_ITEMS {
            return Err(BatchRejection::TooMany);
        }
        items.push((line, number + 1));
    }
    Ok(items)
}

fn array(body: &[u8]) -> Result<Vec<(&[u8], usize)>, BatchRejection> {
    let text = utf8(body).map_err(BatchRejection::Malformed)?;
    let mut too_many = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let values = ItemsSeed { too_many: &mut too_many }
        .deserialize(&mut deserializer)
        .and_then(|values| deserializer.end().map(|()| values));
    if too_many {
        return Err(BatchRejection::TooMany);
    }
    let values = values.map_err(|error| {
        BatchRejection::Malformed(Rejection::Malformed {
            message: without_position(&error, "expected a JSON array"),
            line: error.line(),
            column: error.column(),
        })
    })?;
    let (mut line, mut counted) = (1, 0);
    let items = values.into_iter().map(|value| {
        let item = value.get().as_bytes();
        // The item is a part of the body.
        let start = item.as_ptr() as usize - body.as_ptr() as usize;
        line += memchr::memchr_iter(b'\n', &body[counted..start]).count();
        counted = start;
        (item, line)
    });
    Ok(items.collect())
}

struct ItemsSeed<'s> {
    too_many: &'s mut bool,
}

impl<'de> DeserializeSeed<'de> for ItemsSeed<'_> {
    type Value = Vec<&'de RawValue>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ItemsSeed<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            if values.len() == MAX_BATCH_ITEMS {
                *self.too_many = true;
                return Err(serde::de::Error::custom("too many items"));
            }
            values.push(value);
        }
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str, format: BatchFormat) -> Vec<(String, usize)> {
        let items = items(body.as_bytes(), format).unwrap();
        items
            .into_iter()
            .map(|(item, line)| (String::from_utf8(item.to_vec()).unwrap(), line))
            .collect()
    }

    #[test]
    fn items_and_the_lines_they_start_on() {
        let expected = [("{}".to_owned(), 1), ("{\"a\":\n1}".to_owned(), 2), ("2".to_owned(), 5)];
        assert_eq!(texts("[{},\n{\"a\":\n1},\n\n2]", BatchFormat::Array), expected);
        let expected = [("{}".to_owned(), 1), ("nonsense".to_owned(), 3)];
        assert_eq!(texts("{}\r\n  \nnonsense\n", BatchFormat::Lines), expected);
    }

    #[test]
    fn what_is_no_batch() {
        let rejected = |body: &str, format| items(body.as_bytes(), format).unwrap_err();
        assert_eq!(rejected("[]", BatchFormat::Array), BatchRejection::Empty);
        assert_eq!(rejected("\n \n", BatchFormat::Lines), BatchRejection::Empty);
        for body in ["", "{}", "[{}", "[{}]x", "[{},]"] {
            let found = rejected(body, BatchFormat::Array);
            assert!(matches!(found, BatchRejection::Malformed(_)), "{body}: {found:?}");
        }
        let many = |count: usize| format!("[{}]", vec!["1"; count].join(","));
        assert_eq!(rejected(&many(1_001), BatchFormat::Array), BatchRejection::TooMany);
        assert_eq!(texts(&many(1_000), BatchFormat::Array).len(), 1_000);
        assert_eq!(rejected(&"1\n".repeat(1_001), BatchFormat::Lines), BatchRejection::TooMany);
    }
}
