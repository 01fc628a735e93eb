//! The start record of a log directory (J22): whose it is, which start this is, and whether the last stop
//! was clean. Writing it commits a start.

use std::io;
use std::path::{Path, PathBuf};

use levada_record::BrokerId;

use crate::copies::{BothCopies, copy_path, write_copy};
use crate::disk::Disk;
use crate::fields::{FieldError, FieldReader, FieldWriter};

const MAGIC: [u8; 4] = *b"LVST";

/// Content of the start record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StartRecord {
    /// Random, made at the first start.
    pub directory_id: [u8; 16],
    /// The cluster that the directory belongs to.
    pub cluster: [u8; 16],
    /// The broker that it belongs to.
    pub broker: BrokerId,
    /// Counts the starts; rounds and checkpoints of lower ones are void.
    pub incarnation: u64,
    /// One random uid per shard of this incarnation.
    pub shard_uids: Vec<u64>,
    /// Whether everything is in segments, manifests and checkpoints, so that no journal need be read.
    pub clean: bool,
}

/// What the directory says of its start record.
#[derive(Debug)]
pub(crate) enum StartRecordFound {
    /// No record: a new directory, or a damaged one; the caller looks for partitions to tell.
    Missing,
    /// Records that cannot be believed.
    Damaged(String),
    /// Written by a newer version.
    Newer(u16),
    /// Sequence of the newer copy, and its content.
    Whole(u64, StartRecord),
}

fn stem(root: &Path) -> PathBuf {
    root.join("start")
}

impl StartRecord {
    fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.put_raw(&self.directory_id);
        out.put_raw(&self.cluster);
        out.put_i32(self.broker.0);
        out.put_u64(self.incarnation);
        out.put_u8(u8::from(self.clean));
        out.put_u32(u32::try_from(self.shard_uids.len()).expect("shards are few"));
        for uid in &self.shard_uids {
            out.put_u64(*uid);
        }
        out.into_bytes()
    }

    fn decode(content: &[u8]) -> Result<Self, FieldError> {
        let mut input = FieldReader::new(content);
        let directory_id = input.take(16, "directory id")?.try_into().unwrap_or_default();
        let cluster = input.take(16, "cluster id")?.try_into().unwrap_or_default();
        let broker = input.broker("broker id")?;
        let incarnation = input.u64("incarnation")?;
        let clean = input.u8("clean")? == 1;
        let count = input.count(8, "shard count")?;
        let mut shard_uids = Vec::with_capacity(count);
        for _ in 0..count {
            shard_uids.push(input.u64("shard uid")?);
        }
        Ok(Self { directory_id, cluster, broker, incarnation, shard_uids, clean })
    }

    /// Reads the record of the directory `root`.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) async fn read(disk: &dyn Disk, root: &Path) -> io::Result<StartRecordFound> {
        let both = BothCopies::read(disk, &stem(root), MAGIC).await?;
        if let Some(version) = both.newer_version() {
            return Ok(StartRecordFound::Newer(version));
        }
        if both.are_missing() {
            return Ok(StartRecordFound::Missing);
        }
        let Some((sequence, content)) = both.newest() else {
            return Ok(StartRecordFound::Damaged(both.damage()));
        };
        Ok(match Self::decode(content) {
            Ok(record) => StartRecordFound::Whole(sequence, record),
            Err(error) => StartRecordFound::Damaged(error.to_string()),
        })
    }

    /// Writes the record as number `sequence`, into the copy whose turn it is, then into the other one, so that
    /// either may rot later.
    ///
    /// # Errors
    /// Of the disk.
    pub(crate) async fn write(
        &self,
        disk: &dyn Disk,
        root: &Path,
        sequence: u64,
    ) -> io::Result<()> {
        let content = self.encode();
        let turn = usize::from(sequence % 2 == 1);
        for which in [turn, 1 - turn] {
            write_copy(disk, &copy_path(&stem(root), which), MAGIC, sequence, &content).await?;
        }
        Ok(())
    }
}
