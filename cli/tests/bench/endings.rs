//! Runs that do not go as they were meant to: what they leave, and that nobody takes it for a result.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::*;

/// A signal to the process alone.
fn tell(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

/// The topics of runs that the server has.
fn topics(server: &Server) -> Vec<String> {
    let mut command = levada();
    command.args(["--bootstrap", server.bootstrap(), "-o", "json", "topic", "list"]);
    let listed: Value = serde_json::from_str(&succeeded(&command.output().unwrap())).unwrap();
    let rows = listed.as_array().unwrap().iter();
    rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

/// What an interrupted run must look like.
#[track_caller]
fn interrupted(output: &Output, directory: &Path) -> Value {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let run = read(directory);
    assert_eq!(run["interrupted"], true);
    let void = run["void"].to_string();
    assert!(void.contains("interrupted") && !void.contains("failed"), "{void}");
    for file in ["run.hlog", "summary.md", "report.html", "timeseries.csv"] {
        assert!(directory.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    run
}

/// Ctrl-C and SIGTERM threw away everything that a run had measured.
#[test]
fn an_interrupted_run_tells_what_there_is_and_is_not_compared() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    for (mode, signal) in [("end-to-end", Signal::SIGINT), ("produce", Signal::SIGTERM)] {
        let out = directory.path().join(mode);
        let load = format!("--mode {mode} --rate 500 --warmup 0 --duration 600 --repeat 1");
        let child = server.bench(&out, &load).spawn().unwrap();
        wait_ms(4000);
        tell(&child, signal);
        let run = interrupted(&child.wait_with_output().unwrap(), &out);
        assert!(run["totals"]["counts"]["acked"].as_u64().unwrap() > 100, "{run}");
        let seconds = run["totals"]["seconds"].as_f64().unwrap();
        assert!((1.0..60.0).contains(&seconds), "{seconds} s");
        if mode == "end-to-end" {
            assert_eq!(run["findings"]["lost"], 0, "what was sent was read: {run}");
        }
        let compared = levada().args(["bench", "compare"]).args([&out, &out]).output().unwrap();
        let said = String::from_utf8_lossy(&compared.stderr);
        assert!(!compared.status.success() && said.contains("interrupted"), "{said}");
    }
    assert_eq!(topics(&server), Vec::<String>::new());
}

/// A terminal's Ctrl-C goes to the whole process group; the embedded broker must outlive the run.
#[test]
fn ctrl_c_does_not_take_the_embedded_broker_from_under_the_run() {
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut command = levada();
    command
        .args(["bench", "run", "--embedded", "--quiet", "--no-limits", "--rate", "500"])
        .args(["--warmup", "0", "--duration", "600", "--repeat", "3", "-d"])
        .arg(&out)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let child = command.spawn().unwrap();
    wait_ms(5000);
    killpg(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    interrupted(&output, &out.join("1"));
    assert!(!out.join("2").exists(), "no further run was begun");
    assert!(!out.join("1/broker-data").exists());
}

#[test]
fn a_second_signal_ends_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    let out = directory.path().join("out");
    let load = "--rate 500 --warmup 0 --duration 600 --timeout 600";
    let child = server.bench(&out, load).spawn().unwrap();
    wait_ms(2000);
    // What is on its way will not be settled.
    server.signal(Signal::SIGSTOP);
    wait_ms(500);
    tell(&child, Signal::SIGINT);
    wait_ms(500);
    tell(&child, Signal::SIGINT);
    let output = child.wait_with_output().unwrap();
    server.signal(Signal::SIGCONT);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("ending at once") && !out.join("run.json").exists(), "{said}");
}

/// The first batch that failed ended a run, whatever came after it.
#[test]
fn failed_batches_void_a_run_but_do_not_end_it() {
    let directory = tempfile::tempdir().unwrap();
    let server = Server::dev(&directory.path().join("data"), 0);
    let out = directory.path().join("out");
    let load = "--rate 500 -s 1000 --warmup 1 --duration 7 --lag-limit-us 10000000";
    let child = server.bench(&out, load).spawn().unwrap();
    wait_ms(3500);
    let [topic] = topics(&server).try_into().unwrap();
    let alter = |setting: &[&str]| {
        let mut command = levada();
        command.args(["--bootstrap", server.bootstrap(), "topic", "alter", &topic]).args(setting);
        succeeded(&command.output().unwrap());
    };
    // Not even a single record fits.
    alter(&["--config", "max.message.bytes=500"]);
    wait_ms(1500);
    alter(&["--reset", "max.message.bytes"]);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let run = read(&out);
    let counts = &run["totals"]["counts"];
    let (failed, acked) = (counts["failed"].as_u64().unwrap(), counts["acked"].as_u64().unwrap());
    assert!(failed >= 100 && acked >= 1000, "{counts}");
    assert!((run["totals"]["seconds"].as_f64().unwrap() - 7.0).abs() < 0.01, "{run}");
    let void = run["void"].as_array().unwrap();
    let reason = format!("{failed} records failed, the first: ");
    let said = |reason: &str| void.iter().any(|said| said.as_str().unwrap().starts_with(reason));
    assert!(void.len() == 1 && said(&reason), "{void:?}");
    assert!(void[0].as_str().unwrap().contains("MESSAGE_TOO_LARGE"), "{void:?}");
    let findings = &run["findings"];
    assert_eq!((&findings["lost"], &findings["duplicated"]), (&0.into(), &0.into()), "{run}");
    let series = std::fs::read_to_string(out.join("timeseries.csv")).unwrap();
    let second_7 = series.lines().find(|line| line.starts_with("7,")).unwrap();
    let acked_last: u64 = second_7.split(',').nth(2).unwrap().parse().unwrap();
    assert!(acked_last > 300, "{second_7}");
}

#[test]
fn a_broker_that_dies_ends_the_run_with_what_there_is() {
    let directory = tempfile::tempdir().unwrap();
    for (mode, said) in [("end-to-end", "failed"), ("produce", "no broker answered for 3 s")] {
        let server = Server::dev(&directory.path().join(format!("data-{mode}")), 0);
        let out = directory.path().join(mode);
        let load = format!("--mode {mode} --rate 500 --warmup 0 --duration 600 --timeout 3");
        let child = server.bench(&out, &load).spawn().unwrap();
        wait_ms(3000);
        drop(server.end(Signal::SIGKILL));
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let run = read(&out);
        assert!(run["totals"]["counts"]["acked"].as_u64().unwrap() > 0);
        let void = run["void"].to_string();
        assert!(void.contains(said), "{mode}: {void}");
    }
}
