//! Any message at all, for property tests.

use std::collections::BTreeMap;

use levada_record::epoch::LeaderEpoch;
use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ProducerId, ShardIndex, TopicId};
use levada_record::name::TopicName;
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

use crate::cluster::command::{Command, PlacedReplica};
use crate::cluster::reply::{
    BrokerStatus, HeartbeatAck, Leave, Member, MemberRole, Outcomes, ProducerIdBlock, Registered,
    Status, TopicOutcomes, TopicSummary,
};
use crate::cluster::request::{
    AlterConfigs, AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource,
    CreatePartitions, CreateTopics, Heartbeat, LastStop, Mode, NewPartitions, NewTopic, Placement,
    Register, TopicRef, Wish,
};
use crate::cluster::*;

fn broker_id() -> impl Strategy<Value = BrokerId> {
    (0..=i32::MAX).prop_map(BrokerId)
}

fn broker_epoch() -> impl Strategy<Value = BrokerEpoch> {
    any::<i64>().prop_map(BrokerEpoch)
}

fn topic_id() -> impl Strategy<Value = TopicId> {
    any::<[u8; 16]>().prop_map(TopicId)
}

fn topic_name() -> impl Strategy<Value = TopicName> {
    "[a-zA-Z0-9_-]{1,40}".prop_map(|name| TopicName::new(&name).unwrap())
}

fn partition_id() -> impl Strategy<Value = PartitionId> {
    (topic_id(), 0..=i32::MAX)
        .prop_map(|(topic, index)| PartitionId { topic, index: PartitionIndex(index) })
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let address = (".{0,10}", ".{0,20}", any::<u16>());
    vec(address.prop_map(|(listener, host, port)| Address { listener, host, port }), 0..3)
}

fn state() -> impl Strategy<Value = BrokerState> {
    prop_oneof![Just(BrokerState::Fenced), Just(BrokerState::Active), Just(BrokerState::Draining)]
}

fn config_map() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map(".{0,10}", ".{0,10}", 0..3)
}

fn config_list() -> impl Strategy<Value = Vec<(String, String)>> {
    vec((".{0,10}", ".{0,10}"), 0..3)
}

fn broker_image() -> impl Strategy<Value = BrokerImage> {
    (
        broker_id(),
        broker_epoch(),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        addresses(),
        option::of(".{0,10}"),
        any::<u16>(),
        state(),
    )
        .prop_map(|(id, epoch, incarnation, directory, addresses, rack, shards, state)| {
            BrokerImage {
                id,
                epoch,
                incarnation: Incarnation(incarnation),
                directory: DirectoryId(directory),
                addresses,
                rack,
                shards,
                state,
            }
        })
}

fn partition_image() -> impl Strategy<Value = PartitionImage> {
    let replica =
        (broker_id(), any::<u16>(), any::<bool>()).prop_map(|(broker, shard, confirmed)| {
            ReplicaImage { broker, shard: ShardIndex(shard), confirmed }
        });
    (
        0..=i32::MAX,
        vec(replica, 0..4),
        option::of(broker_id()),
        0..=i32::MAX,
        0..=i32::MAX,
        vec(broker_id(), 0..4),
        vec(broker_id(), 0..4),
    )
        .prop_map(|(index, replicas, leader, leader_epoch, partition_epoch, isr, elr)| {
            PartitionImage {
                index: PartitionIndex(index),
                replicas,
                leader,
                leader_epoch: LeaderEpoch(leader_epoch),
                partition_epoch: PartitionEpoch(partition_epoch),
                isr,
                elr,
            }
        })
}

fn topic_image() -> impl Strategy<Value = TopicImage> {
    (topic_id(), topic_name(), config_map(), vec(partition_image(), 0..4)).prop_map(
        |(id, name, configs, mut partitions)| {
            for (index, partition) in (0..).zip(&mut partitions) {
                partition.index = PartitionIndex(index);
            }
            TopicImage { id, name, configs, partitions }
        },
    )
}

/// Any image whose parts agree.
pub(super) fn image() -> impl Strategy<Value = ClusterImage> {
    (
        any::<[u8; 16]>(),
        any::<u64>(),
        vec(broker_image(), 0..4),
        vec(topic_image(), 0..4),
        0..=i64::MAX,
    )
        .prop_map(|(cluster, index, brokers, topics, next)| {
            let topics: BTreeMap<_, _> =
                topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
            let topics: BTreeMap<_, _> =
                topics.into_values().map(|topic| (topic.id, topic)).collect();
            ClusterImage::from_parts(
                ClusterId(cluster),
                index,
                brokers,
                topics.into_values().collect(),
                ProducerId(next),
            )
            .unwrap()
        })
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        broker_image().prop_map(Change::Broker),
        topic_image().prop_map(Change::TopicCreated),
        topic_id().prop_map(Change::TopicDeleted),
        (topic_id(), config_map())
            .prop_map(|(topic, configs)| Change::TopicConfigured { topic, configs }),
        (topic_id(), vec(partition_image(), 0..4))
            .prop_map(|(topic, partitions)| Change::Partitions { topic, partitions }),
        (0..=i64::MAX).prop_map(|next| Change::ProducerIds { next: ProducerId(next) }),
    ]
}

fn register() -> impl Strategy<Value = Register> {
    (
        option::of(broker_id()),
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        addresses(),
        option::of(".{0,10}"),
        any::<u16>(),
        prop_oneof![Just(LastStop::Clean), Just(LastStop::Unclean)],
    )
        .prop_map(|(broker, incarnation, directory, addresses, rack, shards, last_stop)| {
            Register {
                broker,
                incarnation: Incarnation(incarnation),
                directory: DirectoryId(directory),
                addresses,
                rack,
                shards,
                last_stop,
            }
        })
}

fn mode() -> impl Strategy<Value = Mode> {
    prop_oneof![Just(Mode::Execute), Just(Mode::ValidateOnly)]
}

fn assignment() -> impl Strategy<Value = Vec<Vec<BrokerId>>> {
    vec(vec(broker_id(), 0..4), 0..4)
}

fn topic_ref() -> impl Strategy<Value = TopicRef> {
    prop_oneof![".{0,20}".prop_map(TopicRef::Name), topic_id().prop_map(TopicRef::Id)]
}

fn new_topic() -> impl Strategy<Value = NewTopic> {
    let placement = prop_oneof![
        (option::of(0..=i32::MAX), option::of(0..=i32::MAX)).prop_map(
            |(partitions, replication_factor)| Placement::Automatic {
                partitions,
                replication_factor
            }
        ),
        assignment().prop_map(Placement::Explicit),
    ];
    (".{0,20}", option::of(topic_id()), placement, config_list())
        .prop_map(|(name, id, placement, configs)| NewTopic { name, id, placement, configs })
}

fn config_alteration() -> impl Strategy<Value = ConfigAlteration> {
    let op = prop_oneof![
        ".{0,10}".prop_map(ConfigOp::Set),
        Just(ConfigOp::Delete),
        ".{0,10}".prop_map(ConfigOp::Append),
        ".{0,10}".prop_map(ConfigOp::Subtract),
    ];
    let change = (".{0,10}", op).prop_map(|(name, op)| ConfigChange { name, op });
    let resource = prop_oneof![
        ".{0,10}".prop_map(ConfigResource::Topic),
        option::of(broker_id()).prop_map(ConfigResource::Broker),
    ];
    let kind = prop_oneof![Just(AlterKind::Incremental), Just(AlterKind::ReplaceAll)];
    (resource, kind, vec(change, 0..4)).prop_map(|(resource, kind, changes)| ConfigAlteration {
        resource,
        kind,
        changes,
    })
}

fn request() -> impl Strategy<Value = Request> {
    let new_partitions = (topic_ref(), any::<i32>(), option::of(assignment()))
        .prop_map(|(topic, total, assignment)| NewPartitions { topic, total, assignment });
    let heartbeat = (broker_id(), broker_epoch(), any::<u64>(), any::<bool>()).prop_map(
        |(broker, epoch, seen_index, stop)| {
            let wish = if stop { Wish::Stop } else { Wish::Serve };
            Heartbeat { broker, epoch, seen_index, wish }
        },
    );
    prop_oneof![
        register().prop_map(Request::Register),
        heartbeat.prop_map(Request::Heartbeat),
        any::<u64>().prop_map(|from_index| Request::Subscribe { from_index }),
        (vec(new_topic(), 0..4), mode())
            .prop_map(|(topics, mode)| Request::CreateTopics(CreateTopics { topics, mode })),
        vec(topic_ref(), 0..4).prop_map(|topics| Request::DeleteTopics { topics }),
        (vec(new_partitions, 0..4), mode()).prop_map(|(topics, mode)| Request::CreatePartitions(
            CreatePartitions { topics, mode }
        )),
        (vec(config_alteration(), 0..4), mode())
            .prop_map(|(resources, mode)| Request::AlterConfigs(AlterConfigs { resources, mode })),
        (broker_id(), broker_epoch())
            .prop_map(|(broker, epoch)| Request::AllocateProducerIds { broker, epoch }),
        (broker_id(), broker_epoch(), vec(partition_id(), 0..4)).prop_map(
            |(broker, epoch, partitions)| Request::ConfirmReplicas { broker, epoch, partitions }
        ),
        Just(Request::Status),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (prop::sample::select(RefusalCode::ALL), ".{0,30}", option::of(".{0,10}"))
        .prop_map(|(code, message, subject)| Refusal { code, message, subject })
}

fn status() -> impl Strategy<Value = Status> {
    let member = (any::<i32>(), ".{0,20}", any::<bool>()).prop_map(|(id, address, controller)| {
        let role = if controller { MemberRole::Controller } else { MemberRole::Follower };
        Member { id, address, role }
    });
    let age = 0..=u64::try_from(i64::MAX).unwrap();
    let broker = (broker_image(), option::of(age), any::<u64>(), any::<u32>(), any::<u32>())
        .prop_map(|(broker, lease_age_ms, seen_index, replicas, leaders)| BrokerStatus {
            broker,
            lease_age_ms,
            seen_index,
            replicas,
            leaders,
        });
    (
        any::<[u8; 16]>(),
        option::of(".{0,10}"),
        vec(member, 0..3),
        vec(broker, 0..3),
        any::<[u64; 5]>(),
        any::<[u32; 5]>(),
    )
        .prop_map(|(cluster, cluster_name, members, brokers, long, short)| Status {
            cluster: ClusterId(cluster),
            cluster_name,
            controller: 3,
            term: long[0],
            members,
            index: long[1],
            snapshot_index: long[2],
            log_bytes: long[3],
            brokers,
            topics: short[0],
            partitions: short[1],
            leaderless: short[2],
            out_of_sync: short[3],
            unconfirmed: short[4],
            uptime_ms: long[4],
        })
}

fn reply() -> impl Strategy<Value = Reply> {
    let summary = (".{0,10}", topic_id(), any::<i32>(), any::<i32>(), config_list()).prop_map(
        |(name, id, partitions, replication_factor, configs)| TopicSummary {
            name,
            id,
            partitions,
            replication_factor,
            configs,
        },
    );
    let summary = prop_oneof![summary.prop_map(Ok), refusal().prop_map(Err)];
    let outcome = prop_oneof![Just(Ok(())), refusal().prop_map(Err)];
    prop_oneof![
        refusal().prop_map(Reply::Refused),
        (broker_id(), broker_epoch(), any::<[u8; 16]>(), any::<u64>()).prop_map(
            |(broker, epoch, cluster, index)| Reply::Registered(Registered {
                broker,
                epoch,
                cluster: ClusterId(cluster),
                index
            })
        ),
        (state(), any::<bool>(), any::<u64>()).prop_map(|(state, may_stop, index)| {
            let leave = if may_stop { Leave::Now } else { Leave::NotYet };
            Reply::Heartbeat(HeartbeatAck { state, leave, index })
        }),
        any::<u64>().prop_map(|index| Reply::Subscribed { index }),
        (any::<u64>(), vec(summary, 0..4))
            .prop_map(|(index, outcomes)| Reply::Topics(TopicOutcomes { index, outcomes })),
        (any::<u64>(), vec(outcome, 0..4))
            .prop_map(|(index, outcomes)| Reply::Outcomes(Outcomes { index, outcomes })),
        (0..=i64::MAX, any::<i32>()).prop_map(|(first, count)| Reply::ProducerIds(
            ProducerIdBlock { first: ProducerId(first), count }
        )),
        any::<u64>().prop_map(|index| Reply::Confirmed { index }),
        status().prop_map(|status| Reply::Status(Box::new(status))),
    ]
}

/// Any message.
pub(super) fn message() -> impl Strategy<Value = Message> {
    let committed =
        (any::<u64>(), any::<u64>(), vec(change(), 0..4)).prop_map(|(previous, index, changes)| {
            Push::Changes(Committed { previous, index, changes })
        });
    prop_oneof![
        4 => request().prop_map(Message::Request),
        4 => reply().prop_map(Message::Reply),
        1 => image().prop_map(|image| Message::Push(Push::Image(Box::new(image)))),
        2 => committed.prop_map(Message::Push),
    ]
}

/// Any frame.
pub(super) fn envelope() -> impl Strategy<Value = Envelope> {
    (option::of(any::<[u8; 16]>()), any::<u64>(), message()).prop_map(
        |(cluster, request_id, message)| Envelope {
            cluster: cluster.map(ClusterId).filter(|cluster| !cluster.is_nil()),
            request_id,
            message,
        },
    )
}

fn placed() -> impl Strategy<Value = Vec<Vec<PlacedReplica>>> {
    let replica = (broker_id(), any::<u16>())
        .prop_map(|(broker, shard)| PlacedReplica { broker, shard: ShardIndex(shard) });
    vec(vec(replica, 0..4), 0..4)
}

/// Any command.
pub(super) fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        (broker_id(), register()).prop_map(|(broker, register)| Command::RegisterBroker {
            broker,
            register: Register { broker: Some(broker), ..register },
        }),
        (broker_id(), broker_epoch(), state())
            .prop_map(|(broker, epoch, state)| Command::SetBrokerState { broker, epoch, state }),
        (topic_id(), topic_name(), config_map(), placed()).prop_map(
            |(id, name, configs, partitions)| Command::CreateTopic {
                id,
                name,
                configs,
                partitions
            }
        ),
        topic_id().prop_map(|id| Command::DeleteTopic { id }),
        (topic_id(), 0..=i32::MAX, placed()).prop_map(|(id, first, partitions)| {
            Command::AddPartitions { id, first: PartitionIndex(first), partitions }
        }),
        (topic_id(), config_map())
            .prop_map(|(id, configs)| Command::ConfigureTopic { id, configs }),
        (broker_id(), broker_epoch(), 1..=i32::MAX).prop_map(|(broker, epoch, count)| {
            Command::AllocateProducerIds { broker, epoch, count }
        }),
        (broker_id(), broker_epoch(), vec(partition_id(), 0..4)).prop_map(
            |(broker, epoch, partitions)| Command::ConfirmReplicas { broker, epoch, partitions }
        ),
    ]
}
