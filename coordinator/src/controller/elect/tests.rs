//! Elections, told as what a partition looks like before and after.

use levada_protocol::cluster::{PartitionEpoch, ReplicaImage};
use levada_record::epoch::LeaderEpoch;
use levada_record::id::{PartitionIndex, ShardIndex};

use super::*;

fn ids(numbers: &[i32]) -> Vec<BrokerId> {
    numbers.iter().copied().map(BrokerId).collect()
}

fn partition(replicas: &[i32], leader: i32, isr: &[i32], elr: &[i32]) -> PartitionImage {
    PartitionImage {
        index: PartitionIndex(0),
        replicas: ids(replicas)
            .into_iter()
            .map(|broker| ReplicaImage { broker, shard: ShardIndex(0), confirmed: true })
            .collect(),
        leader: (leader != 0).then_some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: PartitionEpoch(9),
        isr: ids(isr),
        elr: ids(elr),
    }
}

fn rules(settings: &[(&str, &str)]) -> ElectionRules {
    let configs =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    ElectionRules::of(&configs)
}

#[track_caller]
fn check(
    next: Option<PartitionImage>,
    leader: i32,
    isr: &[i32],
    elr: &[i32],
    epochs: (i32, i32),
) -> PartitionImage {
    let next = next.expect("something changes");
    assert_eq!(next.leader, (leader != 0).then_some(BrokerId(leader)), "leader");
    assert_eq!(next.isr, ids(isr), "isr");
    assert_eq!(next.elr, ids(elr), "elr");
    assert_eq!((next.leader_epoch.0, next.partition_epoch.0), epochs, "epochs");
    next
}

#[test]
fn a_single_replica_is_leaderless_while_it_is_away_and_leads_again() {
    let start = partition(&[1], 1, &[1], &[]);
    let away = without_broker(&start, BrokerId(1), Departure::RecordsKept, rules(&[]), |_| false);
    let away = check(away, 0, &[], &[1], (6, 10));
    let back = with_candidates(&away, rules(&[]), |_| true);
    check(back, 1, &[1], &[], (7, 11));
}

#[test]
fn the_next_in_sync_replica_takes_over_in_the_order_of_the_replicas() {
    let start = partition(&[1, 2, 3], 1, &[3, 1, 2], &[]);
    let next = without_broker(&start, BrokerId(1), Departure::RecordsKept, rules(&[]), |_| true);
    check(next, 2, &[3, 2], &[], (6, 10));
    let next =
        without_broker(&start, BrokerId(1), Departure::RecordsKept, rules(&[]), |b| b.0 == 3);
    check(next, 3, &[3, 2], &[], (6, 10));
}

#[test]
fn a_follower_that_goes_leaves_the_leader_and_its_epoch_alone() {
    let start = partition(&[1, 2, 3], 1, &[1, 2, 3], &[]);
    let next = without_broker(&start, BrokerId(3), Departure::RecordsKept, rules(&[]), |_| true);
    check(next, 1, &[1, 2], &[], (5, 10));
}

#[test]
fn whoever_leaves_a_too_small_isr_may_still_be_elected() {
    let start = partition(&[1, 2, 3], 1, &[1, 2], &[]);
    let one = without_broker(&start, BrokerId(2), Departure::RecordsKept, rules(&[]), |b| b.0 == 1);
    let one = check(one, 1, &[1], &[2], (5, 10));
    let none = without_broker(&one, BrokerId(1), Departure::RecordsKept, rules(&[]), |_| false);
    let none = check(none, 0, &[], &[2, 1], (6, 11));
    // Broker 3 was out before the ISR became too small: it may lack committed records.
    assert_eq!(with_candidates(&none, rules(&[]), |b| b.0 == 3), None);
    let back = with_candidates(&none, rules(&[]), |b| b.0 == 2);
    check(back, 2, &[2], &[1], (7, 12));
}

#[test]
fn an_isr_that_is_large_enough_again_forgets_the_elr() {
    let start = partition(&[1, 2, 3], 1, &[1], &[2]);
    let lower = with_rules(&start, rules(&[("min.insync.replicas", "1")]));
    check(lower, 1, &[1], &[], (5, 10));
    assert_eq!(with_rules(&partition(&[1, 2], 1, &[1, 2], &[]), rules(&[])), None);
}

#[test]
fn with_replicated_durability_an_unclean_restart_proves_nothing() {
    let replicated = rules(&[("durability", "replicated")]);
    let start = partition(&[1, 2], 0, &[], &[1, 2]);
    let next = without_broker(&start, BrokerId(1), Departure::Unclean, replicated, |_| false);
    check(next, 0, &[], &[2], (5, 10));
    // On stable storage nothing acknowledged was lost.
    assert_eq!(
        without_broker(&start, BrokerId(1), Departure::Unclean, rules(&[]), |_| false),
        None
    );
    // A single replica is all there is.
    let single = partition(&[1], 0, &[], &[1]);
    assert_eq!(
        without_broker(&single, BrokerId(1), Departure::Unclean, replicated, |_| false),
        None
    );
}

#[test]
fn a_draining_broker_hands_over_only_what_others_can_take() {
    let shared = partition(&[1, 2], 1, &[1, 2], &[]);
    let next = without_draining(&shared, BrokerId(1), rules(&[]), |b| b.0 == 2);
    check(next, 2, &[2], &[1], (6, 10));
    let alone = partition(&[1, 2], 1, &[1], &[2]);
    assert_eq!(without_draining(&alone, BrokerId(1), rules(&[]), |b| b.0 == 2), None);
}

#[test]
fn a_new_partition_starts_with_whoever_is_alive() {
    let mut new = partition(&[1, 2, 3], 0, &[], &[]);
    begin(&mut new, rules(&[]), |b| b.0 != 1);
    assert_eq!((new.leader, new.isr, new.elr), (Some(BrokerId(2)), ids(&[2, 3]), ids(&[])));
    let mut new = partition(&[1, 2, 3], 0, &[], &[]);
    begin(&mut new, rules(&[]), |_| false);
    assert_eq!((new.leader, new.isr, new.elr), (None, ids(&[]), ids(&[1, 2, 3])));
}

#[test]
fn brokers_that_hold_no_replica_change_nothing() {
    let start = partition(&[1, 2], 1, &[1, 2], &[]);
    assert_eq!(
        without_broker(&start, BrokerId(7), Departure::RecordsKept, rules(&[]), |_| true),
        None
    );
}

#[test]
fn min_insync_is_the_majority_unless_set_and_never_more_than_there_are() {
    assert_eq!([1, 2, 3, 4, 5].map(|n| rules(&[]).min_insync(n)), [1, 2, 2, 3, 3]);
    assert_eq!(rules(&[("min.insync.replicas", "2")]).min_insync(1), 1);
    assert_eq!(rules(&[("min.insync.replicas", "1")]).min_insync(3), 1);
}
