//! Any history of commands: what must hold holds after each, and replaying gives the same.

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::request::{LastStop, NewPartitions, Register, TopicRef};
use levada_protocol::cluster::{
    BrokerEpoch, BrokerState, ClusterImage, Committed, DirectoryId, Incarnation, encode_image,
};
use levada_record::id::{BrokerId, PartitionId, PartitionIndex};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::controller::apply::apply;
use crate::controller::fixture::{Fixture, new_topic, registration, topic_id};
use crate::controller::plan::{self, Plan};

/// What somebody asks for, with small numbers so that things meet.
#[derive(Debug, Clone)]
enum Wish {
    Register { broker: i32, shards: u16, incarnation: u8, clean: bool, other_disk: bool },
    State { broker: i32, state: BrokerState, stale: bool },
    Create { topic: u8, partitions: i32, replicas: i32, min_insync: i32, replicated: bool },
    Delete { topic: u8 },
    Grow { topic: u8, total: i32 },
    Configure { topic: u8, min_insync: i32 },
    Confirm { broker: i32, topic: u8, partition: i32 },
    Producers { broker: i32, count: i32 },
}

fn wish() -> impl Strategy<Value = Wish> {
    let broker = 1..5i32;
    let topic = 0..4u8;
    let state = prop_oneof![
        1 => Just(BrokerState::Fenced),
        3 => Just(BrokerState::Active),
        1 => Just(BrokerState::Draining)
    ];
    prop_oneof![
        2 => (broker.clone(), 1..4u16, any::<u8>(), any::<bool>(), prop::bool::weighted(0.1)).prop_map(
            |(broker, shards, incarnation, clean, other_disk)| Wish::Register {
                broker, shards, incarnation, clean, other_disk
            }
        ),
        5 => (broker.clone(), state, prop::bool::weighted(0.1))
            .prop_map(|(broker, state, stale)| Wish::State { broker, state, stale }),
        3 => (topic.clone(), 1..5i32, 1..4i32, 0..4i32, any::<bool>()).prop_map(
            |(topic, partitions, replicas, min_insync, replicated)| Wish::Create {
                topic, partitions, replicas, min_insync, replicated
            }
        ),
        1 => topic.clone().prop_map(|topic| Wish::Delete { topic }),
        1 => (topic.clone(), 1..8i32).prop_map(|(topic, total)| Wish::Grow { topic, total }),
        1 => (topic.clone(), 1..4i32)
            .prop_map(|(topic, min_insync)| Wish::Configure { topic, min_insync }),
        1 => (broker.clone(), topic, 0..5i32)
            .prop_map(|(broker, topic, partition)| Wish::Confirm { broker, topic, partition }),
        1 => (broker, 1..2000i32).prop_map(|(broker, count)| Wish::Producers { broker, count }),
    ]
}

/// The command that a wish becomes here, if any.
fn command(fixture: &Fixture, wish: &Wish, step: usize) -> Option<Command> {
    let epoch = |broker: i32| Some(fixture.image.broker(BrokerId(broker))?.epoch);
    let name = |topic: u8| format!("topic-{topic}");
    match wish {
        Wish::Register { broker, shards, incarnation, clean, other_disk } => {
            let usual = registration(*broker, *incarnation, *shards);
            let directory = if *other_disk {
                DirectoryId([100 + incarnation % 100; 16])
            } else {
                usual.directory
            };
            let last_stop = if *clean { LastStop::Clean } else { LastStop::Unclean };
            let incarnation = Incarnation([incarnation % 3 + 1; 16]);
            let register = Register { directory, last_stop, incarnation, ..usual };
            plan::register(&fixture.image, &register).ok().map(|(_, command)| command)
        }
        Wish::State { broker, state, stale } => {
            let epoch = if *stale { BrokerEpoch(0) } else { epoch(*broker)? };
            Some(Command::SetBrokerState { broker: BrokerId(*broker), epoch, state: *state })
        }
        Wish::Create { topic, partitions, replicas, min_insync, replicated } => {
            let min_insync = min_insync.to_string();
            let mut configs = Vec::new();
            if min_insync != "0" {
                configs.push(("min.insync.replicas", min_insync.as_str()));
            }
            if *replicated {
                configs.push(("durability", "replicated"));
            }
            let new = new_topic(&name(*topic), Some(*partitions), Some(*replicas), &configs);
            let id = topic_id(&format!("{step}"));
            let mut plan = Plan::new(&fixture.image, &fixture.policy);
            plan.create_topic(&new, id).ok().map(|(command, _)| command)
        }
        Wish::Delete { topic } => {
            let plan = Plan::new(&fixture.image, &fixture.policy);
            plan.delete_topic(&TopicRef::Name(name(*topic))).ok().map(|(command, _)| command)
        }
        Wish::Grow { topic, total } => {
            let topic = TopicRef::Name(name(*topic));
            let new = NewPartitions { topic, total: *total, assignment: None };
            Plan::new(&fixture.image, &fixture.policy).create_partitions(&new).ok()
        }
        Wish::Configure { topic, min_insync } => {
            let id = fixture.image.topic_named(&name(*topic))?.id;
            let configs = [("min.insync.replicas".to_owned(), min_insync.to_string())];
            Some(Command::ConfigureTopic { id, configs: configs.into() })
        }
        Wish::Confirm { broker, topic, partition } => {
            let topic = fixture.image.topic_named(&name(*topic))?.id;
            let partitions = vec![PartitionId { topic, index: PartitionIndex(*partition) }];
            let epoch = epoch(*broker)?;
            Some(Command::ConfirmReplicas { broker: BrokerId(*broker), epoch, partitions })
        }
        Wish::Producers { broker, count } => {
            let epoch = epoch(*broker)?;
            Some(Command::AllocateProducerIds { broker: BrokerId(*broker), epoch, count: *count })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants_and_replays_to_the_same_image(
        wishes in vec(wish(), 1..80)
    ) {
        let mut fixture = Fixture::empty();
        let mut log: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut stream = Vec::new();
        let start = fixture.image.clone();
        for (step, wish) in wishes.iter().enumerate() {
            let Some(command) = command(&fixture, wish, step) else { continue };
            let previous = fixture.image.index();
            // Invariants are checked inside.
            if let Ok(changes) = fixture.execute(&command) {
                stream.push(Committed { previous, index: fixture.image.index(), changes });
            }
            log.push((command.encode(), encode_image(&fixture.image)));
        }
        // Whoever reads the log has the same image at each index.
        let mut replayed = start.clone();
        for (index, (bytes, image)) in (1..).zip(&log) {
            replay(&mut replayed, index, bytes);
            prop_assert_eq!(&encode_image(&replayed), image);
        }
        // Whoever follows the stream has the last one too, but for refusals at the end.
        let mut followed = start;
        for committed in &stream {
            // Refused commands are not sent.
            let previous = committed.previous.min(followed.index());
            followed.apply(&Committed { previous, ..committed.clone() }).unwrap();
        }
        followed.skip_to(fixture.image.index());
        prop_assert_eq!(&followed, &fixture.image);
    }
}

fn replay(image: &mut ClusterImage, index: u64, bytes: &[u8]) {
    let command = Command::decode(bytes).unwrap();
    match apply(image, index, &command) {
        Ok(changes) => {
            let previous = image.index();
            image.apply(&Committed { previous, index, changes }).unwrap();
        }
        Err(_) => image.skip_to(index),
    }
}
