//! Sets of partitions.

/// A set of partitions, in one word. Numbers that are the same modulo [`PartitionSet::PLACES`] are
/// one: of a topic with more partitions, what holds for one of them is taken to hold for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PartitionSet(u64);

impl PartitionSet {
    /// How many partitions are told apart.
    pub const PLACES: usize = 64;

    /// Where what belongs to a partition stands, below [`PartitionSet::PLACES`].
    pub fn place(partition: i32) -> usize {
        usize::try_from(partition).unwrap_or(0) % Self::PLACES
    }

    /// The set whose bits these are.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit for each place.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Puts the partitions of a place in.
    pub fn insert_place(&mut self, place: usize) {
        self.0 |= 1 << (place % Self::PLACES);
    }

    /// Whether the partition is in it.
    pub fn contains(self, partition: i32) -> bool {
        self.0 >> Self::place(partition) & 1 == 1
    }

    /// What is in one or the other.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether nothing is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many places are in it.
    pub fn len(self) -> usize {
        usize::try_from(self.0.count_ones()).unwrap_or(Self::PLACES)
    }
}

impl FromIterator<i32> for PartitionSet {
    fn from_iter<T: IntoIterator<Item = i32>>(partitions: T) -> Self {
        let mut set = Self::default();
        for partition in partitions {
            set.insert_place(Self::place(partition));
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_apart_up_to_sixty_four() {
        let set = PartitionSet::from_iter([0, 3, 63, 64 + 5]);
        let found: Vec<_> = (0..64).filter(|partition| set.contains(*partition)).collect();
        assert_eq!(found, [0, 3, 5, 63]);
        assert!(set.contains(64 + 3) && set.contains(128) && !set.contains(64 + 4));
        assert_eq!((set.len(), PartitionSet::default().len()), (4, 0));
        assert_eq!(PartitionSet::from_bits(set.bits()), set);
        assert_eq!(set.union([1].into_iter().collect()).len(), 5);
        assert!(PartitionSet::default().is_empty() && !set.is_empty());
    }
}
