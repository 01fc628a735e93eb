//! Who is alive at `now`. `[P]`
//!
//! A broker is alive while its last heartbeat is younger than the session. Only time in which we
//! could have heard counts: after a pause of our own, nobody is to blame for what we missed.

use std::collections::BTreeMap;

use levada_protocol::cluster::{BrokerEpoch, BrokerState, ClusterImage};
use levada_record::id::BrokerId;

/// One broker's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The registration it belongs to.
    pub epoch: BrokerEpoch,
    /// When the last heartbeat came, in ms of the controller's clock.
    pub heard_ms: u64,
    /// Index of the image that the broker said it acts on.
    pub seen_index: u64,
}

/// The leases of all brokers that were heard of.
#[derive(Debug)]
pub struct Leases {
    session_ms: u64,
    leases: BTreeMap<BrokerId, Lease>,
}

impl Leases {
    /// Leases of brokers that are fenced after `session_ms` of silence. Every broker that the image
    /// counts as alive gets a fresh session from `now_ms` on, so a new controller fences nobody for
    /// the silence of the old one.
    pub fn new(session_ms: u64, image: &ClusterImage, now_ms: u64) -> Self {
        let leases = image
            .brokers()
            .filter(|broker| broker.state != BrokerState::Fenced)
            .map(|broker| {
                (broker.id, Lease { epoch: broker.epoch, heard_ms: now_ms, seen_index: 0 })
            })
            .collect();
        Self { session_ms, leases }
    }

    /// Notes a heartbeat, or the registration itself.
    pub fn on_heard(&mut self, broker: BrokerId, epoch: BrokerEpoch, seen_index: u64, now_ms: u64) {
        self.leases.insert(broker, Lease { epoch, heard_ms: now_ms, seen_index });
    }

    /// Notes that for `pause_ms` nothing could be heard: every lease is younger by that.
    pub fn on_pause(&mut self, pause_ms: u64, now_ms: u64) {
        for lease in self.leases.values_mut() {
            lease.heard_ms = lease.heard_ms.saturating_add(pause_ms).min(now_ms);
        }
    }

    /// Registrations that were silent for a whole session at `now_ms` and are not fenced in `image`.
    pub fn lapsed<'a>(
        &'a self,
        image: &'a ClusterImage,
        now_ms: u64,
    ) -> impl Iterator<Item = (BrokerId, BrokerEpoch)> + 'a {
        image.brokers().filter_map(move |broker| {
            if broker.state == BrokerState::Fenced {
                return None;
            }
            let heard_ms = self
                .lease(broker.id)
                .filter(|lease| lease.epoch == broker.epoch)
                .map_or(0, |lease| lease.heard_ms);
            let is_silent = self.session_ms <= now_ms.saturating_sub(heard_ms);
            is_silent.then_some((broker.id, broker.epoch))
        })
    }

    /// The lease of `broker`, if it was ever heard.
    pub fn lease(&self, broker: BrokerId) -> Option<Lease> {
        self.leases.get(&broker).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::fixture::Fixture;

    const SESSION_MS: u64 = 5000;

    fn lapsed(leases: &Leases, image: &ClusterImage, now_ms: u64) -> Vec<i32> {
        leases.lapsed(image, now_ms).map(|(broker, _)| broker.0).collect()
    }

    #[test]
    fn a_broker_is_alive_for_exactly_one_session_after_its_last_heartbeat() {
        let fixture = Fixture::with_brokers(2);
        let image = &fixture.image;
        let mut leases = Leases::new(SESSION_MS, image, 100);
        let epoch = image.broker(BrokerId(2)).unwrap().epoch;
        leases.on_heard(BrokerId(2), epoch, 7, 1000);
        assert_eq!(lapsed(&leases, image, 5099), [0; 0]);
        assert_eq!(lapsed(&leases, image, 5100), [1]);
        assert_eq!(lapsed(&leases, image, 6000), [1, 2]);
        assert_eq!(leases.lease(BrokerId(2)).unwrap().seen_index, 7);
    }

    #[test]
    fn a_heartbeat_of_an_old_registration_keeps_nobody_alive() {
        let fixture = Fixture::with_brokers(1);
        let mut leases = Leases::new(SESSION_MS, &fixture.image, 0);
        leases.on_heard(BrokerId(1), BrokerEpoch(-5), 0, 9999);
        assert_eq!(lapsed(&leases, &fixture.image, 10_000), [1]);
    }

    #[test]
    fn our_own_pause_fences_nobody() {
        let fixture = Fixture::with_brokers(1);
        let mut leases = Leases::new(SESSION_MS, &fixture.image, 0);
        leases.on_pause(60_000, 61_000);
        assert_eq!(lapsed(&leases, &fixture.image, 61_000), [0; 0]);
        assert_eq!(lapsed(&leases, &fixture.image, 65_000), [1]);
    }
}
