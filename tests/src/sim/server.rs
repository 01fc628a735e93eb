//! The broker of one life: the production engine's stores, and in front of every log the production partition, which
//! decides about sequences, room, acknowledgements and the high watermark. What is missing is the network.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use levada_broker::partition::append_job::{AppendFailure, AppendJob};
use levada_broker::partition::leader::{Acks, LeaderHint, Reign};
use levada_broker::partition::pressure::AppendPressure;
use levada_broker::partition::{AppendRequest, Partition, deadline_ns};
use levada_engine::{Appended, Log, RoundReport, Signal, Store, StoreListener};
use levada_record::{BatchHeader, Durability, LeaderEpoch, PartitionId};

use super::batch::{Batch, value_of};
use super::world::World;

/// How long a batch may wait for its acknowledgement, in milliseconds.
const ACK_TIMEOUT_MS: u64 = 3_000;

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

/// One partition that is led here.
pub(super) struct Served {
    pub(super) number: u32,
    pub(super) log: Rc<Log>,
    epoch: Cell<i32>,
    partition: Rc<Partition>,
}

/// All shards of a life.
pub(super) struct Server {
    pub(super) stores: Vec<Store>,
    /// One per shard.
    pressures: Vec<Rc<AppendPressure>>,
    served: RefCell<BTreeMap<u32, Rc<Served>>>,
}

impl Server {
    /// Nothing is led yet; each shard lets `pressure_bytes` be appended ahead of the commit.
    pub(super) fn new(stores: Vec<Store>, pressure_bytes: u64) -> Self {
        let pressure = |_| Rc::new(AppendPressure::new(pressure_bytes));
        let pressures = stores.iter().map(pressure).collect();
        Self { stores, pressures, served: RefCell::default() }
    }

    fn shard(&self, number: u32) -> usize {
        number as usize % self.stores.len().max(1)
    }

    /// The store that partition `number` lives on.
    pub(super) fn store(&self, number: u32) -> &Store {
        self.stores.get(self.shard(number)).expect("a remainder")
    }

    pub(super) fn served(&self, number: u32) -> Option<Rc<Served>> {
        self.served.borrow().get(&number).cloned()
    }

    /// Leads a partition from now on.
    pub(super) fn serve(&self, world: &Rc<World>, number: u32, log: Rc<Log>, epoch: i32) {
        let pressure = self.pressures.get(self.shard(number)).expect("one per store");
        let partition =
            Partition::new(Rc::clone(&log), world.runtime.shared(), Rc::clone(pressure));
        partition.lead(reign(epoch));
        let served = Rc::new(Served { number, log, epoch: Cell::new(epoch), partition });
        self.served.borrow_mut().insert(number, served);
    }

    /// Leads a partition no more: it goes.
    pub(super) fn close(&self, number: u32) {
        let served = self.served.borrow_mut().remove(&number);
        if let Some(served) = served {
            served.partition.fail_everyone(&AppendFailure::UnknownPartition);
        }
    }

    /// Sends a batch; requests of one partition are handled in the order of these calls.
    pub(super) fn produce(&self, world: &Rc<World>, number: u32, batch: &Rc<Batch>) -> Rc<Reply> {
        let reply = Rc::new(Reply::default());
        let Some(served) = self.served(number) else {
            reply.tell(Err(Refusal::NotServed));
            return reply;
        };
        let verdict = served.log.check_sequence(&batch.header);
        world.check_verdict(number, &batch.header, verdict);
        let job = AppendJob::new(1);
        let request = AppendRequest {
            batch: Bytes::copy_from_slice(&batch.bytes),
            header: batch.header,
            acks: Acks::All,
            deadline_ns: deadline_ns(world.now(), ACK_TIMEOUT_MS),
            log_append_time: None,
            held: None,
        };
        served.partition.append(request, job.ticket(0));
        let (runtime, value) = (Rc::clone(world), batch.value);
        let (world, told) = (Rc::clone(world), Rc::clone(&reply));
        let answer = async move {
            let result = job.done().await.pop().unwrap_or(Err(AppendFailure::Stopping));
            told.tell(match result {
                Ok(appended) => {
                    let branch = world.branch(served.number);
                    Ok(Acked { base: appended.base.get(), branch })
                }
                Err(failure) => {
                    world.event(|| format!("p{} value {value} refused: {failure}", served.number));
                    Err(refusal(&failure))
                }
            });
        };
        runtime.spawn("answer", Box::pin(answer));
        reply
    }

    /// Ends waits whose time has come.
    pub(super) fn tick(&self, world: &World) {
        for served in self.served.borrow().values() {
            served.partition.on_tick(world.now().monotonic_ns);
        }
    }
}

impl Served {
    /// A new reign over it.
    pub(super) fn lead_again(&self) -> i32 {
        self.epoch.set(self.epoch.get() + 1);
        self.partition.lead(reign(self.epoch.get()));
        self.epoch.get()
    }

    /// Leads it no more; who waits does not know what became of its batch.
    pub(super) fn resign(&self) {
        let epoch = LeaderEpoch(self.epoch.get());
        self.partition.resign(LeaderHint { leader: None, epoch });
    }
}

fn reign(epoch: i32) -> Reign {
    Reign {
        epoch: LeaderEpoch(epoch),
        replicas: 1,
        in_sync: 1,
        min_in_sync: 1,
        durability: Durability::Fsync,
    }
}

fn refusal(failure: &AppendFailure) -> Refusal {
    match failure {
        AppendFailure::DiskFull { .. } => Refusal::DiskFull,
        AppendFailure::OutOfOrderSequence { .. } => Refusal::OutOfOrder,
        AppendFailure::StaleProducerEpoch => Refusal::StaleEpoch,
        AppendFailure::NotLeader
        | AppendFailure::Storage(_)
        | AppendFailure::TimedOut
        | AppendFailure::Stopping
        | AppendFailure::UnknownPartition => Refusal::Unknown,
        AppendFailure::NotEnoughReplicas(_)
        | AppendFailure::LargerThanSegment { .. }
        | AppendFailure::NotABatch(_) => Refusal::NotServed,
    }
}

/// Hears from one shard's store, and tells its partitions.
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

    fn served(&self, log: &Rc<Log>) -> Option<Rc<Served>> {
        let served = self.world.server()?.served(log.id().index.0.cast_unsigned())?;
        Rc::ptr_eq(&served.log, log).then_some(served)
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
        if let Some(served) = self.served(log) {
            served.partition.on_log_advanced();
        }
    }

    fn appended(&self, log: &Rc<Log>, bytes: &[u8], place: Appended) {
        let number = log.id().index.0.cast_unsigned();
        let epoch = self.served(log).map_or(0, |served| served.epoch.get());
        let header = BatchHeader::parse(bytes);
        let (Some(value), Ok(header)) = (value_of(bytes), header) else {
            return self.world.violate("offsets", "a batch without a value was appended");
        };
        let batch = Batch { value, header, bytes: bytes.to_vec() };
        let (base, end) = (place.base.get(), place.end.get());
        self.world.on_appended(number, &batch, LeaderEpoch(epoch), base, end);
    }

    fn failed(&self, reason: &str) {
        self.has_failed.set(true);
        self.world.on_failed(self.shard, reason);
        let Some(server) = self.world.server() else { return };
        let failure = AppendFailure::Storage(reason.to_owned());
        let served: Vec<Rc<Served>> = server.served.borrow().values().cloned().collect();
        for served in served {
            if server.shard(served.number) == usize::from(self.shard) {
                served.partition.fail_everyone(&failure);
            }
        }
    }

    fn round_done(&self, _: &RoundReport) {
        let moved = std::mem::take(&mut *self.moved.borrow_mut());
        self.world.on_round(self.shard, &moved);
    }
}
