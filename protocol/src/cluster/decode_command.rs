//! FlatBuffers to commands: total on any bytes. `[P]`

use levada_record::id::{BrokerId, ShardIndex};
use levada_record::name::TopicName;

use super::command::{COMMAND_VERSION, Command, PlacedReplica};
use super::decode::{
    DecodeError, Tables, addresses, all, broker, broker_state, bytes, config_map, last_stop,
    partition_index, partition_refs, root, topic_id,
};
use super::id::{BrokerEpoch, DirectoryId, Incarnation};
use super::request::Register;
use crate::generated::cluster::levada::cluster as fb;

pub(super) fn decode(encoded: &[u8]) -> Result<Command, DecodeError> {
    let command = root::<fb::Command<'_>>(encoded)?;
    if command.version() != COMMAND_VERSION {
        return Err(DecodeError::Version { got: command.version(), known: COMMAND_VERSION });
    }
    Ok(if let Some(table) = command.body_as_register_broker() {
        register(table)?
    } else if let Some(table) = command.body_as_set_broker_state() {
        Command::SetBrokerState {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            state: broker_state(table.state())?,
        }
    } else if let Some(table) = command.body_as_create_topic() {
        Command::CreateTopic {
            id: topic_id(table.id()),
            name: TopicName::new(table.name())?,
            configs: config_map(table.configs()),
            partitions: placed(table.partitions())?,
        }
    } else if let Some(table) = command.body_as_delete_topic() {
        Command::DeleteTopic { id: topic_id(table.id()) }
    } else if let Some(table) = command.body_as_add_partitions() {
        Command::AddPartitions {
            id: topic_id(table.id()),
            first: partition_index(table.first())?,
            partitions: placed(table.partitions())?,
        }
    } else if let Some(table) = command.body_as_configure_topic() {
        Command::ConfigureTopic {
            id: topic_id(table.id()),
            configs: config_map(Some(table.configs())),
        }
    } else if let Some(table) = command.body_as_allocate_producer_id_block() {
        let count = table.count();
        if count < 1 {
            return Err(DecodeError::Field { field: "producer ids", value: i64::from(count) });
        }
        Command::AllocateProducerIds {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            count,
        }
    } else if let Some(table) = command.body_as_confirm_broker_replicas() {
        Command::ConfirmReplicas {
            broker: broker("broker", table.broker())?,
            epoch: BrokerEpoch(table.epoch()),
            partitions: partition_refs(table.partitions())?,
        }
    } else {
        let kind = u16::from(command.body_type().0);
        return Err(DecodeError::UnknownKind { what: "command", kind });
    })
}

fn register(table: fb::RegisterBroker<'_>) -> Result<Command, DecodeError> {
    let broker: BrokerId = broker("broker", table.broker())?;
    let register = Register {
        broker: Some(broker),
        incarnation: Incarnation(bytes(table.incarnation())),
        directory: DirectoryId(bytes(table.directory())),
        addresses: addresses(table.addresses())?,
        rack: table.rack().map(str::to_owned),
        shards: table.shards(),
        last_stop: last_stop(table.clean()),
    };
    Ok(Command::RegisterBroker { broker, register })
}

fn placed(partitions: Tables<'_, fb::Placed<'_>>) -> Result<Vec<Vec<PlacedReplica>>, DecodeError> {
    all(partitions, |partition: fb::Placed<'_>| {
        partition
            .replicas()
            .iter()
            .map(|replica| {
                let broker = broker("replica", replica.broker())?;
                Ok(PlacedReplica { broker, shard: ShardIndex(replica.shard()) })
            })
            .collect()
    })
}
