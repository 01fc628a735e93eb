//! What the shards of the last start left: their checkpoints and, after an unclean stop, their journals (J24, J25).

use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use levada_record::ShardIndex;

use super::{RecoveryReport, hold, io_error, list_or_empty, until_free};
use crate::checkpoint::{Checkpoint, CheckpointFound};
use crate::disk::{OpenMode, SharedDisk, Slice};
use crate::error::OpenError;
use crate::journal::journal_number;
use crate::journal::layout::Entry;
use crate::journal::layout::payload_is_whole;
use crate::journal::replay::{FoundRounds, find_rounds};
use crate::runtime::SharedRuntime;
use crate::start_record::StartRecord;
use crate::store::shard_directory;

/// Files of a journal read at the same time.
const JOURNAL_FILES_AT_ONCE: usize = 4;

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

/// Reads checkpoints and, after an unclean stop, the journals of every shard of the last incarnation.
pub(crate) async fn read_shards(
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
