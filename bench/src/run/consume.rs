//! A thread that reads: takes the end-to-end time of every record and checks that all come, once and
//! in order.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use std::time::Duration;

use levada_client::{Cluster, Consumer, ConsumerOptions, Position};
use levada_record::Offset;
use tokio::task::LocalSet;

use super::{Plan, Recorder, cpu_of, spawn_thread};
use crate::check::Checker;
use crate::clock::{SECOND_NS, now_ns};
use crate::error::BenchError;
use crate::number::{count, size};
use crate::options::Mode;
use crate::payload::Stamp;
use crate::recorder::{Interval, Series};

/// How long a poll waits before it looks whether the run is over.
const POLL: Duration = Duration::from_millis(100);

/// What a thread read.
#[derive(Debug)]
pub(super) struct Reading {
    /// Topic, partition, and what was seen there.
    pub(super) checkers: Vec<(usize, usize, Checker)>,
    /// Why it ended early.
    pub(super) problem: Option<String>,
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
    let spawn = |worker| {
        let (plan, out) = (Arc::clone(plan), out.clone());
        let cpu = cpu_of(&plan.options, plan.options.workers + worker);
        spawn_thread(format!("read-{worker}"), cpu, move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(BenchError::system("start a runtime"))?;
            let numbers = (worker..readers).step_by(size(workers.into())).collect();
            LocalSet::new().block_on(&runtime, read_all(&plan, numbers, out))
        })
    };
    (0..workers).map(spawn).collect()
}

async fn read_all(
    plan: &Arc<Plan>,
    numbers: Vec<u32>,
    out: Sender<Interval>,
) -> Result<Reading, BenchError> {
    let recorder = Rc::new(RefCell::new(Recorder::new(plan.start_ns, out)));
    let spawn = |number| {
        let reader = Reader::connect(Arc::clone(plan), number, Rc::clone(&recorder));
        tokio::task::spawn_local(async move { reader.await?.run().await })
    };
    let tasks: Vec<_> = numbers.into_iter().map(spawn).collect();
    let mut reading = Reading { checkers: Vec::new(), problem: None };
    for task in tasks {
        let read = task.await.map_err(|_| BenchError::Panicked)??;
        reading.checkers.extend(read.checkers);
        reading.problem = reading.problem.or(read.problem);
    }
    recorder.borrow_mut().flush();
    Ok(reading)
}

/// One consumer with its share of every topic's partitions.
struct Reader {
    plan: Arc<Plan>,
    consumer: Consumer,
    partitions: Vec<i32>,
    checkers: BTreeMap<(usize, i32), Checker>,
    recorder: Rc<RefCell<Recorder>>,
}

impl Reader {
    async fn connect(
        plan: Arc<Plan>,
        number: u32,
        recorder: Rc<RefCell<Recorder>>,
    ) -> Result<Self, BenchError> {
        let options = &plan.options;
        let cluster = Cluster::connect(&plan.bootstrap, options.cluster_options()).await?;
        let patience = Duration::from_secs(options.timeout_s.into());
        let consumer_options = ConsumerOptions { patience, ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(cluster, consumer_options);
        let share = number % options.consumers..options.partitions;
        let share = share.step_by(size(options.consumers.into()));
        let partitions: Vec<i32> = share.filter_map(|place| i32::try_from(place).ok()).collect();
        let producers = size(options.producers.into());
        let mut checkers = BTreeMap::new();
        for (place, topic) in plan.topics.iter().enumerate() {
            consumer.assign_all(topic, &partitions, Position::Start).await?;
            for partition in &partitions {
                checkers.insert((place, *partition), Checker::new(plan.run, producers));
            }
        }
        Ok(Self { plan, consumer, partitions, checkers, recorder })
    }

    async fn run(mut self) -> Result<Reading, BenchError> {
        let mut problem = None;
        // More consumers than partitions: some have nothing to do.
        if !self.partitions.is_empty() {
            problem = self.read().await.err().map(|error| error.to_string());
        }
        if problem.is_some() {
            self.plan.stop();
        }
        let place = |((topic, partition), checker): ((usize, i32), Checker)| {
            (topic, usize::try_from(partition).unwrap_or(0), checker)
        };
        Ok(Reading { checkers: self.checkers.into_iter().map(place).collect(), problem })
    }

    /// Until everything is read that will ever be sent.
    async fn read(&mut self) -> Result<(), BenchError> {
        let mut scratch = Vec::new();
        let mut ends: Option<Vec<BTreeMap<i32, Offset>>> = None;
        let patience_ns = u64::from(self.plan.options.timeout_s) * SECOND_NS;
        let mut heard_ns = now_ns();
        loop {
            let sent = self.plan.sent.load(Ordering::Acquire);
            if ends.is_none() && sent {
                ends = Some(self.ends().await?);
                heard_ns = now_ns();
            }
            if ends.as_ref().is_some_and(|ends| self.is_behind_all(ends)) {
                return Ok(());
            }
            let fetched = self.consumer.poll(POLL).await?;
            if !fetched.is_empty() {
                heard_ns = now_ns();
            } else if ends.is_some() && heard_ns + patience_ns <= now_ns() {
                let what = "read to the end".to_owned();
                let source = std::io::Error::from(std::io::ErrorKind::TimedOut);
                return Err(BenchError::System { what, source });
            }
            for records in fetched {
                let place = self.plan.topics.iter().position(|topic| **topic == *records.topic);
                let key = (place.unwrap_or(usize::MAX), records.partition);
                let Some(checker) = self.checkers.get_mut(&key) else { continue };
                let timed = self.plan.options.mode == Mode::EndToEnd;
                let mut recorder = self.recorder.borrow_mut();
                let now_ns = now_ns();
                recorder.at(now_ns);
                let visited = records.visit(&mut scratch, |record| {
                    let value = record.value.unwrap_or_default();
                    let stamp = Stamp::read(value);
                    let counts = recorder.counts();
                    counts.received += 1;
                    counts.received_bytes += count(value.len() + record.key.map_or(0, <[u8]>::len));
                    if let Some(stamp) = stamp.filter(|_| timed) {
                        if now_ns < stamp.intended_ns {
                            counts.negative += 1;
                        }
                        let took_ns = now_ns.saturating_sub(stamp.intended_ns);
                        recorder.record(Series::EndToEnd, took_ns);
                    }
                    checker.on_record(stamp);
                    Ok::<(), std::convert::Infallible>(())
                });
                visited.map_err(|error| {
                    let source = std::io::Error::other(error.to_string());
                    BenchError::System { what: format!("read {}", records.topic), source }
                })?;
            }
        }
    }

    async fn ends(&self) -> Result<Vec<BTreeMap<i32, Offset>>, BenchError> {
        let mut ends = Vec::new();
        for topic in &self.plan.topics {
            ends.push(self.consumer.offsets(topic, &self.partitions, Position::End).await?);
        }
        Ok(ends)
    }

    fn is_behind_all(&self, ends: &[BTreeMap<i32, Offset>]) -> bool {
        let at = |topic, partition| self.consumer.position(topic, partition);
        self.plan.topics.iter().zip(ends).all(|(topic, ends)| {
            ends.iter().all(|(partition, end)| at(topic, *partition).is_some_and(|at| *end <= at))
        })
    }
}
