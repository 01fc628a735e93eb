//! Samples of one thread, by intervals of a second; handed on as whole histograms, which are added,
//! never averaged. One writer, no lock, O(1) and no allocation per sample.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::clock::SECOND_NS;

/// Length of an interval.
pub const INTERVAL_NS: u64 = SECOND_NS;
/// Largest value that is told apart, an hour; what took longer counts as that.
pub const VALUE_NS_MAX: u64 = 3600 * SECOND_NS;
/// Digits of a value that are kept.
const DIGITS: u8 = 3;

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Series {
    /// From the intended moment to the acknowledgement: what a user feels.
    Response,
    /// From the call of `send` to the acknowledgement: what most benchmarks call latency.
    Service,
    /// From the intended moment to the call of `send`: how far behind the generator was.
    Lag,
    /// From the intended moment to a consumer's hands.
    EndToEnd,
}

impl Series {
    /// All, in the order of reports.
    pub const ALL: [Series; 4] = [Series::Response, Series::Service, Series::EndToEnd, Series::Lag];

    /// Its name in files and tags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Response => "response",
            Self::Service => "service",
            Self::Lag => "lag",
            Self::EndToEnd => "end-to-end",
        }
    }

    /// The series of a name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|series| series.name() == name)
    }

    fn place(self) -> usize {
        match self {
            Self::Response => 0,
            Self::Service => 1,
            Self::Lag => 2,
            Self::EndToEnd => 3,
        }
    }
}

/// What happened in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records handed to the client.
    pub sent: u64,
    /// Records acknowledged.
    pub acked: u64,
    /// Bytes of their keys and values.
    pub acked_bytes: u64,
    /// Records that failed.
    pub failed: u64,
    /// Batches they came in.
    pub batches: u64,
    /// Records that consumers got.
    pub received: u64,
    /// Bytes of their keys and values.
    pub received_bytes: u64,
    /// End-to-end times below 0, which no clock of one host gives.
    pub negative: u64,
}

impl Counts {
    /// Adds those of another thread or interval.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.acked += other.acked;
        self.acked_bytes += other.acked_bytes;
        self.failed += other.failed;
        self.batches += other.batches;
        self.received += other.received;
        self.received_bytes += other.received_bytes;
        self.negative += other.negative;
    }
}

/// An empty histogram of nanoseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, VALUE_NS_MAX, DIGITS).expect("the bounds are in order")
}

/// What a thread has to tell of an interval.
#[derive(Debug)]
pub struct Interval {
    /// Which, from 0 at the start of the warm-up.
    pub index: u32,
    /// The samples.
    pub series: BTreeMap<Series, Histogram<u64>>,
    /// The counts.
    pub counts: Counts,
}

impl Interval {
    /// An empty one.
    pub fn new(index: u32) -> Self {
        Self { index, series: BTreeMap::new(), counts: Counts::default() }
    }

    /// Adds what another thread has to tell of the same.
    pub fn add(&mut self, other: Self) {
        self.counts.add(&other.counts);
        for (series, histogram) in other.series {
            match self.series.get_mut(&series) {
                Some(sum) => sum.add(histogram).expect("all histograms have the same bounds"),
                None => drop(self.series.insert(series, histogram)),
            }
        }
    }
}

/// Takes the samples of one thread.
#[derive(Debug)]
pub struct Recorder {
    start_ns: u64,
    index: u32,
    index_end_ns: u64,
    histograms: [Histogram<u64>; 4],
    counts: Counts,
    out: Sender<Interval>,
}

impl Recorder {
    /// For intervals that are counted from `start_ns`; tells them to `out`.
    pub fn new(start_ns: u64, out: Sender<Interval>) -> Self {
        Self {
            start_ns,
            index: 0,
            index_end_ns: start_ns + INTERVAL_NS,
            histograms: std::array::from_fn(|_| histogram()),
            counts: Counts::default(),
            out,
        }
    }

    /// Moves to the interval of `now_ns`; what follows belongs to it.
    #[inline]
    pub fn at(&mut self, now_ns: u64) {
        if self.index_end_ns <= now_ns {
            self.roll(now_ns);
        }
    }

    /// Takes a sample.
    #[inline]
    pub fn record(&mut self, series: Series, value_ns: u64) {
        if let Some(histogram) = self.histograms.get_mut(series.place()) {
            histogram.saturating_record(value_ns);
        }
    }

    /// The counts of the present interval.
    #[inline]
    pub fn counts(&mut self) -> &mut Counts {
        &mut self.counts
    }

    /// Hands on what there is.
    pub fn flush(&mut self) {
        let mut interval = Interval::new(self.index);
        interval.counts = std::mem::take(&mut self.counts);
        for series in Series::ALL {
            let slot = self.histograms.get_mut(series.place());
            if let Some(slot) = slot.filter(|slot| !slot.is_empty()) {
                interval.series.insert(series, std::mem::replace(slot, histogram()));
            }
        }
        // Nobody listens when the run was given up.
        drop(self.out.send(interval));
    }

    fn roll(&mut self, now_ns: u64) {
        self.flush();
        let index = now_ns.saturating_sub(self.start_ns) / INTERVAL_NS;
        self.index = u32::try_from(index).unwrap_or(u32::MAX);
        self.index_end_ns = self.start_ns + (index + 1) * INTERVAL_NS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_two_threads_meet_in_their_interval() {
        let (out, heard) = std::sync::mpsc::channel();
        for value in [1_000, 3_000] {
            let mut recorder = Recorder::new(100, out.clone());
            recorder.at(150);
            recorder.record(Series::Response, value);
            recorder.at(100 + 2 * INTERVAL_NS);
            recorder.record(Series::Service, 7 * VALUE_NS_MAX);
            recorder.counts().acked += 1;
            recorder.flush();
        }
        drop(out);
        let mut by_index: BTreeMap<u32, Interval> = BTreeMap::new();
        for interval in heard {
            by_index.entry(interval.index).or_insert_with(|| Interval::new(0)).add(interval);
        }
        assert_eq!(by_index.keys().copied().collect::<Vec<_>>(), [0, 2]);
        let response = &by_index[&0].series[&Series::Response];
        assert_eq!((response.len(), response.max()), (2, response.highest_equivalent(3_000)));
        assert_eq!(
            by_index[&2].series[&Series::Service].len(),
            2,
            "too long is an hour, not nothing"
        );
        assert_eq!(by_index[&2].counts.acked, 2);
    }
}
