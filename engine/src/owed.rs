//! `[P]` The durable bytes of a log that stand only in the journal: what write-behind owes to the segments.

use smallvec::SmallVec;

/// Ascending, disjoint runs of log positions. Every run begins at a block boundary; every run but the last ends at
/// one, or at the end of a sealed segment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Owed {
    runs: SmallVec<[(u64, u64); 2]>,
}

impl Owed {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// First position owed.
    pub(crate) fn first(&self) -> Option<u64> {
        self.runs.first().map(|(from, _)| *from)
    }

    pub(crate) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().copied()
    }

    /// Bytes owed.
    pub(crate) fn bytes(&self) -> u64 {
        self.runs.iter().map(|(from, end)| end - from).sum()
    }

    /// Owes `from..end` too; it begins where the last run ends, or behind it.
    pub(crate) fn add(&mut self, from: u64, end: u64) {
        if from == end {
            return;
        }
        match self.runs.last_mut() {
            Some(last) if last.1 == from => last.1 = end,
            last => {
                assert!(last.is_none_or(|last| last.1 <= from), "runs ascend");
                self.runs.push((from, end));
            }
        }
    }

    /// `from..end` was written.
    pub(crate) fn settle(&mut self, from: u64, end: u64) {
        let mut left = SmallVec::new();
        for (low, high) in self.runs.drain(..) {
            if low < from.min(high) {
                left.push((low, from.min(high)));
            }
            if high > end.max(low) {
                left.push((end.max(low), high));
            }
        }
        self.runs = left;
    }

    /// Nothing at or behind `end` is owed any more.
    pub(crate) fn truncate(&mut self, end: u64) {
        self.settle(end, u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_join_split_and_are_cut() {
        let mut owed = Owed::default();
        owed.add(0, 10);
        owed.add(10, 20);
        owed.add(40, 60);
        assert_eq!(owed.runs().collect::<Vec<_>>(), [(0, 20), (40, 60)]);
        owed.settle(5, 45);
        assert_eq!(owed.runs().collect::<Vec<_>>(), [(0, 5), (45, 60)]);
        assert_eq!(owed.bytes(), 20);
        owed.truncate(50);
        assert_eq!(owed.runs().collect::<Vec<_>>(), [(0, 5), (45, 50)]);
        owed.settle(0, 100);
        assert!(owed.is_empty());
    }
}
