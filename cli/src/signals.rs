//! SIGINT and SIGTERM, for processes that serve and for runs of the bench: blocked before the first thread starts,
//! waited for in a thread of their own. The first asks for a clean stop, the second ends the process at once.

use nix::sys::signal::{SigSet, Signal};

/// Exit code of a process that was told twice to end.
const EXIT_FORCED: i32 = 1;

/// The blocked signals.
#[derive(Debug)]
pub(crate) struct Signals(SigSet);

impl Signals {
    /// Blocks them in this thread and all that it starts from now on.
    pub(crate) fn block() -> std::io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block()?;
        Ok(Self(set))
    }

    /// From now on, the first signal puts a message into the channel.
    pub(crate) fn watch(self) -> std::io::Result<flume::Receiver<()>> {
        let (told, stop) = flume::bounded(1);
        // Whoever waits may be gone already.
        let first = move || told.send(()).unwrap_or_default();
        self.watch_with("the next start recovers", first, || ())?;
        Ok(stop)
    }

    /// From now on, calls `first` at the first signal; at the second says `consequence`, calls `forced` and
    /// ends the process.
    pub(crate) fn watch_with(
        self,
        consequence: &'static str,
        first: impl Fn() + Send + 'static,
        forced: impl Fn() + Send + 'static,
    ) -> std::io::Result<()> {
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut seen = 0;
            while let Ok(signal) = self.0.wait() {
                seen += 1;
                if seen > 1 {
                    eprintln!("{signal} again: ending at once; {consequence}");
                    forced();
                    std::process::exit(EXIT_FORCED);
                }
                eprintln!("{signal}: stopping; once more ends at once");
                first();
            }
        })?;
        Ok(())
    }
}
