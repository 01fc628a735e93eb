//! The checksum of a batch: CRC-32C (Castagnoli), by hardware where there is any. `[P]`

use crate::header::CHECKED_FROM;

/// CRC-32C of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

/// CRC-32C of the part of a batch that its checksum covers: all from the attributes on. A slice
/// too short to have such a part has the checksum of nothing, 0.
pub fn batch_checksum(batch: &[u8]) -> u32 {
    crc32c(batch.get(CHECKED_FROM..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_gives_the_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(batch_checksum(&[1; 20]), 0);
    }
}
