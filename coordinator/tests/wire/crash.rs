//! A coordinator that is killed, again and again, in the middle of its work.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use levada_coordinator::{Coordinator, CoordinatorConfig};
use levada_protocol::cluster::request::{CreateTopics, Mode, NewTopic, Placement, Request, Wish};
use levada_protocol::cluster::{ClusterImage, Reply};
use tempfile::TempDir;

use crate::peer::Peer;

/// Tells the child where its data is.
const DIRECTORY: &str = "LEVADA_CRASH_TEST_DIRECTORY";

/// Not a test of its own: the process that is killed. Ends with its parent, which holds its input.
#[test]
fn child_of_the_crash_test() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let coordinator = Coordinator::start(CoordinatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        http_enabled: false,
        data_dir: directory.into(),
        // A snapshot after every few topics.
        snapshot_log_bytes: 64 << 10,
        ..CoordinatorConfig::default()
    })
    .unwrap();
    println!("\naddress={}", coordinator.address());
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    coordinator.stop().unwrap();
}

/// The process, what it still says, and a connection to it.
fn start(directory: &Path) -> (Child, impl Sized, Peer) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["crash::child_of_the_crash_test", "--exact", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = lines
        .by_ref()
        .map(|line| line.unwrap())
        .find_map(|line| Some(line.strip_prefix("address=")?.parse().unwrap()))
        .expect("the child tells where it listens");
    (child, lines, Peer::connect(address))
}

fn create(name: &str) -> Request {
    let placement = Placement::Automatic { partitions: Some(20), replication_factor: Some(1) };
    let topic = NewTopic { name: name.to_owned(), id: None, placement, configs: Vec::new() };
    Request::CreateTopics(CreateTopics { topics: vec![topic], mode: Mode::Execute })
}

#[track_caller]
fn check(image: &ClusterImage, acknowledged: &BTreeSet<String>, asked: &BTreeSet<String>) {
    let there: BTreeSet<String> = image.topics().map(|topic| topic.name.to_string()).collect();
    let lost: Vec<_> = acknowledged.difference(&there).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
    let made_up: Vec<_> = there.difference(asked).collect();
    assert!(made_up.is_empty(), "never asked for: {made_up:?}");
}

#[test]
fn killed_at_any_moment_it_has_everything_it_acknowledged() {
    let directory = TempDir::new().unwrap();
    let mut acknowledged = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for round in 0..8u8 {
        let (mut child, _said, mut broker) = start(directory.path());
        broker.register(1, round + 1);
        broker.subscribe();
        broker.heartbeat(Wish::Serve);
        let index = broker.heartbeat(Wish::Serve).index;
        check(broker.follow_to(index), &acknowledged, &asked);
        // More requests than are answered: the process dies while it writes some of them.
        let names: Vec<String> = (0..60).map(|n| format!("topic-{round}-{n}")).collect();
        for name in &names {
            broker.send_request(create(name));
            asked.insert(name.clone());
        }
        for name in names.iter().take(usize::from(round) * 7 + 1) {
            match broker.reply() {
                Some(Reply::Topics(topics)) => {
                    topics.outcomes[0].as_ref().unwrap();
                    acknowledged.insert(name.clone());
                }
                other => panic!("{other:?}"),
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (mut child, _said, mut broker) = start(directory.path());
    let registered = broker.register(1, 99);
    broker.subscribe();
    check(broker.follow_to(registered.index), &acknowledged, &asked);
    drop(child.stdin.take());
    assert!(child.wait().unwrap().success());
}
