//! A set of block numbers kept as disjoint ranges: which blocks of a file have room on the disk. \[P\]

use std::collections::BTreeMap;
use std::ops::Range;

/// Disjoint, non-adjacent half-open ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    ends: BTreeMap<u64, u64>,
    len: u64,
}

impl Ranges {
    /// Numbers in the set.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds `range`.
    pub(super) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let Range { mut start, mut end } = range;
        if let Some((&before, &before_end)) = self.ends.range(..=start).next_back()
            && before_end >= start
        {
            start = before;
            end = end.max(before_end);
        }
        let joined: Vec<(u64, u64)> = self.ends.range(start..=end).map(|(s, e)| (*s, *e)).collect();
        for (joined_start, joined_end) in joined {
            end = end.max(joined_end);
            self.ends.remove(&joined_start);
            self.len -= joined_end - joined_start;
        }
        self.ends.insert(start, end);
        self.len += end - start;
    }

    /// How many numbers of `range` are not in the set.
    pub(super) fn missing(&self, range: &Range<u64>) -> u64 {
        let mut present = 0;
        for (start, end) in self.ends.range(..range.end) {
            present += range.end.min(*end).saturating_sub(range.start.max(*start));
        }
        (range.end.saturating_sub(range.start)) - present
    }

    /// Removes every number at or above `from`.
    pub(super) fn cut(&mut self, from: u64) {
        let behind = self.ends.split_off(&from);
        self.len -= behind.iter().map(|(start, end)| end - start).sum::<u64>();
        if let Some(mut last) = self.ends.last_entry()
            && *last.get() > from
        {
            self.len -= *last.get() - from;
            *last.get_mut() = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn ranges_are_the_set_of_their_numbers(
            steps in prop::collection::vec((0u64..60, 0u64..20, any::<bool>()), 0..40),
            probe in (0u64..60, 0u64..20),
        ) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (start, len, cut) in steps {
                if cut && len < 5 {
                    ranges.cut(start);
                    set.retain(|number| *number < start);
                } else {
                    ranges.insert(start..start + len);
                    set.extend(start..start + len);
                }
                prop_assert_eq!(ranges.len(), set.len() as u64);
            }
            let probe = probe.0..probe.0 + probe.1;
            let missing = probe.clone().filter(|number| !set.contains(number)).count();
            prop_assert_eq!(ranges.missing(&probe), missing as u64);
        }
    }
}
