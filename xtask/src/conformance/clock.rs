//! The suite's clock: the one place of the conformance run that asks for the time or waits.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The present moment, for time limits.
#[expect(clippy::disallowed_methods, reason = "the suite is a shell; it has no runtime to ask")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A number that differs between two runs: seconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the suite is a shell; it has no runtime to ask")]
pub(crate) fn run_number() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the suite is a shell; it has no runtime to ask")]
pub(crate) fn unix_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis())
}

/// Waits a moment before a foreign process is asked again.
pub(crate) fn pause() {
    wait(Duration::from_millis(50));
}

/// Blocks this thread for `time`.
#[expect(clippy::disallowed_methods, reason = "no shard lives in this process")]
pub(crate) fn wait(time: Duration) {
    std::thread::sleep(time);
}
