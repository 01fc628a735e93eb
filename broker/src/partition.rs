//! One partition on its shard: its log, its role, and who waits for what. The owner of all mutable
//! state of the partition; knows no network and no executor but the engine's runtime.
//!
//! Appends keep their order: once one has to wait for room, those after it wait behind it.

pub mod leader;
pub mod ack;
pub mod append_job;
pub mod pressure;
pub mod watch;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use bytes::Bytes;
use levada_engine::{AppendError, Log, Now, ReadError, SequenceVerdict, SharedRuntime, Slice};
use levada_record::{BatchHeader, LeaderEpoch, Offset, PartitionId, Timestamp};

use crate::budget::FrameHold;
use ack::AckQueue;
use append_job::{AppendFailure, Appended, Ticket};
use leader::{Acks, Advance, EpochMismatch, Leader, LeaderHint, LogEnds, Reign};
use pressure::AppendPressure;
use watch::Watch;

/// One batch on its way into the log: verified, and rewritten where the topic wants that.
#[derive(Debug, Clone)]
pub struct AppendRequest {
    /// The batch. Shares its memory with the request's frame.
    pub batch: Bytes,
    /// Its header.
    pub header: BatchHeader,
    /// When to answer.
    pub acks: Acks,
    /// Until when, in the shard's monotonic nanoseconds.
    pub deadline_ns: u64,
    /// The time the broker put on the records, if it did.
    pub log_append_time: Option<Timestamp>,
    /// Keeps the bytes accounted for until they are copied into the log.
    pub held: Option<Arc<FrameHold>>,
}

/// Why a partition cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadFailure {
    /// This broker holds no replica of that partition.
    #[error("no such partition here")]
    UnknownPartition,
    /// This broker does not lead the partition.
    #[error("not the leader of this partition")]
    NotLeader,
    /// The reader believes in another reign.
    #[error(transparent)]
    Epoch(#[from] EpochMismatch),
    /// The log does not hold that offset.
    #[error("offset {asked} is outside {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// First offset kept.
        start: Offset,
        /// Exclusive end of what may be read.
        end: Offset,
    },
    /// The log is damaged or missing, or the disk refuses.
    #[error("{0}")]
    Storage(String),
    /// The reader knows only Kafka's records, and the columns at its position cannot be read: a
    /// producer sent compressed columns that are none to a topic that does not look into them.
    #[error("translate into Kafka's records: {0}")]
    Untranslatable(String),
}

/// What a reader learns of a partition whatever it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// First offset kept.
    pub log_start: Offset,
    /// First offset not committed.
    pub high_watermark: Offset,
    /// The reign.
    pub epoch: LeaderEpoch,
}

/// Batches that were read.
#[derive(Debug, Clone)]
pub struct ReadBatches {
    /// Whole stored batches, one after another.
    pub slices: Vec<Slice>,
    /// Their length together.
    pub bytes: usize,
    /// Where the partition stood when they were read.
    pub standing: Standing,
}

enum Role {
    Leader(Leader),
    Other(LeaderHint),
}

struct AckToken {
    appended: Appended,
    ticket: Ticket,
}

struct Queued {
    request: AppendRequest,
    ticket: Ticket,
}

/// See the top of this file.
pub struct Partition {
    id: PartitionId,
    log: Rc<Log>,
    runtime: SharedRuntime,
    pressure: Rc<AppendPressure>,
    role: RefCell<Role>,
    /// acks=1: free when safe in this log.
    waiting_here: RefCell<AckQueue<AckToken>>,
    /// acks=all: free when committed.
    waiting_all: RefCell<AckQueue<AckToken>>,
    /// Appends that wait for room, in order.
    queue: RefCell<VecDeque<Queued>>,
    is_draining: Cell<bool>,
    /// Ends and lengths of appended batches that are not committed.
    uncommitted: RefCell<VecDeque<(Offset, u64)>>,
    watchers: RefCell<Vec<Weak<Watch>>>,
}

/// What became of an attempt to append.
enum Attempt {
    /// The ticket is resolved, or waits for a watermark.
    Done,
    /// Room must be made first.
    NeedsRoom { bytes: u64, ticket: Ticket },
}

impl Partition {
    /// The partition over its log, which nobody leads here yet.
    pub fn new(log: Rc<Log>, runtime: SharedRuntime, pressure: Rc<AppendPressure>) -> Rc<Self> {
        let hint = LeaderHint { leader: None, epoch: LeaderEpoch::NONE };
        Rc::new(Self {
            id: log.id(),
            log,
            runtime,
            pressure,
            role: RefCell::new(Role::Other(hint)),
            waiting_here: RefCell::default(),
            waiting_all: RefCell::default(),
            queue: RefCell::default(),
            is_draining: Cell::new(false),
            uncommitted: RefCell::default(),
            watchers: RefCell::default(),
        })
    }

    /// Which partition.
    pub fn id(&self) -> PartitionId {
        self.id
    }

    /// Its log.
    pub fn log(&self) -> &Rc<Log> {
        &self.log
    }

    /// Leads from now on, or goes on leading, as `reign` says.
    pub fn lead(self: &Rc<Self>, reign: Reign) {
        let ends = self.ends();
        let advance = {
            let mut role = self.role.borrow_mut();
            match &mut *role {
                Role::Leader(leader) if leader.reign().epoch <= reign.epoch => {
                    leader.on_reign(reign, ends)
                }
                // An older state of the image is passed over.
                Role::Leader(_) => None,
                Role::Other(_) => {
                    let leader = Leader::begin(reign, ends, self.log.high_watermark());
                    let advance = Advance {
                        safe_here: leader.safe_here(),
                        high_watermark: leader.high_watermark(),
                    };
                    *role = Role::Leader(leader);
                    Some(advance)
                }
            }
        };
        if let Some(advance) = advance {
            self.on_advance(advance);
        }
    }

    /// Stops leading. Everyone who waits is told; their batches may be in the log.
    pub fn resign(&self, hint: LeaderHint) {
        let before = std::mem::replace(&mut *self.role.borrow_mut(), Role::Other(hint));
        if matches!(before, Role::Leader(_)) {
            self.fail_everyone(&AppendFailure::NotLeader);
        }
    }

    /// Fails everyone who waits: the log directory failed, or the partition goes.
    pub fn fail_everyone(&self, failure: &AppendFailure) {
        let queued: Vec<_> = self.queue.borrow_mut().drain(..).map(|q| q.ticket).collect();
        let here = self.waiting_here.borrow_mut().drain();
        let all = self.waiting_all.borrow_mut().drain();
        let waiting = here.into_iter().chain(all).map(|token| token.ticket);
        for ticket in queued.into_iter().chain(waiting) {
            ticket.resolve(Err(failure.clone()));
        }
        self.tell_watchers(u64::MAX);
    }

    /// Appends one batch and resolves `ticket` when `request.acks` says so. Never waits: what finds
    /// no room is queued, in order.
    pub fn append(self: &Rc<Self>, request: AppendRequest, ticket: Ticket) {
        if !self.queue.borrow().is_empty() || self.is_draining.get() {
            self.queue.borrow_mut().push_back(Queued { request, ticket });
            return;
        }
        if let Attempt::NeedsRoom { bytes, ticket } = self.try_append(&request, ticket) {
            self.queue.borrow_mut().push_back(Queued { request, ticket });
            self.is_draining.set(true);
            let this = Rc::clone(self);
            self.runtime.spawn("append-queue", Box::pin(async move { this.drain(bytes).await }));
        }
    }

    fn try_append(&self, request: &AppendRequest, ticket: Ticket) -> Attempt {
        let bytes = request.batch.len() as u64;
        let epoch = match &*self.role.borrow() {
            Role::Leader(leader) => match leader.on_produce(request.acks) {
                Ok(()) => leader.reign().epoch,
                Err(refusal) => {
                    ticket.resolve(Err(refusal.into()));
                    return Attempt::Done;
                }
            },
            Role::Other(_) => {
                ticket.resolve(Err(AppendFailure::NotLeader));
                return Attempt::Done;
            }
        };
        match self.log.check_sequence(&request.header) {
            None | Some(SequenceVerdict::Append) => {}
            Some(SequenceVerdict::Duplicate(original)) => {
                let appended = self.appended(original.base, request);
                self.wait_for(original.end, appended, request, ticket);
                return Attempt::Done;
            }
            Some(SequenceVerdict::OutOfOrder { expected, got }) => {
                ticket.resolve(Err(AppendFailure::OutOfOrderSequence { expected, got }));
                return Attempt::Done;
            }
            Some(SequenceVerdict::StaleEpoch { .. }) => {
                ticket.resolve(Err(AppendFailure::StaleProducerEpoch));
                return Attempt::Done;
            }
        }
        if !self.pressure.has_room(bytes) {
            return Attempt::NeedsRoom { bytes, ticket };
        }
        match self.log.try_append(&request.batch, epoch, self.runtime.now()) {
            Ok(place) => {
                self.pressure.add(bytes);
                self.uncommitted.borrow_mut().push_back((place.end, bytes));
                let appended = self.appended(place.base, request);
                self.wait_for(place.end, appended, request, ticket);
                Attempt::Done
            }
            Err(AppendError::NeedsSpace { bytes }) => Attempt::NeedsRoom { bytes, ticket },
            Err(error) => {
                ticket.resolve(Err(append_failure(error)));
                Attempt::Done
            }
        }
    }

    fn appended(&self, base: Offset, request: &AppendRequest) -> Appended {
        let log_append_time = request.log_append_time;
        Appended { base, log_append_time, log_start: self.log.log_start() }
    }

    /// Resolves the ticket now if what it waits for is there already.
    fn wait_for(&self, end: Offset, appended: Appended, request: &AppendRequest, ticket: Ticket) {
        let (safe_here, high_watermark) = match &*self.role.borrow() {
            Role::Leader(leader) => (leader.safe_here(), leader.high_watermark()),
            Role::Other(_) => (Offset::ZERO, Offset::ZERO),
        };
        let (queue, watermark) = match request.acks {
            Acks::None => {
                ticket.resolve(Ok(appended));
                return;
            }
            Acks::Leader => (&self.waiting_here, safe_here),
            Acks::All => (&self.waiting_all, high_watermark),
        };
        if end <= watermark {
            ticket.resolve(Ok(appended));
        } else {
            queue.borrow_mut().wait(end, request.deadline_ns, AckToken { appended, ticket });
        }
    }

    /// Makes room and appends what is queued, until nothing is.
    async fn drain(self: Rc<Self>, mut needed_bytes: u64) {
        loop {
            self.pressure.until_room(needed_bytes).await;
            if let Err(error) = self.log.grow(needed_bytes).await {
                // Room for this one cannot be made; a smaller one behind it may still fit.
                let first = self.queue.borrow_mut().pop_front();
                if let Some(first) = first {
                    first.ticket.resolve(Err(append_failure(error)));
                }
            }
            loop {
                let next = self.queue.borrow_mut().pop_front();
                let Some(Queued { request, ticket }) = next else {
                    self.is_draining.set(false);
                    return;
                };
                if let Attempt::NeedsRoom { bytes, ticket } = self.try_append(&request, ticket) {
                    needed_bytes = bytes;
                    self.queue.borrow_mut().push_front(Queued { request, ticket });
                    break;
                }
            }
            self.runtime.yield_if_needed().await;
        }
    }

    /// The engine moved the ends of the log.
    pub fn on_log_advanced(&self) {
        let ends = self.ends();
        let advance = match &mut *self.role.borrow_mut() {
            Role::Leader(leader) => leader.on_log_advanced(ends),
            Role::Other(_) => {
                // Nobody waits any more, but the memory of what was appended before comes back.
                self.pressure.subtract(self.take_committed(ends.durable));
                None
            }
        };
        if let Some(advance) = advance {
            self.on_advance(advance);
        }
    }

    fn on_advance(&self, advance: Advance) {
        self.log.note_high_watermark(advance.high_watermark);
        let committed_bytes = self.take_committed(advance.high_watermark);
        self.pressure.subtract(committed_bytes);
        for (queue, watermark) in
            [(&self.waiting_here, advance.safe_here), (&self.waiting_all, advance.high_watermark)]
        {
            loop {
                let token = queue.borrow_mut().release(watermark);
                let Some(AckToken { appended, ticket }) = token else { break };
                ticket.resolve(Ok(appended));
            }
        }
        self.tell_watchers(committed_bytes);
    }

    fn take_committed(&self, high_watermark: Offset) -> u64 {
        let mut uncommitted = self.uncommitted.borrow_mut();
        let mut bytes = 0;
        while let Some((end, batch_bytes)) = uncommitted.front().copied()
            && end <= high_watermark
        {
            bytes += batch_bytes;
            uncommitted.pop_front();
        }
        bytes
    }

    /// Ends waits whose time has come.
    pub fn on_tick(&self, now_ns: u64) {
        let here = self.waiting_here.borrow_mut().expire(now_ns);
        let all = self.waiting_all.borrow_mut().expire(now_ns);
        for token in here.into_iter().chain(all) {
            token.ticket.resolve(Err(AppendFailure::TimedOut));
        }
        let is_late = |queued: &Queued| queued.request.deadline_ns <= now_ns;
        if self.queue.borrow().iter().any(is_late) {
            let queue = std::mem::take(&mut *self.queue.borrow_mut());
            let (late, rest): (VecDeque<_>, VecDeque<_>) = queue.into_iter().partition(is_late);
            *self.queue.borrow_mut() = rest;
            for queued in late {
                queued.ticket.resolve(Err(AppendFailure::TimedOut));
            }
        }
    }

    /// Who leads, when it is not this broker.
    pub fn leader_hint(&self) -> LeaderHint {
        match &*self.role.borrow() {
            Role::Leader(leader) => LeaderHint { leader: None, epoch: leader.reign().epoch },
            Role::Other(hint) => *hint,
        }
    }

    /// Where the partition stands, for a reader that believes in `epoch` (`None`: in whatever is).
    ///
    /// # Errors
    /// [`ReadFailure::NotLeader`] and [`ReadFailure::Epoch`].
    pub fn standing(&self, epoch: Option<LeaderEpoch>) -> Result<Standing, ReadFailure> {
        match &*self.role.borrow() {
            Role::Leader(leader) => {
                leader.check_epoch(epoch)?;
                Ok(Standing {
                    log_start: self.log.log_start(),
                    high_watermark: leader.high_watermark(),
                    epoch: leader.reign().epoch,
                })
            }
            Role::Other(_) => Err(ReadFailure::NotLeader),
        }
    }

    /// Reads whole committed batches, from the one that holds `from`: at most `max_bytes`, or the
    /// first one whatever its size if `first` says so. Nothing at the end of the log.
    ///
    /// # Errors
    /// [`ReadFailure`].
    pub async fn read(
        &self,
        from: Offset,
        epoch: Option<LeaderEpoch>,
        max_bytes: usize,
        first: FirstBatch,
    ) -> Result<ReadBatches, ReadFailure> {
        let standing = self.standing(epoch)?;
        let (start, end) = (standing.log_start, standing.high_watermark);
        if from < start || from > end {
            return Err(ReadFailure::OutOfRange { asked: from, start, end });
        }
        if from == end || (max_bytes == 0 && first == FirstBatch::OnlyIfItFits) {
            return Ok(ReadBatches { slices: Vec::new(), bytes: 0, standing });
        }
        let whole = first == FirstBatch::Whole;
        match self.log.read(from, end, max_bytes, whole).await {
            Ok(outcome) => {
                Ok(ReadBatches { slices: outcome.slices, bytes: outcome.bytes, standing })
            }
            Err(error) => Err(read_failure(error)),
        }
    }

    /// Lets `watch` know of committed bytes from now on.
    pub fn watch(&self, watch: &Rc<Watch>) {
        let mut watchers = self.watchers.borrow_mut();
        watchers.retain(|other| other.strong_count() > 0);
        watchers.push(Rc::downgrade(watch));
    }

    fn tell_watchers(&self, bytes: u64) {
        if bytes == 0 || self.watchers.borrow().is_empty() {
            return;
        }
        self.watchers.borrow_mut().retain(|watcher| match watcher.upgrade() {
            Some(watch) => {
                watch.on_committed(bytes);
                true
            }
            None => false,
        });
    }

    fn ends(&self) -> LogEnds {
        LogEnds { written: self.log.written_end(), durable: self.log.durable_end() }
    }

    /// Batches that wait for room.
    pub fn queued_appends(&self) -> usize {
        self.queue.borrow().len()
    }

    /// Producers that wait for an acknowledgement.
    pub fn waiting_acks(&self) -> usize {
        self.waiting_here.borrow().len() + self.waiting_all.borrow().len()
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        let bytes = self.uncommitted.borrow().iter().map(|(_, bytes)| *bytes).sum();
        self.pressure.subtract(bytes);
    }
}

/// Whether the first batch of a read comes even when it is larger than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstBatch {
    /// It comes, whole.
    Whole,
    /// Only if it fits.
    OnlyIfItFits,
}

fn append_failure(error: AppendError) -> AppendFailure {
    match error {
        AppendError::TooLarge { got_bytes, max_bytes } => {
            AppendFailure::LargerThanSegment { got_bytes, max_bytes }
        }
        AppendError::NotABatch(reason) => AppendFailure::NotABatch(reason),
        AppendError::DiskFull { bytes } | AppendError::NeedsSpace { bytes } => {
            AppendFailure::DiskFull { bytes }
        }
        AppendError::Removed => AppendFailure::UnknownPartition,
        error @ (AppendError::Failed(_)
        | AppendError::Unreadable(_)
        | AppendError::Suspect { .. }) => AppendFailure::Storage(error.to_string()),
    }
}

/// What the engine says of a read, for the API.
pub fn read_failure(error: ReadError) -> ReadFailure {
    match error {
        ReadError::OutOfRange { asked, start, end } => {
            ReadFailure::OutOfRange { asked, start, end }
        }
        ReadError::Removed => ReadFailure::UnknownPartition,
        error @ (ReadError::Damaged { .. } | ReadError::Io { .. }) => {
            ReadFailure::Storage(error.to_string())
        }
    }
}

/// The clock of a shard as the deadlines of this file use it.
pub fn deadline_ns(now: Now, timeout_ms: u64) -> u64 {
    now.monotonic_ns.saturating_add(timeout_ms.saturating_mul(1_000_000))
}
