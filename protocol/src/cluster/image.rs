//! The cluster image: who is there and who leads what, and how one image becomes the next. `[P]`
//!
//! The controller makes changes, everyone applies them: the very same [`ClusterImage::apply`] runs
//! in coordinators and brokers, so equal indexes mean equal images.

use std::collections::BTreeMap;
use std::sync::Arc;

use levada_record::epoch::LeaderEpoch;
use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ProducerId, ShardIndex, TopicId};
use levada_record::name::TopicName;

use super::id::{BrokerEpoch, ClusterId, DirectoryId, Incarnation, PartitionEpoch};

/// Where clients or peers reach a broker on one of its listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// Name of the listener, as configured at the broker.
    pub listener: String,
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// Whether a broker counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BrokerState {
    /// Leads nothing and is in no ISR: not heard of in time, or not caught up since it registered.
    Fenced,
    /// Alive.
    Active,
    /// Alive, about to stop: leads nothing any more.
    Draining,
}

/// One broker, as last registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerImage {
    /// Its id, unique in the cluster.
    pub id: BrokerId,
    /// The registration.
    pub epoch: BrokerEpoch,
    /// The process.
    pub incarnation: Incarnation,
    /// The log directory that holds its replicas.
    pub directory: DirectoryId,
    /// Its listeners.
    pub addresses: Vec<Address>,
    /// Where it stands, if told; replicas of a partition are spread over racks.
    pub rack: Option<String>,
    /// Number of shards, at least 1.
    pub shards: u16,
    /// Whether it counts.
    pub state: BrokerState,
}

/// One copy of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplicaImage {
    /// Who holds it.
    pub broker: BrokerId,
    /// On which of its shards.
    pub shard: ShardIndex,
    /// Whether the broker said that the files exist. An unconfirmed replica that is not on disk is
    /// to be created; a confirmed one that is not on disk is lost.
    pub confirmed: bool,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionImage {
    /// Number within the topic, dense from 0.
    pub index: PartitionIndex,
    /// All replicas; the first is the preferred leader.
    pub replicas: Vec<ReplicaImage>,
    /// Who leads; `None` while nobody who may is alive.
    pub leader: Option<BrokerId>,
    /// Grows with every change of leader or replicas, and when the leader's process is a new one.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of this struct.
    pub partition_epoch: PartitionEpoch,
    /// Replicas in sync.
    pub isr: Vec<BrokerId>,
    /// Replicas out of the ISR that still hold every committed record, so that one of them may be
    /// elected. Empty while the ISR has min.insync.replicas members.
    pub elr: Vec<BrokerId>,
}

impl PartitionImage {
    /// The replica that `broker` holds.
    pub fn replica_on(&self, broker: BrokerId) -> Option<&ReplicaImage> {
        self.replicas.iter().find(|replica| replica.broker == broker)
    }
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicImage {
    /// Its id; a topic deleted and created again has another.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Settings that were set for this topic; all others have their defaults.
    pub configs: BTreeMap<String, String>,
    /// The partitions; partition i stands at position i.
    pub partitions: Vec<PartitionImage>,
}

impl TopicImage {
    /// The partition numbered `index`.
    pub fn partition(&self, index: PartitionIndex) -> Option<&PartitionImage> {
        self.partitions.get(usize::try_from(index.0).ok()?)
    }

    /// Upper bound of the bytes that this topic adds to an encoded image.
    pub fn weight_bytes(&self) -> usize {
        let configs: usize =
            self.configs.iter().map(|(name, value)| 48 + name.len() + value.len()).sum();
        let partitions: usize = self
            .partitions
            .iter()
            .map(|partition| {
                // ISR and ELR are disjoint parts of the replicas: whoever comes and goes, the
                // weight stays.
                let replicas = partition.replicas.len();
                80 + 8 * replicas + 4 * replicas.max(partition.isr.len() + partition.elr.len())
            })
            .sum();
        96 + self.name.as_str().len() + configs + partitions
    }
}

impl BrokerImage {
    /// Upper bound of the bytes that this broker adds to an encoded image.
    pub fn weight_bytes(&self) -> usize {
        let addresses: usize = self
            .addresses
            .iter()
            .map(|address| 56 + address.listener.len() + address.host.len())
            .sum();
        112 + self.rack.as_ref().map_or(0, String::len) + addresses
    }
}

/// One thing that became different. Carries the new state, not the difference, so that applying
/// needs no judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A broker is new or has another state.
    Broker(BrokerImage),
    /// A topic is new.
    TopicCreated(TopicImage),
    /// A topic and all its partitions are gone.
    TopicDeleted(TopicId),
    /// A topic has these settings now, and no others.
    TopicConfigured {
        /// The topic.
        topic: TopicId,
        /// All settings that are set.
        configs: BTreeMap<String, String>,
    },
    /// Partitions are new (numbered on from the last one) or have another state.
    Partitions {
        /// The topic.
        topic: TopicId,
        /// The partitions, ascending.
        partitions: Vec<PartitionImage>,
    },
    /// Producer ids below `next` (exclusive) are handed out.
    ProducerIds {
        /// The first id not handed out.
        next: ProducerId,
    },
}

/// The changes of one committed command, to be applied together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Index of the last command before that changed something: every image from there up to below
    /// `index` is the same and takes these changes. Commands that change nothing are not sent.
    pub previous: u64,
    /// Index of the image after them.
    pub index: u64,
    /// The changes, in order.
    pub changes: Vec<Change>,
}

/// Whether changes did anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// The image moved on.
    Now,
    /// The image already had them.
    Before,
}

/// The changes do not fit the image: it is unusable now, subscribe again for a full one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Changes in between were not received.
    #[error("image has index {have}, changes start from {previous}")]
    Gap {
        /// Index of the image.
        have: u64,
        /// Index that the changes start from.
        previous: u64,
    },
    /// A change to a topic that is not there.
    #[error("changes name topic {topic}, which the image has not")]
    UnknownTopic {
        /// The topic.
        topic: TopicId,
    },
    /// A topic is created whose id or name is taken.
    #[error("changes create topic {name} a second time")]
    TopicExists {
        /// Its name.
        name: TopicName,
    },
    /// Partition numbers with a hole.
    #[error("changes leave a hole before partition {index} of topic {topic}")]
    PartitionGap {
        /// The topic.
        topic: TopicId,
        /// The partition that does not follow the last one.
        index: PartitionIndex,
    },
}

/// The cluster as of one index. Cheap to clone: topics are shared until they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterImage {
    cluster: ClusterId,
    index: u64,
    brokers: BTreeMap<BrokerId, BrokerImage>,
    topics: BTreeMap<TopicId, Arc<TopicImage>>,
    names: BTreeMap<TopicName, TopicId>,
    next_producer_id: ProducerId,
    partition_count: usize,
    weight_bytes: usize,
}

impl ClusterImage {
    /// Bound on what an encoded image has besides brokers and topics, in bytes.
    const FIXED_WEIGHT_BYTES: usize = 4096;

    /// The image of `cluster` at index 0: nobody and nothing.
    pub fn empty(cluster: ClusterId) -> Self {
        Self {
            cluster,
            index: 0,
            brokers: BTreeMap::new(),
            topics: BTreeMap::new(),
            names: BTreeMap::new(),
            next_producer_id: ProducerId(0),
            partition_count: 0,
            weight_bytes: Self::FIXED_WEIGHT_BYTES,
        }
    }

    /// Which cluster this is.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// How far the image is: it shows every command up to and including this index.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// The first producer id that is not handed out.
    pub fn next_producer_id(&self) -> ProducerId {
        self.next_producer_id
    }

    /// All brokers that ever registered, by id.
    pub fn brokers(&self) -> impl ExactSizeIterator<Item = &BrokerImage> + Clone {
        self.brokers.values()
    }

    /// The broker `id`. O(log brokers).
    pub fn broker(&self, id: BrokerId) -> Option<&BrokerImage> {
        self.brokers.get(&id)
    }

    /// All topics, ordered by id.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<TopicImage>> + Clone {
        self.topics.values()
    }

    /// All topics, ordered by name.
    pub fn topics_by_name(&self) -> impl Iterator<Item = &Arc<TopicImage>> + Clone {
        self.names.values().filter_map(|id| self.topics.get(id))
    }

    /// The topic `id`. O(log topics).
    pub fn topic(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(&id)
    }

    /// The topic called `name`; any string may be asked for. O(log topics).
    pub fn topic_named(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The partition `id`. O(log topics).
    pub fn partition(&self, id: PartitionId) -> Option<&PartitionImage> {
        self.topics.get(&id.topic)?.partition(id.index)
    }

    /// Every replica that `broker` holds, with its partition.
    pub fn replicas_on(
        &self,
        broker: BrokerId,
    ) -> impl Iterator<Item = (&Arc<TopicImage>, &PartitionImage, &ReplicaImage)> {
        self.topics.values().flat_map(move |topic| {
            topic.partitions.iter().filter_map(move |partition| {
                partition.replica_on(broker).map(|replica| (topic, partition, replica))
            })
        })
    }

    /// Number of partitions of all topics.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// Upper bound of the bytes of this image when encoded. O(1).
    pub fn weight_bytes(&self) -> usize {
        self.weight_bytes
    }

    /// Moves on by one committed command. Changes up to the image's own index are left out.
    ///
    /// # Errors
    /// [`ApplyError`] when the changes do not fit; the image is then to be thrown away.
    pub fn apply(&mut self, committed: &Committed) -> Result<Applied, ApplyError> {
        if committed.index <= self.index {
            return Ok(Applied::Before);
        }
        if committed.previous > self.index {
            return Err(ApplyError::Gap { have: self.index, previous: committed.previous });
        }
        for change in &committed.changes {
            self.apply_change(change)?;
        }
        self.index = committed.index;
        Ok(Applied::Now)
    }

    /// Moves the index on without a change: for commands that were refused.
    ///
    /// # Panics
    /// When the image is already further.
    pub fn skip_to(&mut self, index: u64) {
        assert!(self.index <= index, "image at {} cannot go back to {index}", self.index);
        self.index = index;
    }

    fn apply_change(&mut self, change: &Change) -> Result<(), ApplyError> {
        match change {
            Change::Broker(broker) => {
                self.weight_bytes += broker.weight_bytes();
                if let Some(old) = self.brokers.insert(broker.id, broker.clone()) {
                    self.weight_bytes -= old.weight_bytes();
                }
            }
            Change::TopicCreated(topic) => self.insert_topic(topic.clone())?,
            Change::TopicDeleted(id) => {
                let topic =
                    self.topics.remove(id).ok_or(ApplyError::UnknownTopic { topic: *id })?;
                self.names.remove(&topic.name);
                self.weight_bytes -= topic.weight_bytes();
                self.partition_count -= topic.partitions.len();
            }
            Change::TopicConfigured { topic, configs } => {
                self.change_topic(*topic, |topic| {
                    topic.configs.clone_from(configs);
                    Ok(())
                })?;
            }
            Change::Partitions { topic, partitions } => self.change_topic(*topic, |image| {
                for partition in partitions {
                    put_partition(image, partition)?;
                }
                Ok(())
            })?,
            Change::ProducerIds { next } => {
                self.next_producer_id = self.next_producer_id.max(*next);
            }
        }
        Ok(())
    }

    fn insert_topic(&mut self, topic: TopicImage) -> Result<(), ApplyError> {
        if self.names.contains_key(&topic.name) || self.topics.contains_key(&topic.id) {
            return Err(ApplyError::TopicExists { name: topic.name });
        }
        for (position, partition) in topic.partitions.iter().enumerate() {
            if usize::try_from(partition.index.0) != Ok(position) {
                let index = partition.index;
                return Err(ApplyError::PartitionGap { topic: topic.id, index });
            }
        }
        self.weight_bytes += topic.weight_bytes();
        self.partition_count += topic.partitions.len();
        self.names.insert(topic.name.clone(), topic.id);
        self.topics.insert(topic.id, Arc::new(topic));
        Ok(())
    }

    fn change_topic(
        &mut self,
        id: TopicId,
        change: impl FnOnce(&mut TopicImage) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let topic = self.topics.get_mut(&id).ok_or(ApplyError::UnknownTopic { topic: id })?;
        self.weight_bytes -= topic.weight_bytes();
        self.partition_count -= topic.partitions.len();
        let topic = Arc::make_mut(topic);
        let outcome = change(topic);
        self.weight_bytes += topic.weight_bytes();
        self.partition_count += topic.partitions.len();
        outcome
    }

    /// Puts an image together from its parts.
    ///
    /// # Errors
    /// [`ApplyError`] when topics share an id or a name, or their partitions are not numbered
    /// densely from 0.
    pub fn from_parts(
        cluster: ClusterId,
        index: u64,
        brokers: Vec<BrokerImage>,
        topics: Vec<TopicImage>,
        next_producer_id: ProducerId,
    ) -> Result<Self, ApplyError> {
        let mut image = Self::empty(cluster);
        for broker in brokers {
            image.apply_change(&Change::Broker(broker))?;
        }
        for topic in topics {
            image.insert_topic(topic)?;
        }
        image.next_producer_id = next_producer_id;
        image.index = index;
        Ok(image)
    }
}

fn put_partition(topic: &mut TopicImage, partition: &PartitionImage) -> Result<(), ApplyError> {
    let count = topic.partitions.len();
    let gap = ApplyError::PartitionGap { topic: topic.id, index: partition.index };
    match usize::try_from(partition.index.0) {
        Ok(at) if at == count => topic.partitions.push(partition.clone()),
        Ok(at) => match topic.partitions.get_mut(at) {
            Some(known) => known.clone_from(partition),
            None => return Err(gap),
        },
        Err(_) => return Err(gap),
    }
    Ok(())
}
