//! The batches of one partition on their way to its leader, in order. `[P]`
//!
//! Up to a few batches are in flight at once (one, until the leader knows the producer); they are
//! always the first ones of the queue. When one
//! is refused, nothing new is sent until all others in flight are answered; then everything that is
//! not acknowledged is sent again, in order. An idempotent producer's sequence numbers make that safe:
//! the broker takes each batch once and refuses gaps.
//! Source: KIP-98; the cases follow Kafka's `TransactionManager`.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use levada_protocol::kafka::ErrorCode;
use levada_record::checksum::batch_checksum;
use levada_record::{
    BatchBuilder, BatchHeader, BuildError, Encoding, HEADER_BYTES, NewRecord, Offset,
    ProducerEpoch, ProducerId, Timestamp, VerifyLimits, next_batch,
};

use super::delivery::{DeliveryError, Outcome, Ticket};
use crate::error::Refusal;
use crate::retry::{Advice, Backoff, Chance, advice};

/// Who sends, as the cluster knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

/// What the answer to a batch was.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    /// Appended at `base`, or handed to the system when nothing is answered.
    Appended { base: Option<Offset>, append_time: Option<Timestamp> },
    /// The broker said no.
    Refused(Refusal),
    /// Nothing is known: the connection broke, the time ran out.
    Lost(Arc<str>),
}

/// What follows from an answer, for the shell.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Consequence {
    /// The leader may be another: ask for metadata.
    pub(crate) refresh: bool,
    /// This topic takes only smaller batches than one of so many bytes.
    pub(crate) too_large_bytes: Option<usize>,
}

#[derive(Debug)]
enum Body {
    Building(BatchBuilder),
    Finished(Bytes),
}

#[derive(Debug)]
struct Batch {
    number: u64,
    body: Body,
    records: u32,
    /// Its bytes without compression.
    plain_bytes: usize,
    /// Sequence of its first record; given when it is sent, taken away when one before it goes.
    sequence: Option<i32>,
    sent: bool,
    in_flight: bool,
    /// A try did not end with a refusal: it may be in the log.
    in_doubt: bool,
    created_ms: u64,
    ticket: Ticket,
}

impl Batch {
    fn new(number: u64, builder: BatchBuilder, ticket: Ticket, created_ms: u64) -> Self {
        Self {
            number,
            records: builder.record_count(),
            plain_bytes: builder.uncompressed_bytes(),
            body: Body::Building(builder),
            sequence: None,
            sent: false,
            in_flight: false,
            in_doubt: false,
            created_ms,
            ticket,
        }
    }

    /// Its bytes, saying who sends them, for a broker that takes `best` and Kafka's records.
    fn finish(
        &mut self,
        sender: Option<(Identity, i32)>,
        best: Encoding,
    ) -> Result<Bytes, BuildError> {
        let bytes = self.finish_as_built(sender)?;
        let encoding = BatchHeader::parse(&bytes).map(|header| header.encoding);
        if best == Encoding::Columnar || encoding != Ok(Encoding::Columnar) {
            return Ok(bytes);
        }
        // The broker is another than the one that was asked when the batch was opened.
        let too_large = BuildError::TooLarge { bytes: bytes.len() };
        let [builder] = rebuilt(&bytes, Encoding::KafkaV2, |_| 0).ok_or(too_large)?;
        self.body = Body::Building(builder);
        self.finish_as_built(sender)
    }

    fn finish_as_built(&mut self, sender: Option<(Identity, i32)>) -> Result<Bytes, BuildError> {
        let body = std::mem::replace(&mut self.body, Body::Finished(Bytes::new()));
        let bytes = match (body, sender) {
            (Body::Building(builder), None) => builder.finish()?.into(),
            (Body::Building(builder), Some((identity, sequence))) => {
                builder.producer(identity.id, identity.epoch, sequence).finish()?.into()
            }
            (Body::Finished(bytes), Some((identity, sequence))) => {
                restamped(bytes, identity, sequence)
            }
            (Body::Finished(bytes), None) => bytes,
        };
        self.body = Body::Finished(bytes.clone());
        Ok(bytes)
    }
}

/// The same batch from another sender.
fn restamped(bytes: Bytes, identity: Identity, sequence: i32) -> Bytes {
    let mut header = BatchHeader::parse(&bytes).expect("the builder writes whole headers");
    let (id, epoch) = (header.producer_id, header.producer_epoch);
    if (id, epoch, header.base_sequence) == (identity.id, identity.epoch, sequence) {
        return bytes;
    }
    (header.producer_id, header.producer_epoch) = (identity.id, identity.epoch);
    header.base_sequence = sequence;
    let mut copy = bytes.to_vec();
    let mut write = |header: &BatchHeader| {
        let (front, _) = copy.split_at_mut(HEADER_BYTES);
        front.copy_from_slice(&header.encode());
        batch_checksum(&copy)
    };
    header.checksum = write(&header);
    write(&header);
    Bytes::from(copy)
}

/// The records of a batch as two batches, and how many are in the first. `None` with less than two.
fn cut(bytes: &[u8]) -> Option<(u32, BatchBuilder, BatchBuilder)> {
    let header = BatchHeader::parse(bytes).ok()?;
    let at = header.record_count.unsigned_abs() / 2;
    let [low, high] = rebuilt(bytes, header.encoding, |index| usize::from(index >= at))?;
    (at > 0).then_some((at, low, high))
}

/// The records of a batch in `N` others, each in that of the number that `part_of` gives its index.
fn rebuilt<const N: usize>(
    bytes: &[u8],
    encoding: Encoding,
    part_of: impl Fn(u32) -> usize,
) -> Option<[BatchBuilder; N]> {
    let limits = VerifyLimits { max_batch_bytes: u32::MAX, max_inflated_bytes: u32::MAX };
    let (view, _) = next_batch(bytes, &limits).ok()??;
    let mut parts = [(); N].map(|()| BatchBuilder::encoded(encoding, view.codec()));
    let mut scratch = Vec::new();
    for (record, index) in view.records(&mut scratch, u32::MAX).ok()?.zip(0..) {
        let record = record.ok()?;
        let headers: Vec<_> = record.headers.iter().collect();
        let (key, value) = (record.key, record.value);
        let new = NewRecord { timestamp: record.timestamp, key, value, headers: &headers };
        parts.get_mut(part_of(index))?.push(&new).ok()?;
    }
    Some(parts)
}

/// Sequences wrap from 2^31 - 1 to 0.
fn sequence_after(sequence: i32, records: u32) -> i32 {
    let sum = i64::from(sequence) + i64::from(records);
    i32::try_from(sum % (i64::from(i32::MAX) + 1)).unwrap_or(0)
}

#[derive(Debug)]
pub(crate) struct Lane {
    topic: Arc<str>,
    partition: i32,
    idempotent: bool,
    in_flight_max: usize,
    queue: VecDeque<Batch>,
    next_number: u64,
    identity: Option<Identity>,
    /// The identity it had before, which will not do any more.
    spent: Option<Identity>,
    next_sequence: i32,
    /// The leader has taken a batch of this identity, so it refuses gaps. Before, it takes any
    /// sequence: had it refused the first batch, the second would come to stand before it.
    is_known: bool,
    /// After a refusal: nothing is sent before everything in flight is answered.
    draining: bool,
    not_before_ms: u64,
    failed_tries: u32,
    last_error: Arc<str>,
}

impl Lane {
    pub(crate) fn new(
        topic: Arc<str>,
        partition: i32,
        idempotent: bool,
        in_flight_max: usize,
    ) -> Self {
        Self {
            topic,
            partition,
            idempotent,
            in_flight_max,
            queue: VecDeque::new(),
            next_number: 0,
            identity: None,
            spent: None,
            next_sequence: 0,
            is_known: false,
            draining: false,
            not_before_ms: 0,
            failed_tries: 0,
            last_error: Arc::from("its turn did not come"),
        }
    }

    /// Adds a batch at the end.
    pub(crate) fn push(&mut self, builder: BatchBuilder, ticket: Ticket, created_ms: u64) {
        let number = self.take_number();
        self.queue.push_back(Batch::new(number, builder, ticket, created_ms));
    }

    fn take_number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Notes why nothing moves, for whoever asks later.
    pub(crate) fn note(&mut self, reason: &str) {
        self.last_error = Arc::from(reason);
    }

    /// The tickets of all its batches.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = &Ticket> {
        self.queue.iter().map(|batch| &batch.ticket)
    }

    /// Whether it has something to send and nobody to send it as.
    pub(crate) fn needs_identity(&self) -> bool {
        self.idempotent && self.identity.is_none() && !self.queue.is_empty() && !self.draining
    }

    /// Lets it send as `identity`, counting from 0. False when it is the one it had to give up.
    pub(crate) fn set_identity(&mut self, identity: Identity) -> bool {
        if self.spent == Some(identity) {
            return false;
        }
        self.identity = Some(identity);
        self.next_sequence = 0;
        self.is_known = false;
        self.forget_sequences(0);
        true
    }

    fn give_up_identity(&mut self) {
        self.spent = self.identity.take().or(self.spent);
    }

    /// Takes the sequences of the batches from place `from` on away.
    fn forget_sequences(&mut self, from: usize) {
        for batch in self.queue.iter_mut().skip(from) {
            batch.sequence = None;
        }
    }

    fn in_flight(&self) -> usize {
        self.queue.iter().filter(|batch| batch.in_flight).count()
    }

    /// Most batches in flight for now.
    fn window(&self) -> usize {
        if self.idempotent && !self.is_known { 1 } else { self.in_flight_max }
    }

    /// Whether a batch that came now could not be sent before something in flight is answered.
    pub(crate) fn is_held_up(&self) -> bool {
        self.window() <= self.queue.len() || (self.draining && !self.queue.is_empty())
    }

    /// Whether it would send a batch now, were it not for an identity or a pause.
    pub(crate) fn wants_to_send(&self) -> bool {
        let in_flight = self.in_flight();
        in_flight < self.queue.len() && in_flight < self.window() && !self.draining
    }

    /// Whether a batch can be sent now.
    pub(crate) fn sendable(&self, now_ms: u64) -> bool {
        self.wants_to_send() && !self.needs_identity() && self.not_before_ms <= now_ms
    }

    /// The end of its pause; long ago when there is none.
    pub(crate) fn not_before_ms(&self) -> u64 {
        self.not_before_ms
    }

    /// The next batch to send, its number and bytes, to a broker that takes `best` and Kafka's
    /// records; only when [`Self::sendable`]. `None` when no bytes can be made of it: then it has
    /// failed.
    pub(crate) fn send_next(&mut self, best: Encoding) -> Option<(u64, Bytes)> {
        // Those in flight are the first ones: whenever one is not any more, the lane drains.
        let at = self.in_flight();
        let batch = self.queue.get_mut(at)?;
        let sequence = batch.sequence.unwrap_or(self.next_sequence);
        let sender = self.identity.map(|identity| (identity, sequence));
        match batch.finish(sender, best) {
            Ok(bytes) => {
                if batch.sequence.is_none() && sender.is_some() {
                    batch.sequence = Some(sequence);
                    self.next_sequence = sequence_after(sequence, batch.records);
                }
                (batch.sent, batch.in_flight) = (true, true);
                Some((batch.number, bytes))
            }
            Err(source) => {
                let batch = self.queue.remove(at)?;
                let (topic, partition) = (Arc::clone(&self.topic), self.partition);
                let error = DeliveryError::Build { topic, partition, source };
                batch.ticket.resolve(Outcome::Failed(error));
                None
            }
        }
    }

    /// Takes note of the answer to the batch with that number.
    pub(crate) fn on_answer(
        &mut self,
        number: u64,
        answer: Answer,
        now_ms: u64,
        backoff: Backoff,
        chance: &mut Chance,
    ) -> Consequence {
        let mut consequence = Consequence::default();
        let Some(at) = self.queue.iter().position(|batch| batch.number == number) else {
            return consequence;
        };
        match answer {
            Answer::Appended { base, append_time } => self.deliver(at, base, append_time),
            Answer::Refused(refusal) => self.on_refusal(at, refusal, &mut consequence),
            Answer::Lost(reason) => {
                consequence.refresh = true;
                self.hold(at, reason, Doubt::MayBeThere);
            }
        }
        if self.draining && self.in_flight() == 0 {
            self.draining = false;
            self.not_before_ms = now_ms + backoff.delay_ms(self.failed_tries, chance);
        }
        consequence
    }

    fn deliver(&mut self, at: usize, base: Option<Offset>, append_time: Option<Timestamp>) {
        self.failed_tries = 0;
        self.is_known = true;
        if let Some(batch) = self.queue.remove(at) {
            batch.ticket.resolve(Outcome::Delivered { base, append_time });
        }
    }

    fn on_refusal(&mut self, at: usize, refusal: Refusal, consequence: &mut Consequence) {
        use ErrorCode as E;
        match refusal.code {
            // It is in the log; where is not said.
            E::DuplicateSequenceNumber => self.deliver(at, None, None),
            // Behind another that is not settled, or that failed and left it without a number: a
            // consequence of that. As the first: the broker does not remember what it acknowledged, and
            // this one is not there; begin anew.
            E::OutOfOrderSequenceNumber | E::UnknownProducerId | E::InvalidProducerEpoch
                if self.idempotent =>
            {
                let is_numbered = self.queue.get(at).is_some_and(|batch| batch.sequence.is_some());
                if at == 0 && is_numbered {
                    self.give_up_identity();
                }
                self.hold(at, refusal.to_string().into(), Doubt::None);
            }
            E::MessageTooLarge if self.split(at, consequence) => {}
            // Appended, but not on enough replicas or not in time.
            E::NotEnoughReplicasAfterAppend | E::RequestTimedOut => {
                self.hold(at, refusal.to_string().into(), Doubt::MayBeThere);
            }
            code => match advice(code) {
                Advice::Fail => self.fail(at, refusal),
                decided => {
                    consequence.refresh |= decided == Advice::Refresh;
                    self.hold(at, refusal.to_string().into(), Doubt::None);
                }
            },
        }
    }

    /// The batch is to be sent again, once everything in flight is answered.
    fn hold(&mut self, at: usize, reason: Arc<str>, doubt: Doubt) {
        if let Some(batch) = self.queue.get_mut(at) {
            batch.in_flight = false;
            batch.in_doubt |= doubt == Doubt::MayBeThere;
        }
        if !self.draining {
            self.failed_tries += 1;
        }
        self.draining = true;
        self.last_error = reason;
    }

    /// The broker refused it for good, so nothing of it is in the log, nor is anything behind it, which
    /// has later sequences: those will take its place.
    fn fail(&mut self, at: usize, refusal: Refusal) {
        let Some(batch) = self.remove(at) else { return };
        let (topic, partition) = (Arc::clone(&self.topic), self.partition);
        batch.ticket.resolve(Outcome::Failed(DeliveryError::Refused { topic, partition, refusal }));
    }

    /// Takes out a batch that is not in the log.
    fn remove(&mut self, at: usize) -> Option<Batch> {
        let batch = self.queue.remove(at)?;
        if let Some(sequence) = batch.sequence {
            self.next_sequence = sequence;
            self.forget_sequences(at);
        }
        self.draining |= self.in_flight() > 0;
        Some(batch)
    }

    /// Cuts a batch that is too large for its topic in two. False when it is a single record.
    fn split(&mut self, at: usize, consequence: &mut Consequence) -> bool {
        let Some(Batch { body: Body::Finished(bytes), .. }) = self.queue.get(at) else {
            return false;
        };
        let Some((first, low, high)) = cut(bytes) else { return false };
        let Some(batch) = self.remove(at) else { return false };
        consequence.too_large_bytes = Some(batch.plain_bytes);
        let (low_ticket, high_ticket) = batch.ticket.split(first);
        for (builder, ticket) in [(high, high_ticket), (low, low_ticket)] {
            let number = self.take_number();
            self.queue.insert(at, Batch::new(number, builder, ticket, batch.created_ms));
        }
        true
    }

    /// Gives up batches that are too old. With one that may be in the log go all behind it that were
    /// sent: under another identity they could come twice.
    pub(crate) fn expire(&mut self, now_ms: u64, timeout_ms: u64) {
        if self.in_flight() > 0 {
            return;
        }
        let (mut gap, mut doubt) = (false, false);
        while let Some(batch) = self.queue.pop_front() {
            let old = batch.created_ms.saturating_add(timeout_ms) <= now_ms;
            let goes_along = doubt && batch.sent && self.idempotent;
            if !(old || goes_along) {
                self.queue.push_front(batch);
                break;
            }
            gap |= batch.sequence.is_some();
            doubt |= batch.in_doubt;
            let error = DeliveryError::Expired {
                topic: Arc::clone(&self.topic),
                partition: self.partition,
                after_ms: timeout_ms,
                in_doubt: batch.in_doubt,
                last: Arc::clone(&self.last_error),
            };
            batch.ticket.resolve(Outcome::Failed(error));
        }
        if gap {
            self.give_up_identity();
            self.forget_sequences(0);
        }
    }
}

/// Whether a batch whose try failed may be in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    MayBeThere,
}

#[cfg(test)]
mod tests;
