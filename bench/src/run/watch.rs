//! The thread that began the run watches it: adds up what the others tell, shows it, and asks what
//! the processes use.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::consume::Reading;
use super::produce::Sending;
use super::{Interrupt, Place, Plan, Usage, Used, join, spawn_thread};
use crate::clock::{SECOND_NS, now_ns};
use crate::error::BenchError;
use crate::number::{duration, float, rate};
use crate::options::Mode;
use crate::process::usage;
use crate::recorder::{Interval, Series};

/// How often processes are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// What the threads told.
pub(super) struct Heard {
    pub(super) intervals: BTreeMap<u32, Interval>,
    pub(super) sendings: Vec<Result<Sending, BenchError>>,
    pub(super) readings: Vec<Result<Reading, BenchError>>,
    pub(super) broker: Option<Used>,
    pub(super) generator: Used,
    /// End of the measured time.
    pub(super) end_ns: u64,
}

/// The view on a terminal; nothing at all when stderr is none, or when it is to be quiet.
#[derive(Debug, Clone)]
pub struct Live {
    bar: ProgressBar,
}

impl Live {
    /// A view on stderr, or none.
    pub fn new(quiet: bool) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        let style =
            ProgressStyle::with_template("{prefix:.bold} {bar:24} {pos}/{len} s  {wide_msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar }
    }

    /// Names what is going on.
    pub fn phase(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.bar.tick();
    }

    /// Says a line that stays.
    pub fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Takes it from the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self, plan: &Plan, interval: &Interval) {
        let seconds = plan.options.warmup_s + plan.options.duration_s;
        self.bar.set_prefix(if interval.index < plan.options.warmup_s { "warm-up" } else { "run" });
        self.bar.set_length(seconds.into());
        self.bar.set_position(interval.index.min(seconds).into());
        let counts = &interval.counts;
        let mut text = format!(
            "{}/s {:.1} MB/s acked",
            rate(float(counts.acked)),
            float(counts.acked_bytes) / 1e6
        );
        if counts.received > 0 {
            add!(text, ", {}/s read", rate(float(counts.received)));
        }
        for series in [Series::Response, Series::EndToEnd, Series::Service] {
            if let Some(samples) = interval.series.get(&series) {
                let at = |quantile| duration(samples.value_at_quantile(quantile));
                add!(text, ", {} p50 {} p99 {}", series.name(), at(0.5), at(0.99));
                break;
            }
        }
        if counts.failed > 0 {
            add!(text, ", {} FAILED", counts.failed);
        }
        self.bar.set_message(text);
    }
}

/// What processes used by the start and by the end of the measured time.
#[derive(Debug, Default)]
struct Looks {
    before: Option<(Option<Usage>, Option<Usage>)>,
    after: Option<(Option<Usage>, Option<Usage>)>,
}

impl Looks {
    fn look(&mut self, plan: &Plan, place: &Place) {
        let look = || (place.broker_pid.and_then(usage), usage(std::process::id()));
        let now_ns = now_ns();
        let warmup_s = if plan.options.mode == Mode::Consume { 0 } else { plan.options.warmup_s };
        let from_ns = plan.start_ns + u64::from(warmup_s) * SECOND_NS;
        if self.before.is_none() && from_ns <= now_ns {
            self.before = Some(look());
        }
        let is_over = plan.end_ns <= now_ns || plan.is_stopped();
        if self.after.is_none() && plan.options.mode != Mode::Consume && is_over {
            self.after = Some(look());
        }
    }

    fn finish(self, place: &Place) -> (Option<Used>, Used) {
        let now = || (place.broker_pid.and_then(usage), usage(std::process::id()));
        let (after_broker, after_own) = self.after.unwrap_or_else(now);
        let (before_broker, before_own) = self.before.unwrap_or((after_broker, after_own));
        (used(before_broker, after_broker), used(before_own, after_own).unwrap_or_default())
    }
}

fn used(before: Option<Usage>, after: Option<Usage>) -> Option<Used> {
    let (before, after) = (before?, after?);
    let memory_bytes_peak = after.memory_bytes_peak;
    Some(Used { cpu_s: (after.cpu_s - before.cpu_s).max(0.0), memory_bytes_peak })
}

/// Until every thread has ended; `senders` waits for those that send.
pub(super) fn watch(
    plan: &std::sync::Arc<Plan>,
    place: &Place,
    live: &Live,
    interrupt: &Interrupt,
    heard: &Receiver<Interval>,
    senders: impl FnOnce() -> Vec<Result<Sending, BenchError>> + Send + 'static,
    readers: Vec<JoinHandle<Result<Reading, BenchError>>>,
) -> Result<Heard, BenchError> {
    let waiting = std::sync::Arc::clone(plan);
    let waiter = spawn_thread("wait".to_owned(), None, move || {
        let sendings = senders();
        waiting.sent.store(true, Ordering::Release);
        Ok(sendings)
    })?;
    let mut intervals: BTreeMap<u32, Interval> = BTreeMap::new();
    let mut looks = Looks::default();
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(interval) => {
                let index = interval.index;
                let sum = intervals.entry(index).or_insert_with(|| Interval::new(index));
                sum.add(interval);
                live.show(plan, sum);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        looks.look(plan, place);
        if interrupt.is_asked() {
            plan.stop();
        }
    }
    let sendings = join(waiter)?;
    let readings = readers.into_iter().map(join).collect();
    let (broker, generator) = looks.finish(place);
    let end_ns = match (plan.options.mode, plan.ending.stopped_ns()) {
        (Mode::Consume, stopped_ns) => stopped_ns.unwrap_or_else(now_ns),
        (Mode::Produce | Mode::EndToEnd, stopped_ns) => {
            stopped_ns.map_or(plan.end_ns, |stopped_ns| stopped_ns.min(plan.end_ns))
        }
    };
    Ok(Heard { intervals, sendings, readings, broker, generator, end_ns })
}
