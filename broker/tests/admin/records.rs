//! Records are deleted, and the room they took is shown.

use std::collections::BTreeMap;
use std::path::Path;

use crate::ask::{code, create, create_one, delete_records, log_dir, offset_at, topic};
use crate::cluster::{Cluster, batch, values};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};

#[test]
fn the_oldest_records_are_deleted_up_to_an_offset() {
    for durability in ["fsync", "replicated"] {
        let mut cluster = Cluster::start(2);
        let mut client = cluster.client();
        create_one(&mut client, topic("t", 2, 1, &[("durability", durability)]));
        for _ in 0..5 {
            client.produce("t", 1, -1, &batch(&[b"a", b"b"]));
        }
        assert_eq!(delete_records(&mut client, "t", 1, 0), (0, 0));
        assert_eq!(delete_records(&mut client, "t", 1, 3), (0, 3));
        let below = client.fetch("t", 1, 2, 0);
        assert_eq!(below.error_code, code(ErrorCode::OffsetOutOfRange));
        let got = client.fetch("t", 1, 3, 100);
        assert_eq!((got.error_code, got.log_start), (0, 3));
        // The batch that holds the offset comes whole; clients pass over what is before it.
        assert_eq!(values(&got.records)[0].0, 2);
        // What is gone already stays gone, and is no error.
        assert_eq!(delete_records(&mut client, "t", 1, 1), (0, 3));
        let beyond = code(ErrorCode::OffsetOutOfRange);
        assert_eq!(delete_records(&mut client, "t", 1, 11), (beyond, -1));
        assert_eq!(delete_records(&mut client, "t", 1, -2), (beyond, -1));
        assert_eq!(delete_records(&mut client, "t", 1, -1), (0, 10));
        let got = client.fetch("t", 1, 10, 0);
        assert_eq!((got.error_code, got.high_watermark, got.log_start), (0, 10, 10));
        let unknown = code(ErrorCode::UnknownTopicOrPartition);
        assert_eq!(delete_records(&mut client, "t", 2, 0), (unknown, -1));
        assert_eq!(delete_records(&mut client, "x", 0, 0), (unknown, -1));
        // Partition 0 was left alone, and all of it holds after a restart.
        cluster.restart();
        let mut client = cluster.client();
        assert_eq!(delete_records(&mut client, "t", 1, 0), (0, 10));
        assert_eq!(client.produce("t", 1, -1, &batch(&[b"c"])).base_offset, 10);
        assert_eq!(client.produce("t", 0, -1, &batch(&[b"c"])).base_offset, 0);
    }
}

#[test]
fn deleted_records_are_no_longer_found_by_time() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[]));
    for _ in 0..4 {
        client.produce("t", 0, -1, &batch(&[b"v"]));
    }
    assert_eq!(offset_at(&mut client, "t", 0), 0);
    assert_eq!(delete_records(&mut client, "t", 0, 2), (0, 2));
    assert_eq!(offset_at(&mut client, "t", -2), 2);
    assert_eq!(offset_at(&mut client, "t", 0), 2);
}

#[test]
fn the_log_directory_shows_what_each_partition_takes() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    create(&mut client, 7, vec![topic("a", 3, 1, &[]), topic("b", 1, 1, &[])]);
    let sent = batch(&[&vec![7; 50_000]]);
    client.produce("a", 2, -1, &sent);
    let (path, total, usable, sizes) = log_dir(&mut client, None);
    assert_eq!(Path::new(&path), cluster.directory.path().join("broker"));
    assert!(0 < usable && usable < total, "{usable} of {total}");
    let keys: Vec<_> = sizes.keys().map(|(name, index)| (name.as_str(), *index)).collect();
    assert_eq!(keys, [("a", 0), ("a", 1), ("a", 2), ("b", 0)]);
    assert_eq!(sizes[&("a".to_owned(), 0)], 0);
    assert_eq!(sizes[&("a".to_owned(), 2)], i64::try_from(sent.len()).unwrap());
    let some = vec![
        DescribableLogDirTopic { topic: "a".into(), partitions: vec![2, 9] },
        DescribableLogDirTopic { topic: "x".into(), partitions: vec![0] },
    ];
    let (_, _, _, sizes) = log_dir(&mut client, Some(some));
    assert_eq!(sizes.keys().collect::<Vec<_>>(), [&("a".to_owned(), 2)]);
    assert_eq!(log_dir(&mut client, Some(Vec::new())).3, BTreeMap::new());
    for version in 1..=4 {
        client.call(version, &DescribeLogDirsRequest { topics: None }, |response| {
            assert_eq!(response.results[0].topics.len(), 2);
            let has_space = response.results[0].total_bytes > 0;
            assert_eq!(has_space, version == 4);
        });
    }
}
