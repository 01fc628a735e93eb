//! A thread that reads: takes the end-to-end time of every record and checks that all come, once and
//! in order.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::task::LocalSet;

use super::client::{Ends, Polled, Reader};
use super::levada::LevadaReader;
#[cfg(feature = "librdkafka")]
use super::librdkafka::LibrdkafkaReader;
use super::{Plan, Recorder, cpu_of, spawn_thread};
use crate::check::Checker;
use crate::clock::{SECOND_NS, now_ns};
use crate::error::BenchError;
use crate::number::{count, size};
use crate::options::{ClientKind, Mode};
use crate::payload::Stamp;
use crate::recorder::{Interval, Series};

/// How long a poll waits before it looks whether the run is over.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// What a thread read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Topic, partition, and what was seen there.
    pub(super) checkers: Vec<(usize, usize, Checker)>,
    /// Why it ended early.
    pub(super) problem: Option<String>,
    /// Whether nothing is missing that could have been read; else a gap says nothing.
    pub(super) to_the_end: bool,
}

/// How far a reader came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Read {
    /// Behind everything that will ever be sent.
    All,
    /// Not so far: the run was stopped.
    Some,
}

/// How often everything is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscriptions {
    /// As often as the options say.
    All,
    /// Once, to check it.
    One,
}

/// Starts the reading threads.
pub(super) fn spawn(
    plan: &Arc<Plan>,
    out: &Sender<Interval>,
    subscriptions: Subscriptions,
) -> Result<Vec<JoinHandle<Result<Reading, BenchError>>>, BenchError> {
    let subscriptions = match subscriptions {
        Subscriptions::All => plan.options.subscriptions,
        Subscriptions::One => 1,
    };
    let readers = subscriptions * plan.options.consumers;
    let workers = plan.options.workers.min(readers);
    let work = match plan.options.client {
        ClientKind::Levada => read_with::<LevadaReader>,
        #[cfg(feature = "librdkafka")]
        ClientKind::Librdkafka => read_with::<LibrdkafkaReader>,
        #[cfg(not(feature = "librdkafka"))]
        ClientKind::Librdkafka => return Err(crate::options::without_librdkafka()),
    };
    let spawn = |worker| {
        let (plan, out) = (Arc::clone(plan), out.clone());
        let cpu = cpu_of(&plan.options, plan.options.workers + worker);
        let numbers = (worker..readers).step_by(size(workers.into())).collect();
        spawn_thread(format!("read-{worker}"), cpu, move || work(&plan, numbers, out))
    };
    (0..workers).map(spawn).collect()
}

fn read_with<R: Reader + 'static>(
    plan: &Arc<Plan>,
    numbers: Vec<u32>,
    out: Sender<Interval>,
) -> Result<Reading, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("start a runtime"))?;
    LocalSet::new().block_on(&runtime, read_all::<R>(plan, numbers, out))
}

async fn read_all<R: Reader + 'static>(
    plan: &Arc<Plan>,
    numbers: Vec<u32>,
    out: Sender<Interval>,
) -> Result<Reading, BenchError> {
    let recorder = Rc::new(RefCell::new(Recorder::new(plan.start_ns, out)));
    let spawn = |number| {
        let reading = read_share::<R>(Arc::clone(plan), number, Rc::clone(&recorder));
        tokio::task::spawn_local(reading)
    };
    let tasks: Vec<_> = numbers.into_iter().map(spawn).collect();
    let mut reading = Reading { checkers: Vec::new(), problem: None, to_the_end: true };
    for task in tasks {
        let read = task.await.map_err(|_| BenchError::Panicked)??;
        reading.checkers.extend(read.checkers);
        reading.problem = reading.problem.or(read.problem);
        reading.to_the_end &= read.to_the_end;
    }
    recorder.borrow_mut().flush();
    Ok(reading)
}

/// One consumer with its share of every topic's partitions.
async fn read_share<R: Reader>(
    plan: Arc<Plan>,
    number: u32,
    recorder: Rc<RefCell<Recorder>>,
) -> Result<Reading, BenchError> {
    let options = &plan.options;
    let share = number % options.consumers..options.partitions;
    let share = share.step_by(size(options.consumers.into()));
    let partitions: Vec<i32> = share.filter_map(|place| i32::try_from(place).ok()).collect();
    let mut sink = Sink::new(&plan, &partitions, recorder);
    let mut came = Ok(Read::All);
    // More consumers than partitions: some have nothing to do.
    if !partitions.is_empty() {
        let mut reader = R::connect(&plan, &partitions).await?;
        came = read(&plan, &mut reader, &mut sink).await;
    }
    if came.is_err() {
        plan.stop();
    }
    // Behind an error what is missing counts as lost: the run is void in any case.
    let to_the_end = !matches!(came, Ok(Read::Some));
    let problem = came.err().map(|error| error.to_string());
    Ok(Reading { checkers: sink.into_checkers(), problem, to_the_end })
}

/// Until everything is read that will ever be sent. Of a run that was stopped only what is read while it is sent
/// is read to the end: that is soon.
async fn read<R: Reader>(plan: &Plan, reader: &mut R, sink: &mut Sink) -> Result<Read, BenchError> {
    let mut ends: Option<Ends> = None;
    let patience_ns = u64::from(plan.options.timeout_s) * SECOND_NS;
    let mut heard_ns = now_ns();
    loop {
        let sent = plan.sent.load(Ordering::Acquire);
        if ends.is_none() && sent {
            ends = Some(reader.ends().await?);
            heard_ns = now_ns();
        }
        if ends.as_ref().is_some_and(|ends| is_behind_all(reader, ends)) {
            return Ok(Read::All);
        }
        if plan.is_stopped() && plan.options.mode != Mode::EndToEnd {
            return Ok(Read::Some);
        }
        if reader.poll(sink).await? == Polled::Records {
            heard_ns = now_ns();
        } else if ends.is_some() && heard_ns + patience_ns <= now_ns() {
            let what = "read to the end".to_owned();
            let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
            return Err(BenchError::System { what, source });
        }
    }
}

fn is_behind_all<R: Reader>(reader: &R, ends: &Ends) -> bool {
    ends.iter().enumerate().all(|(topic, ends)| {
        let at = |partition| reader.position(topic, partition);
        ends.iter().all(|(partition, end)| at(*partition).is_some_and(|at| *end <= at))
    })
}

/// Takes what a reader reads.
pub(super) struct Sink {
    timed: bool,
    checkers: BTreeMap<(usize, i32), Checker>,
    recorder: Rc<RefCell<Recorder>>,
}

impl Sink {
    fn new(plan: &Plan, partitions: &[i32], recorder: Rc<RefCell<Recorder>>) -> Self {
        let producers = size(plan.options.producers.into());
        let lanes = (0..plan.topics.len())
            .flat_map(|topic| partitions.iter().map(move |partition| (topic, *partition)));
        let checker = |lane| (lane, Checker::new(plan.run, producers));
        let timed = plan.options.mode == Mode::EndToEnd;
        Self { timed, checkers: lanes.map(checker).collect(), recorder }
    }

    /// Begins to take records that a reader has of a partition now; `None` when it is not its own.
    pub(super) fn taking(&mut self, topic: usize, partition: i32) -> Option<Taking<'_>> {
        let checker = self.checkers.get_mut(&(topic, partition))?;
        let (mut recorder, now_ns) = (self.recorder.borrow_mut(), now_ns());
        recorder.at(now_ns);
        Some(Taking { timed: self.timed, now_ns, checker, recorder })
    }

    fn into_checkers(self) -> Vec<(usize, usize, Checker)> {
        let place = |((topic, partition), checker): ((usize, i32), Checker)| {
            (topic, usize::try_from(partition).unwrap_or(0), checker)
        };
        self.checkers.into_iter().map(place).collect()
    }
}

/// Takes records of one partition that came together.
pub(super) struct Taking<'a> {
    timed: bool,
    now_ns: u64,
    checker: &'a mut Checker,
    recorder: RefMut<'a, Recorder>,
}

impl Taking<'_> {
    #[inline]
    pub(super) fn on_record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        let value = value.unwrap_or_default();
        let stamp = Stamp::read(value);
        let counts = self.recorder.counts();
        counts.received += 1;
        counts.received_bytes += count(value.len() + key.map_or(0, <[u8]>::len));
        if let Some(stamp) = stamp.filter(|_| self.timed) {
            if self.now_ns < stamp.intended_ns {
                counts.negative += 1;
            }
            let took_ns = self.now_ns.saturating_sub(stamp.intended_ns);
            self.recorder.record(Series::EndToEnd, took_ns);
        }
        self.checker.on_record(stamp);
    }
}
