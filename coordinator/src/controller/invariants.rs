//! What every image must fulfil, and every step from one to the next.

use std::collections::BTreeSet;

use levada_protocol::cluster::{BrokerState, ClusterImage};
use levada_record::id::BrokerId;

use super::elect::ElectionRules;

/// Panics unless `image` is one that may be.
#[track_caller]
pub(crate) fn check(image: &ClusterImage) {
    let mut partitions = 0;
    for topic in image.topics() {
        assert_eq!(image.topic_named(topic.name.as_str()).map(|t| t.id), Some(topic.id));
        let rules = ElectionRules::of(&topic.configs);
        for (position, partition) in topic.partitions.iter().enumerate() {
            let at = format!("{}-{position}: {partition:?}", topic.name);
            partitions += 1;
            assert_eq!(usize::try_from(partition.index.0), Ok(position), "{at}");
            let replicas: BTreeSet<BrokerId> =
                partition.replicas.iter().map(|replica| replica.broker).collect();
            assert_eq!(replicas.len(), partition.replicas.len(), "replicas twice: {at}");
            assert!(!replicas.is_empty(), "no replica: {at}");
            for replica in &partition.replicas {
                let broker = image.broker(replica.broker).expect(&at);
                assert!(replica.shard.0 < broker.shards, "shard that is not there: {at}");
            }
            let isr: BTreeSet<BrokerId> = partition.isr.iter().copied().collect();
            let elr: BTreeSet<BrokerId> = partition.elr.iter().copied().collect();
            assert_eq!(isr.len(), partition.isr.len(), "ISR member twice: {at}");
            assert_eq!(elr.len(), partition.elr.len(), "ELR member twice: {at}");
            assert!(isr.is_subset(&replicas), "ISR beyond replicas: {at}");
            assert!(elr.is_subset(&replicas), "ELR beyond replicas: {at}");
            assert!(isr.is_disjoint(&elr), "ISR and ELR overlap: {at}");
            if rules.min_insync(replicas.len()) <= isr.len() {
                assert!(elr.is_empty(), "ELR beside a large enough ISR: {at}");
            }
            for member in &isr {
                let state = image.broker(*member).expect(&at).state;
                assert_ne!(state, BrokerState::Fenced, "fenced broker in ISR: {at}");
            }
            if let Some(leader) = partition.leader {
                assert!(isr.contains(&leader), "leader out of ISR: {at}");
            } else {
                assert!(isr.is_empty(), "in sync with nobody: {at}");
                for member in &elr {
                    let state = image.broker(*member).expect(&at).state;
                    assert_ne!(state, BrokerState::Active, "could lead but does not: {at}");
                }
            }
        }
    }
    assert_eq!(partitions, image.partition_count());
    let encoded = levada_protocol::cluster::encode_image(image).len();
    assert!(encoded <= image.weight_bytes(), "{encoded} B, weight {}", image.weight_bytes());
}

/// Panics unless `after` may follow `before`.
#[track_caller]
pub(crate) fn check_step(before: &ClusterImage, after: &ClusterImage) {
    assert!(before.index() < after.index());
    assert!(before.next_producer_id() <= after.next_producer_id());
    for old in before.brokers() {
        let new = after.broker(old.id).expect("brokers are never forgotten");
        assert!(old.epoch <= new.epoch, "broker epoch goes back");
        if old.incarnation != new.incarnation {
            assert!(old.epoch < new.epoch, "a new process under the old epoch");
        }
    }
    for old in before.topics() {
        let Some(new) = after.topic(old.id) else { continue };
        assert_eq!(old.name, new.name);
        assert!(old.partitions.len() <= new.partitions.len(), "partitions vanish");
        for (old, new) in old.partitions.iter().zip(&new.partitions) {
            let step = format!("{old:?} to {new:?}");
            assert!(old.leader_epoch <= new.leader_epoch, "leader epoch goes back: {step}");
            if old != new {
                assert!(old.partition_epoch < new.partition_epoch, "same epoch: {step}");
            }
            if old.leader != new.leader {
                assert!(old.leader_epoch < new.leader_epoch, "same reign: {step}");
            }
            // Whoever may hold a committed record alone must stay electable, or lead.
            if let (Some(leader), None) = (old.leader, new.leader) {
                let kept = new.elr.contains(&leader) || new.replicas.len() > 1;
                assert!(kept, "the only replica is forgotten: {step}");
            }
        }
    }
}
