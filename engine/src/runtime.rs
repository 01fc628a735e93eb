//! The door to the executor: spawn, sleep, now. One value per shard; nothing here crosses threads.

pub mod glommio;
pub mod simulated;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

/// A boxed future that stays on its shard.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The time as decisions see it: handed in, never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Now {
    /// Time since an arbitrary start, in nanoseconds; never steps back.
    pub monotonic_ns: u64,
    /// Wall clock, in milliseconds since 1970; may step. Only for record timestamps and retention.
    pub wall_ms: i64,
}

/// What the engine needs from an executor.
pub trait Runtime {
    /// Runs `task` on this shard until it ends. `name` appears in logs when it panics.
    /// The runtime owns the task: at shutdown it is cancelled, never leaked.
    fn spawn(&self, name: &'static str, task: LocalFuture<()>);

    /// Completes after `duration`.
    fn sleep(&self, duration: Duration) -> LocalFuture<()>;

    /// Lets other tasks run when this one has used its share.
    fn yield_if_needed(&self) -> LocalFuture<()>;

    /// The clocks.
    fn now(&self) -> Now;
}

/// How the engine holds its runtime.
pub type SharedRuntime = Rc<dyn Runtime>;
