//! `[P]` What clients saw, and whether a log that keeps its promises can have shown them that.
//!
//! Every produced batch carries a value that no other batch has. A producer's call ends as acknowledged, as certainly
//! failed, or as unknown; readers say which value they saw at which offset. The anomalies:
//! * K1 lost write: an acknowledged value is not in the log at the end;
//! * K2 inconsistent offset: one offset showed two values, or an acknowledged offset another value;
//! * K3 duplicate: one value stands at two offsets;
//! * K4 order: a producer's values stand in another order than it sent them, or a value that was acknowledged before
//!   another was even sent stands behind it;
//! * K5 aborted or phantom read: a value that certainly failed, or that nobody ever sent, is in the log.
//!
//! Deliberate loss is told to the history: a truncation, an advanced log start, damage of the disk that was reported.

use std::collections::BTreeMap;
use std::fmt;

/// A value that no other batch carries.
pub type Value = u64;

/// What became of a produce call, as far as the client knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// No answer yet, or none will come.
    Unknown,
    /// Acknowledged at this base offset, at this moment.
    Acked { offset: i64, at: u64 },
    /// Certainly not in the log.
    Failed,
}

#[derive(Debug, Clone, Copy)]
struct Produced {
    partition: u32,
    producer: u64,
    /// Order of the producer's values in this partition.
    order: u64,
    invoked: u64,
    outcome: Outcome,
}

#[derive(Debug, Default)]
struct PartitionHistory {
    /// What readers saw in the present branch of the log.
    seen: BTreeMap<i64, Value>,
    /// Acknowledged values in the present branch, by base offset.
    acked: BTreeMap<i64, Value>,
    log_start: i64,
    /// Damage was reported from here on.
    excused_from: Option<i64>,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anomaly {
    /// K1
    Lost {
        /// Where.
        partition: u32,
        /// The acknowledged value.
        value: Value,
        /// The offset that it was acknowledged with.
        offset: i64,
    },
    /// K2
    Inconsistent {
        /// Where.
        partition: u32,
        /// The offset.
        offset: i64,
        /// What was known to stand there.
        first: Value,
        /// What stood there now.
        second: Value,
    },
    /// K3
    Duplicate {
        /// Where.
        partition: u32,
        /// The value.
        value: Value,
        /// Its two offsets.
        offsets: (i64, i64),
    },
    /// K4
    Order {
        /// Where.
        partition: u32,
        /// Stands first.
        first: Value,
        /// Stands behind it, though it was sent, or acknowledged, before.
        second: Value,
    },
    /// K5
    Aborted {
        /// Where.
        partition: u32,
        /// The offset.
        offset: i64,
        /// A value that failed, or that nobody sent.
        value: Value,
    },
}

impl fmt::Display for Anomaly {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { partition, value, offset } => {
                write!(out, "K1 lost write: p{partition} value {value} acknowledged at {offset}")
            }
            Self::Inconsistent { partition, offset, first, second } => write!(
                out,
                "K2 inconsistent offset: p{partition} offset {offset} held {first}, then {second}"
            ),
            Self::Duplicate { partition, value, offsets } => write!(
                out,
                "K3 duplicate: p{partition} value {value} at {} and at {}",
                offsets.0, offsets.1
            ),
            Self::Order { partition, first, second } => {
                write!(out, "K4 order: p{partition} value {first} stands before {second}")
            }
            Self::Aborted { partition, offset, value } => {
                write!(
                    out,
                    "K5 phantom: p{partition} value {value} at {offset} was never sent or failed"
                )
            }
        }
    }
}

/// The history of one run. Moments are counted, not timed: what is told later happened later.
#[derive(Debug, Default)]
pub struct History {
    produced: Vec<Produced>,
    partitions: BTreeMap<u32, PartitionHistory>,
    orders: BTreeMap<(u32, u64), u64>,
    moment: u64,
    reads: u64,
}

impl History {
    /// A client sends a batch; gives the value that the batch must carry.
    pub fn invoke(&mut self, partition: u32, producer: u64) -> Value {
        self.moment += 1;
        let order = self.orders.entry((partition, producer)).or_default();
        *order += 1;
        self.produced.push(Produced {
            partition,
            producer,
            order: *order,
            invoked: self.moment,
            outcome: Outcome::Unknown,
        });
        self.produced.len() as Value - 1
    }

    /// The batch was acknowledged with this base offset.
    ///
    /// # Errors
    /// [`Anomaly::Inconsistent`] when readers saw something else there.
    pub fn acked(&mut self, value: Value, offset: i64) -> Result<(), Anomaly> {
        self.moment += 1;
        let at = self.moment;
        let Some(produced) = self.get_mut(value) else { return Ok(()) };
        produced.outcome = Outcome::Acked { offset, at };
        let partition = produced.partition;
        let history = self.partitions.entry(partition).or_default();
        let other = history.seen.get(&offset).copied().filter(|seen| *seen != value);
        let other = other.or(history.acked.insert(offset, value).filter(|known| *known != value));
        match other {
            Some(first) => Err(Anomaly::Inconsistent { partition, offset, first, second: value }),
            None => Ok(()),
        }
    }

    /// The batch is certainly not in the log and was not sent again.
    pub fn failed(&mut self, value: Value) {
        self.moment += 1;
        if let Some(produced) = self.get_mut(value) {
            produced.outcome = Outcome::Failed;
        }
    }

    /// A reader saw `value` at the base offset `offset`.
    ///
    /// # Errors
    /// [`Anomaly::Inconsistent`], [`Anomaly::Aborted`]
    pub fn read(&mut self, partition: u32, offset: i64, value: Value) -> Result<(), Anomaly> {
        self.moment += 1;
        self.reads += 1;
        let produced = self.get_mut(value).copied();
        let is_known =
            produced.is_some_and(|p| p.partition == partition && p.outcome != Outcome::Failed);
        if !is_known {
            return Err(Anomaly::Aborted { partition, offset, value });
        }
        let history = self.partitions.entry(partition).or_default();
        let known = history.acked.get(&offset).copied();
        let known = known.filter(|known| *known != value);
        let before = known.or(history.seen.insert(offset, value).filter(|seen| *seen != value));
        match before {
            Some(first) => Err(Anomaly::Inconsistent { partition, offset, first, second: value }),
            None => Ok(()),
        }
    }

    /// The log was cut at `end`, or may have been: what stood behind it may be gone, and its offsets used again.
    pub fn truncated(&mut self, partition: u32, end: i64) {
        self.moment += 1;
        let history = self.partitions.entry(partition).or_default();
        drop(history.seen.split_off(&end));
        drop(history.acked.split_off(&end));
    }

    /// Records below `start` may be gone.
    pub fn log_start(&mut self, partition: u32, start: i64) {
        let history = self.partitions.entry(partition).or_default();
        history.log_start = history.log_start.max(start);
    }

    /// Damage was reported: from `from` on nothing is promised.
    pub fn excuse(&mut self, partition: u32, from: i64) {
        let history = self.partitions.entry(partition).or_default();
        history.excused_from = Some(history.excused_from.map_or(from, |old| old.min(from)));
    }

    /// Batches sent, acknowledged, and reads that saw one.
    pub fn counts(&self) -> (u64, u64, u64) {
        let is_acked = |p: &&Produced| matches!(p.outcome, Outcome::Acked { .. });
        (
            self.produced.len() as u64,
            self.produced.iter().filter(is_acked).count() as u64,
            self.reads,
        )
    }

    /// Holds the log of `partition`, read whole at the end as (base offset, value) in order, against everything that
    /// was seen of it.
    pub fn check(&self, partition: u32, log: &[(i64, Value)]) -> Vec<Anomaly> {
        let empty = PartitionHistory::default();
        let history = self.partitions.get(&partition).unwrap_or(&empty);
        let mut found = Vec::new();
        let mut at: BTreeMap<Value, i64> = BTreeMap::new();
        for (offset, value) in log {
            if let Some(first) = at.insert(*value, *offset) {
                let (partition, value) = (partition, *value);
                found.push(Anomaly::Duplicate { partition, value, offsets: (first, *offset) });
            }
        }
        let limit = history.excused_from.unwrap_or(i64::MAX);
        for (offset, value) in history.acked.range(history.log_start..).filter(|(o, _)| **o < limit)
        {
            match at.get(value) {
                Some(stands) if stands == offset => {}
                Some(stands) => found.push(Anomaly::Duplicate {
                    partition,
                    value: *value,
                    offsets: (*offset, *stands),
                }),
                None => {
                    found.push(Anomaly::Lost { partition, value: *value, offset: *offset });
                }
            }
        }
        for (offset, value) in log {
            let seen = history.seen.get(offset).copied().filter(|seen| seen != value);
            if let Some(first) = seen {
                let (offset, second) = (*offset, *value);
                found.push(Anomaly::Inconsistent { partition, offset, first, second });
            }
        }
        self.check_order(partition, history, log, &mut found);
        found
    }

    fn check_order(
        &self,
        partition: u32,
        history: &PartitionHistory,
        log: &[(i64, Value)],
        found: &mut Vec<Anomaly>,
    ) {
        let mut last: BTreeMap<u64, (u64, Value)> = BTreeMap::new();
        for (offset, value) in log {
            let Some(produced) = self.get(*value).filter(|p| p.partition == partition) else {
                found.push(Anomaly::Aborted { partition, offset: *offset, value: *value });
                continue;
            };
            if produced.outcome == Outcome::Failed {
                found.push(Anomaly::Aborted { partition, offset: *offset, value: *value });
            }
            let before = last.insert(produced.producer, (produced.order, *value));
            if let Some((_, first)) = before.filter(|(order, _)| *order >= produced.order) {
                found.push(Anomaly::Order { partition, first, second: *value });
            }
        }
        // From the back: the earliest acknowledgement among the values behind.
        let mut earliest: Option<(u64, Value)> = None;
        for (offset, value) in log.iter().rev() {
            let Some(produced) = self.get(*value) else { continue };
            if let Some((_, second)) = earliest.filter(|(acked, _)| *acked < produced.invoked) {
                found.push(Anomaly::Order { partition, first: *value, second });
            }
            // Only acknowledgements of this branch of the log count.
            if let Outcome::Acked { offset: told, at } = produced.outcome
                && told == *offset
                && history.acked.get(offset) == Some(value)
                && earliest.is_none_or(|(acked, _)| at < acked)
            {
                earliest = Some((at, *value));
            }
        }
    }

    fn get(&self, value: Value) -> Option<&Produced> {
        self.produced.get(usize::try_from(value).ok()?)
    }

    fn get_mut(&mut self, value: Value) -> Option<&mut Produced> {
        self.produced.get_mut(usize::try_from(value).ok()?)
    }
}

#[cfg(test)]
mod tests;
