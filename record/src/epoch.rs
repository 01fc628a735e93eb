//! Epochs: whose reign a batch was written under. `[P]`

use std::fmt;

/// One reign over a partition; grows by one with every change of its leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaderEpoch(pub i32);

impl LeaderEpoch {
    /// Kafka's "no epoch": producers send it, old clients ask with it.
    pub const NONE: LeaderEpoch = LeaderEpoch(-1);
    /// The first reign.
    pub const ZERO: LeaderEpoch = LeaderEpoch(0);

    /// The bare number.
    pub const fn get(self) -> i32 {
        self.0
    }

    /// The following reign. Asserts that there is one; two thousand million elections come first.
    #[must_use]
    pub fn next(self) -> LeaderEpoch {
        match self.0.checked_add(1) {
            Some(next) => LeaderEpoch(next),
            None => panic!("leader epoch {} has no successor", self.0),
        }
    }
}

impl fmt::Display for LeaderEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a producer id: a higher one fences the lower ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerEpoch(pub i16);

impl ProducerEpoch {
    /// The producer is not idempotent.
    pub const NONE: ProducerEpoch = ProducerEpoch(-1);
    /// The first life.
    pub const ZERO: ProducerEpoch = ProducerEpoch(0);

    /// The bare number.
    pub const fn get(self) -> i16 {
        self.0
    }
}

impl fmt::Display for ProducerEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
