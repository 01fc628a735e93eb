//! Offsets count records of one partition, never bytes. `[P]`

use std::fmt;

/// Number of a record in its partition, or of the place where the next one will go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Offset(pub i64);

impl Offset {
    /// The first offset of every partition.
    pub const ZERO: Offset = Offset(0);

    /// The greatest offset there can be; no record ever has it, because its end would not fit.
    pub const MAX: Offset = Offset(i64::MAX);

    /// The bare number.
    pub const fn get(self) -> i64 {
        self.0
    }

    /// The offset `records` further on.
    ///
    /// Both numbers must come from verified batches, which cannot leave the range: at a million
    /// records a second it lasts 292,000 years. Asserts that they did not.
    #[must_use]
    pub fn advance(self, records: impl Into<i64>) -> Offset {
        let records = records.into();
        match self.0.checked_add(records) {
            Some(sum) => Offset(sum),
            None => panic!("offset {} advanced by {records} leaves the range of i64", self.0),
        }
    }

    /// The offset `records` further on, or `None` outside the range: for numbers not verified yet.
    pub fn checked_advance(self, records: impl Into<i64>) -> Option<Offset> {
        self.0.checked_add(records.into()).map(Offset)
    }

    /// How many records lie in `[earlier, self)`; negative when `earlier` is the later one.
    pub const fn since(self, earlier: Offset) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<i64> for Offset {
    fn from(offset: i64) -> Self {
        Offset(offset)
    }
}

/// The records from `start` (inclusive) to `end` (exclusive).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct OffsetRange {
    /// First offset inside.
    pub start: Offset,
    /// First offset behind.
    pub end: Offset,
}

impl OffsetRange {
    /// The range `[start, end)`. Asserts `start <= end`.
    pub fn new(start: Offset, end: Offset) -> Self {
        assert!(start <= end, "range of offsets {start}..{end} runs backwards");
        OffsetRange { start, end }
    }

    /// How many offsets it spans.
    pub const fn len(self) -> i64 {
        self.end.since(self.start)
    }

    /// Whether it holds no offset.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// Whether `offset` lies inside.
    pub fn contains(self, offset: Offset) -> bool {
        self.start <= offset && offset < self.end
    }

    /// Whether both hold at least one offset in common.
    pub fn overlaps(self, other: OffsetRange) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl fmt::Display for OffsetRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_include_their_start_and_exclude_their_end() {
        let range = OffsetRange::new(Offset(3), Offset(5));
        assert!(range.contains(Offset(3)));
        assert!(!range.contains(Offset(5)));
        assert_eq!(range.len(), 2);
        assert!(!range.overlaps(OffsetRange::new(Offset(5), Offset(9))));
        assert!(range.overlaps(OffsetRange::new(Offset(4), Offset(9))));
        assert!(OffsetRange::new(Offset(5), Offset(5)).is_empty());
    }

    #[test]
    fn unverified_numbers_cannot_leave_the_range() {
        assert_eq!(Offset::MAX.checked_advance(1), None);
        assert_eq!(Offset(7).checked_advance(3u32), Some(Offset(10)));
    }
}
