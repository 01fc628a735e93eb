//! The bench measured: what it shows of a broker that stands still, and what hides it. A binary of its own, so that no
//! other test takes the processor while it measures.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../harness/process.rs"]
mod process;
#[path = "../harness/runs.rs"]
mod runs;

use std::ops::Range;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;

use process::Server;
use runs::{read, wait_ms};

fn percentile_ms(run: &Value, series: &str, name: &str) -> f64 {
    let ns = run["latency"][series]["at"][name].as_f64();
    ns.unwrap_or_else(|| panic!("no {series} {name} in {run}")) / 1e6
}

/// Starts a run, stops the broker for a second in the middle of it, and gives what the run wrote.
fn run_with_pause(server: &Server, directory: &Path, arguments: &str) -> Value {
    let child = server.bench(directory, arguments).spawn().unwrap();
    wait_ms(9000);
    server.signal(Signal::SIGSTOP);
    wait_ms(1000);
    server.signal(Signal::SIGCONT);
    let output = child.wait_with_output().unwrap();
    // On a busy machine the generator may find itself too slow; what it measured is there all the same.
    drop(output);
    read(directory)
}

/// How often a run with a pause is measured until its tail is that of the pause alone: a disk that others use too may
/// stand still by itself, for longer than the broker does.
const TRIES: u32 = 3;

/// Runs `options` until the p99.9 of `series` is in `expected` milliseconds.
#[track_caller]
fn expect(server: &Server, directory: &Path, options: &str, series: &str, expected: Range<f64>) {
    let mut seen = Vec::new();
    let is_shown = (0..TRIES).any(|turn| {
        let run = run_with_pause(server, &directory.join(format!("{series}-{turn}")), options);
        let p999 = percentile_ms(&run, series, "p99.9");
        seen.push(p999);
        expected.contains(&p999)
    });
    assert!(is_shown, "{series}: p99.9 of {seen:?} ms, expected {expected:?}");
}

/// Coordinated omission, both ways: a schedule shows a second of standstill as a second, a sender that
/// waits for its answers asks nothing in that second and so sees almost nothing of it.
#[test]
fn a_stalled_broker_shows_on_a_schedule_and_hides_from_a_closed_loop() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    let load = "--mode produce -s 100 --linger-ms 0 --warmup 1 --duration 20";
    let open = format!("{load} --rate 1000 --lag-limit-us 100000");
    expect(&server, directory.path(), &open, "response", 900.0..1200.0);
    // Memory for two batches.
    let closed = format!("{load} --rate max --batch-bytes 1024 --memory-bytes 2048 --no-verify");
    expect(&server, directory.path(), &closed, "service", 0.0..500.0);
    let (status, errors) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{errors}");
}
