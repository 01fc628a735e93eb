//! The deterministic simulator: the production engine on a disk that forgets, under one seed.
//!
//! A run has one thread, one virtual clock and one seed. From the seed follow what may go wrong
//! ([`options`]), when it does, in which order tasks run, and what clients do (`workload`). Between lives the disk
//! loses what was not synced; after each, the oracle (`oracle`) holds every log against every byte ever appended
//! and every promise given. At the end the disk is healed, everything must work again, everything is read, and the
//! history that clients saw is checked ([`crate::history`]).

mod batch;
mod damage;
mod lives;
pub mod options;
mod oracle;
pub mod report;
mod server;
mod workload;
mod world;

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use options::Options;
use report::{Failed, Passed, Violation};
use world::World;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs one seed with its own options.
///
/// # Errors
/// The first promise that was broken, with what happened last.
pub fn run(seed: u64) -> Result<Passed, Box<Failed>> {
    run_with(seed, &Options::draw(seed))
}

/// Runs one seed with given options. A run that fails is run once more, to write down its events.
///
/// # Errors
/// As [`run`].
pub fn run_with(seed: u64, options: &Options) -> Result<Passed, Box<Failed>> {
    match attempt(seed, options, false) {
        Ok(passed) => Ok(passed),
        Err(failed) => match attempt(seed, options, true) {
            Err(told) => Err(told),
            Ok(_) => Err(Box::new(Failed {
                violation: Violation {
                    invariant: "determinism",
                    what: format!("the same seed passed the second time; first: {failed}"),
                    at_ns: 0,
                },
                ..*failed
            })),
        },
    }
}

/// Keeps the message of a panic for the report instead of printing it. For the whole process.
pub fn quiet_panics() {
    std::panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string()));
    }));
}

fn attempt(seed: u64, options: &Options, is_verbose: bool) -> Result<Passed, Box<Failed>> {
    let world = World::new(seed, options.clone(), is_verbose);
    let ended = catch_unwind(AssertUnwindSafe(|| lives::run(&world)));
    let lives = match ended {
        Ok(lives) => lives,
        Err(panic) => {
            world.violate("assert", &panic_text(panic.as_ref()));
            0
        }
    };
    let trace = world.runtime.trace_hash();
    let result = match world.violation.borrow_mut().take() {
        Some(violation) => Err(Box::new(Failed {
            seed,
            bug: planted_bug(),
            options: options.clone(),
            violation,
            events: world.take_events(),
            trace,
        })),
        None => {
            let (sent, acked, reads) = world.history.borrow().counts();
            let suspects =
                world.models.borrow().iter().filter(|m| m.suspect_from.is_some()).count();
            Ok(Passed {
                trace,
                virtual_ns: world.runtime.now_ns(),
                operations: world.disk.counts().operations,
                lives,
                sent,
                acked,
                reads,
                suspects: suspects as u64,
            })
        }
    };
    tear_down(&world);
    result
}

/// Tasks own the world and the world owns the executor: cuts the circle.
fn tear_down(world: &Rc<World>) {
    world.set_server(None);
    let cut = catch_unwind(AssertUnwindSafe(|| {
        world.runtime.kill_all();
        world.disk.crash();
    }));
    drop(cut);
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let kept = PANIC.with(|kept| kept.borrow_mut().take());
    kept.or_else(|| panic.downcast_ref::<String>().cloned())
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".to_owned())
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<levada_engine::planted::PlantedBug>> =
        const { std::cell::Cell::new(None) };
}

/// Plants a bug in the engine, for runs on this thread.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<levada_engine::planted::PlantedBug>) {
    PLANTED.set(bug);
    levada_engine::planted::plant(bug);
}

#[cfg(feature = "planted-bugs")]
fn planted_bug() -> Option<&'static str> {
    PLANTED.get().map(levada_engine::planted::PlantedBug::name)
}

#[cfg(not(feature = "planted-bugs"))]
fn planted_bug() -> Option<&'static str> {
    None
}
