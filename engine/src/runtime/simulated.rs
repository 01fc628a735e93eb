//! A seeded, single-threaded executor on virtual time: polls the very futures that production runs.
//!
//! Among the tasks that are ready the seed picks the next one; when none is ready, the clock jumps to
//! the next timer. Nothing else decides, so a seed and a program give one schedule, and
//! [`SimRuntime::trace_hash`] proves it. Tasks belong to a process ([`SimRuntime::process`]) and die
//! with it ([`SimRuntime::kill`]), wherever they stand: that is a crash.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::{LocalFuture, Now, Runtime, SharedRuntime};

/// Wall clock at virtual time zero, in milliseconds since 1970.
pub const WALL_START_MS: i64 = 1_700_000_000_000;

/// Steps after which a run is called a livelock, unless [`SimRuntime::set_step_limit`] says otherwise.
pub const STEP_LIMIT_DEFAULT: u64 = 50_000_000;

/// Events kept for the report that a panicking run prints.
const RECENT_EVENTS_MAX: usize = 64;

/// Why [`SimRuntime::run`] stopped before its future was done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stopped {
    /// [`SimRuntime::interrupt`] was called; a disk does so when its planned power cut comes.
    #[error("interrupted at step {step}")]
    Interrupted {
        /// Steps done so far.
        step: u64,
    },
    /// Nothing is ready and no timer is set: every task waits for something that cannot come.
    #[error("no task can ever run again; waiting: {waiting:?}")]
    Idle {
        /// Names of the tasks that wait, in order of their creation.
        waiting: Vec<&'static str>,
    },
    /// The step limit was reached.
    #[error("still busy after {steps} steps")]
    StepLimit {
        /// The limit.
        steps: u64,
    },
}

/// A handle on the simulated executor, bound to one simulated process. Clones share everything.
#[derive(Clone)]
pub struct SimRuntime {
    shared: Rc<Shared>,
    process: u64,
}

struct Shared {
    seed: u64,
    rng: RefCell<Pcg64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: RefCell<Vec<u64>>,
    woken: mpsc::Receiver<u64>,
    wake: mpsc::Sender<u64>,
    timers: RefCell<BTreeMap<TimerKey, Timer>>,
    wall_skew_ms: RefCell<BTreeMap<u64, i64>>,
    /// The process whose task is being polled, and whether it was killed meanwhile.
    polling: Cell<Option<(u64, bool)>>,
    now_ns: Cell<u64>,
    next_id: Cell<u64>,
    steps: Cell<u64>,
    step_limit: Cell<u64>,
    trace: Cell<u64>,
    interrupted: Cell<bool>,
    recent: RefCell<VecDeque<(u64, &'static str)>>,
}

/// Deadline in virtual nanoseconds, then order of creation.
type TimerKey = (u64, u64);

enum Timer {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

struct Task {
    name: &'static str,
    process: u64,
    /// Absent while it is being polled.
    future: Option<LocalFuture<()>>,
    waker: Waker,
    queued: bool,
}

struct TaskWaker {
    task: u64,
    wake: mpsc::Sender<u64>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // The receiver is gone only when the runtime is, and then there is nobody to wake.
        self.wake.send(self.task).unwrap_or_default();
    }
}

impl SimRuntime {
    /// An executor at virtual time zero whose every choice follows from `seed`.
    pub fn new(seed: u64) -> Self {
        let (wake, woken) = mpsc::channel();
        let shared = Shared {
            seed,
            rng: RefCell::new(Pcg64::seed_from_u64(seed ^ 0x7363_6865_6475_6c65)),
            tasks: RefCell::default(),
            ready: RefCell::default(),
            woken,
            wake,
            timers: RefCell::default(),
            wall_skew_ms: RefCell::default(),
            polling: Cell::new(None),
            now_ns: Cell::new(0),
            next_id: Cell::new(1),
            steps: Cell::new(0),
            step_limit: Cell::new(STEP_LIMIT_DEFAULT),
            trace: Cell::new(seed),
            interrupted: Cell::new(false),
            recent: RefCell::default(),
        };
        Self { shared: Rc::new(shared), process: 0 }
    }

    /// A handle for a further process: same clock, same schedule, own life.
    #[must_use]
    pub fn process(&self) -> Self {
        Self { shared: Rc::clone(&self.shared), process: self.shared.take_id() }
    }

    /// This handle as the engine holds it.
    pub fn shared(&self) -> SharedRuntime {
        Rc::new(self.clone())
    }

    /// The seed that everything follows from.
    pub fn seed(&self) -> u64 {
        self.shared.seed
    }

    /// Virtual time since the start, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.shared.now_ns.get()
    }

    /// Scheduling steps done so far.
    pub fn steps(&self) -> u64 {
        self.shared.steps.get()
    }

    /// Steps after which [`SimRuntime::run`] gives up.
    pub fn set_step_limit(&self, steps: u64) {
        self.shared.step_limit.set(steps);
    }

    /// Moves the wall clock of this process by `skew_ms` against virtual time.
    pub fn set_wall_skew_ms(&self, skew_ms: i64) {
        self.shared.wall_skew_ms.borrow_mut().insert(self.process, skew_ms);
    }

    /// Hash over every step, disk operation and noted event so far.
    pub fn trace_hash(&self) -> u64 {
        self.shared.trace.get()
    }

    /// Feeds `event` and its `numbers` into the trace.
    pub fn note(&self, event: &'static str, numbers: &[u64]) {
        self.shared.note(event, numbers);
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.shared.tasks.borrow().len()
    }

    /// Makes [`SimRuntime::run`] return before its next step.
    pub fn interrupt(&self) {
        self.shared.interrupted.set(true);
    }

    /// Calls `event` at virtual time `at_ns` (or now, if that has passed), whatever becomes of the tasks.
    pub fn call_at(&self, at_ns: u64, event: impl FnOnce() + 'static) {
        let key = (at_ns.max(self.now_ns()), self.shared.take_id());
        self.shared.timers.borrow_mut().insert(key, Timer::Call(Box::new(event)));
    }

    /// Runs until `future` is done.
    ///
    /// # Errors
    /// [`Stopped`] when it cannot get done. The tasks stay as they are.
    pub fn run<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Result<T, Stopped> {
        let slot = Rc::new(RefCell::new(None));
        let result = Rc::clone(&slot);
        self.spawn("main", Box::pin(async move { *result.borrow_mut() = Some(future.await) }));
        loop {
            if let Some(value) = slot.borrow_mut().take() {
                return Ok(value);
            }
            self.check_limits()?;
            if !self.shared.turn() {
                let waiting = self.shared.tasks.borrow().values().map(|task| task.name).collect();
                return Err(Stopped::Idle { waiting });
            }
        }
    }

    /// Like [`SimRuntime::run`], for futures that must get done.
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        match self.run(future) {
            Ok(value) => value,
            Err(stopped) => panic!("{stopped}, seed {}", self.seed()),
        }
    }

    /// Runs until nothing is ready and no timer is set.
    ///
    /// # Errors
    /// [`Stopped`] when interrupted or at the step limit.
    pub fn run_until_idle(&self) -> Result<(), Stopped> {
        loop {
            self.check_limits()?;
            if !self.shared.turn() {
                return Ok(());
            }
        }
    }

    /// Runs everything that happens in the next `duration` of virtual time.
    ///
    /// # Errors
    /// [`Stopped`] when interrupted or at the step limit.
    pub fn run_for(&self, duration: Duration) -> Result<(), Stopped> {
        let end_ns = self.now_ns().saturating_add(nanos(duration));
        loop {
            self.check_limits()?;
            if !self.shared.has_ready() && self.shared.next_timer_ns().is_none_or(|at| at > end_ns)
            {
                self.shared.now_ns.set(end_ns);
                return Ok(());
            }
            self.shared.turn();
        }
    }

    /// Ends every task of this process where it stands.
    pub fn kill(&self) {
        self.shared.kill(Some(self.process));
    }

    /// Ends every task of every process where it stands.
    pub fn kill_all(&self) {
        self.shared.kill(None);
    }

    fn check_limits(&self) -> Result<(), Stopped> {
        let step = self.steps();
        if self.shared.interrupted.replace(false) {
            return Err(Stopped::Interrupted { step });
        }
        if step >= self.shared.step_limit.get() {
            return Err(Stopped::StepLimit { steps: step });
        }
        Ok(())
    }
}

impl Runtime for SimRuntime {
    fn spawn(&self, name: &'static str, task: LocalFuture<()>) {
        let id = self.shared.take_id();
        let waker = Waker::from(Arc::new(TaskWaker { task: id, wake: self.shared.wake.clone() }));
        let task = Task { name, process: self.process, future: Some(task), waker, queued: true };
        self.shared.tasks.borrow_mut().insert(id, task);
        self.shared.ready.borrow_mut().push(id);
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<()> {
        // At least a nanosecond, so that a loop of empty sleeps still lets the clock move.
        let deadline_ns = self.now_ns().saturating_add(nanos(duration).max(1));
        Box::pin(Sleep { shared: Rc::clone(&self.shared), deadline_ns, timer: None })
    }

    fn yield_if_needed(&self) -> LocalFuture<()> {
        let needed = self.shared.rng.borrow_mut().random_bool(0.5);
        Box::pin(async move {
            if needed {
                futures_lite::future::yield_now().await;
            }
        })
    }

    fn now(&self) -> Now {
        let monotonic_ns = self.now_ns();
        let skew_ms = self.shared.wall_skew_ms.borrow().get(&self.process).copied().unwrap_or(0);
        let elapsed_ms = i64::try_from(monotonic_ns / 1_000_000).unwrap_or(i64::MAX);
        let wall_ms = WALL_START_MS.saturating_add(elapsed_ms).saturating_add(skew_ms);
        Now { monotonic_ns, wall_ms }
    }
}

impl Shared {
    fn take_id(&self) -> u64 {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    fn note(&self, event: &'static str, numbers: &[u64]) {
        let mut hash = self.trace.get() ^ self.now_ns.get();
        for byte in event.bytes() {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        for number in numbers {
            hash = (hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
        }
        self.trace.set(hash);
        let mut recent = self.recent.borrow_mut();
        if recent.len() == RECENT_EVENTS_MAX {
            recent.pop_front();
        }
        recent.push_back((self.now_ns.get(), event));
    }

    fn has_ready(&self) -> bool {
        self.collect_woken();
        !self.ready.borrow().is_empty()
    }

    fn next_timer_ns(&self) -> Option<u64> {
        self.timers.borrow().keys().next().map(|key| key.0)
    }

    /// Moves the tasks that were woken to the ready list, in the order of their wakes.
    fn collect_woken(&self) {
        let mut tasks = self.tasks.borrow_mut();
        let mut ready = self.ready.borrow_mut();
        for id in self.woken.try_iter() {
            if let Some(task) = tasks.get_mut(&id)
                && !task.queued
            {
                task.queued = true;
                ready.push(id);
            }
        }
    }

    /// One step: polls one ready task, or lets the next timer fire. False when there is neither.
    fn turn(&self) -> bool {
        self.steps.set(self.steps.get() + 1);
        if self.has_ready() {
            let mut ready = self.ready.borrow_mut();
            let chosen = self.rng.borrow_mut().random_range(0..ready.len());
            let id = ready.swap_remove(chosen);
            drop(ready);
            self.poll(id);
            return true;
        }
        let Some((key, timer)) = self.timers.borrow_mut().pop_first() else { return false };
        self.now_ns.set(self.now_ns.get().max(key.0));
        match timer {
            Timer::Wake(waker) => waker.wake(),
            Timer::Call(call) => call(),
        }
        true
    }

    fn poll(&self, id: u64) {
        let mut tasks = self.tasks.borrow_mut();
        let Some(task) = tasks.get_mut(&id) else { return };
        let Some(mut future) = task.future.take() else { return };
        task.queued = false;
        let (name, process, waker) = (task.name, task.process, task.waker.clone());
        drop(tasks);
        self.note(name, &[id]);
        self.polling.set(Some((process, false)));
        let report = Report(self);
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        drop(report);
        let killed = self.polling.take().is_some_and(|(_, killed)| killed);
        if polled.is_pending() && !killed {
            if let Some(task) = self.tasks.borrow_mut().get_mut(&id) {
                task.future = Some(future);
            }
        } else {
            self.tasks.borrow_mut().remove(&id);
            drop(future);
        }
    }

    fn kill(&self, process: Option<u64>) {
        let doomed = |owner: u64| process.is_none_or(|process| process == owner);
        if let Some((polled, _)) = self.polling.get()
            && doomed(polled)
        {
            self.polling.set(Some((polled, true)));
        }
        let mut tasks = self.tasks.borrow_mut();
        let ids: Vec<u64> =
            tasks.iter().filter(|(_, task)| doomed(task.process)).map(|(id, _)| *id).collect();
        let dying: Vec<Task> = ids.iter().filter_map(|id| tasks.remove(id)).collect();
        drop(tasks);
        self.ready.borrow_mut().retain(|id| !ids.contains(id));
        self.note("kill", &[dying.len() as u64]);
        // Outside the borrow: what the futures own may spawn, wake and schedule while it goes.
        drop(dying);
    }
}

/// Says which run it was, when a task panics.
struct Report<'a>(&'a Shared);

impl Drop for Report<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Shared { seed, steps, now_ns, recent, .. } = self.0;
            let (steps, now_ns) = (steps.get(), now_ns.get());
            eprintln!("simulation: seed {seed} step {steps} at {now_ns} ns, last {recent:?}");
        }
    }
}

struct Sleep {
    shared: Rc<Shared>,
    deadline_ns: u64,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shared.now_ns.get() >= self.deadline_ns {
            return Poll::Ready(());
        }
        let key = self.timer.unwrap_or_else(|| (self.deadline_ns, self.shared.take_id()));
        self.timer = Some(key);
        self.shared.timers.borrow_mut().insert(key, Timer::Wake(context.waker().clone()));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let timer = self.shared.timers.borrow_mut().remove(&key);
            drop(timer);
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
