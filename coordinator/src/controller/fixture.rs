//! A cluster for tests, reached by real commands: every state in a test is one that can be.

use std::collections::BTreeMap;

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::request::{LastStop, NewTopic, Placement, Register};
use levada_protocol::cluster::{
    Address, BrokerEpoch, BrokerState, Change, ClusterId, ClusterImage, Committed, DirectoryId,
    Incarnation, PartitionImage, Refusal,
};
use levada_record::id::{BrokerId, PartitionIndex, TopicId};

use super::apply::apply;
use super::invariants;
use super::plan::{self, Plan};
use super::policy::Policy;

/// An image that grows by commands.
#[derive(Debug, Clone)]
pub(crate) struct Fixture {
    pub(crate) image: ClusterImage,
    pub(crate) policy: Policy,
    incarnations: u8,
}

pub(crate) fn registration(id: i32, incarnation: u8, shards: u16) -> Register {
    Register {
        broker: Some(BrokerId(id)),
        incarnation: Incarnation([incarnation.max(1); 16]),
        directory: DirectoryId([u8::try_from(id).unwrap(); 16]),
        addresses: vec![Address { listener: "kafka".into(), host: "127.0.0.1".into(), port: 9092 }],
        rack: None,
        shards,
        last_stop: LastStop::Unclean,
    }
}

impl Fixture {
    pub(crate) fn empty() -> Self {
        let image = ClusterImage::empty(ClusterId([9; 16]));
        Self { image, policy: Policy::default(), incarnations: 0 }
    }

    /// Brokers 1 to `count`, active, of two shards each.
    pub(crate) fn with_brokers(count: i32) -> Self {
        let mut fixture = Self::empty();
        for id in 1..=count {
            fixture.add_broker_on_rack(id, 2, None);
        }
        fixture
    }

    pub(crate) fn add_broker_on_rack(&mut self, id: i32, shards: u16, rack: Option<&str>) {
        let rack = rack.map(str::to_owned);
        self.register(Register { rack, ..registration(id, 0, shards) });
        self.set_state(id, BrokerState::Active);
    }

    /// Registers a new process.
    pub(crate) fn register(&mut self, mut register: Register) {
        self.incarnations += 1;
        register.incarnation = Incarnation([self.incarnations; 16]);
        let (_, command) = plan::register(&self.image, &register).unwrap();
        self.execute(&command).unwrap();
    }

    pub(crate) fn set_state(&mut self, id: i32, state: BrokerState) {
        let broker = BrokerId(id);
        let epoch = self.epoch(id);
        self.execute(&Command::SetBrokerState { broker, epoch, state }).unwrap();
    }

    pub(crate) fn epoch(&self, id: i32) -> BrokerEpoch {
        self.image.broker(BrokerId(id)).unwrap().epoch
    }

    /// Plans and creates; the id is made of the name.
    pub(crate) fn create(
        &mut self,
        name: &str,
        partitions: i32,
        replicas: i32,
        configs: &[(&str, &str)],
    ) -> TopicId {
        let topic = new_topic(name, Some(partitions), Some(replicas), configs);
        let id = topic_id(name);
        let (command, _) = Plan::new(&self.image, &self.policy).create_topic(&topic, id).unwrap();
        self.execute(&command).unwrap();
        id
    }

    /// Applies as the next entry, and checks what must always hold.
    pub(crate) fn execute(&mut self, command: &Command) -> Result<Vec<Change>, Refusal> {
        let before = self.image.clone();
        let index = self.image.index() + 1;
        let outcome = apply(&self.image, index, command);
        match &outcome {
            Ok(changes) => {
                let previous = self.image.index();
                let committed = Committed { previous, index, changes: changes.clone() };
                self.image.apply(&committed).unwrap();
            }
            Err(_) => self.image.skip_to(index),
        }
        invariants::check(&self.image);
        invariants::check_step(&before, &self.image);
        outcome
    }

    pub(crate) fn partition(&self, name: &str, index: i32) -> &PartitionImage {
        let topic = self.image.topic_named(name).unwrap();
        topic.partition(PartitionIndex(index)).unwrap()
    }
}

pub(crate) fn topic_id(name: &str) -> TopicId {
    let mut id = [b'-'; 16];
    for (to, from) in id.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    TopicId(id)
}

pub(crate) fn new_topic(
    name: &str,
    partitions: Option<i32>,
    replication_factor: Option<i32>,
    configs: &[(&str, &str)],
) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        id: None,
        placement: Placement::Automatic { partitions, replication_factor },
        configs: configs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
    }
}

pub(crate) fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}
