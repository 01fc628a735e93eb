//! Commands to FlatBuffers. `[P]`

use flatbuffers::WIPOffset;

use super::command::{COMMAND_VERSION, Command, PlacedReplica};
use super::encode::{Builder, Tables, addresses, broker_state, config_map, partition_refs};
use super::encode::{tables, topic_uuid, uuid};
use super::request::{LastStop, Register};
use crate::generated::cluster::levada::cluster as fb;

pub(super) fn encode(command: &Command) -> Vec<u8> {
    let mut builder = Builder::new();
    let b = &mut builder;
    let (body_type, body) = match command {
        Command::RegisterBroker { broker, register } => {
            let table = register_table(b, broker.0, register);
            (fb::CommandBody::RegisterBroker, table.as_union_value())
        }
        Command::SetBrokerState { broker, epoch, state } => {
            let state = broker_state(*state);
            let args = fb::SetBrokerStateArgs { broker: broker.0, epoch: epoch.0, state };
            (fb::CommandBody::SetBrokerState, fb::SetBrokerState::create(b, &args).as_union_value())
        }
        Command::CreateTopic { id, name, configs, partitions } => {
            let name = b.create_string(name.as_str());
            let configs = config_map(b, configs);
            let partitions = placed(b, partitions);
            let args = fb::CreateTopicArgs {
                id: Some(&topic_uuid(*id)),
                name: Some(name),
                configs: Some(configs),
                partitions: Some(partitions),
            };
            (fb::CommandBody::CreateTopic, fb::CreateTopic::create(b, &args).as_union_value())
        }
        Command::DeleteTopic { id } => {
            let args = fb::DeleteTopicArgs { id: Some(&topic_uuid(*id)) };
            (fb::CommandBody::DeleteTopic, fb::DeleteTopic::create(b, &args).as_union_value())
        }
        Command::AddPartitions { id, first, partitions } => {
            let partitions = placed(b, partitions);
            let args = fb::AddPartitionsArgs {
                id: Some(&topic_uuid(*id)),
                first: first.0,
                partitions: Some(partitions),
            };
            (fb::CommandBody::AddPartitions, fb::AddPartitions::create(b, &args).as_union_value())
        }
        Command::ConfigureTopic { id, configs } => {
            let configs = config_map(b, configs);
            let args =
                fb::ConfigureTopicArgs { id: Some(&topic_uuid(*id)), configs: Some(configs) };
            (fb::CommandBody::ConfigureTopic, fb::ConfigureTopic::create(b, &args).as_union_value())
        }
        Command::AllocateProducerIds { broker, epoch, count } => {
            let args =
                fb::AllocateProducerIdBlockArgs { broker: broker.0, epoch: epoch.0, count: *count };
            let table = fb::AllocateProducerIdBlock::create(b, &args);
            (fb::CommandBody::AllocateProducerIdBlock, table.as_union_value())
        }
        Command::ConfirmReplicas { broker, epoch, partitions } => {
            let partitions = partition_refs(b, partitions);
            let args = fb::ConfirmBrokerReplicasArgs {
                broker: broker.0,
                epoch: epoch.0,
                partitions: Some(partitions),
            };
            let table = fb::ConfirmBrokerReplicas::create(b, &args);
            (fb::CommandBody::ConfirmBrokerReplicas, table.as_union_value())
        }
    };
    let args = fb::CommandArgs { version: COMMAND_VERSION, body_type, body: Some(body) };
    let root = fb::Command::create(b, &args);
    b.finish_minimal(root);
    b.finished_data().to_vec()
}

fn register_table<'b>(
    b: &mut Builder<'b>,
    broker: i32,
    register: &Register,
) -> WIPOffset<fb::RegisterBroker<'b>> {
    let addresses = addresses(b, &register.addresses);
    let rack = register.rack.as_deref().map(|rack| b.create_string(rack));
    let args = fb::RegisterBrokerArgs {
        broker,
        incarnation: Some(&uuid(register.incarnation.0)),
        directory: Some(&uuid(register.directory.0)),
        addresses: Some(addresses),
        rack,
        shards: register.shards,
        clean: register.last_stop == LastStop::Clean,
    };
    fb::RegisterBroker::create(b, &args)
}

fn placed<'b>(
    b: &mut Builder<'b>,
    partitions: &[Vec<PlacedReplica>],
) -> Tables<'b, fb::Placed<'b>> {
    tables(b, partitions, |b, replicas| {
        let replicas: Vec<_> = replicas
            .iter()
            .map(|replica| fb::Replica::new(replica.broker.0, replica.shard.0, false))
            .collect();
        let replicas = b.create_vector(&replicas);
        fb::Placed::create(b, &fb::PlacedArgs { replicas: Some(replicas) })
    })
}
