//! Topics and the cluster.

use serde_json::Value;

use super::{Server, failed, numbered, run, succeeded};

fn server() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    (Server::dev(directory.path(), 0), directory)
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_topic_is_created_described_altered_and_deleted() {
    let (server, _directory) = server();
    let out = server.ok(&["topic", "create", "t", "-p", "3", "-c", "retention.ms=1000000"]);
    assert!(out.contains("created topic t"), "{out}");
    let said = failed(&server.run(&["topic", "create", "t"]), 1);
    assert!(said.contains("TOPIC_ALREADY_EXISTS") && said.contains("topic describe"), "{said}");
    let list = json(&server.ok(&["topic", "list", "-o", "json"]));
    assert_eq!((&list[0]["name"], &list[0]["partitions"]), (&"t".into(), &3.into()));

    let describe = || json(&server.ok(&["topic", "describe", "t", "-o", "json"]));
    let topic = describe();
    assert_eq!(topic[0]["partitions"][2]["end"], 0);
    assert_eq!(topic[0]["configs"][0]["name"], "retention.ms");
    assert!(server.ok(&["topic", "describe", "t"]).contains("retention.ms"));
    assert!(server.ok(&["topic", "describe", "t", "--all"]).contains("durability"));

    server.ok(&[
        "topic",
        "alter",
        "t",
        "-p",
        "5",
        "-c",
        "max.message.bytes=2000",
        "--reset",
        "retention.ms",
    ]);
    let topic = describe();
    assert_eq!(topic[0]["partitions"].as_array().unwrap().len(), 5);
    assert_eq!(topic[0]["configs"][0]["name"], "max.message.bytes");
    let said = failed(&server.run(&["topic", "alter", "t", "-p", "2"]), 1);
    assert!(said.contains("never taken away"), "{said}");
    let said = failed(&server.run(&["topic", "alter", "t", "-c", "retentoin.ms=5"]), 1);
    assert!(said.contains("retentoin.ms"), "{said}");
    let said = failed(&server.run(&["topic", "create", "u/v"]), 1);
    assert!(said.contains("INVALID_TOPIC"), "{said}");
    let said = failed(&server.run(&["topic", "create", "u", "-r", "5"]), 1);
    assert!(said.contains("cluster brokers"), "{said}");
    server.ok(&["topic", "create", "u", "--dry-run"]);

    server.ok(&["topic", "delete", "t"]);
    assert_eq!(json(&server.ok(&["topic", "list", "-o", "json"])), Value::Array(Vec::new()));
    let said = failed(&server.run(&["topic", "delete", "t"]), 1);
    assert!(said.contains("UNKNOWN_TOPIC"), "{said}");
}

#[test]
fn records_of_a_key_stay_in_order_on_six_partitions() {
    let (server, _directory) = server();
    server.ok(&["topic", "create", "t", "-p", "6"]);
    let lines = numbered(30_000, |index| format!("key{}:{index}", index % 97));
    succeeded(&run(&mut server.command(&["produce", "t", "-k", ":"]), lines.as_bytes()));
    let out = server.ok(&["consume", "t", "-e", "--format", "%p %k %v\\n"]);
    let mut last = std::collections::HashMap::new();
    let mut partition_of = std::collections::HashMap::new();
    for line in out.lines() {
        let [partition, key, value] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let value: u32 = value.parse().unwrap();
        assert!(last.insert(key.to_owned(), value).is_none_or(|before| before < value), "{line}");
        let home = partition_of.entry(key.to_owned()).or_insert_with(|| partition.to_owned());
        assert_eq!(home, partition);
    }
    assert_eq!(out.lines().count(), 30_000);
    assert_eq!(partition_of.values().collect::<std::collections::HashSet<_>>().len(), 6);
}

#[test]
fn a_topic_with_small_batches_gets_what_fits() {
    let (server, _directory) = server();
    server.ok(&["topic", "create", "t", "-c", "max.message.bytes=3000"]);
    let lines = numbered(5000, |index| format!("line {index}"));
    succeeded(&run(&mut server.command(&["produce", "t"]), lines.as_bytes()));
    assert!(server.ok(&["consume", "t", "-e"]) == lines);
}

#[test]
fn the_cluster_is_shown() {
    let (server, _directory) = server();
    server.ok(&["topic", "create", "t", "-p", "4"]);
    let status = json(&server.ok(&["cluster", "status", "-o", "json"]));
    assert_eq!((&status["healthy"], &status["partitions"]), (&true.into(), &4.into()));
    assert!(server.ok(&["cluster", "status"]).contains("good"));
    let brokers = json(&server.ok(&["cluster", "brokers", "-o", "json"]));
    assert_eq!((&brokers[0]["leads"], &brokers[0]["state"]), (&4.into(), &"alive".into()));
    assert!(server.ok(&["cluster", "brokers"]).contains(server.bootstrap()));
}
