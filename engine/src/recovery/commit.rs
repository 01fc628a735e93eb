//! The end of a recovery: what it found is written under new names, and one last write makes it the truth (J31).

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use futures_util::{StreamExt, TryStreamExt, stream};
use levada_record::{PartitionId, ShardIndex};

use super::verify::Recovered;
use super::{
    DirectoryOptions, LOGS_AT_ONCE, LogSeed, OpenedDirectory, Placement, RecoveryReport, io_error,
    list_or_empty,
};
use crate::checkpoint::Checkpoint;
use crate::disk::SharedDisk;
use crate::error::OpenError;
use crate::manifest::{directory_name, write_manifest};
use crate::start_record::StartRecord;
use crate::store::{StoreSeed, partitions_directory, shard_directory};

/// Manifests, quarantine, checkpoints of the next incarnation, start record: in this order.
pub(crate) async fn commit(
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
