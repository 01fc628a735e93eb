//! `[P]` Names, alignment and steps of growth of segment files.

use levada_record::Offset;

use crate::fields::{FieldError, FieldReader, FieldWriter};

/// First reservation of a segment, in bytes.
pub const GROWTH_MIN_BYTES: u64 = 64 << 10;
/// Largest single reservation, in bytes.
pub const GROWTH_MAX_BYTES: u64 = 64 << 20;
/// A reservation is at most this part of the free space: 1/8.
pub const GROWTH_FREE_SHARE: u64 = 8;

/// A segment file of one partition: first offset, and which attempt at it. A generation number is never
/// used twice in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// First offset that the file may hold.
    pub base: Offset,
    /// Counts the segments ever created in this partition.
    pub generation: u32,
}

impl SegmentName {
    /// Bytes of the encoded form.
    pub const ENCODED_BYTES: usize = 12;

    /// `<base>-<generation>.log`, both with leading zeros.
    pub fn file_name(self) -> String {
        format!("{:020}-{:06}.log", self.base.get(), self.generation)
    }

    /// The name behind a file name; `None` when it is not one of ours.
    pub fn parse(file_name: &str) -> Option<Self> {
        let stem = file_name.strip_suffix(".log")?;
        let (base, generation) = stem.split_once('-')?;
        let digits =
            |s: &str, least: usize| s.len() >= least && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(base, 20) || !digits(generation, 6) {
            return None;
        }
        let base: i64 = base.parse().ok()?;
        Some(Self { base: Offset(base), generation: generation.parse().ok()? })
    }

    pub(crate) fn put(self, out: &mut FieldWriter) {
        out.put_offset(self.base);
        out.put_u32(self.generation);
    }

    pub(crate) fn take(input: &mut FieldReader<'_>) -> Result<Self, FieldError> {
        let name =
            Self { base: input.offset("segment base")?, generation: input.u32("generation")? };
        // The next segment's generation is the next number.
        if name.generation == u32::MAX {
            return Err(FieldError::Value { field: "generation", got: u64::from(u32::MAX) });
        }
        Ok(name)
    }
}

/// The end of the reservation that makes room for `needed_end` bytes in a segment that has
/// `allocated` bytes and may become `limit` bytes long; `free` bytes are left on the file system.
///
/// Steps double from [`GROWTH_MIN_BYTES`] to [`GROWTH_MAX_BYTES`], stay below 1/8 of the free space, and never
/// below what is needed.
pub fn growth_end(allocated: u64, needed_end: u64, limit: u64, free: u64, block: u64) -> u64 {
    let step = allocated.clamp(GROWTH_MIN_BYTES, GROWTH_MAX_BYTES).min(free / GROWTH_FREE_SHARE);
    let wished = allocated.saturating_add(step).min(limit.next_multiple_of(block));
    wished.max(needed_end).next_multiple_of(block)
}

/// Largest multiple of `block` that is at most `position`.
pub fn align_down(position: u64, block: u64) -> u64 {
    position - position % block
}

/// Smallest multiple of `block` that is at least `position`.
pub fn align_up(position: u64, block: u64) -> u64 {
    position.next_multiple_of(block)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_and_strangers_do_not() {
        let name = SegmentName { base: Offset(1234), generation: 7 };
        assert_eq!(name.file_name(), "00000000000000001234-000007.log");
        assert_eq!(SegmentName::parse(&name.file_name()), Some(name));
        for stranger in ["a.log", "1-1.log", "00000000000000001234-000007.index", "-.log", ""] {
            assert_eq!(SegmentName::parse(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn growth_doubles_and_respects_limit_and_free_space() {
        let free = 1 << 40;
        assert_eq!(growth_end(0, 100, 1 << 30, free, 4096), 64 << 10);
        assert_eq!(growth_end(64 << 10, (64 << 10) + 1, 1 << 30, free, 4096), 128 << 10);
        assert_eq!(growth_end(1 << 28, (1 << 28) + 1, 1 << 30, free, 4096), (1 << 28) + (64 << 20));
        // Cut at the segment's limit, unless one batch needs more.
        assert_eq!(growth_end(1 << 20, (1 << 20) + 1, 1_500_000, free, 4096), 1_503_232);
        assert_eq!(growth_end(1 << 20, 2_000_000, 1_500_000, free, 4096), 2_002_944);
        // Little room left: only what is needed, in blocks.
        assert_eq!(growth_end(1 << 20, (1 << 20) + 1, 1 << 30, 0, 4096), (1 << 20) + 4096);
    }
}
