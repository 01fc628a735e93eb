//! The broker of one life: the production engine's stores, and in front of every log the little that a leader adds:
//! requests in order, the sequence check, and acknowledgements that wait for the durable end.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use levada_engine::{AppendError, Log, RoundReport, SequenceVerdict, Signal, Store, StoreListener};
use levada_record::{LeaderEpoch, PartitionId};

use super::batch::Batch;
use super::world::World;

/// Why a batch was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Not in the log; may be sent again.
    DiskFull,
    /// Not in the log: another one must come first.
    OutOfOrder,
    /// Not in the log: the producer has a newer life.
    StaleEpoch,
    /// Perhaps in the log.
    Unknown,
    /// The partition is damaged or gone.
    NotServed,
}

/// Where a request's answer is put.
#[derive(Debug, Default)]
pub(super) struct Reply {
    answer: RefCell<Option<Result<Acked, Refusal>>>,
    told: Signal,
}

/// An acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Acked {
    /// Offset of the first record.
    pub(super) base: i64,
    /// The branch of the log when it was given.
    pub(super) branch: u64,
}

impl Reply {
    fn tell(&self, answer: Result<Acked, Refusal>) {
        if self.answer.borrow().is_none() {
            *self.answer.borrow_mut() = Some(answer);
            self.told.raise();
        }
    }

    pub(super) async fn wait(&self) -> Result<Acked, Refusal> {
        loop {
            let seen = self.told.count();
            if let Some(answer) = self.answer.borrow().clone() {
                return answer;
            }
            self.told.after(seen).await;
        }
    }
}

struct Request {
    batch: Rc<Batch>,
    reply: Rc<Reply>,
}

struct Waiter {
    end: i64,
    base: i64,
    reply: Rc<Reply>,
}

/// One partition that is led here.
pub(super) struct Served {
    pub(super) number: u32,
    pub(super) log: Rc<Log>,
    pub(super) epoch: Cell<i32>,
    requests: RefCell<VecDeque<Request>>,
    arrived: Signal,
    waiting: RefCell<Vec<Waiter>>,
    is_closed: Cell<bool>,
}

/// All shards of a life.
pub(super) struct Server {
    pub(super) stores: Vec<Store>,
    served: RefCell<BTreeMap<u32, Rc<Served>>>,
}

impl Server {
    pub(super) fn new(stores: Vec<Store>) -> Self {
        Self { stores, served: RefCell::default() }
    }

    /// The store that partition `number` lives on.
    pub(super) fn store(&self, number: u32) -> &Store {
        let shards = self.stores.len().max(1);
        self.stores.get(number as usize % shards).expect("a remainder")
    }

    pub(super) fn served(&self, number: u32) -> Option<Rc<Served>> {
        self.served.borrow().get(&number).cloned()
    }

    /// Leads a partition from now on.
    pub(super) fn serve(&self, world: &Rc<World>, number: u32, log: Rc<Log>, epoch: i32) {
        let served = Rc::new(Served {
            number,
            log,
            epoch: Cell::new(epoch),
            requests: RefCell::default(),
            arrived: Signal::default(),
            waiting: RefCell::default(),
            is_closed: Cell::new(false),
        });
        self.served.borrow_mut().insert(number, Rc::clone(&served));
        let task = append_requests(Rc::clone(world), served);
        world.spawn("appender", Box::pin(task));
    }

    /// Leads a partition no more.
    pub(super) fn close(&self, number: u32) {
        let served = self.served.borrow_mut().remove(&number);
        if let Some(served) = served {
            served.is_closed.set(true);
            served.arrived.raise();
            served.fail_waiting(i64::MIN);
            let left = std::mem::take(&mut *served.requests.borrow_mut());
            for request in left {
                request.reply.tell(Err(Refusal::NotServed));
            }
        }
    }

    /// Sends a batch; requests of one partition are handled in the order of these calls.
    pub(super) fn produce(&self, number: u32, batch: &Rc<Batch>) -> Rc<Reply> {
        let reply = Rc::new(Reply::default());
        match self.served(number) {
            None => reply.tell(Err(Refusal::NotServed)),
            Some(served) => {
                let request = Request { batch: Rc::clone(batch), reply: Rc::clone(&reply) };
                served.requests.borrow_mut().push_back(request);
                served.arrived.raise();
            }
        }
        reply
    }
}

impl Served {
    /// Everyone who waits for an end above `end` learns that nobody knows.
    pub(super) fn fail_waiting(&self, end: i64) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        let (lost, kept): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| w.end > end);
        *self.waiting.borrow_mut() = kept;
        for waiter in lost {
            waiter.reply.tell(Err(Refusal::Unknown));
        }
    }

    fn release(&self, durable: i64, branch: u64) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        let (done, kept): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| w.end <= durable);
        *self.waiting.borrow_mut() = kept;
        for waiter in done {
            waiter.reply.tell(Ok(Acked { base: waiter.base, branch }));
        }
    }
}

/// Handles the requests of one partition, one after the other.
async fn append_requests(world: Rc<World>, served: Rc<Served>) {
    loop {
        let seen = served.arrived.count();
        if served.is_closed.get() {
            return;
        }
        let next = served.requests.borrow_mut().pop_front();
        match next {
            None => served.arrived.after(seen).await,
            Some(request) => append(&world, &served, &request).await,
        }
    }
}

async fn append(world: &Rc<World>, served: &Rc<Served>, request: &Request) {
    let Request { batch, reply } = request;
    loop {
        if served.is_closed.get() {
            return reply.tell(Err(Refusal::NotServed));
        }
        let verdict = served.log.check_sequence(&batch.header);
        world.check_verdict(served.number, &batch.header, verdict);
        match verdict {
            None | Some(SequenceVerdict::Append) => {}
            Some(SequenceVerdict::Duplicate(known)) => {
                let (end, base) = (known.end.get(), known.base.get());
                return wait_for(world, served, end, base, reply);
            }
            Some(SequenceVerdict::OutOfOrder { .. }) => {
                return reply.tell(Err(Refusal::OutOfOrder));
            }
            Some(SequenceVerdict::StaleEpoch { .. }) => {
                return reply.tell(Err(Refusal::StaleEpoch));
            }
        }
        let epoch = LeaderEpoch(served.epoch.get());
        match served.log.try_append(&batch.bytes, epoch, world.now()) {
            Ok(place) => {
                let (base, end) = (place.base.get(), place.end.get());
                world.on_appended(served.number, batch, epoch, base, end);
                return wait_for(world, served, end, base, reply);
            }
            Err(AppendError::NeedsSpace { bytes }) => match served.log.grow(bytes).await {
                Ok(()) => {}
                Err(error) => return reply.tell(Err(refusal(&error))),
            },
            Err(error) => return reply.tell(Err(refusal(&error))),
        }
    }
}

fn wait_for(world: &World, served: &Served, end: i64, base: i64, reply: &Rc<Reply>) {
    if end <= served.log.durable_end().get() {
        reply.tell(Ok(Acked { base, branch: world.branch(served.number) }));
    } else {
        served.waiting.borrow_mut().push(Waiter { end, base, reply: Rc::clone(reply) });
    }
}

fn refusal(error: &AppendError) -> Refusal {
    match error {
        AppendError::DiskFull { .. } => Refusal::DiskFull,
        AppendError::Failed(_) | AppendError::Unreadable(_) => Refusal::Unknown,
        AppendError::NeedsSpace { .. }
        | AppendError::TooLarge { .. }
        | AppendError::NotABatch(_)
        | AppendError::Suspect { .. }
        | AppendError::Removed => Refusal::NotServed,
    }
}

/// Hears from one shard's store.
pub(super) struct Ear {
    pub(super) world: Rc<World>,
    /// Logs that the present round moved, with their durable ends before it.
    moved: RefCell<Vec<(PartitionId, i64)>>,
    has_failed: Cell<bool>,
    shard: u16,
}

impl Ear {
    pub(super) fn new(world: &Rc<World>, shard: u16) -> Self {
        Self {
            world: Rc::clone(world),
            moved: RefCell::default(),
            has_failed: Cell::new(false),
            shard,
        }
    }
}

impl StoreListener for Ear {
    fn advanced(&self, log: &Rc<Log>) {
        if let Some(before) = self.world.on_advanced(log) {
            if self.has_failed.get() {
                let what = format!("shard {}: a durable end moves after a failure", self.shard);
                self.world.violate("J33", &what);
            }
            self.moved.borrow_mut().push((log.id(), before));
        }
        let server = self.world.server();
        let served = server.and_then(|server| server.served(log.id().index.0.cast_unsigned()));
        if let Some(served) = served.filter(|served| Rc::ptr_eq(&served.log, log)) {
            let branch = self.world.branch(served.number);
            served.release(log.durable_end().get(), branch);
        }
    }

    fn failed(&self, reason: &str) {
        self.has_failed.set(true);
        self.world.on_failed(self.shard, reason);
    }

    fn round_done(&self, _: &RoundReport) {
        let moved = std::mem::take(&mut *self.moved.borrow_mut());
        self.world.on_round(self.shard, &moved);
    }
}
