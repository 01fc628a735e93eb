//! What the simulated executor promises.

use super::*;

/// Ten tasks that log themselves around sleeps and yields; returns the log and the trace.
fn run_ten(seed: u64) -> (Vec<u64>, u64) {
    let runtime = SimRuntime::new(seed);
    let log = Rc::new(RefCell::new(Vec::new()));
    for number in 0..10 {
        let (inner, log) = (runtime.clone(), Rc::clone(&log));
        let task = async move {
            for round in 1..5 {
                inner.yield_if_needed().await;
                log.borrow_mut().push(number);
                inner.sleep(Duration::from_micros(number % 3 * round)).await;
            }
        };
        runtime.spawn("worker", Box::pin(task));
    }
    runtime.run_until_idle().unwrap();
    let log = log.borrow().clone();
    (log, runtime.trace_hash())
}

#[test]
fn same_seed_gives_the_same_schedule_and_another_seed_another() {
    assert_eq!(run_ten(1), run_ten(1));
    assert_ne!(run_ten(1).0, run_ten(2).0);
    assert_ne!(run_ten(1).1, run_ten(2).1);
}

#[test]
fn the_clock_moves_only_to_the_next_timer() {
    let runtime = SimRuntime::new(3);
    let inner = runtime.clone();
    let seen = runtime.block_on(async move {
        inner.sleep(Duration::from_hours(1)).await;
        inner.now()
    });
    assert_eq!(seen.monotonic_ns, 3_600_000_000_000);
    assert_eq!(seen.wall_ms, WALL_START_MS + 3_600_000);
}

#[test]
fn a_killed_process_loses_its_tasks_and_no_other_does() {
    struct Bell(Rc<Cell<u32>>);
    impl Drop for Bell {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let runtime = SimRuntime::new(4);
    let (first, second) = (runtime.process(), runtime.process());
    let dropped = Rc::new(Cell::new(0));
    for process in [&first, &first, &second] {
        let (inner, bell) = (process.clone(), Bell(Rc::clone(&dropped)));
        process.spawn(
            "sleeper",
            Box::pin(async move {
                inner.sleep(Duration::from_secs(1)).await;
                drop(bell);
            }),
        );
    }
    runtime.run_for(Duration::from_millis(1)).unwrap();
    first.kill();
    assert_eq!((dropped.get(), runtime.tasks()), (2, 1));
    runtime.run_until_idle().unwrap();
    assert_eq!((dropped.get(), runtime.tasks()), (3, 0));
    assert_eq!(runtime.now_ns(), 1_000_000_000, "timers of the killed tasks are gone");
}

#[test]
fn a_task_may_kill_its_own_process() {
    let runtime = SimRuntime::new(5);
    let process = runtime.process();
    let inner = process.clone();
    process.spawn(
        "suicide",
        Box::pin(async move {
            inner.kill();
            inner.sleep(Duration::from_secs(1)).await;
            panic!("a killed task went on");
        }),
    );
    runtime.run_until_idle().unwrap();
    assert_eq!(runtime.tasks(), 0);
}

#[test]
fn a_run_that_cannot_end_is_reported_and_not_waited_for() {
    let runtime = SimRuntime::new(6);
    let stopped = runtime.run(std::future::pending::<()>()).unwrap_err();
    assert_eq!(stopped, Stopped::Idle { waiting: vec!["main"] });

    let runtime = SimRuntime::new(6);
    runtime.set_step_limit(100);
    let inner = runtime.clone();
    let stopped = runtime.run(async move {
        loop {
            inner.sleep(Duration::ZERO).await;
        }
    });
    assert_eq!(stopped.map(|(): ()| ()), Err(Stopped::StepLimit { steps: 100 }));
}
