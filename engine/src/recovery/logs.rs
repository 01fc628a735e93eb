//! All logs of the directory: which there are, what the journals say of each, both passes over them (J26 to J30).

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use levada_record::PartitionUid;

use super::journals::OldShard;
use super::verify::{self, Recovered, recover_log};
use super::{LOGS_AT_ONCE, RecoveryReport, io_error, list_or_empty, until_free};
use crate::checkpoint::LogCheckpoint;
use crate::disk::SharedDisk;
use crate::error::OpenError;
use crate::journal::layout::{Entry, payload_is_whole};
use crate::journal::replay::LogFold;
use crate::manifest::{ManifestFound, directory_name, read_manifest, read_meta};
use crate::runtime::SharedRuntime;
use crate::start_record::StartRecord;
use crate::store::partitions_directory;

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
                            checkpoint: LogCheckpoint::empty(partition, uid),
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

/// Recovers every log; a shard whose last round turns out to be torn in a segment drops it and is done again.
pub(crate) async fn recover_logs(
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
            let checkpoint = LogCheckpoint::empty(partition, uid);
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
