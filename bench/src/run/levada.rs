//! Our own client under load: a producer with its partitions, and the task that hears of its batches.
//! One outcome per batch, never a task or future per record.

mod reader;

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use levada_client::{Cluster, Delivery, DeliveryError, Producer, ProducerRecord, Timestamp};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;

use super::client::{Target, Targets};
use super::produce::Failures;
use super::source::{Filling, Source};
use super::{Plan, Recorder};
use crate::check::SentLane;
use crate::clock::{WallClock, now_ns};
use crate::error::BenchError;
use crate::number::count;
use crate::recorder::{Interval, Series};
pub(super) use reader::LevadaReader;

/// When a record was meant to leave, and when it did.
#[derive(Debug, Clone, Copy)]
struct Sent {
    intended_ns: u64,
    sent_ns: u64,
}

/// The records of one batch, in order.
#[derive(Debug)]
struct Group {
    producer: usize,
    partition: usize,
    first_sequence: u64,
    opened_ns: u64,
    first: Delivery,
    last: RefCell<Delivery>,
    records: RefCell<Vec<Sent>>,
    bytes: Cell<u64>,
}

impl Group {
    fn filling(&self) -> Filling {
        let records = count(self.records.borrow().len());
        Filling { opened_ns: self.opened_ns, records, bytes: self.bytes.get() }
    }
}

/// Producers of ours, and the task that hears of their batches.
pub(super) struct LevadaTargets {
    plan: Arc<Plan>,
    groups: UnboundedSender<Rc<Group>>,
    collected: JoinHandle<Failures>,
}

impl Targets for LevadaTargets {
    type Target = LevadaTarget;

    fn new(plan: &Arc<Plan>, recorder: &Rc<RefCell<Recorder>>, _: &Sender<Interval>) -> Self {
        let (groups, heard) = unbounded_channel();
        let collector = Collector {
            plan: Arc::clone(plan),
            recorder: Rc::clone(recorder),
            groups: heard,
            failures: Failures::default(),
        };
        let collected = tokio::task::spawn_local(collector.run());
        Self { plan: Arc::clone(plan), groups, collected }
    }

    async fn connect(&self, number: u32) -> Result<LevadaTarget, BenchError> {
        let options = &self.plan.options;
        let cluster = Cluster::connect(&self.plan.bootstrap, options.cluster_options()).await?;
        let partitions = crate::number::size(options.partitions.into());
        Ok(LevadaTarget {
            producer: Producer::start(cluster, options.producer_options()),
            wall: self.plan.wall,
            source: Source::new(&self.plan, number),
            open: vec![None; partitions],
            groups: self.groups.clone(),
        })
    }

    async fn settle(self) -> Result<Failures, BenchError> {
        drop(self.groups);
        self.collected.await.map_err(|_| BenchError::Panicked)
    }
}

/// A producer of ours.
pub(super) struct LevadaTarget {
    producer: Producer,
    wall: WallClock,
    source: Source,
    /// By partition, the batch that takes records.
    open: Vec<Option<Rc<Group>>>,
    groups: UnboundedSender<Rc<Group>>,
}

impl Target for LevadaTarget {
    async fn send(&mut self, intended_ns: u64, sent_ns: u64) -> Result<(), BenchError> {
        let Self { producer, wall, source, open, groups } = self;
        let number = source.number();
        let fresh = source.next(intended_ns, |place| Some(open.get(place)?.as_ref()?.filling()));
        let (place, sequence, bytes) = (fresh.place, fresh.sequence, fresh.bytes());
        let record = ProducerRecord {
            topic: fresh.topic,
            partition: i32::try_from(place).ok(),
            key: fresh.key,
            value: Some(fresh.value),
            timestamp: Timestamp(wall.ms_at(intended_ns)),
            ..Default::default()
        };
        let delivery = producer.send(&record).await?;
        source.sent(place);
        let slot = open.get_mut(place).expect("partitioners give places that are there");
        let sent = Sent { intended_ns, sent_ns };
        match slot {
            Some(group) if group.first.is_of_same_batch(&delivery) => {
                group.records.borrow_mut().push(sent);
                group.last.replace(delivery);
                group.bytes.set(group.bytes.get() + bytes);
            }
            _ => {
                let group = Rc::new(Group {
                    producer: number,
                    partition: place,
                    first_sequence: sequence,
                    opened_ns: sent_ns,
                    last: RefCell::new(delivery.clone()),
                    first: delivery,
                    records: RefCell::new(vec![sent]),
                    bytes: Cell::new(bytes),
                });
                *slot = Some(Rc::clone(&group));
                // The collector ends only after the last target.
                drop(groups.send(group));
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BenchError> {
        Ok(self.producer.flush().await?)
    }

    fn into_lanes(self) -> (usize, usize, Vec<SentLane>) {
        self.source.into_lanes()
    }
}

/// Hears what became of batches and takes the time.
struct Collector {
    plan: Arc<Plan>,
    recorder: Rc<RefCell<Recorder>>,
    groups: UnboundedReceiver<Rc<Group>>,
    failures: Failures,
}

impl Collector {
    /// Until all targets are gone and all batches settled.
    async fn run(mut self) -> Failures {
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
                self.plan.ending.on_answer(now_ns);
            }
            Err(error) => {
                counts.failed += number;
                let range: Range<u64> = group.first_sequence..group.first_sequence + number;
                self.failures.add(group.producer, group.partition, range);
                self.failures.first.get_or_insert_with(|| error.to_string());
                match error {
                    DeliveryError::Refused { .. } | DeliveryError::Build { .. } => {
                        self.plan.ending.on_answer(now_ns);
                    }
                    DeliveryError::Expired { .. } | DeliveryError::Closed => {
                        self.plan.on_silence(now_ns);
                    }
                }
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
