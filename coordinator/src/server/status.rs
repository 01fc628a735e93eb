//! How the cluster is: counted for people, from the image and the leases.

use std::collections::BTreeMap;

use levada_protocol::cluster::BrokerState;
use levada_protocol::cluster::reply::{BrokerStatus, Member, MemberRole, Status};
use levada_record::id::BrokerId;

use super::Server;

#[derive(Debug, Default)]
struct Counts {
    leaderless: u32,
    out_of_sync: u32,
    unconfirmed: u32,
    /// Per broker: replicas, leaderships.
    brokers: BTreeMap<BrokerId, (u32, u32)>,
}

impl Server {
    /// How the cluster is. O(replicas).
    pub(super) fn status(&self) -> Status {
        let counts = self.counts();
        let storage = self.consensus.storage();
        let brokers = self
            .image
            .brokers()
            .map(|broker| {
                let lease =
                    self.leases.lease(broker.id).filter(|lease| lease.epoch == broker.epoch);
                let (replicas, leaders) =
                    counts.brokers.get(&broker.id).copied().unwrap_or_default();
                BrokerStatus {
                    broker: broker.clone(),
                    lease_age_ms: lease.map(|lease| self.now_ms.saturating_sub(lease.heard_ms)),
                    seen_index: lease.map_or(0, |lease| lease.seen_index),
                    replicas,
                    leaders,
                }
            })
            .collect();
        Status {
            cluster: self.cluster(),
            cluster_name: self.config.cluster_name.clone(),
            controller: self.config.id,
            term: self.consensus.term(),
            members: vec![Member {
                id: self.config.id,
                address: self.address.clone(),
                role: MemberRole::Controller,
            }],
            index: self.image.index(),
            snapshot_index: storage.snapshot_index(),
            log_bytes: storage.log_bytes(),
            brokers,
            topics: count(self.image.topics().len()),
            partitions: count(self.image.partition_count()),
            leaderless: counts.leaderless,
            out_of_sync: counts.out_of_sync,
            unconfirmed: counts.unconfirmed,
            uptime_ms: self.now_ms,
        }
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for topic in self.image.topics() {
            for partition in &topic.partitions {
                counts.leaderless += u32::from(partition.leader.is_none());
                counts.out_of_sync += u32::from(partition.isr.len() < partition.replicas.len());
                for replica in &partition.replicas {
                    counts.unconfirmed += u32::from(!replica.confirmed);
                    let (replicas, leaders) = counts.brokers.entry(replica.broker).or_default();
                    *replicas += 1;
                    *leaders += u32::from(partition.leader == Some(replica.broker));
                }
            }
        }
        counts
    }

    /// Brings the gauges up to date. O(replicas) only when the image moved.
    pub(super) fn update_metrics(&self) {
        let metrics = &self.metrics;
        let storage = self.consensus.storage();
        metrics.snapshot_index.set(storage.snapshot_index());
        metrics.log_bytes.set(storage.log_bytes());
        if metrics.index.get() == self.image.index() {
            return;
        }
        metrics.index.set(self.image.index());
        metrics.image_bytes.set(u64::from(count(self.image.weight_bytes())));
        metrics.topics.set(u64::from(count(self.image.topics().len())));
        metrics.partitions.set(u64::from(count(self.image.partition_count())));
        metrics.leaderless.set(u64::from(self.counts().leaderless));
        let brokers = self.image.brokers();
        let fenced = brokers.clone().filter(|broker| broker.state == BrokerState::Fenced).count();
        metrics.brokers_fenced.set(u64::from(count(fenced)));
        metrics.brokers_alive.set(u64::from(count(brokers.len() - fenced)));
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
