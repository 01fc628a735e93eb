//! The cluster's history: what requests become, and that replaying it gives the same cluster.

mod history;

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::request::{
    AlterKind, ConfigAlteration, ConfigChange, ConfigOp, ConfigResource, LastStop, NewPartitions,
    NewTopic, Placement, Register, TopicRef,
};
use levada_protocol::cluster::{BrokerState, DirectoryId, Refusal, RefusalCode};
use levada_record::id::{BrokerId, PartitionId, PartitionIndex, ProducerId, TopicId};

use super::fixture::{Fixture, new_topic, registration, settings, topic_id};
use super::plan::{self, Plan};
use super::policy::{ADDRESSES_MAX, HOST_BYTES_MAX, RACK_BYTES_MAX, SHARDS_MAX};

#[track_caller]
fn refused<T: std::fmt::Debug>(outcome: Result<T, Refusal>, code: RefusalCode) {
    let refusal = outcome.expect_err("is refused");
    assert_eq!(refusal.code, code, "{refusal}");
}

fn plan_topic(fixture: &Fixture, topic: &NewTopic) -> Result<Command, Refusal> {
    let mut plan = Plan::new(&fixture.image, &fixture.policy);
    plan.create_topic(topic, topic_id(&topic.name)).map(|(command, _)| command)
}

fn explicit(name: &str, assignment: &[&[i32]]) -> NewTopic {
    let assignment =
        assignment.iter().map(|brokers| brokers.iter().copied().map(BrokerId).collect()).collect();
    NewTopic { placement: Placement::Explicit(assignment), ..new_topic(name, None, None, &[]) }
}

// ---- topics ----

#[test]
fn a_topic_gets_leaders_shards_and_first_epochs() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.create("orders", 4, 1, &[("retention.ms", "1000")]);
    let topic = fixture.image.topic_named("orders").unwrap();
    assert_eq!(topic.configs, settings(&[("retention.ms", "1000")]));
    let shards: Vec<u16> = topic.partitions.iter().map(|p| p.replicas[0].shard.0).collect();
    assert_eq!(shards, [0, 1, 0, 1]);
    for partition in &topic.partitions {
        assert_eq!(partition.leader, Some(BrokerId(1)));
        assert_eq!(partition.leader_epoch.0, 0);
        assert!(!partition.replicas[0].confirmed);
    }
}

#[test]
fn unsaid_numbers_are_the_clusters_defaults_as_far_as_brokers_reach() {
    for (brokers, replicas) in [(1, 1), (2, 2), (3, 3), (4, 3)] {
        let fixture = Fixture::with_brokers(brokers);
        let Command::CreateTopic { partitions, .. } =
            plan_topic(&fixture, &new_topic("orders", None, None, &[])).unwrap()
        else {
            panic!("creates a topic");
        };
        assert_eq!((partitions.len(), partitions[0].len()), (1, replicas));
    }
}

#[test]
fn names_that_are_taken_illegal_or_look_alike_are_refused() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.create("a.b", 1, 1, &[]);
    let check = |name: &str, code| {
        refused(plan_topic(&fixture, &new_topic(name, Some(1), Some(1), &[])), code);
    };
    check("a.b", RefusalCode::TopicExists);
    check("a_b", RefusalCode::InvalidTopicName);
    check("", RefusalCode::InvalidTopicName);
    check("größe", RefusalCode::InvalidTopicName);
    check(&"x".repeat(250), RefusalCode::InvalidTopicName);
    assert!(plan_topic(&fixture, &new_topic(&"x".repeat(249), Some(1), Some(1), &[])).is_ok());
}

#[test]
fn items_of_one_request_know_of_each_other() {
    let fixture = Fixture::with_brokers(1);
    let mut plan = Plan::new(&fixture.image, &fixture.policy);
    let mut create =
        |name: &str| plan.create_topic(&new_topic(name, Some(1), Some(1), &[]), topic_id(name));
    let (Command::CreateTopic { partitions: first, .. }, _) = create("a").unwrap() else {
        panic!("creates a topic");
    };
    let (Command::CreateTopic { partitions: second, .. }, _) = create("b.c").unwrap() else {
        panic!("creates a topic");
    };
    assert_ne!(first[0][0].shard, second[0][0].shard);
    refused(create("a"), RefusalCode::TopicExists);
    refused(create("b_c"), RefusalCode::InvalidTopicName);
}

#[test]
fn impossible_numbers_of_partitions_and_replicas_are_refused() {
    let fixture = Fixture::with_brokers(2);
    let check = |partitions, replicas, code| {
        let topic = new_topic("orders", Some(partitions), Some(replicas), &[]);
        refused(plan_topic(&fixture, &topic), code);
    };
    check(0, 1, RefusalCode::InvalidPartitions);
    check(-3, 1, RefusalCode::InvalidPartitions);
    check(1, 0, RefusalCode::InvalidReplicationFactor);
    check(1, -2, RefusalCode::InvalidReplicationFactor);
    check(1, 3, RefusalCode::InvalidReplicationFactor);
    let nobody = Fixture::empty();
    let topic = new_topic("orders", None, None, &[]);
    refused(plan_topic(&nobody, &topic), RefusalCode::InvalidReplicationFactor);
}

#[test]
fn the_most_partitions_of_a_topic_and_of_the_cluster_are_reached_exactly() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.policy.max_partitions_per_topic = 6;
    fixture.policy.max_partitions = 10;
    fixture.policy.max_topics = 3;
    let topic = |name, partitions| new_topic(name, Some(partitions), Some(1), &[]);
    refused(plan_topic(&fixture, &topic("a", 7)), RefusalCode::InvalidPartitions);
    fixture.create("a", 6, 1, &[]);
    refused(plan_topic(&fixture, &topic("b", 5)), RefusalCode::LimitReached);
    fixture.create("b", 3, 1, &[]);
    fixture.create("c", 1, 1, &[]);
    refused(plan_topic(&fixture, &topic("d", 1)), RefusalCode::LimitReached);
    let more = |name: &str, total| NewPartitions {
        topic: TopicRef::Name(name.into()),
        total,
        assignment: None,
    };
    let mut plan = Plan::new(&fixture.image, &fixture.policy);
    refused(plan.create_partitions(&more("a", 7)), RefusalCode::InvalidPartitions);
    refused(plan.create_partitions(&more("c", 2)), RefusalCode::LimitReached);
}

#[test]
fn an_image_that_would_not_fit_a_frame_is_never_made() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.policy.max_topics_weight_bytes = 20_000;
    let refusal = (0..1000).find_map(|number| {
        let topic = new_topic(&format!("topic-{number}"), Some(10), Some(1), &[]);
        match plan_topic(&fixture, &topic) {
            Ok(command) => {
                fixture.execute(&command).unwrap();
                None
            }
            Err(refusal) => Some(refusal),
        }
    });
    assert_eq!(refusal.unwrap().code, RefusalCode::LimitReached);
    assert!(fixture.image.topics().len() > 5);
    assert!(fixture.image.weight_bytes() <= 21_000);
}

#[test]
fn explicit_assignments_are_followed_or_refused() {
    let mut fixture = Fixture::with_brokers(3);
    fixture.set_state(3, BrokerState::Fenced);
    let command = plan_topic(&fixture, &explicit("orders", &[&[2, 1], &[3, 2]])).unwrap();
    fixture.execute(&command).unwrap();
    assert_eq!(fixture.partition("orders", 0).leader, Some(BrokerId(2)));
    // Broker 3 comes first but is away.
    assert_eq!(fixture.partition("orders", 1).leader, Some(BrokerId(2)));
    for assignment in [&[&[1, 1][..]][..], &[&[7]], &[&[]], &[&[1, 2], &[1]], &[&[3]]] {
        let topic = explicit("other", assignment);
        refused(plan_topic(&fixture, &topic), RefusalCode::InvalidReplicaAssignment);
    }
    let topic = explicit("other", &[]);
    refused(plan_topic(&fixture, &topic), RefusalCode::InvalidPartitions);
}

#[test]
fn senseless_settings_are_refused_with_their_name() {
    let fixture = Fixture::with_brokers(1);
    let topic = new_topic("orders", Some(1), Some(1), &[("min.insync.replicas", "2")]);
    let refusal = plan_topic(&fixture, &topic).unwrap_err();
    assert_eq!(refusal.code, RefusalCode::InvalidConfig);
    assert_eq!(refusal.subject.as_deref(), Some("min.insync.replicas"));
}

#[test]
fn a_topic_is_deleted_by_name_or_id_and_its_name_is_free_again() {
    let mut fixture = Fixture::with_brokers(1);
    let id = fixture.create("orders", 2, 1, &[]);
    let delete = |fixture: &Fixture, topic: TopicRef| {
        Plan::new(&fixture.image, &fixture.policy).delete_topic(&topic).map(|(command, _)| command)
    };
    let absent = TopicId([8; 16]);
    refused(delete(&fixture, TopicRef::Id(absent)), RefusalCode::UnknownTopicId);
    refused(delete(&fixture, TopicRef::Name("other".into())), RefusalCode::UnknownTopic);
    let command = delete(&fixture, TopicRef::Id(id)).unwrap();
    fixture.execute(&command).unwrap();
    refused(fixture.execute(&command), RefusalCode::UnknownTopic);
    assert_eq!(fixture.image.partition_count(), 0);
    fixture.create("orders", 1, 1, &[]);
    let command = delete(&fixture, TopicRef::Name("orders".into())).unwrap();
    fixture.execute(&command).unwrap();
}

#[test]
fn partitions_are_only_ever_added() {
    let mut fixture = Fixture::with_brokers(1);
    let id = fixture.create("orders", 2, 1, &[]);
    let plan = |fixture: &Fixture, total, assignment| {
        let new = NewPartitions { topic: TopicRef::Id(id), total, assignment };
        Plan::new(&fixture.image, &fixture.policy).create_partitions(&new)
    };
    refused(plan(&fixture, 2, None), RefusalCode::InvalidPartitions);
    refused(plan(&fixture, 1, None), RefusalCode::InvalidPartitions);
    refused(plan(&fixture, -1, None), RefusalCode::InvalidPartitions);
    let one = vec![vec![BrokerId(1)]];
    refused(plan(&fixture, 4, Some(one.clone())), RefusalCode::InvalidReplicaAssignment);
    let command = plan(&fixture, 3, Some(one)).unwrap();
    fixture.execute(&command).unwrap();
    // The same command twice: the topic has three partitions by now.
    refused(fixture.execute(&command), RefusalCode::InvalidPartitions);
    assert_eq!(fixture.partition("orders", 2).leader, Some(BrokerId(1)));
}

#[test]
fn settings_change_only_when_they_differ() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.create("orders", 1, 1, &[]);
    let alter = |fixture: &Fixture, resource: ConfigResource, value: &str| {
        let change =
            ConfigChange { name: "retention.ms".into(), op: ConfigOp::Set(value.to_owned()) };
        let kind = AlterKind::Incremental;
        Plan::new(&fixture.image, &fixture.policy).alter_configs(&ConfigAlteration {
            resource,
            kind,
            changes: vec![change],
        })
    };
    let orders = || ConfigResource::Topic("orders".into());
    let command = alter(&fixture, orders(), "5").unwrap().unwrap();
    fixture.execute(&command).unwrap();
    let topic = fixture.image.topic_named("orders").unwrap();
    assert_eq!(topic.configs, settings(&[("retention.ms", "5")]));
    assert_eq!(alter(&fixture, orders(), "5"), Ok(None));
    let other = ConfigResource::Topic("other".into());
    refused(alter(&fixture, other, "5"), RefusalCode::UnknownTopic);
    let broker = |id| ConfigResource::Broker(Some(BrokerId(id)));
    refused(alter(&fixture, broker(1), "5"), RefusalCode::InvalidConfig);
    refused(alter(&fixture, broker(7), "5"), RefusalCode::UnknownBroker);
    refused(alter(&fixture, ConfigResource::Broker(None), "5"), RefusalCode::InvalidConfig);
}

#[test]
fn a_topic_is_changed_by_one_item_of_a_request_only() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.create("orders", 1, 1, &[]);
    let mut plan = Plan::new(&fixture.image, &fixture.policy);
    let grow =
        |total| NewPartitions { topic: TopicRef::Name("orders".into()), total, assignment: None };
    assert!(plan.create_partitions(&grow(2)).is_ok());
    refused(plan.create_partitions(&grow(3)), RefusalCode::InvalidRequest);
}

// ---- brokers ----

#[test]
fn a_new_process_gets_a_new_epoch_and_leads_in_a_new_reign() {
    let mut fixture = Fixture::with_brokers(1);
    fixture.create("orders", 1, 1, &[]);
    let before = fixture.epoch(1);
    fixture.register(registration(1, 0, 2));
    assert!(before < fixture.epoch(1));
    assert_eq!(fixture.partition("orders", 0).leader, None);
    fixture.set_state(1, BrokerState::Active);
    let partition = fixture.partition("orders", 0);
    assert_eq!(partition.leader, Some(BrokerId(1)));
    assert_eq!(partition.leader_epoch.0, 2);
    let broker = BrokerId(1);
    let stale = Command::SetBrokerState { broker, epoch: before, state: BrokerState::Fenced };
    refused(fixture.execute(&stale), RefusalCode::StaleBrokerEpoch);
}

#[test]
fn fewer_shards_move_the_replicas_that_lost_theirs_and_no_others() {
    let mut fixture = Fixture::empty();
    fixture.add_broker_on_rack(1, 4, None);
    fixture.create("orders", 8, 1, &[]);
    let before: Vec<_> = (0..8).map(|p| fixture.partition("orders", p).clone()).collect();
    fixture.register(registration(1, 0, 2));
    fixture.set_state(1, BrokerState::Active);
    let mut per_shard = [0; 2];
    for (index, before) in (0..8).zip(&before) {
        let after = fixture.partition("orders", index);
        let shard = after.replicas[0].shard;
        per_shard[usize::from(shard.0)] += 1;
        if before.replicas[0].shard.0 < 2 {
            assert_eq!(before.replicas[0].shard, shard);
        } else {
            assert!(before.leader_epoch.0 + 2 < after.leader_epoch.0);
        }
    }
    assert_eq!(per_shard, [4, 4]);
    // More shards again: nothing moves by itself.
    let before: Vec<_> = (0..8).map(|p| fixture.partition("orders", p).replicas.clone()).collect();
    fixture.register(registration(1, 0, 4));
    let after: Vec<_> = (0..8).map(|p| fixture.partition("orders", p).replicas.clone()).collect();
    assert_eq!(before, after);
}

#[test]
fn an_unnamed_broker_gets_the_id_of_its_directory_or_a_new_one() {
    let mut fixture = Fixture::with_brokers(2);
    let unnamed = |directory: u8| Register {
        broker: None,
        directory: DirectoryId([directory; 16]),
        ..registration(9, 9, 1)
    };
    let id = |fixture: &Fixture, register: &Register| {
        plan::register(&fixture.image, register).unwrap().0.0
    };
    assert_eq!(id(&fixture, &unnamed(2)), 2);
    assert_eq!(id(&fixture, &unnamed(7)), 3);
    fixture.register(unnamed(7));
    assert_eq!(id(&fixture, &unnamed(7)), 3);
    assert_eq!(id(&fixture, &unnamed(8)), 4);
}

#[test]
fn two_processes_cannot_share_an_id_nor_two_ids_a_directory() {
    let mut fixture = Fixture::with_brokers(2);
    let other_disk = Register { directory: DirectoryId([77; 16]), ..registration(1, 9, 2) };
    refused(plan::register(&fixture.image, &other_disk), RefusalCode::DuplicateBroker);
    fixture.set_state(1, BrokerState::Fenced);
    assert!(plan::register(&fixture.image, &other_disk).is_ok());
    let other_id = Register { broker: Some(BrokerId(5)), ..registration(2, 9, 2) };
    refused(plan::register(&fixture.image, &other_id), RefusalCode::DuplicateBroker);
}

#[test]
fn a_registration_beyond_any_limit_is_refused() {
    let fixture = Fixture::empty();
    let check = |change: fn(&mut Register)| {
        let mut register = registration(1, 1, 1);
        change(&mut register);
        refused(plan::register(&fixture.image, &register), RefusalCode::InvalidRequest);
    };
    check(|register| register.shards = 0);
    check(|register| register.shards = SHARDS_MAX + 1);
    check(|register| register.addresses.clear());
    check(|register| register.addresses = vec![register.addresses[0].clone(); ADDRESSES_MAX + 1]);
    check(|register| register.addresses[0].port = 0);
    check(|register| register.addresses[0].host = String::new());
    check(|register| register.addresses[0].host = "h".repeat(HOST_BYTES_MAX + 1));
    check(|register| register.addresses[0].listener = "l".repeat(65));
    check(|register| register.rack = Some("r".repeat(RACK_BYTES_MAX + 1)));
    check(|register| register.directory = DirectoryId([0; 16]));
    let mut largest = registration(1, 1, SHARDS_MAX);
    largest.addresses = vec![largest.addresses[0].clone(); ADDRESSES_MAX];
    assert!(plan::register(&fixture.image, &largest).is_ok());
}

#[test]
fn the_most_brokers_are_reached_exactly() {
    let mut fixture = Fixture::empty();
    let with_directory = |id: i32| Register {
        directory: DirectoryId(std::array::from_fn(|at| {
            id.to_be_bytes().get(at).copied().unwrap_or(1)
        })),
        ..Register { broker: Some(BrokerId(id)), ..registration(1, 1, 1) }
    };
    for id in 1..=256 {
        let (_, command) = plan::register(&fixture.image, &with_directory(id)).unwrap();
        fixture.execute(&command).unwrap();
    }
    refused(plan::register(&fixture.image, &with_directory(257)), RefusalCode::LimitReached);
    assert!(plan::register(&fixture.image, &with_directory(256)).is_ok());
}

#[test]
fn a_draining_broker_keeps_what_nobody_else_can_lead() {
    let mut fixture = Fixture::with_brokers(2);
    fixture.create("alone", 2, 1, &[]);
    fixture.create("shared", 2, 2, &[]);
    fixture.set_state(1, BrokerState::Draining);
    let leaders: Vec<i32> = ["alone", "shared"]
        .iter()
        .flat_map(|name| (0..2).map(|p| fixture.partition(name, p).leader.unwrap().0))
        .collect();
    assert_eq!(leaders[2..], [2, 2]);
    assert!(leaders[..2].contains(&1));
    fixture.set_state(1, BrokerState::Fenced);
    assert!(
        fixture.image.topics().flat_map(|t| &t.partitions).all(|p| p.leader != Some(BrokerId(1)))
    );
}

#[test]
fn a_clean_restart_keeps_a_replica_electable_where_an_unclean_one_does_not() {
    for (last_stop, electable) in [(LastStop::Clean, true), (LastStop::Unclean, false)] {
        let mut fixture = Fixture::with_brokers(2);
        fixture.create("orders", 1, 2, &[("durability", "replicated")]);
        fixture.set_state(2, BrokerState::Fenced);
        fixture.register(Register { last_stop, ..registration(1, 0, 2) });
        let partition = fixture.partition("orders", 0);
        assert_eq!(partition.elr.contains(&BrokerId(1)), electable, "{last_stop:?}");
        fixture.set_state(1, BrokerState::Active);
        assert_eq!(fixture.partition("orders", 0).leader.is_some(), electable);
    }
}

// ---- producer ids, confirmations ----

#[test]
fn producer_ids_are_handed_out_once() {
    let mut fixture = Fixture::with_brokers(1);
    for expected in [1000, 2000] {
        let allocate = Command::AllocateProducerIds {
            broker: BrokerId(1),
            epoch: fixture.epoch(1),
            count: 1000,
        };
        fixture.execute(&allocate).unwrap();
        assert_eq!(fixture.image.next_producer_id(), ProducerId(expected));
    }
}

#[test]
fn a_replica_is_confirmed_once_by_the_broker_that_holds_it() {
    let mut fixture = Fixture::with_brokers(2);
    let topic = fixture.create("orders", 2, 1, &[]);
    let holder = fixture.partition("orders", 0).replicas[0].broker;
    let partition = PartitionId { topic, index: PartitionIndex(0) };
    let absent = PartitionId { topic, index: PartitionIndex(9) };
    for broker in [1, 2] {
        let confirm = Command::ConfirmReplicas {
            broker: BrokerId(broker),
            epoch: fixture.epoch(broker),
            partitions: vec![partition, absent],
        };
        let changes = fixture.execute(&confirm).unwrap();
        assert_eq!(changes.is_empty(), BrokerId(broker) != holder);
        assert!(fixture.execute(&confirm).unwrap().is_empty());
    }
    let partition = fixture.partition("orders", 0);
    assert!(partition.replicas[0].confirmed);
    assert_eq!(partition.leader_epoch.0, 0);
    assert!(!fixture.partition("orders", 1).replicas[0].confirmed);
}
