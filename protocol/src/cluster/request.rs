//! What a coordinator can be asked. `[P]`

use levada_record::id::{BrokerId, PartitionId, TopicId};

use super::id::{BrokerEpoch, DirectoryId, Incarnation};
use super::image::Address;

/// One request. Every request is answered with one [`Reply`](super::Reply).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// A broker's process says that it is there.
    Register(Register),
    /// A broker is alive.
    Heartbeat(Heartbeat),
    /// Asks for the stream of images and changes on this connection.
    Subscribe {
        /// Index of the image the asker has; 0 for none. When it is the current one, no full image
        /// is sent first.
        from_index: u64,
    },
    /// Creates topics, each on its own: some may be refused.
    CreateTopics(CreateTopics),
    /// Deletes topics, each on its own.
    DeleteTopics {
        /// Which.
        topics: Vec<TopicRef>,
    },
    /// Adds partitions to topics, each on its own.
    CreatePartitions(CreatePartitions),
    /// Changes settings, each resource on its own.
    AlterConfigs(AlterConfigs),
    /// Hands out a block of producer ids that nobody else gets.
    AllocateProducerIds {
        /// Who asks.
        broker: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
    },
    /// The files of these replicas exist on stable storage.
    ConfirmReplicas {
        /// Who asks.
        broker: BrokerId,
        /// Its registration.
        epoch: BrokerEpoch,
        /// Partitions that the broker holds a replica of; those it does not (any more) are passed over.
        partitions: Vec<PartitionId>,
    },
    /// Asks how the cluster is.
    Status,
}

/// How the broker's previous process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastStop {
    /// With everything on stable storage.
    Clean,
    /// Killed, or the first start.
    Unclean,
}

/// See [`Request::Register`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Its id; `None` to be given one (the same again for the same directory).
    pub broker: Option<BrokerId>,
    /// This process.
    pub incarnation: Incarnation,
    /// Its log directory.
    pub directory: DirectoryId,
    /// Its listeners.
    pub addresses: Vec<Address>,
    /// Where it stands.
    pub rack: Option<String>,
    /// Number of shards it runs; replicas on shards beyond are placed anew.
    pub shards: u16,
    /// How the process before it ended.
    pub last_stop: LastStop,
}

/// What a broker wants of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To take part.
    Serve,
    /// To stop: its leaderships are to be moved away first.
    Stop,
}

/// See [`Request::Heartbeat`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub broker: BrokerId,
    /// Its registration.
    pub epoch: BrokerEpoch,
    /// Index of the image that the broker acts on.
    pub seen_index: u64,
    /// What it wants.
    pub wish: Wish,
}

/// Whether a request is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Carried out.
    Execute,
    /// Only checked: the reply is what it would have been, nothing changes.
    ValidateOnly,
}

/// See [`Request::CreateTopics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateTopics {
    /// The topics.
    pub topics: Vec<NewTopic>,
    /// Whether to do it.
    pub mode: Mode,
}

/// How partitions get their replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The controller decides.
    Automatic {
        /// Number of partitions; `None` for the cluster's default.
        partitions: Option<i32>,
        /// Replicas of each; `None` for the cluster's default.
        replication_factor: Option<i32>,
    },
    /// As told: per partition, from 0, the brokers, preferred leader first.
    Explicit(Vec<Vec<BrokerId>>),
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name, as the client sent it.
    pub name: String,
    /// Its id; `None` to be given a random one.
    pub id: Option<TopicId>,
    /// Partitions and replicas.
    pub placement: Placement,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// Names a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicRef {
    /// By name, as the client sent it.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// See [`Request::CreatePartitions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topics.
    pub topics: Vec<NewPartitions>,
    /// Whether to do it.
    pub mode: Mode,
}

/// More partitions for one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPartitions {
    /// The topic.
    pub topic: TopicRef,
    /// How many it shall have in the end, those it has included.
    pub total: i32,
    /// For each new partition its brokers, preferred leader first; `None` to let the controller
    /// decide.
    pub assignment: Option<Vec<Vec<BrokerId>>>,
}

/// See [`Request::AlterConfigs`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterConfigs {
    /// The resources.
    pub resources: Vec<ConfigAlteration>,
    /// Whether to do it.
    pub mode: Mode,
}

/// What has settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigResource {
    /// The topic of this name, as the client sent it.
    Topic(String),
    /// One broker, or all of them.
    Broker(Option<BrokerId>),
}

/// How the changes meet what is set already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterKind {
    /// Settings that are not named stay.
    Incremental,
    /// Settings that are not named go back to their defaults.
    ReplaceAll,
}

/// Changes to one resource's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigAlteration {
    /// Whose.
    pub resource: ConfigResource,
    /// What becomes of the others.
    pub kind: AlterKind,
    /// The changes, in order.
    pub changes: Vec<ConfigChange>,
}

/// A change to one setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    /// Name of the setting.
    pub name: String,
    /// What to do.
    pub op: ConfigOp,
}

/// What to do with a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigOp {
    /// Give it this value.
    Set(String),
    /// Back to its default.
    Delete,
    /// Add these comma-separated items to a list.
    Append(String),
    /// Take these comma-separated items out of a list.
    Subtract(String),
}
