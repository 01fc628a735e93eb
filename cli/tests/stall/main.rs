//! The bench measured: what it shows of a broker that stands still, and what hides it. A binary of its own, so that no
//! other test takes the processor while it measures.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "../harness/process.rs"]
mod process;
#[path = "../harness/runs.rs"]
mod runs;

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

/// How often a run with a pause is measured until its tail is that of the pause alone.
const TRIES: u32 = 3;

/// Coordinated omission, both ways: a schedule shows a second of standstill as a second, a sender that
/// waits for its answers asks nothing in that second and so sees almost nothing of it.
#[test]
fn a_stalled_broker_shows_on_a_schedule_and_hides_from_a_closed_loop() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    let load = "--mode produce -s 100 --linger-ms 0 --warmup 1 --duration 20";
    // A disk that others use too may stand still by itself, for longer than the broker does: then once more.
    let mut seen = Vec::new();
    let is_shown = (0..TRIES).any(|turn| {
        let open = directory.path().join(format!("open-{turn}"));
        let options = format!("{load} --rate 1000 --lag-limit-us 100000");
        let run = run_with_pause(&server, &open, &options);
        let shown = percentile_ms(&run, "response", "p99.9");
        seen.push(shown);
        (900.0..=1200.0).contains(&shown)
    });
    assert!(is_shown, "p99.9 {seen:?} ms");
    let closed = run_with_pause(
        &server,
        &directory.path().join("closed"),
        &format!(
            "{load} --rate max --batch-bytes 1024 --memory-bytes 4096 --in-flight 1 --no-verify"
        ),
    );
    let hidden = percentile_ms(&closed, "service", "p99.9");
    assert!(hidden < 500.0, "p99.9 {hidden} ms");
    let (status, errors) = server.end(Signal::SIGTERM);
    assert!(status.success(), "{errors}");
}
