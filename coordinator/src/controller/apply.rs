//! Commands to changes: the same everywhere and for ever. `[P]`
//!
//! No limit, no clock, no choice that is not a function of image and command. A command that does
//! not fit the image (any more) is refused and changes nothing; it stays in the log and is refused
//! again by everyone who reads it.

use std::collections::BTreeMap;

use levada_protocol::cluster::command::{Command, PlacedReplica};
use levada_protocol::cluster::request::{LastStop, Register};
use levada_protocol::cluster::{
    BrokerEpoch, BrokerImage, BrokerState, Change, ClusterImage, PartitionEpoch, PartitionImage,
    Refusal, RefusalCode, ReplicaImage, TopicImage,
};
use levada_record::epoch::LeaderEpoch;
use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ProducerId, TopicId};

use super::elect::{self, Departure, ElectionRules};
use super::place::Loads;
use super::plan::check_epoch;

/// What `command`, committed at `index`, changes in `image`.
///
/// # Errors
/// A [`Refusal`] when it does not fit the image; nothing changes then.
pub fn apply(image: &ClusterImage, index: u64, command: &Command) -> Result<Vec<Change>, Refusal> {
    match command {
        Command::RegisterBroker { broker, register } => {
            Ok(register_broker(image, index, *broker, register))
        }
        Command::SetBrokerState { broker, epoch, state } => {
            let known = check_epoch(image, *broker, *epoch)?;
            Ok(set_broker_state(image, known, *state))
        }
        Command::CreateTopic { id, name, configs, partitions } => {
            if image.topic(*id).is_some() || image.topic_named(name.as_str()).is_some() {
                let message = format!("topic {name} exists already");
                return Err(Refusal::new(RefusalCode::TopicExists, message));
            }
            let rules = ElectionRules::of(configs);
            let topic = TopicImage {
                id: *id,
                name: name.clone(),
                configs: configs.clone(),
                partitions: new_partitions(image, 0, partitions, rules)?,
            };
            Ok(vec![Change::TopicCreated(topic)])
        }
        Command::DeleteTopic { id } => {
            find_topic(image, *id)?;
            Ok(vec![Change::TopicDeleted(*id)])
        }
        Command::AddPartitions { id, first, partitions } => {
            let topic = find_topic(image, *id)?;
            if i32::try_from(topic.partitions.len()) != Ok(first.0) {
                return Err(Refusal::new(
                    RefusalCode::InvalidPartitions,
                    format!("topic {} has {} partitions", topic.name, topic.partitions.len()),
                ));
            }
            let rules = ElectionRules::of(&topic.configs);
            let partitions = new_partitions(image, first.0, partitions, rules)?;
            Ok(vec![Change::Partitions { topic: *id, partitions }])
        }
        Command::ConfigureTopic { id, configs } => {
            let topic = find_topic(image, *id)?;
            Ok(configure_topic(topic, configs))
        }
        Command::AllocateProducerIds { broker, epoch, count } => {
            check_epoch(image, *broker, *epoch)?;
            let first = image.next_producer_id().0;
            let next = first.checked_add(i64::from(*count)).ok_or_else(|| {
                Refusal::new(RefusalCode::LimitReached, "no producer ids are left")
            })?;
            Ok(vec![Change::ProducerIds { next: ProducerId(next) }])
        }
        Command::ConfirmReplicas { broker, epoch, partitions } => {
            check_epoch(image, *broker, *epoch)?;
            Ok(confirm_replicas(image, *broker, partitions))
        }
    }
}

fn find_topic(image: &ClusterImage, id: TopicId) -> Result<&TopicImage, Refusal> {
    image
        .topic(id)
        .map(|topic| &**topic)
        .ok_or_else(|| Refusal::new(RefusalCode::UnknownTopic, format!("no topic has the id {id}")))
}

/// Whether `broker` may become a leader.
fn may_lead(image: &ClusterImage, broker: BrokerId) -> bool {
    image.broker(broker).is_some_and(|broker| broker.state == BrokerState::Active)
}

fn new_partitions(
    image: &ClusterImage,
    first: i32,
    placed: &[Vec<PlacedReplica>],
    rules: ElectionRules,
) -> Result<Vec<PartitionImage>, Refusal> {
    let invalid = |message| Err(Refusal::new(RefusalCode::InvalidReplicaAssignment, message));
    let mut partitions = Vec::with_capacity(placed.len());
    for (index, placed) in (first..).zip(placed) {
        if placed.is_empty() {
            return invalid(format!("partition {index} has no replica"));
        }
        let mut replicas: Vec<ReplicaImage> = Vec::with_capacity(placed.len());
        for PlacedReplica { broker, shard } in placed.iter().copied() {
            let known = image.broker(broker);
            if known.is_none_or(|known| known.shards <= shard.0) {
                return invalid(format!(
                    "partition {index} is placed on shard {shard} of broker {broker}, \
                     which is not there"
                ));
            }
            if replicas.iter().any(|other| other.broker == broker) {
                return invalid(format!("partition {index} is placed on broker {broker} twice"));
            }
            replicas.push(ReplicaImage { broker, shard, confirmed: false });
        }
        let mut partition = PartitionImage {
            index: PartitionIndex(index),
            replicas,
            leader: None,
            leader_epoch: LeaderEpoch::ZERO,
            partition_epoch: PartitionEpoch(0),
            isr: Vec::new(),
            elr: Vec::new(),
        };
        elect::begin(&mut partition, rules, |broker| may_lead(image, broker));
        partitions.push(partition);
    }
    Ok(partitions)
}

fn register_broker(
    image: &ClusterImage,
    index: u64,
    id: BrokerId,
    register: &Register,
) -> Vec<Change> {
    let broker = BrokerImage {
        id,
        epoch: BrokerEpoch(i64::try_from(index).unwrap_or(i64::MAX)),
        incarnation: register.incarnation,
        directory: register.directory,
        addresses: register.addresses.clone(),
        rack: register.rack.clone(),
        shards: register.shards,
        state: BrokerState::Fenced,
    };
    let departure = match image.broker(id) {
        // The same process again: it knows what it acknowledged.
        Some(known) if known.incarnation == register.incarnation => Departure::RecordsKept,
        _ if register.last_stop == LastStop::Clean => Departure::RecordsKept,
        _ => Departure::Unclean,
    };
    let mut loads = Loads::without_orphans(image, &broker);
    let mut changes = vec![Change::Broker(broker)];
    each_partition(image, &mut changes, |topic, partition| {
        let rules = ElectionRules::of(&topic.configs);
        let fenced = elect::without_broker(partition, id, departure, rules, |broker| {
            broker != id && may_lead(image, broker)
        });
        let moved = move_orphan(fenced.as_ref().unwrap_or(partition), id, register, &mut loads);
        moved.or(fenced)
    });
    changes
}

/// Places a replica anew whose shard is no more. A partition changes its shard only here, at a start
/// of its broker.
fn move_orphan(
    partition: &PartitionImage,
    broker: BrokerId,
    register: &Register,
    loads: &mut Loads,
) -> Option<PartitionImage> {
    let position = partition
        .replicas
        .iter()
        .position(|replica| replica.broker == broker && register.shards <= replica.shard.0)?;
    let shard = loads.least_loaded_shard(broker)?;
    loads.count(broker, shard, position);
    let mut moved = partition.clone();
    moved.replicas.get_mut(position)?.shard = shard;
    moved.leader_epoch = moved.leader_epoch.next();
    moved.partition_epoch = moved.partition_epoch.next();
    Some(moved)
}

fn set_broker_state(image: &ClusterImage, known: &BrokerImage, state: BrokerState) -> Vec<Change> {
    if known.state == state {
        return Vec::new();
    }
    let id = known.id;
    let mut changes = vec![Change::Broker(BrokerImage { state, ..known.clone() })];
    each_partition(image, &mut changes, |topic, partition| {
        let rules = ElectionRules::of(&topic.configs);
        match state {
            BrokerState::Active => {
                partition.replica_on(id)?;
                elect::with_candidates(partition, rules, |broker| {
                    broker == id || may_lead(image, broker)
                })
            }
            BrokerState::Draining => elect::without_draining(partition, id, rules, |broker| {
                broker != id && may_lead(image, broker)
            }),
            BrokerState::Fenced => {
                let departure = Departure::RecordsKept;
                elect::without_broker(partition, id, departure, rules, |broker| {
                    broker != id && may_lead(image, broker)
                })
            }
        }
    });
    changes
}

fn configure_topic(topic: &TopicImage, configs: &BTreeMap<String, String>) -> Vec<Change> {
    if topic.configs == *configs {
        return Vec::new();
    }
    let rules = ElectionRules::of(configs);
    let mut changes = vec![Change::TopicConfigured { topic: topic.id, configs: configs.clone() }];
    push_partitions(topic, &mut changes, |partition| elect::with_rules(partition, rules));
    changes
}

fn confirm_replicas(
    image: &ClusterImage,
    broker: BrokerId,
    partitions: &[PartitionId],
) -> Vec<Change> {
    let mut by_topic: BTreeMap<TopicId, BTreeMap<PartitionIndex, PartitionImage>> = BTreeMap::new();
    for id in partitions {
        let Some(partition) = image.partition(*id) else { continue };
        let mut confirmed = partition.clone();
        let Some(replica) = confirmed.replicas.iter_mut().find(|replica| replica.broker == broker)
        else {
            continue;
        };
        if !replica.confirmed {
            replica.confirmed = true;
            confirmed.partition_epoch = partition.partition_epoch.next();
            by_topic.entry(id.topic).or_default().insert(id.index, confirmed);
        }
    }
    by_topic
        .into_iter()
        .map(|(topic, partitions)| Change::Partitions {
            topic,
            partitions: partitions.into_values().collect(),
        })
        .collect()
}

fn each_partition(
    image: &ClusterImage,
    changes: &mut Vec<Change>,
    mut next: impl FnMut(&TopicImage, &PartitionImage) -> Option<PartitionImage>,
) {
    for topic in image.topics() {
        push_partitions(topic, changes, |partition| next(topic, partition));
    }
}

fn push_partitions(
    topic: &TopicImage,
    changes: &mut Vec<Change>,
    next: impl FnMut(&PartitionImage) -> Option<PartitionImage>,
) {
    let partitions: Vec<_> = topic.partitions.iter().filter_map(next).collect();
    if !partitions.is_empty() {
        changes.push(Change::Partitions { topic: topic.id, partitions });
    }
}
