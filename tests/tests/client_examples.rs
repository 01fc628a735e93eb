//! The examples of the Rust client, run as a reader would run them, against a broker in this process.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "local/cluster.rs"]
mod local;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use local::LocalCluster;

/// Every example: its name and binary.
const EXAMPLES: [(&str, &str); 5] = [
    ("admin", env!("CARGO_BIN_EXE_example-admin")),
    ("columns", env!("CARGO_BIN_EXE_example-columns")),
    ("consume", env!("CARGO_BIN_EXE_example-consume")),
    ("produce", env!("CARGO_BIN_EXE_example-produce")),
    ("since", env!("CARGO_BIN_EXE_example-since")),
];
/// What fits on a screen.
const LINES_MAX: usize = 40;

/// The lines that an example prints.
#[track_caller]
fn run(name: &str, cluster: &LocalCluster, arguments: &[&str]) -> Vec<String> {
    let (_, binary) = EXAMPLES.iter().find(|(known, _)| *known == name).unwrap();
    let broker = cluster.config.listen.to_string();
    let output = Command::new(binary).arg(broker).args(arguments).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {stderr}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_is_produced_is_consumed_and_found_by_its_time() {
    let cluster = LocalCluster::start(|_| ());
    let sent = run("produce", &cluster, &["lines"]);
    assert_eq!(sent.len(), 10);
    // "record 7 is 0@3" is read as "0@3 key 1: record 7", with its header below.
    let expected: BTreeSet<String> = sent
        .iter()
        .zip(0..)
        .map(|(line, number): (_, u32)| {
            let (value, place) = line.split_once(" is ").unwrap();
            assert_eq!(value, format!("record {number}"));
            format!("{place} key {}: {value}", number % 3)
        })
        .collect();
    let (headers, records): (Vec<_>, Vec<_>) =
        run("consume", &cluster, &["lines"]).into_iter().partition(|line| line.starts_with(' '));
    assert_eq!(headers, vec!["  from = example"; 10]);
    let got: BTreeSet<String> = records.into_iter().collect();
    assert_eq!(got, expected);

    let in_partition = got.iter().filter(|line| line.starts_with("0@")).count();
    assert_eq!(run("since", &cluster, &["lines", "0", "0"]), [format!("{in_partition} records")]);
    let in_3000 = "32503680000000";
    assert_eq!(run("since", &cluster, &["lines", "0", in_3000]), ["0 records"]);
}

#[test]
fn a_topic_comes_and_goes() {
    let cluster = LocalCluster::start(|_| ());
    let said = run("admin", &cluster, &["short-lived"]);
    assert_eq!(said[0], "created short-lived");
    assert!(said[1].starts_with("again: ") && said[1].contains("short-lived"), "{said:?}");
    assert_eq!(said.iter().filter(|line| line.contains(" is led by Some(")).count(), 3);
    assert_eq!(said.last().unwrap(), "listed: false");
}

#[test]
fn columns_are_added_up() {
    let cluster = LocalCluster::start(|_| ());
    assert_eq!(run("columns", &cluster, &["numbers"]), ["sum 5050"]);
}

#[test]
fn every_example_is_run_here_and_fits_on_a_screen() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples");
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines < LINES_MAX, "{} has {lines} lines", path.display());
        found.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(found, EXAMPLES.map(|(name, _)| name.to_owned()).into());
}
