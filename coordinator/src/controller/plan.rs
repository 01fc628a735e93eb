//! Requests to commands: everything is checked and every choice made here. `[P]`
//!
//! A [`Plan`] serves one request. It knows what the request's earlier items would add, so a limit is
//! reached exactly, whatever the number of items; randomness is handed in.

use std::collections::BTreeSet;

use levada_protocol::cluster::command::{Command, PlacedReplica};
use levada_protocol::cluster::reply::TopicSummary;
use levada_protocol::cluster::request::{
    ConfigAlteration, ConfigResource, NewPartitions, NewTopic, Placement, Register, TopicRef,
};
use levada_protocol::cluster::{
    BrokerEpoch, BrokerImage, BrokerState, ClusterImage, Refusal, RefusalCode, TopicImage,
};
use levada_record::id::{BrokerId, PartitionIndex, TopicId};
use levada_record::name::TopicName;

use super::place::Loads;
use super::policy::{
    ADDRESSES_MAX, BROKERS_MAX, HOST_BYTES_MAX, LISTENER_BYTES_MAX, Policy, RACK_BYTES_MAX,
    SHARDS_MAX,
};
use super::settings;

/// The planning of one request.
#[derive(Debug)]
pub struct Plan<'a> {
    image: &'a ClusterImage,
    policy: &'a Policy,
    loads: Loads,
    new_names: BTreeSet<TopicName>,
    /// Topics that an earlier item changes.
    changed: BTreeSet<TopicId>,
    new_topics: usize,
    new_partitions: usize,
    new_weight_bytes: usize,
}

impl<'a> Plan<'a> {
    /// Plans on top of `image`, which must show everything that was proposed before. O(replicas).
    pub fn new(image: &'a ClusterImage, policy: &'a Policy) -> Self {
        Self {
            image,
            policy,
            loads: Loads::of(image),
            new_names: BTreeSet::new(),
            changed: BTreeSet::new(),
            new_topics: 0,
            new_partitions: 0,
            new_weight_bytes: 0,
        }
    }

    /// Plans a topic. `random_id` becomes its id unless the request names one.
    ///
    /// # Errors
    /// The refusal that the asker gets.
    pub fn create_topic(
        &mut self,
        topic: &NewTopic,
        random_id: TopicId,
    ) -> Result<(Command, TopicSummary), Refusal> {
        let name = self.free_name(&topic.name)?;
        let id = topic.id.unwrap_or(random_id);
        if id.is_zero() || self.image.topic(id).is_some() {
            return Err(Refusal::new(
                RefusalCode::InvalidRequest,
                format!("topic id {id} cannot be used: it is zero or another topic's"),
            ));
        }
        let (partition_count, replicas) = self.shape(&topic.placement)?;
        let given = topic.configs.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let replicas_u32 = u32::try_from(replicas).unwrap_or(u32::MAX);
        let configs = settings::checked(given, replicas_u32)?;
        self.check_room(1, partition_count)?;
        let mut loads = self.loads.clone();
        let partitions: Vec<Vec<PlacedReplica>> = match &topic.placement {
            Placement::Explicit(assignment) => {
                assignment.iter().map(|brokers| loads.assign(brokers)).collect()
            }
            Placement::Automatic { .. } => {
                (0..partition_count).map(|_| loads.place(replicas)).collect()
            }
        };
        let weight_bytes = topic_weight_bytes(&name, &configs, &partitions);
        self.check_weight(weight_bytes)?;
        self.loads = loads;
        self.new_names.insert(name.clone());
        self.new_topics += 1;
        self.new_partitions += partition_count;
        self.new_weight_bytes += weight_bytes;
        let summary = TopicSummary {
            name: name.to_string(),
            id,
            partitions: i32::try_from(partition_count).unwrap_or(i32::MAX),
            replication_factor: i32::try_from(replicas).unwrap_or(i32::MAX),
            configs: configs.clone().into_iter().collect(),
        };
        Ok((Command::CreateTopic { id, name, configs, partitions }, summary))
    }

    /// Plans the end of a topic.
    ///
    /// # Errors
    /// The refusal that the asker gets.
    pub fn delete_topic(&self, topic: &TopicRef) -> Result<(Command, TopicSummary), Refusal> {
        let topic = self.find(topic)?;
        Ok((Command::DeleteTopic { id: topic.id }, summary(topic)))
    }

    /// Plans more partitions.
    ///
    /// # Errors
    /// The refusal that the asker gets.
    pub fn create_partitions(&mut self, new: &NewPartitions) -> Result<Command, Refusal> {
        let topic = self.find(&new.topic)?;
        self.check_once(topic)?;
        let invalid = |message| Err(Refusal::new(RefusalCode::InvalidPartitions, message));
        let have = topic.partitions.len();
        let name = &topic.name;
        let Some(added) = usize::try_from(new.total).ok().and_then(|total| total.checked_sub(have))
        else {
            return invalid(format!(
                "topic {name} has {have} partitions, which cannot become {}: none is ever removed",
                new.total
            ));
        };
        if added == 0 {
            return invalid(format!("topic {name} has {have} partitions already"));
        }
        self.check_topic_partitions(have.saturating_add(added))?;
        self.check_room(0, added)?;
        let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        let mut loads = self.loads.clone();
        let partitions: Vec<Vec<PlacedReplica>> = match &new.assignment {
            Some(assignment) if assignment.len() != added => {
                return Err(Refusal::new(
                    RefusalCode::InvalidReplicaAssignment,
                    format!("{added} partitions are new, {} are assigned", assignment.len()),
                ));
            }
            Some(assignment) => {
                if self.check_assignment(assignment)? != replicas {
                    return Err(Refusal::new(
                        RefusalCode::InvalidReplicaAssignment,
                        format!("every partition of topic {name} has {replicas} replicas"),
                    ));
                }
                assignment.iter().map(|brokers| loads.assign(brokers)).collect()
            }
            None => {
                self.check_replication(replicas)?;
                (0..added).map(|_| loads.place(replicas)).collect()
            }
        };
        let weight_bytes = partitions.iter().map(|replicas| partition_weight(replicas)).sum();
        self.check_weight(weight_bytes)?;
        self.loads = loads;
        self.new_partitions += added;
        self.new_weight_bytes += weight_bytes;
        let first = PartitionIndex(i32::try_from(have).unwrap_or(i32::MAX));
        Ok(Command::AddPartitions { id: topic.id, first, partitions })
    }

    /// Plans other settings; `None` when they are as they shall be.
    ///
    /// # Errors
    /// The refusal that the asker gets.
    pub fn alter_configs(
        &mut self,
        alteration: &ConfigAlteration,
    ) -> Result<Option<Command>, Refusal> {
        let topic = match &alteration.resource {
            ConfigResource::Topic(name) => self.find_named(name)?,
            ConfigResource::Broker(broker) => return self.alter_broker(*broker, alteration),
        };
        self.check_once(topic)?;
        let replicas = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
        let configs =
            settings::altered(&topic.configs, alteration.kind, &alteration.changes, replicas)?;
        if configs == topic.configs {
            return Ok(None);
        }
        let weight = |configs: &settings::Settings| -> usize {
            configs.iter().map(|(name, value)| 48 + name.len() + value.len()).sum()
        };
        let grown_bytes = weight(&configs).saturating_sub(weight(&topic.configs));
        self.check_weight(grown_bytes)?;
        self.new_weight_bytes += grown_bytes;
        Ok(Some(Command::ConfigureTopic { id: topic.id, configs }))
    }

    fn alter_broker(
        &self,
        broker: Option<BrokerId>,
        alteration: &ConfigAlteration,
    ) -> Result<Option<Command>, Refusal> {
        if let Some(broker) = broker {
            find_broker(self.image, broker)?;
        }
        match alteration.changes.first() {
            None => Ok(None),
            Some(change) => {
                let name: String = change.name.chars().take(128).collect();
                let message = format!(
                    "broker setting {name:?} cannot be changed while brokers run: \
                     set it in their configuration files"
                );
                Err(Refusal::new(RefusalCode::InvalidConfig, message).about(name))
            }
        }
    }

    /// Number of partitions, and of replicas of each.
    fn shape(&self, placement: &Placement) -> Result<(usize, usize), Refusal> {
        match placement {
            Placement::Explicit(assignment) => {
                self.check_topic_partitions(assignment.len())?;
                Ok((assignment.len(), self.check_assignment(assignment)?))
            }
            Placement::Automatic { partitions, replication_factor } => {
                let partitions = partitions.unwrap_or(self.policy.default_partitions);
                let Ok(partition_count) = usize::try_from(partitions) else {
                    return Err(Refusal::new(
                        RefusalCode::InvalidPartitions,
                        format!("a topic cannot have {partitions} partitions: at least 1"),
                    ));
                };
                self.check_topic_partitions(partition_count)?;
                let live = self.loads.live_count();
                let replicas = match replication_factor {
                    Some(replicas) => usize::try_from(*replicas).unwrap_or(0),
                    None => usize::try_from(self.policy.default_replication_factor)
                        .unwrap_or(1)
                        .min(live)
                        .max(1),
                };
                if replicas == 0 {
                    return Err(Refusal::new(
                        RefusalCode::InvalidReplicationFactor,
                        "the replication factor must be at least 1",
                    ));
                }
                self.check_replication(replicas)?;
                Ok((partition_count, replicas))
            }
        }
    }

    fn check_topic_partitions(&self, partitions: usize) -> Result<(), Refusal> {
        let max = self.policy.max_partitions_per_topic;
        if partitions == 0 || max < partitions {
            return Err(Refusal::new(
                RefusalCode::InvalidPartitions,
                format!("a topic cannot have {partitions} partitions: 1 to {max} are possible"),
            ));
        }
        Ok(())
    }

    fn check_replication(&self, replicas: usize) -> Result<(), Refusal> {
        let live = self.loads.live_count();
        if live < replicas {
            return Err(Refusal::new(
                RefusalCode::InvalidReplicationFactor,
                format!("replication factor {replicas} exceeds the {live} live brokers"),
            ));
        }
        Ok(())
    }

    /// Checks what a client assigned; gives the number of replicas of each partition.
    fn check_assignment(&self, assignment: &[Vec<BrokerId>]) -> Result<usize, Refusal> {
        let refuse = |message| Err(Refusal::new(RefusalCode::InvalidReplicaAssignment, message));
        let replicas = assignment.first().map_or(0, Vec::len);
        for (partition, brokers) in assignment.iter().enumerate() {
            if brokers.is_empty() || brokers.len() != replicas {
                return refuse(format!(
                    "partition {partition} has {} brokers, the first one {replicas}: \
                     all need the same number, at least 1",
                    brokers.len()
                ));
            }
            let mut any_live = false;
            let mut named = BTreeSet::new();
            for broker in brokers {
                match self.loads.is_live(*broker) {
                    None => {
                        return refuse(format!(
                            "partition {partition} names broker {broker}, which never registered"
                        ));
                    }
                    Some(is_live) => any_live |= is_live,
                }
                if !named.insert(broker) {
                    return refuse(format!("partition {partition} names broker {broker} twice"));
                }
            }
            if !any_live {
                return refuse(format!("none of partition {partition}'s brokers is alive"));
            }
        }
        Ok(replicas)
    }

    fn check_room(&self, topics: usize, partitions: usize) -> Result<(), Refusal> {
        let refuse = |message| Err(Refusal::new(RefusalCode::LimitReached, message));
        let Policy { max_topics, max_partitions, .. } = self.policy;
        let have = self.image.topics().len() + self.new_topics;
        if *max_topics < have + topics {
            return refuse(format!("the cluster has {have} topics, {max_topics} are possible"));
        }
        let have = self.image.partition_count() + self.new_partitions;
        if *max_partitions < have.saturating_add(partitions) {
            return refuse(format!(
                "{partitions} partitions on top of the cluster's {have} exceed the {max_partitions} possible"
            ));
        }
        Ok(())
    }

    fn check_weight(&self, added_bytes: usize) -> Result<(), Refusal> {
        let max_bytes = self.policy.max_topics_weight_bytes;
        let brokers: usize = self.image.brokers().map(BrokerImage::weight_bytes).sum();
        let have_bytes = self.image.weight_bytes() - brokers + self.new_weight_bytes;
        if max_bytes < have_bytes.saturating_add(added_bytes) {
            return Err(Refusal::new(
                RefusalCode::LimitReached,
                format!(
                    "the cluster image has {have_bytes} B of topics, {added_bytes} B more would \
                     exceed {max_bytes} B"
                ),
            ));
        }
        Ok(())
    }

    /// Items are planned on top of the image, not of each other: a topic can be changed by one only.
    fn check_once(&mut self, topic: &TopicImage) -> Result<(), Refusal> {
        if self.changed.insert(topic.id) {
            return Ok(());
        }
        let message = format!("topic {} is changed twice in one request", topic.name);
        Err(Refusal::new(RefusalCode::InvalidRequest, message))
    }

    fn free_name(&self, name: &str) -> Result<TopicName, Refusal> {
        let name = TopicName::new(name)
            .map_err(|error| Refusal::new(RefusalCode::InvalidTopicName, error.to_string()))?;
        let exists = self.image.topic_named(name.as_str()).is_some();
        if exists || self.new_names.contains(&name) {
            let message = format!("topic {name} exists already");
            return Err(Refusal::new(RefusalCode::TopicExists, message));
        }
        let is_twin = |other: &&TopicName| other.collides_with(&name);
        let mut others = self.image.topics().map(|topic| &topic.name).chain(&self.new_names);
        if let Some(other) = others.find(is_twin) {
            return Err(Refusal::new(
                RefusalCode::InvalidTopicName,
                format!("topic name {name} differs from topic {other} only in '.' and '_'"),
            ));
        }
        Ok(name)
    }

    fn find(&self, topic: &TopicRef) -> Result<&'a TopicImage, Refusal> {
        match topic {
            TopicRef::Name(name) => self.find_named(name),
            TopicRef::Id(id) => self.image.topic(*id).map(|topic| &**topic).ok_or_else(|| {
                Refusal::new(RefusalCode::UnknownTopicId, format!("no topic has the id {id}"))
            }),
        }
    }

    fn find_named(&self, name: &str) -> Result<&'a TopicImage, Refusal> {
        self.image.topic_named(name).map(|topic| &**topic).ok_or_else(|| {
            let name: String = name.chars().take(256).collect();
            Refusal::new(RefusalCode::UnknownTopic, format!("topic {name:?} does not exist"))
        })
    }
}

/// Plans a broker's registration; gives the id that the broker will have, too.
///
/// # Errors
/// The refusal that the broker gets.
pub fn register(image: &ClusterImage, register: &Register) -> Result<(BrokerId, Command), Refusal> {
    check_register(register)?;
    let by_directory = image.brokers().find(|broker| broker.directory == register.directory);
    let broker = match (register.broker, by_directory) {
        (Some(id), Some(known)) if known.id != id => {
            return Err(Refusal::new(
                RefusalCode::DuplicateBroker,
                format!(
                    "log directory {} is broker {}'s, not broker {id}'s: correct the broker's id \
                     or give it an empty directory",
                    register.directory, known.id
                ),
            ));
        }
        (Some(id), _) => id,
        (None, Some(known)) => known.id,
        (None, None) => next_broker_id(image)?,
    };
    match image.broker(broker) {
        Some(known)
            if known.directory != register.directory && known.state != BrokerState::Fenced =>
        {
            return Err(Refusal::new(
                RefusalCode::DuplicateBroker,
                format!(
                    "broker {broker} is alive with log directory {}: stop it first, or give this \
                     one another id",
                    known.directory
                ),
            ));
        }
        None if BROKERS_MAX <= image.brokers().len() => {
            let message = format!("the cluster has {BROKERS_MAX} brokers, which is the most");
            return Err(Refusal::new(RefusalCode::LimitReached, message));
        }
        _ => {}
    }
    let register = Register { broker: Some(broker), ..register.clone() };
    Ok((broker, Command::RegisterBroker { broker, register }))
}

/// Checks that `broker` is registered and `epoch` is its registration.
///
/// # Errors
/// [`RefusalCode::UnknownBroker`] or [`RefusalCode::StaleBrokerEpoch`].
pub fn check_epoch(
    image: &ClusterImage,
    broker: BrokerId,
    epoch: BrokerEpoch,
) -> Result<&BrokerImage, Refusal> {
    let known = find_broker(image, broker)?;
    if known.epoch != epoch {
        return Err(Refusal::new(
            RefusalCode::StaleBrokerEpoch,
            format!("broker {broker} has epoch {}, not {epoch}", known.epoch),
        ));
    }
    Ok(known)
}

fn find_broker(image: &ClusterImage, broker: BrokerId) -> Result<&BrokerImage, Refusal> {
    image.broker(broker).ok_or_else(|| {
        Refusal::new(RefusalCode::UnknownBroker, format!("broker {broker} is not registered"))
    })
}

fn next_broker_id(image: &ClusterImage) -> Result<BrokerId, Refusal> {
    let last = image.brokers().map(|broker| broker.id.0).max().unwrap_or(0);
    last.checked_add(1).map(BrokerId).ok_or_else(|| {
        let message = format!("no broker id follows {last}: configure one");
        Refusal::new(RefusalCode::LimitReached, message)
    })
}

fn check_register(register: &Register) -> Result<(), Refusal> {
    let refuse = |message| Err(Refusal::new(RefusalCode::InvalidRequest, message));
    if register.incarnation.is_nil() || register.directory.is_nil() {
        return refuse("a broker registers with an incarnation and a log directory".to_owned());
    }
    if !(1..=SHARDS_MAX).contains(&register.shards) {
        return refuse(format!(
            "a broker cannot have {} shards: 1 to {SHARDS_MAX} are possible",
            register.shards
        ));
    }
    let addresses = register.addresses.len();
    if !(1..=ADDRESSES_MAX).contains(&addresses) {
        return refuse(format!(
            "a broker cannot have {addresses} addresses: 1 to {ADDRESSES_MAX} are possible"
        ));
    }
    for address in &register.addresses {
        let host_bytes = address.host.len();
        if !(1..=HOST_BYTES_MAX).contains(&host_bytes) || address.port == 0 {
            return refuse(format!(
                "address {:?}:{} of a broker is not usable",
                address.host.chars().take(256).collect::<String>(),
                address.port
            ));
        }
        if LISTENER_BYTES_MAX < address.listener.len() {
            return refuse(format!("a listener's name exceeds {LISTENER_BYTES_MAX} B"));
        }
    }
    if register.rack.as_ref().is_some_and(|rack| RACK_BYTES_MAX < rack.len()) {
        return refuse(format!("a rack's name exceeds {RACK_BYTES_MAX} B"));
    }
    Ok(())
}

fn summary(topic: &TopicImage) -> TopicSummary {
    let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
    TopicSummary {
        name: topic.name.to_string(),
        id: topic.id,
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
        replication_factor: i32::try_from(replicas).unwrap_or(i32::MAX),
        configs: topic.configs.clone().into_iter().collect(),
    }
}

/// What the topic will weigh, its partitions' ISR and ELR as large as they can become.
fn topic_weight_bytes(
    name: &TopicName,
    configs: &settings::Settings,
    partitions: &[Vec<PlacedReplica>],
) -> usize {
    let bare = TopicImage {
        id: TopicId::ZERO,
        name: name.clone(),
        configs: configs.clone(),
        partitions: Vec::new(),
    };
    bare.weight_bytes() + partitions.iter().map(|p| partition_weight(p)).sum::<usize>()
}

fn partition_weight(replicas: &[PlacedReplica]) -> usize {
    80 + (8 + 4) * replicas.len()
}
