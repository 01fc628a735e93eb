//! Our own client under load: a producer with its partitions, and the task that hears of its batches.
//! One outcome per batch, never a task or future per record.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use levada_client::partitioner::place_of_key;
use levada_client::{Cluster, Delivery, DeliveryError, Producer, ProducerRecord};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::produce::Failures;
use super::{Plan, Recorder};
use crate::check::SentLane;
use crate::clock::now_ns;
use crate::error::BenchError;
use crate::number::{count, size};
use crate::options::Keys;
use crate::payload::{Pool, Stamp};
use crate::recorder::Series;

/// What a record takes in a batch besides its value, about.
const RECORD_OVERHEAD_BYTES: u64 = 16;
/// A batch that is older has left, whatever the linger.
const BATCH_AGE_NS_MIN: u64 = 1_000_000;

/// When a record was meant to leave, and when it did.
#[derive(Debug, Clone, Copy)]
struct Sent {
    intended_ns: u64,
    sent_ns: u64,
}

/// The records of one batch, in order.
#[derive(Debug)]
pub(super) struct Group {
    producer: usize,
    partition: usize,
    first_sequence: u64,
    opened_ns: u64,
    first: Delivery,
    last: RefCell<Delivery>,
    records: RefCell<Vec<Sent>>,
    bytes: Cell<u64>,
}

/// A producer of ours.
pub(super) struct LevadaTarget {
    number: u32,
    topic: usize,
    topic_name: String,
    run: u32,
    producer: Producer,
    pool: Pool,
    partitioner: Partitioner,
    lanes: Vec<Lane>,
    groups: UnboundedSender<Rc<Group>>,
}

#[derive(Debug, Default)]
struct Lane {
    next: u64,
    open: Option<Rc<Group>>,
}

impl LevadaTarget {
    pub(super) async fn connect(
        plan: &Plan,
        number: u32,
        groups: UnboundedSender<Rc<Group>>,
    ) -> Result<Self, BenchError> {
        let options = &plan.options;
        let cluster = Cluster::connect(&plan.bootstrap, options.cluster_options()).await?;
        let topic = size(u64::from(number % options.topics));
        let topic_name = plan.topics.get(topic).cloned().unwrap_or_default();
        let seed = options.seed.wrapping_add(u64::from(number));
        let partitions = size(options.partitions.into());
        Ok(Self {
            number,
            topic,
            topic_name,
            run: plan.run,
            producer: Producer::start(cluster, options.producer_options()),
            pool: Pool::new(
                size(options.payloads.into()),
                size(options.message_bytes.into()),
                options.random_share,
                seed,
            ),
            partitioner: Partitioner::new(plan, number, seed),
            lanes: (0..partitions).map(|_| Lane::default()).collect(),
            groups,
        })
    }

    /// Sends the next record. Waits while the client has no room.
    pub(super) async fn send(&mut self, intended_ns: u64, sent_ns: u64) -> Result<(), BenchError> {
        let place = self.partitioner.next(&self.lanes, intended_ns);
        let lane = self.lanes.get_mut(place).expect("partitioners give places that are there");
        let sequence = lane.next;
        let stamp = Stamp { run: self.run, producer: self.number, sequence, intended_ns };
        let key = self.partitioner.key();
        let value = self.pool.stamped(&stamp);
        let bytes = count(value.len() + key.map_or(0, <[u8]>::len));
        let record = ProducerRecord {
            topic: &self.topic_name,
            partition: i32::try_from(place).ok(),
            key,
            value: Some(value),
            ..Default::default()
        };
        let delivery = self.producer.send(&record).await?;
        lane.next += 1;
        let sent = Sent { intended_ns, sent_ns };
        match &lane.open {
            Some(group) if group.first.is_of_same_batch(&delivery) => {
                group.records.borrow_mut().push(sent);
                group.last.replace(delivery);
                group.bytes.set(group.bytes.get() + bytes);
            }
            _ => {
                let group = Rc::new(Group {
                    producer: size(self.number.into()),
                    partition: place,
                    first_sequence: sequence,
                    opened_ns: sent_ns,
                    last: RefCell::new(delivery.clone()),
                    first: delivery,
                    records: RefCell::new(vec![sent]),
                    bytes: Cell::new(bytes),
                });
                lane.open = Some(Rc::clone(&group));
                // The collector ends only after the last target.
                drop(self.groups.send(group));
            }
        }
        Ok(())
    }

    /// Waits until everything has an outcome.
    pub(super) async fn flush(&mut self) -> Result<(), BenchError> {
        Ok(self.producer.flush().await?)
    }

    /// Its number, topic, and what it sent to each partition.
    pub(super) fn into_lanes(self) -> (usize, usize, Vec<SentLane>) {
        let sent = |lane: Lane| SentLane { sent: lane.next, failed: Vec::new() };
        (size(self.number.into()), self.topic, self.lanes.into_iter().map(sent).collect())
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
    fn new(plan: &Plan, number: u32, seed: u64) -> Self {
        let options = &plan.options;
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
    fn next(&mut self, lanes: &[Lane], now_ns: u64) -> usize {
        let chosen = match self.keys {
            Keys::None => return self.stick(lanes, now_ns),
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
    fn stick(&mut self, lanes: &[Lane], now_ns: u64) -> usize {
        if self.partitions == 1 {
            return 0;
        }
        let open = lanes.get(self.sticky).and_then(|lane| lane.open.as_ref());
        let done = open.is_some_and(|group| {
            let records = count(group.records.borrow().len());
            let bytes = group.bytes.get() + records * RECORD_OVERHEAD_BYTES;
            self.batch_bytes < bytes + self.message_bytes
                || group.opened_ns + self.batch_age_ns <= now_ns
        });
        if done {
            self.sticky = (self.sticky + 1) % self.partitions;
        }
        self.sticky
    }
}

/// Hears what became of batches and takes the time.
pub(super) struct Collector {
    plan: Arc<Plan>,
    recorder: Rc<RefCell<Recorder>>,
    groups: UnboundedReceiver<Rc<Group>>,
    failures: Failures,
}

impl Collector {
    pub(super) fn new(
        plan: &Arc<Plan>,
        recorder: &Rc<RefCell<Recorder>>,
    ) -> (Self, UnboundedSender<Rc<Group>>) {
        let (sender, groups) = unbounded_channel();
        let (plan, recorder) = (Arc::clone(plan), Rc::clone(recorder));
        (Self { plan, recorder, groups, failures: Failures::default() }, sender)
    }

    /// Until all targets are gone and all batches settled.
    pub(super) async fn run(mut self) -> Failures {
        let mut waiting = FuturesUnordered::new();
        let mut more = true;
        while more || !waiting.is_empty() {
            tokio::select! {
                biased;
                Some(settled) = waiting.next(), if !waiting.is_empty() => {
                    let (group, outcome): Settled = settled;
                    self.on_settled(&group, outcome);
                }
                group = self.groups.recv(), if more => match group {
                    Some(group) => waiting.push(settled(group)),
                    None => more = false,
                },
            }
        }
        self.failures
    }

    fn on_settled(&mut self, group: &Group, outcome: Result<(), DeliveryError>) {
        let now_ns = now_ns();
        let records = group.records.borrow();
        let number = count(records.len());
        let mut recorder = self.recorder.borrow_mut();
        recorder.at(now_ns);
        let closed = self.plan.options.is_closed_loop();
        for sent in records.iter() {
            recorder.record(Series::Service, now_ns.saturating_sub(sent.sent_ns));
            if !closed {
                recorder.record(Series::Response, now_ns.saturating_sub(sent.intended_ns));
            }
        }
        let counts = recorder.counts();
        counts.batches += 1;
        match outcome {
            Ok(()) => {
                counts.acked += number;
                counts.acked_bytes += group.bytes.get();
            }
            Err(error) => {
                counts.failed += number;
                let range: Range<u64> = group.first_sequence..group.first_sequence + number;
                self.failures.ranges.push((group.producer, group.partition, range));
                self.failures.first.get_or_insert_with(|| error.to_string());
                self.plan.stop();
            }
        }
    }
}

/// A batch and what became of it.
type Settled = (Rc<Group>, Result<(), DeliveryError>);

/// Waits for a batch. The client may have cut it in two: then its last record tells whether all of it
/// came to the same end.
async fn settled(group: Rc<Group>) -> Settled {
    let first = group.first.wait().await;
    let last = group.last.borrow().clone();
    let last = last.wait().await;
    let outcome = first.and(last).map(|_| ());
    (group, outcome)
}
