//! `[P]` The bytes of a round: header, entry table, payloads, zero padding. Drawn in
//! `docs/formats/storage.md`; rules J3 to J7.
//!
//! | offset | size | field | endianness |
//! |---|---|---|---|
//! | 0 | 4 | magic `LVJR` | - |
//! | 4 | 2 | version, 1 | little |
//! | 6 | 2 | flags, 0 | little |
//! | 8 | 8 | shard uid | little |
//! | 16 | 8 | incarnation | little |
//! | 24 | 8 | round number | little |
//! | 32 | 4 | length of the whole round in bytes, a multiple of the block | little |
//! | 36 | 4 | length of the entry table in bytes | little |
//! | 40 | 4 | number of entries | little |
//! | 44 | 4 | length of all payloads in bytes | little |
//! | 48 | 8 | checksum of the previous round's table | little |
//! | 56 | 8 | checksum of bytes 0..56 and of the table | little |
//! | 64 | | entry table, then payloads in the table's order, then zeros | |

use levada_record::{Offset, PartitionId, PartitionUid};

use crate::digest::Digest;
use crate::fields::{FieldError, FieldReader, FieldWriter, checksum};
use crate::segment::layout::SegmentName;

/// First bytes of a round.
pub const ROUND_MAGIC: [u8; 4] = *b"LVJR";
/// Version of this layout.
pub const ROUND_VERSION: u16 = 1;
/// Bytes before the entry table.
pub const ROUND_HEADER_BYTES: usize = 64;
/// The largest table entry, in bytes.
pub const ENTRY_BYTES_MAX: usize = 96;
/// No segment is longer. Positions stay so far below the end of their type that sums and roundings of them fit.
const SEGMENT_BYTES_MAX: u64 = 1 << 62;

/// A place in a partition's segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Which file.
    pub segment: SegmentName,
    /// Byte in it.
    pub byte: u64,
}

impl Place {
    fn take(input: &mut FieldReader<'_>, field: &'static str) -> Result<Self, FieldError> {
        Ok(Self { segment: SegmentName::take(input)?, byte: take_byte(input, field)? })
    }
}

/// A position in a segment.
fn take_byte(input: &mut FieldReader<'_>, field: &'static str) -> Result<u64, FieldError> {
    let byte = input.u64(field)?;
    if byte > SEGMENT_BYTES_MAX {
        return Err(FieldError::Value { field, got: byte });
    }
    Ok(byte)
}

/// Bytes of one log that a round made durable, from `byte_start` to `byte_end` of one segment.
///
/// The part `through_start..through_end` (empty when equal) stands in the segment itself; the rest is the
/// entry's payload: the bytes before it, then the bytes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendEntry {
    /// Whose bytes.
    pub uid: PartitionUid,
    /// First offset that is new in this round.
    pub first: Offset,
    /// Exclusive end of the offsets; equals the log's end after this entry.
    pub end: Offset,
    /// Which file.
    pub segment: SegmentName,
    /// First byte described; may lie before the first new batch (J11).
    pub byte_start: u64,
    /// Exclusive end; a batch boundary.
    pub byte_end: u64,
    /// First byte written straight to the segment.
    pub through_start: u64,
    /// Exclusive end of the bytes written straight to the segment.
    pub through_end: u64,
    /// The log's digest at `end`.
    pub digest: Digest,
    /// Checksum of the payload.
    pub payload_checksum: u64,
}

impl AppendEntry {
    /// Payload bytes in the journal.
    pub fn payload_bytes(&self) -> u64 {
        (self.through_start - self.byte_start) + (self.byte_end - self.through_end)
    }
}

/// One fact of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Bytes were appended.
    Append(AppendEntry),
    /// The log now ends at `end`; everything behind it is dead.
    Truncate {
        /// Whose log.
        uid: PartitionUid,
        /// The new, exclusive end.
        end: Offset,
        /// Where that is.
        place: Place,
        /// Digest there.
        digest: Digest,
    },
    /// Records below `start` are gone.
    LogStart {
        /// Whose log.
        uid: PartitionUid,
        /// First offset kept.
        start: Offset,
    },
    /// A segment was sealed and a new one begun.
    Roll {
        /// Whose log.
        uid: PartitionUid,
        /// The sealed one and its length.
        sealed: Place,
        /// The log's digest at the sealed segment's end.
        digest: Digest,
        /// The new active one; its base is the sealed one's exclusive end.
        next: SegmentName,
    },
    /// A log was created, empty.
    Created {
        /// Its uid.
        uid: PartitionUid,
        /// Which partition.
        partition: PartitionId,
    },
    /// A log was removed.
    Removed {
        /// Its uid.
        uid: PartitionUid,
    },
}

impl Entry {
    /// Whose fact it is.
    pub fn uid(&self) -> PartitionUid {
        match *self {
            Self::Append(AppendEntry { uid, .. })
            | Self::Truncate { uid, .. }
            | Self::LogStart { uid, .. }
            | Self::Roll { uid, .. }
            | Self::Created { uid, .. }
            | Self::Removed { uid } => uid,
        }
    }

    fn put(&self, out: &mut FieldWriter) {
        match *self {
            Self::Append(entry) => {
                out.put_u8(1);
                out.put_uid(entry.uid);
                out.put_offset(entry.first);
                out.put_offset(entry.end);
                entry.segment.put(out);
                out.put_u64(entry.byte_start);
                out.put_u64(entry.byte_end);
                out.put_u64(entry.through_start);
                out.put_u64(entry.through_end);
                out.put_u64(entry.digest.raw());
                out.put_u64(entry.payload_checksum);
            }
            Self::Truncate { uid, end, place, digest } => {
                out.put_u8(2);
                out.put_uid(uid);
                out.put_offset(end);
                place.segment.put(out);
                out.put_u64(place.byte);
                out.put_u64(digest.raw());
            }
            Self::LogStart { uid, start } => {
                out.put_u8(3);
                out.put_uid(uid);
                out.put_offset(start);
            }
            Self::Roll { uid, sealed, digest, next } => {
                out.put_u8(4);
                out.put_uid(uid);
                sealed.segment.put(out);
                out.put_u64(sealed.byte);
                out.put_u64(digest.raw());
                next.put(out);
            }
            Self::Created { uid, partition } => {
                out.put_u8(5);
                out.put_uid(uid);
                out.put_partition(partition);
            }
            Self::Removed { uid } => {
                out.put_u8(6);
                out.put_uid(uid);
            }
        }
    }

    fn take(input: &mut FieldReader<'_>) -> Result<Self, FieldError> {
        let kind = input.u8("entry kind")?;
        let uid = input.uid("partition uid")?;
        Ok(match kind {
            1 => {
                let entry = AppendEntry {
                    uid,
                    first: input.offset("first offset")?,
                    end: input.offset("end offset")?,
                    segment: SegmentName::take(input)?,
                    byte_start: input.u64("first byte")?,
                    byte_end: take_byte(input, "end byte")?,
                    through_start: input.u64("first byte written through")?,
                    through_end: input.u64("end byte written through")?,
                    digest: Digest::from_raw(input.u64("digest")?),
                    payload_checksum: input.u64("payload checksum")?,
                };
                let ordered = entry.byte_start <= entry.through_start
                    && entry.through_start <= entry.through_end
                    && entry.through_end <= entry.byte_end;
                if !ordered {
                    return Err(FieldError::Value { field: "end byte", got: entry.byte_end });
                }
                Self::Append(entry)
            }
            2 => Self::Truncate {
                uid,
                end: input.offset("end offset")?,
                place: Place::take(input, "byte")?,
                digest: Digest::from_raw(input.u64("digest")?),
            },
            3 => Self::LogStart { uid, start: input.offset("log start")? },
            4 => Self::Roll {
                uid,
                sealed: Place::take(input, "sealed length")?,
                digest: Digest::from_raw(input.u64("digest")?),
                next: SegmentName::take(input)?,
            },
            5 => Self::Created { uid, partition: input.partition("partition")? },
            6 => Self::Removed { uid },
            other => return Err(FieldError::Value { field: "entry kind", got: u64::from(other) }),
        })
    }
}

/// Who writes a round, and which.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundIdentity {
    /// The journal's shard.
    pub shard_uid: u64,
    /// The start of the broker that wrote it.
    pub incarnation: u64,
    /// Number of the round; never repeats within an incarnation.
    pub round: u64,
    /// Checksum of the table of the round before; 0 for the first of an incarnation.
    pub previous: u64,
}

/// Header and table of a round, ready to be followed by `payload_bytes` of payload.
#[derive(Debug)]
pub struct RoundHead {
    /// Header and table.
    pub bytes: Vec<u8>,
    /// Length of the whole round, padded to the block.
    pub length_bytes: usize,
    /// Checksum of header and table, which the next round names.
    pub checksum: u64,
}

/// Bytes that a round of `entries` with `payload_bytes` takes in the journal, at most.
pub fn round_length_bound(entries: usize, payload_bytes: usize, block_bytes: usize) -> usize {
    (ROUND_HEADER_BYTES + entries * ENTRY_BYTES_MAX + payload_bytes).next_multiple_of(block_bytes)
}

/// Builds header and table. The payloads follow in the order of the append entries.
pub fn encode_round(identity: RoundIdentity, entries: &[Entry], block_bytes: usize) -> RoundHead {
    let mut table = FieldWriter::new();
    let mut payload_bytes = 0u64;
    for entry in entries {
        entry.put(&mut table);
        if let Entry::Append(append) = entry {
            payload_bytes += append.payload_bytes();
        }
    }
    let payload_bytes = usize::try_from(payload_bytes).expect("a round is at most a journal file");
    let table = table.into_bytes();
    let length = (ROUND_HEADER_BYTES + table.len() + payload_bytes).next_multiple_of(block_bytes);
    let small = |n: usize| u32::try_from(n).expect("a round is at most a journal file");
    let mut out = FieldWriter::new();
    out.put_raw(&ROUND_MAGIC);
    out.put_u16(ROUND_VERSION);
    out.put_u16(0);
    out.put_u64(identity.shard_uid);
    out.put_u64(identity.incarnation);
    out.put_u64(identity.round);
    out.put_u32(small(length));
    out.put_u32(small(table.len()));
    out.put_u32(small(entries.len()));
    out.put_u32(small(payload_bytes));
    out.put_u64(identity.previous);
    let sum = table_checksum(out.bytes(), &table);
    out.put_u64(sum);
    out.put_raw(&table);
    RoundHead { bytes: out.into_bytes(), length_bytes: length, checksum: sum }
}

fn table_checksum(header: &[u8], table: &[u8]) -> u64 {
    let mut hasher = xxhash_rust::xxh3::Xxh3::new();
    hasher.update(header);
    hasher.update(table);
    hasher.digest()
}

/// A round found in the journal: its table is whole; its payloads were not looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// Who wrote it.
    pub identity: RoundIdentity,
    /// Its facts, each with the position of its payload relative to the round's first byte (0 for those
    /// without).
    pub entries: Vec<(Entry, usize)>,
    /// Length of the whole round in bytes.
    pub length_bytes: usize,
    /// Checksum of header and table.
    pub checksum: u64,
}

/// What stands at a block of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoundAt {
    /// Nothing that claims to be a round of ours.
    Nothing,
    /// A round of this shard and incarnation with a whole table.
    Round(Round),
    /// The header names another shard or incarnation; nothing behind it was looked at, so it may be anything.
    Foreign,
    /// The magic is there; the table is not whole.
    Broken(FieldError),
}

/// Reads the round whose header begins at the front of `bytes`. Total.
pub fn decode_round(bytes: &[u8], shard_uid: u64, incarnation: u64) -> RoundAt {
    if bytes.get(..4) != Some(&ROUND_MAGIC[..]) {
        return RoundAt::Nothing;
    }
    match try_decode(bytes, shard_uid, incarnation) {
        Ok(Some(round)) => RoundAt::Round(round),
        Ok(None) => RoundAt::Foreign,
        Err(error) => RoundAt::Broken(error),
    }
}

/// `None` for another shard's or incarnation's round. It is told before the table is summed up: clients may put what
/// looks like headers into their batches, and each could have the rest of the file read.
fn try_decode(bytes: &[u8], shard_uid: u64, incarnation: u64) -> Result<Option<Round>, FieldError> {
    let mut input = FieldReader::new(bytes);
    input.take(4, "magic")?;
    let version = input.u16("version")?;
    input.u16("flags")?;
    if input.u64("shard uid")? != shard_uid || input.u64("incarnation")? != incarnation {
        return Ok(None);
    }
    let round = input.u64("round")?;
    let length = input.u32("round length")?;
    let table_bytes = input.u32("table length")?;
    let count = input.u32("entry count")?;
    let payload_bytes = input.u32("payload length")?;
    let previous = input.u64("previous checksum")?;
    let expected = input.u64("table checksum")?;
    let table = input.take(usize::try_from(table_bytes).unwrap_or(usize::MAX), "table")?;
    let got = table_checksum(bytes.get(..ROUND_HEADER_BYTES - 8).unwrap_or(&[]), table);
    if got != expected {
        return Err(FieldError::Checksum { got, expected });
    }
    if version != ROUND_VERSION {
        return Err(FieldError::Value { field: "version", got: u64::from(version) });
    }
    let mut rows = FieldReader::new(table);
    let mut entries = Vec::new();
    let mut payload_at = u64::from(table_bytes) + ROUND_HEADER_BYTES as u64;
    for _ in 0..count {
        let entry = Entry::take(&mut rows)?;
        let here = usize::try_from(payload_at).unwrap_or(usize::MAX);
        if let Entry::Append(append) = &entry {
            payload_at = payload_at.saturating_add(append.payload_bytes());
            entries.push((entry, here));
        } else {
            entries.push((entry, 0));
        }
    }
    if rows.remaining() != 0 {
        return Err(FieldError::Value { field: "table length", got: u64::from(table_bytes) });
    }
    let used = ROUND_HEADER_BYTES as u64 + u64::from(table_bytes) + u64::from(payload_bytes);
    if payload_at != used || used > u64::from(length) {
        return Err(FieldError::Value { field: "payload length", got: u64::from(payload_bytes) });
    }
    Ok(Some(Round {
        identity: RoundIdentity { shard_uid, incarnation, round, previous },
        entries,
        length_bytes: usize::try_from(length).unwrap_or(usize::MAX),
        checksum: expected,
    }))
}

/// Checks one payload against its entry.
pub fn payload_is_whole(entry: &AppendEntry, payload: &[u8]) -> bool {
    u64::try_from(payload.len()).is_ok_and(|len| len == entry.payload_bytes())
        && checksum(payload) == entry.payload_checksum
}
