//! One simulated machine with its clients: what everybody shares, what was seen, and the first promise broken.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use levada_engine::disk::simulated::{SimDisk, View};
use levada_engine::runtime::Runtime;
use levada_engine::runtime::simulated::SimRuntime;
use levada_engine::{Log, LogConfig, Now, ReadError, ReadOutcome, SequenceVerdict, StoreError};
use levada_record::{
    BatchHeader, LeaderEpoch, PartitionId, PartitionIndex, PartitionUid, TopicId, peek_header,
};
use rand::distr::uniform::{SampleRange, SampleUniform};
use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::batch::{Batch, value_of};
use super::options::Options;
use super::oracle::{Existence, Model};
use super::report::Violation;
use super::server::{Acked, Server};
use super::workload::{Producer, is_damage, produce};
use crate::history::{History, Value};

/// Events kept for a report.
const EVENTS_MAX: usize = 30000;

/// Everything of one run.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) options: Options,
    pub(super) runtime: SimRuntime,
    pub(super) disk: SimDisk,
    pub(super) history: RefCell<History>,
    pub(super) models: RefCell<Vec<Model>>,
    pub(super) producers: RefCell<Vec<Rc<RefCell<Producer>>>>,
    /// Leader epoch of each partition, newest.
    epochs: RefCell<Vec<i32>>,
    server: RefCell<Option<Rc<Server>>>,
    pub(super) violation: RefCell<Option<Violation>>,
    events: RefCell<VecDeque<String>>,
    is_verbose: bool,
    is_stopping: Cell<bool>,
    /// Bytes that were safe may have gone bad: what is missing must be reported, not there.
    pub(super) is_damaged: Cell<bool>,
    /// Nothing goes wrong any more; what was to go wrong later does not.
    pub(super) is_healed: Rc<Cell<bool>>,
    /// Stores of this life that have failed.
    pub(super) failures: Cell<u32>,
    /// Nobody does anything until then, in virtual nanoseconds.
    paused_until_ns: Cell<u64>,
    /// What reads saw, while somebody collects it: base offsets and values.
    pub(super) collected: RefCell<Option<Vec<(i64, Value)>>>,
    work_rng: RefCell<Pcg64>,
    pub(super) life_rng: RefCell<Pcg64>,
}

impl World {
    pub(super) fn new(seed: u64, options: Options, is_verbose: bool) -> Rc<Self> {
        let runtime = SimRuntime::new(seed);
        let disk = SimDisk::new(&runtime, seed);
        let rng = |salt: u64| RefCell::new(Pcg64::seed_from_u64(seed ^ salt));
        Rc::new(Self {
            seed,
            options,
            runtime,
            disk,
            history: RefCell::default(),
            models: RefCell::default(),
            producers: RefCell::default(),
            epochs: RefCell::default(),
            server: RefCell::default(),
            violation: RefCell::default(),
            events: RefCell::default(),
            is_verbose,
            is_stopping: Cell::new(false),
            is_damaged: Cell::new(false),
            is_healed: Rc::default(),
            failures: Cell::new(0),
            paused_until_ns: Cell::new(0),
            collected: RefCell::default(),
            work_rng: rng(0x776f_726b),
            life_rng: rng(0x6c69_6665),
        })
    }

    /// Random numbers of clients and operators.
    pub(super) fn work(&self) -> RefMut<'_, Pcg64> {
        self.work_rng.borrow_mut()
    }

    /// One random number for clients and operators.
    pub(super) fn range<T: SampleUniform, R: SampleRange<T>>(&self, range: R) -> T {
        self.work().random_range(range)
    }

    pub(super) fn chance(&self, of_one: f64) -> bool {
        self.work().random_bool(of_one)
    }

    /// One random number for what becomes of the process and its disk.
    pub(super) fn life_range<T: SampleUniform, R: SampleRange<T>>(&self, range: R) -> T {
        self.life_rng.borrow_mut().random_range(range)
    }

    pub(super) fn life_chance(&self, of_one: f64) -> bool {
        self.life_rng.borrow_mut().random_bool(of_one)
    }

    pub(super) fn now(&self) -> Now {
        self.runtime.now()
    }

    pub(super) fn spawn(&self, name: &'static str, task: Pin<Box<dyn Future<Output = ()>>>) {
        self.runtime.spawn(name, task);
    }

    /// Sleeps, pause or not.
    pub(super) async fn runtime_sleep(&self, duration: Duration) {
        self.runtime.sleep(duration).await;
    }

    /// Sleeps, and through a pause of everybody too.
    pub(super) async fn sleep(&self, duration: Duration) {
        self.runtime.sleep(duration).await;
        let paused = self.paused_until_ns.get().saturating_sub(self.runtime.now_ns());
        if paused > 0 {
            self.runtime.sleep(Duration::from_nanos(paused)).await;
        }
    }

    /// Lets nobody do anything for a while.
    pub(super) async fn pause_all(&self, duration: Duration) {
        let until = self.runtime.now_ns() + u64::try_from(duration.as_nanos()).unwrap_or(0);
        self.paused_until_ns.set(until);
        self.event(|| format!("everybody pauses for {duration:?}"));
        self.runtime.sleep(duration).await;
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.get()
    }

    pub(super) fn set_stopping(&self, is_stopping: bool) {
        self.is_stopping.set(is_stopping);
    }

    pub(super) fn server(&self) -> Option<Rc<Server>> {
        self.server.borrow().clone()
    }

    pub(super) fn set_server(&self, server: Option<Rc<Server>>) {
        *self.server.borrow_mut() = server;
    }

    /// Notes what happened, for the report of a run that fails.
    pub(super) fn event(&self, text: impl FnOnce() -> String) {
        if self.is_verbose {
            let mut events = self.events.borrow_mut();
            if events.len() == EVENTS_MAX {
                events.pop_front();
            }
            events.push_back(format!("{:>12} us  {}", self.runtime.now_ns() / 1000, text()));
        }
    }

    pub(super) fn take_events(&self) -> Vec<String> {
        self.events.borrow_mut().drain(..).collect()
    }

    /// A promise is broken; the first one counts, and ends the run.
    pub(super) fn violate(&self, invariant: &'static str, what: &str) {
        self.event(|| format!("VIOLATION {invariant}: {what}"));
        let mut violation = self.violation.borrow_mut();
        if violation.is_none() {
            *violation =
                Some(Violation { invariant, what: what.to_owned(), at_ns: self.runtime.now_ns() });
            self.runtime.interrupt();
        }
    }

    fn require(&self, invariant: &'static str, number: u32, result: Result<(), String>) {
        if let Err(what) = result {
            self.violate(invariant, &format!("p{number}: {what}"));
        }
    }

    pub(super) fn model<T>(&self, number: u32, look: impl FnOnce(&mut Model) -> T) -> T {
        let mut models = self.models.borrow_mut();
        look(models.get_mut(number as usize).expect("partitions are never forgotten"))
    }

    pub(super) fn partition_id(&self, number: u32) -> PartitionId {
        let mut topic = [0x51; 16];
        if let Some(head) = topic.get_mut(..8) {
            head.copy_from_slice(&self.seed.to_be_bytes());
        }
        PartitionId::new(TopicId(topic), PartitionIndex(number.cast_signed()))
    }

    /// A partition that the metadata knows from now on.
    pub(super) fn new_partition(&self) -> u32 {
        let mut models = self.models.borrow_mut();
        let number = u32::try_from(models.len()).expect("few partitions");
        models.push(Model::new(PartitionUid::derive(self.partition_id(number))));
        self.epochs.borrow_mut().push(0);
        number
    }

    pub(super) fn partitions(&self) -> Vec<u32> {
        (0..u32::try_from(self.models.borrow().len()).expect("few partitions")).collect()
    }

    /// A healthy partition, by chance.
    pub(super) fn some_partition(&self) -> Option<u32> {
        let healthy: Vec<u32> =
            self.partitions().into_iter().filter(|number| self.is_healthy(*number)).collect();
        if healthy.is_empty() {
            return None;
        }
        let at = self.range(0..healthy.len());
        healthy.get(at).copied()
    }

    pub(super) fn is_healthy(&self, number: u32) -> bool {
        self.model(number, |model| model.is_healthy())
    }

    pub(super) fn branch(&self, number: u32) -> u64 {
        self.model(number, |model| model.branch)
    }

    pub(super) fn probes(&self, number: u32) -> Vec<BatchHeader> {
        self.model(number, |model| model.probes())
    }

    pub(super) fn set_existence(&self, number: u32, existence: Existence) {
        self.event(|| format!("p{number} is {existence:?}"));
        self.model(number, |model| model.existence = existence);
    }

    pub(super) fn note_epoch(&self, number: u32, epoch: i32) {
        if let Some(known) = self.epochs.borrow_mut().get_mut(number as usize) {
            *known = (*known).max(epoch);
        }
    }

    /// Begins a reign over a partition that is there.
    pub(super) fn lead(self: &Rc<Self>, server: &Rc<Server>, number: u32, log: Rc<Log>) {
        let epoch = self.epochs.borrow().get(number as usize).copied().unwrap_or(0) + 1;
        self.note_epoch(number, epoch);
        server.serve(self, number, log, epoch);
    }

    /// Settings of a log, by chance.
    pub(super) fn draw_config(&self) -> LogConfig {
        let options = &self.options;
        let mut rng = self.work();
        let retains = options.duties.retain;
        LogConfig {
            segment_bytes: options.segment_bytes,
            segment_ms: options.segment_ms,
            retention_ms: (retains && rng.random_bool(0.5)).then(|| rng.random_range(10..3_000)),
            retention_bytes: (retains && rng.random_bool(0.5))
                .then(|| rng.random_range(0..4_000_000)),
            tell_written: rng.random_bool(0.3),
        }
    }

    /// One or two producers for a new partition.
    pub(super) fn new_producers(self: &Rc<Self>, server: &Rc<Server>, number: u32) {
        let count = self.range(1..=2);
        for _ in 0..count {
            let producer = self.add_producer(number);
            let task = produce(Rc::clone(self), Rc::clone(server), producer);
            self.spawn("producer", Box::pin(task));
        }
    }

    pub(super) fn add_producer(&self, number: u32) -> Rc<RefCell<Producer>> {
        let mut producers = self.producers.borrow_mut();
        let id = 1_000 + i64::try_from(producers.len()).expect("few producers");
        let producer = Rc::new(RefCell::new(Producer::new(id, number)));
        producers.push(Rc::clone(&producer));
        producer
    }

    // What is seen of the engine.

    pub(super) fn check_verdict(
        &self,
        number: u32,
        header: &BatchHeader,
        verdict: Option<SequenceVerdict>,
    ) {
        let result = self.model(number, |model| {
            if model.cutting.is_some() || model.suspect_from.is_some() {
                return Ok(());
            }
            model.check_verdict(header, verdict)
        });
        self.require("I11 sequence", number, result);
    }

    pub(super) fn on_appended(
        &self,
        number: u32,
        batch: &Batch,
        epoch: LeaderEpoch,
        base: i64,
        end: i64,
    ) {
        self.event(|| {
            let bytes = batch.bytes.len();
            format!("p{number} append {base}..{end} value {} {bytes} B", batch.value)
        });
        let result = self.model(number, |model| model.append(batch, epoch, base, end));
        self.require("offsets", number, result);
    }

    /// A round moved ends of a log. Its durable end before, when that has moved.
    pub(super) fn on_advanced(&self, log: &Log) -> Option<i64> {
        let number = log.id().index.0.cast_unsigned();
        let before = self.model(number, |model| model.durable);
        self.observe(number, log);
        let durable = log.durable_end().get();
        (durable != before).then_some(before)
    }

    pub(super) fn observe(&self, number: u32, log: &Log) {
        let ends = [log.log_start(), log.durable_end(), log.written_end(), log.log_end()]
            .map(levada_record::Offset::get);
        let [start, durable, written, end] = ends;
        let result = self.model(number, |model| {
            if model.suspect_from.is_some() {
                return Ok(());
            }
            model.observe(start, durable, written, end)
        });
        self.event(|| {
            format!("p{number} start {start} durable {durable} written {written} end {end}")
        });
        self.require("I4 ends", number, result);
    }

    /// A round of a shard is durable, and moved these logs from these durable ends.
    pub(super) fn on_round(&self, shard: u16, moved: &[(PartitionId, i64)]) {
        let Some(server) = self.server() else { return };
        let shards = server.stores.len().max(1);
        for (at, model) in self.models.borrow_mut().iter_mut().enumerate() {
            if at % shards == usize::from(shard) {
                let index = i32::try_from(at).expect("few partitions");
                let before = moved.iter().find(|(id, _)| id.index.0 == index);
                model.before_last_round = before.map(|(_, before)| *before);
            }
        }
    }

    pub(super) fn on_failed(&self, shard: u16, reason: &str) {
        self.event(|| format!("shard {shard} failed: {reason}"));
        self.failures.set(self.failures.get() + 1);
        let faults = &self.options.faults;
        let is_explained = faults.sync_error
            || faults.write_error
            || faults.read_error
            || faults.name_error
            || faults.full_disk
            || faults.small_disk
            || self.is_damaged.get();
        if !is_explained {
            self.violate("J33", &format!("shard {shard} failed without a fault: {reason}"));
        }
    }

    pub(super) fn on_acked(&self, number: u32, batch: &Batch, acked: Acked) {
        let Acked { base, branch } = acked;
        self.event(|| format!("p{number} value {} acknowledged at {base}", batch.value));
        let (stands, is_cut, durable) = self.model(number, |model| {
            let stands =
                model.batch_at(base).is_some_and(|(_, b)| b.value == batch.value && b.base == base);
            (stands, model.branch != branch, model.durable)
        });
        if stands && base < durable {
            let result = self.history.borrow_mut().acked(batch.value, base);
            self.require("K2", number, result.map_err(|anomaly| anomaly.to_string()));
        } else if !is_cut {
            let what = format!(
                "value {} acknowledged at {base}, which is not there and durable",
                batch.value
            );
            self.require("ack", number, Err(what));
        }
    }

    /// Checks what a read gave. Where to read on; `None` when something was wrong.
    pub(super) fn check_read(
        &self,
        number: u32,
        from: i64,
        end: i64,
        max_bytes: usize,
        outcome: &ReadOutcome,
    ) -> Option<i64> {
        let bytes: Vec<u8> =
            outcome.slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let result = self.model(number, |model| {
            let said = || {
                let next = outcome.next;
                format!(
                    "read {from}..{end} of at most {max_bytes} B gave {} B, next {next}",
                    bytes.len()
                )
            };
            if bytes.is_empty() && model.cutting.is_some_and(|to| to < end) {
                // What was asked for is going.
                return Ok(end);
            }
            if bytes.is_empty() {
                return Err(format!("nothing came: {}", said()));
            }
            if outcome.bytes != bytes.len() {
                return Err(format!("length {}: {}", outcome.bytes, said()));
            }
            let Some((first, _)) = model.batch_at(from) else {
                return Err(format!("no batch there: {}", said()));
            };
            let mut rest = &bytes[..];
            let mut next = from;
            for stored in model.batches().iter().skip(first) {
                if rest.is_empty() {
                    break;
                }
                let Some((batch, behind)) = rest.split_at_checked(stored.bytes.len()) else {
                    return Err(format!("batch {} is cut off: {}", stored.base, said()));
                };
                if batch != stored.bytes {
                    let header = peek_header(batch);
                    return Err(format!("other bytes at {}: {header:?}: {}", stored.base, said()));
                }
                (rest, next) = (behind, stored.end);
            }
            if !rest.is_empty() || next != outcome.next.get() || next > end {
                return Err(format!("ends at {next}: {}", said()));
            }
            let first_bytes = model.batches().get(first).map_or(0, |stored| stored.bytes.len());
            if bytes.len() > max_bytes && bytes.len() > first_bytes {
                return Err(format!("too much: {}", said()));
            }
            Ok(next)
        });
        match result {
            Ok(next) => {
                self.note_read(number, &bytes);
                Some(next)
            }
            Err(what) => {
                self.require("I15 read", number, Err(what));
                None
            }
        }
    }

    fn note_read(&self, number: u32, bytes: &[u8]) {
        let mut rest = bytes;
        while let Ok(header) = peek_header(rest) {
            let Some((batch, behind)) = rest.split_at_checked(header.total_bytes()) else { return };
            let base = header.base_offset.get();
            let result = match value_of(batch) {
                Some(value) => {
                    if let Some(collected) = self.collected.borrow_mut().as_mut() {
                        collected.push((base, value));
                    }
                    let seen = self.history.borrow_mut().read(number, base, value);
                    seen.map_err(|anomaly| anomaly.to_string())
                }
                None => Err(format!("no value in the batch at {}", header.base_offset)),
            };
            self.require("K2", number, result);
            rest = behind;
        }
    }

    pub(super) fn check_read_error(&self, number: u32, from: i64, error: &ReadError) {
        self.event(|| format!("p{number} read {from}: {error}"));
        if let ReadError::Damaged { path, .. } = error {
            self.event(|| self.compare(number, path));
        }
        let (start, asked, is_here, is_cutting) = self.model(number, |model| {
            let is_here = model.existence == Existence::Live;
            (model.log_start, model.log_start_asked, is_here, model.cutting.is_some())
        });
        let is_explained = match error {
            ReadError::OutOfRange { .. } => start != asked || from < start || is_cutting,
            ReadError::Removed => !is_here,
            ReadError::Io { .. } => self.options.faults.read_error || self.failures.get() > 0,
            ReadError::Damaged { .. } => false,
        };
        let is_explained = is_explained
            || !is_here
            || (is_damage(error) && self.is_damaged.get())
            || self.model(number, |model| model.suspect_from.is_some());
        if !is_explained {
            self.require("I15 read", number, Err(format!("read {from}: {error}")));
        }
        if is_damage(error) && self.is_damaged.get() {
            let from = self.model(number, |model| model.boundary_below(from));
            self.history.borrow_mut().excuse(number, from);
        }
    }

    /// Where a segment's file differs from what was appended; for a report.
    fn compare(&self, number: u32, path: &Path) -> String {
        let bytes = self.disk.file_bytes(path, View::Visible).unwrap_or_default();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let base: i64 = name.and_then(|n| n.split('-').next()?.parse().ok()).unwrap_or(-1);
        self.model(number, |model| {
            let mut at = 0;
            let mut differing = Vec::new();
            for batch in model.batches().iter().filter(|batch| batch.base >= base) {
                let stands = bytes.get(at..at + batch.bytes.len()).unwrap_or_default();
                let first = batch.bytes.iter().zip(stands).position(|(a, b)| a != b);
                if stands.len() < batch.bytes.len() || first.is_some() {
                    differing.push((batch.base, at, first));
                }
                at += batch.bytes.len();
            }
            let count = differing.len();
            differing.truncate(12);
            format!(
                "{} differs in {count} batches (base, byte, first differing): {differing:?}",
                path.display()
            )
        })
    }

    pub(super) fn check_find_time(
        &self,
        number: u32,
        at: i64,
        end: i64,
        found: Option<(i64, i64)>,
    ) {
        let expected = self.model(number, |model| model.find_time(at, end));
        if found != expected {
            let what = format!("find time {at} below {end}: {found:?}, expected {expected:?}");
            self.require("find time", number, Err(what));
        }
    }

    pub(super) fn check_store_error(&self, doing: &'static str, error: &StoreError) {
        self.event(|| format!("{doing}: {error}"));
        let faults = &self.options.faults;
        let is_explained = match error {
            StoreError::Failed(_) => self.failures.get() > 0,
            StoreError::DiskFull => faults.full_disk || faults.small_disk,
            StoreError::Read(error) => {
                faults.read_error
                    || self.failures.get() > 0
                    || (is_damage(error) && self.is_damaged.get())
                    || matches!(error, ReadError::Removed)
            }
            StoreError::Unknown => true,
            StoreError::OutOfRange { .. } | StoreError::Exists => false,
        };
        if !is_explained {
            self.violate("store", &format!("{doing}: {error}"));
        }
    }

    pub(super) fn ask_log_start(&self, number: u32, to: i64) {
        self.event(|| format!("p{number} log start to {to}"));
        self.model(number, |model| model.log_start_asked = model.log_start_asked.max(to));
        self.history.borrow_mut().log_start(number, to);
    }

    pub(super) fn confirm_log_start(&self, number: u32, to: i64) {
        let server = self.server();
        let served = server.and_then(|server| server.served(number));
        if let Some(served) = served {
            self.observe(number, &served.log);
            if served.log.log_start().get() < to {
                let what = format!("log start {} after moving it to {to}", served.log.log_start());
                self.require("J8", number, Err(what));
            }
        }
    }

    /// A truncation begins. Whether it may.
    pub(super) fn begin_cut(&self, number: u32, to: i64) -> bool {
        let end = self.model(number, |model| {
            if model.cutting.is_some() {
                return None;
            }
            model.cutting = Some(to);
            model.branch += 1;
            Some(model.boundary_below(to))
        });
        let Some(end) = end else { return false };
        self.event(|| format!("p{number} truncate to {to}"));
        self.history.borrow_mut().truncated(number, end);
        true
    }

    /// A truncation is over: what was asked for and the end that it left, or nothing happened.
    pub(super) fn end_cut(&self, number: u32, done: Option<(i64, i64)>) {
        let result = self.model(number, |model| {
            model.cutting = None;
            model.branch += 1;
            let Some((to, end)) = done else { return Ok(()) };
            let expected = model.boundary_below(to).max(model.log_start);
            model.cut(end);
            if end == expected {
                Ok(())
            } else {
                Err(format!("truncation to {to} ended at {end}, expected {expected}"))
            }
        });
        self.event(|| format!("p{number} truncated: {done:?}"));
        if let Some((_, end)) = done {
            self.history.borrow_mut().truncated(number, end);
        }
        self.require("truncate", number, result);
    }
}
