//! Which partition a key belongs to.
//!
//! Kafka's default partitioner for keyed records: murmur2 of the key, the sign bit dropped, modulo
//! the number of partitions. librdkafka calls it `murmur2_random`; every Kafka client can be set to
//! it, so any of them finds the records of a lead.

use uuid::Uuid;

const POSITIVE: u32 = 0x7fff_ffff;

/// The partition of `key` on a topic of `partitions` partitions; `partitions` is at least 1.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2` and `toPositive`.
pub fn of_key(key: &[u8], partitions: u32) -> i32 {
    let positive = murmur2(key) & POSITIVE;
    i32::try_from(positive % partitions.max(1)).unwrap_or(i32::MAX)
}

/// `id` with its last 16 bits changed so that its hyphenated text, as a key, belongs to `partition`
/// of `partitions`. `None` for one id in some thousands: no such bits are found within a bounded
/// search.
///
/// The text has nine words of four bytes, and the 16 bits are the last: a try costs one word.
pub fn place(id: Uuid, partition: u32, partitions: u32) -> Option<Uuid> {
    let mut buffer = Uuid::encode_buffer();
    let text = id.hyphenated().encode_lower(&mut buffer).as_bytes();
    let (head, _) = text.split_at(text.len() - 4);
    let (words, _) = head.as_chunks::<4>();
    let before = words.iter().fold(seed(text.len()), |h, word| mix(h, *word));
    let mut bytes = id.into_bytes();
    let given = u16::from_be_bytes([bytes[14], bytes[15]]);
    let tries = u16::try_from(partitions.saturating_mul(8)).unwrap_or(u16::MAX);
    let fits = |last: &u16| (finish(mix(before, hex(*last))) & POSITIVE) % partitions == partition;
    let last = (0..tries).map(|step| given.wrapping_add(step)).find(fits)?;
    [bytes[14], bytes[15]] = last.to_be_bytes();
    Some(Uuid::from_bytes(bytes))
}

fn hex(bits: u16) -> [u8; 4] {
    [12, 8, 4, 0].map(|shift| b"0123456789abcdef"[usize::from(bits >> shift & 0xf)])
}

const M: u32 = 0x5bd1_e995;

fn murmur2(data: &[u8]) -> u32 {
    let (words, tail) = data.as_chunks::<4>();
    let mut h = words.iter().fold(seed(data.len()), |h, word| mix(h, *word));
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    finish(h)
}

/// The length is mixed in as Java's int; keys are far shorter than 2 GiB.
fn seed(length: usize) -> u32 {
    0x9747_b28c ^ u32::try_from(length).unwrap_or(u32::MAX)
}

fn mix(h: u32, word: [u8; 4]) -> u32 {
    let k = u32::from_le_bytes(word).wrapping_mul(M);
    h.wrapping_mul(M) ^ (k ^ k >> 24).wrapping_mul(M)
}

fn finish(h: u32) -> u32 {
    let h = (h ^ h >> 13).wrapping_mul(M);
    h ^ h >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_kafkas() {
        #[allow(clippy::cast_sign_loss)]
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()), hash as u32, "{key}");
        }
    }

    #[test]
    fn an_id_is_placed_where_it_is_asked_for() {
        for partitions in [1, 2, 12, 100] {
            let mut left = 0;
            for n in 0..10_000_u32 {
                let spread = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
                let id = uuid::Builder::from_bytes(spread.to_be_bytes())
                    .with_version(uuid::Version::SortRand)
                    .with_variant(uuid::Variant::RFC4122)
                    .into_uuid();
                let Some(placed) = place(id, n % partitions, partitions) else {
                    left += 1;
                    continue;
                };
                let found = of_key(placed.to_string().as_bytes(), partitions);
                assert_eq!(u32::try_from(found).unwrap(), n % partitions);
                assert_eq!(placed.as_u128() >> 16, id.as_u128() >> 16);
                assert_eq!((placed.get_version_num(), placed.get_variant()), (7, id.get_variant()));
            }
            // Eight tries a partition miss with a probability of e^-8.
            assert!(left < 10, "{left} of 10,000 were not placed among {partitions}");
        }
    }
}
