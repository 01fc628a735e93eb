//! The executor of production: glommio, one per core.
//!
//! A panic in a glommio task kills the shard's thread, and a detached task leaks with all it holds at
//! the executor's end. So every task is owned here, catches its panic, and is cancelled by
//! [`GlommioRuntime::stop`].

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_lite::FutureExt;
use glommio::{Task, TaskQueueHandle};

use super::{LocalFuture, Now, Runtime, SharedRuntime};

/// Turn of the reactor that lets queued closes and cancellations reach the kernel.
const LAST_TURN: Duration = Duration::from_millis(1);

/// The tasks and clocks of one shard. Clones are the same runtime. Belongs to the executor's thread.
#[derive(Clone)]
pub struct GlommioRuntime {
    shared: Rc<Shared>,
}

struct Shared {
    queue: Option<TaskQueueHandle>,
    tasks: RefCell<BTreeMap<u64, Task<()>>>,
    /// Tasks that ended and whose handles have still to go.
    ended: RefCell<Vec<u64>>,
    next_task: Cell<u64>,
    stopping: Cell<bool>,
    panicked: Cell<Option<&'static str>>,
    on_panic: RefCell<Option<OnPanic>>,
    start: Instant,
    /// The wall clock as last read.
    wall: Cell<Wall>,
    /// When a task last let the reactor have its turn, in nanoseconds.
    turned_ns: Cell<u64>,
}

/// The wall clock at some moment.
#[derive(Debug, Clone, Copy, Default)]
struct Wall {
    read_ns: u64,
    /// Since 1970, in microseconds; 0 before the first look.
    us: i64,
}

/// Between two looks at the wall clock, in nanoseconds: meanwhile it goes as the other clock does.
const WALL_EVERY_NS: u64 = 1_000_000;

/// Tasks that yield run together no longer than this without letting the reactor see what has completed, in
/// nanoseconds. The executor by itself looks only when nothing can run any more, or its preemption timer fires.
const TURN_NS: u64 = 1_000_000;
/// The shortest timer that is not over before it is asked: only one that waits lets the reactor have a turn.
const TURN_TAKES: Duration = Duration::from_micros(1);

type OnPanic = Rc<dyn Fn(&'static str)>;

impl Default for GlommioRuntime {
    fn default() -> Self {
        Self::new(None)
    }
}

impl GlommioRuntime {
    /// A runtime whose tasks run in `queue`, or in the executor's default one.
    pub fn new(queue: Option<TaskQueueHandle>) -> Self {
        #[expect(
            clippy::disallowed_methods,
            reason = "this is the shell that others ask for the time"
        )]
        let start = Instant::now();
        let shared = Shared {
            queue,
            tasks: RefCell::default(),
            ended: RefCell::default(),
            next_task: Cell::new(0),
            stopping: Cell::new(false),
            panicked: Cell::new(None),
            on_panic: RefCell::new(None),
            start,
            wall: Cell::default(),
            turned_ns: Cell::new(0),
        };
        Self { shared: Rc::new(shared) }
    }

    /// This runtime as the engine holds it.
    pub fn shared(&self) -> SharedRuntime {
        Rc::new(self.clone())
    }

    /// Has `call` called with the name of every task that panics, so that the shard can stop.
    pub fn on_panic(&self, call: impl Fn(&'static str) + 'static) {
        *self.shared.on_panic.borrow_mut() = Some(Rc::new(call));
    }

    /// Name of the first task that panicked.
    pub fn panicked(&self) -> Option<&'static str> {
        self.shared.panicked.get()
    }

    /// Tasks that have not ended.
    pub fn tasks(&self) -> usize {
        self.shared.sweep();
        self.shared.tasks.borrow().len()
    }

    /// Cancels every task and waits until each is gone; what is spawned from now on never runs. Not to be
    /// called from a task of this runtime. Close files and await the disk after it, then end the shard.
    pub async fn stop(&self) {
        self.shared.stopping.set(true);
        loop {
            self.shared.sweep();
            let tasks = self.shared.tasks.take();
            if tasks.is_empty() {
                break;
            }
            for task in tasks.into_values() {
                task.cancel().await;
            }
        }
        glommio::timer::sleep(LAST_TURN).await;
    }
}

impl Shared {
    /// Lets go of the handles of ended tasks.
    fn sweep(&self) {
        let ended = self.ended.take();
        let mut tasks = self.tasks.borrow_mut();
        for task in ended {
            tasks.remove(&task);
        }
    }

    fn report(&self, name: &'static str, payload: &(dyn Any + Send)) {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        tracing::error!(task = name, "task panicked: {}", text.unwrap_or("no message"));
        if self.panicked.get().is_none() {
            self.panicked.set(Some(name));
        }
        let call = self.on_panic.borrow().clone();
        if let Some(call) = call {
            call(name);
        }
    }
}

impl Runtime for GlommioRuntime {
    fn spawn(&self, name: &'static str, task: LocalFuture<()>) {
        if self.shared.stopping.get() {
            return;
        }
        self.shared.sweep();
        let id = self.shared.next_task.get();
        self.shared.next_task.set(id + 1);
        let shared = Rc::downgrade(&self.shared);
        let owned = async move {
            let result = AssertUnwindSafe(task).catch_unwind().await;
            if let Some(shared) = shared.upgrade() {
                if let Err(payload) = result {
                    shared.report(name, payload.as_ref());
                }
                shared.ended.borrow_mut().push(id);
            }
        };
        let task = match self.shared.queue {
            Some(queue) => glommio::spawn_local_into(owned, queue)
                .expect("the task queue was made on this executor and lives as long"),
            None => glommio::spawn_local(owned),
        };
        self.shared.tasks.borrow_mut().insert(id, task);
    }

    fn sleep(&self, duration: Duration) -> LocalFuture<()> {
        let timer = glommio::timer::Timer::new(duration);
        Box::pin(async move {
            timer.await;
        })
    }

    fn yield_if_needed(&self) -> LocalFuture<()> {
        let now_ns = self.now().monotonic_ns;
        if now_ns.saturating_sub(self.shared.turned_ns.get()) < TURN_NS {
            return Box::pin(std::future::ready(()));
        }
        self.shared.turned_ns.set(now_ns);
        self.sleep(TURN_TAKES)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the shell that others ask for the time")]
    fn now(&self) -> Now {
        let elapsed = Instant::now().saturating_duration_since(self.shared.start);
        let monotonic_ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let mut wall = self.shared.wall.get();
        let mut since_ns = monotonic_ns.saturating_sub(wall.read_ns);
        if wall.us == 0 || since_ns >= WALL_EVERY_NS {
            let micros =
                |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
            let us = match SystemTime::now().duration_since(UNIX_EPOCH) {
                Ok(since) => micros(since),
                Err(before) => -micros(before.duration()),
            };
            wall = Wall { read_ns: monotonic_ns, us };
            since_ns = 0;
            self.shared.wall.set(wall);
        }
        let since_us = i64::try_from(since_ns / 1_000).unwrap_or(i64::MAX);
        Now { monotonic_ns, wall_ms: wall.us.saturating_add(since_us).div_euclid(1_000) }
    }
}

#[cfg(test)]
mod tests;
