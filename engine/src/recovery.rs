//! Opening a log directory: identity, recovery of every shard that ever wrote here, the commit of a new
//! incarnation (J22 to J31).
//!
//! Order, and why it is safe to crash anywhere in it: read and lock (nothing changes), write what the journal
//! describes into the segments (the journal still describes it), write manifests and the checkpoints of the next
//! incarnation under new names (nobody looks at them yet), write the start record. Only that last write makes the old
//! journal void.

mod seed;
mod verify;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use levada_record::{BrokerId, Offset, PartitionId, PartitionUid, ShardIndex};

use crate::checkpoint::{Checkpoint, CheckpointFound, LogCheckpoint};
use crate::digest::Digest;
use crate::disk::{Disk, OpenMode, SharedDisk, Slice};
use crate::error::OpenError;
use crate::journal::journal_number;
use crate::journal::layout::{Entry, payload_is_whole};
use crate::journal::replay::{FoundRounds, LogFold, find_rounds};
use crate::log::Suspicion;
use crate::manifest::{ManifestFound, directory_name, read_manifest, read_meta, write_manifest};
use crate::producers::Producers;
use crate::runtime::SharedRuntime;
use crate::start_record::{StartRecord, StartRecordFound};
use crate::store::{StoreSeed, partitions_directory, shard_directory};
pub use seed::{ActiveSeed, LogSeed};
use verify::{Recovered, recover_log};

/// Logs recovered at the same time.
const LOGS_AT_ONCE: usize = 16;
/// Files of a journal read at the same time.
const JOURNAL_FILES_AT_ONCE: usize = 4;
/// How long a start waits for a dying process to let go of its files.
const HELD_FILES_WAIT: Duration = Duration::from_secs(30);
/// Between two looks whether it has.
const HELD_FILES_RETRY: Duration = Duration::from_millis(20);

/// Whose directory it is to be, and for how many shards.
#[derive(Debug, Clone)]
pub struct DirectoryOptions {
    /// Root of the log directory.
    pub root: PathBuf,
    /// Id of the cluster.
    pub cluster: [u8; 16],
    /// Id of the broker.
    pub broker: BrokerId,
    /// Shards of this start.
    pub shards: u16,
    /// Random numbers for a new directory and for the shards' uids.
    pub random: [u64; 4],
}

/// Where a partition found on the disk belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// On this shard.
    Shard(ShardIndex),
    /// In nobody's metadata: its files are moved aside, not deleted.
    Quarantine,
}

/// Who a directory says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryIdentity {
    /// Random id of the directory.
    pub directory_id: [u8; 16],
    /// Its cluster.
    pub cluster: [u8; 16],
    /// Its broker.
    pub broker: BrokerId,
    /// Whether the last stop was clean.
    pub is_clean: bool,
}

/// What the recovery saw; for the log, metrics and tests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Whether the last stop was clean, so that nothing had to be read.
    pub was_clean: bool,
    /// Rounds found in all journals.
    pub rounds: u64,
    /// Last rounds that were torn and dropped whole: (shard, round).
    pub torn: Vec<(u16, u64)>,
    /// Rounds that are missing in the middle: (shard, run of rounds).
    pub gaps: Vec<(u16, Range<u64>)>,
    /// Bytes written into segments from the journals.
    pub replayed_bytes: u64,
    /// Bytes of segments verified.
    pub verified_bytes: u64,
    /// Damaged logs.
    pub suspects: Vec<(PartitionId, Suspicion)>,
    /// Directories moved aside.
    pub quarantined: Vec<String>,
    /// Partitions that were on the disk before and whose directory is gone.
    pub missing: Vec<PartitionId>,
}

/// An open log directory: what each shard starts from.
#[derive(Debug)]
pub struct OpenedDirectory {
    /// Number of this start.
    pub incarnation: u64,
    /// Random id of the directory.
    pub directory_id: [u8; 16],
    /// One per shard.
    pub seeds: Vec<StoreSeed>,
    /// What was seen.
    pub report: RecoveryReport,
}

/// Who the directory says it is; `None` when it is new or missing.
///
/// # Errors
/// [`OpenError`] when it cannot be read or believed.
pub async fn peek_identity(
    disk: &dyn Disk,
    root: &Path,
) -> Result<Option<DirectoryIdentity>, OpenError> {
    Ok(read_start_record(disk, root).await?.map(|(_, record)| DirectoryIdentity {
        directory_id: record.directory_id,
        cluster: record.cluster,
        broker: record.broker,
        is_clean: record.clean,
    }))
}

/// Marks the directory clean: every shard has stopped without an error.
///
/// # Errors
/// Of the disk.
pub async fn mark_clean(disk: &dyn Disk, root: &Path) -> Result<(), OpenError> {
    if let Some((sequence, record)) = read_start_record(disk, root).await? {
        let record = StartRecord { clean: true, ..record };
        record
            .write(disk, root, sequence + 1)
            .await
            .map_err(io_error("write the start record in", root))?;
    }
    Ok(())
}

async fn read_start_record(
    disk: &dyn Disk,
    root: &Path,
) -> Result<Option<(u64, StartRecord)>, OpenError> {
    let found =
        StartRecord::read(disk, root).await.map_err(io_error("read the start record of", root))?;
    let reason = match found {
        StartRecordFound::Whole(sequence, record) => return Ok(Some((sequence, record))),
        StartRecordFound::Newer(version) => {
            return Err(OpenError::NewerFormat { path: root.to_path_buf(), version });
        }
        StartRecordFound::Missing => "missing".to_owned(),
        StartRecordFound::Damaged(reason) => reason,
    };
    // Without a record the directory is new, also when its first start was cut short while it wrote one; unless
    // there are partitions: then it is damaged.
    let partitions = list_or_empty(disk, &partitions_directory(root)).await?;
    if partitions.is_empty() {
        if reason != "missing" {
            tracing::warn!(directory = %root.display(), reason, "no whole start record, and no partition: starts as new");
        }
        return Ok(None);
    }
    Err(OpenError::NoStartRecord { path: root.to_path_buf(), reason })
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    let path = path.to_path_buf();
    move |source| match source.kind() {
        io::ErrorKind::WouldBlock => OpenError::Held { path },
        _ => OpenError::Io { doing, path, source },
    }
}

/// Does `read` again while a process that is going away still writes what it reads (J24).
async fn until_free<T>(
    runtime: &SharedRuntime,
    read: impl AsyncFn() -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let started = runtime.now().monotonic_ns;
    let limit = u64::try_from(HELD_FILES_WAIT.as_nanos()).unwrap_or(u64::MAX);
    loop {
        match read().await {
            Err(OpenError::Held { .. })
                if runtime.now().monotonic_ns.saturating_sub(started) <= limit =>
            {
                runtime.sleep(HELD_FILES_RETRY).await;
            }
            other => return other,
        }
    }
}

async fn list_or_empty(disk: &dyn Disk, path: &Path) -> Result<Vec<String>, OpenError> {
    match disk.list(path).await {
        Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(io_error("list", path)(error)),
    }
}

/// One shard of the last incarnation, as found on the disk.
pub(crate) struct OldShard {
    pub(crate) index: u16,
    /// The journal's files; payloads are read from here.
    pub(crate) files: Vec<Slice>,
    pub(crate) found: FoundRounds,
    /// Its last round was torn and dropped; the one before it is known to be durable.
    pub(crate) has_dropped_last: bool,
    pub(crate) checkpoint: Option<Checkpoint>,
}

/// Recovers the directory and commits a new incarnation, on one executor, before any shard starts.
///
/// # Errors
/// [`OpenError`]; nothing but repeatable work was done then.
pub async fn open_directory(
    disk: SharedDisk,
    runtime: SharedRuntime,
    options: DirectoryOptions,
    placement: &dyn Fn(PartitionId) -> Placement,
) -> Result<OpenedDirectory, OpenError> {
    let root = options.root.as_path();
    for directory in [root.to_path_buf(), partitions_directory(root)] {
        disk.create_directory(&directory).await.map_err(io_error("create", &directory))?;
    }
    for shard in 0..options.shards {
        let directory = shard_directory(root, ShardIndex(shard));
        disk.create_directory(&directory).await.map_err(io_error("create", &directory))?;
    }
    let found = until_free(&runtime, async || read_start_record(disk.as_ref(), root).await).await?;
    let (sequence, record) = match found {
        Some(found) => found,
        None => {
            sync_ancestors(disk.as_ref(), root).await?;
            (0, new_record(&options))
        }
    };
    check_identity(&options, &record)?;
    let mut report = RecoveryReport { was_clean: record.clean, ..RecoveryReport::default() };
    let mut shards = read_shards(&disk, &runtime, root, &record, &mut report).await?;
    let logs = recover_logs(&disk, &runtime, root, &record, &mut shards, &mut report).await?;
    commit(&disk, &options, sequence, &record, logs, placement, report).await
}

/// The name of a new directory must survive as surely as what is in it.
async fn sync_ancestors(disk: &dyn Disk, root: &Path) -> Result<(), OpenError> {
    for directory in root.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty()) {
        match disk.sync_directory(directory).await {
            // Directories that we may not even look into were not made by us.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            other => other.map_err(io_error("sync", directory))?,
        }
    }
    Ok(())
}

fn new_record(options: &DirectoryOptions) -> StartRecord {
    let mut directory_id = [0; 16];
    let (high, low) = directory_id.split_at_mut(8);
    high.copy_from_slice(&options.random[0].to_le_bytes());
    low.copy_from_slice(&options.random[1].to_le_bytes());
    StartRecord {
        directory_id,
        cluster: options.cluster,
        broker: options.broker,
        incarnation: 0,
        shard_uids: Vec::new(),
        clean: true,
    }
}

fn check_identity(options: &DirectoryOptions, record: &StartRecord) -> Result<(), OpenError> {
    let hex = |id: &[u8; 16]| format!("{:032x}", u128::from_be_bytes(*id));
    if record.cluster != options.cluster {
        return Err(OpenError::OtherCluster {
            path: options.root.clone(),
            found: hex(&record.cluster),
            expected: hex(&options.cluster),
        });
    }
    if record.broker != options.broker {
        return Err(OpenError::OtherBroker {
            path: options.root.clone(),
            found: record.broker.0,
            expected: options.broker.0,
        });
    }
    Ok(())
}

/// Reads checkpoints and, after an unclean stop, the journals of every shard of the last incarnation.
async fn read_shards(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    root: &Path,
    record: &StartRecord,
    report: &mut RecoveryReport,
) -> Result<Vec<OldShard>, OpenError> {
    let mut shards = Vec::new();
    for (index, uid) in (0u16..).zip(&record.shard_uids) {
        let directory = shard_directory(root, ShardIndex(index));
        let found = until_free(runtime, async || {
            Checkpoint::read(disk.as_ref(), &directory, record.incarnation)
                .await
                .map_err(io_error("read the checkpoint in", &directory))
        })
        .await?;
        let checkpoint = match found {
            CheckpointFound::Whole(_, checkpoint) => Some(checkpoint),
            CheckpointFound::Lost(reason) => {
                tracing::error!(directory = %directory.display(), reason, "both checkpoint copies are lost");
                None
            }
        };
        let mut shard = OldShard {
            index,
            files: Vec::new(),
            found: FoundRounds::default(),
            has_dropped_last: false,
            checkpoint,
        };
        if !record.clean {
            shard.files = read_journal(disk, runtime, &directory).await?;
            let first = shard.checkpoint.as_ref().map_or(1, |c| c.first_needed_round);
            let bytes: Vec<&[u8]> = shard.files.iter().map(|file| &file[..]).collect();
            let block = disk.block_bytes();
            shard.found = find_rounds(&bytes, block, *uid, record.incarnation, first);
            drop_torn_payloads(&mut shard, report);
            report.rounds += shard.found.rounds.len() as u64;
            report.gaps.extend(shard.found.gaps.iter().map(|gap| (index, gap.clone())));
        }
        shards.push(shard);
    }
    Ok(shards)
}

/// The last round is dropped whole when one of its payloads is not (J4).
fn drop_torn_payloads(shard: &mut OldShard, report: &mut RecoveryReport) {
    let Some(last) = shard.found.rounds.last() else { return };
    let is_whole = last.round.entries.iter().all(|(entry, at)| match entry {
        Entry::Append(append) => shard
            .payload(last.file, last.at + at, append.payload_bytes())
            .is_some_and(|payload| payload_is_whole(append, payload)),
        _ => true,
    });
    if !is_whole {
        report.torn.push((shard.index, last.round.identity.round));
        shard.found.rounds.pop();
        shard.has_dropped_last = true;
    }
}

impl OldShard {
    pub(crate) fn payload(&self, file: usize, at: usize, len: u64) -> Option<&[u8]> {
        let len = usize::try_from(len).ok()?;
        self.files.get(file)?.get(at..at.checked_add(len)?)
    }
}

/// All journal files of a shard, whole, locked while they are read (J24).
async fn read_journal(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    directory: &Path,
) -> Result<Vec<Slice>, OpenError> {
    let names = list_or_empty(disk.as_ref(), directory).await?;
    let names: Vec<String> =
        names.into_iter().filter(|name| journal_number(name).is_some()).collect();
    let files = names.iter().map(|name| read_journal_file(disk, runtime, directory.join(name)));
    stream::iter(files).buffered(JOURNAL_FILES_AT_ONCE).try_collect().await
}

async fn read_journal_file(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    path: PathBuf,
) -> Result<Slice, OpenError> {
    let failed = |source| OpenError::Io { doing: "read", path: path.clone(), source };
    let file = disk.open(&path, OpenMode::Existing).await.map_err(failed)?;
    hold(runtime, &path, || file.try_lock()).await?;
    file.sync().await.map_err(failed)?;
    let length = file.length().await.map_err(failed)?;
    let block = disk.block_bytes() as u64;
    let whole = usize::try_from(length.next_multiple_of(block)).unwrap_or(0);
    let bytes = if whole == 0 {
        Slice::from(Vec::new())
    } else {
        file.read_at(0, whole).await.map_err(failed)?
    };
    file.close().await.map_err(failed)?;
    Ok(bytes)
}

/// Takes a lock, waiting for a process that is going away.
pub(crate) async fn hold(
    runtime: &SharedRuntime,
    path: &Path,
    try_lock: impl Fn() -> io::Result<()>,
) -> Result<(), OpenError> {
    until_free(runtime, async || try_lock().map_err(io_error("lock", path))).await
}

/// What is known of one log before it is looked at.
pub(crate) struct Candidate {
    pub(crate) shard: usize,
    pub(crate) checkpoint: LogCheckpoint,
    /// Made by a round that no checkpoint knows yet.
    pub(crate) is_new: bool,
}

/// Every log that a checkpoint or a round speaks of and no round removed.
fn candidates(shards: &[OldShard]) -> BTreeMap<PartitionUid, Candidate> {
    let mut logs = BTreeMap::new();
    for (at, shard) in shards.iter().enumerate() {
        for log in shard.checkpoint.iter().flat_map(|checkpoint| &checkpoint.logs) {
            let candidate = Candidate { shard: at, checkpoint: log.clone(), is_new: false };
            logs.insert(log.uid, candidate);
        }
        for one in &shard.found.rounds {
            for (entry, _) in &one.round.entries {
                match *entry {
                    Entry::Created { uid, partition } => {
                        logs.entry(uid).or_insert_with(|| Candidate {
                            shard: at,
                            checkpoint: empty_checkpoint(partition, uid),
                            is_new: true,
                        });
                    }
                    Entry::Removed { uid } => {
                        logs.remove(&uid);
                    }
                    _ => {}
                }
            }
        }
    }
    logs
}

fn empty_checkpoint(partition: PartitionId, uid: PartitionUid) -> LogCheckpoint {
    LogCheckpoint {
        partition,
        uid,
        place: None,
        offset: Offset::ZERO,
        digest: Digest::EMPTY,
        durable_end: Offset::ZERO,
        high_watermark: Offset::ZERO,
        max_timestamp: -1,
        producers: Producers::default(),
    }
}

/// Recovers every log; a shard whose last round turns out to be torn in a segment drops it and is done again.
async fn recover_logs(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    root: &Path,
    record: &StartRecord,
    shards: &mut [OldShard],
    report: &mut RecoveryReport,
) -> Result<Vec<Recovered>, OpenError> {
    let block_bytes = disk.block_bytes() as u64;
    let on_disk = adopt_orphans(disk, runtime, root, shards).await?;
    loop {
        let mut logs = candidates(shards);
        for (uid, orphan) in &on_disk {
            logs.entry(*uid).or_insert_with(|| Candidate {
                shard: orphan.shard,
                checkpoint: orphan.checkpoint.clone(),
                is_new: orphan.is_new,
            });
        }
        let read = logs.into_iter().map(async |(uid, candidate)| {
            let directory =
                partitions_directory(root).join(directory_name(candidate.checkpoint.partition));
            let found = until_free(runtime, async || {
                read_manifest(disk.as_ref(), &directory)
                    .await
                    .map_err(io_error("read the manifest in", &directory))
            });
            let found = found.await?;
            Ok::<_, OpenError>((uid, candidate, directory, found))
        });
        let folds: Vec<_> = stream::iter(read).buffered(LOGS_AT_ONCE).try_collect().await?;
        let shared: &[OldShard] = shards;
        let entries: Vec<EntriesOf> = shared.iter().map(entries_by_log).collect();
        let verified = folds.into_iter().map(|(uid, candidate, directory, found)| {
            let fold = fold_log(shared, &entries, record, uid, &candidate, found, block_bytes);
            recover_log(disk, runtime, shared, record, candidate, directory, fold)
        });
        let mut recovered: Vec<Recovered> =
            stream::iter(verified).buffered(LOGS_AT_ONCE).try_collect().await?;
        let torn = recovered.iter().rev().find_map(|one| one.torn_shard);
        match torn.and_then(|shard| shards.get_mut(shard)) {
            Some(shard) => {
                // A block of the last round did not reach its segment: the round never was (J4).
                shard.has_dropped_last = true;
                if let Some(last) = shard.found.rounds.pop() {
                    report.torn.push((shard.index, last.round.identity.round));
                }
            }
            None => {
                finish_logs(disk, shards, &mut recovered, report).await?;
                return Ok(recovered);
            }
        }
    }
}

/// A shard without any checkpoint still has its partitions' directories: manifest and journal decide (J30).
async fn adopt_orphans(
    disk: &SharedDisk,
    runtime: &SharedRuntime,
    root: &Path,
    shards: &[OldShard],
) -> Result<BTreeMap<PartitionUid, Candidate>, OpenError> {
    let mut orphans = BTreeMap::new();
    let Some(lost) = shards.iter().position(|shard| shard.checkpoint.is_none()) else {
        return Ok(orphans);
    };
    let known = candidates(shards);
    let partitions = partitions_directory(root);
    for name in list_or_empty(disk.as_ref(), &partitions).await? {
        let directory = partitions.join(&name);
        let meta = until_free(runtime, async || match read_meta(disk.as_ref(), &directory).await {
            Ok(meta) => Ok(Some(meta)),
            // Nobody can say whose it is; it will be moved aside.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
            Err(error) => Err(io_error("read partition.meta in", &directory)(error)),
        });
        let Some((partition, uid)) = meta.await? else { continue };
        if !known.contains_key(&uid) {
            let checkpoint = empty_checkpoint(partition, uid);
            // Which shard it was is only known by its rounds.
            let spoken_of = shards.iter().position(|shard| {
                shard
                    .found
                    .rounds
                    .iter()
                    .any(|one| one.round.entries.iter().any(|(entry, _)| entry.uid() == uid))
            });
            let shard = spoken_of.unwrap_or(lost);
            orphans.insert(uid, Candidate { shard, checkpoint, is_new: false });
        }
    }
    Ok(orphans)
}

/// Where a journal speaks of each log: the place of the round and, in it, of the entry.
type EntriesOf = BTreeMap<PartitionUid, Vec<(usize, usize)>>;

/// Looks once at all entries; looking for each log's own would take logs times entries.
fn entries_by_log(shard: &OldShard) -> EntriesOf {
    let mut found = EntriesOf::new();
    for (round, one) in shard.found.rounds.iter().enumerate() {
        for (place, (entry, _)) in one.round.entries.iter().enumerate() {
            found.entry(entry.uid()).or_default().push((round, place));
        }
    }
    found
}

/// Folds all rounds of its shard over a log's manifest and checkpoint.
fn fold_log(
    shards: &[OldShard],
    entries: &[EntriesOf],
    record: &StartRecord,
    uid: PartitionUid,
    candidate: &Candidate,
    found: ManifestFound,
    block_bytes: u64,
) -> Result<(u64, LogFold, crate::manifest::Manifest), String> {
    let (sequence, manifest) = match found {
        ManifestFound::Whole(sequence, manifest) => (sequence, manifest),
        ManifestFound::Lost(reason) => {
            return Err(format!("both manifest copies are lost: {reason}"));
        }
    };
    let manifest_round = match manifest.incarnation.cmp(&record.incarnation) {
        std::cmp::Ordering::Less => 0,
        std::cmp::Ordering::Equal => manifest.through_round,
        std::cmp::Ordering::Greater => {
            return Err(format!(
                "the manifest is of start {}, the start record of {}",
                manifest.incarnation, record.incarnation
            ));
        }
    };
    let mut fold = LogFold::new(&candidate.checkpoint, &manifest, manifest_round);
    if let Some(shard) = shards.get(candidate.shard) {
        let places = entries.get(candidate.shard).and_then(|of| of.get(&uid));
        for (index, place) in places.into_iter().flatten().copied() {
            let Some(one) = shard.found.rounds.get(index) else { continue };
            let Some((entry, at)) = one.round.entries.get(place) else { continue };
            let is_whole = match entry {
                Entry::Append(append) => shard
                    .payload(one.file, one.at + at, append.payload_bytes())
                    .is_some_and(|payload| payload_is_whole(append, payload)),
                _ => true,
            };
            fold.apply(one.round.identity.round, index, entry, *at, is_whole);
        }
    }
    fold.finish(block_bytes);
    Ok((sequence, fold, manifest))
}

/// Pass 2: writes what the journals describe, syncs it.
async fn finish_logs(
    disk: &SharedDisk,
    shards: &[OldShard],
    recovered: &mut [Recovered],
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let replayed = recovered.iter_mut().map(|one| verify::replay(disk, shards, one));
    let replayed: Vec<u64> = stream::iter(replayed).buffered(LOGS_AT_ONCE).try_collect().await?;
    report.replayed_bytes += replayed.iter().sum::<u64>();
    for one in recovered {
        report.verified_bytes += one.verified_bytes;
        if one.is_missing {
            report.missing.push(one.seed.partition);
        }
        if let Some(suspicion) = &one.seed.suspicion {
            tracing::error!(
                partition = %one.directory.display(),
                from = suspicion.from.0,
                reason = suspicion.reason,
                "the log is damaged; its files are kept"
            );
            report.suspects.push((one.seed.partition, suspicion.clone()));
        }
    }
    Ok(())
}

/// Manifests, quarantine, checkpoints of the next incarnation, start record: in this order.
async fn commit(
    disk: &SharedDisk,
    options: &DirectoryOptions,
    sequence: u64,
    record: &StartRecord,
    logs: Vec<Recovered>,
    placement: &dyn Fn(PartitionId) -> Placement,
    mut report: RecoveryReport,
) -> Result<OpenedDirectory, OpenError> {
    let root = options.root.as_path();
    let incarnation = record.incarnation + 1;
    let mut by_shard: Vec<Vec<LogSeed>> = vec![Vec::new(); usize::from(options.shards)];
    let mut kept: BTreeSet<String> = BTreeSet::new();
    let mut leftovers: Vec<PathBuf> = Vec::new();
    let mut logs: Vec<Recovered> = logs
        .into_iter()
        .filter(|one| !one.is_missing)
        .filter(|one| matches!(placement(one.seed.partition), Placement::Shard(_)))
        .collect();
    let written = logs.iter_mut().map(async |one| {
        let Some(manifest) = one.new_manifest(record.incarnation) else { return Ok(()) };
        one.seed.manifest_sequence += 1;
        write_manifest(disk.as_ref(), &one.directory, one.seed.manifest_sequence, &manifest)
            .await
            .map_err(io_error("write the manifest in", &one.directory))
    });
    stream::iter(written).buffered(LOGS_AT_ONCE).try_collect::<()>().await?;
    for one in logs {
        let Placement::Shard(shard) = placement(one.seed.partition) else { continue };
        kept.insert(directory_name(one.seed.partition));
        leftovers.extend(one.leftovers.iter().map(|name| one.directory.join(name)));
        let at = usize::from(shard.0) % by_shard.len().max(1);
        if let Some(shard) = by_shard.get_mut(at) {
            shard.push(one.seed);
        }
    }
    quarantine(disk, root, incarnation, &kept, &mut report).await?;
    let mut shard_uids = Vec::new();
    let mut seeds = Vec::new();
    for (index, logs) in (0u16..).zip(by_shard) {
        // Distinct for every shard and start; random so that no client can forge a round.
        let salt = u64::from(index) ^ (incarnation << 16);
        let shard_uid = options.random[2].wrapping_add(options.random[3].rotate_left(17) ^ salt);
        let directory = shard_directory(root, ShardIndex(index));
        let checkpoint = Checkpoint {
            shard_uid,
            incarnation,
            first_needed_round: 1,
            logs: logs.iter().map(LogSeed::as_checkpoint).collect(),
        };
        checkpoint
            .write(disk.as_ref(), &directory, 1)
            .await
            .map_err(io_error("write the checkpoint in", &directory))?;
        disk.sync_directory(&directory).await.map_err(io_error("sync", &directory))?;
        shard_uids.push(shard_uid);
        seeds.push(StoreSeed {
            shard: ShardIndex(index),
            root: options.root.clone(),
            shard_uid,
            incarnation,
            checkpoint_sequence: 1,
            logs,
        });
    }
    for directory in [root.join("shards"), partitions_directory(root), root.to_path_buf()] {
        disk.sync_directory(&directory).await.map_err(io_error("sync", &directory))?;
    }
    let next = StartRecord { incarnation, shard_uids, clean: false, ..record.clone() };
    next.write(disk.as_ref(), root, sequence + 1)
        .await
        .map_err(io_error("write the start record in", root))?;
    clean_up(disk, root, record, options.shards).await?;
    remove_leftovers(disk, &leftovers).await?;
    Ok(OpenedDirectory { incarnation, directory_id: record.directory_id, seeds, report })
}

/// Moves every partition directory that is nobody's aside (J14, J31).
async fn quarantine(
    disk: &SharedDisk,
    root: &Path,
    incarnation: u64,
    kept: &BTreeSet<String>,
    report: &mut RecoveryReport,
) -> Result<(), OpenError> {
    let partitions = partitions_directory(root);
    let aside = root.join("quarantine");
    for name in list_or_empty(disk.as_ref(), &partitions).await? {
        if kept.contains(&name) {
            continue;
        }
        disk.create_directory(&aside).await.map_err(io_error("create", &aside))?;
        let to = aside.join(format!("{name}.{incarnation}"));
        disk.rename(&partitions.join(&name), &to).await.map_err(io_error("move aside", &to))?;
        tracing::warn!(name, to = %to.display(), "a partition nobody knows was moved aside");
        report.quarantined.push(name);
    }
    if !report.quarantined.is_empty() {
        disk.sync_directory(&aside).await.map_err(io_error("sync", &aside))?;
    }
    Ok(())
}

/// Removes segment files that nothing speaks of: manifest and journal were whole, so what is in them was never
/// promised, or was given up for good.
async fn remove_leftovers(disk: &SharedDisk, paths: &[PathBuf]) -> Result<(), OpenError> {
    for path in paths {
        tracing::info!(path = %path.display(), "a segment file without a segment is removed");
        match disk.remove(path).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io_error("remove", path)(error)),
        }
    }
    Ok(())
}

/// Removes what the commit made void: old checkpoints, journals of shards that are no more.
async fn clean_up(
    disk: &SharedDisk,
    root: &Path,
    old: &StartRecord,
    shards: u16,
) -> Result<(), OpenError> {
    for index in (0u16..).take(old.shard_uids.len()) {
        let directory = shard_directory(root, ShardIndex(index));
        if index >= shards {
            disk.remove_directory(&directory).await.map_err(io_error("remove", &directory))?;
            continue;
        }
        for path in Checkpoint::paths(&directory, old.incarnation) {
            match disk.remove(&path).await {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(io_error("remove", &path)(error)),
            }
        }
    }
    Ok(())
}
