//! One thread and one executor per shard.
//!
//! The executor panics or fails in ways that say little; here every end of a shard becomes an
//! [`ShardExit`] with a sentence. A panic in a shard never leaves the broker half alive: whoever
//! started the threads hears of it and stops the others.

use std::any::Any;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::thread::JoinHandle;
use std::time::Duration;

use glommio::{LocalExecutor, LocalExecutorBuilder, Placement, PoolPlacement};

use super::placement::CpuBinding;

/// Entries of each ring of an executor.
const RING_DEPTH: usize = 128;

/// After this long a task that asks whether it should yield is told so. Not shorter: when this time is over before the
/// executor has run its first task of a turn (the machine gave its core to somebody else just then), glommio 0.9 takes
/// its queues for empty and sleeps until something else happens, with tasks that could run. With 2 ms and a busy second
/// process that cost stalls of a second and more; completions and timers end a turn early anyway.
const PREEMPT_AFTER: Duration = Duration::from_millis(100);

/// Threads per shard for calls that block.
const BLOCKING_THREADS: usize = 2;

/// Attempts to make an executor: rings of one that just ended give their memory back late.
const MAKE_ATTEMPTS: u32 = 8;

/// How a shard ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShardExit {
    /// Its main task returned.
    Done,
    /// Its main task returned an error, or its executor could not be made.
    Failed(String),
    /// Something in it panicked.
    Panicked(String),
}

/// What a shard's executor is made of.
#[derive(Debug, Clone, Copy)]
pub struct ExecutorPlan {
    /// Its number, for the thread's name.
    pub shard: u16,
    /// Where it runs.
    pub binding: CpuBinding,
    /// Buffer memory it registers, in bytes.
    pub io_memory_bytes: usize,
}

/// Starts a thread with an executor that runs what `main` makes. `on_exit` is called last on that
/// thread, whatever happened.
///
/// # Errors
/// When the thread cannot be made.
pub fn spawn_shard<M, F>(
    plan: ExecutorPlan,
    main: M,
    on_exit: impl FnOnce(ShardExit) + Send + 'static,
) -> io::Result<JoinHandle<()>>
where
    M: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<(), String>> + 'static,
{
    std::thread::Builder::new().name(format!("levada-shard-{}", plan.shard)).spawn(move || {
        let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let executor = make_executor(plan)?;
            executor.run(async move { main().await })
        }));
        on_exit(match outcome {
            Ok(Ok(())) => ShardExit::Done,
            Ok(Err(reason)) => ShardExit::Failed(reason),
            Err(panic) => ShardExit::Panicked(panic_text(panic.as_ref())),
        });
    })
}

#[expect(clippy::disallowed_methods, reason = "this thread has no executor yet")]
fn make_executor(plan: ExecutorPlan) -> Result<LocalExecutor, String> {
    let mut pause = Duration::from_millis(2);
    for attempt in 1.. {
        let placement = match plan.binding {
            CpuBinding::Anywhere => Placement::Unbound,
            CpuBinding::Cpu(cpu) => Placement::Fixed(cpu),
        };
        let made = LocalExecutorBuilder::new(placement)
            .name("levada-shard")
            .io_memory(plan.io_memory_bytes)
            .ring_depth(RING_DEPTH)
            .preempt_timer(PREEMPT_AFTER)
            .blocking_thread_pool_placement(PoolPlacement::Unbound(BLOCKING_THREADS))
            .make();
        match made {
            Ok(executor) => return Ok(executor),
            Err(error) if attempt == MAKE_ATTEMPTS => {
                return Err(format!("make the executor of shard {}: {error}", plan.shard));
            }
            Err(_) => {
                std::thread::sleep(pause);
                pause *= 2;
            }
        }
    }
    unreachable!("the loop ends by returning")
}

/// The text of a panic.
pub fn panic_text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without a text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn exit_of<F>(main: impl FnOnce() -> F + Send + 'static) -> ShardExit
    where
        F: Future<Output = Result<(), String>> + 'static,
    {
        let (sender, receiver) = flume::bounded(1);
        let plan =
            ExecutorPlan { shard: 0, binding: CpuBinding::Anywhere, io_memory_bytes: 64 << 10 };
        let thread = spawn_shard(plan, main, move |exit| sender.send(exit).unwrap()).unwrap();
        thread.join().unwrap();
        receiver.recv().unwrap()
    }

    #[test]
    fn every_end_of_a_shard_is_told() {
        assert_eq!(exit_of(|| async { Ok(()) }), ShardExit::Done);
        assert_eq!(exit_of(|| async { Err("no".into()) }), ShardExit::Failed("no".into()));
        assert_eq!(exit_of(|| async { panic!("oh") }), ShardExit::Panicked("oh".into()));
        let in_task = exit_of(|| async {
            glommio::spawn_local(async { panic!("in a task") }).await;
            Ok(())
        });
        assert!(matches!(in_task, ShardExit::Panicked(_)), "{in_task:?}");
    }
}
