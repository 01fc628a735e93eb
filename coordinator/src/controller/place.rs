//! Replicas onto brokers and shards. `[P]`
//!
//! Each replica goes to the broker with the least of them, on a rack that has none of the partition
//! yet if there is one; the first replica, which leads, to the broker that leads least. On the
//! broker it goes to the shard with the least.

use std::collections::BTreeMap;

use levada_protocol::cluster::command::PlacedReplica;
use levada_protocol::cluster::{BrokerImage, BrokerState, ClusterImage};
use levada_record::id::{BrokerId, ShardIndex};

/// What one broker carries.
#[derive(Debug, Clone)]
struct Load {
    rack: Option<String>,
    state: BrokerState,
    /// Partitions whose preferred leader it is.
    preferred: u32,
    replicas: u32,
    /// Replicas per shard.
    shards: Vec<u32>,
}

/// How loaded every broker is. Placing counts, so one value serves a whole request.
#[derive(Debug, Clone)]
pub struct Loads {
    brokers: BTreeMap<BrokerId, Load>,
}

impl Loads {
    /// The loads of an image. O(replicas).
    pub fn of(image: &ClusterImage) -> Self {
        let brokers = image.brokers().map(|broker| (broker.id, Load::none(broker))).collect();
        let mut loads = Self { brokers };
        for topic in image.topics() {
            for partition in &topic.partitions {
                for (position, replica) in partition.replicas.iter().enumerate() {
                    loads.count(replica.broker, replica.shard, position);
                }
            }
        }
        loads
    }

    /// The loads of an image once `broker` has registered: its replicas on shards that it no longer
    /// has are not counted, they are about to be placed.
    pub fn without_orphans(image: &ClusterImage, broker: &BrokerImage) -> Self {
        let mut loads = Self { brokers: BTreeMap::from([(broker.id, Load::none(broker))]) };
        for (_, _, replica) in image.replicas_on(broker.id) {
            if replica.shard.0 < broker.shards {
                loads.count(replica.broker, replica.shard, 1);
            }
        }
        loads
    }

    /// Brokers that may get replicas.
    pub fn live_count(&self) -> usize {
        self.brokers.values().filter(|load| load.is_live()).count()
    }

    /// Whether `broker` may get replicas; `None` when there is no such broker.
    pub fn is_live(&self, broker: BrokerId) -> Option<bool> {
        self.brokers.get(&broker).map(Load::is_live)
    }

    /// Places one partition on `replication_factor` live brokers, fewer when there are fewer.
    pub fn place(&mut self, replication_factor: usize) -> Vec<PlacedReplica> {
        let mut chosen: Vec<BrokerId> =
            Vec::with_capacity(replication_factor.min(self.brokers.len()));
        while chosen.len() < replication_factor {
            let is_leader = chosen.is_empty();
            let best = self
                .brokers
                .iter()
                .filter(|(id, load)| load.is_live() && !chosen.contains(id))
                .min_by_key(|(id, load)| {
                    let on_rack = load.rack.as_ref().map_or(0, |rack| self.on_rack(rack, &chosen));
                    let preferred = if is_leader { load.preferred } else { 0 };
                    (on_rack, preferred, load.replicas, **id)
                })
                .map(|(id, _)| *id);
            match best {
                Some(broker) => chosen.push(broker),
                None => break,
            }
        }
        self.assign(&chosen)
    }

    /// Gives each of `brokers`, preferred leader first, a shard. Unknown brokers are left out.
    pub fn assign(&mut self, brokers: &[BrokerId]) -> Vec<PlacedReplica> {
        let mut placed = Vec::with_capacity(brokers.len());
        for broker in brokers {
            if let Some(shard) = self.least_loaded_shard(*broker) {
                self.count(*broker, shard, placed.len());
                placed.push(PlacedReplica { broker: *broker, shard });
            }
        }
        placed
    }

    /// The shard of `broker` with the fewest replicas, the lowest of several.
    pub fn least_loaded_shard(&self, broker: BrokerId) -> Option<ShardIndex> {
        let shards = &self.brokers.get(&broker)?.shards;
        let (index, _) = shards.iter().enumerate().min_by_key(|(_, replicas)| **replicas)?;
        u16::try_from(index).ok().map(ShardIndex)
    }

    /// Counts a replica; `position` 0 is the preferred leader's.
    pub fn count(&mut self, broker: BrokerId, shard: ShardIndex, position: usize) {
        if let Some(load) = self.brokers.get_mut(&broker) {
            load.replicas += 1;
            load.preferred += u32::from(position == 0);
            // A replica on a shard that is no more is on no shard.
            if let Some(replicas) = load.shards.get_mut(usize::from(shard.0)) {
                *replicas += 1;
            }
        }
    }

    fn on_rack(&self, rack: &str, chosen: &[BrokerId]) -> usize {
        let racks = chosen.iter().filter_map(|broker| self.brokers.get(broker)?.rack.as_deref());
        racks.filter(|other| *other == rack).count()
    }
}

impl Load {
    fn none(broker: &BrokerImage) -> Self {
        Self {
            rack: broker.rack.clone(),
            state: broker.state,
            preferred: 0,
            replicas: 0,
            shards: vec![0; usize::from(broker.shards)],
        }
    }

    fn is_live(&self) -> bool {
        self.state == BrokerState::Active
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixture::Fixture;

    fn brokers(placed: &[PlacedReplica]) -> Vec<i32> {
        placed.iter().map(|replica| replica.broker.0).collect()
    }

    #[test]
    fn leaders_replicas_and_shards_are_spread_evenly() {
        let fixture = Fixture::with_brokers(3);
        let mut loads = Loads::of(&fixture.image);
        for _ in 0..12 {
            let placed = loads.place(2);
            assert_eq!(placed.len(), 2);
            assert_ne!(placed[0].broker, placed[1].broker);
        }
        for load in loads.brokers.values() {
            assert_eq!((load.preferred, load.replicas), (4, 8));
            assert_eq!(load.shards, [4, 4]);
        }
    }

    #[test]
    fn replicas_of_a_partition_go_to_different_racks_while_there_are_some() {
        let mut fixture = Fixture::empty();
        for (id, rack) in [(1, "a"), (2, "a"), (3, "a"), (4, "b")] {
            fixture.add_broker_on_rack(id, 2, Some(rack));
        }
        let mut loads = Loads::of(&fixture.image);
        for _ in 0..8 {
            let placed = brokers(&loads.place(2));
            assert!(placed.contains(&4), "{placed:?} is all on rack a");
        }
        assert_eq!(loads.place(4).len(), 4);
    }

    #[test]
    fn fenced_and_draining_brokers_get_nothing() {
        let mut fixture = Fixture::with_brokers(3);
        fixture.set_state(1, BrokerState::Fenced);
        fixture.set_state(2, BrokerState::Draining);
        let mut loads = Loads::of(&fixture.image);
        assert_eq!(loads.live_count(), 1);
        assert_eq!(brokers(&loads.place(3)), [3]);
    }
}
