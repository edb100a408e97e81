//! Bodies of batches, cut into items.

use leads_api::domain::{
    BatchFormat, BatchRejection, MAX_BATCH_BYTES, MAX_BATCH_ITEMS, Rejection, items,
};
use serde_json::value::RawValue;

use super::body::is_in;

/// Both formats give the items that a naive cut gives, in their order, from where they stand in the
/// body, with the line they start on.
pub fn batch(data: &[u8]) {
    if data.len() > MAX_BATCH_BYTES {
        return;
    }
    lines(data);
    array(data);
}

fn lines(data: &[u8]) {
    let naive: Vec<(Vec<u8>, usize)> = escaped(data)
        .split('\n')
        .enumerate()
        .map(|(i, line)| (unescaped(line.trim_matches([' ', '\t', '\r', '\x0c'])), i + 1))
        .filter(|(line, _)| !line.is_empty())
        .collect();
    let found = items(data, BatchFormat::Lines);
    match naive.len() {
        0 => assert_eq!(found, Err(BatchRejection::Empty)),
        1..=MAX_BATCH_ITEMS => {
            let found = found.expect("any line is an item");
            are_parts_of(data, &found);
            assert!(found.iter().map(|(item, line)| (item.to_vec(), *line)).eq(naive));
        }
        _ => assert_eq!(found, Err(BatchRejection::TooMany)),
    }
}

/// Every byte as one character, so that a text's methods can cut what is no text.
fn escaped(data: &[u8]) -> String {
    data.iter().map(|byte| char::from(*byte)).collect()
}

fn unescaped(line: &str) -> Vec<u8> {
    line.chars().map(|c| u8::try_from(u32::from(c)).expect("a byte")).collect()
}

fn array(data: &[u8]) {
    let text = std::str::from_utf8(data).ok();
    let naive = text.and_then(|text| serde_json::from_str::<Vec<&RawValue>>(text).ok());
    match (items(data, BatchFormat::Array), naive) {
        (Ok(found), Some(naive)) => {
            are_parts_of(data, &found);
            assert!(
                found.iter().map(|(item, _)| *item).eq(naive.iter().map(|v| v.get().as_bytes()))
            );
            for (item, line) in &found {
                let before = &data[..offset(data, item)];
                assert_eq!(*line, before.split(|byte| *byte == b'\n').count());
            }
            let joined: Vec<_> = naive.iter().map(|value| value.get()).collect();
            let joined = format!("[{}]", joined.join(" ,\n"));
            let again = items(joined.as_bytes(), BatchFormat::Array).expect("the same items");
            assert!(again.iter().map(|(item, _)| item).eq(found.iter().map(|(item, _)| item)));
        }
        (Err(BatchRejection::Empty), Some(naive)) => assert!(naive.is_empty()),
        // More than are taken are not looked at further, whatever they are.
        (Err(BatchRejection::TooMany), naive) => {
            assert!(naive.is_none_or(|naive| naive.len() > MAX_BATCH_ITEMS));
            assert!(data.split(|byte| *byte == b',').count() > MAX_BATCH_ITEMS);
        }
        (Err(BatchRejection::Malformed(rejection)), None) => {
            let Rejection::Malformed { line, column, .. } = rejection else {
                panic!("{rejection:?}")
            };
            is_in(data, line, column);
        }
        (found, naive) => panic!("{found:?} where a naive cut gives {naive:?}"),
    }
}

/// No item is copied, overlaps another or stands before an earlier one.
fn are_parts_of(data: &[u8], items: &[(&[u8], usize)]) {
    let mut end = 0;
    for (item, _) in items {
        let start = offset(data, item);
        assert!(start >= end);
        end = start + item.len();
    }
    assert!(end <= data.len());
}

fn offset(data: &[u8], item: &[u8]) -> usize {
    (item.as_ptr() as usize).checked_sub(data.as_ptr() as usize).expect("a part of the body")
}
