//! Which partition a record goes to when its producer does not say. `[P]`
//! Source: Kafka's default partitioner: murmur2 of the key; without a key, one partition per batch
//! (KIP-480). The hash must be Java's to the bit, or records of one key part ways between clients.

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;

/// Murmur2 as Kafka's Java client computes it.
pub fn murmur2(key: &[u8]) -> u32 {
    // Java's int: keys are never as long as what the cast would lose.
    let length = u32::try_from(key.len() & 0x7fff_ffff).unwrap_or(0);
    let mut hash = SEED ^ length;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let mut mixed = word.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        mixed = mixed.wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> 24;
        mixed = mixed.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        hash ^= rest.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte));
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ hash >> 15
}

/// The place, among `partitions` of them, of the partition that keeps the records of `key`.
/// 0 when there are none.
pub fn place_of_key(key: &[u8], partitions: usize) -> usize {
    let positive = u64::from(murmur2(key) & 0x7fff_ffff);
    let place = positive.checked_rem(u64::try_from(partitions).unwrap_or(u64::MAX)).unwrap_or(0);
    usize::try_from(place).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Kafka's own test, `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_gives_the_published_values_of_the_java_client() {
        let vectors: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, expected) in vectors {
            assert_eq!(murmur2(key), expected.cast_unsigned(), "{key:?}");
        }
    }

    #[test]
    fn a_key_has_one_place_and_no_partition_is_no_panic() {
        // -973932308 & 0x7fffffff = 1173551340, which is 0 modulo 6 and 4 modulo 7.
        assert_eq!(place_of_key(b"21", 6), 1_173_551_340 % 6);
        assert_eq!(place_of_key(b"21", 7), 1_173_551_340 % 7);
        assert_eq!(place_of_key(b"21", 0), 0);
    }
}
