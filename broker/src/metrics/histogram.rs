//! A latency histogram of one shard: fixed buckets, no locks. `[P]`

use std::cell::Cell;

/// Upper bounds of the buckets (inclusive), in microseconds; one more bucket takes the rest.
pub const BOUNDS_US: [u64; 20] = [
    20, 50, 100, 200, 350, 500, 750, 1_000, 2_000, 3_500, 5_000, 10_000, 20_000, 50_000, 100_000,
    200_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

const BUCKETS: usize = BOUNDS_US.len() + 1;

const _: () = {
    let mut at = 1;
    while at < BOUNDS_US.len() {
        assert!(BOUNDS_US[at - 1] < BOUNDS_US[at]);
        at += 1;
    }
};

/// Counts per bucket, written by one shard.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [Cell<u64>; BUCKETS],
    sum_us: Cell<u64>,
}

impl Histogram {
    /// Counts one value.
    pub fn record_us(&self, value_us: u64) {
        let bucket = BOUNDS_US.partition_point(|bound| *bound < value_us);
        if let Some(count) = self.counts.get(bucket) {
            count.set(count.get() + 1);
        }
        self.sum_us.set(self.sum_us.get().saturating_add(value_us));
    }

    /// Counts the time from one moment to a later one, both in nanoseconds.
    pub fn record_between_ns(&self, from_ns: u64, to_ns: u64) {
        self.record_us(to_ns.saturating_sub(from_ns) / 1_000);
    }

    /// The counts as of now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: std::array::from_fn(|bucket| self.counts.get(bucket).map_or(0, Cell::get)),
            sum_us: self.sum_us.get(),
        }
    }
}

/// Counts that may cross threads and be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistogramSnapshot {
    /// Per bucket, not cumulative.
    pub counts: [u64; BUCKETS],
    /// Sum of all values, in microseconds.
    pub sum_us: u64,
}

impl Default for HistogramSnapshot {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], sum_us: 0 }
    }
}

impl HistogramSnapshot {
    /// Adds the counts of another shard.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }

    /// How many values were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_into_the_bucket_whose_bound_they_do_not_exceed() {
        let histogram = Histogram::default();
        for value in [0, 20, 21, 30_000_000, 30_000_001] {
            histogram.record_us(value);
        }
        let snapshot = histogram.snapshot();
        assert_eq!(snapshot.counts[0], 2);
        assert_eq!(snapshot.counts[1], 1);
        assert_eq!(snapshot.counts[BUCKETS - 2], 1);
        assert_eq!(snapshot.counts[BUCKETS - 1], 1);
        assert_eq!(snapshot.count(), 5);
        assert_eq!(snapshot.sum_us, 60_000_042);
    }

    #[test]
    fn shards_add_up() {
        let histogram = Histogram::default();
        histogram.record_between_ns(1_000, 31_000);
        let mut total = histogram.snapshot();
        total.add(&histogram.snapshot());
        assert_eq!((total.count(), total.sum_us), (2, 60));
    }
}
