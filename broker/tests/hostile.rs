//! What strangers send, and what that does to others: nothing.

#[path = "harness/cluster.rs"]
mod cluster;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use cluster::{Client, Cluster, batch, fetch_request, fetched, produce_request, read_response};
use levada_broker::{Broker, StartError};
use levada_protocol::kafka::produce::ProduceRequest;

/// Reads until the broker hangs up; gives what came before that.
fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // A reset is as good as an end.
    stream.read_to_end(&mut received).ok();
    received
}

fn serves(cluster: &Cluster) {
    let mut client = cluster.client();
    assert_eq!(client.produce("t", 0, -1, &batch(&[b"still here"])).error_code, 0);
}

#[test]
fn bytes_that_are_no_request_close_their_connection_and_no_other() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 1, &[]);
    let mut well_behaved = cluster.client();
    let frames: &[&[u8]] = &[
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0, 0, 0, 0],
        &[0, 0, 0, 1, 9],
        // An API that nobody has.
        &[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0, 0],
        // JoinGroup: known to the codec, not served.
        &[0, 0, 0, 10, 0, 11, 0, 0, 0, 0, 0, 1, 0, 0],
        // Metadata in a version that nobody has.
        &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0, 0],
        // Metadata of 2^31 - 1 topics.
        &[0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        // Produce cut off after its header.
        &[0, 0, 0, 10, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for frame in frames {
        let mut stream = cluster.client().stream;
        stream.write_all(frame).unwrap();
        assert_eq!(until_closed(&mut stream), b"", "{frame:?}");
        let response = well_behaved.produce("t", 0, -1, &batch(&[b"v"]));
        assert_eq!(response.error_code, 0, "{frame:?}");
    }
}

#[test]
fn a_connection_that_says_nothing_or_too_slowly_is_closed() {
    let cluster = Cluster::start_with(1, |config| {
        config.first_frame_deadline_ms = 300;
        config.idle_deadline_ms = 600;
        config.body_min_rate_bytes_per_s = 1 << 20;
    });
    cluster.create_topic("t", 1, &[]);
    let mut silent = cluster.client().stream;
    let mut idle = cluster.client();
    idle.metadata("t", false);
    let mut slow = cluster.client();
    slow.metadata("t", false);
    // A request of 1 MiB of which only the beginning comes.
    slow.stream.write_all(&[0, 16, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0]).unwrap();
    until_closed(&mut silent);
    until_closed(&mut slow.stream);
    until_closed(&mut idle.stream);
    serves(&cluster);
}

#[test]
fn a_peer_that_does_not_read_is_closed_and_its_memory_comes_back() {
    let cluster = Cluster::start_with(1, |config| {
        config.reply_write_deadline_ms = 300;
        config.shard_response_bytes = 16 << 20;
    });
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let large = batch(&[&vec![7; 1_000_000]]);
    for _ in 0..16 {
        assert_eq!(client.produce("t", 0, -1, &large).error_code, 0);
    }
    // Sockets take a few MB by themselves; several fetches of 10 MB are more than that.
    let mut readers: Vec<Client> = (0..4).map(|_| cluster.client()).collect();
    for reader in &mut readers {
        for _ in 0..4 {
            reader.send(11, &fetch_request("t", 0, 0, 0, 10 << 20));
        }
    }
    // Another client gets through meanwhile, though the budget is small.
    let got = client.call(11, &fetch_request("t", 0, 0, 0, 10 << 20), |r| fetched(&r));
    assert!(got.records.len() > 9 << 20);
    let admin = cluster.broker().admin_address().unwrap();
    let expected = ["levada_connections_late_total 4", "levada_response_budget_bytes 0"];
    loop {
        let (_, text) = cluster::get(admin, "/metrics");
        if expected.iter().all(|expected| text.lines().any(|line| line == *expected)) {
            break;
        }
    }
}

#[test]
fn connections_beyond_the_limit_are_closed_at_once() {
    let cluster = Cluster::start_with(1, |config| config.connections_max = 3);
    let mut first: Vec<Client> = (0..3).map(|_| cluster.client()).collect();
    for client in &mut first {
        client.metadata("t", false);
    }
    until_closed(&mut cluster.client().stream);
    // They are free again when somebody leaves.
    drop(first.pop());
    loop {
        let mut client = cluster.client();
        client.stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 0]).unwrap();
        if client.next_frame().is_some() {
            break;
        }
    }
}

#[test]
fn unfinished_requests_cannot_keep_the_memory_of_others() {
    let cluster = Cluster::start_with(1, |config| {
        config.max_frame_bytes = 4 << 20;
        config.shard_request_bytes = 4 << 20;
        config.first_frame_deadline_ms = 60_000;
    });
    cluster.create_topic("t", 1, &[]);
    // Each sends most of a large request and then stops: together all of the budget.
    let mut hoarders: Vec<Client> = (0..8).map(|_| cluster.client()).collect();
    let body = vec![0; 1 << 20];
    for hoarder in &mut hoarders {
        hoarder.stream.write_all(&[0, 0x3f, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0]).unwrap();
        hoarder.stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        // The broker stops reading when the budget is used up.
        hoarder.stream.write_all(&body).ok();
    }
    serves(&cluster);
}

/// Goal: what a slow writer holds of the budget is what it has sent, about. Once it was 64 KiB for the first byte, so
/// two thousand connections of a byte each stalled every other client of a shard with its default budget of 128 MiB,
/// for seconds, while one was thrown out per second.
#[test]
fn many_requests_that_have_only_begun_leave_room_for_others() {
    const SLOW: u64 = 256;
    let cluster = Cluster::start_with(1, |config| {
        config.max_frame_bytes = 4 << 20;
        config.shard_request_bytes = 4 << 20;
        config.first_frame_deadline_ms = 60_000;
    });
    cluster.create_topic("t", 1, &[]);
    let mut slow: Vec<Client> = (0..SLOW).map(|_| cluster.client()).collect();
    for client in &mut slow {
        // The beginning of a Produce of 1 MiB.
        client.stream.write_all(&[0, 0x10, 0, 0, 0, 0, 0, 9, 0, 0, 0, 1, 0, 0]).unwrap();
    }
    let admin = cluster.broker().admin_address().unwrap();
    let value = |name: &str| {
        let (_, text) = cluster::get(admin, "/metrics");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or(0_u64)
    };
    while value("levada_request_budget_bytes ") < SLOW << 12 {
        assert_eq!(value("levada_connections_evicted_total "), 0);
    }
    serves(&cluster);
    assert_eq!(value("levada_request_budget_waiting "), 0);
    assert_eq!(value("levada_connections_evicted_total "), 0);
}

#[test]
fn full_mailboxes_and_small_budgets_slow_producers_down_but_lose_nothing() {
    let cluster = Cluster::start_with(3, |config| {
        config.mailbox_capacity = 1;
        config.shard_append_bytes = 1 << 20;
        config.connection_inflight_bytes = 256 << 10;
        config.connection_replies_max = 8;
    });
    cluster.create_topic("t", 6, &[]);
    let address = cluster.broker().kafka_address();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                let mut reader = client.twin();
                let sent = batch(&[&vec![3; 50_000]]);
                let writing = std::thread::spawn(move || {
                    (0..60)
                        .map(|n| client.send(9, &produce_request("t", n % 6, -1, &sent)))
                        .collect::<Vec<_>>()
                });
                let mut errors = Vec::new();
                for id in 1..=60 {
                    let frame = reader.next_frame().unwrap();
                    errors.push(read_response::<ProduceRequest<'_>, _>(
                        &frame,
                        9,
                        id,
                        |response| response.responses[0].partition_responses[0].error_code,
                    ));
                }
                assert_eq!(writing.join().unwrap().len(), 60);
                errors
            })
        })
        .collect();
    for thread in threads {
        assert!(thread.join().unwrap().iter().all(|error| *error == 0));
    }
    let mut client = cluster.client();
    for partition in 0..6 {
        assert_eq!(client.fetch("t", partition, 0, 0).high_watermark, 40);
    }
}

#[test]
fn a_second_broker_is_refused_the_directory_and_the_port() {
    let cluster = Cluster::start(1);
    let error = Broker::start(cluster.config.clone()).unwrap_err();
    assert!(matches!(error, StartError::Lock(_)), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let mut config = cluster.config.clone();
    config.data_dir = elsewhere.path().into();
    config.listen = cluster.broker().kafka_address();
    let error = Broker::start(config).unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }), "{error}");
    assert!(error.to_string().contains("listen"), "{error}");
}

#[test]
fn a_start_that_waits_for_its_coordinator_can_be_given_up() {
    let directory = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = cluster::config(&directory, nobody, 2);
    let (cancel, cancelled) = flume::bounded(1);
    let start = std::thread::spawn(move || Broker::start_unless(config, &cancelled));
    cancel.send(()).unwrap();
    let error = start.join().unwrap().unwrap_err();
    assert!(matches!(error, StartError::Cancelled), "{error}");
}

#[test]
fn producing_and_consuming_go_on_without_a_coordinator() {
    let mut cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    let directory = tempfile::tempdir().unwrap();
    let spare = levada_coordinator::Coordinator::start(levada_coordinator::CoordinatorConfig {
        listen: ([127, 0, 0, 1], 0).into(),
        http_enabled: false,
        data_dir: directory.path().into(),
        ..levada_coordinator::CoordinatorConfig::default()
    });
    let coordinator = std::mem::replace(&mut cluster.coordinator, spare.unwrap());
    coordinator.stop().unwrap();
    let mut client = cluster.client();
    for partition in 0..2 {
        assert_eq!(client.produce("t", partition, -1, &batch(&[b"v"])).error_code, 0);
        assert_eq!(client.fetch("t", partition, 0, 100).high_watermark, 1);
    }
    // What needs the coordinator is refused in a way that clients try again.
    assert_ne!(client.metadata("new", true).error_code, 0);
}
