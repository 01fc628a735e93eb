//! The requests of these tests.

use std::collections::BTreeMap;

use crate::cluster::{Client, Cluster};
use levada_protocol::kafka::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use levada_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use levada_protocol::kafka::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use levada_protocol::kafka::describe_configs::{DescribeConfigsRequest, DescribeConfigsResource};
use levada_protocol::kafka::describe_log_dirs::{DescribableLogDirTopic, DescribeLogDirsRequest};
use levada_protocol::kafka::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use levada_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use levada_protocol::kafka::{ErrorCode, Uuid};

pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

pub(crate) fn code(code: ErrorCode) -> i16 {
    code.to_i16()
}

pub(crate) fn topic<'a>(
    name: &'a str,
    num_partitions: i32,
    replication_factor: i16,
    configs: &[(&'a str, &'a str)],
) -> CreatableTopic<'a> {
    let setting = |(name, value): &(&'a str, &'a str)| CreatableTopicConfig {
        name: (*name).into(),
        value: Some((*value).into()),
    };
    CreatableTopic {
        name: name.into(),
        num_partitions,
        replication_factor,
        configs: configs.iter().map(setting).collect(),
        ..CreatableTopic::default()
    }
}

/// Code and message per topic.
pub(crate) fn create(
    client: &mut Client,
    version: i16,
    topics: Vec<CreatableTopic<'_>>,
) -> Vec<(i16, String)> {
    let request = CreateTopicsRequest { topics, timeout_ms: 10_000, validate_only: false };
    client.call(version, &request, |response| {
        let topics = response.topics.iter();
        topics
            .map(|topic| {
                let message = topic.error_message.as_deref().unwrap_or_default().to_owned();
                (topic.error_code, message)
            })
            .collect()
    })
}

pub(crate) fn create_one(client: &mut Client, topic: CreatableTopic<'_>) -> i16 {
    create(client, 7, vec![topic])[0].0
}

pub(crate) fn delete(client: &mut Client, version: i16, names: &[&str]) -> Vec<i16> {
    let mut request = DeleteTopicsRequest { timeout_ms: 10_000, ..Default::default() };
    if version < 6 {
        request.topic_names = names.iter().map(|name| (*name).into()).collect();
    } else {
        let by_name = |name: &&str| DeleteTopicState {
            name: Some(name.to_string().into()),
            topic_id: Uuid::ZERO,
        };
        request.topics = names.iter().map(by_name).collect();
    }
    client.call(version, &request, |response| {
        response.responses.iter().map(|topic| topic.error_code).collect()
    })
}

/// 0 sets, 1 deletes, 2 adds, 3 takes out.
pub(crate) fn alter(
    client: &mut Client,
    kind: i8,
    name: &str,
    changes: &[(&str, i8, Option<&str>)],
) -> (i16, String) {
    let change = |(name, operation, value): &(&str, i8, Option<&str>)| AlterableConfig {
        name: name.to_string().into(),
        config_operation: *operation,
        value: value.map(|value| value.to_owned().into()),
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configs: changes.iter().map(change).collect(),
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    client.call(1, &request, |response| {
        let outcome = &response.responses[0];
        let message = outcome.error_message.as_deref().unwrap_or_default().to_owned();
        (outcome.error_code, message)
    })
}

/// Value, source and whether it is read-only, by name.
pub(crate) fn describe(
    client: &mut Client,
    version: i16,
    kind: i8,
    name: &str,
) -> Result<BTreeMap<String, (String, i8, bool)>, i16> {
    let resource = DescribeConfigsResource {
        resource_type: kind,
        resource_name: name.into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        include_synonyms: true,
        include_documentation: version >= 3,
    };
    client.call(version, &request, |response| {
        let result = &response.results[0];
        if result.error_code != 0 {
            return Err(result.error_code);
        }
        let rows = result.configs.iter().map(|row| {
            assert!(row.config_source > 0, "{}", row.name);
            let value = row.value.as_deref().unwrap_or_default().to_owned();
            (row.name.to_string(), (value, row.config_source, row.read_only))
        });
        Ok(rows.collect())
    })
}

pub(crate) fn delete_records(
    client: &mut Client,
    topic: &str,
    partition: i32,
    offset: i64,
) -> (i16, i64) {
    let partition = DeleteRecordsPartition { partition_index: partition, offset };
    let topic = DeleteRecordsTopic { name: topic.into(), partitions: vec![partition] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 10_000 };
    client.call(2, &request, |response| {
        let result = &response.topics[0].partitions[0];
        (result.error_code, result.low_watermark)
    })
}

/// Path, total and usable bytes, and per topic and partition its size.
pub(crate) type Directory = (String, i64, i64, BTreeMap<(String, i32), i64>);

pub(crate) fn log_dir(
    client: &mut Client,
    topics: Option<Vec<DescribableLogDirTopic<'_>>>,
) -> Directory {
    client.call(4, &DescribeLogDirsRequest { topics }, |response| {
        let directory = &response.results[0];
        assert_eq!((response.error_code, directory.error_code), (0, 0));
        let mut sizes = BTreeMap::new();
        for topic in &directory.topics {
            for partition in &topic.partitions {
                assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
                let key = (topic.name.to_string(), partition.partition_index);
                sizes.insert(key, partition.partition_size);
            }
        }
        (directory.log_dir.to_string(), directory.total_bytes, directory.usable_bytes, sizes)
    })
}

pub(crate) fn offset_at(client: &mut Client, topic: &str, timestamp: i64) -> i64 {
    let asked = ListOffsetsPartition { partition_index: 0, current_leader_epoch: -1, timestamp };
    let topic = ListOffsetsTopic { name: topic.into(), partitions: vec![asked] };
    let request = ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..Default::default() };
    client.call(7, &request, |response| response.topics[0].partitions[0].offset)
}

/// Directories of partitions on disk.
pub(crate) fn partition_directories(cluster: &Cluster) -> usize {
    let partitions = cluster.directory.path().join("broker/partitions");
    std::fs::read_dir(partitions).map_or(0, Iterator::count)
}
