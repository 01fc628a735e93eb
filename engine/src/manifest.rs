//! The manifest of a partition (J20): its segments, log start and epoch starts as of some round, in two
//! copies; and `partition.meta`, which says whose directory it is.

use std::io;
use std::path::{Path, PathBuf};

use levada_record::{LeaderEpoch, Offset, PartitionId, PartitionUid};

use crate::copies::{BothCopies, Copy, Writers, copy_path, read_copy, write_copy};
use crate::digest::Digest;
use crate::disk::Disk;
use crate::fields::{FieldError, FieldReader, FieldWriter};
use crate::segment::layout::SegmentName;

const MANIFEST_MAGIC: [u8; 4] = *b"LVMF";
const META_MAGIC: [u8; 4] = *b"LVPM";

/// A sealed segment, as the manifest knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegment {
    /// Which file.
    pub name: SegmentName,
    /// Bytes of batches in it.
    pub length_bytes: u64,
    /// Exclusive end of its offsets.
    pub end: Offset,
    /// The log's digest at its end.
    pub digest: Digest,
    /// Newest record timestamp in it, -1 when none.
    pub max_timestamp: i64,
}

/// Content of a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Facts of rounds of this incarnation up to `through_round` (inclusive) are folded in.
    pub incarnation: u64,
    /// See `incarnation`.
    pub through_round: u64,
    /// First offset kept.
    pub log_start: Offset,
    /// The log's digest at the base of the oldest segment.
    pub base_digest: Digest,
    /// Generation that the next segment gets.
    pub next_generation: u32,
    /// In order of their bases.
    pub sealed: Vec<SealedSegment>,
    /// The segment being filled; `None` when the log was never written.
    pub active: Option<SegmentName>,
    /// Wall time of the first append to the active segment, in milliseconds; 0 when unknown.
    pub active_since_ms: i64,
    /// Where each leader epoch starts, ascending.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
}

impl Manifest {
    /// Of a log that was just created.
    pub fn empty(incarnation: u64, through_round: u64) -> Self {
        Self {
            incarnation,
            through_round,
            log_start: Offset::ZERO,
            base_digest: Digest::EMPTY,
            next_generation: 0,
            sealed: Vec::new(),
            active: None,
            active_since_ms: 0,
            epochs: Vec::new(),
        }
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let small = |n: usize| u32::try_from(n).expect("segments and epochs are counted in u32");
        let mut out = FieldWriter::new();
        out.put_u64(self.incarnation);
        out.put_u64(self.through_round);
        out.put_offset(self.log_start);
        out.put_u64(self.base_digest.raw());
        out.put_u32(self.next_generation);
        out.put_u32(small(self.sealed.len()));
        for segment in &self.sealed {
            segment.name.put(&mut out);
            out.put_u64(segment.length_bytes);
            out.put_offset(segment.end);
            out.put_u64(segment.digest.raw());
            out.put_i64(segment.max_timestamp);
        }
        out.put_u8(u8::from(self.active.is_some()));
        if let Some(active) = self.active {
            active.put(&mut out);
        }
        out.put_i64(self.active_since_ms);
        out.put_u32(small(self.epochs.len()));
        for (epoch, start) in &self.epochs {
            out.put_epoch(*epoch);
            out.put_offset(*start);
        }
        out.into_bytes()
    }

    /// Reads what [`Manifest::encode`] wrote. Total.
    ///
    /// # Errors
    /// [`FieldError`] when the bytes are something else.
    pub fn decode(content: &[u8]) -> Result<Self, FieldError> {
        let mut input = FieldReader::new(content);
        let incarnation = input.u64("incarnation")?;
        let through_round = input.u64("round")?;
        let log_start = input.offset("log start")?;
        let base_digest = Digest::from_raw(input.u64("base digest")?);
        let next_generation = input.u32("next generation")?;
        let count = input.count(44, "segment count")?;
        let mut sealed = Vec::with_capacity(count);
        for _ in 0..count {
            sealed.push(SealedSegment {
                name: SegmentName::take(&mut input)?,
                length_bytes: input.u64("segment length")?,
                end: input.offset("segment end")?,
                digest: Digest::from_raw(input.u64("segment digest")?),
                max_timestamp: input.i64("segment timestamp")?,
            });
        }
        let active =
            if input.u8("has active")? == 1 { Some(SegmentName::take(&mut input)?) } else { None };
        let active_since_ms = input.i64("active since")?;
        let count = input.count(12, "epoch count")?;
        let mut epochs = Vec::with_capacity(count);
        for _ in 0..count {
            epochs.push((input.epoch("epoch")?, input.offset("epoch start")?));
        }
        Ok(Self {
            incarnation,
            through_round,
            log_start,
            base_digest,
            next_generation,
            sealed,
            active,
            active_since_ms,
            epochs,
        })
    }
}

/// What a partition directory says of its manifest.
#[derive(Debug)]
pub enum ManifestFound {
    /// Neither copy exists, or neither is whole (the reason).
    Lost(String),
    /// Sequence of the newer copy, and its content.
    Whole(u64, Manifest),
}

fn stem(directory: &Path) -> PathBuf {
    directory.join("manifest")
}

/// Reads the manifest in a partition's directory.
///
/// # Errors
/// Of the disk.
pub async fn read_manifest(disk: &dyn Disk, directory: &Path) -> io::Result<ManifestFound> {
    let both = BothCopies::read(disk, &stem(directory), MANIFEST_MAGIC).await?;
    let Some((sequence, content)) = both.newest() else {
        return Ok(ManifestFound::Lost(both.damage()));
    };
    Ok(match Manifest::decode(content) {
        Ok(manifest) => ManifestFound::Whole(sequence, manifest),
        Err(error) => ManifestFound::Lost(error.to_string()),
    })
}

/// Writes both copies, one after the other, as number `sequence`.
///
/// # Errors
/// Of the disk.
pub async fn write_manifest(
    disk: &dyn Disk,
    directory: &Path,
    sequence: u64,
    manifest: &Manifest,
) -> io::Result<()> {
    let content = manifest.encode();
    let turn = usize::from(sequence % 2 == 1);
    for which in [turn, 1 - turn] {
        write_copy(disk, &copy_path(&stem(directory), which), MANIFEST_MAGIC, sequence, &content)
            .await?;
    }
    Ok(())
}

/// Name of a partition's directory below `partitions/`.
pub fn directory_name(partition: PartitionId) -> String {
    let topic = u128::from_be_bytes(*partition.topic.as_bytes());
    format!("{topic:032x}-{}", partition.index.0)
}

/// Writes `partition.meta`.
///
/// # Errors
/// Of the disk.
pub async fn write_meta(
    disk: &dyn Disk,
    directory: &Path,
    partition: PartitionId,
    uid: PartitionUid,
) -> io::Result<()> {
    let mut out = FieldWriter::new();
    out.put_partition(partition);
    out.put_uid(uid);
    write_copy(disk, &directory.join("partition.meta"), META_MAGIC, 0, out.bytes()).await
}

/// Reads `partition.meta`: which partition, and its uid.
///
/// # Errors
/// Of the disk; `InvalidData` when the file is missing or damaged.
pub async fn read_meta(
    disk: &dyn Disk,
    directory: &Path,
) -> io::Result<(PartitionId, PartitionUid)> {
    let path = directory.join("partition.meta");
    let copy = read_copy(disk, &path, META_MAGIC, Writers::Dying).await?;
    let damaged = |reason: String| io::Error::new(io::ErrorKind::InvalidData, reason);
    let Copy::Whole { content, .. } = copy else {
        return Err(damaged(format!("partition.meta in {}: {copy:?}", directory.display())));
    };
    let mut input = FieldReader::new(&content);
    let read = |input: &mut FieldReader<'_>| -> Result<_, FieldError> {
        Ok((input.partition("partition")?, input.uid("uid")?))
    };
    read(&mut input).map_err(|error| damaged(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manifest_comes_back_and_cuts_are_refused() {
        let name = |base, generation| SegmentName { base: Offset(base), generation };
        let manifest = Manifest {
            incarnation: 3,
            through_round: 17,
            log_start: Offset(5),
            base_digest: Digest::from_raw(3),
            next_generation: 2,
            sealed: vec![SealedSegment {
                name: name(0, 0),
                length_bytes: 4097,
                end: Offset(12),
                digest: Digest::from_raw(99),
                max_timestamp: -1,
            }],
            active: Some(name(12, 1)),
            active_since_ms: 4,
            epochs: vec![(LeaderEpoch(0), Offset::ZERO)],
        };
        let bytes = manifest.encode();
        assert_eq!(Manifest::decode(&bytes), Ok(manifest));
        for end in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..end]).is_err(), "cut at {end}");
        }
    }
}
