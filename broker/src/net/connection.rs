//! Produce path 1/9: bytes of one client into frames, replies back in request order; from the socket;
//! to `protocol/frame.rs`.
//!
//! A request is begun when everything before it on its connection is answered; only Produce may begin
//! behind other Produces, so that they pipeline and still append in order. So at most one request
//! that waits holds memory, and a reader stops reading instead of queueing.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use futures_lite::FutureExt as _;
use levada_engine::SharedRuntime;
use levada_protocol::frame::{FrameBuffer, FrameError};
use levada_protocol::kafka::ApiKey;

use super::reply::Reply;
use crate::api::context::{Context, Frame};
use crate::api::{self, Begun, Outcome, OutcomeFuture};
use crate::budget::{Budget, FrameHold, Permit};
use crate::config::BrokerConfig;
use crate::metrics::{add, subtract};
use crate::runtime::event::{Event, Flag, keep_waker};
use crate::runtime::socket::Socket;
use crate::shard::Shard;

/// Bytes of a frame before its API key is known: the length and the key.
const HEAD_BYTES: usize = 6;

/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;

/// A body is accounted for in steps of at least this, in bytes: the room for a first read. With more, a few thousand
/// connections that send next to nothing would use up the budget of all.
const BODY_STEP_BYTES: u64 = 4 << 10;

/// An idle connection keeps no larger read buffer than this, in bytes.
const IDLE_BUFFER_BYTES: usize = 8 << 10;

/// A larger one is given up when it is this many times larger than what is in it.
const SLACK_MAX: usize = 8;

/// Replies that are sent together, at most.
const REPLIES_PER_SEND: usize = 128;

/// Why a connection was closed by us.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// Bytes that are no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame that is no request we serve.
    #[error("{0}")]
    Malformed(String),
    /// A Produce without acknowledgement failed, which the client hears of only by this.
    #[error("produce with acks=0 failed: {0}")]
    SilentFailure(String),
    /// The first request did not come in time.
    #[error("no request within {ms} ms of connecting")]
    NoRequest {
        /// The deadline.
        ms: u64,
    },
    /// Nothing came for too long.
    #[error("silent for {ms} ms")]
    Idle {
        /// The deadline.
        ms: u64,
    },
    /// A request came too slowly.
    #[error("a request of {bytes} B comes slower than {rate} B/s")]
    SlowBody {
        /// Length of the request.
        bytes: u64,
        /// The least rate.
        rate: u64,
    },
    /// The peer does not read its replies.
    #[error("no byte of a reply was taken for {ms} ms")]
    SlowReader {
        /// The deadline.
        ms: u64,
    },
    /// It held memory that others waited for, and its request was far from whole.
    #[error("its unfinished request kept others waiting")]
    InTheWay,
    /// The broker is stopping.
    #[error("the broker is stopping")]
    Stopping,
}

/// A reply that is owed.
struct Slot {
    api: ApiKey,
    request_bytes: u64,
    received_ns: u64,
    state: SlotState,
}

enum SlotState {
    Ready(Outcome),
    Waiting(OutcomeFuture),
}

/// A reply that can be sent.
struct Answered {
    api: ApiKey,
    request_bytes: u64,
    received_ns: u64,
    ready_ns: u64,
    reply: Option<Reply>,
}

/// How far the request that is being received has come.
#[derive(Debug, Clone, Copy)]
struct Receiving {
    /// Length on the wire, in bytes.
    bytes: u64,
    /// Since when the clock runs, in nanoseconds.
    since_ns: u64,
    /// What had arrived then, in bytes.
    had_bytes: u64,
    /// What has arrived by now, in bytes.
    has_bytes: u64,
}

/// One client.
pub struct Connection {
    socket: Socket,
    /// Where clients of any partition connect.
    kafka_port: u16,
    runtime: SharedRuntime,
    buffer: RefCell<FrameBuffer>,
    /// Replies owed, oldest first.
    slots: RefCell<VecDeque<Slot>>,
    /// For the writer: a slot was added.
    slot_added: Event,
    /// For the reader: replies were sent.
    slots_sent: Event,
    /// Requests of this connection that are not yet handled.
    inflight: Budget,
    max_frame_bytes: u32,
    opened_ns: u64,
    /// When the last byte came or went, in nanoseconds.
    active_ns: Cell<u64>,
    requests_seen: Cell<u64>,
    receiving: Cell<Option<Receiving>>,
    /// Since when a send makes no progress, in nanoseconds.
    sending_since_ns: Cell<Option<u64>>,
    /// Nothing more is read; what was asked is still answered.
    draining: Cell<bool>,
    /// To wake the reader when the draining begins.
    reader: RefCell<Option<Waker>>,
    closed: Flag,
    reason: RefCell<Option<CloseReason>>,
}

impl Connection {
    /// A connection that nobody serves yet.
    pub fn new(shard: &Shard, socket: Socket, kafka_port: u16) -> Rc<Self> {
        let now_ns = shard.runtime.now().monotonic_ns;
        let max_frame_bytes = u32::try_from(shard.config.max_frame_bytes).unwrap_or(u32::MAX);
        Rc::new(Self {
            socket,
            kafka_port,
            runtime: Rc::clone(&shard.runtime),
            buffer: RefCell::new(FrameBuffer::new(max_frame_bytes)),
            slots: RefCell::default(),
            slot_added: Event::default(),
            slots_sent: Event::default(),
            inflight: Budget::new(shard.config.connection_inflight_bytes),
            max_frame_bytes,
            opened_ns: now_ns,
            active_ns: Cell::new(now_ns),
            requests_seen: Cell::new(0),
            receiving: Cell::new(None),
            sending_since_ns: Cell::new(None),
            draining: Cell::new(shard.stopping.is_raised()),
            reader: RefCell::default(),
            closed: Flag::default(),
            reason: RefCell::default(),
        })
    }

    /// Serves the connection until either side ends it.
    pub async fn serve(self: Rc<Self>, shard: Rc<Shard>) {
        let id = shard.connections.enter(&self);
        let _leaves = Leaves { shard: Rc::clone(&shard), id };
        add(&shard.metrics.connections_open, 1);
        // What the client is told to connect to is no shard's own port.
        let reached = SocketAddr::new(self.socket.local().ip(), self.kafka_port);
        let context = Rc::new(Context::new(Rc::clone(&shard), reached, self.socket.peer()));
        let reading = self.read_all(&context);
        let writing = self.write_all(&shard);
        let closing = async {
            self.closed.raised().await;
            Ok(())
        };
        let outcome = closing.or(reading).or(writing).await;
        let reason = outcome.err().or_else(|| self.reason.borrow().clone());
        if let Some(reason) = reason {
            self.note_reason(&shard, &reason);
        }
        self.socket.shutdown();
    }

    fn note_reason(&self, shard: &Shard, reason: &CloseReason) {
        let metrics = &shard.metrics;
        match reason {
            CloseReason::Frame(_) | CloseReason::Malformed(_) => {
                add(&metrics.connections_malformed_total, 1);
            }
            CloseReason::NoRequest { .. }
            | CloseReason::SlowBody { .. }
            | CloseReason::SlowReader { .. } => add(&metrics.connections_late_total, 1),
            CloseReason::InTheWay => add(&metrics.connections_evicted_total, 1),
            CloseReason::SilentFailure(_) => {}
            // Expected: nobody needs to read of it.
            CloseReason::Idle { .. } => {
                add(&metrics.connections_late_total, 1);
                return;
            }
            CloseReason::Stopping => return,
        }
        shard.connections.complain(shard, self.socket.peer(), reason);
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.socket.peer()
    }

    /// Reads no more, answers what was asked, then ends.
    pub fn drain(&self) {
        self.draining.set(true);
        let reader = self.reader.borrow_mut().take();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Ends the connection; replies that are owed are not sent.
    pub fn close(&self, reason: CloseReason) {
        self.reason.borrow_mut().get_or_insert(reason);
        self.closed.raise();
        self.socket.shutdown();
    }

    // ---- reading ----

    async fn read_all(&self, context: &Rc<Context>) -> Result<(), CloseReason> {
        let shard = &context.shard;
        loop {
            let Some(head) = self.read_head(&shard.config).await? else { break };
            let held = self.read_body(shard, head).await?;
            let Some(held) = held else { break };
            let frame = self.buffer.borrow_mut().next_frame()?;
            let frame = frame.expect("the frame is whole: its missing bytes were read");
            self.begin(context, Frame { bytes: frame, held: Arc::new(held) }).await?;
            shard.runtime.yield_if_needed().await;
        }
        // The client sends nothing more, or the broker stops: what is owed is still paid.
        self.until(|slots| slots.is_empty() && self.sending_since_ns.get().is_none()).await;
        Ok(())
    }

    /// Reads until the API of the next request is known and may begin. `None` when none comes.
    async fn read_head(&self, config: &BrokerConfig) -> Result<Option<Head>, CloseReason> {
        loop {
            if self.draining.get() {
                return Ok(None);
            }
            let (missing, key) = {
                let buffer = self.buffer.borrow();
                let key = buffer
                    .buffered()
                    .get(LENGTH_BYTES..HEAD_BYTES)
                    .and_then(|key| key.try_into().ok());
                (buffer.missing_bytes()?, key.map(i16::from_be_bytes))
            };
            match (missing, key) {
                (Some(_), Some(key)) => {
                    let bytes = self.first_frame_bytes();
                    let api = ApiKey::from_i16(key);
                    self.receiving.set(None);
                    self.until(|slots| may_begin(api, slots, config)).await;
                    return Ok(Some(Head { bytes: bytes as u64 }));
                }
                (Some(0), None) => {
                    return Err(CloseReason::Malformed("frame without a header".into()));
                }
                (missing, _) => {
                    if missing.is_some() {
                        self.clock_starts(HEAD_BYTES as u64);
                    }
                    if self.read_some().await? == 0 {
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Length on the wire of the frame at the front of the buffer.
    fn first_frame_bytes(&self) -> usize {
        let buffer = self.buffer.borrow();
        let length =
            buffer.buffered().first_chunk().map_or(0, |length| i32::from_be_bytes(*length));
        usize::try_from(length).unwrap_or(0) + LENGTH_BYTES
    }

    /// Reads the rest of the frame, accounting for it as it comes. `None` at the end of the stream.
    async fn read_body(&self, shard: &Shard, head: Head) -> Result<Option<FrameHold>, CloseReason> {
        let connection = self.inflight.acquire(head.bytes).await;
        let mut held: Option<Permit> = None;
        loop {
            let missing = self.buffer.borrow().missing_bytes()?;
            let received = self.buffer.borrow().buffered_bytes() as u64;
            let wanted = match missing {
                Some(0) => head.bytes,
                _ => (2 * received).max(BODY_STEP_BYTES).min(head.bytes),
            };
            let has = held.as_ref().map_or(0, Permit::bytes);
            if wanted > has {
                self.clock_stops();
                let more = shard.requests.acquire(wanted - has).await;
                match &mut held {
                    Some(held) => held.absorb(more),
                    None => held = Some(more),
                }
            }
            if missing == Some(0) {
                self.receiving.set(None);
                let shard = held.expect("a frame is longer than nothing");
                return Ok(Some(FrameHold { shard, connection }));
            }
            self.clock_starts(head.bytes);
            if self.read_some().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The clock of the frame under way stops while it waits for us.
    fn clock_stops(&self) {
        if let Some(mut receiving) = self.receiving.get() {
            receiving.since_ns = u64::MAX;
            self.receiving.set(Some(receiving));
        }
    }

    fn clock_starts(&self, bytes: u64) {
        let has_bytes = self.buffer.borrow().buffered_bytes() as u64;
        let running = self
            .receiving
            .get()
            .filter(|receiving| receiving.since_ns != u64::MAX && receiving.bytes == bytes);
        let receiving = match running {
            Some(receiving) => Receiving { has_bytes, ..receiving },
            None => Receiving {
                bytes,
                since_ns: self.runtime.now().monotonic_ns,
                had_bytes: has_bytes,
                has_bytes,
            },
        };
        self.receiving.set(Some(receiving));
    }

    /// Reads what is there; 0 when the stream has ended or the broker stops.
    async fn read_some(&self) -> Result<usize, CloseReason> {
        let bytes = poll_fn(|context| {
            if self.draining.get() {
                return Poll::Ready(Ok(0));
            }
            keep_waker(&mut self.reader.borrow_mut(), context.waker());
            let mut buffer = self.buffer.borrow_mut();
            let read = self.socket.poll_read(context, &mut *buffer);
            if read.is_pending() {
                buffer.rest();
            }
            read
        })
        .await;
        match bytes {
            Ok(bytes) => {
                self.active_ns.set(self.runtime.now().monotonic_ns);
                Ok(bytes)
            }
            // The peer went away; nobody needs to hear of it.
            Err(_) => Ok(0),
        }
    }

    async fn begin(&self, context: &Rc<Context>, frame: Frame) -> Result<(), CloseReason> {
        let received_ns = self.active_ns.get();
        let request_bytes = (frame.bytes.len() + LENGTH_BYTES) as u64;
        self.requests_seen.set(self.requests_seen.get() + 1);
        let metrics = &context.shard.metrics;
        metrics.stage_queue.record_between_ns(received_ns, self.runtime.now().monotonic_ns);
        let Begun { api, state } = api::begin(context, frame).await?;
        let state = match state {
            api::BegunState::Ready(outcome) => SlotState::Ready(outcome),
            api::BegunState::Waiting(future) => SlotState::Waiting(future),
        };
        let slot = Slot { api, request_bytes, received_ns, state };
        self.slots.borrow_mut().push_back(slot);
        self.slot_added.notify();
        Ok(())
    }

    /// Waits until the replies owed are as `condition` wants them.
    async fn until(&self, condition: impl Fn(&VecDeque<Slot>) -> bool) {
        while !condition(&self.slots.borrow()) {
            self.slots_sent.wait().await;
        }
    }

    // ---- writing ----

    async fn write_all(&self, shard: &Shard) -> Result<(), CloseReason> {
        loop {
            let answered = poll_fn(|context| self.poll_answered(context)).await?;
            if self.send(shard, &answered).await.is_err() {
                return Ok(());
            }
            drop(answered);
            self.slots_sent.notify();
        }
    }

    /// Takes the oldest replies that are ready, as many as are; waits when none is.
    fn poll_answered(
        &self,
        context: &mut std::task::Context<'_>,
    ) -> Poll<Result<Vec<Answered>, CloseReason>> {
        let mut answered = Vec::new();
        while answered.len() < REPLIES_PER_SEND {
            let next = self.slots.borrow_mut().pop_front();
            let Some(mut slot) = next else { break };
            let outcome = match slot.state {
                SlotState::Ready(outcome) => outcome,
                SlotState::Waiting(mut future) => match future.as_mut().poll(context) {
                    Poll::Ready(outcome) => outcome,
                    Poll::Pending => {
                        slot.state = SlotState::Waiting(future);
                        self.slots.borrow_mut().push_front(slot);
                        break;
                    }
                },
            };
            let reply = match outcome {
                Outcome::Reply(reply) => Some(reply),
                Outcome::Silent => None,
                // What was answered before it is still sent.
                Outcome::Close(reason) if answered.is_empty() => return Poll::Ready(Err(reason)),
                Outcome::Close(_) => {
                    slot.state = SlotState::Ready(outcome);
                    self.slots.borrow_mut().push_front(slot);
                    break;
                }
            };
            answered.push(Answered {
                api: slot.api,
                request_bytes: slot.request_bytes,
                received_ns: slot.received_ns,
                ready_ns: self.runtime.now().monotonic_ns,
                reply,
            });
        }
        if !answered.is_empty() {
            return Poll::Ready(Ok(answered));
        }
        if self.slots.borrow().is_empty() && self.slot_added.poll_wait(context).is_ready() {
            // Added meanwhile, or long ago and sent already: look once more.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    async fn send(&self, shard: &Shard, answered: &[Answered]) -> io::Result<()> {
        let mut slices = Vec::with_capacity(2 * answered.len());
        for reply in answered.iter().filter_map(|answered| answered.reply.as_ref()) {
            reply.push_slices(&mut slices);
        }
        if !slices.is_empty() {
            self.sending_since_ns.set(Some(self.runtime.now().monotonic_ns));
            let progress = || self.sending_since_ns.set(Some(self.runtime.now().monotonic_ns));
            let sent = self.socket.send_all(&mut slices, progress).await;
            self.sending_since_ns.set(None);
            sent?;
        }
        let now_ns = self.runtime.now().monotonic_ns;
        self.active_ns.set(now_ns);
        for answered in answered {
            let reply_bytes = answered.reply.as_ref().map_or(0, Reply::bytes);
            let total_us = now_ns.saturating_sub(answered.received_ns) / 1_000;
            let metrics = &shard.metrics;
            metrics.on_answered(answered.api, answered.request_bytes, reply_bytes, total_us);
            metrics.stage_reply.record_between_ns(answered.ready_ns, now_ns);
        }
        Ok(())
    }

    // ---- deadlines ----

    /// Why the connection is to be closed now, if it is.
    pub fn overdue(&self, now_ns: u64, config: &BrokerConfig) -> Option<CloseReason> {
        let since_ms = |from_ns: u64| now_ns.saturating_sub(from_ns) / 1_000_000;
        if let Some(since_ns) = self.sending_since_ns.get()
            && since_ms(since_ns) > config.reply_write_deadline_ms
        {
            return Some(CloseReason::SlowReader { ms: config.reply_write_deadline_ms });
        }
        if self.requests_seen.get() == 0
            && since_ms(self.opened_ns) > config.first_frame_deadline_ms
            && self.receiving.get().is_none_or(|receiving| receiving.bytes == HEAD_BYTES as u64)
        {
            return Some(CloseReason::NoRequest { ms: config.first_frame_deadline_ms });
        }
        if let Some(receiving) = self.receiving.get() {
            let elapsed_ms = since_ms(receiving.since_ns);
            let rate = config.body_min_rate_bytes_per_s;
            // As long as the first request may take, no rate is asked of a body.
            let judged_ms = elapsed_ms.saturating_sub(config.first_frame_deadline_ms);
            let expected = u128::from(judged_ms) * u128::from(rate) / 1_000;
            let got = u128::from(receiving.has_bytes.saturating_sub(receiving.had_bytes));
            if judged_ms > 0 && got < expected {
                return Some(CloseReason::SlowBody { bytes: receiving.bytes, rate });
            }
            return None;
        }
        let is_quiet = self.slots.borrow().is_empty();
        if is_quiet && since_ms(self.active_ns.get()) > config.idle_deadline_ms {
            return Some(CloseReason::Idle { ms: config.idle_deadline_ms });
        }
        None
    }

    /// When the request that is being received will be whole, at the pace so far; `None` when none
    /// is being received.
    pub fn whole_in_ns(&self, now_ns: u64) -> Option<u64> {
        let receiving = self.receiving.get()?;
        if receiving.since_ns == u64::MAX {
            // It waits for memory itself, and holds some.
            return Some(u64::MAX - receiving.has_bytes);
        }
        let got = receiving.has_bytes.saturating_sub(receiving.had_bytes).max(1);
        let missing = receiving.bytes.saturating_sub(receiving.has_bytes);
        let elapsed_ns = now_ns.saturating_sub(receiving.since_ns);
        let whole_in = u128::from(missing) * u128::from(elapsed_ns) / u128::from(got);
        Some(u64::try_from(whole_in).unwrap_or(u64::MAX))
    }

    /// Lets go of a large read buffer when next to nothing is in it.
    pub fn shrink_when_idle(&self) {
        shrink(&mut self.buffer.borrow_mut(), self.max_frame_bytes);
    }
}

/// Moves what little is in a large buffer to a small one. No budget counts the room behind it, and a client that was
/// fast before it stopped in the middle of a request would keep a quarter of a megabyte.
fn shrink(buffer: &mut FrameBuffer, max_frame_bytes: u32) {
    let capacity_bytes = buffer.capacity_bytes();
    if capacity_bytes <= IDLE_BUFFER_BYTES || buffer.buffered_bytes() > capacity_bytes / SLACK_MAX {
        return;
    }
    let mut small = FrameBuffer::new(max_frame_bytes);
    small.feed(buffer.buffered());
    *buffer = small;
}

/// What is known of a request before its body is read.
#[derive(Debug, Clone, Copy)]
struct Head {
    /// Length on the wire, in bytes.
    bytes: u64,
}

/// Whether a request of `api` may begin with these replies owed.
fn may_begin(api: Option<ApiKey>, slots: &VecDeque<Slot>, config: &BrokerConfig) -> bool {
    if slots.is_empty() {
        return true;
    }
    api == Some(ApiKey::Produce)
        && (slots.len() as u64) < config.connection_replies_max
        && slots.iter().all(|slot| slot.api == ApiKey::Produce)
}

/// Takes the connection out of the books however its task ends.
struct Leaves {
    shard: Rc<Shard>,
    id: u64,
}

impl Drop for Leaves {
    fn drop(&mut self) {
        self.shard.connections.leave(self.id);
        subtract(&self.shard.metrics.connections_open, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a client that sends megabytes and then one byte costs as little as one that sent one byte.
    #[test]
    fn a_large_buffer_goes_when_little_is_in_it_and_stays_while_it_is_used() {
        let frame = |bytes: usize| {
            let length = u32::try_from(bytes).unwrap().to_be_bytes();
            [&length[..], &vec![7; bytes]].concat()
        };
        let mut buffer = FrameBuffer::new(1 << 20);
        for _ in 0..4 {
            buffer.feed(&frame(600_000));
            assert_eq!(buffer.next_frame().unwrap().unwrap().len(), 600_000);
        }
        let whole = frame(600_000);
        buffer.feed(&whole[..3]);
        assert!(buffer.capacity_bytes() > 16 * IDLE_BUFFER_BYTES, "or there is nothing to show");
        shrink(&mut buffer, 1 << 20);
        assert!(buffer.capacity_bytes() <= IDLE_BUFFER_BYTES, "{}", buffer.capacity_bytes());
        // Nothing is lost, and a request that goes on keeps its buffer.
        buffer.feed(&whole[3..500_000]);
        let capacity_bytes = buffer.capacity_bytes();
        shrink(&mut buffer, 1 << 20);
        assert_eq!(buffer.capacity_bytes(), capacity_bytes);
        buffer.feed(&whole[500_000..]);
        assert_eq!(buffer.next_frame().unwrap().unwrap(), &whole[4..]);
    }
}
