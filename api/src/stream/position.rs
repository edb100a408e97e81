//! How far a reader of the log is, in all partitions, and the text that says so to a client.
//!
//! ```text
//! base64url( version 1 | workspace tag, 2 bytes | partitions | next offset of each
//!            | 1 + partition of the mark, or 0 | mark, 4 bytes, if any | CRC-32, 4 bytes )
//! ```
//!
//! Numbers are varints (LEB128). The mark is the checksum of the id of the record before the next one
//! of that partition: a log that was made anew has another record there. Nothing in it is secret and
//! none is needed: a position only selects offsets, and the workspace's filter always holds.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::BytesMut;
use uuid::Uuid;

const VERSION: u8 = 1;
/// A topic has fewer; a text that says more is none of ours.
const MAX_PARTITIONS: u64 = 10_000;

/// Everything before these offsets has been seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    next: Vec<i64>,
    mark: Option<Mark>,
}

/// The record before the next one of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The partition.
    pub partition: usize,
    /// Checksum of the record's id.
    pub id: u32,
}

/// Why a text is no position for this workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PositionError {
    /// Cut, changed, or never given by this service.
    #[error("is not a position of this service, unchanged")]
    Invalid,
    /// Given to another workspace.
    #[error("is a position of another workspace")]
    Foreign,
}

impl Position {
    /// The position before these offsets.
    pub fn at(next: Vec<i64>) -> Self {
        Self { next, mark: None }
    }

    /// The next offset of each partition.
    pub fn next(&self) -> &[i64] {
        &self.next
    }

    /// The record that the position remembers, and where it stands.
    pub fn mark(&self) -> Option<(Mark, i64)> {
        let mark = self.mark?;
        Some((mark, self.next.get(mark.partition)? - 1))
    }

    /// Whether the record at `offset` has been seen.
    pub fn has_seen(&self, partition: usize, offset: i64) -> bool {
        self.next.get(partition).is_some_and(|next| offset < *next)
    }

    /// The record at `offset` has been seen; `id` is the checksum of its id.
    pub fn see(&mut self, partition: usize, offset: i64, id: u32) {
        if let Some(next) = self.next.get_mut(partition) {
            *next = offset + 1;
            self.mark = Some(Mark { partition, id });
        }
    }

    /// Whether everything before `other` has been seen.
    pub fn covers(&self, other: &Self) -> bool {
        self.next.len() == other.next.len()
            && self.next.iter().zip(&other.next).all(|(here, there)| here >= there)
    }

    /// Everything before `other` has been seen as well.
    pub fn merge(&mut self, other: &Self) {
        let stands = |mark: &Mark, next: &[i64], merged: &[i64]| {
            next.get(mark.partition) == merged.get(mark.partition)
        };
        let merged: Vec<i64> =
            self.next.iter().zip(&other.next).map(|(here, there)| *here.max(there)).collect();
        let theirs = other.mark.filter(|mark| stands(mark, &other.next, &merged));
        let ours = self.mark.filter(|mark| stands(mark, &self.next, &merged));
        *self = Self { next: merged, mark: theirs.or(ours) };
    }

    /// Reads the text that was given to this workspace.
    ///
    /// # Errors
    /// See [`PositionError`].
    pub fn read(text: &str, workspace_id: Uuid) -> Result<Self, PositionError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| PositionError::Invalid)?;
        let (payload, sum) = bytes.split_last_chunk::<4>().ok_or(PositionError::Invalid)?;
        if crc32fast::hash(payload) != u32::from_be_bytes(*sum) {
            return Err(PositionError::Invalid);
        }
        let [VERSION, first, second, rest @ ..] = payload else {
            return Err(PositionError::Invalid);
        };
        let position = read_rest(rest).ok_or(PositionError::Invalid)?;
        if [*first, *second] == tag(workspace_id) {
            Ok(position)
        } else {
            Err(PositionError::Foreign)
        }
    }
}

fn read_rest(mut bytes: &[u8]) -> Option<Position> {
    let partitions = varint(&mut bytes).filter(|count| (1..=MAX_PARTITIONS).contains(count))?;
    let next: Option<Vec<i64>> =
        (0..partitions).map(|_| i64::try_from(varint(&mut bytes)?).ok()).collect();
    let next = next?;
    let mark = match varint(&mut bytes)? {
        0 => None,
        number => {
            let partition = usize::try_from(number - 1).ok()?;
            let (id, rest) = bytes.split_first_chunk::<4>()?;
            bytes = rest;
            next.get(partition).filter(|next| **next > 0)?;
            Some(Mark { partition, id: u32::from_be_bytes(*id) })
        }
    };
    bytes.is_empty().then_some(Position { next, mark })
}

/// Writes the positions of one workspace's stream.
#[derive(Debug)]
pub struct PositionWriter {
    tag: [u8; 2],
    scratch: Vec<u8>,
}

impl PositionWriter {
    /// For the positions of a workspace.
    pub fn new(workspace_id: Uuid) -> Self {
        Self { tag: tag(workspace_id), scratch: Vec::with_capacity(128) }
    }

    /// Appends a position's text.
    pub fn write(&mut self, position: &Position, out: &mut BytesMut) {
        let bytes = &mut self.scratch;
        bytes.clear();
        bytes.push(VERSION);
        bytes.extend(self.tag);
        push_varint(bytes, position.next.len() as u64);
        for next in &position.next {
            push_varint(bytes, u64::try_from(*next).unwrap_or(0));
        }
        match position.mark {
            None => bytes.push(0),
            Some(mark) => {
                push_varint(bytes, mark.partition as u64 + 1);
                bytes.extend(mark.id.to_be_bytes());
            }
        }
        let sum = crc32fast::hash(bytes);
        bytes.extend(sum.to_be_bytes());
        let start = out.len();
        out.resize(start + base64::encoded_len(bytes.len(), false).unwrap_or(0), 0);
        // There is just room for it.
        let _ = URL_SAFE_NO_PAD.encode_slice(&*bytes, &mut out[start..]);
    }

    /// A position's text.
    pub fn text(&mut self, position: &Position) -> String {
        let mut out = BytesMut::new();
        self.write(position, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

/// Tells workspaces apart, so that a mix-up is an error. It keeps nothing secret.
fn tag(workspace_id: Uuid) -> [u8; 2] {
    let [first, second, ..] = crc32fast::hash(workspace_id.as_bytes()).to_be_bytes();
    [first, second]
}

fn push_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..63).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn position() -> impl Strategy<Value = Position> {
        let next = prop::collection::vec(prop_oneof![0..300_i64, 0..i64::MAX], 1..40);
        (next, any::<Option<(usize, u32)>>()).prop_map(|(next, mark)| {
            let mark = mark.map(|(at, id)| Mark { partition: at % next.len(), id });
            let mark = mark.filter(|mark| next[mark.partition] > 0);
            Position { next, mark }
        })
    }

    proptest! {
        #[test]
        fn comes_back_as_it_was_and_only_to_its_workspace(position in position()) {
            let (mine, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
            let text = PositionWriter::new(mine).text(&position);
            prop_assert_eq!(Position::read(&text, mine), Ok(position));
            prop_assert_eq!(Position::read(&text, other), Err(PositionError::Foreign));
        }

        #[test]
        fn a_changed_text_is_none(position in position(), at: usize, to: u8) {
            let mine = Uuid::from_u128(1);
            let text = PositionWriter::new(mine).text(&position);
            let mut changed = text.clone().into_bytes();
            let at = at % changed.len();
            changed[at] = to;
            if let Ok(changed) = String::from_utf8(changed) && changed != text {
                prop_assert_eq!(Position::read(&changed, mine), Err(PositionError::Invalid));
            }
            prop_assert_eq!(Position::read(&text[..at], mine), Err(PositionError::Invalid));
        }

        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = Position::read(&text, Uuid::nil());
        }

        #[test]
        fn merging_goes_back_nowhere(ours in position(), theirs in position()) {
            let count = ours.next.len().min(theirs.next.len());
            let cut = |mut it: Position| {
                it.next.truncate(count);
                it.mark = it.mark.filter(|mark| mark.partition < count);
                it
            };
            let (ours, theirs) = (cut(ours), cut(theirs));
            let mut merged = ours.clone();
            merged.merge(&theirs);
            prop_assert!(merged.covers(&ours) && merged.covers(&theirs));
            // Its mark is a record that one of the two has seen just there.
            if let Some(mark) = merged.mark() {
                prop_assert!([ours.mark(), theirs.mark()].contains(&Some(mark)));
            }
        }
    }

    #[test]
    fn a_usual_one_is_short() {
        let mut position = Position::at(vec![1_000_000; 12]);
        position.see(3, 1_000_000, 7);
        let text = PositionWriter::new(Uuid::nil()).text(&position);
        assert!(text.len() <= 68, "{}", text.len());
        assert_eq!(position.mark(), Some((Mark { partition: 3, id: 7 }, 1_000_000)));
    }
}
