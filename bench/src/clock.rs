//! The one clock of the bench: `CLOCK_MONOTONIC`, in nanoseconds. It is the same for all processes of a
//! host, so that what one stamps into a payload another can subtract.

use std::io;
use std::os::fd::OwnedFd;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use tokio::io::unix::AsyncFd;

/// Nanoseconds of a second.
pub const SECOND_NS: u64 = 1_000_000_000;

/// Now, in ns since the machine started.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * SECOND_NS + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Wall-clock time in ms since 1970, for file names and log heads only.
pub fn unix_ms() -> u64 {
    unix_ns() / 1_000_000
}

fn unix_ns() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    seconds * SECOND_NS + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Gives records their timestamps: the wall clock as it was read once, carried on by [`now_ns`].
#[derive(Debug, Clone, Copy)]
pub struct WallClock {
    /// From 1970 to when the machine started.
    ahead_ns: u64,
}

impl WallClock {
    /// Reads the wall clock.
    pub fn read() -> Self {
        Self { ahead_ns: unix_ns().saturating_sub(now_ns()) }
    }

    /// What it shows at `at_ns` of [`now_ns`], in ms since 1970.
    pub fn ms_at(self, at_ns: u64) -> i64 {
        i64::try_from((self.ahead_ns + at_ns) / 1_000_000).unwrap_or(i64::MAX)
    }
}

/// Waits to the microsecond: Tokio's own timers know only milliseconds, too coarse for a schedule.
#[derive(Debug)]
pub struct Alarm {
    fd: AsyncFd<OwnedFd>,
}

impl Alarm {
    /// An alarm of the current runtime.
    ///
    /// # Errors
    /// Of the system, when there are no file descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "its flaw are descriptors closed behind its back; this one is owned by it alone"
        )]
        let fd = AsyncFd::new(fd)?;
        Ok(Self { fd })
    }

    /// Waits until `at_ns` of [`now_ns`]; not at all when that is past.
    ///
    /// # Errors
    /// Of the system; none is to be expected.
    pub async fn wait_until(&self, at_ns: u64) -> io::Result<()> {
        if at_ns <= now_ns() {
            return Ok(());
        }
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        let at = Timespec {
            tv_sec: i64::try_from(at_ns / SECOND_NS).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(at_ns % SECOND_NS).unwrap_or(0),
        };
        let once = Itimerspec { it_interval: nothing, it_value: at };
        timerfd_settime(self.fd.get_ref(), TimerfdTimerFlags::ABSTIME, &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let mut ticks = [0; 8];
            match ready.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut ticks)?)) {
                Ok(read) => return read.map(|_| ()),
                Err(_would_block) => {}
            }
        }
    }
}

/// Blocks this thread for so long; for threads that serve nobody else.
pub fn pause(duration: std::time::Duration) {
    let end_ns = now_ns() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2);
    loop {
        let left_ns = end_ns.saturating_sub(now_ns());
        if left_ns == 0 {
            return;
        }
        // May wake early: that is why there is a loop.
        std::thread::park_timeout(std::time::Duration::from_nanos(left_ns));
    }
}
