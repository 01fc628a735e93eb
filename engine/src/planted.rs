//! Bugs to order. A simulator that finds nothing proves nothing, so each of these can be switched on, in builds
//! with the feature `planted-bugs` only, and must then be found.

/// A mistake that a wrong implementation makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlantedBug {
    /// Ends move when the writes completed; the sync comes afterwards.
    AckBeforeSync,
    /// A failed sync is tried again, and believed.
    RetrySync,
    /// The next round starts while the last one is still being synced.
    OverlapRounds,
    /// A journal file is reused before the segments that hold its bytes are synced.
    RecycleBeforeSync,
    /// A block that was written is written again although its acknowledged bytes are nowhere else.
    RewriteUnjournaled,
    /// After a crash, whole batches behind the described end are taken for the log's.
    BelieveBehindEnd,
    /// A round that is bad in the middle of the journal ends the log like a torn one.
    CutByPattern,
    /// Truncation leaves the producers as they were.
    KeepProducersOnTruncate,
}

impl PlantedBug {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::AckBeforeSync,
        Self::RetrySync,
        Self::OverlapRounds,
        Self::RecycleBeforeSync,
        Self::RewriteUnjournaled,
        Self::BelieveBehindEnd,
        Self::CutByPattern,
        Self::KeepProducersOnTruncate,
    ];

    /// Name on command lines and in `LEVADA_PLANTED_BUG`.
    pub fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::RetrySync => "retry-sync",
            Self::OverlapRounds => "overlap-rounds",
            Self::RecycleBeforeSync => "recycle-before-sync",
            Self::RewriteUnjournaled => "rewrite-unjournaled",
            Self::BelieveBehindEnd => "believe-behind-end",
            Self::CutByPattern => "cut-by-pattern",
            Self::KeepProducersOnTruncate => "keep-producers-on-truncate",
        }
    }

    /// The bug of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }
}

#[cfg(feature = "planted-bugs")]
mod switch {
    use super::PlantedBug;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<PlantedBug>> = const { Cell::new(None) };
    }

    /// Plants a bug on this thread, or removes it.
    pub fn plant(bug: Option<PlantedBug>) {
        PLANTED.with(|cell| cell.set(bug));
    }

    pub(crate) fn is_planted(bug: PlantedBug) -> bool {
        PLANTED.with(|cell| cell.get() == Some(bug))
    }
}

#[cfg(feature = "planted-bugs")]
pub(crate) use switch::is_planted;
#[cfg(feature = "planted-bugs")]
pub use switch::plant;

#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn is_planted(_: PlantedBug) -> bool {
    false
}
