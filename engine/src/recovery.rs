//! Opening a log directory: identity, recovery of every shard that ever wrote here, the commit of a new
//! incarnation (J22 to J31).
//!
//! Order, and why it is safe to crash anywhere in it: read and lock (nothing changes), write what the journal
//! describes into the segments (the journal still describes it), write manifests and the checkpoints of the next
//! incarnation under new names (nobody looks at them yet), write the start record. Only that last write makes the old
//! journal void.

mod commit;
mod journals;
mod logs;
mod seed;
mod verify;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use levada_record::{BrokerId, PartitionId, ShardIndex};

use crate::disk::{Disk, SharedDisk};
use crate::error::OpenError;
use crate::log::Suspicion;
use crate::runtime::SharedRuntime;
use crate::start_record::{StartRecord, StartRecordFound};
use crate::store::{StoreSeed, partitions_directory, shard_directory};
pub use seed::{ActiveSeed, LogSeed};

/// Logs recovered at the same time.
const LOGS_AT_ONCE: usize = 16;
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

/// Takes a lock, waiting for a process that is going away.
async fn hold(
    runtime: &SharedRuntime,
    path: &Path,
    try_lock: impl Fn() -> io::Result<()>,
) -> Result<(), OpenError> {
    until_free(runtime, async || try_lock().map_err(io_error("lock", path))).await
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
    let mut shards = journals::read_shards(&disk, &runtime, root, &record, &mut report).await?;
    let logs = logs::recover_logs(&disk, &runtime, root, &record, &mut shards, &mut report).await?;
    commit::commit(&disk, &options, sequence, &record, logs, placement, report).await
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
