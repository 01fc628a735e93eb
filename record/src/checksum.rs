//! The checksum of a batch, by hardware where there is any. `[P]` Kafka's records have CRC-32C
//! (Castagnoli), as Kafka demands; columns have CRC-32 (IEEE 802.3).

use crate::header::{CHECKED_FROM, Encoding, MAGIC_AT};

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of what had the CRC-32C `so_far`, with `bytes` behind it.
pub fn crc32c_append(so_far: u32, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(so_far, bytes)
}

/// CRC-32 of `bytes`.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

/// Checksum of the part of a batch that it covers: all from the attributes on. The magic in the
/// batch chooses which; any but that of columns chooses CRC-32C. A slice too short to have such a
/// part has the checksum of nothing, 0.
pub fn batch_checksum(batch: &[u8]) -> u32 {
    let covered = batch.get(CHECKED_FROM..).unwrap_or_default();
    match batch.get(MAGIC_AT).copied().and_then(Encoding::from_magic) {
        Some(Encoding::Columnar) => crc32(covered),
        Some(Encoding::KafkaV2) | None => crc32c(covered),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_give_their_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c_append(crc32c(b"12345"), b"6789"), 0xe306_9283);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn the_magic_chooses_the_checksum() {
        let mut batch = [0; 30];
        batch[CHECKED_FROM..].copy_from_slice(b"123456789");
        assert_eq!(batch_checksum(&batch), 0xe306_9283);
        batch[MAGIC_AT] = Encoding::Columnar.magic();
        assert_eq!(batch_checksum(&batch), 0xcbf4_3926);
        assert_eq!(batch_checksum(&[1; 20]), 0);
    }
}
