//! Which errors are worth another try, how long to wait before it, how often. `[P]`
//! Source: the retriable codes of Kafka's Java client; exponential backoff with jitter (KIP-580).

use levada_protocol::kafka::ErrorCode;
use std::time::Duration;

/// What to do about an error of the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// The same request to the same broker can succeed later.
    Retry,
    /// What we believe of the cluster is old: ask, then try again.
    Refresh,
    /// It will fail again.
    Fail,
}

/// What to do about `code`.
pub const fn advice(code: ErrorCode) -> Advice {
    use ErrorCode as E;
    match code {
        E::UnknownTopicOrPartition
        | E::LeaderNotAvailable
        | E::NotLeaderOrFollower
        | E::ReplicaNotAvailable
        | E::NetworkException
        | E::NotController
        | E::KafkaStorageError
        | E::ListenerNotFound
        | E::FencedLeaderEpoch
        | E::UnknownLeaderEpoch
        | E::UnknownTopicId
        | E::InconsistentTopicId
        | E::BrokerNotAvailable => Advice::Refresh,
        _ if code.is_retriable() => Advice::Retry,
        _ => Advice::Fail,
    }
}

/// Delays that double from try to try, each up to a fifth longer or shorter by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay before the second try, in ms.
    pub first_ms: u32,
    /// Longest delay, in ms, before chance.
    pub max_ms: u32,
}

impl Default for Backoff {
    /// 50 ms doubling to 1 s.
    fn default() -> Self {
        Self { first_ms: 50, max_ms: 1000 }
    }
}

impl Backoff {
    /// The delay before try `failed + 1`, when `failed` tries have failed; 0 when none has.
    pub fn delay_ms(self, failed: u32, chance: &mut Chance) -> u64 {
        let Some(doublings) = failed.checked_sub(1) else { return 0 };
        let max_ms = u64::from(self.max_ms);
        let base_ms = (u64::from(self.first_ms) << doublings.min(32)).min(max_ms);
        let spread_ms = base_ms * 2 / 5;
        base_ms - spread_ms / 2 + chance.below(spread_ms + 1)
    }

    /// As [`Self::delay_ms`].
    pub fn delay(self, failed: u32, chance: &mut Chance) -> Duration {
        Duration::from_millis(self.delay_ms(failed, chance))
    }
}

/// A sequence of chances from a seed (splitmix64). Not for secrets.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    /// The sequence that begins with `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`; 0 when `end` is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64().checked_rem(end).unwrap_or(0)
    }

    /// The next index below `len`; 0 when `len` is 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moved_leaders_refresh_full_disks_retry_bad_records_fail() {
        assert_eq!(advice(ErrorCode::NotLeaderOrFollower), Advice::Refresh);
        assert_eq!(advice(ErrorCode::UnknownTopicOrPartition), Advice::Refresh);
        assert_eq!(advice(ErrorCode::NotEnoughReplicas), Advice::Retry);
        assert_eq!(advice(ErrorCode::RequestTimedOut), Advice::Retry);
        assert_eq!(advice(ErrorCode::InvalidRecord), Advice::Fail);
        assert_eq!(advice(ErrorCode::MessageTooLarge), Advice::Fail);
        assert_eq!(advice(ErrorCode::UnknownServerError), Advice::Fail);
    }

    #[test]
    fn delays_double_up_to_the_limit_and_stay_within_a_fifth() {
        let backoff = Backoff { first_ms: 100, max_ms: 1000 };
        let mut chance = Chance::new(7);
        assert_eq!(backoff.delay_ms(0, &mut chance), 0);
        for (failed, base_ms) in [(1, 100), (2, 200), (3, 400), (4, 800), (5, 1000), (90, 1000)] {
            for _ in 0..100 {
                let delay_ms = backoff.delay_ms(failed, &mut chance);
                assert!((base_ms * 8 / 10..=base_ms * 12 / 10).contains(&delay_ms), "{delay_ms}");
            }
        }
    }

    #[test]
    fn equal_seeds_give_equal_chances() {
        let (mut one, mut other) = (Chance::new(3), Chance::new(3));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            assert_eq!(one.next_u64(), other.next_u64());
            seen.insert(one.below(4));
            other.next_u64();
        }
        assert_eq!(seen.len(), 4);
        assert_eq!(one.below(0), 0);
    }
}
