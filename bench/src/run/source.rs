//! The records of one producer, and the partitions they go to. `[P]` The same for every client, so that
//! all are asked the same.

use levada_client::partitioner::place_of_key;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::Plan;
use crate::check::SentLane;
use crate::number::{count, size};
use crate::options::{Keys, Options};
use crate::payload::{Pool, Stamp};

/// What a record takes in a batch besides its value, about.
const RECORD_OVERHEAD_BYTES: u64 = 16;
/// A batch that is older has left, whatever the linger.
const BATCH_AGE_NS_MIN: u64 = 1_000_000;

/// A record that wants to be sent.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    pub(super) topic: &'a str,
    /// Its partition.
    pub(super) place: usize,
    /// Its number there.
    pub(super) sequence: u64,
    pub(super) key: Option<&'a [u8]>,
    pub(super) value: &'a [u8],
}

impl Fresh<'_> {
    /// Of its key and value.
    pub(super) fn bytes(&self) -> u64 {
        count(self.value.len() + self.key.map_or(0, <[u8]>::len))
    }
}

/// A batch that takes records, as far as anybody outside of the client can tell.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Filling {
    pub(super) opened_ns: u64,
    pub(super) records: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
}

/// Makes the records of a producer.
pub(super) struct Source {
    run: u32,
    number: u32,
    topic: usize,
    topic_name: String,
    pool: Pool,
    partitioner: Partitioner,
    /// By partition, the sequence of the next record.
    next: Vec<u64>,
}

impl Source {
    pub(super) fn new(plan: &Plan, number: u32) -> Self {
        let options = &plan.options;
        let topic = size(u64::from(number % options.topics));
        let seed = options.seed.wrapping_add(u64::from(number));
        Self {
            run: plan.run,
            number,
            topic,
            topic_name: plan.topics.get(topic).cloned().unwrap_or_default(),
            pool: Pool::new(
                size(options.payloads.into()),
                size(options.message_bytes.into()),
                options.random_share,
                seed,
            ),
            partitioner: Partitioner::new(options, number, seed),
            next: vec![0; size(options.partitions.into())],
        }
    }

    /// The producer's number.
    pub(super) fn number(&self) -> usize {
        size(self.number.into())
    }

    #[cfg(feature = "librdkafka")]
    pub(super) fn topic_name(&self) -> &str {
        &self.topic_name
    }

    /// The next record; `filling` tells of the batch that a partition has open.
    pub(super) fn next(
        &mut self,
        intended_ns: u64,
        filling: impl Fn(usize) -> Option<Filling>,
    ) -> Fresh<'_> {
        let place = self.partitioner.next(intended_ns, filling);
        let sequence = *self.next.get(place).expect("partitioners give places that are there");
        let stamp = Stamp { run: self.run, producer: self.number, sequence, intended_ns };
        let key = self.partitioner.key();
        Fresh { topic: &self.topic_name, place, sequence, key, value: self.pool.stamped(&stamp) }
    }

    /// The client took the record that was made last, for that partition.
    pub(super) fn sent(&mut self, place: usize) {
        if let Some(next) = self.next.get_mut(place) {
            *next += 1;
        }
    }

    /// The producer's number, topic, and what it sent to each partition.
    pub(super) fn into_lanes(self) -> (usize, usize, Vec<SentLane>) {
        let sent = |next| SentLane { sent: next, failed: Vec::new() };
        (self.number(), self.topic, self.next.into_iter().map(sent).collect())
    }

    /// Whether the batch takes no more records: there is no room, or it has left.
    #[cfg(feature = "librdkafka")]
    pub(super) fn is_done(&self, filling: Filling, now_ns: u64) -> bool {
        self.partitioner.is_done(filling, now_ns)
    }
}

/// Chooses partitions before records are made, because their sequence numbers count per partition.
struct Partitioner {
    partitions: usize,
    batch_bytes: u64,
    message_bytes: u64,
    batch_age_ns: u64,
    sticky: usize,
    keys: Keys,
    all: Vec<(Vec<u8>, usize)>,
    chosen: Option<usize>,
    chance: StdRng,
}

impl Partitioner {
    fn new(options: &Options, number: u32, seed: u64) -> Self {
        let partitions = size(options.partitions.into());
        let key = |number| {
            let key = format!("key-{number:08}").into_bytes();
            let place = place_of_key(&key, partitions);
            (key, place)
        };
        let keys = if options.keys == Keys::None { 0 } else { options.key_count };
        Self {
            partitions,
            batch_bytes: options.batch_bytes.into(),
            message_bytes: options.message_bytes.into(),
            batch_age_ns: (u64::from(options.linger_ms) * 1_000_000).max(BATCH_AGE_NS_MIN),
            sticky: size(u64::from(number)) % partitions.max(1),
            keys: options.keys,
            all: (0..keys).map(key).collect(),
            chosen: None,
            chance: StdRng::seed_from_u64(seed),
        }
    }

    /// The partition of the next record.
    fn next(&mut self, now_ns: u64, filling: impl Fn(usize) -> Option<Filling>) -> usize {
        let chosen = match self.keys {
            Keys::None => return self.stick(now_ns, filling),
            Keys::RoundRobin => self.chosen.map_or(0, |chosen| (chosen + 1) % self.all.len()),
            Keys::Random => self.chance.random_range(0..self.all.len()),
        };
        self.chosen = Some(chosen);
        self.all.get(chosen).map_or(0, |(_, place)| *place)
    }

    /// The key that goes with it.
    fn key(&self) -> Option<&[u8]> {
        self.chosen.and_then(|chosen| self.all.get(chosen)).map(|(key, _)| key.as_slice())
    }

    /// The partition of the batch that is being filled, or the next one once it is full or gone.
    fn stick(&mut self, now_ns: u64, filling: impl Fn(usize) -> Option<Filling>) -> usize {
        if self.partitions == 1 {
            return 0;
        }
        if filling(self.sticky).is_some_and(|filling| self.is_done(filling, now_ns)) {
            self.sticky = (self.sticky + 1) % self.partitions;
        }
        self.sticky
    }

    fn is_done(&self, filling: Filling, now_ns: u64) -> bool {
        let bytes = filling.bytes + filling.records * RECORD_OVERHEAD_BYTES;
        self.batch_bytes < bytes + self.message_bytes
            || filling.opened_ns + self.batch_age_ns <= now_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partitioner(change: impl FnOnce(&mut Options)) -> Partitioner {
        let mut options = Options { partitions: 3, ..Options::default() };
        change(&mut options);
        Partitioner::new(&options, 0, 1)
    }

    #[test]
    fn records_without_keys_stay_until_their_batch_is_full_or_gone() {
        let mut partitioner = partitioner(|options| options.linger_ms = 5);
        let young = Filling { opened_ns: 0, records: 1, bytes: 1024 };
        assert_eq!(partitioner.next(0, |_| None), 0);
        assert_eq!(partitioner.next(4_999_999, |_| Some(young)), 0);
        assert_eq!(partitioner.next(5_000_000, |_| Some(young)), 1, "it has lingered");
        let full = Filling { bytes: 256 << 10, ..young };
        assert_eq!(partitioner.next(0, |_| Some(full)), 2);
        assert_eq!(partitioner.next(0, |_| Some(full)), 0);
        assert_eq!(partitioner.key(), None);
    }

    #[test]
    fn a_key_always_goes_to_the_same_partition() {
        let mut partitioner = partitioner(|options| {
            (options.keys, options.key_count) = (Keys::RoundRobin, 10);
        });
        let mut turn = || {
            let place = partitioner.next(0, |_| None);
            (partitioner.key().map(<[u8]>::to_vec), place)
        };
        let first: Vec<_> = (0..10).map(|_| turn()).collect();
        let second: Vec<_> = (0..10).map(|_| turn()).collect();
        assert_eq!(first, second);
    }
}
