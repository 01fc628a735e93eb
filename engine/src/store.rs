//! The logs of one shard together: their journal, their rounds, their write-behind. The shard's door.

mod write_behind;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use levada_record::{PartitionId, PartitionUid, ShardIndex};

use crate::disk::SharedDisk;
use crate::error::{OpenError, StoreError};
use crate::journal::layout::{ENTRY_BYTES_MAX, Entry};
use crate::journal::{JOURNAL_FILE_BYTES, JOURNAL_FILES_MAX, Journal, journal_file_bytes};
use crate::log::{Appended, Log, LogConfig, ReadAhead, RoundBudget};
use crate::manifest::{Manifest, directory_name, write_manifest, write_meta};
use crate::recovery::LogSeed;
use crate::round::{RoundReport, ShardFact, run_rounds};
use crate::runtime::SharedRuntime;
use crate::signal::Signal;
use write_behind::{run_ring, run_write_behind};

/// Settings of a store; the broker's configuration fills them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreConfig {
    /// Length of a journal file in bytes; less on a small file system.
    pub journal_file_bytes: u64,
    /// Most files of the journal.
    pub journal_files_max: usize,
    /// Bytes kept in memory for readers, beyond what is owed to the segments: recent batches, and up to half of it what
    /// is read ahead.
    pub cache_bytes: usize,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            journal_file_bytes: JOURNAL_FILE_BYTES,
            journal_files_max: JOURNAL_FILES_MAX,
            cache_bytes: 64 << 20,
        }
    }
}

/// What a shard starts from, made by the recovery of the log directory. May cross threads.
#[derive(Debug, Clone)]
pub struct StoreSeed {
    /// Which shard.
    pub shard: ShardIndex,
    /// Root of the log directory.
    pub root: PathBuf,
    /// Uid of the shard in this incarnation.
    pub shard_uid: u64,
    /// This start of the broker.
    pub incarnation: u64,
    /// Sequence of the checkpoint that the recovery wrote.
    pub checkpoint_sequence: u64,
    /// The shard's logs.
    pub logs: Vec<LogSeed>,
}

/// Who wants to know when ends move. Called on the shard; must not block.
pub trait StoreListener {
    /// A round moved ends of this log, or wrote bytes of it when its settings ask for that.
    fn advanced(&self, log: &Rc<Log>);
    /// The log directory failed; nothing more is acknowledged.
    fn failed(&self, reason: &str);
    /// A batch was given its place at the log's end; nothing of it is durable yet.
    fn appended(&self, _log: &Rc<Log>, _batch: &[u8], _place: Appended) {}
    /// A round is durable.
    fn round_done(&self, _report: &RoundReport) {}
}

/// Figures of a store; for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Rounds made durable.
    pub rounds: u64,
    /// Bytes written to the journal.
    pub journal_bytes: u64,
    /// Bytes written straight to segments.
    pub through_bytes: u64,
    /// Bytes written to segments behind the journal.
    pub write_behind_bytes: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Bytes of rounds that the journal must keep.
    pub journal_used_bytes: u64,
    /// Bytes of all journal files.
    pub journal_size_bytes: u64,
    /// How often a round waited for room in the journal.
    pub room_waits: u64,
    /// How often room on the disk was refused.
    pub disk_full: u64,
    /// Memory of tails in bytes.
    pub tail_bytes: u64,
    /// Memory of what is read ahead in bytes.
    pub read_ahead_bytes: u64,
    /// Bytes that were read ahead and came in useful.
    pub read_ahead_used_bytes: u64,
    /// Logs.
    pub logs: u64,
}

pub(crate) struct Shared {
    pub(crate) disk: SharedDisk,
    pub(crate) runtime: SharedRuntime,
    pub(crate) listener: Rc<dyn StoreListener>,
    pub(crate) config: StoreConfig,
    pub(crate) root: PathBuf,
    pub(crate) shard_directory: PathBuf,
    pub(crate) shard_uid: u64,
    pub(crate) incarnation: u64,
    pub(crate) journal: RefCell<Journal>,
    pub(crate) logs: RefCell<BTreeMap<PartitionId, Rc<Log>>>,
    queue: RefCell<VecDeque<Rc<Log>>>,
    facts: RefCell<VecDeque<ShardFact>>,
    /// Something waits for a round, or the store stops.
    pub(crate) work: Signal,
    /// A round is durable.
    pub(crate) round_done: Signal,
    /// A journal file became free.
    pub(crate) room_made: Signal,
    pub(crate) write_behind_wanted: Signal,
    /// The last free journal file was entered.
    pub(crate) ring_wanted: Signal,
    /// A checkpoint was written.
    pub(crate) checkpointed: Signal,
    /// A checkpoint that somebody asked for was written.
    pub(crate) checkpoints_forced: Signal,
    /// How often a checkpoint was asked for, and how many of these are answered by one that began later.
    checkpoints_asked: Cell<u64>,
    checkpoints_answered: Cell<u64>,
    pub(crate) rounds_ended: Signal,
    pub(crate) write_behind_ended: Signal,
    /// Removed logs whose directories are to be deleted.
    pub(crate) graves: RefCell<Vec<Rc<Log>>>,
    /// Graves were emptied.
    pub(crate) buried: Signal,
    pub(crate) is_stopping: Cell<bool>,
    pub(crate) last_round: Cell<u64>,
    pub(crate) checkpoint_sequence: Cell<u64>,
    /// Journaled bytes since write-behind last looked.
    pub(crate) journaled_since: Cell<u64>,
    /// Bytes of any kind since the last checkpoint.
    pub(crate) bytes_since_checkpoint: Cell<u64>,
    /// Logs that owed bytes to their segments when write-behind last looked.
    pub(crate) owing_logs: Cell<u64>,
    /// The last try to make a journal file found no room on the disk.
    pub(crate) is_ring_stuck: Cell<bool>,
    pub(crate) read_ahead: RefCell<ReadAhead>,
    pub(crate) stats: Cell<StoreStats>,
    failure: RefCell<Option<String>>,
}

/// Write-behind looks for work after this many journaled bytes.
const WRITE_BEHIND_EVERY_BYTES: u64 = 4 << 20;

impl Shared {
    /// Why the log directory failed, if it did.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.borrow().clone()
    }

    /// The log directory has failed: nothing more is acknowledged from it (J33).
    pub(crate) fn fail(&self, reason: &str) {
        let is_first = self.failure.borrow().is_none();
        if is_first {
            tracing::error!(directory = %self.root.display(), reason, "the log directory has failed");
            *self.failure.borrow_mut() = Some(reason.to_owned());
            let logs: Vec<_> = self.logs.borrow().values().cloned().collect();
            self.listener.failed(reason);
            for log in logs {
                log.moved.raise();
            }
            let waited_for = [
                &self.work,
                &self.round_done,
                &self.room_made,
                &self.checkpointed,
                &self.buried,
                &self.ring_wanted,
                &self.checkpoints_forced,
            ];
            for signal in waited_for {
                signal.raise();
            }
            self.write_behind_wanted.raise();
        }
    }

    pub(crate) fn queue(&self, log: &Rc<Log>) {
        if !log.is_queued.replace(true) {
            self.queue.borrow_mut().push_back(Rc::clone(log));
            self.work.raise();
        }
    }

    pub(crate) fn queue_first(&self, log: &Rc<Log>) {
        if !log.is_queued.replace(true) {
            self.queue.borrow_mut().push_front(Rc::clone(log));
            self.work.raise();
        }
    }

    pub(crate) fn next_queued(&self) -> Option<Rc<Log>> {
        let log = self.queue.borrow_mut().pop_front()?;
        log.is_queued.set(false);
        Some(log)
    }

    /// Logs that wait for a round.
    pub(crate) fn queued(&self) -> usize {
        self.queue.borrow().len()
    }

    pub(crate) fn has_work(&self) -> bool {
        !self.queue.borrow().is_empty() || !self.facts.borrow().is_empty()
    }

    pub(crate) fn take_facts(&self, budget: &mut RoundBudget) -> Vec<ShardFact> {
        let mut taken = Vec::new();
        let mut facts = self.facts.borrow_mut();
        while budget.journal_bytes >= 2 * ENTRY_BYTES_MAX as u64 {
            let Some(fact) = facts.pop_front() else { break };
            budget.journal_bytes -= ENTRY_BYTES_MAX as u64;
            taken.push(fact);
        }
        taken
    }

    /// Everything owed is written and a checkpoint taken.
    pub(crate) async fn force_checkpoint(&self) -> Result<(), StoreError> {
        let asked = self.ask_checkpoint();
        loop {
            let seen = self.checkpoints_forced.count();
            if self.checkpoints_answered.get() >= asked {
                return Ok(());
            }
            if let Some(reason) = self.failure() {
                return Err(StoreError::Failed(reason));
            }
            self.checkpoints_forced.after(seen).await;
        }
    }

    /// Asks for a checkpoint of all that is durable now; which of those asked for it is.
    pub(crate) fn ask_checkpoint(&self) -> u64 {
        self.checkpoints_asked.set(self.checkpoints_asked.get() + 1);
        self.write_behind_wanted.raise();
        self.checkpoints_asked.get()
    }

    /// The last checkpoint asked for, when it has no answer yet.
    fn checkpoint_asked(&self) -> Option<u64> {
        let asked = self.checkpoints_asked.get();
        (asked > self.checkpoints_answered.get()).then_some(asked)
    }

    fn answer_checkpoint(&self, asked: u64) {
        self.checkpoints_answered.set(asked);
        self.checkpoints_forced.raise();
    }

    pub(crate) fn note_round(&self, round: u64, report: &RoundReport) {
        self.last_round.set(round);
        let mut stats = self.stats.get();
        stats.rounds += 1;
        stats.journal_bytes += report.journal_bytes;
        stats.through_bytes += report.through_bytes;
        self.stats.set(stats);
        self.listener.round_done(report);
        self.journaled_since.set(self.journaled_since.get() + report.journal_bytes);
        let bytes = report.journal_bytes + report.through_bytes;
        self.bytes_since_checkpoint.set(self.bytes_since_checkpoint.get() + bytes);
        if self.journal.borrow().free_count() == 0 {
            self.ring_wanted.raise();
        }
        if self.journaled_since.get() >= WRITE_BEHIND_EVERY_BYTES || self.is_checkpoint_due() {
            self.write_behind_wanted.raise();
        }
    }

    /// Whether it is time to give back the older half of the ring. Every log that owes bytes costs a checkpoint
    /// a write, so with many of them the ring grows, up to its limit, until each owes a piece.
    fn is_checkpoint_due(&self) -> bool {
        let since_bytes = self.bytes_since_checkpoint.get();
        let journal = self.journal.borrow();
        let half_of = |files: usize| 2 * journal.used_count() > files;
        let pays = since_bytes >= self.owing_logs.get() * write_behind::PIECE_MIN_BYTES;
        let can_grow = journal.file_count() < self.config.journal_files_max
            && !self.is_ring_stuck.get()
            && !self.is_stopping.get();
        half_of(journal.file_count()) && (pays || !can_grow)
            || half_of(self.config.journal_files_max)
            || since_bytes >= write_behind::CHECKPOINT_EVERY_BYTES
    }

    pub(crate) fn note_waiting_for_room(&self) {
        let mut stats = self.stats.get();
        stats.room_waits += 1;
        self.stats.set(stats);
        tracing::debug!("a round waits for room in the journal");
    }

    pub(crate) fn note_disk_full(&self) {
        let mut stats = self.stats.get();
        stats.disk_full += 1;
        self.stats.set(stats);
    }

    /// Puts a fact of the shard into the next round and waits until it is durable.
    async fn commit_fact(&self, entry: Entry) -> Result<(), StoreError> {
        let done = Rc::new(Cell::new(false));
        self.facts.borrow_mut().push_back(ShardFact { entry, done: Rc::clone(&done) });
        self.work.raise();
        loop {
            let seen = self.round_done.count();
            if done.get() {
                return Ok(());
            }
            if let Some(reason) = self.failure() {
                return Err(StoreError::Failed(reason));
            }
            self.round_done.after(seen).await;
        }
    }

    pub(crate) fn io_failed(&self, doing: &str, error: &io::Error) -> StoreError {
        if error.kind() == io::ErrorKind::StorageFull {
            self.note_disk_full();
            return StoreError::DiskFull;
        }
        let reason = format!("{doing}: {error}");
        self.fail(&reason);
        StoreError::Failed(reason)
    }
}

/// The directory of a shard's journal and checkpoints.
pub(crate) fn shard_directory(root: &Path, shard: ShardIndex) -> PathBuf {
    root.join("shards").join(shard.0.to_string())
}

/// The directory of all partitions.
pub(crate) fn partitions_directory(root: &Path) -> PathBuf {
    root.join("partitions")
}

/// The logs of one shard.
pub struct Store {
    shared: Rc<Shared>,
}

/// Logs and what they share hold each other; without this no file would ever be closed.
impl Drop for Store {
    fn drop(&mut self) {
        self.shared.logs.take();
        self.shared.queue.take();
        self.shared.graves.take();
    }
}

impl Store {
    /// Starts rounds and write-behind for what the recovery left to this shard.
    ///
    /// # Errors
    /// [`OpenError`] when the journal cannot be made or opened.
    pub async fn start(
        disk: SharedDisk,
        runtime: SharedRuntime,
        config: StoreConfig,
        seed: StoreSeed,
        listener: Rc<dyn StoreListener>,
    ) -> Result<Self, OpenError> {
        let shard_directory = shard_directory(&seed.root, seed.shard);
        let failed = |source| OpenError::Io {
            doing: "open the journal in",
            path: shard_directory.clone(),
            source,
        };
        let space = disk.space(&seed.root).await.map_err(failed)?;
        let file_bytes = journal_file_bytes(space.total_bytes, config.journal_file_bytes);
        let journal =
            Journal::open(disk.as_ref(), &shard_directory, file_bytes).await.map_err(failed)?;
        let shared = Rc::new(Shared {
            disk,
            runtime,
            listener,
            config,
            root: seed.root,
            shard_directory: shard_directory.clone(),
            shard_uid: seed.shard_uid,
            incarnation: seed.incarnation,
            journal: RefCell::new(journal),
            logs: RefCell::new(BTreeMap::new()),
            queue: RefCell::default(),
            facts: RefCell::default(),
            work: Signal::default(),
            round_done: Signal::default(),
            room_made: Signal::default(),
            write_behind_wanted: Signal::default(),
            ring_wanted: Signal::default(),
            checkpointed: Signal::default(),
            checkpoints_forced: Signal::default(),
            rounds_ended: Signal::default(),
            write_behind_ended: Signal::default(),
            graves: RefCell::default(),
            buried: Signal::default(),
            is_stopping: Cell::new(false),
            last_round: Cell::new(0),
            checkpoint_sequence: Cell::new(seed.checkpoint_sequence),
            checkpoints_asked: Cell::new(0),
            checkpoints_answered: Cell::new(0),
            journaled_since: Cell::new(0),
            bytes_since_checkpoint: Cell::new(0),
            owing_logs: Cell::new(0),
            is_ring_stuck: Cell::new(false),
            read_ahead: RefCell::default(),
            stats: Cell::default(),
            failure: RefCell::default(),
        });
        for log_seed in seed.logs {
            let log = Rc::new(Log::from_seed(&shared, log_seed));
            shared.logs.borrow_mut().insert(log.id(), log);
        }
        shared.runtime.spawn("rounds", Box::pin(run_rounds(Rc::clone(&shared))));
        shared.runtime.spawn("ring", Box::pin(run_ring(Rc::clone(&shared))));
        shared.runtime.spawn("write-behind", Box::pin(run_write_behind(Rc::clone(&shared))));
        Ok(Self { shared })
    }

    /// The log of a partition.
    pub fn log(&self, partition: PartitionId) -> Option<Rc<Log>> {
        self.shared.logs.borrow().get(&partition).cloned()
    }

    /// All logs, in order of their ids.
    pub fn logs(&self) -> Vec<Rc<Log>> {
        self.shared.logs.borrow().values().cloned().collect()
    }

    /// Creates an empty log, durable before this returns.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was created then, or a directory that the next start moves to quarantine.
    pub async fn create_log(
        &self,
        partition: PartitionId,
        config: LogConfig,
    ) -> Result<Rc<Log>, StoreError> {
        let shared = &self.shared;
        if let Some(reason) = shared.failure() {
            return Err(StoreError::Failed(reason));
        }
        if self.log(partition).is_some() {
            return Err(StoreError::Exists);
        }
        let uid = PartitionUid::derive(partition);
        let partitions = partitions_directory(&shared.root);
        let directory = partitions.join(directory_name(partition));
        let manifest = Manifest::empty(shared.incarnation, shared.last_round.get());
        let made = async {
            let disk = shared.disk.as_ref();
            disk.create_directory(&directory).await?;
            write_meta(disk, &directory, partition, uid).await?;
            write_manifest(disk, &directory, 1, &manifest).await?;
            disk.sync_directory(&directory).await?;
            disk.sync_directory(&partitions).await
        };
        if let Err(error) = made.await {
            return Err(shared.io_failed("create a log", &error));
        }
        shared.commit_fact(Entry::Created { uid, partition }).await?;
        if self.log(partition).is_some() {
            return Err(StoreError::Exists);
        }
        let seed = LogSeed::empty(partition, uid);
        let log = Rc::new(Log::from_seed(shared, seed));
        log.set_config(config);
        shared.logs.borrow_mut().insert(partition, Rc::clone(&log));
        Ok(log)
    }

    /// Removes a log and its files; durable before the files go.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn remove_log(&self, partition: PartitionId) -> Result<(), StoreError> {
        let shared = &self.shared;
        let log = self.log(partition).ok_or(StoreError::Unknown)?;
        // Nobody appends any more; write-behind goes on, so that the journal cannot be held up by this log.
        log.claim().await;
        log.until_idle().await?;
        if self.log(partition).is_none() {
            return Err(StoreError::Unknown);
        }
        shared.commit_fact(Entry::Removed { uid: log.uid() }).await?;
        log.state.borrow_mut().is_removed = true;
        shared.read_ahead.borrow_mut().forget(log.uid);
        shared.logs.borrow_mut().remove(&partition);
        log.release();
        let buried = shared.buried.count();
        shared.graves.borrow_mut().push(log);
        shared.write_behind_wanted.raise();
        while shared.buried.count() == buried {
            if let Some(reason) = shared.failure() {
                return Err(StoreError::Failed(reason));
            }
            shared.buried.after(buried).await;
        }
        Ok(())
    }

    /// Stops cleanly: everything that was appended becomes durable and leaves the journal. Mark the directory clean
    /// with [`crate::mark_clean`] once every shard has stopped.
    ///
    /// # Errors
    /// The reason for which the log directory failed.
    pub async fn stop(&self) -> Result<(), StoreError> {
        let shared = &self.shared;
        shared.is_stopping.set(true);
        shared.ring_wanted.raise();
        shared.write_behind_wanted.raise();
        shared.work.raise();
        while shared.rounds_ended.count() == 0 && shared.failure().is_none() {
            let seen = shared.round_done.count();
            futures_lite::future::or(shared.rounds_ended.after(0), shared.round_done.after(seen))
                .await;
        }
        shared.write_behind_wanted.raise();
        while shared.write_behind_ended.count() == 0 && shared.failure().is_none() {
            let seen = shared.checkpointed.count();
            futures_lite::future::or(
                shared.write_behind_ended.after(0),
                shared.checkpointed.after(seen),
            )
            .await;
        }
        shared.failure().map_or(Ok(()), |reason| Err(StoreError::Failed(reason)))
    }

    /// Writes everything owed to the segments and takes a checkpoint now.
    ///
    /// # Errors
    /// The reason for which the log directory failed.
    pub async fn checkpoint(&self) -> Result<(), StoreError> {
        self.shared.force_checkpoint().await
    }

    /// Why the log directory failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.shared.failure()
    }

    /// Figures as of now.
    pub fn stats(&self) -> StoreStats {
        let mut stats = self.shared.stats.get();
        let (used, size) = self.shared.journal.borrow().fill();
        stats.journal_used_bytes = used;
        stats.journal_size_bytes = size;
        let logs = self.shared.logs.borrow();
        stats.logs = logs.len() as u64;
        stats.tail_bytes =
            logs.values().map(|log| log.state.borrow().tail.memory_bytes() as u64).sum();
        stats.read_ahead_bytes = self.shared.read_ahead.borrow().bytes() as u64;
        stats
    }

    /// Paths of the journal's files; for tools and tests.
    pub fn journal_paths(&self) -> Vec<PathBuf> {
        self.shared.journal.borrow().paths()
    }
}

#[cfg(test)]
mod schedules;
#[cfg(test)]
pub(crate) mod tests;
