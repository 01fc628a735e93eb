//! Topics: create, delete, grow, cut at the front, list.

use std::collections::BTreeMap;

use levada_protocol::kafka::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
};
use levada_protocol::kafka::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use levada_protocol::kafka::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsResponse, DeleteRecordsTopic,
};
use levada_protocol::kafka::delete_topics::{
    DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use levada_protocol::kafka::{ApiKey, ErrorCode};
use levada_record::{Offset, TopicId};

use super::{Admin, CHANGE_TIMEOUT, change_timeout_ms, check, first_code, left_out};
use crate::cluster::AutoCreate;
use crate::error::{ClientError, Refusal};
use crate::metadata::{Asked, TopicView};

/// A topic to be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None` for the cluster's default.
    pub partitions: Option<i32>,
    /// How many replicas of each; `None` for the cluster's default.
    pub replicas: Option<i16>,
    /// Settings that differ from the defaults, name and value.
    pub configs: Vec<(String, String)>,
}

/// A topic that was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    /// Its name.
    pub name: String,
    /// Its id; zero when the broker does not tell.
    pub id: TopicId,
    /// How many partitions it has, if the broker tells.
    pub partitions: Option<i32>,
    /// How many replicas each has, if the broker tells.
    pub replicas: Option<i32>,
}

impl Admin {
    /// Creates a topic; with `validate_only` checks only whether it could be.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_topic(
        &self,
        topic: &NewTopic,
        validate_only: bool,
    ) -> Result<CreatedTopic, ClientError> {
        let configs = topic.configs.iter().map(|(name, value)| CreatableTopicConfig {
            name: name.as_str().into(),
            value: Some(value.as_str().into()),
        });
        let request = CreateTopicsRequest {
            topics: vec![CreatableTopic {
                name: topic.name.as_str().into(),
                num_partitions: topic.partitions.unwrap_or(-1),
                replication_factor: topic.replicas.unwrap_or(-1),
                configs: configs.collect(),
                ..Default::default()
            }],
            timeout_ms: change_timeout_ms(),
            validate_only,
        };
        let reply = self
            .change(&request, |reply| {
                let response: CreateTopicsResponse<'_> = reply.body()?;
                Ok(first_code(response.topics.iter().map(|topic| topic.error_code)))
            })
            .await?;
        let response: CreateTopicsResponse<'_> = reply.body()?;
        let subject = format!("topic {}", topic.name);
        let row = response.topics.iter().find(|row| row.name == topic.name);
        let row = row.ok_or_else(|| left_out(&subject))?;
        check(&subject, row.error_code, row.error_message.as_deref())?;
        Ok(CreatedTopic {
            name: topic.name.clone(),
            id: TopicId(row.topic_id.0),
            partitions: (0 < row.num_partitions).then_some(row.num_partitions),
            replicas: (0 < row.replication_factor).then_some(i32::from(row.replication_factor)),
        })
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let by_state = 6 <= self.cluster.any().await?.version(ApiKey::DeleteTopics)?;
        let request = if by_state {
            DeleteTopicsRequest {
                topics: vec![DeleteTopicState { name: Some(name.into()), ..Default::default() }],
                timeout_ms: change_timeout_ms(),
                ..Default::default()
            }
        } else {
            DeleteTopicsRequest {
                topic_names: vec![name.into()],
                timeout_ms: change_timeout_ms(),
                ..Default::default()
            }
        };
        let reply = self
            .change(&request, |reply| {
                let response: DeleteTopicsResponse<'_> = reply.body()?;
                Ok(first_code(response.responses.iter().map(|topic| topic.error_code)))
            })
            .await?;
        let response: DeleteTopicsResponse<'_> = reply.body()?;
        let subject = format!("topic {name}");
        let row = response.responses.iter().find(|row| row.name.as_deref() == Some(name));
        let row = row.ok_or_else(|| left_out(&subject))?;
        check(&subject, row.error_code, row.error_message.as_deref())
    }

    /// Gives a topic more partitions: `count` in all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn grow_topic(&self, name: &str, count: i32) -> Result<(), ClientError> {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic { name: name.into(), count, assignments: None }],
            timeout_ms: change_timeout_ms(),
            validate_only: false,
        };
        let reply = self
            .change(&request, |reply| {
                let response: CreatePartitionsResponse<'_> = reply.body()?;
                Ok(first_code(response.results.iter().map(|topic| topic.error_code)))
            })
            .await?;
        let response: CreatePartitionsResponse<'_> = reply.body()?;
        let subject = format!("topic {name}");
        let row = response.results.iter().find(|row| row.name == name);
        let row = row.ok_or_else(|| left_out(&subject))?;
        check(&subject, row.error_code, row.error_message.as_deref())
    }

    /// Deletes the records of partitions below an offset, `None` for all that can be read; tells the
    /// first offset kept.
    ///
    /// # Errors
    /// [`ClientError`] for the first partition that refuses; others may have been cut.
    pub async fn delete_records(
        &self,
        topic: &str,
        below: &BTreeMap<i32, Option<Offset>>,
    ) -> Result<BTreeMap<i32, Offset>, ClientError> {
        let view = self.cluster.topic(topic, AutoCreate::Never).await?;
        let mut by_leader: BTreeMap<i32, Vec<DeleteRecordsPartition>> = BTreeMap::new();
        for (&partition_index, below) in below {
            let subject = || format!("{topic}-{partition_index}");
            let known = view.partition(partition_index).ok_or_else(|| {
                ClientError::refused(subject(), ErrorCode::UnknownTopicOrPartition.into())
            })?;
            let leader = known.leader.ok_or_else(|| {
                ClientError::refused(subject(), ErrorCode::LeaderNotAvailable.into())
            })?;
            let offset = below.map_or(-1, |offset| offset.0);
            let row = DeleteRecordsPartition { partition_index, offset };
            by_leader.entry(leader).or_default().push(row);
        }
        let mut kept = BTreeMap::new();
        for (leader, partitions) in by_leader {
            let request = DeleteRecordsRequest {
                topics: vec![DeleteRecordsTopic { name: topic.into(), partitions }],
                timeout_ms: change_timeout_ms(),
            };
            let connection = self.cluster.node(leader).await?;
            let reply = connection.call_waiting(&request, CHANGE_TIMEOUT).await?;
            let response: DeleteRecordsResponse<'_> = reply.body()?;
            for row in response.topics.iter().flat_map(|topic| &topic.partitions) {
                check(&format!("{topic}-{}", row.partition_index), row.error_code, None)?;
                kept.insert(row.partition_index, Offset(row.low_watermark));
            }
        }
        match below.keys().find(|partition| !kept.contains_key(partition)) {
            Some(partition) => Err(left_out(&format!("{topic}-{partition}"))),
            None => Ok(kept),
        }
    }

    /// Every topic, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_topics(&self) -> Result<Vec<TopicView>, ClientError> {
        let (view, _) = self.cluster.refresh(Asked::All, AutoCreate::Never).await?;
        Ok(view.topics.values().cloned().collect())
    }

    /// One topic, asked for anew.
    ///
    /// # Errors
    /// [`ClientError`]; `UNKNOWN_TOPIC_OR_PARTITION` when there is none of that name.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicView, ClientError> {
        let (view, errors) =
            self.cluster.refresh(Asked::Topics(&[name]), AutoCreate::Never).await?;
        let subject = || format!("topic {name}");
        if let Some((_, refusal)) = errors.into_iter().next() {
            return Err(ClientError::refused(subject(), refusal));
        }
        let missing = || Refusal::from(ErrorCode::UnknownTopicOrPartition);
        view.topics.get(name).cloned().ok_or_else(|| ClientError::refused(subject(), missing()))
    }
}
