//! Records of the access topic, and keys as they stand in requests.

use leads_api::access::{AccessRecord, Directory, Scope, digest};

/// The first line of `data` is a key's text, the rest a record. A record that is read is written and
/// read back as the same; it opens for its own text and for no other, and not once it is revoked.
pub fn access(data: &[u8]) {
    let border = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let (text, value) = (&data[..border], data.get(border + 1..).unwrap_or_default());
    let Ok(mut record) = serde_json::from_slice::<AccessRecord>(value) else { return };
    let written = serde_json::to_vec(&record).expect("what was read can be written");
    let again: AccessRecord = serde_json::from_slice(&written).expect("and read again");
    assert_eq!(again, record);

    if let Some(digest) = record.digest() {
        assert_eq!(hexadecimal(&digest), record.sha256.to_ascii_lowercase());
    }
    let directory = Directory::default();
    directory.apply(&record);
    let mine = digest(text);
    assert_eq!(directory.find(&mine).is_some(), opens(&record, &mine));

    record.set_digest(&mine);
    assert_eq!(record.digest(), Some(mine));
    record.revoked_at = None;
    directory.apply(&record);
    let key = directory.find(&mine).expect("a record opens for the text it is of");
    assert_eq!((key.id, key.workspace_id), (record.id, record.workspace_id));
    for scope in Scope::ALL {
        assert_eq!(key.allows(scope), record.scopes.contains(&scope));
    }
    assert!(directory.find(&digest(&[text, b"x"].concat())).is_none());
    record.revoked_at = Some(record.created_at);
    directory.apply(&record);
    assert!(directory.find(&mine).is_none());
}

fn opens(record: &AccessRecord, mine: &[u8; 32]) -> bool {
    record.revoked_at.is_none() && record.sha256.eq_ignore_ascii_case(&hexadecimal(mine))
}

fn hexadecimal(digest: &[u8; 32]) -> String {
    let digits = digest.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}
