//! Who leads a partition when a broker comes or goes. `[P]`
//!
//! The ISR holds the replicas that count for a commit. A replica that leaves it while fewer than
//! min.insync.replicas remain goes to the ELR: nothing can be committed without it from then on, so
//! it still holds everything committed and may be elected. Source: KIP-966.

use std::collections::BTreeMap;

use levada_protocol::cluster::PartitionImage;
use levada_record::id::BrokerId;

/// Settings of a topic that elections depend on, read without judging them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ElectionRules {
    min_insync: Option<usize>,
    /// Whether an acknowledged record may be lost with a process that did not stop cleanly.
    pub durability: AckedOn,
}

/// What holds an acknowledged record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AckedOn {
    /// Stable storage: a killed process loses none.
    StableStorage,
    /// Perhaps only the device's cache: a machine that lost power may have lost some.
    DeviceCache,
}

impl ElectionRules {
    /// The rules that a topic with these settings has.
    pub fn of(configs: &BTreeMap<String, String>) -> Self {
        let min_insync = configs.get("min.insync.replicas").and_then(|value| value.parse().ok());
        let durability = match configs.get("durability").map(String::as_str) {
            Some("replicated") => AckedOn::DeviceCache,
            _ => AckedOn::StableStorage,
        };
        Self { min_insync, durability }
    }

    /// In-sync replicas that a commit needs, for a partition of `replicas`: at least 1, at most all.
    pub fn min_insync(self, replicas: usize) -> usize {
        self.min_insync.unwrap_or(replicas / 2 + 1).clamp(1, replicas.max(1))
    }
}

/// What is known of the records of a broker that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// Nothing speaks against them.
    RecordsKept,
    /// Its process came back without having stopped cleanly.
    Unclean,
}

/// The partition once `gone` counts no longer, or `None` when that changes nothing.
/// `may_lead` tells which brokers can take over.
pub fn without_broker(
    partition: &PartitionImage,
    gone: BrokerId,
    departure: Departure,
    rules: ElectionRules,
    may_lead: impl Fn(BrokerId) -> bool,
) -> Option<PartitionImage> {
    partition.replica_on(gone)?;
    let mut next = partition.clone();
    next.isr.retain(|member| *member != gone);
    update_elr(&mut next, &partition.isr, rules);
    let lost = departure == Departure::Unclean
        && rules.durability == AckedOn::DeviceCache
        // Of a single replica nobody else can know more.
        && 1 < partition.replicas.len();
    if lost {
        next.elr.retain(|member| *member != gone);
    }
    if next.leader == Some(gone) {
        elect(&mut next, rules, |broker| broker != gone && may_lead(broker));
    }
    changed(partition, next)
}

/// The partition once `leaving`, which is alive and about to stop, has handed over what others can
/// take; `None` when that changes nothing. It stays leader where nobody else is in sync.
pub fn without_draining(
    partition: &PartitionImage,
    leaving: BrokerId,
    rules: ElectionRules,
    may_lead: impl Fn(BrokerId) -> bool,
) -> Option<PartitionImage> {
    let others_can = partition.isr.iter().any(|member| *member != leaving && may_lead(*member));
    if !others_can {
        return None;
    }
    without_broker(partition, leaving, Departure::RecordsKept, rules, may_lead)
}

/// The partition once somebody who was away may lead again; `None` when that changes nothing.
pub fn with_candidates(
    partition: &PartitionImage,
    rules: ElectionRules,
    may_lead: impl Fn(BrokerId) -> bool,
) -> Option<PartitionImage> {
    if partition.leader.is_some() {
        return None;
    }
    let mut next = partition.clone();
    elect(&mut next, rules, may_lead);
    changed(partition, next)
}

/// The partition once its topic has other rules; `None` when that changes nothing.
pub fn with_rules(partition: &PartitionImage, rules: ElectionRules) -> Option<PartitionImage> {
    let mut next = partition.clone();
    update_elr(&mut next, &partition.isr, rules);
    changed(partition, next)
}

/// Gives a new partition, all of whose replicas are equally complete, its ISR and leader.
pub fn begin(
    partition: &mut PartitionImage,
    rules: ElectionRules,
    may_lead: impl Fn(BrokerId) -> bool,
) {
    let all: Vec<BrokerId> = partition.replicas.iter().map(|replica| replica.broker).collect();
    partition.isr = all.iter().copied().filter(|broker| may_lead(*broker)).collect();
    partition.leader = partition.isr.first().copied();
    update_elr(partition, &all, rules);
}

/// Elects from the ISR, else from the ELR, in the order of the replicas; nobody otherwise.
fn elect(
    partition: &mut PartitionImage,
    rules: ElectionRules,
    may_lead: impl Fn(BrokerId) -> bool,
) {
    let before = partition.leader;
    let first_of = |members: &[BrokerId]| {
        let in_order = partition.replicas.iter().map(|replica| replica.broker);
        in_order.into_iter().find(|broker| members.contains(broker) && may_lead(*broker))
    };
    if let Some(leader) = first_of(&partition.isr) {
        partition.leader = Some(leader);
    } else if let Some(leader) = first_of(&partition.elr) {
        let isr_before = std::mem::replace(&mut partition.isr, vec![leader]);
        partition.leader = Some(leader);
        update_elr(partition, &isr_before, rules);
    } else {
        partition.leader = None;
    }
    if partition.leader != before {
        partition.leader_epoch = partition.leader_epoch.next();
    }
}

/// Whoever left an ISR that became too small is kept; a large enough ISR needs nobody else.
fn update_elr(partition: &mut PartitionImage, isr_before: &[BrokerId], rules: ElectionRules) {
    if rules.min_insync(partition.replicas.len()) <= partition.isr.len() {
        partition.elr.clear();
        return;
    }
    let PartitionImage { isr, elr, .. } = partition;
    for member in isr_before {
        if !elr.contains(member) {
            elr.push(*member);
        }
    }
    elr.retain(|member| !isr.contains(member));
}

fn changed(before: &PartitionImage, mut after: PartitionImage) -> Option<PartitionImage> {
    if *before == after {
        return None;
    }
    after.partition_epoch = before.partition_epoch.next();
    Some(after)
}

#[cfg(test)]
mod tests;
