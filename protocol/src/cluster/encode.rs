//! Owned messages to FlatBuffers. `[P]`

use std::collections::BTreeMap;

use flatbuffers::{FlatBufferBuilder, ForwardsUOffset, UnionWIPOffset, Vector, WIPOffset};
use levada_record::id::{BrokerId, PartitionId, TopicId};

use super::frame::{Message, Push};
use super::image::{
    Address, BrokerImage, BrokerState, Change, ClusterImage, Committed, PartitionImage, TopicImage,
};
use super::reply::{
    BrokerStatus, Leave, Member, MemberRole, Outcomes, Refusal, Reply, Status, TopicOutcomes,
    TopicSummary,
};
use super::request::{
    AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource, LastStop, Mode,
    NewPartitions, NewTopic, Placement, Request, TopicRef, Wish,
};
use crate::generated::cluster::levada::cluster as fb;

/// A message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The frame would be longer than the other side takes.
    #[error("frame of {got_bytes} B exceeds {max_bytes} B")]
    TooLarge {
        /// What it would be, in bytes.
        got_bytes: usize,
        /// What it may be, in bytes.
        max_bytes: usize,
    },
}

pub(super) type Builder<'b> = FlatBufferBuilder<'b>;
/// Offset of a vector of tables.
pub(super) type Tables<'b, T> = WIPOffset<Vector<'b, ForwardsUOffset<T>>>;

/// The bytes of an image: what snapshots hold. Never longer than
/// [`ClusterImage::weight_bytes`].
pub fn encode_image(image: &ClusterImage) -> Vec<u8> {
    let mut b = Builder::new();
    let root = image_table(&mut b, image);
    b.finish_minimal(root);
    b.finished_data().to_vec()
}

/// Appends the message to `out`.
pub(super) fn encode_message(message: &Message, out: &mut Vec<u8>) {
    let mut b = Builder::new();
    let (body_type, body) = match message {
        Message::Request(request) => encode_request(&mut b, request),
        Message::Reply(reply) => encode_reply(&mut b, reply),
        Message::Push(Push::Image(image)) => {
            (fb::Body::Image, image_table(&mut b, image).as_union_value())
        }
        Message::Push(Push::Changes(committed)) => {
            (fb::Body::Committed, committed_table(&mut b, committed).as_union_value())
        }
    };
    let root = fb::Message::create(&mut b, &fb::MessageArgs { body_type, body: Some(body) });
    b.finish_minimal(root);
    out.extend_from_slice(b.finished_data());
}

type Body = (fb::Body, WIPOffset<UnionWIPOffset>);

fn encode_request(b: &mut Builder<'_>, request: &Request) -> Body {
    match request {
        Request::Register(register) => {
            let addresses = addresses(b, &register.addresses);
            let rack = register.rack.as_deref().map(|rack| b.create_string(rack));
            let args = fb::RegisterArgs {
                broker: register.broker.map_or(-1, |broker| broker.0),
                incarnation: Some(&uuid(register.incarnation.0)),
                directory: Some(&uuid(register.directory.0)),
                addresses: Some(addresses),
                rack,
                shards: register.shards,
                clean: register.last_stop == LastStop::Clean,
            };
            (fb::Body::Register, fb::Register::create(b, &args).as_union_value())
        }
        Request::Heartbeat(heartbeat) => {
            let args = fb::HeartbeatArgs {
                broker: heartbeat.broker.0,
                epoch: heartbeat.epoch.0,
                seen_index: heartbeat.seen_index,
                want_shutdown: heartbeat.wish == Wish::Stop,
            };
            (fb::Body::Heartbeat, fb::Heartbeat::create(b, &args).as_union_value())
        }
        Request::Subscribe { from_index } => {
            let args = fb::SubscribeArgs { from_index: *from_index };
            (fb::Body::Subscribe, fb::Subscribe::create(b, &args).as_union_value())
        }
        Request::CreateTopics(create) => {
            let topics = tables(b, &create.topics, new_topic);
            let validate_only = create.mode == Mode::ValidateOnly;
            let args = fb::CreateTopicsArgs { topics: Some(topics), validate_only };
            (fb::Body::CreateTopics, fb::CreateTopics::create(b, &args).as_union_value())
        }
        Request::DeleteTopics { topics } => {
            let topics = tables(b, topics, topic_ref);
            let args = fb::DeleteTopicsArgs { topics: Some(topics) };
            (fb::Body::DeleteTopics, fb::DeleteTopics::create(b, &args).as_union_value())
        }
        Request::CreatePartitions(create) => {
            let topics = tables(b, &create.topics, new_partitions);
            let validate_only = create.mode == Mode::ValidateOnly;
            let args = fb::CreatePartitionsArgs { topics: Some(topics), validate_only };
            (fb::Body::CreatePartitions, fb::CreatePartitions::create(b, &args).as_union_value())
        }
        Request::AlterConfigs(alter) => {
            let resources = tables(b, &alter.resources, config_alteration);
            let validate_only = alter.mode == Mode::ValidateOnly;
            let args = fb::AlterConfigsArgs { resources: Some(resources), validate_only };
            (fb::Body::AlterConfigs, fb::AlterConfigs::create(b, &args).as_union_value())
        }
        Request::AllocateProducerIds { broker, epoch } => {
            let args = fb::AllocateProducerIdsArgs { broker: broker.0, epoch: epoch.0 };
            let table = fb::AllocateProducerIds::create(b, &args);
            (fb::Body::AllocateProducerIds, table.as_union_value())
        }
        Request::ConfirmReplicas { broker, epoch, partitions } => {
            let partitions = partition_refs(b, partitions);
            let args = fb::ConfirmReplicasArgs {
                broker: broker.0,
                epoch: epoch.0,
                partitions: Some(partitions),
            };
            (fb::Body::ConfirmReplicas, fb::ConfirmReplicas::create(b, &args).as_union_value())
        }
        Request::Status => {
            let table = fb::StatusQuery::create(b, &fb::StatusQueryArgs {});
            (fb::Body::StatusQuery, table.as_union_value())
        }
    }
}

fn encode_reply(b: &mut Builder<'_>, reply: &Reply) -> Body {
    match reply {
        Reply::Refused(refusal) => (fb::Body::Refusal, refusal_table(b, refusal).as_union_value()),
        Reply::Registered(registered) => {
            let args = fb::RegisteredArgs {
                broker: registered.broker.0,
                epoch: registered.epoch.0,
                cluster: Some(&uuid(registered.cluster.0)),
                index: registered.index,
            };
            (fb::Body::Registered, fb::Registered::create(b, &args).as_union_value())
        }
        Reply::Heartbeat(ack) => {
            let args = fb::HeartbeatAckArgs {
                state: broker_state(ack.state),
                may_stop: ack.leave == Leave::Now,
                index: ack.index,
            };
            (fb::Body::HeartbeatAck, fb::HeartbeatAck::create(b, &args).as_union_value())
        }
        Reply::Subscribed { index } => {
            let args = fb::SubscribedArgs { index: *index };
            (fb::Body::Subscribed, fb::Subscribed::create(b, &args).as_union_value())
        }
        Reply::Topics(TopicOutcomes { index, outcomes }) => {
            let outcomes = tables(b, outcomes, topic_outcome);
            let args = fb::TopicOutcomesArgs { index: *index, outcomes: Some(outcomes) };
            (fb::Body::TopicOutcomes, fb::TopicOutcomes::create(b, &args).as_union_value())
        }
        Reply::Outcomes(Outcomes { index, outcomes }) => {
            let outcomes = tables(b, outcomes, |b, outcome| {
                let refusal = outcome.as_ref().err().map(|refusal| refusal_table(b, refusal));
                fb::Outcome::create(b, &fb::OutcomeArgs { refusal })
            });
            let args = fb::OutcomesArgs { index: *index, outcomes: Some(outcomes) };
            (fb::Body::Outcomes, fb::Outcomes::create(b, &args).as_union_value())
        }
        Reply::ProducerIds(block) => {
            let args = fb::ProducerIdsArgs { first: block.first.0, count: block.count };
            (fb::Body::ProducerIds, fb::ProducerIds::create(b, &args).as_union_value())
        }
        Reply::Confirmed { index } => {
            let args = fb::ConfirmedArgs { index: *index };
            (fb::Body::Confirmed, fb::Confirmed::create(b, &args).as_union_value())
        }
        Reply::Status(status) => (fb::Body::Status, status_table(b, status).as_union_value()),
    }
}

fn status_table<'b>(b: &mut Builder<'b>, status: &Status) -> WIPOffset<fb::Status<'b>> {
    let cluster_name = status.cluster_name.as_deref().map(|name| b.create_string(name));
    let members = tables(b, &status.members, |b, member: &Member| {
        let address = b.create_string(&member.address);
        let args = fb::MemberArgs {
            id: member.id,
            address: Some(address),
            is_controller: member.role == MemberRole::Controller,
        };
        fb::Member::create(b, &args)
    });
    let brokers = tables(b, &status.brokers, |b, status: &BrokerStatus| {
        let broker = broker_table(b, &status.broker);
        let lease_age_ms =
            status.lease_age_ms.map_or(-1, |age_ms| i64::try_from(age_ms).unwrap_or(i64::MAX));
        let args = fb::BrokerStatusArgs {
            broker: Some(broker),
            lease_age_ms,
            seen_index: status.seen_index,
            replicas: status.replicas,
            leaders: status.leaders,
        };
        fb::BrokerStatus::create(b, &args)
    });
    let args = fb::StatusArgs {
        cluster: Some(&uuid(status.cluster.0)),
        cluster_name,
        controller: status.controller,
        term: status.term,
        members: Some(members),
        index: status.index,
        snapshot_index: status.snapshot_index,
        log_bytes: status.log_bytes,
        brokers: Some(brokers),
        topics: status.topics,
        partitions: status.partitions,
        leaderless: status.leaderless,
        out_of_sync: status.out_of_sync,
        unconfirmed: status.unconfirmed,
        uptime_ms: status.uptime_ms,
    };
    fb::Status::create(b, &args)
}

fn topic_outcome<'b>(
    b: &mut Builder<'b>,
    outcome: &Result<TopicSummary, Refusal>,
) -> WIPOffset<fb::TopicOutcome<'b>> {
    match outcome {
        Ok(topic) => {
            let name = b.create_string(&topic.name);
            let configs = tables(b, &topic.configs, |b, (name, value)| config(b, name, value));
            let args = fb::TopicOutcomeArgs {
                refusal: None,
                name: Some(name),
                id: Some(&topic_uuid(topic.id)),
                partitions: topic.partitions,
                replication_factor: topic.replication_factor,
                configs: Some(configs),
            };
            fb::TopicOutcome::create(b, &args)
        }
        Err(refusal) => {
            let refusal = Some(refusal_table(b, refusal));
            fb::TopicOutcome::create(
                b,
                &fb::TopicOutcomeArgs { refusal, ..fb::TopicOutcomeArgs::default() },
            )
        }
    }
}

fn refusal_table<'b>(b: &mut Builder<'b>, refusal: &Refusal) -> WIPOffset<fb::Refusal<'b>> {
    let message = b.create_string(&refusal.message);
    let subject = refusal.subject.as_deref().map(|subject| b.create_string(subject));
    let args = fb::RefusalArgs { code: refusal.code.number(), message: Some(message), subject };
    fb::Refusal::create(b, &args)
}

fn new_topic<'b>(b: &mut Builder<'b>, topic: &NewTopic) -> WIPOffset<fb::NewTopic<'b>> {
    let name = b.create_string(&topic.name);
    let configs = tables(b, &topic.configs, |b, (name, value)| config(b, name, value));
    let id = topic.id.map(topic_uuid);
    let (partitions, replication_factor, assignment) = match &topic.placement {
        Placement::Automatic { partitions, replication_factor } => {
            (partitions.unwrap_or(-1), replication_factor.unwrap_or(-1), None)
        }
        Placement::Explicit(assignment) => (-1, -1, Some(assignments(b, assignment))),
    };
    let args = fb::NewTopicArgs {
        name: Some(name),
        id: id.as_ref(),
        partitions,
        replication_factor,
        assignment,
        configs: Some(configs),
    };
    fb::NewTopic::create(b, &args)
}

fn topic_ref<'b>(b: &mut Builder<'b>, topic: &TopicRef) -> WIPOffset<fb::TopicRef<'b>> {
    match topic {
        TopicRef::Name(name) => {
            let name = Some(b.create_string(name));
            fb::TopicRef::create(b, &fb::TopicRefArgs { name, id: None })
        }
        TopicRef::Id(id) => {
            let id = topic_uuid(*id);
            fb::TopicRef::create(b, &fb::TopicRefArgs { name: None, id: Some(&id) })
        }
    }
}

fn new_partitions<'b>(
    b: &mut Builder<'b>,
    new: &NewPartitions,
) -> WIPOffset<fb::NewPartitions<'b>> {
    let topic = topic_ref(b, &new.topic);
    let assignment = new.assignment.as_ref().map(|assignment| assignments(b, assignment));
    let args = fb::NewPartitionsArgs { topic: Some(topic), total: new.total, assignment };
    fb::NewPartitions::create(b, &args)
}

fn config_alteration<'b>(
    b: &mut Builder<'b>,
    alteration: &ConfigAlteration,
) -> WIPOffset<fb::ConfigAlteration<'b>> {
    let changes = tables(b, &alteration.changes, |b, change: &ConfigChange| {
        let name = b.create_string(&change.name);
        let (op, value) = match &change.op {
            ConfigOp::Set(value) => (fb::ConfigOp::Set, Some(value)),
            ConfigOp::Delete => (fb::ConfigOp::Delete, None),
            ConfigOp::Append(value) => (fb::ConfigOp::Append, Some(value)),
            ConfigOp::Subtract(value) => (fb::ConfigOp::Subtract, Some(value)),
        };
        let value = value.map(|value| b.create_string(value));
        fb::ConfigChange::create(b, &fb::ConfigChangeArgs { name: Some(name), op, value })
    });
    let (topic, broker) = match &alteration.resource {
        ConfigResource::Topic(name) => (Some(b.create_string(name)), -1),
        ConfigResource::Broker(broker) => (None, broker.map_or(-1, |broker| broker.0)),
    };
    let args = fb::ConfigAlterationArgs {
        topic,
        broker,
        replace_all: alteration.kind == AlterKind::ReplaceAll,
        changes: Some(changes),
    };
    fb::ConfigAlteration::create(b, &args)
}

fn assignments<'b>(
    b: &mut Builder<'b>,
    assignment: &[Vec<BrokerId>],
) -> Tables<'b, fb::Assignment<'b>> {
    tables(b, assignment, |b, brokers| {
        let brokers = broker_ids(b, brokers);
        fb::Assignment::create(b, &fb::AssignmentArgs { brokers: Some(brokers) })
    })
}

pub(super) fn partition_refs<'b>(
    b: &mut Builder<'b>,
    partitions: &[PartitionId],
) -> WIPOffset<Vector<'b, fb::PartitionRef>> {
    let refs: Vec<_> = partitions
        .iter()
        .map(|partition| fb::PartitionRef::new(&topic_uuid(partition.topic), partition.index.0))
        .collect();
    b.create_vector(&refs)
}

fn image_table<'b>(b: &mut Builder<'b>, image: &ClusterImage) -> WIPOffset<fb::Image<'b>> {
    let brokers: Vec<_> = image.brokers().map(|broker| broker_table(b, broker)).collect();
    let brokers = b.create_vector(&brokers);
    let topics: Vec<_> = image.topics().map(|topic| topic_table(b, topic)).collect();
    let topics = b.create_vector(&topics);
    let args = fb::ImageArgs {
        cluster: Some(&uuid(image.cluster().0)),
        index: image.index(),
        brokers: Some(brokers),
        topics: Some(topics),
        next_producer_id: image.next_producer_id().0,
    };
    fb::Image::create(b, &args)
}

fn committed_table<'b>(b: &mut Builder<'b>, committed: &Committed) -> WIPOffset<fb::Committed<'b>> {
    let changes = tables(b, &committed.changes, change_table);
    let args = fb::CommittedArgs {
        previous: committed.previous,
        index: committed.index,
        changes: Some(changes),
    };
    fb::Committed::create(b, &args)
}

fn change_table<'b>(b: &mut Builder<'b>, change: &Change) -> WIPOffset<fb::Change<'b>> {
    let (body_type, body) = match change {
        Change::Broker(broker) => {
            let broker = Some(broker_table(b, broker));
            let table = fb::BrokerChanged::create(b, &fb::BrokerChangedArgs { broker });
            (fb::ChangeBody::BrokerChanged, table.as_union_value())
        }
        Change::TopicCreated(topic) => {
            let topic = Some(topic_table(b, topic));
            let table = fb::TopicCreated::create(b, &fb::TopicCreatedArgs { topic });
            (fb::ChangeBody::TopicCreated, table.as_union_value())
        }
        Change::TopicDeleted(id) => {
            let args = fb::TopicDeletedArgs { topic: Some(&topic_uuid(*id)) };
            let table = fb::TopicDeleted::create(b, &args);
            (fb::ChangeBody::TopicDeleted, table.as_union_value())
        }
        Change::TopicConfigured { topic, configs } => {
            let configs = Some(config_map(b, configs));
            let args = fb::TopicConfiguredArgs { topic: Some(&topic_uuid(*topic)), configs };
            let table = fb::TopicConfigured::create(b, &args);
            (fb::ChangeBody::TopicConfigured, table.as_union_value())
        }
        Change::Partitions { topic, partitions } => {
            let partitions = Some(tables(b, partitions, partition_table));
            let args = fb::PartitionsChangedArgs { topic: Some(&topic_uuid(*topic)), partitions };
            let table = fb::PartitionsChanged::create(b, &args);
            (fb::ChangeBody::PartitionsChanged, table.as_union_value())
        }
        Change::ProducerIds { next } => {
            let args = fb::ProducerIdsAllocatedArgs { next: next.0 };
            let table = fb::ProducerIdsAllocated::create(b, &args);
            (fb::ChangeBody::ProducerIdsAllocated, table.as_union_value())
        }
    };
    fb::Change::create(b, &fb::ChangeArgs { body_type, body: Some(body) })
}

fn broker_table<'b>(b: &mut Builder<'b>, broker: &BrokerImage) -> WIPOffset<fb::Broker<'b>> {
    let addresses = addresses(b, &broker.addresses);
    let rack = broker.rack.as_deref().map(|rack| b.create_string(rack));
    let args = fb::BrokerArgs {
        id: broker.id.0,
        epoch: broker.epoch.0,
        incarnation: Some(&uuid(broker.incarnation.0)),
        directory: Some(&uuid(broker.directory.0)),
        addresses: Some(addresses),
        rack,
        shards: broker.shards,
        state: broker_state(broker.state),
    };
    fb::Broker::create(b, &args)
}

fn topic_table<'b>(b: &mut Builder<'b>, topic: &TopicImage) -> WIPOffset<fb::Topic<'b>> {
    let name = b.create_string(topic.name.as_str());
    let configs = if topic.configs.is_empty() { None } else { Some(config_map(b, &topic.configs)) };
    let partitions = tables(b, &topic.partitions, partition_table);
    let args = fb::TopicArgs {
        id: Some(&topic_uuid(topic.id)),
        name: Some(name),
        configs,
        partitions: Some(partitions),
    };
    fb::Topic::create(b, &args)
}

fn partition_table<'b>(
    b: &mut Builder<'b>,
    partition: &PartitionImage,
) -> WIPOffset<fb::Partition<'b>> {
    let replicas: Vec<_> = partition
        .replicas
        .iter()
        .map(|replica| fb::Replica::new(replica.broker.0, replica.shard.0, replica.confirmed))
        .collect();
    let replicas = b.create_vector(&replicas);
    let isr = broker_ids(b, &partition.isr);
    let elr = if partition.elr.is_empty() { None } else { Some(broker_ids(b, &partition.elr)) };
    let args = fb::PartitionArgs {
        index: partition.index.0,
        replicas: Some(replicas),
        leader: partition.leader.map_or(-1, |leader| leader.0),
        leader_epoch: partition.leader_epoch.0,
        partition_epoch: partition.partition_epoch.0,
        isr: Some(isr),
        elr,
    };
    fb::Partition::create(b, &args)
}

pub(super) fn addresses<'b>(
    b: &mut Builder<'b>,
    addresses: &[Address],
) -> Tables<'b, fb::Address<'b>> {
    tables(b, addresses, |b, address: &Address| {
        let listener = Some(b.create_string(&address.listener));
        let host = Some(b.create_string(&address.host));
        fb::Address::create(b, &fb::AddressArgs { listener, host, port: address.port })
    })
}

pub(super) fn config_map<'b>(
    b: &mut Builder<'b>,
    configs: &BTreeMap<String, String>,
) -> Tables<'b, fb::Config<'b>> {
    let configs: Vec<_> = configs.iter().map(|(name, value)| config(b, name, value)).collect();
    b.create_vector(&configs)
}

fn config<'b>(b: &mut Builder<'b>, name: &str, value: &str) -> WIPOffset<fb::Config<'b>> {
    let name = Some(b.create_string(name));
    let value = Some(b.create_string(value));
    fb::Config::create(b, &fb::ConfigArgs { name, value })
}

fn broker_ids<'b>(b: &mut Builder<'b>, brokers: &[BrokerId]) -> WIPOffset<Vector<'b, i32>> {
    let ids: Vec<i32> = brokers.iter().map(|broker| broker.0).collect();
    b.create_vector(&ids)
}

/// A vector of tables, one per item.
pub(super) fn tables<'b, T, F: 'b>(
    b: &mut Builder<'b>,
    items: &[T],
    mut table: impl FnMut(&mut Builder<'b>, &T) -> WIPOffset<F>,
) -> Tables<'b, F> {
    let offsets: Vec<_> = items.iter().map(|item| table(b, item)).collect();
    b.create_vector(&offsets)
}

pub(super) fn broker_state(state: BrokerState) -> fb::BrokerState {
    match state {
        BrokerState::Fenced => fb::BrokerState::Fenced,
        BrokerState::Active => fb::BrokerState::Active,
        BrokerState::Draining => fb::BrokerState::Draining,
    }
}

pub(super) fn uuid(bytes: [u8; 16]) -> fb::Uuid {
    fb::Uuid::new(&bytes)
}

pub(super) fn topic_uuid(id: TopicId) -> fb::Uuid {
    uuid(id.0)
}
