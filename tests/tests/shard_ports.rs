//! Levada's client talks to the core that has a partition when that core's port can be reached, and to the broker's own
//! port when it cannot. A proxy stands before the broker's own port and counts what passes.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test")]

#[path = "local/cluster.rs"]
mod local;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use levada_client::admin::NewTopic;
use levada_client::{
    Admin, Cluster, ClusterOptions, Consumer, ConsumerOptions, Position, Producer, ProducerOptions,
    ProducerRecord, ShardPorts,
};
use local::LocalCluster;

const PARTITIONS: i32 = 6;
const VALUE_BYTES: usize = 10_000;

/// A broker of three shards behind a proxy; what passed through it in bytes.
struct Behind {
    _cluster: LocalCluster,
    proxy: SocketAddr,
    passed: Arc<AtomicU64>,
}

/// The proxy listens on `host`; the shards' ports on 127.0.0.1.
fn start(host: Ipv4Addr) -> Behind {
    let listener = TcpListener::bind((IpAddr::V4(host), 0)).unwrap();
    let proxy = listener.local_addr().unwrap();
    let cluster = LocalCluster::start(|config| {
        config.advertised = Some(proxy.to_string());
        config.shards = 3;
    });
    let passed = Arc::new(AtomicU64::new(0));
    let (upstream, count) = (cluster.config.listen, Arc::clone(&passed));
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(upstream) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let count = Arc::clone(&count);
                thread::spawn(move || pass(from, to, &count));
            }
        }
    });
    Behind { _cluster: cluster, proxy, passed }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    // The other side may have gone first.
    drop(to.shutdown(Shutdown::Both));
}

/// Writes a record to every partition and reads it back; the bytes that passed through the proxy.
async fn exchange(behind: &Behind, shard_ports: ShardPorts) -> u64 {
    let options = ClusterOptions { shard_ports, ..ClusterOptions::default() };
    let cluster = Cluster::connect(&behind.proxy.to_string(), options).await.unwrap();
    let topic = format!("through-{}", behind.passed.load(Ordering::Relaxed));
    let (name, partitions) = (topic.clone(), Some(PARTITIONS));
    let new = NewTopic { name, partitions, replicas: None, configs: Vec::new() };
    Admin::new(cluster.clone()).create_topic(&new, false).await.unwrap();

    let before = behind.passed.load(Ordering::Relaxed);
    let value = vec![b'v'; VALUE_BYTES];
    let producer = Producer::start(cluster.clone(), ProducerOptions::default());
    for partition in 0..PARTITIONS {
        let (topic, value) = (topic.as_str(), Some(value.as_slice()));
        let record =
            ProducerRecord { topic, partition: Some(partition), value, ..Default::default() };
        let delivery = producer.send(&record).await.unwrap();
        assert_eq!(delivery.wait().await.unwrap().offset.unwrap().0, 0);
    }
    let mut consumer = Consumer::new(cluster, ConsumerOptions::default());
    let all: Vec<i32> = (0..PARTITIONS).collect();
    consumer.assign_all(&topic, &all, Position::Start).await.unwrap();
    let mut left: Vec<i32> = all;
    while !left.is_empty() {
        for records in consumer.poll(Duration::from_secs(20)).await.unwrap() {
            assert!(records.bytes() > VALUE_BYTES);
            left.retain(|partition| *partition != records.partition);
        }
    }
    behind.passed.load(Ordering::Relaxed) - before
}

const ALL_BYTES: u64 = 2 * PARTITIONS as u64 * VALUE_BYTES as u64;

#[tokio::test]
async fn records_go_straight_to_the_core_that_has_their_partition() {
    let behind = start(Ipv4Addr::LOCALHOST);
    let passed = exchange(&behind, ShardPorts::WhenOffered).await;
    assert!(passed < VALUE_BYTES as u64, "{passed} B went through the broker's own port");
    let passed = exchange(&behind, ShardPorts::Never).await;
    assert!(ALL_BYTES < passed, "{passed} B");
}

#[tokio::test]
async fn closed_ports_of_cores_are_no_obstacle() {
    // On this address nothing but the proxy listens.
    let behind = start(Ipv4Addr::new(127, 0, 0, 2));
    let passed = exchange(&behind, ShardPorts::WhenOffered).await;
    assert!(ALL_BYTES < passed, "{passed} B");
}
