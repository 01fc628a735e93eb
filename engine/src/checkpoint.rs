//! The checkpoint of a shard (J21): per log the position up to which its segments are synced, and the first
//! round that is still needed.

use std::io;
use std::path::{Path, PathBuf};

use levada_record::{Offset, PartitionId, PartitionUid};

use crate::copies::{BothCopies, copy_path, write_copy};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::fields::{FieldError, FieldReader, FieldWriter};
use crate::journal::layout::Place;
use crate::producers::Producers;
use crate::segment::layout::SegmentName;

const MAGIC: [u8; 4] = *b"LVCP";

/// One log in a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogCheckpoint {
    /// Which partition.
    pub partition: PartitionId,
    /// Its uid.
    pub uid: PartitionUid,
    /// Up to here the segments are synced; `None` while the log has no segment. A batch boundary.
    pub place: Option<Place>,
    /// The offset at `place`.
    pub offset: Offset,
    /// The digest at `place`.
    pub digest: Digest,
    /// What was durable when the checkpoint was taken.
    pub durable_end: Offset,
    /// A lower bound, never above `durable_end`.
    pub high_watermark: Offset,
    /// Newest timestamp in the segment of `place`, as far as it was appended then; -1 when none.
    pub max_timestamp: i64,
    /// The producers as of `durable_end`.
    pub producers: Producers,
}

impl LogCheckpoint {
    /// Of a log that nothing was appended to.
    pub fn empty(partition: PartitionId, uid: PartitionUid) -> Self {
        Self {
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
}

/// Content of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose.
    pub shard_uid: u64,
    /// Of which start.
    pub incarnation: u64,
    /// The lowest round that holds a byte above a position, or a fact that no manifest has yet.
    pub first_needed_round: u64,
    /// Every log of the shard.
    pub logs: Vec<LogCheckpoint>,
}

/// What the directory says of a shard's checkpoint.
#[derive(Debug)]
pub enum CheckpointFound {
    /// Neither copy is whole.
    Lost(String),
    /// Sequence of the newer copy, and its content.
    Whole(u64, Checkpoint),
}

fn stem(shard_directory: &Path, incarnation: u64) -> PathBuf {
    shard_directory.join(format!("checkpoint-{incarnation}"))
}

impl Checkpoint {
    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.put_u64(self.shard_uid);
        out.put_u64(self.incarnation);
        out.put_u64(self.first_needed_round);
        out.put_u32(u32::try_from(self.logs.len()).expect("logs of a shard are counted in u32"));
        for log in &self.logs {
            out.put_partition(log.partition);
            out.put_uid(log.uid);
            out.put_u8(u8::from(log.place.is_some()));
            if let Some(place) = log.place {
                place.segment.put(&mut out);
                out.put_u64(place.byte);
            }
            out.put_offset(log.offset);
            out.put_u64(log.digest.raw());
            out.put_offset(log.durable_end);
            out.put_offset(log.high_watermark);
            out.put_i64(log.max_timestamp);
            log.producers.put(&mut out);
        }
        out.into_bytes()
    }

    /// Reads what [`Checkpoint::encode`] wrote. Total.
    ///
    /// # Errors
    /// [`FieldError`] when the bytes are something else.
    pub fn decode(content: &[u8]) -> Result<Self, FieldError> {
        let mut input = FieldReader::new(content);
        let shard_uid = input.u64("shard uid")?;
        let incarnation = input.u64("incarnation")?;
        let first_needed_round = input.u64("first needed round")?;
        let count = input.count(73, "log count")?;
        let mut logs = Vec::with_capacity(count);
        for _ in 0..count {
            let partition = input.partition("partition")?;
            let uid = input.uid("uid")?;
            let place = if input.u8("has place")? == 1 {
                let segment = SegmentName::take(&mut input)?;
                Some(Place { segment, byte: input.u64("byte")? })
            } else {
                None
            };
            logs.push(LogCheckpoint {
                partition,
                uid,
                place,
                offset: input.offset("offset")?,
                digest: Digest::from_raw(input.u64("digest")?),
                durable_end: input.offset("durable end")?,
                high_watermark: input.offset("high watermark")?,
                max_timestamp: input.i64("newest timestamp")?,
                producers: Producers::take(&mut input)?,
            });
        }
        Ok(Self { shard_uid, incarnation, first_needed_round, logs })
    }

    /// Reads the checkpoint of one shard and incarnation.
    ///
    /// # Errors
    /// Of the disk.
    pub async fn read(
        disk: &dyn Disk,
        shard_directory: &Path,
        incarnation: u64,
    ) -> io::Result<CheckpointFound> {
        let both = BothCopies::read(disk, &stem(shard_directory, incarnation), MAGIC).await?;
        let Some((sequence, content)) = both.newest() else {
            return Ok(CheckpointFound::Lost(both.damage()));
        };
        Ok(match Self::decode(content) {
            Ok(checkpoint) => CheckpointFound::Whole(sequence, checkpoint),
            Err(error) => CheckpointFound::Lost(error.to_string()),
        })
    }

    /// Writes one copy after the other (J16: the ring moves on only when both say so).
    ///
    /// # Errors
    /// Of the disk. The copy written last may be damaged, never both.
    pub async fn write(
        &self,
        disk: &dyn Disk,
        shard_directory: &Path,
        sequence: u64,
    ) -> io::Result<()> {
        let content = self.encode();
        let stem = stem(shard_directory, self.incarnation);
        let turn = usize::from(sequence % 2 == 1);
        for which in [turn, 1 - turn] {
            write_copy(disk, &copy_path(&stem, which), MAGIC, sequence, &content).await?;
        }
        Ok(())
    }

    /// Names of the files of `incarnation`'s checkpoint, for removal.
    pub fn paths(shard_directory: &Path, incarnation: u64) -> [PathBuf; 2] {
        let stem = stem(shard_directory, incarnation);
        [copy_path(&stem, 0), copy_path(&stem, 1)]
    }
}
