//! A coordinator as brokers meet it: over TCP, with a restart now and then.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking, its helpers too")]

#[path = "wire/peer.rs"]
mod peer;
#[path = "wire/crash.rs"]
mod crash;

use std::io::Write;
use std::net::TcpStream;
use std::time::Duration;

use levada_coordinator::{Coordinator, CoordinatorConfig, Error, Handle};
use levada_protocol::cluster::frame::{Envelope, Message, Push};
use levada_protocol::cluster::request::{
    CreateTopics, Mode, NewTopic, Placement, Request, TopicRef, Wish,
};
use levada_protocol::cluster::{
    BrokerState, ClusterId, ClusterImage, MAX_REQUEST_BYTES, RefusalCode, Reply,
};
use levada_record::id::{BrokerId, PartitionId, PartitionIndex};
use tempfile::TempDir;

use peer::Peer;

fn config(directory: &TempDir) -> CoordinatorConfig {
    CoordinatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        http_listen: ([127, 0, 0, 1], 0).into(),
        http_enabled: false,
        data_dir: directory.path().join("coordinator"),
        ..CoordinatorConfig::default()
    }
}

fn start(directory: &TempDir) -> Handle {
    Coordinator::start(config(directory)).unwrap()
}

fn create(names: &[String], partitions: i32) -> Request {
    let topics = names
        .iter()
        .map(|name| NewTopic {
            name: name.clone(),
            id: None,
            placement: Placement::Automatic {
                partitions: Some(partitions),
                replication_factor: Some(1),
            },
            configs: Vec::new(),
        })
        .collect();
    Request::CreateTopics(CreateTopics { topics, mode: Mode::Execute })
}

fn delete(name: &str) -> Request {
    Request::DeleteTopics { topics: vec![TopicRef::Name(name.to_owned())] }
}

#[track_caller]
fn topics_index(reply: Reply) -> u64 {
    match reply {
        Reply::Topics(topics) => {
            for outcome in &topics.outcomes {
                outcome.as_ref().unwrap();
            }
            topics.index
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_broker_registers_follows_the_image_and_confirms_its_replicas() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut broker = Peer::connect(coordinator.address());
    let registered = broker.register(1, 1);
    broker.subscribe();
    let ack = broker.heartbeat(Wish::Serve);
    assert_eq!(ack.state, BrokerState::Active);

    // Somebody else creates a topic; the broker hears of it.
    let mut other = Peer::connect(coordinator.address());
    other.join(registered.cluster);
    let index = topics_index(other.ask(create(&["orders".to_owned()], 2)));
    let image = broker.follow_to(index);
    let topic = image.topic_named("orders").unwrap().clone();
    assert_eq!(topic.partitions.len(), 2);
    assert!(topic.partitions.iter().all(|partition| partition.leader == Some(BrokerId(1))));

    let partitions =
        (0..2).map(|index| PartitionId { topic: topic.id, index: PartitionIndex(index) }).collect();
    let (id, epoch) = (registered.broker, registered.epoch);
    let confirm = Request::ConfirmReplicas { broker: id, epoch, partitions };
    let Reply::Confirmed { index } = broker.ask(confirm) else { panic!("confirms") };
    let image = broker.follow_to(index);
    let topic = image.topic_named("orders").unwrap();
    assert!(topic.partitions.iter().all(|partition| partition.replicas[0].confirmed));
    coordinator.stop().unwrap();
}

#[test]
fn a_restart_keeps_what_was_acknowledged_and_the_broker_returns() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut broker = Peer::connect(coordinator.address());
    let before = broker.register(1, 1);
    broker.subscribe();
    broker.heartbeat(Wish::Serve);
    let index = topics_index(broker.ask(create(&["orders".to_owned()], 3)));
    let known = broker.follow_to(index).clone();
    coordinator.stop().unwrap();

    let coordinator = start(&directory);
    let mut broker = Peer::connect(coordinator.address());
    // The same process, with the epoch and the image it has: neither is sent again.
    broker.resume(before, known.clone());
    broker.subscribe();
    assert_eq!(broker.heartbeat(Wish::Serve).state, BrokerState::Active);
    let index = topics_index(broker.ask(create(&["later".to_owned()], 1)));
    assert_eq!(broker.images_received(), 0);
    let image = broker.follow_to(index);
    assert_eq!(image.topic_named("orders"), known.topic_named("orders"));
    assert_eq!(image.cluster(), before.cluster);
    coordinator.stop().unwrap();
}

#[test]
fn every_subscriber_sees_the_same_changes_in_the_same_order() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut broker = Peer::connect(coordinator.address());
    let registered = broker.register(1, 1);
    broker.subscribe();
    broker.heartbeat(Wish::Serve);
    let mut followers: Vec<Peer> = Vec::new();
    let mut index = 0;
    for round in 0..20 {
        // Followers join in the middle of it.
        if round % 5 == 0 {
            let mut follower = Peer::connect(coordinator.address());
            follower.join(registered.cluster);
            follower.subscribe();
            followers.push(follower);
        }
        index = topics_index(broker.ask(create(&[format!("topic-{round}")], 2)));
        if round % 3 == 0 {
            index = topics_index(broker.ask(delete(&format!("topic-{round}"))));
        }
    }
    let expected = broker.follow_to(index).clone();
    assert_eq!(expected.topics().len(), 13);
    for follower in &mut followers {
        assert_eq!(*follower.follow_to(index), expected);
        assert!(follower.images_received() <= 1);
    }
    coordinator.stop().unwrap();
}

#[test]
fn a_subscriber_that_stops_reading_is_disconnected_and_starts_over() {
    let directory = TempDir::new().unwrap();
    let coordinator =
        Coordinator::start(CoordinatorConfig { push_budget_bytes: 1 << 20, ..config(&directory) })
            .unwrap();
    let mut broker = Peer::connect(coordinator.address());
    let registered = broker.register(1, 1);
    broker.subscribe();
    broker.heartbeat(Wish::Serve);
    let mut slow = Peer::connect(coordinator.address());
    slow.shrink_receive_buffer();
    slow.join(registered.cluster);
    slow.subscribe();
    // Some 440 kB of changes each: beyond what sockets and queue hold.
    let mut index = 0;
    for _ in 0..20 {
        topics_index(broker.ask(create(&["wide".to_owned()], 10_000)));
        index = topics_index(broker.ask(delete("wide")));
        broker.heartbeat(Wish::Serve);
    }
    let (images, changes) = slow.read_to_end();
    assert!(images <= 1, "{images} images");
    assert!(changes < 40, "was sent all {changes} changes");
    let mut again = Peer::connect(coordinator.address());
    again.join(registered.cluster);
    again.subscribe();
    assert_eq!(again.follow_to(index).topics().len(), 0);
    assert_eq!(again.images_received(), 1);
    coordinator.stop().unwrap();
}

#[test]
fn peers_of_another_cluster_and_peers_that_do_not_say_are_refused() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut peer = Peer::connect(coordinator.address());
    let refused = |reply: Reply| match reply {
        Reply::Refused(refusal) => refusal.code,
        other => panic!("{other:?}"),
    };
    assert!(matches!(peer.ask(Request::Status), Reply::Status(_)));
    let subscribe = Request::Subscribe { from_index: 0 };
    assert_eq!(refused(peer.ask(subscribe.clone())), RefusalCode::InvalidRequest);
    peer.join(ClusterId([1; 16]));
    for request in [subscribe, Request::Status, peer::registration(1, 1)] {
        assert_eq!(refused(peer.ask(request)), RefusalCode::WrongCluster);
    }
    coordinator.stop().unwrap();
}

#[test]
fn bytes_that_are_no_frame_end_the_connection_and_nothing_else() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut whole = Vec::new();
    let status =
        Envelope { cluster: None, request_id: 1, message: Message::Request(Request::Status) };
    whole.extend(status.encode(MAX_REQUEST_BYTES).unwrap());
    let mut flipped = whole.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let reply = Message::Push(Push::Image(Box::new(ClusterImage::empty(ClusterId([1; 16])))));
    let unasked = Envelope { cluster: None, request_id: 1, message: reply };
    for bytes in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0xff; 100],
        u32::try_from(MAX_REQUEST_BYTES + 1).unwrap().to_le_bytes().to_vec(),
        flipped,
        unasked.encode(MAX_REQUEST_BYTES).unwrap(),
    ] {
        let mut peer = Peer::connect(coordinator.address());
        peer.send(&bytes);
        assert!(peer.is_closed(), "after {:?}", bytes.get(..20));
    }
    let mut peer = Peer::connect(coordinator.address());
    assert!(matches!(peer.ask(Request::Status), Reply::Status(_)));
    coordinator.stop().unwrap();
}

#[test]
fn peers_that_take_their_time_are_disconnected() {
    let directory = TempDir::new().unwrap();
    let coordinator = Coordinator::start(CoordinatorConfig {
        first_frame_ms: 50,
        frame_ms: 50,
        idle_ms: 50,
        ..config(&directory)
    })
    .unwrap();
    let mut silent = Peer::connect(coordinator.address());
    assert!(silent.is_closed());
    let mut halting = Peer::connect(coordinator.address());
    halting.send(&[100, 0]);
    assert!(halting.is_closed());
    let mut idle = Peer::connect(coordinator.address());
    assert!(matches!(idle.ask(Request::Status), Reply::Status(_)));
    assert!(idle.is_closed());
    coordinator.stop().unwrap();
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let directory = TempDir::new().unwrap();
    let coordinator =
        Coordinator::start(CoordinatorConfig { max_connections: 2, ..config(&directory) }).unwrap();
    let mut peers: Vec<Peer> = (0..2).map(|_| Peer::connect(coordinator.address())).collect();
    for peer in &mut peers {
        assert!(matches!(peer.ask(Request::Status), Reply::Status(_)));
    }
    assert!(Peer::connect(coordinator.address()).is_closed());
    assert!(matches!(peers[0].ask(Request::Status), Reply::Status(_)));
    coordinator.stop().unwrap();
}

#[test]
fn long_requests_wait_for_each_other_and_all_are_served() {
    let directory = TempDir::new().unwrap();
    let coordinator = Coordinator::start(CoordinatorConfig {
        request_budget_bytes: 1 << 20,
        ..config(&directory)
    })
    .unwrap();
    let mut broker = Peer::connect(coordinator.address());
    let registered = broker.register(1, 1);
    // Each takes more than half of the budget.
    let topics = vec![TopicRef::Name("x".repeat(600)); 1000];
    let peers: Vec<std::thread::JoinHandle<Reply>> = (0..4)
        .map(|_| {
            let mut peer = Peer::connect(coordinator.address());
            peer.join(registered.cluster);
            let topics = topics.clone();
            std::thread::spawn(move || peer.ask(Request::DeleteTopics { topics }))
        })
        .collect();
    for peer in peers {
        let Reply::Topics(topics) = peer.join().unwrap() else { panic!("topics") };
        assert_eq!(topics.outcomes.len(), 1000);
    }
    coordinator.stop().unwrap();
}

#[test]
fn requests_sent_together_are_answered_in_order() {
    let directory = TempDir::new().unwrap();
    let coordinator = start(&directory);
    let mut peer = Peer::connect(coordinator.address());
    let mut bytes = Vec::new();
    for request_id in [7, 3, 9, 1] {
        let message = Message::Request(Request::Status);
        let envelope = Envelope { cluster: None, request_id, message };
        bytes.extend(envelope.encode(MAX_REQUEST_BYTES).unwrap());
    }
    peer.send(&bytes);
    let ids: Vec<u64> = (0..4).map(|_| peer.receive().request_id).collect();
    assert_eq!(ids, [7, 3, 9, 1]);
    coordinator.stop().unwrap();
}

#[test]
fn http_tells_how_it_is() {
    let directory = TempDir::new().unwrap();
    let coordinator =
        Coordinator::start(CoordinatorConfig { http_enabled: true, ..config(&directory) }).unwrap();
    let mut broker = Peer::connect(coordinator.address());
    broker.register(1, 1);
    let http = coordinator.http_address().unwrap();
    let get = |path: &str| {
        let mut stream = TcpStream::connect(http).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        std::io::read_to_string(stream).unwrap()
    };
    let health = get("/health");
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    assert!(health.contains("\"status\":\"ok\""), "{health}");
    let status = get("/status");
    assert!(status.contains("\"state\":\"fenced\""), "{status}");
    let metrics = get("/metrics");
    assert!(
        metrics.contains("levada_coordinator_requests_total{kind=\"register\"} 1"),
        "{metrics}"
    );
    assert!(get("/other").starts_with("HTTP/1.1 404"));
    coordinator.stop().unwrap();
}

#[test]
fn what_keeps_it_from_starting_is_told_to_the_starter() {
    let directory = TempDir::new().unwrap();
    let first = start(&directory);
    let locked = Coordinator::start(config(&directory)).unwrap_err();
    assert!(matches!(locked, Error::Storage(_)), "{locked}");
    let taken = CoordinatorConfig { listen: first.address(), ..config(&TempDir::new().unwrap()) };
    let error = Coordinator::start(taken).unwrap_err();
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    let senseless = CoordinatorConfig { session_ms: 1, ..config(&directory) };
    assert!(matches!(Coordinator::start(senseless).unwrap_err(), Error::Config(_)));
    first.stop().unwrap();
    start(&directory).stop().unwrap();
}

#[test]
fn a_process_runs_until_its_shutdown_completes() {
    let directory = TempDir::new().unwrap();
    levada_coordinator::run(config(&directory), std::future::ready(())).unwrap();
    levada_coordinator::run(config(&directory), std::future::ready(())).unwrap();
}
