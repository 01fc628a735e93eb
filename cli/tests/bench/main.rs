//! The bench measured: what it must show of a broker that stalls or dies, and what it must not hide.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod endings;
#[path = "../harness/process.rs"]
mod process;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use process::{Server, levada};

impl Server {
    /// A run against it, with results in `directory`.
    fn bench(&self, directory: &Path, arguments: &str) -> Command {
        let mut command = levada();
        command
            .args(["bench", "run", "--quiet", "--no-limits", "--bootstrap", self.bootstrap(), "-d"])
            .arg(directory)
            .args(arguments.split_whitespace())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn read(directory: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(directory.join("run.json")).unwrap()).unwrap()
}

fn percentile_ms(run: &Value, series: &str, name: &str) -> f64 {
    let ns = run["latency"][series]["at"][name].as_f64();
    ns.unwrap_or_else(|| panic!("no {series} {name} in {run}")) / 1e6
}

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn wait_ms(ms: u64) {
    let end = Duration::from_millis(ms);
    levada_bench::clock::pause(end);
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
}

#[test]
fn a_run_leaves_everything_it_promises_and_compares_with_itself() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    let (a, b) = (directory.path().join("a"), directory.path().join("b"));
    let load = "--mode end-to-end --rate 2000 --partitions 3 --subscriptions 2 --producers 2 -s 200 \
                --warmup 0 --duration 2 --lag-limit-us 10000000";
    for out in [&a, &b] {
        succeeded(&server.bench(out, load).output().unwrap());
    }
    for file in [
        "run.json",
        "run.hlog",
        "response.hgrm",
        "service.hgrm",
        "end-to-end.hgrm",
        "timeseries.csv",
        "omb.json",
        "summary.md",
        "report.html",
    ] {
        assert!(a.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    let run = read(&a);
    assert_eq!(run["findings"]["received"], 8000, "every record twice: {run}");
    assert!(run["broker"]["cpu_s"].as_f64().unwrap() > 0.0, "the broker is on this machine");
    let compare = |more: &[&str]| {
        let mut command = levada();
        command.args(["bench", "compare"]).args([&a, &b]).args(more).output().unwrap()
    };
    assert!(succeeded(&compare(&[])).contains("undecided"), "one run a side decides nothing");
    assert_eq!(compare(&["--fail-if", "p50>-99%"]).status.code(), Some(1));
    assert_eq!(compare(&["--fail-if", "p50>+100000%"]).status.code(), Some(0));
    assert_eq!(compare(&["--fail-if", "nonsense"]).status.code(), Some(2));
}

/// The judge asks the same and checks the same, with one partition and with several, alone and both ways.
#[cfg(feature = "librdkafka")]
#[test]
fn librdkafka_sends_and_reads_what_it_is_asked_to() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    for (name, load, received) in [
        ("paced", "--rate 2000 --partitions 3 --subscriptions 2 --producers 2 --duration 2", 8000),
        ("backlog", "--mode consume --backlog 20000 --partitions 2 --consumers 3", 20_000),
        ("none", "--mode produce --rate 100 --acks 0 --duration 1 --no-verify", 0),
    ] {
        let out = directory.path().join(name);
        let load = format!("--client librdkafka -s 200 --warmup 0 --lag-limit-us 10000000 {load}");
        succeeded(&server.bench(&out, &load).output().unwrap());
        let run = read(&out);
        assert!(run["title"].as_str().unwrap().ends_with(", librdkafka client"), "{run}");
        assert_eq!(run["findings"]["received"].as_u64().unwrap_or(0), received, "{run}");
    }
}

#[test]
fn nonsense_is_refused_by_name_and_a_broker_that_is_not_there_is_said() {
    for (arguments, said) in [
        ("--message-bytes 3", "--message-bytes"),
        ("--partitions 0", "--partitions"),
        ("--mode consume --rate 5", "--rate"),
        ("--bootstrap 127.0.0.1:1 --timeout 1", "is a broker running"),
        #[cfg(feature = "librdkafka")]
        ("--client librdkafka --encoding columnar", "--encoding"),
        #[cfg(not(feature = "librdkafka"))]
        ("--client librdkafka", "--features librdkafka"),
    ] {
        let mut command = levada();
        command.args(["bench", "run", "--quiet"]).args(arguments.split_whitespace());
        let output = command.output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments}");
        assert!(stderr.contains(said), "{arguments}: {stderr}");
    }
}
