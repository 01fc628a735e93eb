//! Whether a partition gave back what was put into it: nothing lost, nothing twice, every producer's
//! records in order. `[P]` Exact, by the sequence numbers in the payloads; O(1) per record.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::payload::Stamp;

/// What was sent to one partition by one producer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SentLane {
    /// How many records: their sequences are 0 up to this, exclusive.
    pub sent: u64,
    /// Sequences that were not acknowledged, in rising order: they may be there or not.
    pub failed: Vec<Range<u64>>,
}

/// What one reader saw of one producer in one partition.
#[derive(Debug, Clone, Default)]
struct SeenLane {
    /// First sequence that was not seen yet, nor any behind it.
    next: u64,
    /// Sequences before `next` that were not seen.
    gaps: Vec<Range<u64>>,
}

/// What was wrong with the records, in numbers of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Read, and of this run.
    pub received: u64,
    /// Acknowledged and not there.
    pub lost: u64,
    /// There more than once.
    pub duplicated: u64,
    /// Before one that was sent earlier.
    pub reordered: u64,
    /// Not of this run, or without a stamp.
    pub foreign: u64,
}

impl Findings {
    /// Whether everything is as it must be.
    pub fn is_clean(&self) -> bool {
        (self.lost, self.duplicated, self.reordered, self.foreign) == (0, 0, 0, 0)
    }

    /// Adds those of another partition or reader.
    pub fn add(&mut self, other: &Self) {
        self.received += other.received;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.foreign += other.foreign;
    }
}

impl std::fmt::Display for Findings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { lost, duplicated, reordered, foreign, .. } = self;
        write!(f, "{lost} lost, {duplicated} doubled, {reordered} out of order, {foreign} foreign")
    }
}

/// Watches the records of one partition as one reader gets them.
#[derive(Debug)]
pub struct Checker {
    run: u32,
    lanes: Vec<SeenLane>,
    findings: Findings,
}

impl Checker {
    /// For the records of `run`, of producers 0 up to `producers`.
    pub fn new(run: u32, producers: usize) -> Self {
        Self { run, lanes: vec![SeenLane::default(); producers], findings: Findings::default() }
    }

    /// Notes a record's stamp.
    pub fn on_record(&mut self, stamp: Option<Stamp>) {
        let known = stamp.filter(|stamp| stamp.run == self.run);
        let lane = known.and_then(|stamp| {
            let place = usize::try_from(stamp.producer).ok()?;
            Some((stamp.sequence, self.lanes.get_mut(place)?))
        });
        let Some((sequence, lane)) = lane else {
            self.findings.foreign += 1;
            return;
        };
        self.findings.received += 1;
        if sequence == lane.next {
            lane.next += 1;
        } else if lane.next < sequence {
            lane.gaps.push(lane.next..sequence);
            lane.next = sequence + 1;
        } else if lane.fill_gap(sequence) {
            self.findings.reordered += 1;
        } else {
            self.findings.duplicated += 1;
        }
    }

    /// What is wrong, once everything was read; `sent` by producer.
    pub fn finish(mut self, sent: &[SentLane]) -> Findings {
        let nothing = SentLane::default();
        for (place, mut lane) in self.lanes.into_iter().enumerate() {
            let sent = sent.get(place).unwrap_or(&nothing);
            if lane.next < sent.sent {
                lane.gaps.push(lane.next..sent.sent);
            }
            let missing: u64 = lane.gaps.iter().map(|gap| gap.end - gap.start).sum();
            let excused: u64 = lane.gaps.iter().map(|gap| overlap(gap, &sent.failed)).sum();
            self.findings.lost += missing - excused;
        }
        self.findings
    }
}

impl SeenLane {
    /// Takes a sequence out of the gaps; false when it is in none.
    fn fill_gap(&mut self, sequence: u64) -> bool {
        let Some(place) = self.gaps.iter().position(|gap| gap.contains(&sequence)) else {
            return false;
        };
        let gap = self.gaps.swap_remove(place);
        for part in [gap.start..sequence, sequence + 1..gap.end] {
            if !part.is_empty() {
                self.gaps.push(part);
            }
        }
        true
    }
}

/// How many of `gap` are in `failed`, whose ranges do not overlap.
fn overlap(gap: &Range<u64>, failed: &[Range<u64>]) -> u64 {
    let part = |failed: &Range<u64>| {
        let end = gap.end.min(failed.end);
        end.saturating_sub(gap.start.max(failed.start))
    };
    failed.iter().map(part).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seen: &[u64], sent: u64, failed: &[(u64, u64)], expected: [u64; 3]) {
        let mut checker = Checker::new(7, 2);
        for sequence in seen {
            let stamp = Stamp { run: 7, producer: 1, sequence: *sequence, intended_ns: 0 };
            checker.on_record(Some(stamp));
        }
        let lanes = [
            SentLane::default(),
            SentLane { sent, failed: failed.iter().map(|(start, end)| *start..*end).collect() },
        ];
        let found = checker.finish(&lanes);
        assert_eq!([found.lost, found.duplicated, found.reordered], expected, "{seen:?}");
        assert_eq!(found.received, u64::try_from(seen.len()).unwrap());
    }

    #[test]
    fn everything_once_and_in_order_is_clean() {
        check(&[0, 1, 2, 3], 4, &[], [0, 0, 0]);
        check(&[], 0, &[], [0, 0, 0]);
    }

    #[test]
    fn loss_in_front_in_the_middle_and_at_the_end_is_counted() {
        check(&[1, 2, 5], 8, &[], [5, 0, 0]);
        check(&[], 3, &[], [3, 0, 0]);
    }

    #[test]
    fn what_was_not_acknowledged_may_be_missing_or_there() {
        check(&[0, 1, 4, 5], 6, &[(2, 4)], [0, 0, 0]);
        check(&[0, 1, 2, 3, 4, 5], 6, &[(2, 4)], [0, 0, 0]);
        check(&[0, 5], 6, &[(2, 4)], [2, 0, 0]);
        check(&[0, 1], 6, &[(2, 3), (3, 6)], [0, 0, 0]);
    }

    #[test]
    fn a_repeated_record_is_a_duplicate_and_a_late_one_is_out_of_order() {
        check(&[0, 1, 1, 2], 3, &[], [0, 1, 0]);
        check(&[0, 2, 1, 3], 4, &[], [0, 0, 1]);
        check(&[0, 3, 2, 1, 1], 4, &[], [0, 1, 2]);
    }

    #[test]
    fn records_of_other_runs_producers_and_without_stamp_are_foreign() {
        let mut checker = Checker::new(7, 1);
        checker.on_record(None);
        checker.on_record(Some(Stamp { run: 6, producer: 0, sequence: 0, intended_ns: 0 }));
        checker.on_record(Some(Stamp { run: 7, producer: 1, sequence: 0, intended_ns: 0 }));
        let found = checker.finish(&[]);
        assert_eq!((found.foreign, found.received), (3, 0));
        assert!(!found.is_clean());
    }
}
