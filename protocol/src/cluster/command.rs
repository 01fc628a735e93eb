//! What coordinators replicate and keep in their command logs. `[P]`
//!
//! Everything that may differ between controllers (choices, random ids, configured limits) is
//! settled before a command is made; applying one is the same everywhere and for ever. A command
//! written by a newer version is refused, not guessed at.

use std::collections::BTreeMap;

use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ShardIndex, TopicId};
use levada_record::name::TopicName;

use super::decode::DecodeError;
use super::decode_command;
use super::encode_command;
use super::id::BrokerEpoch;
use super::image::BrokerState;
use super::request::Register;

/// Version of the encoding, written with every command. Grows when a command changes what it
/// means, not when fields with a neutral default are appended.
pub const COMMAND_VERSION: u16 = 1;

/// One step of the cluster's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A broker's process is there; it starts fenced. Its epoch is the index of this command.
    RegisterBroker {
        /// The id it has from now on.
        broker: BrokerId,
        /// What it said; `register.broker` may differ, `broker` counts.
        register: Register,
    },
    /// A broker's state is another one.
    SetBrokerState {
        /// Who.
        broker: BrokerId,
        /// Void when the broker has another epoch by now.
        epoch: BrokerEpoch,
        /// The state.
        state: BrokerState,
    },
    /// A topic is created.
    CreateTopic {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: TopicName,
        /// Its settings.
        configs: BTreeMap<String, String>,
        /// Per partition the replicas, preferred leader first.
        partitions: Vec<Vec<PlacedReplica>>,
    },
    /// A topic is deleted.
    DeleteTopic {
        /// Its id.
        id: TopicId,
    },
    /// A topic gets more partitions.
    AddPartitions {
        /// Its id.
        id: TopicId,
        /// Index of the first new one: void unless the topic has exactly so many.
        first: PartitionIndex,
        /// Per new partition the replicas, preferred leader first.
        partitions: Vec<Vec<PlacedReplica>>,
    },
    /// A topic has these settings and no others.
    ConfigureTopic {
        /// Its id.
        id: TopicId,
        /// All its settings.
        configs: BTreeMap<String, String>,
    },
    /// A broker gets the next producer ids.
    AllocateProducerIds {
        /// Who.
        broker: BrokerId,
        /// Void when the broker has another epoch by now.
        epoch: BrokerEpoch,
        /// How many, at least 1.
        count: i32,
    },
    /// The files of replicas exist.
    ConfirmReplicas {
        /// Who holds them.
        broker: BrokerId,
        /// Void when the broker has another epoch by now.
        epoch: BrokerEpoch,
        /// Of which partitions.
        partitions: Vec<PartitionId>,
    },
}

/// Where one replica goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlacedReplica {
    /// To this broker,
    pub broker: BrokerId,
    /// and to this shard of it.
    pub shard: ShardIndex,
}

impl Command {
    /// The bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        encode_command::encode(self)
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are no command, or one of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        decode_command::decode(bytes)
    }

    /// Its name, for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::RegisterBroker { .. } => "register-broker",
            Self::SetBrokerState { .. } => "set-broker-state",
            Self::CreateTopic { .. } => "create-topic",
            Self::DeleteTopic { .. } => "delete-topic",
            Self::AddPartitions { .. } => "add-partitions",
            Self::ConfigureTopic { .. } => "configure-topic",
            Self::AllocateProducerIds { .. } => "allocate-producer-ids",
            Self::ConfirmReplicas { .. } => "confirm-replicas",
        }
    }
}
