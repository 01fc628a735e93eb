//! An idempotent producer: five requests in flight, `acks=all`; what was sent on a connection that broke, and what got
//! a retriable error, is sent again with the same sequences, in the same order, until it is acknowledged.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::batch::{self, ProducerIdentity};
use super::clock;
use super::random::Random;
use super::wire::{Connection, OUT_OF_ORDER, Produced, RETRIABLE, Target};

/// What the protocol lets an idempotent producer have in flight.
const IN_FLIGHT_MAX: usize = 5;
/// How long the last batches may take after the load ended.
const DRAIN_LIMIT: Duration = Duration::from_mins(1);
const PAUSE: Duration = Duration::from_millis(20);

/// What all producers and the driver share.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) targets: Vec<Target>,
    /// Above so many bytes there are small batches only.
    pub(crate) bytes_max: u64,
    pub(crate) bytes: AtomicU64,
    /// No new batches from now on.
    pub(crate) ending: AtomicBool,
    /// Nothing at all from now on: the run failed.
    pub(crate) giving_up: AtomicBool,
    /// Per target: every acknowledged record is below it.
    pub(crate) acked_ends: Vec<AtomicI64>,
    pub(crate) acked_batches: AtomicU64,
}

impl Load {
    pub(crate) fn new(address: SocketAddr, targets: Vec<Target>, bytes_max: u64) -> Self {
        Self {
            address,
            bytes_max,
            bytes: AtomicU64::new(0),
            ending: AtomicBool::new(false),
            giving_up: AtomicBool::new(false),
            acked_ends: targets.iter().map(|_| AtomicI64::new(0)).collect(),
            acked_batches: AtomicU64::new(0),
            targets,
        }
    }
}

/// One batch that was sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sent {
    pub(crate) base_sequence: i32,
    pub(crate) records: u32,
    /// With which offset it was acknowledged.
    pub(crate) acked: Option<i64>,
}

/// What one producer did.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) client: u32,
    /// Per target, in the order of sending.
    pub(crate) sent: Vec<Vec<Sent>>,
    /// Batches whose connection broke before their answer.
    pub(crate) unknown: u64,
    /// Batches with a retriable error.
    pub(crate) refused: u64,
    /// Answers that no right broker gives.
    pub(crate) findings: Vec<String>,
}

struct Flight {
    target: usize,
    index: usize,
    bytes: Vec<u8>,
    /// Its fate was unknown or it was refused once.
    again: bool,
}

struct Producer {
    load: Arc<Load>,
    identity: ProducerIdentity,
    random: Random,
    ledger: Ledger,
    connection: Option<Connection>,
    /// Sent, without an answer yet.
    flying: VecDeque<Flight>,
    /// Refused; to be sent again when nothing flies any more.
    refused: Vec<Flight>,
    /// To be sent before anything new.
    waiting: VecDeque<Flight>,
    last_target: usize,
}

/// Produces until the load ends and everything is acknowledged.
///
/// # Errors
/// When the broker gives no producer id, or does not take the last batches within a minute.
pub(crate) fn run(load: Arc<Load>, client: u32, seed: u64) -> anyhow::Result<Ledger> {
    let mut connection = Connection::open(load.address).context("connect for a producer id")?;
    let (producer_id, producer_epoch) = loop {
        match connection.init_producer_id()? {
            Ok(given) => break given,
            Err(code) => ensure!(RETRIABLE.contains(&code), "InitProducerId: error {code}"),
        }
        clock::wait(PAUSE);
    };
    let mut producer = Producer {
        identity: ProducerIdentity { client, producer_id, producer_epoch },
        random: Random::new(seed, 1 + u64::from(client)),
        ledger: Ledger { client, sent: vec![Vec::new(); load.targets.len()], ..Ledger::default() },
        connection: Some(connection),
        flying: VecDeque::new(),
        refused: Vec::new(),
        waiting: VecDeque::new(),
        last_target: 0,
        load,
    };
    let mut deadline = None;
    while !producer.is_done(&mut deadline)? {
        producer.step();
    }
    Ok(producer.ledger)
}

impl Producer {
    fn is_done(&self, deadline: &mut Option<Instant>) -> anyhow::Result<bool> {
        if self.load.giving_up.load(Ordering::Relaxed) || !self.ledger.findings.is_empty() {
            return Ok(true);
        }
        if !self.load.ending.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let open = self.flying.len() + self.refused.len() + self.waiting.len();
        let deadline = *deadline.get_or_insert_with(|| clock::now() + DRAIN_LIMIT);
        ensure!(open == 0 || clock::now() < deadline, "{open} batches are never acknowledged");
        Ok(open == 0)
    }

    /// Fills the flight, then takes one answer.
    fn step(&mut self) {
        let Some(mut connection) = self.connection.take().or_else(|| self.connect()) else {
            clock::wait(PAUSE);
            return;
        };
        while self.refused.is_empty() && self.flying.len() < IN_FLIGHT_MAX {
            let Some(flight) = self.next_flight() else { break };
            let target = self.load.targets[flight.target].clone();
            let sent = connection.send_produce(&target, &flight.bytes);
            self.flying.push_back(flight);
            if sent.is_err() {
                self.connection_lost();
                return;
            }
        }
        if let Some(oldest) = self.flying.front() {
            let target = self.load.targets[oldest.target].clone();
            match connection.receive_produced(&target) {
                Ok(answer) => self.answered(answer),
                Err(_) => {
                    self.connection_lost();
                    return;
                }
            }
        }
        if self.flying.is_empty() && !self.refused.is_empty() {
            clock::wait(PAUSE);
            self.send_again_from(Vec::new());
        }
        self.connection = Some(connection);
    }

    fn connect(&self) -> Option<Connection> {
        Connection::open(self.load.address).ok()
    }

    /// Nobody knows what became of the flying ones.
    fn connection_lost(&mut self) {
        self.connection = None;
        self.ledger.unknown += self.flying.len() as u64;
        let flying = std::mem::take(&mut self.flying).into();
        self.send_again_from(flying);
    }

    /// What was refused was sent before what flies, and that before what waits.
    fn send_again_from(&mut self, flying: Vec<Flight>) {
        let mut again = std::mem::take(&mut self.refused);
        again.extend(flying);
        for mut flight in again.into_iter().rev() {
            flight.again = true;
            self.waiting.push_front(flight);
        }
    }

    fn next_flight(&mut self) -> Option<Flight> {
        if let Some(flight) = self.waiting.pop_front() {
            return Some(flight);
        }
        if self.load.ending.load(Ordering::Relaxed) {
            return None;
        }
        // Several in flight for one partition are what sequences are for.
        if self.random.chance(50) {
            self.last_target = self.random.index(self.load.targets.len());
        }
        let (records, value_bytes) = self.next_size();
        let sent = &mut self.ledger.sent[self.last_target];
        let base_sequence = sent.last().map_or(0, |last| {
            last.base_sequence + i32::try_from(last.records).expect("small batches")
        });
        let bytes =
            batch::build(self.identity, base_sequence, records, value_bytes, clock::unix_ms());
        self.load.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        sent.push(Sent { base_sequence, records, acked: None });
        Some(Flight { target: self.last_target, index: sent.len() - 1, bytes, again: false })
    }

    /// Number and size of the next batch's records: some go through the journal, some straight to their segment.
    fn next_size(&mut self) -> (u32, usize) {
        let full = self.load.bytes.load(Ordering::Relaxed) > self.load.bytes_max;
        let kind = if full { 99 } else { self.random.range(0, 100) };
        let (records, bytes) = match kind {
            0..2 => (self.random.range(50, 100), self.random.range(2_000, 4_000)),
            2..10 => (self.random.range(5, 20), self.random.range(500, 5_000)),
            _ => (self.random.range(1, 6), self.random.range(12, 300)),
        };
        (u32::try_from(records).expect("below 100"), usize::try_from(bytes).expect("below 5000"))
    }

    fn answered(&mut self, answer: Produced) {
        let Some(flight) = self.flying.pop_front() else { return };
        let target = &self.load.targets[flight.target];
        let sent = &mut self.ledger.sent[flight.target][flight.index];
        match answer.error {
            0 => {
                sent.acked = Some(answer.base_offset);
                let end = answer.base_offset + i64::from(sent.records);
                self.load.acked_ends[flight.target].fetch_max(end, Ordering::Relaxed);
                self.load.acked_batches.fetch_add(1, Ordering::Relaxed);
            }
            OUT_OF_ORDER if self.refused.iter().any(|early| early.target == flight.target) => {
                self.refused.push(flight);
            }
            code if RETRIABLE.contains(&code) => {
                self.ledger.refused += 1;
                self.refused.push(flight);
            }
            code => self.ledger.findings.push(format!(
                "{} {}: client {} sequence {} ({} records{}): error {code} though everything before it is acknowledged",
                target.topic,
                target.partition,
                self.ledger.client,
                sent.base_sequence,
                sent.records,
                if flight.again { ", sent again" } else { "" },
            )),
        }
    }
}
