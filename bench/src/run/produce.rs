//! A thread that sends: on its schedule, whatever comes back, or as fast as the client takes records.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;

use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use tokio::task::LocalSet;

use super::client::{Target, Targets};
use super::levada::LevadaTargets;
#[cfg(feature = "librdkafka")]
use super::librdkafka::LibrdkafkaTargets;
use super::{Plan, Recorder, cpu_of, spawn_thread};
use crate::check::SentLane;
use crate::clock::{Alarm, now_ns};
use crate::error::BenchError;
use crate::number::{count, float, share};
use crate::options::{ClientKind, Mode};
use crate::recorder::{Interval, Series, histogram};
use crate::schedule::Schedule;

/// A call of `send` that took longer was held up by the client; what is late behind it is late for
/// the system's sake, not the generator's.
const HELD_UP_NS: u64 = 1_000_000;

/// What a thread sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// Producer, topic, and what it sent to each partition.
    pub(super) lanes: Vec<(usize, usize, Vec<SentLane>)>,
    /// How late sends began that nothing but this thread held up.
    pub(super) own_lag: Histogram<u64>,
    /// Share of a CPU that the thread used while it sent.
    pub(super) cpu_share: f64,
    /// Why it ended early.
    pub(super) problem: Option<String>,
    /// What was not acknowledged; the sequences are in the lanes.
    pub(super) failures: Failures,
}

/// Starts the sending threads.
pub(super) fn spawn(
    plan: &Arc<Plan>,
    out: &Sender<Interval>,
) -> Result<Vec<JoinHandle<Result<Sending, BenchError>>>, BenchError> {
    let work = match plan.options.client {
        ClientKind::Levada => send_with::<LevadaTargets>,
        #[cfg(feature = "librdkafka")]
        ClientKind::Librdkafka => send_with::<LibrdkafkaTargets>,
        #[cfg(not(feature = "librdkafka"))]
        ClientKind::Librdkafka => return Err(crate::options::without_librdkafka()),
    };
    let spawn = |worker| {
        let (plan, out) = (Arc::clone(plan), out.clone());
        let cpu = cpu_of(&plan.options, worker);
        spawn_thread(format!("send-{worker}"), cpu, move || work(&plan, worker, out))
    };
    (0..plan.options.workers).map(spawn).collect()
}

fn send_with<T: Targets>(
    plan: &Arc<Plan>,
    worker: u32,
    out: Sender<Interval>,
) -> Result<Sending, BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(BenchError::system("start a runtime"))?;
    let sending = LocalSet::new().block_on(&runtime, send_all::<T>(plan, worker, out));
    if sending.is_err() {
        plan.stop();
    }
    sending
}

async fn send_all<T: Targets>(
    plan: &Arc<Plan>,
    worker: u32,
    out: Sender<Interval>,
) -> Result<Sending, BenchError> {
    let recorder = Rc::new(RefCell::new(Recorder::new(plan.start_ns, out.clone())));
    let client = T::new(plan, &recorder, &out);
    drop(out);
    let mut targets = Vec::new();
    for producer in
        (worker..plan.options.producers).step_by(crate::number::size(plan.options.workers.into()))
    {
        targets.push(client.connect(producer).await?);
    }
    let alarm = Alarm::new().map_err(BenchError::system("create a timer"))?;
    let mut sender = Generator { plan, recorder: &recorder, alarm, own_lag: histogram() };
    let cpu_before_ns = thread_cpu_ns();
    let schedule = schedule(plan, worker);
    let began_ns = now_ns().max(plan.start_ns);
    let sent = match (plan.options.mode, schedule) {
        (Mode::Consume, _) => sender.backlog(&mut targets).await,
        (_, None) => sender.maximum(&mut targets).await,
        (_, Some(schedule)) => sender.on_schedule(&mut targets, schedule).await,
    };
    let cpu_ns = thread_cpu_ns() - cpu_before_ns;
    let cpu_share = share(float(cpu_ns), float(now_ns().saturating_sub(began_ns)));
    let own_lag = sender.own_lag;
    let mut flushed = Ok(());
    for target in &mut targets {
        flushed = flushed.and(target.flush().await);
    }
    let mut lanes: Vec<_> = targets.into_iter().map(Target::into_lanes).collect();
    let mut failures = client.settle().await?;
    for (producer, partition, failed) in std::mem::take(&mut failures.ranges) {
        let lane = lanes.iter_mut().find(|(number, ..)| *number == producer);
        if let Some(lane) = lane.and_then(|(_, _, lanes)| lanes.get_mut(partition)) {
            lane.failed.push(failed);
        }
    }
    recorder.borrow_mut().flush();
    let problem = sent.and(flushed).err().map(|error| error.to_string());
    Ok(Sending { lanes, own_lag, cpu_share, problem, failures })
}

fn schedule(plan: &Plan, worker: u32) -> Option<Schedule> {
    let options = &plan.options;
    let workers = u64::from(options.workers);
    let phase = float(worker.into()) / float(workers);
    let seed = options.seed.wrapping_add(u64::from(worker));
    let length_ns = plan.end_ns - plan.start_ns;
    Schedule::new(options.rate.divided(workers), options.arrivals, length_ns, seed, phase)
}

/// CPU time of this thread.
fn thread_cpu_ns() -> u64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or(0);
    seconds * crate::clock::SECOND_NS + u64::try_from(used.tv_nsec).unwrap_or(0)
}

/// Records that were not acknowledged.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// How many.
    pub(super) records: u64,
    /// Why the first was not.
    pub(super) first: Option<String>,
    /// Producer, partition, sequences.
    pub(super) ranges: Vec<(usize, usize, Range<u64>)>,
}

impl Failures {
    /// Adds records, to the range before them where they follow on that.
    pub(super) fn add(&mut self, producer: usize, partition: usize, failed: Range<u64>) {
        self.records += failed.end - failed.start;
        match self.ranges.last_mut() {
            Some((of, at, range))
                if (*of, *at, range.end) == (producer, partition, failed.start) =>
            {
                range.end = failed.end;
            }
            _ => self.ranges.push((producer, partition, failed)),
        }
    }

    /// Adds those of another thread.
    pub(super) fn add_all(&mut self, other: Self) {
        self.records += other.records;
        self.first = self.first.take().or(other.first);
        self.ranges.extend(other.ranges);
    }
}

struct Generator<'a> {
    plan: &'a Plan,
    recorder: &'a RefCell<Recorder>,
    alarm: Alarm,
    own_lag: Histogram<u64>,
}

impl Generator<'_> {
    /// Every record at its moment, or as soon as possible afterwards; none is left out.
    async fn on_schedule<T: Target>(
        &mut self,
        targets: &mut [T],
        schedule: Schedule,
    ) -> Result<(), BenchError> {
        // Until then everything is late because the client held a send up.
        let mut excused_until_ns = 0;
        let mut turn = 0;
        for at_ns in schedule {
            if self.plan.is_stopped() {
                break;
            }
            let intended_ns = self.plan.start_ns + at_ns;
            let mut begin_ns = now_ns();
            if begin_ns < intended_ns {
                self.wait_until(intended_ns).await?;
                begin_ns = now_ns();
            }
            let lag_ns = begin_ns - intended_ns.min(begin_ns);
            {
                let mut recorder = self.recorder.borrow_mut();
                recorder.at(begin_ns);
                recorder.record(Series::Lag, lag_ns);
                recorder.counts().sent += 1;
            }
            if excused_until_ns <= intended_ns {
                self.own_lag.saturating_record(lag_ns);
            }
            turn = if turn + 1 < targets.len() { turn + 1 } else { 0 };
            let target = targets.get_mut(turn).expect("every worker has a producer");
            target.send(intended_ns, begin_ns).await?;
            let end_ns = now_ns();
            if HELD_UP_NS <= end_ns - begin_ns {
                excused_until_ns = end_ns;
            } else if intended_ns < excused_until_ns {
                // Still catching up.
                excused_until_ns = excused_until_ns.max(end_ns);
            }
        }
        Ok(())
    }

    /// As fast as the client takes them.
    async fn maximum<T: Target>(&mut self, targets: &mut [T]) -> Result<(), BenchError> {
        self.wait_until(self.plan.start_ns).await?;
        'sending: loop {
            for target in &mut *targets {
                let begin_ns = now_ns();
                if self.plan.end_ns <= begin_ns || self.plan.is_stopped() {
                    break 'sending;
                }
                target.send(begin_ns, begin_ns).await?;
                self.count_sent(begin_ns);
            }
        }
        Ok(())
    }

    /// A number of records, as fast as the client takes them.
    async fn backlog<T: Target>(&mut self, targets: &mut [T]) -> Result<(), BenchError> {
        let producers = count(targets.len()).max(1);
        for number in 0..self.plan.options.backlog_records {
            if self.plan.is_stopped() {
                break;
            }
            let begin_ns = now_ns();
            let target = targets.get_mut(crate::number::size(number % producers));
            target.expect("the remainder is in range").send(begin_ns, begin_ns).await?;
        }
        Ok(())
    }

    async fn wait_until(&self, at_ns: u64) -> Result<(), BenchError> {
        self.alarm.wait_until(at_ns).await.map_err(BenchError::system("wait"))
    }

    fn count_sent(&self, now_ns: u64) {
        let mut recorder = self.recorder.borrow_mut();
        recorder.at(now_ns);
        recorder.counts().sent += 1;
    }
}
