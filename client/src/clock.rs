//! The only place of this crate that asks what time it is.

use levada_record::Timestamp;
use tokio::time::{Duration, Instant};

/// Milliseconds since it was started, for deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    /// Milliseconds since the start.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The moment `at_ms` milliseconds after the start.
    pub(crate) fn at(&self, at_ms: u64) -> Instant {
        self.started + Duration::from_millis(at_ms.min(u64::from(u32::MAX)))
    }
}

/// Wall-clock time, for records whose producer gives none.
pub(crate) fn wall_clock() -> Timestamp {
    #[expect(
        clippy::disallowed_methods,
        reason = "records carry wall-clock time; decisions never see it"
    )]
    let now = std::time::SystemTime::now();
    let since = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A number that differs from process to process, to begin a sequence of chances with.
pub(crate) fn seed() -> u64 {
    use std::hash::BuildHasher as _;
    std::collections::hash_map::RandomState::new().hash_one(std::process::id())
}
