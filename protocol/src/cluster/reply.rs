//! What a coordinator answers. `[P]`

use levada_record::id::{BrokerId, ProducerId, TopicId};

use super::id::{BrokerEpoch, ClusterId};
use super::image::{BrokerImage, BrokerState};

/// One reply. `index` is the image that shows what the request did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing was done.
    Refused(Refusal),
    /// To [`Register`](super::Request::Register).
    Registered(Registered),
    /// To [`Heartbeat`](super::Request::Heartbeat).
    Heartbeat(HeartbeatAck),
    /// To [`Subscribe`](super::Request::Subscribe): pushes follow.
    Subscribed {
        /// Index of the current image.
        index: u64,
    },
    /// To requests that create and delete topics, one outcome each, in order.
    Topics(TopicOutcomes),
    /// To requests that add partitions or alter settings, one outcome each, in order.
    Outcomes(Outcomes),
    /// To [`AllocateProducerIds`](super::Request::AllocateProducerIds).
    ProducerIds(ProducerIdBlock),
    /// To [`ConfirmReplicas`](super::Request::ConfirmReplicas).
    Confirmed {
        /// Index of the image that shows them confirmed.
        index: u64,
    },
    /// To [`Status`](super::Request::Status).
    Status(Box<Status>),
}

macro_rules! refusal_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// Why a request was refused. The numbers are on the wire and never change.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum RefusalCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl RefusalCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code numbered `number`.
            pub fn from_number(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its number on the wire.
            pub fn number(self) -> u16 {
                match self {
                    $(Self::$name => $number,)*
                }
            }

            /// A few words.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

refusal_codes! {
    /// The request makes no sense.
    InvalidRequest = 1, "invalid request";
    /// This coordinator is not the controller: ask the one in `subject`, if given.
    NotController = 2, "not the controller";
    /// The asker belongs to another cluster.
    WrongCluster = 3, "wrong cluster";
    /// The controller cannot serve now; try again.
    Unavailable = 4, "unavailable";
    /// The request, or what it would make, exceeds a limit of size.
    TooLarge = 5, "too large";
    /// What the request would make exceeds a limit of the cluster.
    LimitReached = 6, "limit reached";
    /// The broker has registered again since: this process of it is fenced for good, or must
    /// register again.
    StaleBrokerEpoch = 7, "stale broker epoch";
    /// No broker of that id is registered.
    UnknownBroker = 8, "unknown broker";
    /// Another process with another directory is alive under that id.
    DuplicateBroker = 9, "duplicate broker";
    /// A topic of that name exists.
    TopicExists = 10, "topic exists";
    /// The name breaks the rules for topic names.
    InvalidTopicName = 11, "invalid topic name";
    /// No topic of that name or id exists.
    UnknownTopic = 12, "unknown topic";
    /// The number of partitions is out of range.
    InvalidPartitions = 13, "invalid partitions";
    /// The replication factor is out of range, or there are not enough live brokers.
    InvalidReplicationFactor = 14, "invalid replication factor";
    /// The brokers named for a partition are not usable.
    InvalidReplicaAssignment = 15, "invalid replica assignment";
    /// A setting is unknown or its value senseless; `subject` names the setting.
    InvalidConfig = 16, "invalid config";
    /// No topic has that id, though the asker believes so.
    UnknownTopicId = 17, "unknown topic id";
}

/// A request, or one item of it, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.as_str())]
pub struct Refusal {
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people: one sentence with the values that matter.
    pub message: String,
    /// What the code is about, see [`RefusalCode`].
    pub subject: Option<String>,
}

impl Refusal {
    /// A refusal without a subject.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), subject: None }
    }

    /// Names what it is about.
    #[must_use]
    pub fn about(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }
}

/// See [`Reply::Registered`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registered {
    /// The broker's id.
    pub broker: BrokerId,
    /// To be shown with everything the broker asks from now on.
    pub epoch: BrokerEpoch,
    /// The cluster it belongs to from now on.
    pub cluster: ClusterId,
    /// The image that first shows the registration.
    pub index: u64,
}

/// Whether a broker that wants to stop may do so now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// It did not ask, or somebody still waits for it to hand over.
    NotYet,
    /// It leads nothing that another could lead.
    Now,
}

/// See [`Reply::Heartbeat`]. The lease runs from when the heartbeat was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatAck {
    /// How the controller sees the broker.
    pub state: BrokerState,
    /// Whether it may stop.
    pub leave: Leave,
    /// Index of the current image.
    pub index: u64,
}

/// See [`Reply::Topics`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicOutcomes {
    /// The image that shows all of them.
    pub index: u64,
    /// One per topic of the request, in its order.
    pub outcomes: Vec<Result<TopicSummary, Refusal>>,
}

/// A topic that was created or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSummary {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: TopicId,
    /// Number of partitions.
    pub partitions: i32,
    /// Replicas of each.
    pub replication_factor: i32,
    /// Settings that differ from the defaults.
    pub configs: Vec<(String, String)>,
}

/// See [`Reply::Outcomes`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcomes {
    /// The image that shows all of them.
    pub index: u64,
    /// One per item of the request, in its order.
    pub outcomes: Vec<Result<(), Refusal>>,
}

/// See [`Reply::ProducerIds`]: the ids from `first` (inclusive), `count` of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerIdBlock {
    /// The first id.
    pub first: ProducerId,
    /// How many.
    pub count: i32,
}

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub id: i32,
    /// Where it listens, as host:port.
    pub address: String,
    /// What it does.
    pub role: MemberRole,
}

/// What a coordinator does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberRole {
    /// Writes the cluster image.
    Controller,
    /// Follows.
    Follower,
}

/// One broker, as the controller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerStatus {
    /// What everyone knows.
    pub broker: BrokerImage,
    /// Since its last heartbeat, in ms; `None` when this controller never heard of it.
    pub lease_age_ms: Option<u64>,
    /// The image it said it acts on.
    pub seen_index: u64,
    /// Replicas on it.
    pub replicas: u32,
    /// Partitions it leads.
    pub leaders: u32,
}

/// How the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which cluster.
    pub cluster: ClusterId,
    /// What its operator calls it.
    pub cluster_name: Option<String>,
    /// Id of the coordinator that is the controller.
    pub controller: i32,
    /// Its term.
    pub term: u64,
    /// All coordinators.
    pub members: Vec<Member>,
    /// Index of the last command applied.
    pub index: u64,
    /// Index that the last snapshot covers (inclusive); 0 without one.
    pub snapshot_index: u64,
    /// Length of the command log, in bytes.
    pub log_bytes: u64,
    /// All brokers.
    pub brokers: Vec<BrokerStatus>,
    /// Number of topics.
    pub topics: u32,
    /// Number of partitions.
    pub partitions: u32,
    /// Partitions without a leader.
    pub leaderless: u32,
    /// Partitions with replicas out of the ISR.
    pub out_of_sync: u32,
    /// Replicas whose files are not confirmed.
    pub unconfirmed: u32,
    /// Since this controller started, in ms.
    pub uptime_ms: u64,
}
