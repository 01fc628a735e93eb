//! The crash runs' clock: the one place of them that asks for the time or waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The present moment, for time limits.
#[expect(clippy::disallowed_methods, reason = "a driver of processes has no runtime to ask")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "a driver of processes has no runtime to ask")]
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Blocks this thread for `time`.
#[expect(clippy::disallowed_methods, reason = "no shard lives in this process")]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}
