//! The bench used: what a run leaves, how it ends when its broker dies or somebody ends it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

mod endings;
#[path = "../harness/process.rs"]
mod process;
#[path = "../harness/runs.rs"]
mod runs;

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use process::{Server, levada};
use runs::{read, wait_ms};

#[track_caller]
fn succeeded(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
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
