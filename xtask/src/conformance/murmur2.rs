//! Java's partitioner: murmur2 of the key, positive, modulo the partitions. `[P]`
//! Source: `org.apache.kafka.common.utils.Utils.murmur2`.

use std::collections::BTreeMap;

/// Keys whose places the clients are asked for: short, long, of every length modulo four.
pub(crate) const KEYS: [&str; 12] = [
    "21",
    "foobar",
    "abc",
    "a-little-bit-long-string",
    "a-little-bit-longer-string",
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
    "x",
    "key-1",
    "key-22",
    "key-333",
    "levada",
    "grüße",
];

/// The partition of each of [`KEYS`] in a topic of `partitions`.
pub(crate) fn expected_partitions(partitions: i32) -> BTreeMap<&'static str, i32> {
    KEYS.into_iter().map(|key| (key, partition(key.as_bytes(), partitions))).collect()
}

fn partition(key: &[u8], partitions: i32) -> i32 {
    (murmur2(key).cast_signed() & i32::MAX) % partitions
}

fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    let length = u32::try_from(data.len()).expect("keys are short");
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("chunks of four bytes"));
        let mixed = word.wrapping_mul(MULTIPLIER);
        let mixed = (mixed ^ (mixed >> 24)).wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        for (position, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * position);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_equal_those_of_the_java_client() {
        // From the unit test of Java's `Utils.murmur2`.
        let known: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in known {
            assert_eq!(murmur2(key).cast_signed(), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn the_keys_reach_most_partitions() {
        let places: std::collections::BTreeSet<_> = expected_partitions(6).into_values().collect();
        assert!(places.len() >= 4, "{places:?}");
    }
}
