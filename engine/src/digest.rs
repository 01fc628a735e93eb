//! `[P]` The running digest of a log: a wrapping sum over its batches that is equal on every replica
//! and can be subtracted, so any range between two known positions has a digest of its own.

use levada_record::{BatchHeader, PartitionUid};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Sum over the batches of a log up to some batch boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Digest(u64);

impl Digest {
    /// Of a log without batches.
    pub const EMPTY: Self = Self(0);

    /// As stored.
    pub fn from_raw(raw: u64) -> Self {
        Self(raw)
    }

    /// For storing.
    pub fn raw(self) -> u64 {
        self.0
    }

    /// The digest after one more batch, whose stored bytes begin with `batch`: base offset, length,
    /// leader epoch, magic and checksum enter it, and whose log it is.
    #[must_use]
    pub fn after(self, uid: PartitionUid, batch: &[u8]) -> Self {
        let head = batch.get(..BatchHeader::DIGEST_BYTES).unwrap_or(batch);
        Self(self.0.wrapping_add(xxh3_64_with_seed(head, uid.0)))
    }

    /// The digest of the range between `earlier` and this.
    #[must_use]
    pub fn since(self, earlier: Self) -> Self {
        Self(self.0.wrapping_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_subtract_and_partitions_differ() {
        let (a, b) = (PartitionUid(1), PartitionUid(2));
        let (first, second) = ([1u8; 21], [2u8; 21]);
        let one = Digest::EMPTY.after(a, &first);
        let two = one.after(a, &second);
        assert_eq!(two.since(one), Digest::EMPTY.after(a, &second));
        assert_ne!(Digest::EMPTY.after(a, &first), Digest::EMPTY.after(b, &first));
    }
}
