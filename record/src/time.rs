//! Points in time as records carry them. `[P]` Nobody in this crate asks what time it is.

use std::fmt;

/// Milliseconds since 1970-01-01 00:00 UTC; every negative one but [`Timestamp::NONE`] is a time
/// before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Kafka's "no timestamp".
    pub const NONE: Timestamp = Timestamp(-1);

    /// Milliseconds since the epoch.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// Whether there is one.
    pub const fn is_some(self) -> bool {
        self.0 != Self::NONE.0
    }

    /// The time `ms` later, held at the ends of the range.
    #[must_use]
    pub const fn saturating_add_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_add(ms))
    }

    /// The time `ms` earlier, held at the ends of the range.
    #[must_use]
    pub const fn saturating_sub_ms(self, ms: i64) -> Timestamp {
        Timestamp(self.0.saturating_sub(ms))
    }

    /// Milliseconds from `earlier` to `self`, held at the ends of the range.
    pub const fn since_ms(self, earlier: Timestamp) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Timestamp::NONE
    }
}

/// The timestamps a topic takes, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimestampRange {
    /// The oldest.
    pub earliest: Timestamp,
    /// The newest.
    pub latest: Timestamp,
}

impl TimestampRange {
    /// All of them.
    pub const ALL: TimestampRange =
        TimestampRange { earliest: Timestamp(i64::MIN), latest: Timestamp(i64::MAX) };

    /// Whether `timestamp` lies inside.
    pub fn contains(self, timestamp: Timestamp) -> bool {
        self.earliest <= timestamp && timestamp <= self.latest
    }
}
