//! What a broker tells of itself and its cluster, and what it does not do.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::ask::{TOPIC, code, create, create_one, delete, delete_records, describe, topic};
use crate::cluster::{Client, Cluster, batch, produce_request};
use levada_coordinator::{Coordinator, CoordinatorConfig};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::api_versions::ApiVersionsRequest;
use levada_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use levada_protocol::kafka::describe_cluster::DescribeClusterRequest;
use levada_protocol::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use levada_protocol::kafka::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use levada_protocol::kafka::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};

#[test]
fn the_admin_apis_are_advertised_in_the_versions_that_are_served() {
    let cluster = Cluster::start(1);
    let request = ApiVersionsRequest {
        client_software_name: "test".into(),
        client_software_version: "1".into(),
    };
    let listed: BTreeMap<i16, (i16, i16)> = cluster.client().call(3, &request, |response| {
        let rows = response.api_keys.iter();
        rows.map(|row| (row.api_key, (row.min_version, row.max_version))).collect()
    });
    for (key, versions) in [
        (19, (2, 7)),
        (20, (1, 6)),
        (21, (0, 2)),
        (32, (1, 4)),
        (33, (0, 2)),
        (35, (1, 4)),
        (37, (0, 3)),
        (44, (0, 1)),
        (60, (0, 2)),
        (75, (0, 0)),
    ] {
        assert_eq!(listed.get(&key), Some(&versions), "{key}");
    }
}

#[test]
fn the_cluster_is_described_with_the_address_that_the_client_used() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    let me = cluster.broker().broker_id().0;
    let port = i32::from(cluster.broker().kafka_address().port());
    for version in 0..=2 {
        let request = DescribeClusterRequest {
            include_cluster_authorized_operations: version > 0,
            include_fenced_brokers: version == 2,
            ..DescribeClusterRequest::default()
        };
        client.call(version, &request, |response| {
            assert_eq!((response.error_code, response.controller_id), (0, me));
            assert!(!response.cluster_id.is_empty());
            let broker = &response.brokers[0];
            assert_eq!((broker.broker_id, &*broker.host, broker.port), (me, "127.0.0.1", port));
            assert!(!broker.is_fenced);
            let operations = response.cluster_authorized_operations;
            assert_eq!(operations == i32::MIN, version == 0);
        });
    }
    let controllers = DescribeClusterRequest { endpoint_type: 2, ..Default::default() };
    let refused = client.call(1, &controllers, |response| response.error_code);
    assert_eq!(refused, code(ErrorCode::MismatchedEndpointType));
}

#[test]
fn topics_are_described_page_by_page() {
    let cluster = Cluster::start(2);
    let mut client = cluster.client();
    create(&mut client, 7, vec![topic("a", 3, 1, &[]), topic("b", 2, 1, &[])]);
    let me = cluster.broker().broker_id().0;
    let mut seen = Vec::new();
    let mut cursor: Option<(String, i32)> = None;
    loop {
        let request = DescribeTopicPartitionsRequest {
            topics: Vec::new(),
            response_partition_limit: 2,
            cursor: cursor
                .map(|(name, partition_index)| Cursor { topic_name: name.into(), partition_index }),
        };
        cursor = client.call(0, &request, |response| {
            for topic in &response.topics {
                for state in &topic.partitions {
                    assert_eq!((state.leader_id, &state.isr_nodes), (me, &vec![me]));
                    assert_eq!(state.offline_replicas, [] as [i32; 0]);
                    seen.push((topic.name.as_deref().unwrap().to_owned(), state.partition_index));
                }
            }
            response
                .next_cursor
                .as_ref()
                .map(|next| (next.topic_name.to_string(), next.partition_index))
        });
        if cursor.is_none() {
            break;
        }
    }
    let of = |name: &str, index| (name.to_owned(), index);
    assert_eq!(seen, [of("a", 0), of("a", 1), of("a", 2), of("b", 0), of("b", 1)]);
    let request = DescribeTopicPartitionsRequest {
        topics: vec![TopicRequest { name: "x".into() }],
        ..DescribeTopicPartitionsRequest::default()
    };
    client.call(0, &request, |response| {
        assert_eq!(response.topics[0].error_code, code(ErrorCode::UnknownTopicOrPartition));
    });
}

#[test]
fn a_request_that_names_too_much_is_refused_and_changes_nothing() {
    let cluster = Cluster::start_with(1, |config| config.admin_items_max = 2);
    let mut client = cluster.client();
    let invalid = code(ErrorCode::InvalidRequest);
    let names = ["a", "b", "c"];
    let topics = |count| names[..count].iter().map(|name| topic(name, 1, 1, &[])).collect();
    let codes = |outcomes: Vec<(i16, String)>| outcomes.into_iter().map(|outcome| outcome.0);
    assert!(codes(create(&mut client, 7, topics(3))).all(|error| error == invalid));
    assert!(codes(create(&mut client, 7, topics(2))).all(|error| error == 0));
    assert_eq!(delete(&mut client, 4, &names), [invalid; 3]);
    let cut = |client: &mut Client, count: usize| -> Vec<i16> {
        let partition = DeleteRecordsPartition { partition_index: 0, offset: -1 };
        let topic = |name: &&str| DeleteRecordsTopic {
            name: name.to_string().into(),
            partitions: vec![partition.clone()],
        };
        let topics = names[..count].iter().map(topic).collect();
        let request = DeleteRecordsRequest { topics, timeout_ms: 10_000 };
        client.call(2, &request, |response| {
            response.topics.iter().map(|topic| topic.partitions[0].error_code).collect()
        })
    };
    assert_eq!(cut(&mut client, 3), [invalid; 3]);
    assert_eq!(cut(&mut client, 2), [0; 2]);
    let asked =
        names.map(|name| DescribableLogDirTopic { topic: name.into(), partitions: vec![0] });
    let request = DescribeLogDirsRequest { topics: Some(asked.to_vec()) };
    assert_eq!(client.call(4, &request, |response| response.error_code), invalid);
    let resource = |name: &&'static str| DescribeConfigsResource {
        resource_type: TOPIC,
        resource_name: (*name).into(),
        configuration_keys: None,
    };
    let resources = names.iter().map(resource).collect();
    let request = DescribeConfigsRequest { resources, ..Default::default() };
    client.call(4, &request, |response| {
        assert!(response.results.iter().all(|result| result.error_code == invalid));
    });
    assert_eq!(delete(&mut client, 4, &names[..2]), [0; 2]);
}

#[test]
fn without_the_coordinator_changes_are_refused_with_a_retriable_code_and_the_rest_goes_on() {
    let mut cluster = Cluster::start(1);
    let mut client = cluster.client();
    create_one(&mut client, topic("t", 1, 1, &[]));
    let spare = Coordinator::start(CoordinatorConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        http_enabled: false,
        data_dir: cluster.directory.path().join("spare"),
        ..CoordinatorConfig::default()
    });
    std::mem::replace(&mut cluster.coordinator, spare.unwrap()).stop().unwrap();
    let sent = batch(&[b"v"]);
    let refused = create(&mut client, 7, vec![topic("u", 1, 1, &[])])[0].0;
    let refused = ErrorCode::from_i16(refused).unwrap();
    assert!(refused.is_retriable(), "{refused}");
    let refused = ErrorCode::from_i16(delete(&mut client, 4, &["t"])[0]).unwrap();
    assert!(refused.is_retriable(), "{refused}");
    let produced = client.call(9, &produce_request("t", 0, -1, &sent), |response| {
        response.responses[0].partition_responses[0].error_code
    });
    assert_eq!(produced, 0);
    assert_eq!(delete_records(&mut client, "t", 0, -1), (0, 1));
    assert!(describe(&mut client, 4, TOPIC, "t").is_ok());
}
