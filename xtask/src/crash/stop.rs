//! Ctrl-C: asked about at every wait, so that everything that was started and mounted is undone on the way out.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Takes Ctrl-C and SIGTERM from now on; before the first thread is started.
///
/// # Errors
/// When the system refuses.
#[cfg(feature = "powercut")]
pub(crate) fn watch() -> anyhow::Result<()> {
    use nix::sys::signal::{SigSet, Signal};

    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            ASKED.store(true, Ordering::Relaxed);
        }
    });
    Ok(())
}

/// # Errors
/// When the run shall stop.
pub(crate) fn check() -> anyhow::Result<()> {
    anyhow::ensure!(!ASKED.load(Ordering::Relaxed), "interrupted");
    Ok(())
}
