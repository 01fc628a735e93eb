//! `Metadata`: brokers, topics, leaders. Creates missing topics where that is allowed.

use std::borrow::Cow;

use futures_lite::FutureExt as _;
use levada_protocol::cluster::reply::Reply;
use levada_protocol::cluster::request::{CreateTopics, Mode, NewTopic, Placement, Request};
use levada_protocol::cluster::{PartitionImage, TopicImage};
use levada_protocol::kafka::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseBroker, MetadataResponsePartition,
    MetadataResponseTopic,
};
use levada_protocol::kafka::{ErrorCode, Uuid};
use levada_record::TopicName;

use super::context::{Context, SHARD_LISTENER, owned, topic_id, wire_id};
use crate::controller_link::ASK_WITHIN;
use crate::image::ImageView;

/// First version whose topics may be asked for by id, though ids are on the wire a little longer.
const IDS_FROM: i16 = 12;

/// First version that says whether topics may be created.
const CREATION_FLAG_FROM: i16 = 4;

/// Answers from the image of this shard.
pub async fn handle(
    context: &Context,
    request: &MetadataRequest<'_>,
    version: i16,
) -> MetadataResponse<'static> {
    let asked = match &request.topics {
        Some(topics) if version > 0 || !topics.is_empty() => Some(topics),
        _ => None,
    };
    let shard = &context.shard;
    let mut image = shard.image.get();
    if asked.is_some_and(|topics| topics.len() as u64 > shard.config.metadata_topics_max) {
        let error_code = ErrorCode::InvalidRequest.to_i16();
        return MetadataResponse { error_code, ..cluster(context, &image) };
    }
    let may_create = version < CREATION_FLAG_FROM || request.allow_auto_topic_creation;
    if let Some(topics) = asked
        && may_create
        && shard.config.auto_create_topics
    {
        let missing: Vec<String> = topics
            .iter()
            .filter(|topic| topic.topic_id.is_zero())
            .filter_map(|topic| topic.name.as_deref())
            .filter(|name| image.topic_named(name).is_none() && TopicName::new(name).is_ok())
            .map(str::to_owned)
            .collect();
        if !missing.is_empty() {
            create(context, missing).await;
            image = shard.image.get();
        }
    }
    let ports = if request.levada_ports == 1 { Ports::OfShards } else { Ports::Shared };
    let topics = match asked {
        None => image.image.topics_by_name().map(|topic| present(&image, topic, ports)).collect(),
        Some(asked) => asked
            .iter()
            .map(|asked| {
                if !asked.topic_id.is_zero() && version < IDS_FROM {
                    return absent(ErrorCode::InvalidRequest, Some(""), asked.topic_id);
                }
                if !asked.topic_id.is_zero() {
                    let known = image.topic(topic_id(asked.topic_id));
                    return known.map_or_else(
                        || absent(ErrorCode::UnknownTopicId, None, asked.topic_id),
                        |topic| present(&image, &topic.image, ports),
                    );
                }
                let name = asked.name.as_deref().unwrap_or_default();
                match image.topic_named(name) {
                    Some(topic) => present(&image, &topic.image, ports),
                    None if TopicName::new(name).is_err() => {
                        absent(ErrorCode::InvalidTopic, Some(name), Uuid::ZERO)
                    }
                    None => absent(ErrorCode::UnknownTopicOrPartition, Some(name), Uuid::ZERO),
                }
            })
            .collect(),
    };
    MetadataResponse { topics, ..cluster(context, &image) }
}

/// Creates topics with the cluster's defaults and waits until this shard can serve them. What goes
/// wrong shows as a topic that is still missing, for the client to ask again.
async fn create(context: &Context, names: Vec<String>) {
    let shard = &context.shard;
    let topics = names
        .into_iter()
        .map(|name| {
            let placement = Placement::Automatic { partitions: None, replication_factor: None };
            NewTopic { name, id: None, placement, configs: Vec::new() }
        })
        .collect();
    let request = Request::CreateTopics(CreateTopics { topics, mode: Mode::Execute });
    match shard.controller.ask(&shard.runtime, request, ASK_WITHIN).await {
        Ok(Reply::Topics(outcomes)) => {
            for refusal in outcomes.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
                tracing::info!(%refusal, "topic not created");
            }
            let timer = shard.runtime.sleep(ASK_WITHIN);
            shard.image.reached(outcomes.index).or(timer).await;
        }
        Ok(_) => tracing::warn!("the controller answered something else"),
        Err(error) => tracing::warn!(%error, "topics not created"),
    }
}

/// Everything but topics.
fn cluster(context: &Context, image: &ImageView) -> MetadataResponse<'static> {
    let brokers = context
        .nodes(image)
        .into_iter()
        .map(|node| MetadataResponseBroker {
            node_id: node.id.0,
            host: Cow::Owned(node.host),
            port: node.port,
            rack: node.rack.map(Cow::Owned),
        })
        .collect();
    MetadataResponse {
        brokers,
        cluster_id: Some(Cow::Owned(image.image.cluster().to_string())),
        // Any broker takes what is meant for the controller and passes it on.
        controller_id: context.shard.broker.0,
        ..MetadataResponse::default()
    }
}

/// Which ports the client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ports {
    /// That of the broker.
    Shared,
    /// Those of single shards, too.
    OfShards,
}

/// The port of the shard that has the leader's replica, 0 when it has none of its own.
fn shard_port(image: &ImageView, partition: &PartitionImage) -> i32 {
    let port = || {
        let leader = partition.leader?;
        let broker = image.image.broker(leader)?;
        let first = broker.addresses.iter().find(|address| address.listener == SHARD_LISTENER)?;
        let shard = partition.replica_on(leader)?.shard.0;
        // As the broker itself does with a shard that it has no more.
        let shard = if shard < broker.shards { shard } else { 0 };
        Some(i32::from(first.port) + i32::from(shard))
    };
    port().unwrap_or(0)
}

fn present(image: &ImageView, topic: &TopicImage, ports: Ports) -> MetadataResponseTopic<'static> {
    let is_alive = |broker| {
        image
            .image
            .broker(broker)
            .is_some_and(|broker| broker.state != levada_protocol::cluster::BrokerState::Fenced)
    };
    let partitions = topic
        .partitions
        .iter()
        .map(|partition| {
            let offline = partition.replicas.iter().filter(|replica| !is_alive(replica.broker));
            MetadataResponsePartition {
                error_code: match partition.leader {
                    Some(_) => ErrorCode::None,
                    None => ErrorCode::LeaderNotAvailable,
                }
                .to_i16(),
                partition_index: partition.index.0,
                leader_id: partition.leader.map_or(-1, |leader| leader.0),
                leader_epoch: partition.leader_epoch.0,
                replica_nodes: partition.replicas.iter().map(|r| r.broker.0).collect(),
                isr_nodes: partition.isr.iter().map(|broker| broker.0).collect(),
                offline_replicas: offline.map(|replica| replica.broker.0).collect(),
                levada_port: match ports {
                    Ports::OfShards => shard_port(image, partition),
                    Ports::Shared => 0,
                },
            }
        })
        .collect();
    MetadataResponseTopic {
        name: Some(owned(topic.name.as_str())),
        topic_id: wire_id(topic.id),
        is_internal: topic.name.is_internal(),
        partitions,
        ..MetadataResponseTopic::default()
    }
}

fn absent(code: ErrorCode, name: Option<&str>, id: Uuid) -> MetadataResponseTopic<'static> {
    MetadataResponseTopic {
        error_code: code.to_i16(),
        // Only versions that ask by id may leave the name out; there it may be null.
        name: name.map(owned),
        topic_id: id,
        ..MetadataResponseTopic::default()
    }
}
