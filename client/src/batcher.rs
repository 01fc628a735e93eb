//! Collects records into batches, one open batch per partition: a batch is ready when the next record
//! does not fit, or when it has lingered long enough. `[P]` The caller tells the time and brings the
//! memory: a batch is opened with a [`Ticket`].

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::sync::Arc;

use levada_record::{BatchBuilder, BuildError, Compression, Encoding, NewRecord};

use crate::partitioner::place_of_key;
use crate::producer::ProducerRecord;
use crate::producer::delivery::Ticket;
use crate::retry::Chance;

/// Most bytes of a batch in front of, between and behind its records or columns.
const BATCH_OVERHEAD_BYTES: usize = 512;
/// Most bytes a record takes beyond its key, value and headers.
const RECORD_OVERHEAD_BYTES: usize = 48;
/// Most bytes a header of a record takes beyond its key and value.
const HEADER_OVERHEAD_BYTES: usize = 10;

/// Bytes below which no batch's share of the memory falls.
const SHARE_BYTES_MIN: usize = 16 << 10;
/// Batches of one partition that the memory is to hold: one that is open, others on their way.
const SHARES_OF_PARTITION: usize = 2;

/// Room in a topic's first batch, in bytes; those behind it get as much as the one before needed.
const FIRST_ROOM_BYTES: usize = 16 << 10;

/// Bytes below which the limit of a topic's batches never falls.
const BATCH_BYTES_MIN: usize = 1024;

/// A batch that takes no more records.
#[derive(Debug)]
pub(crate) struct ReadyBatch {
    pub(crate) topic: Arc<str>,
    pub(crate) partition: i32,
    pub(crate) builder: BatchBuilder,
    pub(crate) ticket: Ticket,
    pub(crate) opened_ms: u64,
}

#[derive(Debug)]
struct OpenBatch {
    builder: BatchBuilder,
    ticket: Ticket,
    opened_ms: u64,
    /// Bytes that it has got room for: memory, whether records fill it or not.
    room_bytes: usize,
}

#[derive(Debug)]
struct Lanes {
    topic: Arc<str>,
    /// By rising index.
    partitions: Vec<i32>,
    /// Place in `partitions` where records without key go for now.
    sticky: usize,
    /// Most bytes of a batch before compression.
    batch_bytes: usize,
    /// Bytes of the batch that was closed last: what the next one gets room for, so that it need not grow.
    last_bytes: usize,
    open: BTreeMap<i32, OpenBatch>,
}

/// What became of a record.
#[derive(Debug)]
pub(crate) enum Pushed<'a> {
    /// It is in a batch: its ticket and the record's place.
    In { partition: i32, ticket: &'a Ticket, index: u32 },
    /// It needs a batch to be opened: bring a ticket of so many bytes.
    NoTicket { bytes: usize },
    /// Nothing is known of the topic; bring its partitions.
    NoTopic,
    /// The topic has no such partition.
    NoPartition { partition: i32, partitions: usize },
}

#[derive(Debug)]
pub(crate) struct Batcher {
    encoding: Encoding,
    codec: Compression,
    batch_bytes: usize,
    memory_bytes: usize,
    linger_ms: u64,
    chance: Chance,
    /// Places in `lanes`.
    topics: HashMap<Arc<str>, usize>,
    lanes: Vec<Lanes>,
    /// Place of the topic of the last record: most often that of the next, too.
    last: usize,
    ready: Vec<ReadyBatch>,
}

/// Most bytes that the record can take in an uncompressed batch of its own.
pub(crate) fn batch_bytes_of(record: &ProducerRecord<'_>) -> usize {
    BATCH_OVERHEAD_BYTES.saturating_add(record_bytes_max(record))
}

fn record_bytes_max(record: &ProducerRecord<'_>) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = record.headers.iter().map(|header| {
        header.key.len().saturating_add(length(header.value)).saturating_add(HEADER_OVERHEAD_BYTES)
    });
    headers
        .chain([length(record.key), length(record.value)])
        .fold(RECORD_OVERHEAD_BYTES, usize::saturating_add)
}

impl Batcher {
    pub(crate) fn new(
        codec: Compression,
        (batch_bytes, memory_bytes): (usize, usize),
        linger_ms: u64,
        chance: Chance,
    ) -> Self {
        Self {
            encoding: Encoding::KafkaV2,
            codec,
            batch_bytes,
            memory_bytes,
            linger_ms,
            chance,
            topics: HashMap::new(),
            lanes: Vec::new(),
            last: 0,
            ready: Vec::new(),
        }
    }

    /// How batches that are opened from now on are encoded; Kafka's records until somebody says so.
    pub(crate) fn set_encoding(&mut self, encoding: Encoding) {
        self.encoding = encoding;
    }

    /// Tells which partitions a topic has.
    pub(crate) fn set_topic(&mut self, topic: &Arc<str>, partitions: Vec<i32>) {
        if partitions.is_empty() {
            return;
        }
        // An open batch holds memory for all that it may become: where a topic has many partitions, batches that
        // could grow large would keep each other from being opened.
        let share = self.memory_bytes / (SHARES_OF_PARTITION * partitions.len());
        let share = self.batch_bytes.min(share.max(SHARE_BYTES_MIN));
        if let Some(lanes) = self.lanes_of(topic) {
            lanes.batch_bytes = lanes.batch_bytes.min(share);
            lanes.partitions = partitions;
        } else {
            let lanes = Lanes {
                topic: Arc::clone(topic),
                sticky: self.chance.index(partitions.len()),
                partitions,
                batch_bytes: share,
                last_bytes: FIRST_ROOM_BYTES,
                open: BTreeMap::new(),
            };
            self.topics.insert(Arc::clone(topic), self.lanes.len());
            self.lanes.push(lanes);
        }
    }

    fn lanes_of(&mut self, topic: &str) -> Option<&mut Lanes> {
        self.lanes.get_mut(*self.topics.get(topic)?)
    }

    /// Puts the record into the open batch of its partition; opens one with the ticket where there
    /// is none.
    ///
    /// # Errors
    /// [`BuildError`] when no batch can take it.
    pub(crate) fn push(
        &mut self,
        record: &ProducerRecord<'_>,
        bought: &mut Option<Ticket>,
        now_ms: u64,
    ) -> Result<Pushed<'_>, BuildError> {
        let Self { topics, lanes, last, ready, chance, encoding, codec, .. } = self;
        if lanes.get(*last).is_none_or(|lanes| *lanes.topic != *record.topic) {
            let Some(place) = topics.get(record.topic) else { return Ok(Pushed::NoTopic) };
            *last = *place;
        }
        let Some(lanes) = lanes.get_mut(*last) else { return Ok(Pushed::NoTopic) };
        let (partition, index) = loop {
            let partition = match lanes.choose(record) {
                Ok(partition) => partition,
                Err(partition) => {
                    let partitions = lanes.partitions.len();
                    return Ok(Pushed::NoPartition { partition, partitions });
                }
            };
            let Some(open) = lanes.open.get_mut(&partition) else {
                let bytes = lanes.batch_bytes.max(batch_bytes_of(record));
                let Some(ticket) = bought.take() else { return Ok(Pushed::NoTicket { bytes }) };
                let builder = BatchBuilder::encoded(*encoding, *codec);
                let room_bytes = bytes.min(lanes.last_bytes);
                let builder = builder.with_capacity(room_bytes);
                let open = OpenBatch { builder, ticket, opened_ms: now_ms, room_bytes };
                lanes.open.insert(partition, open);
                continue;
            };
            let bytes = open.builder.uncompressed_bytes() + record_bytes_max(record);
            let index = open.builder.record_count();
            // The first record fits by any means: the ticket was bought for it.
            let full = index > 0 && bytes > lanes.batch_bytes;
            let ProducerRecord { timestamp, key, value, headers, .. } = *record;
            let new = NewRecord { timestamp, key, value, headers };
            match if full { Err(BuildError::Full) } else { open.builder.push(&new) } {
                Ok(()) => break (partition, index),
                // In a batch of its own it is another matter.
                Err(_) if index > 0 => lanes.close(partition, ready, chance),
                Err(error) => {
                    lanes.open.remove(&partition);
                    return Err(error);
                }
            }
        };
        let open = lanes.open.get(&partition).expect("the record was just put there");
        Ok(Pushed::In { partition, ticket: &open.ticket, index })
    }

    /// Makes the batches of `topic` smaller, after its broker refused one of `batch_bytes`.
    pub(crate) fn shrink(&mut self, topic: &str, batch_bytes: usize) {
        if let Some(lanes) = self.lanes_of(topic) {
            lanes.batch_bytes = lanes.batch_bytes.min(batch_bytes / 2).max(BATCH_BYTES_MIN);
        }
    }

    /// Whether batches wait to be taken whatever the time is.
    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Takes the ready batches, those that have lingered, and with `all` the rest too. Per
    /// partition in the order in which they were opened. A batch that has lingered stays open while
    /// its partition is `held_up`: closed it could not leave either, open it can grow. Tells, too, when
    /// the next open batch will have lingered; whoever frees a partition looks again anyway.
    pub(crate) fn take(
        &mut self,
        now_ms: u64,
        all: bool,
        held_up: impl Fn(&Arc<str>, i32) -> bool,
    ) -> (Vec<ReadyBatch>, Option<u64>) {
        let mut next_due_ms: Option<u64> = None;
        let mut due = Vec::new();
        for lanes in &mut self.lanes {
            for (partition, open) in &lanes.open {
                let due_ms = open.opened_ms + self.linger_ms;
                if all || (due_ms <= now_ms && !held_up(&lanes.topic, *partition)) {
                    due.push(*partition);
                } else if now_ms < due_ms {
                    next_due_ms = Some(next_due_ms.map_or(due_ms, |next| next.min(due_ms)));
                }
            }
            for partition in due.drain(..) {
                lanes.close(partition, &mut self.ready, &mut self.chance);
            }
        }
        (mem::take(&mut self.ready), next_due_ms)
    }
}

impl Lanes {
    /// The record's partition, or as error the one it wants and that is not there.
    fn choose(&self, record: &ProducerRecord<'_>) -> Result<i32, i32> {
        let place = match (record.partition, record.key) {
            (Some(partition), _) => {
                let found = self.partitions.binary_search(&partition);
                return found.map(|_| partition).map_err(|_| partition);
            }
            (None, Some(key)) => place_of_key(key, self.partitions.len()),
            (None, None) => self.sticky,
        };
        self.partitions.get(place).or(self.partitions.first()).copied().ok_or(-1)
    }

    /// The open batch becomes ready; records without key move on to another partition.
    fn close(&mut self, partition: i32, ready: &mut Vec<ReadyBatch>, chance: &mut Chance) {
        if self.partitions.get(self.sticky) == Some(&partition) && self.partitions.len() > 1 {
            let step = 1 + chance.index(self.partitions.len() - 1);
            self.sticky = (self.sticky + step) % self.partitions.len();
        }
        let Some(open) = self.open.remove(&partition) else { return };
        let OpenBatch { builder, mut ticket, opened_ms, room_bytes } = open;
        if builder.record_count() > 0 {
            self.last_bytes = builder.uncompressed_bytes();
            ticket.shrink(self.last_bytes.max(room_bytes));
            ready.push(ReadyBatch {
                topic: Arc::clone(&self.topic),
                partition,
                builder,
                ticket,
                opened_ms,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINGER_MS: u64 = 5;

    fn batcher(batch_bytes: usize, partitions: i32) -> Batcher {
        let mut batcher =
            Batcher::new(Compression::None, (batch_bytes, 1 << 20), LINGER_MS, Chance::new(1));
        batcher.set_topic(&Arc::from("t"), (0..partitions).collect());
        batcher
    }

    fn free(_: &Arc<str>, _: i32) -> bool {
        false
    }

    #[track_caller]
    fn push(batcher: &mut Batcher, record: &ProducerRecord<'_>, now_ms: u64) -> (i32, u32) {
        match batcher.push(record, &mut Some(Ticket::for_test()), now_ms).unwrap() {
            Pushed::In { partition, index, .. } => (partition, index),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn needed_bytes(batcher: &mut Batcher, record: &ProducerRecord<'_>) -> usize {
        match batcher.push(record, &mut None, 0).unwrap() {
            Pushed::NoTicket { bytes } => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn record(value: &[u8]) -> ProducerRecord<'_> {
        ProducerRecord { topic: "t", value: Some(value), ..Default::default() }
    }

    #[test]
    fn a_batch_is_ready_when_the_next_record_does_not_fit() {
        let mut batcher = batcher(1000, 1);
        let value = [0; 300];
        assert_eq!(push(&mut batcher, &record(&value), 0), (0, 0));
        assert_eq!(push(&mut batcher, &record(&value), 0), (0, 1));
        assert!(!batcher.has_ready());
        assert_eq!(push(&mut batcher, &record(&value), 0), (0, 0));
        let (ready, _) = batcher.take(0, false, free);
        assert_eq!(ready.len(), 1);
        assert_eq!(ready[0].builder.record_count(), 2);
        assert!(ready[0].builder.uncompressed_bytes() <= 1000);
        // A record longer than a batch gets one for itself.
        let long = [0; 5000];
        assert_eq!(push(&mut batcher, &record(&long), 0), (0, 0));
    }

    #[test]
    fn batches_of_many_partitions_share_the_memory() {
        let needed = |partitions: i32| {
            let mut batcher =
                Batcher::new(Compression::None, (256 << 10, 32 << 20), LINGER_MS, Chance::new(1));
            batcher.set_topic(&Arc::from("t"), (0..partitions).collect());
            needed_bytes(&mut batcher, &record(b"x"))
        };
        assert_eq!(needed(1), 256 << 10);
        assert_eq!(needed(128), 128 << 10);
        assert_eq!(needed(10_000), SHARE_BYTES_MIN);
    }

    /// The room that a batch got after the size of the one before is memory too.
    #[test]
    fn a_small_batch_behind_a_large_one_holds_the_memory_that_it_has_room_in() {
        let mut batcher = batcher(100_000, 1);
        let memory = Arc::new(tokio::sync::Semaphore::new(1_000_000));
        let mut push = |value: &[u8]| {
            let bought = Arc::clone(&memory).try_acquire_many_owned(100_000).unwrap();
            let ticket = &mut Some(Ticket::new(bought));
            batcher.push(&record(value), ticket, 0).unwrap();
            let (ready, _) = batcher.take(0, true, free);
            (ready, 1_000_000 - memory.available_permits())
        };
        let (large, held) = push(&vec![0; 80_000]);
        assert!((80_000..82_000).contains(&held), "{held} B");
        drop(large);
        let (small, held) = push(b"x");
        assert!((80_000..82_000).contains(&held), "{held} B");
        drop(small);
        let (_small, held) = push(b"x");
        assert!(held < 1_000, "{held} B");
    }

    #[test]
    fn a_batch_is_ready_when_it_has_lingered() {
        let mut batcher = batcher(1000, 2);
        let taken = |batcher: &mut Batcher, now_ms: u64, all: bool| {
            let (ready, next_due_ms) = batcher.take(now_ms, all, free);
            (ready.len(), next_due_ms)
        };
        assert_eq!(taken(&mut batcher, 0, false), (0, None));
        push(&mut batcher, &ProducerRecord { partition: Some(1), ..record(b"x") }, 10);
        push(&mut batcher, &ProducerRecord { partition: Some(0), ..record(b"x") }, 12);
        assert_eq!(taken(&mut batcher, 14, false), (0, Some(15)));
        assert_eq!(taken(&mut batcher, 15, false), (1, Some(17)));
        assert_eq!(taken(&mut batcher, 15, true), (1, None));
    }

    /// With a linger of 0 and all requests of a partition in flight, every record used to become a batch
    /// of its own that waited for its turn: throughput fell with the load instead of batches growing.
    #[test]
    fn a_batch_that_cannot_leave_yet_stays_open_and_grows() {
        let mut batcher = batcher(1000, 2);
        let held_up = |_: &Arc<str>, partition: i32| partition == 0;
        push(&mut batcher, &ProducerRecord { partition: Some(0), ..record(b"x") }, 0);
        push(&mut batcher, &ProducerRecord { partition: Some(1), ..record(b"x") }, 1);
        let (taken, next_due_ms) = batcher.take(100, false, held_up);
        assert_eq!(taken.iter().map(|batch| batch.partition).collect::<Vec<_>>(), [1]);
        assert_eq!(next_due_ms, None, "nobody wakes up for what cannot leave");
        assert_eq!(
            push(&mut batcher, &ProducerRecord { partition: Some(0), ..record(b"x") }, 101),
            (0, 1)
        );
        assert_eq!(batcher.take(101, false, free).0[0].builder.record_count(), 2);
    }

    #[test]
    fn records_of_a_key_stay_together_and_others_stick_for_a_batch() {
        let mut batcher = batcher(500, 8);
        let keyed = ProducerRecord { key: Some(b"foobar"), ..record(b"x") };
        let home = i32::try_from(place_of_key(b"foobar", 8)).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..200 {
            assert_eq!(push(&mut batcher, &keyed, 0).0, home);
            let value = [0; 100];
            let (partition, _) = push(&mut batcher, &record(&value), 0);
            seen.insert(partition);
        }
        assert_eq!(seen.len(), 8, "all partitions get their share");
        assert!(batcher.ready.len() > 40);
    }

    #[test]
    fn what_is_not_there_is_said() {
        let mut batcher = batcher(500, 2);
        let other = ProducerRecord { topic: "u", ..record(b"") };
        assert!(matches!(batcher.push(&other, &mut None, 0), Ok(Pushed::NoTopic)));
        let third = ProducerRecord { partition: Some(2), ..record(b"") };
        let pushed = batcher.push(&third, &mut None, 0).unwrap();
        assert!(
            matches!(pushed, Pushed::NoPartition { partition: 2, partitions: 2 }),
            "{pushed:?}"
        );
    }

    #[test]
    fn a_topic_that_refused_a_batch_gets_smaller_ones() {
        let mut batcher = batcher(100_000, 1);
        assert_eq!(needed_bytes(&mut batcher, &record(b"")), 100_000);
        batcher.shrink("t", 20_000);
        assert_eq!(needed_bytes(&mut batcher, &record(b"")), 10_000);
        batcher.shrink("t", 90_000);
        assert_eq!(needed_bytes(&mut batcher, &record(b"")), 10_000);
        batcher.shrink("t", 0);
        assert_eq!(needed_bytes(&mut batcher, &record(b"")), BATCH_BYTES_MIN);
    }
}
