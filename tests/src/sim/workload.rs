//! What clients and operators do to a broker while it lives. Clients outlive it: what they do not know they ask again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future;
use levada_engine::{Log, ReadError, StoreError};
use levada_record::{BatchHeader, Offset, Timestamp};

use super::batch::{self, Batch, Sender};
use super::oracle::Existence;
use super::server::{Refusal, Server};
use super::world::World;

/// A producer: five batches in flight, everything sent again until it is known.
#[derive(Debug)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) partition: u32,
    epoch: i16,
    sequence: i32,
    /// Counts batches, of all epochs.
    sent: u64,
    /// Number of the batch, and the batch.
    pub(super) unresolved: VecDeque<(u64, Rc<Batch>)>,
}

impl Producer {
    pub(super) fn new(id: i64, partition: u32) -> Self {
        Self { id, partition, epoch: 0, sequence: 0, sent: 0, unresolved: VecDeque::new() }
    }

    /// Gives up everything that is not known, and begins a new life.
    pub(super) fn start_over(&mut self) {
        self.unresolved.clear();
        self.epoch += 1;
        self.sequence = 0;
    }

    fn add(&mut self, world: &World) {
        let (records, bytes) = batch::draw_size(world.options.sizes, &mut world.work());
        let value = world.history.borrow_mut().invoke(self.partition, self.id.cast_unsigned());
        let sender = Sender { producer: self.id, epoch: self.epoch, sequence: self.sequence };
        let jitter = world.range(-3..3);
        let at = world.now().wall_ms + jitter;
        let batch = batch::build(value, Some(sender), at, records, bytes);
        self.sequence += i32::try_from(records).expect("few records");
        self.sent += 1;
        self.unresolved.push_back((self.sent, batch));
    }

    /// Whether another batch may be sent: at most `in_flight` from the first unknown one on.
    fn may_send(&self, in_flight: usize) -> bool {
        self.unresolved.front().is_none_or(|(first, _)| self.sent - first + 1 < in_flight as u64)
    }
}

/// Runs a producer until the broker stops.
pub(super) async fn produce(world: Rc<World>, server: Rc<Server>, producer: Rc<RefCell<Producer>>) {
    while !world.is_stopping() {
        let pause = world.range(1..=world.options.think_us);
        world.sleep(Duration::from_micros(pause)).await;
        if world.range(0..200) == 0 {
            producer.borrow_mut().start_over();
        }
        while !world.is_stopping() && producer.borrow().may_send(world.options.in_flight) {
            producer.borrow_mut().add(&world);
        }
        send_window(&world, &server, &producer).await;
    }
}

/// Sends until everything is known, and one new batch; for the end, when the disk is healthy again.
pub(super) async fn drain(
    world: &Rc<World>,
    server: &Rc<Server>,
    producer: &Rc<RefCell<Producer>>,
) -> Result<(), String> {
    producer.borrow_mut().add(world);
    for _ in 0..200 {
        send_window(world, server, producer).await;
        let partition = producer.borrow().partition;
        if producer.borrow().unresolved.is_empty() || !world.is_healthy(partition) {
            return Ok(());
        }
        world.sleep(Duration::from_millis(50)).await;
    }
    let left = producer.borrow().unresolved.len();
    Err(format!("producer {} gets {left} batches not acknowledged", producer.borrow().id))
}

/// Sends everything unknown, in order, and waits for the answers.
async fn send_window(world: &Rc<World>, server: &Rc<Server>, producer: &Rc<RefCell<Producer>>) {
    let (partition, window) = {
        let producer = producer.borrow();
        (producer.partition, producer.unresolved.clone())
    };
    let replies: Vec<_> = window
        .iter()
        .map(|(number, batch)| (*number, Rc::clone(batch), server.produce(world, partition, batch)))
        .collect();
    let patience = world.range(1..2_000);
    let mut is_stale = false;
    for (at, (number, batch, reply)) in replies.into_iter().enumerate() {
        let late = async {
            world.sleep(Duration::from_millis(patience)).await;
            Err(Refusal::Unknown)
        };
        match future::or(reply.wait(), late).await {
            Ok(acked) => {
                world.on_acked(partition, &batch, acked);
                producer.borrow_mut().unresolved.retain(|(other, _)| *other != number);
            }
            Err(Refusal::StaleEpoch) => is_stale = true,
            // The verdict was checked; the log has lost what came before, by truncation.
            Err(Refusal::OutOfOrder) if at == 0 => is_stale = true,
            Err(
                Refusal::DiskFull | Refusal::OutOfOrder | Refusal::Unknown | Refusal::NotServed,
            ) => {}
        }
    }
    if is_stale {
        producer.borrow_mut().start_over();
    }
}

/// Reads here and there until the broker stops; every byte must be what was appended.
pub(super) async fn read(world: Rc<World>, server: Rc<Server>) {
    while !world.is_stopping() {
        let pause = world.range(100..5_000);
        world.sleep(Duration::from_micros(pause)).await;
        let Some(number) = world.some_partition() else { continue };
        let Some(served) = server.served(number) else { continue };
        let log = &served.log;
        match world.range(0..10) {
            0 => find_time(&world, number, log).await,
            _ => {
                let (start, end) = (log.log_start().get(), log.durable_end().get());
                if start >= end {
                    continue;
                }
                let from = world.range(start..end);
                let steps = world.range(1..20);
                read_some(&world, number, log, from, end, steps).await;
            }
        }
    }
}

/// Reads at most `steps` pieces from `from` on, up to `end`. The offset it came to; `None` when it could not go on.
pub(super) async fn read_some(
    world: &Rc<World>,
    number: u32,
    log: &Rc<Log>,
    mut from: i64,
    end: i64,
    steps: u32,
) -> Option<i64> {
    for _ in 0..steps {
        if from >= end {
            break;
        }
        let max_bytes = match world.range(0..4) {
            0 => world.range(1..200),
            1 => world.range(200..70_000),
            2 => 64 << 10,
            _ => world.range(1..600_000),
        };
        let branch = world.branch(number);
        let outcome = log.read(Offset(from), Offset(end), max_bytes, true).await;
        if world.branch(number) != branch {
            // Cut while we read: what came may be of either branch.
            return None;
        }
        match outcome {
            Ok(outcome) => from = world.check_read(number, from, end, max_bytes, &outcome)?,
            Err(error) => {
                world.check_read_error(number, from, &error);
                return None;
            }
        }
    }
    Some(from)
}

async fn find_time(world: &Rc<World>, number: u32, log: &Rc<Log>) {
    let now = world.now().wall_ms;
    let at = world.range(now - 500..=now + 5);
    let branch = world.branch(number);
    let (start, end) = (log.log_start(), log.durable_end());
    let found = log.find_time(Timestamp(at), end).await;
    if world.branch(number) != branch || log.log_start() != start {
        return;
    }
    match found {
        Ok(found) => {
            let found = found.map(|(time, offset)| (time.as_ms(), offset.get()));
            world.check_find_time(number, at, end.get(), found);
        }
        Err(error) => world.check_read_error(number, start.get(), &error),
    }
}

/// Does what operators and the clock do until the broker stops.
pub(super) async fn operate(world: Rc<World>, server: Rc<Server>) {
    while !world.is_stopping() {
        let pause = world.range(500..20_000);
        world.sleep(Duration::from_micros(pause)).await;
        if world.is_stopping() {
            break;
        }
        server.tick(&world);
        let duties = world.options.duties;
        let number = world.some_partition();
        match world.range(0..12) {
            0 | 1 if duties.truncate => {
                if let Some(number) = number {
                    truncate(&world, &server, number).await;
                }
            }
            2 if duties.delete_records => {
                if let Some(number) = number {
                    delete_records(&world, &server, number).await;
                }
            }
            3 | 4 if duties.retain => {
                if let Some(number) = number {
                    retain(&world, &server, number).await;
                }
            }
            5 if duties.create_and_remove => {
                if world.chance(0.5) {
                    create(&world, &server).await;
                } else if let Some(number) = number {
                    remove(&world, &server, number).await;
                }
            }
            6 | 7 if duties.checkpoint => {
                let shard = world.range(0..server.stores.len());
                if let Some(store) = server.stores.get(shard)
                    && let Err(error) = store.checkpoint().await
                {
                    world.check_store_error("checkpoint", &error);
                }
            }
            8 if duties.pause && world.range(0..10) == 0 => {
                world.pause_all(Duration::from_secs(40)).await;
            }
            9 => {
                let served = number.and_then(|number| server.served(number));
                if let Some(served) = served {
                    // A new reign.
                    world.note_epoch(served.number, served.lead_again());
                }
            }
            10 => {
                let served = number.and_then(|number| server.served(number));
                if let Some(served) = served {
                    served.log.set_config(world.draw_config());
                }
            }
            _ => {}
        }
    }
}

async fn truncate(world: &Rc<World>, server: &Rc<Server>, number: u32) {
    let Some(served) = server.served(number) else { return };
    if !world.is_healthy(number) {
        return;
    }
    let (start, end) = (served.log.log_start().get(), served.log.log_end().get());
    let to = if world.chance(0.7) {
        let back = world.range(0..30);
        (end - back).max(start)
    } else {
        world.range(start..=end)
    };
    if !world.begin_cut(number, to) {
        return;
    }
    // Only a follower cuts its log.
    served.resign();
    let result = served.log.truncate(Offset(to)).await;
    // Nothing else ran since the log was cut.
    match result {
        Ok(cut_end) => {
            world.end_cut(number, Some((to, cut_end.get())));
            probe_producers(world, number, &served.log);
            world.lead(server, number, Rc::clone(&served.log));
        }
        Err(StoreError::OutOfRange { .. }) => {
            world.end_cut(number, None);
            world.lead(server, number, Rc::clone(&served.log));
        }
        // Only a restart tells.
        Err(error) => world.check_store_error("truncate", &error),
    }
}

/// Asks the log about repeated batches of every producer.
pub(super) fn probe_producers(world: &World, number: u32, log: &Log) {
    for header in world.probes(number) {
        let next = BatchHeader {
            base_sequence: header.base_sequence + header.last_offset_delta + 1,
            ..header
        };
        for header in [header, next] {
            world.check_verdict(number, &header, log.check_sequence(&header));
        }
    }
}

async fn delete_records(world: &Rc<World>, server: &Rc<Server>, number: u32) {
    let Some(served) = server.served(number) else { return };
    let (start, end) = (served.log.log_start().get(), served.log.durable_end().get());
    if start >= end || !world.is_healthy(number) {
        return;
    }
    let to = world.range(start..=end);
    world.ask_log_start(number, to);
    match served.log.advance_log_start(Offset(to)).await {
        Ok(()) => world.confirm_log_start(number, to),
        // Cut meanwhile.
        Err(StoreError::OutOfRange { .. }) => {}
        Err(error) => world.check_store_error("delete records", &error),
    }
}

async fn retain(world: &Rc<World>, server: &Rc<Server>, number: u32) {
    let Some(served) = server.served(number) else { return };
    if !world.is_healthy(number) {
        return;
    }
    let high_watermark = served.log.durable_end();
    served.log.note_high_watermark(high_watermark);
    world.ask_log_start(number, high_watermark.get());
    if let Err(error) = served.log.retain(world.now(), high_watermark).await {
        world.check_store_error("retain", &error);
    }
}

async fn create(world: &Rc<World>, server: &Rc<Server>) {
    let number = world.new_partition();
    create_existing(world, server, number).await;
}

/// Creates the log of a partition that the metadata knows.
pub(super) async fn create_existing(world: &Rc<World>, server: &Rc<Server>, number: u32) {
    let config = world.draw_config();
    match server.store(number).create_log(world.partition_id(number), config).await {
        Ok(log) => {
            world.set_existence(number, Existence::Live);
            world.lead(server, number, log);
            world.new_producers(server, number);
        }
        Err(StoreError::DiskFull) => {}
        Err(error) => world.check_store_error("create", &error),
    }
}

async fn remove(world: &Rc<World>, server: &Rc<Server>, number: u32) {
    if !world.is_healthy(number) || server.served(number).is_none() {
        return;
    }
    server.close(number);
    world.set_existence(number, Existence::Removing);
    match server.store(number).remove_log(world.partition_id(number)).await {
        Ok(()) => world.set_existence(number, Existence::Gone),
        Err(error) => world.check_store_error("remove", &error),
    }
}

/// Whether an error of a read needs damage to explain it.
pub(super) fn is_damage(error: &ReadError) -> bool {
    matches!(error, ReadError::Damaged { .. })
}
