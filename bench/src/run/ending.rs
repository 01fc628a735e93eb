//! How a run comes to an end before its time: somebody asks for it, something breaks, or no broker answers any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::clock::now_ns;

/// A wish to end a run, told from another thread; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Asks for the end: what was sent is settled, then the run tells what there is.
    pub fn ask(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked.
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether and when a run was told to send nothing more.
#[derive(Debug)]
pub(crate) struct Ending {
    /// Of [`now_ns`]; 0 as long as it goes on.
    stopped_ns: AtomicU64,
    /// When a broker last answered anything about records, if only that it refuses them.
    answered_ns: AtomicU64,
    /// Nobody answered for so long that the run was given up.
    is_silent: AtomicBool,
}

impl Ending {
    /// Of a run that begins at `start_ns`.
    pub(crate) fn new(start_ns: u64) -> Self {
        Self {
            stopped_ns: AtomicU64::new(0),
            answered_ns: AtomicU64::new(start_ns),
            is_silent: AtomicBool::new(false),
        }
    }

    /// Sends nothing more. Only the first call counts.
    pub(crate) fn stop(&self) {
        if self.stopped_ns().is_none() {
            // Two at the same moment: either of them is right.
            self.stopped_ns.store(now_ns().max(1), Ordering::Relaxed);
        }
    }

    /// When it was stopped.
    pub(crate) fn stopped_ns(&self) -> Option<u64> {
        Some(self.stopped_ns.load(Ordering::Relaxed)).filter(|at| 0 < *at)
    }

    /// A broker took or refused records.
    pub(crate) fn on_answer(&self, now_ns: u64) {
        self.answered_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// Records were given up without an answer. Stops the run when nobody has answered for as long as a record
    /// is tried: then there is nobody to measure.
    pub(crate) fn on_silence(&self, now_ns: u64, patience_ns: u64) {
        if self.answered_ns.load(Ordering::Relaxed).saturating_add(patience_ns) <= now_ns {
            self.is_silent.store(true, Ordering::Relaxed);
            self.stop();
        }
    }

    /// Whether it was stopped because nobody answers.
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_ends_a_run_only_when_it_lasts() {
        let ending = Ending::new(100);
        ending.on_silence(150, 100);
        ending.on_answer(180);
        ending.on_answer(160);
        ending.on_silence(279, 100);
        assert_eq!((ending.stopped_ns(), ending.is_silent()), (None, false));
        ending.on_silence(280, 100);
        assert!(ending.is_silent() && ending.stopped_ns().is_some());
        let first = ending.stopped_ns();
        ending.stop();
        assert_eq!(ending.stopped_ns(), first);
    }
}
