//! Progress on a terminal, when the work takes long enough to want it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

/// Work that is done sooner shows nothing.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    Bytes,
    Records,
}

/// A bar on stderr; nothing at all when that is no terminal.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
    started: Instant,
    shown: bool,
}

impl Progress {
    /// Progress towards `total`, or without an end.
    pub(crate) fn new(total: Option<u64>, counted: Counted) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = match (total.is_some(), counted) {
            (true, Counted::Bytes) => "{bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
            (true, Counted::Records) => {
                "{bar:30} {human_pos}/{human_len} records {per_sec} {eta} left"
            }
            (false, Counted::Bytes) => "{spinner} {bytes} {bytes_per_sec}",
            (false, Counted::Records) => "{spinner} {human_pos} records {per_sec}",
        };
        // A template that does not parse would be a bug; the default is no worse.
        bar.set_style(
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        Self { bar, started: Instant::now(), shown: false }
    }

    /// Moves it to `done`.
    pub(crate) fn set(&mut self, done: u64) {
        self.bar.set_position(done);
        if !self.shown && PATIENCE <= self.started.elapsed() {
            self.shown = true;
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// How long the work takes by now.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes it from the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
