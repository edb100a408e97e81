//! The consumer group as the brokers know it.

use std::collections::BTreeMap;

use rdkafka::groups::GroupList;

/// The state of a group that nobody has ever joined, or that is forgotten.
const UNKNOWN: &str = "Unknown";

/// A consumer group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// `Stable`, `PreparingRebalance`, `CompletingRebalance`, `Empty`, `Dead`, or `Unknown`.
    pub state: String,
    /// Its members, in the order of their ids.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the broker gave it.
    pub id: String,
    /// What it calls itself.
    pub client: String,
    /// The address that it connects from.
    pub host: String,
    /// The partitions of the topic that it has.
    pub partitions: Vec<i32>,
}

impl Group {
    /// The group called `name` in an answer, with what its members have of `topic`.
    pub(super) fn of(list: &GroupList, name: &str, topic: &str) -> Self {
        let Some(group) = list.groups().iter().find(|group| group.name() == name) else {
            return Self { state: UNKNOWN.to_owned(), members: Vec::new() };
        };
        let member = |it: &rdkafka::groups::GroupMemberInfo| GroupMember {
            id: it.id().to_owned(),
            client: it.client_id().to_owned(),
            host: it.client_host().trim_start_matches('/').to_owned(),
            partitions: it
                .assignment()
                .and_then(|bytes| assigned(bytes, topic))
                .unwrap_or_default(),
        };
        let mut members: Vec<_> = group.members().iter().map(member).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        let state = if group.state().is_empty() { UNKNOWN } else { group.state() };
        Self { state: state.to_owned(), members }
    }

    /// Whether any member has a partition.
    pub fn is_active(&self) -> bool {
        self.members.iter().any(|member| !member.partitions.is_empty())
    }

    /// Which member has which partition, by its place in `members`.
    pub fn owners(&self) -> BTreeMap<i32, usize> {
        let members = self.members.iter().enumerate();
        members.flat_map(|(at, it)| it.partitions.iter().map(move |part| (*part, at))).collect()
    }
}

/// The partitions of `topic` in a member's assignment; `None` when the bytes are no assignment.
///
/// Source: Kafka's `ConsumerProtocolAssignment.json`: version `int16`, then an array of topics (name
/// as a string, partitions as an array of `int32`), then user data; lengths are `int32`, those of
/// strings `int16`, big-endian.
fn assigned(bytes: &[u8], topic: &str) -> Option<Vec<i32>> {
    let mut rest = bytes;
    let _version = take::<2>(&mut rest)?;
    let topics = i32::from_be_bytes(take(&mut rest)?);
    let mut found = Vec::new();
    for _ in 0..topics {
        let length = usize::try_from(i16::from_be_bytes(take(&mut rest)?)).ok()?;
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        for _ in 0..i32::from_be_bytes(take(&mut rest)?) {
            let partition = i32::from_be_bytes(take(&mut rest)?);
            if name == topic.as_bytes() {
                found.push(partition);
            }
        }
    }
    found.sort_unstable();
    Some(found)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_assignment_of_a_topic() {
        let bytes = b"\0\x03\0\0\0\x02\0\x01x\0\0\0\x01\0\0\0\x07\
            \0\x01y\0\0\0\x02\0\0\0\x02\0\0\0\x01\xff\xff\xff\xff";
        assert_eq!(assigned(bytes, "y"), Some(vec![1, 2]));
        assert_eq!(assigned(bytes, "x"), Some(vec![7]));
        assert_eq!(assigned(bytes, "z"), Some(vec![]));
        for length in 0..bytes.len() - 4 {
            assert_eq!(assigned(&bytes[..length], "y"), None, "{length}");
        }
    }
}
