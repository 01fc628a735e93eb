//! A run: topics are made, threads send and read, samples come together here, once a second.
//!
//! `run/prepare.rs` makes topics; `run/produce.rs` sends on schedule what `run/source.rs` makes;
//! `run/consume.rs` reads and checks. Both speak to a client as `run/client.rs` says: `run/levada.rs` or
//! `run/librdkafka.rs`. This file begins, watches and ends.

mod prepare;
mod produce;
mod source;
mod consume;
mod client;
mod ending;
mod levada;
#[cfg(feature = "librdkafka")]
mod librdkafka;
mod overhead;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::check::{Findings, SentLane};
use crate::clock::{SECOND_NS, WallClock, now_ns, unix_ms};
use crate::error::BenchError;
use crate::number::{count, float};
use crate::options::{Mode, Options};
use crate::process::Usage;
use crate::recorder::{Interval, Recorder};
use ending::Ending;
pub use ending::Interrupt;
use produce::{Failures, Sending};
pub use watch::Live;

/// Between the start of the threads and the first record: time to connect.
const LEAD_NS: u64 = SECOND_NS / 2;

/// What the threads of a run share.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) bootstrap: String,
    /// Tells this run's records from others.
    pub(crate) run: u32,
    pub(crate) topics: Vec<String>,
    /// What records are stamped with.
    pub(crate) wall: WallClock,
    /// Start of the warm-up.
    pub(crate) start_ns: u64,
    /// From here on nothing is sent.
    pub(crate) end_ns: u64,
    /// Whether it is given up.
    pub(crate) ending: Ending,
    /// Everything that will be sent is settled.
    pub(crate) sent: AtomicBool,
}

impl Plan {
    pub(crate) fn stop(&self) {
        self.ending.stop();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.ending.stopped_ns().is_some()
    }

    /// Records were given up without an answer.
    pub(crate) fn on_silence(&self, now_ns: u64) {
        self.ending.on_silence(now_ns, u64::from(self.options.timeout_s) * SECOND_NS);
    }
}

/// Where a run takes place.
#[derive(Debug, Clone)]
pub struct Place {
    /// Brokers to begin with.
    pub bootstrap: String,
    /// The broker's process, when it is on this machine.
    pub broker_pid: Option<u32>,
    /// Whether topics stay when the run is over.
    pub keep_topics: bool,
}

/// What a process used during the measured time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// CPU time in s.
    pub cpu_s: f64,
    /// Most memory it ever had.
    pub memory_bytes_peak: u64,
}

/// Everything that a run gave, before it is judged and written.
#[derive(Debug)]
pub struct Outcome {
    /// Wall-clock time of the first intended moment, in ms since 1970.
    pub started_unix_ms: u64,
    /// The measured intervals of a second, in order.
    pub intervals: Vec<Interval>,
    /// Measured seconds.
    pub seconds: f64,
    /// What the check of the payloads found; `None` when nothing was read.
    pub findings: Option<Findings>,
    /// What ended it early, or was wrong with it; empty when all is well.
    pub problems: Vec<String>,
    /// Records that were not acknowledged, those of the warm-up too.
    pub failed: u64,
    /// Why the first of them was not.
    pub first_failure: Option<String>,
    /// Whether somebody asked it to end.
    pub interrupted: bool,
    /// What the generator lagged by its own fault, 99th percentile, ns.
    pub own_lag_p99_ns: u64,
    /// CPU share of the busiest sending thread, 0 to 1.
    pub busiest_worker: f64,
    /// What measuring costs per record, in ns.
    pub overhead_ns: f64,
    /// What the broker used while it was measured.
    pub broker: Option<Used>,
    /// What this process used.
    pub generator: Used,
}

/// Runs `options` at `place` and shows how it goes on `live`, to its end or until `interrupt` asks for it.
///
/// # Errors
/// [`BenchError`] when it could not begin. What goes wrong later is in [`Outcome::problems`].
pub fn run(
    options: &Options,
    place: &Place,
    live: &Live,
    interrupt: &Interrupt,
) -> Result<Outcome, BenchError> {
    options.validate()?;
    let runtime = setup_runtime()?;
    let run = run_id();
    let topics = runtime.block_on(prepare::topics(options, place, run))?;
    let ran = Running { options, place, live, interrupt, run, topics: &topics }.run();
    if !place.keep_topics {
        let deleted = runtime.block_on(prepare::delete(options, place, &topics));
        if let (Ok(_), Err(error)) = (&ran, deleted) {
            live.say(&format!("the topics stay: {error}"));
        }
    }
    ran
}

fn setup_runtime() -> Result<tokio::runtime::Runtime, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(BenchError::system("start a runtime"))
}

/// Differs from run to run, on one machine and between machines.
fn run_id() -> u32 {
    use std::hash::BuildHasher as _;
    let hash = std::hash::RandomState::new().hash_one((std::process::id(), now_ns()));
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or(0)
}

fn plan(options: Options, place: &Place, run: u32, topics: &[String]) -> Arc<Plan> {
    let lead_ns = if options.mode == Mode::Consume { 0 } else { LEAD_NS };
    let start_ns = now_ns() + lead_ns;
    let seconds = u64::from(options.warmup_s) + u64::from(options.duration_s);
    Arc::new(Plan {
        end_ns: start_ns + seconds * SECOND_NS,
        options,
        bootstrap: place.bootstrap.clone(),
        run,
        topics: topics.to_vec(),
        wall: WallClock::read(),
        start_ns,
        ending: Ending::new(start_ns),
        sent: AtomicBool::new(false),
    })
}

/// A run, and all it needs.
struct Running<'a> {
    options: &'a Options,
    place: &'a Place,
    live: &'a Live,
    interrupt: &'a Interrupt,
    run: u32,
    topics: &'a [String],
}

impl Running<'_> {
    fn run(&self) -> Result<Outcome, BenchError> {
        let Self { options, place, live, .. } = self;
        let overhead_ns = overhead::measure();
        let mut problems = Vec::new();
        let mut failures = Failures::default();
        let mut lanes = SentLanes::new(options);
        if options.mode == Mode::Consume {
            live.phase("writing what is to be read");
            let filled = self.fill()?;
            problems.extend(filled.problem.clone());
            lanes.take(&filled);
            failures.add_all(filled.failures);
        }
        let plan = plan((*options).clone(), place, self.run, self.topics);
        let (out, heard) = mpsc::channel();
        let readers = match options.mode {
            Mode::Produce => Vec::new(),
            Mode::Consume | Mode::EndToEnd => {
                consume::spawn(&plan, &out, consume::Subscriptions::All)?
            }
        };
        let senders = match options.mode {
            Mode::Consume => {
                plan.sent.store(true, Ordering::Release);
                Vec::new()
            }
            Mode::Produce | Mode::EndToEnd => produce::spawn(&plan, &out)?,
        };
        drop(out);
        let heard = watch::watch(
            &plan,
            place,
            live,
            self.interrupt,
            &heard,
            move || {
                let mut sent = Vec::new();
                for sender in senders {
                    sent.push(join(sender));
                }
                sent
            },
            readers,
        )?;
        let mut own_lag = crate::recorder::histogram();
        let mut busiest_worker: f64 = 0.0;
        for sending in heard.sendings {
            match sending {
                Ok(sending) => {
                    own_lag.add(&sending.own_lag).expect("all histograms have the same bounds");
                    busiest_worker = busiest_worker.max(sending.cpu_share);
                    problems.extend(sending.problem.clone());
                    lanes.take(&sending);
                    failures.add_all(sending.failures);
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        let mut readings = heard.readings;
        if options.mode == Mode::Produce && options.verify && !plan.is_stopped() {
            live.phase("reading back");
            let (out, _) = mpsc::channel();
            let readers = consume::spawn(&plan, &out, consume::Subscriptions::One)?;
            readings = readers.into_iter().map(|reader| self.join_or_stop(&plan, reader)).collect();
        }
        let interrupted = self.interrupt.is_asked();
        if interrupted {
            problems.push("interrupted: these are the figures up to then".to_owned());
        }
        if failures.records == 0 {
            // Of the client as a whole: no record suffered from it.
            problems.extend(failures.first.take());
        }
        if plan.ending.is_silent() {
            problems.push(format!("no broker answered for {} s: ended early", options.timeout_s));
        }
        let mut findings = None;
        for reading in readings {
            match reading {
                Ok(reading) => {
                    problems.extend(reading.problem.clone());
                    if !reading.to_the_end {
                        continue;
                    }
                    let found: &mut Findings = findings.get_or_insert_default();
                    for (topic, partition, checker) in reading.checkers {
                        found.add(&checker.finish(lanes.of(topic, partition)));
                    }
                }
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.sort();
        problems.dedup();
        let warmup = if options.mode == Mode::Consume { 0 } else { options.warmup_s };
        let (intervals, seconds) = measured(heard.intervals, warmup, &plan, heard.end_ns);
        Ok(Outcome {
            started_unix_ms: unix_ms()
                .saturating_sub(now_ns().saturating_sub(plan.start_ns) / 1_000_000),
            intervals,
            seconds,
            findings,
            problems,
            failed: failures.records,
            first_failure: failures.first,
            interrupted,
            own_lag_p99_ns: own_lag.value_at_quantile(0.99),
            busiest_worker,
            overhead_ns,
            broker: heard.broker,
            generator: heard.generator,
        })
    }

    /// Writes the records that are to be read later, as fast as it goes.
    fn fill(&self) -> Result<Sending, BenchError> {
        let producers = self.options.topics;
        let options = Options { producers, workers: 1, ..self.options.clone() };
        let plan = plan(options, self.place, self.run, self.topics);
        let (out, _) = mpsc::channel();
        let mut senders = produce::spawn(&plan, &out)?;
        let sender = senders.pop().ok_or(BenchError::Panicked)?;
        self.join_or_stop(&plan, sender)
    }

    /// Waits for the thread; stops the plan when somebody asks for the end.
    fn join_or_stop<T>(
        &self,
        plan: &Plan,
        thread: JoinHandle<Result<T, BenchError>>,
    ) -> Result<T, BenchError> {
        while !thread.is_finished() {
            if self.interrupt.is_asked() {
                plan.stop();
            }
            crate::clock::pause(watch::LOOK);
        }
        join(thread)
    }
}

/// The intervals behind the warm-up, and how many seconds they are.
fn measured(
    intervals: BTreeMap<u32, Interval>,
    warmup_s: u32,
    plan: &Plan,
    end_ns: u64,
) -> (Vec<Interval>, f64) {
    let from_ns = plan.start_ns + u64::from(warmup_s) * SECOND_NS;
    let seconds = float(end_ns.saturating_sub(from_ns)) / 1e9;
    let behind = intervals.into_values().filter(|interval| warmup_s <= interval.index);
    (behind.collect(), seconds)
}

fn join<T>(thread: JoinHandle<Result<T, BenchError>>) -> Result<T, BenchError> {
    thread.join().unwrap_or(Err(BenchError::Panicked))
}

/// What was sent, by topic, partition and producer.
struct SentLanes {
    partitions: usize,
    lanes: Vec<Vec<SentLane>>,
}

impl SentLanes {
    fn new(options: &Options) -> Self {
        let partitions = usize::try_from(options.partitions).unwrap_or(usize::MAX);
        let topics = usize::try_from(options.topics).unwrap_or(usize::MAX);
        Self { partitions, lanes: vec![Vec::new(); topics.saturating_mul(partitions)] }
    }

    fn take(&mut self, sending: &Sending) {
        for (producer, topic, sent) in &sending.lanes {
            for (partition, lane) in sent.iter().enumerate() {
                let Some(row) = self.lanes.get_mut(topic * self.partitions + partition) else {
                    continue;
                };
                if row.len() <= *producer {
                    row.resize(producer + 1, SentLane::default());
                }
                if let Some(slot) = row.get_mut(*producer) {
                    slot.clone_from(lane);
                }
            }
        }
    }

    fn of(&self, topic: usize, partition: usize) -> &[SentLane] {
        self.lanes.get(topic * self.partitions + partition).map_or(&[], Vec::as_slice)
    }
}

/// Runs a thread of the bench, pinned to the CPU if one was asked for.
pub(crate) fn spawn_thread<T: Send + 'static>(
    name: String,
    cpu: Option<u32>,
    work: impl FnOnce() -> Result<T, BenchError> + Send + 'static,
) -> Result<JoinHandle<Result<T, BenchError>>, BenchError> {
    let pinned = move || {
        if let Some(cpu) = cpu {
            let mut set = rustix::thread::CpuSet::new();
            set.set(usize::try_from(cpu).unwrap_or(usize::MAX));
            rustix::thread::sched_setaffinity(None, &set)
                .map_err(|error| BenchError::system(format!("pin to CPU {cpu}"))(error.into()))?;
        }
        work()
    };
    let thread = std::thread::Builder::new().name(name).spawn(pinned);
    thread.map_err(BenchError::system("start a thread"))
}

/// The CPU of the `place`th thread.
pub(crate) fn cpu_of(options: &Options, place: u32) -> Option<u32> {
    let cpus = std::thread::available_parallelism().map_or(1, |cpus| count(cpus.get()));
    let cpus = u32::try_from(cpus).unwrap_or(1);
    options.pin.map(|first| (first + place) % cpus.max(1))
}
