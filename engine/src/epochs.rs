//! `[P]` Where each leader epoch starts in a log. Source: KIP-101, KIP-279.

use levada_record::{LeaderEpoch, Offset};
use smallvec::SmallVec;

/// Ascending epochs with the offset of their first batch.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct EpochStarts {
    starts: SmallVec<[(LeaderEpoch, Offset); 1]>,
}

impl EpochStarts {
    /// From ascending pairs; later pairs that do not ascend are dropped.
    pub(crate) fn from_pairs(pairs: &[(LeaderEpoch, Offset)]) -> Self {
        let mut epochs = Self::default();
        for (epoch, start) in pairs {
            epochs.note(*epoch, *start);
        }
        epochs
    }

    /// Notes a batch of `epoch` at `base`. Whether the epoch starts with it, as far as the log still reaches.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, base: Offset) -> bool {
        if self.starts.last().is_none_or(|(last, _)| *last < epoch) {
            self.starts.push((epoch, base));
        }
        // Also after the log start was moved to the very end: no manifest has the epoch then.
        self.starts.last() == Some(&(epoch, base))
    }

    /// Forgets what starts at or behind `end`.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.starts.retain(|(_, start)| *start < end);
    }

    /// Forgets epochs that end at or before `log_start`; the one that holds it starts there now.
    pub(crate) fn advance_start(&mut self, log_start: Offset) {
        let holder = self.starts.iter().rposition(|(_, start)| *start <= log_start);
        if let Some(index) = holder {
            drop(self.starts.drain(..index));
            if let Some(first) = self.starts.first_mut() {
                first.1 = log_start;
            }
        }
    }

    /// The newest epoch.
    pub(crate) fn last(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|(epoch, _)| *epoch)
    }

    /// The epoch that the batch at `offset` was written in.
    pub(crate) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let (epoch, _) = self.starts.iter().rfind(|(_, start)| *start <= offset)?;
        Some(*epoch)
    }

    /// The pairs below `end`, for storing.
    pub(crate) fn below(&self, end: Offset) -> Vec<(LeaderEpoch, Offset)> {
        self.starts.iter().copied().filter(|(_, start)| *start < end).collect()
    }

    /// The largest epoch that is at most `asked`, and its exclusive end, in a log that ends at `log_end`.
    /// `None` when `asked` is newer than all, or older than all.
    pub(crate) fn end_of(
        &self,
        asked: LeaderEpoch,
        log_end: Offset,
    ) -> Option<(LeaderEpoch, Offset)> {
        if self.last().is_none_or(|last| asked > last) {
            return None;
        }
        let index = self.starts.iter().rposition(|(epoch, _)| *epoch <= asked)?;
        let (epoch, _) = self.starts.get(index)?;
        let end = self.starts.get(index + 1).map_or(log_end, |(_, start)| *start);
        Some((*epoch, end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_starts_again_when_everything_before_was_given_up() {
        let mut epochs = EpochStarts::default();
        assert!(epochs.note(LeaderEpoch(3), Offset(5)));
        assert!(!epochs.note(LeaderEpoch(3), Offset(7)));
        epochs.advance_start(Offset(9));
        assert!(epochs.note(LeaderEpoch(3), Offset(9)));
        assert!(!epochs.note(LeaderEpoch(3), Offset(11)));
        assert_eq!(epochs.below(Offset(12)), [(LeaderEpoch(3), Offset(9))]);
    }

    fn epochs(pairs: &[(i32, i64)]) -> EpochStarts {
        let pairs: Vec<_> = pairs.iter().map(|(e, o)| (LeaderEpoch(*e), Offset(*o))).collect();
        EpochStarts::from_pairs(&pairs)
    }

    #[test]
    fn end_of_an_epoch_is_the_start_of_the_next() {
        let starts = epochs(&[(1, 0), (3, 10), (4, 20)]);
        let end = |e| starts.end_of(LeaderEpoch(e), Offset(25)).map(|(e, o)| (e.get(), o.get()));
        assert_eq!(end(0), None);
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)));
        assert_eq!(end(4), Some((4, 25)));
        assert_eq!(end(5), None);
    }

    #[test]
    fn an_offset_belongs_to_the_last_epoch_that_starts_at_or_before_it() {
        let starts = epochs(&[(1, 5), (3, 10), (4, 20)]);
        let at = |offset| starts.at(Offset(offset)).map(LeaderEpoch::get);
        assert_eq!(
            [4, 5, 9, 10, 19, 20, 99].map(at),
            [None, Some(1), Some(1), Some(3), Some(3), Some(4), Some(4)]
        );
    }

    #[test]
    fn truncation_and_log_start_cut_both_sides() {
        let mut starts = epochs(&[(1, 0), (3, 10), (4, 20)]);
        starts.truncate(Offset(20));
        starts.advance_start(Offset(12));
        assert_eq!(starts, epochs(&[(3, 12)]));
    }
}
