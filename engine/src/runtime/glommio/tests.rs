//! What the shell around glommio promises.

use glommio::{LocalExecutorBuilder, Placement};

use super::*;

fn on_executor<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).io_memory(64 << 10);
    builder.spawn(test).unwrap().join().unwrap();
}

#[test]
fn a_panicking_task_is_reported_and_the_shard_goes_on() {
    on_executor(async || {
        let runtime = GlommioRuntime::default();
        let reported = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&reported);
        runtime.on_panic(move |name| log.borrow_mut().push(name));
        runtime.spawn("culprit", Box::pin(async { panic!("on purpose") }));
        runtime.sleep(Duration::from_millis(1)).await;
        assert_eq!(runtime.panicked(), Some("culprit"));
        assert_eq!(*reported.borrow(), vec!["culprit"]);
        assert_eq!(runtime.tasks(), 0);
    });
}

#[test]
fn stop_cancels_every_task_and_those_they_spawn() {
    struct Bell(Rc<Cell<u32>>, GlommioRuntime);
    impl Drop for Bell {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
            self.1.spawn("too late", Box::pin(async { panic!("ran after the stop") }));
        }
    }
    on_executor(async || {
        let runtime = GlommioRuntime::default();
        let dropped = Rc::new(Cell::new(0));
        for _ in 0..3 {
            let bell = Bell(Rc::clone(&dropped), runtime.clone());
            let task = async move {
                std::future::pending::<()>().await;
                drop(bell);
            };
            runtime.spawn("endless", Box::pin(task));
        }
        runtime.sleep(Duration::from_millis(1)).await;
        assert_eq!(runtime.tasks(), 3);
        runtime.stop().await;
        assert_eq!((dropped.get(), runtime.tasks()), (3, 0));
        assert_eq!(runtime.panicked(), None);
    });
}

#[test]
fn ended_tasks_leave_the_slab() {
    on_executor(async || {
        let runtime = GlommioRuntime::default();
        for _ in 0..1000 {
            runtime.spawn("short", Box::pin(async {}));
            runtime.yield_if_needed().await;
        }
        runtime.sleep(Duration::from_millis(1)).await;
        assert_eq!(runtime.tasks(), 0);
    });
}

#[test]
fn a_busy_task_that_yields_lets_timers_and_the_disk_be_heard() {
    // The executor itself would not look for an hour.
    let builder = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(64 << 10)
        .preempt_timer(Duration::from_hours(1));
    let run = async || {
        let runtime = GlommioRuntime::default();
        let is_over = Rc::new(Cell::new(false));
        let busy = (Rc::clone(&is_over), runtime.clone());
        runtime.spawn(
            "busy",
            Box::pin(async move {
                while !busy.0.get() {
                    busy.1.yield_if_needed().await;
                }
            }),
        );
        runtime.sleep(Duration::from_millis(2)).await;
        is_over.set(true);
        runtime.sleep(Duration::from_millis(1)).await;
        assert_eq!(runtime.tasks(), 0);
    };
    builder.spawn(run).unwrap().join().unwrap();
}

#[test]
fn the_clocks_go_on() {
    on_executor(async || {
        let runtime = GlommioRuntime::default();
        let before = runtime.now();
        runtime.sleep(Duration::from_millis(2)).await;
        let after = runtime.now();
        assert!(after.monotonic_ns >= before.monotonic_ns + 2_000_000);
        assert!(after.wall_ms > 1_700_000_000_000);
    });
}
