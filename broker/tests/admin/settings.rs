//! Settings of topics and brokers are shown and changed.

use std::collections::BTreeMap;

use crate::ask::{BROKER, TOPIC, alter, code, create_one, delete_records, describe, topic};
use crate::cluster::{Client, Cluster, batch, now};
use levada_protocol::kafka::alter_configs::AlterConfigsRequest;
use levada_protocol::kafka::{ErrorCode, alter_configs};

#[test]
fn settings_act_on_every_shard_as_soon_as_they_are_changed() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 6, 1, &[]));
    let large = batch(&[&[1; 5_000]]);
    let refused = code(ErrorCode::MessageTooLarge);
    let each = |expected: i16| {
        for partition in 0..6 {
            let response = cluster.client().produce("t", partition, -1, &large);
            assert_eq!(response.error_code, expected, "{partition}");
        }
    };
    each(0);
    let set = [("max.message.bytes", 0, Some("2000"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &set).0, 0);
    each(refused);
    let unset = [("max.message.bytes", 1, None)];
    assert_eq!(alter(&mut client, TOPIC, "t", &unset).0, 0);
    each(0);
    // Who decides timestamps.
    let before = now();
    let set = [("message.timestamp.type", 0, Some("LogAppendTime"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &set).0, 0);
    for partition in 0..6 {
        let response = cluster.client().produce("t", partition, -1, &large);
        assert!(response.log_append_time_ms >= before.0, "{partition}");
    }
    // What an acknowledgement waits for.
    let set = [("durability", 0, Some("replicated")), ("min.insync.replicas", 0, Some("1"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &set).0, 0);
    each(0);
    let set = [("durability", 0, Some("fsync"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &set).0, 0);
    each(0);
}

#[test]
fn a_smaller_segment_size_acts_on_the_log_without_a_restart() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[]));
    client.produce("t", 0, -1, &batch(&[&[1; 10_000]]));
    let set = [("segment.bytes", 0, Some("65536"))];
    assert_eq!(alter(&mut client, TOPIC, "t", &set).0, 0);
    for _ in 0..20 {
        assert_eq!(client.produce("t", 0, -1, &batch(&[&[1; 10_000]])).error_code, 0);
    }
    let too_large = client.produce("t", 0, -1, &batch(&[&vec![1; 100_000]])).error_code;
    assert!(
        [code(ErrorCode::MessageTooLarge), code(ErrorCode::RecordListTooLarge)]
            .contains(&too_large)
    );
    assert_eq!(delete_records(&mut client, "t", 0, 20), (0, 20));
    assert_eq!(client.fetch("t", 0, 20, 100).error_code, 0);
}

#[test]
fn changes_of_settings_that_make_no_sense_are_refused_by_name() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[]));
    let me = cluster.broker().broker_id().to_string();
    let mut check = |kind, name: &str, change, expected, word: &str| {
        let (error, message) = alter(&mut client, kind, name, &[change]);
        assert_eq!(error, code(expected), "{message}");
        assert!(message.contains(word), "{message}");
    };
    let invalid = ErrorCode::InvalidConfig;
    check(TOPIC, "t", ("no.such", 0, Some("1")), invalid, "no.such");
    check(TOPIC, "t", ("retention.ms", 0, Some("x")), invalid, "retention.ms");
    check(TOPIC, "t", ("min.insync.replicas", 0, Some("2")), invalid, "min.insync.replicas");
    check(TOPIC, "t", ("retention.ms", 2, Some("1")), invalid, "retention.ms");
    check(TOPIC, "t", ("cleanup.policy", 2, Some("compact")), invalid, "cleanup.policy");
    check(BROKER, &me, ("shards", 0, Some("2")), invalid, "shards");
    check(BROKER, "", ("shards", 0, Some("2")), invalid, "shards");
    let invalid = ErrorCode::InvalidRequest;
    check(TOPIC, "t", ("retention.ms", 0, None), invalid, "retention.ms");
    check(TOPIC, "t", ("retention.ms", 7, Some("1")), invalid, "retention.ms");
    check(BROKER, "4711", ("shards", 0, Some("2")), invalid, "4711");
    check(8, &me, ("root", 0, Some("DEBUG")), invalid, "8");
    let unknown = ErrorCode::UnknownTopicOrPartition;
    check(TOPIC, "x", ("retention.ms", 0, Some("1")), unknown, "x");
    check(TOPIC, "a/b", ("retention.ms", 0, Some("1")), ErrorCode::InvalidTopic, "/");
    let rows = describe(&mut client, 4, TOPIC, "t").unwrap();
    assert!(rows.values().all(|row| row.1 == 5), "{rows:?}");
}

#[test]
fn alter_configs_replaces_all_settings_and_validation_changes_none() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[("retention.ms", "5000")]));
    let replace = |client: &mut Client, version, validate_only| {
        let config = alter_configs::AlterableConfig {
            name: "retention.bytes".into(),
            value: Some("700000".into()),
        };
        let resource = alter_configs::AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: "t".into(),
            configs: vec![config],
        };
        let request = AlterConfigsRequest { resources: vec![resource], validate_only };
        client.call(version, &request, |response| response.responses[0].error_code)
    };
    let value = |client: &mut Client, name: &str| {
        let rows = describe(client, 4, TOPIC, "t").unwrap();
        let (value, source, _) = rows.get(name).unwrap().clone();
        (value, source)
    };
    assert_eq!(replace(&mut client, 2, true), 0);
    assert_eq!(value(&mut client, "retention.ms"), ("5000".into(), 1));
    for version in 0..=2 {
        assert_eq!(replace(&mut client, version, false), 0);
        assert_eq!(value(&mut client, "retention.ms"), ("604800000".into(), 5));
        assert_eq!(value(&mut client, "retention.bytes"), ("700000".into(), 1));
    }
}

#[test]
fn settings_of_topics_and_brokers_are_shown() {
    let mut cluster = Cluster::start_with(1, |config| config.fetch_max_wait_ms = 1234);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[("retention.ms", "5000")]));
    for version in 1..=4 {
        let rows = describe(&mut client, version, TOPIC, "t").unwrap();
        assert_eq!(rows.get("retention.ms"), Some(&("5000".to_owned(), 1, false)));
        assert_eq!(rows.get("cleanup.policy"), Some(&("delete".to_owned(), 5, false)));
        assert_eq!(rows.get("min.insync.replicas"), Some(&("1".to_owned(), 5, false)));
    }
    let me = cluster.broker().broker_id().to_string();
    let rows = describe(&mut client, 4, BROKER, &me).unwrap();
    assert_eq!(rows.get("broker_id"), Some(&(me, 4, true)));
    assert_eq!(rows.get("fetch_max_wait_ms"), Some(&("1234".to_owned(), 4, true)));
    assert_eq!(rows.get("fetch_max_bytes"), Some(&("57671680".to_owned(), 5, true)));
    assert_eq!(describe(&mut client, 4, BROKER, ""), Ok(BTreeMap::new()));
    let invalid = code(ErrorCode::InvalidRequest);
    assert_eq!(describe(&mut client, 4, BROKER, "4711"), Err(invalid));
    assert_eq!(describe(&mut client, 4, 8, "1"), Err(invalid));
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(describe(&mut client, 4, TOPIC, "x"), Err(unknown));
    assert_eq!(describe(&mut client, 4, TOPIC, "a/b"), Err(code(ErrorCode::InvalidTopic)));
    // Settings of a topic are the cluster's: they outlive a restart.
    cluster.restart();
    let rows = describe(&mut cluster.client(), 4, TOPIC, "t").unwrap();
    assert_eq!(rows.get("retention.ms"), Some(&("5000".to_owned(), 1, false)));
}
