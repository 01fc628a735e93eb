//! Topics come, grow and go.

use crate::ask::{code, create, create_one, delete, partition_directories, topic};
use crate::cluster::{Client, Cluster, batch};
use levada_protocol::kafka::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use levada_protocol::kafka::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreateTopicsRequest,
};
use levada_protocol::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use levada_protocol::kafka::{ErrorCode, Uuid};

#[test]
fn a_created_topic_can_be_written_at_once_over_any_connection() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    for (round, version) in (0..).zip(2..=7) {
        let name = format!("t{round}");
        let asked = topic(&name, 6, 1, &[("retention.ms", "86400000")]);
        assert_eq!(create(&mut client, version, vec![asked]), [(0, String::new())]);
        for partition in 0..6 {
            let response = cluster.client().produce(&name, partition, -1, &batch(&[b"v"]));
            assert_eq!((response.error_code, response.base_offset), (0, 0), "{name} {partition}");
        }
    }
}

#[test]
fn what_was_created_is_told_with_all_its_settings() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    let request = CreateTopicsRequest {
        topics: vec![topic("t", 3, -1, &[("max.message.bytes", "5000")])],
        timeout_ms: 10_000,
        validate_only: false,
    };
    let id = client.call(7, &request, |response| {
        let made = &response.topics[0];
        assert_eq!((made.error_code, made.num_partitions, made.replication_factor), (0, 3, 1));
        let configs = made.configs.as_ref().unwrap();
        let of = |name: &str| configs.iter().find(|row| row.name == name).unwrap();
        let given = of("max.message.bytes");
        assert_eq!((given.value.as_deref(), given.config_source), (Some("5000"), 1));
        assert_eq!(of("retention.ms").config_source, 5);
        made.topic_id.0
    });
    let seen = client.metadata("t", false);
    assert_eq!((seen.id, seen.partitions), (id, 3));
}

#[test]
fn every_topic_that_cannot_be_created_says_why_and_the_others_are() {
    let cluster = Cluster::start(2);
    let mut client = cluster.client();
    assert_eq!(create_one(&mut client, topic("there", 1, 1, &[])), 0);
    let outcomes = create(
        &mut client,
        7,
        vec![
            topic("there", 1, 1, &[]),
            topic("no/name", 1, 1, &[]),
            topic("", 1, 1, &[]),
            topic("none", 0, 1, &[]),
            topic("negative", -2, 1, &[]),
            topic("many", 100_000, 1, &[]),
            topic("copies", 1, 2, &[]),
            topic("nowhere", 1, 0, &[]),
            topic("unknown", 1, 1, &[("no.such.setting", "1")]),
            topic("senseless", 1, 1, &[("retention.ms", "soon")]),
            topic("compacted", 1, 1, &[("cleanup.policy", "compact")]),
            topic("twice", 1, 1, &[]),
            topic("twice", 2, 1, &[]),
            topic("good", 2, 1, &[]),
        ],
    );
    let expected = [
        ErrorCode::TopicAlreadyExists,
        ErrorCode::InvalidTopic,
        ErrorCode::InvalidTopic,
        ErrorCode::InvalidPartitions,
        ErrorCode::InvalidPartitions,
        ErrorCode::InvalidPartitions,
        ErrorCode::InvalidReplicationFactor,
        ErrorCode::InvalidReplicationFactor,
        ErrorCode::InvalidConfig,
        ErrorCode::InvalidConfig,
        ErrorCode::InvalidConfig,
        ErrorCode::InvalidRequest,
        ErrorCode::InvalidRequest,
        ErrorCode::None,
    ];
    let codes: Vec<_> = outcomes.iter().map(|outcome| outcome.0).collect();
    assert_eq!(codes, expected.map(code), "{outcomes:?}");
    for (slot, setting) in [(8, "no.such.setting"), (9, "retention.ms"), (10, "cleanup.policy")] {
        assert!(outcomes[slot].1.contains(setting), "{outcomes:?}");
    }
    assert_eq!(client.produce("good", 1, -1, &batch(&[b"v"])).error_code, 0);
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(client.metadata("twice", false).error_code, unknown);
}

#[test]
fn replicas_may_be_chosen_by_hand() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    let me = cluster.broker().broker_id().0;
    let by_hand = |name, brokers: &[i32]| {
        let assignments = (0..).zip(brokers).map(|(partition_index, broker)| {
            CreatableReplicaAssignment { partition_index, broker_ids: vec![*broker] }
        });
        CreatableTopic { assignments: assignments.collect(), ..topic(name, -1, -1, &[]) }
    };
    assert_eq!(create_one(&mut client, by_hand("mine", &[me, me])), 0);
    assert_eq!(client.metadata("mine", false).partitions, 2);
    let invalid = code(ErrorCode::InvalidReplicaAssignment);
    assert_eq!(create_one(&mut client, by_hand("other", &[me + 1])), invalid);
}

#[test]
fn a_topic_that_is_only_validated_is_not_there() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    for (name, partitions, expected) in
        [("fine", 4, ErrorCode::None), ("bad", 0, ErrorCode::InvalidPartitions)]
    {
        let request = CreateTopicsRequest {
            topics: vec![topic(name, partitions, 1, &[])],
            timeout_ms: 10_000,
            validate_only: true,
        };
        client.call(7, &request, |response| {
            let topic = &response.topics[0];
            assert_eq!((topic.error_code, topic.topic_id), (code(expected), Uuid::ZERO));
        });
        let unknown = code(ErrorCode::UnknownTopicOrPartition);
        assert_eq!(client.metadata(name, false).error_code, unknown);
    }
}

#[test]
fn a_deleted_topic_is_gone_from_the_disk_and_its_name_is_free() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    for version in 1..=6 {
        assert_eq!(create_one(&mut client, topic("t", 6, 1, &[])), 0);
        let before = client.metadata("t", false).id;
        for partition in 0..6 {
            let response = client.produce("t", partition, -1, &batch(&[&[7; 10_000]]));
            assert_eq!((response.error_code, response.base_offset), (0, 0));
        }
        assert_eq!(partition_directories(&cluster), 6);
        assert_eq!(delete(&mut client, version, &["t"]), [0]);
        // No waiting here: the answer came after the files had gone.
        assert_eq!(partition_directories(&cluster), 0);
        let unknown = code(ErrorCode::UnknownTopicOrPartition);
        assert_eq!(client.metadata("t", false).error_code, unknown);
        assert_eq!(client.produce("t", 0, -1, &batch(&[b"v"])).error_code, unknown);
        assert_eq!(client.fetch("t", 0, 0, 0).error_code, unknown);
        assert_eq!(create_one(&mut client, topic("t", 1, 1, &[])), 0);
        assert_ne!(client.metadata("t", false).id, before);
        assert_eq!(client.fetch("t", 0, 0, 0).high_watermark, 0);
        assert_eq!(delete(&mut client, version, &["t"]), [0]);
    }
}

#[test]
fn topics_are_deleted_by_id_and_what_is_not_there_says_so() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    create(&mut client, 7, vec![topic("a", 1, 1, &[]), topic("b", 1, 1, &[])]);
    let id = Uuid(client.metadata("a", false).id);
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let topics = vec![by_id(id), by_id(Uuid([9; 16])), by_id(Uuid::ZERO)];
    let request = DeleteTopicsRequest { topics, timeout_ms: 10_000, ..Default::default() };
    client.call(6, &request, |response| {
        let codes: Vec<_> = response.responses.iter().map(|topic| topic.error_code).collect();
        let invalid = code(ErrorCode::InvalidRequest);
        assert_eq!(codes, [0, code(ErrorCode::UnknownTopicId), invalid]);
        let gone = &response.responses[0];
        assert_eq!((gone.name.as_deref(), gone.topic_id), (Some("a"), id));
    });
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    let invalid = code(ErrorCode::InvalidRequest);
    assert_eq!(delete(&mut client, 4, &["a", "no/name"]), [unknown, unknown]);
    assert_eq!(delete(&mut client, 4, &["b", "b"]), [invalid, invalid]);
    assert_eq!(client.metadata("b", false).error_code, 0);
}

#[test]
fn a_topic_grows_and_the_new_partitions_can_be_written_at_once() {
    let cluster = Cluster::start(3);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[]));
    let grow =
        |client: &mut Client, name: &str, version, count, assigned: Option<usize>, try_only| {
            let me = cluster.broker().broker_id().0;
            let assignment = |_| CreatePartitionsAssignment { broker_ids: vec![me] };
            let topic = CreatePartitionsTopic {
                name: name.to_owned().into(),
                count,
                assignments: assigned.map(|count| (0..count).map(assignment).collect()),
            };
            let request = CreatePartitionsRequest {
                topics: vec![topic],
                timeout_ms: 10_000,
                validate_only: try_only,
            };
            client.call(version, &request, |response| response.results[0].error_code)
        };
    for (version, count) in (0..=3).zip(2..) {
        assert_eq!(grow(&mut client, "t", version, count, None, true), 0);
        assert_eq!(client.metadata("t", false).partitions, usize::try_from(count).unwrap() - 1);
        assert_eq!(grow(&mut client, "t", version, count, None, false), 0);
        let response = cluster.client().produce("t", count - 1, -1, &batch(&[b"v"]));
        assert_eq!((response.error_code, response.base_offset), (0, 0));
    }
    assert_eq!(grow(&mut client, "t", 3, 7, Some(2), false), 0);
    assert_eq!(client.metadata("t", false).partitions, 7);
    let invalid = code(ErrorCode::InvalidPartitions);
    assert_eq!(grow(&mut client, "t", 3, 7, None, false), invalid);
    assert_eq!(grow(&mut client, "t", 3, 3, None, false), invalid);
    assert_eq!(grow(&mut client, "t", 3, -1, None, false), invalid);
    let assignment = code(ErrorCode::InvalidReplicaAssignment);
    assert_eq!(grow(&mut client, "t", 3, 9, Some(1), false), assignment);
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(grow(&mut client, "x", 3, 9, None, false), unknown);
}
