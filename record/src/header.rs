//! The 61 bytes before the records of a batch: read, written, stamped in place. `[P]`
//! Source: Kafka's record batch, version 2 (KIP-98). All integers are big endian. Both encodings of
//! records have this header; its magic tells which one follows.
//!
//! | offset | size | field | in the checksum |
//! |---|---|---|---|
//! | 0 | 8 | base offset: offset of the first record | no: the leader assigns it |
//! | 8 | 4 | length in bytes of all that follows this field | no |
//! | 12 | 4 | leader epoch | no: the leader stamps it |
//! | 16 | 1 | magic: 2 Kafka's records, 76 columns | no |
//! | 17 | 4 | CRC over bytes 21 to the end: CRC-32C with magic 2, CRC-32 with 76 | no |
//! | 21 | 2 | attributes | yes |
//! | 23 | 4 | last offset delta: last offset minus base offset | yes |
//! | 27 | 8 | base timestamp, ms | yes |
//! | 35 | 8 | max timestamp, ms | yes |
//! | 43 | 8 | producer id, or -1 | yes |
//! | 51 | 2 | producer epoch, or -1 | yes |
//! | 53 | 4 | sequence of the first record, or -1 | yes |
//! | 57 | 4 | record count | yes |

use crate::checksum::batch_checksum;
use crate::compression::Compression;
use crate::epoch::{LeaderEpoch, ProducerEpoch};
use crate::id::ProducerId;
use crate::offset::Offset;
use crate::time::Timestamp;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 61;
/// Leading bytes of a batch that enter the digest of its log: all up to the checksum's end.
pub const DIGEST_BYTES: usize = CHECKED_FROM;
/// The magic of Kafka's own records.
pub const MAGIC_KAFKA_V2: u8 = 2;
/// The magic of columns: an `L`.
pub const MAGIC_COLUMNAR: u8 = 76;
/// Bytes in front of the columns: the header and zeros, so that columns are aligned within a batch.
pub const COLUMNS_AT: usize = HEADER_BYTES.next_multiple_of(size_of::<i64>());
/// Base sequence of a batch whose producer is not idempotent.
pub const NO_SEQUENCE: i32 = -1;

const BASE_OFFSET_AT: usize = 0;
const LENGTH_AT: usize = 8;
const LEADER_EPOCH_AT: usize = 12;
pub(crate) const MAGIC_AT: usize = 16;
const CHECKSUM_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const LAST_OFFSET_DELTA_AT: usize = 23;
const BASE_TIMESTAMP_AT: usize = 27;
const MAX_TIMESTAMP_AT: usize = 35;
const PRODUCER_ID_AT: usize = 43;
const PRODUCER_EPOCH_AT: usize = 51;
const BASE_SEQUENCE_AT: usize = 53;
const RECORD_COUNT_AT: usize = 57;

/// First byte that the checksum covers.
pub(crate) const CHECKED_FROM: usize = ATTRIBUTES_AT;
/// Bytes before those that the length field counts.
pub(crate) const UNCOUNTED_BYTES: usize = LEADER_EPOCH_AT;

const _: () = {
    assert!(LENGTH_AT == BASE_OFFSET_AT + size_of::<i64>());
    assert!(LEADER_EPOCH_AT == LENGTH_AT + size_of::<i32>());
    assert!(MAGIC_AT == LEADER_EPOCH_AT + size_of::<i32>());
    assert!(CHECKSUM_AT == MAGIC_AT + size_of::<u8>());
    assert!(ATTRIBUTES_AT == CHECKSUM_AT + size_of::<u32>());
    assert!(LAST_OFFSET_DELTA_AT == ATTRIBUTES_AT + size_of::<i16>());
    assert!(BASE_TIMESTAMP_AT == LAST_OFFSET_DELTA_AT + size_of::<i32>());
    assert!(MAX_TIMESTAMP_AT == BASE_TIMESTAMP_AT + size_of::<i64>());
    assert!(PRODUCER_ID_AT == MAX_TIMESTAMP_AT + size_of::<i64>());
    assert!(PRODUCER_EPOCH_AT == PRODUCER_ID_AT + size_of::<i64>());
    assert!(BASE_SEQUENCE_AT == PRODUCER_EPOCH_AT + size_of::<i16>());
    assert!(RECORD_COUNT_AT == BASE_SEQUENCE_AT + size_of::<i32>());
    assert!(HEADER_BYTES == RECORD_COUNT_AT + size_of::<i32>());
    assert!(COLUMNS_AT == 64);
    // What a leader stamps is never covered by the checksum.
    assert!(BASE_OFFSET_AT + size_of::<i64>() <= CHECKED_FROM);
    assert!(LEADER_EPOCH_AT + size_of::<i32>() <= CHECKED_FROM);
};

/// What follows the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Encoding {
    /// Kafka's records, one after another; [`crate::kafka_v2`].
    #[default]
    KafkaV2,
    /// Columns over all records; [`crate::columnar`].
    Columnar,
}

impl Encoding {
    /// The encoding with that magic.
    pub const fn from_magic(magic: u8) -> Option<Encoding> {
        match magic {
            MAGIC_KAFKA_V2 => Some(Encoding::KafkaV2),
            MAGIC_COLUMNAR => Some(Encoding::Columnar),
            _ => None,
        }
    }

    /// The magic in the header.
    pub const fn magic(self) -> u8 {
        match self {
            Encoding::KafkaV2 => MAGIC_KAFKA_V2,
            Encoding::Columnar => MAGIC_COLUMNAR,
        }
    }

    /// Where the payload begins: the byte of the batch at which records or columns do.
    pub const fn payload_at(self) -> usize {
        match self {
            Encoding::KafkaV2 => HEADER_BYTES,
            Encoding::Columnar => COLUMNS_AT,
        }
    }

    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Encoding::KafkaV2 => "kafka",
            Encoding::Columnar => "columnar",
        }
    }
}

impl std::fmt::Display for Encoding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Who decides the timestamps of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimestampType {
    /// The producer, record by record.
    #[default]
    CreateTime,
    /// The broker, one for the whole batch: its max timestamp.
    LogAppendTime,
}

/// The attribute bits of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Attributes(pub i16);

impl Attributes {
    /// Bits 0 to 2: the codec.
    const CODEC: i16 = 0b111;
    /// Bit 3: [`TimestampType::LogAppendTime`].
    const LOG_APPEND_TIME: i16 = 1 << 3;
    /// Bit 4: part of a transaction.
    const TRANSACTIONAL: i16 = 1 << 4;
    /// Bit 5: markers of a transaction's end, not records of users.
    const CONTROL: i16 = 1 << 5;
    /// Bit 6: the base timestamp holds the time after which tombstones may go; written by compaction.
    const DELETE_HORIZON: i16 = 1 << 6;
    /// All bits that mean something when a producer sets them.
    const OF_PRODUCERS: i16 =
        Self::CODEC | Self::LOG_APPEND_TIME | Self::TRANSACTIONAL | Self::CONTROL;

    /// Attributes of a batch of users' records.
    pub fn new(codec: Compression) -> Self {
        Attributes(i16::from(codec.id()))
    }

    /// The codec's number, whether or not such a codec exists.
    pub fn codec_id(self) -> u8 {
        self.0.to_be_bytes()[1] & 0b111
    }

    /// The codec, `None` for a number nobody has given a meaning.
    pub fn codec(self) -> Option<Compression> {
        Compression::from_id(self.codec_id())
    }

    /// Who decided the timestamps.
    pub fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether its records are transaction markers.
    pub fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether compaction put a delete horizon into the base timestamp.
    pub fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// The bits no producer has a use for; 0 when there are none.
    pub fn reserved_bits(self) -> i16 {
        self.0 & !Self::OF_PRODUCERS
    }

    /// The same with the timestamps decided by `timestamp_type`.
    #[must_use]
    pub fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Attributes(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Attributes(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// The same with the codec's number.
    #[must_use]
    pub fn with_codec(self, codec: Compression) -> Self {
        Attributes(self.0 & !Self::CODEC | i16::from(codec.id()))
    }

    /// The same as part of a transaction.
    #[must_use]
    pub fn transactional(self) -> Self {
        Attributes(self.0 | Self::TRANSACTIONAL)
    }

    /// The same with transaction markers inside.
    #[must_use]
    pub fn control(self) -> Self {
        Attributes(self.0 | Self::CONTROL)
    }
}

/// Why 61 bytes are no header. Every variant is the sender's fault, or the disk's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Fewer bytes than a header has.
    #[error("batch of {got_bytes} B is shorter than its header of {HEADER_BYTES} B")]
    TooShort {
        /// How many there are.
        got_bytes: usize,
    },
    /// Not an encoding that Levada keeps. 0 and 1 are Kafka's message sets before 0.11.
    #[error("batch has magic {got}, expected {MAGIC_KAFKA_V2} or {MAGIC_COLUMNAR}")]
    Magic {
        /// The magic found.
        got: u8,
    },
    /// The length field is below the rest of a header, or negative.
    #[error("batch declares a length of {declared_bytes} B, below the rest of its header")]
    Length {
        /// The length field.
        declared_bytes: i32,
    },
    /// A base offset or last offset delta below 0, or an end that is no offset.
    #[error("batch spans offsets from {base} on with a last offset delta of {last_offset_delta}")]
    Offsets {
        /// The base offset.
        base: Offset,
        /// The last offset delta.
        last_offset_delta: i32,
    },
    /// A count below 0, or more records than offsets.
    #[error("batch counts {record_count} records with a last offset delta of {last_offset_delta}")]
    Count {
        /// The record count.
        record_count: i32,
        /// The last offset delta.
        last_offset_delta: i32,
    },
}

/// The header of a batch. From [`BatchHeader::parse`] its numbers make sense with each other; the
/// checksum has not been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    /// Offset of the first record.
    pub base_offset: Offset,
    /// Bytes behind the length field: the batch without its first 12 bytes.
    pub length_bytes: i32,
    /// Reign under which the leader appended it.
    pub leader_epoch: LeaderEpoch,
    /// What the payload is.
    pub encoding: Encoding,
    /// CRC over all bytes from the attributes on; which one, the encoding decides.
    pub checksum: u32,
    /// Codec, who decided the timestamps, transaction bits.
    pub attributes: Attributes,
    /// Offset of the last record minus the base offset.
    pub last_offset_delta: i32,
    /// What the records' timestamp deltas are relative to.
    pub base_timestamp: Timestamp,
    /// Greatest timestamp of a record, or the time of the append.
    pub max_timestamp: Timestamp,
    /// The producer, [`ProducerId::NONE`] without idempotence.
    pub producer_id: ProducerId,
    /// Its epoch.
    pub producer_epoch: ProducerEpoch,
    /// Sequence of the first record, [`NO_SEQUENCE`] without idempotence.
    pub base_sequence: i32,
    /// How many records follow; below `last_offset_delta + 1` after compaction.
    pub record_count: i32,
}

impl BatchHeader {
    /// Leading bytes of a batch that enter the digest of its log.
    pub const DIGEST_BYTES: usize = DIGEST_BYTES;

    /// Reads the header at the front of `bytes` and checks that its numbers make sense with each
    /// other. The checksum is not looked at, nor whether the whole batch is there.
    ///
    /// # Errors
    /// [`HeaderError`]: too short, another magic, or lengths, offsets and counts that no batch has.
    pub fn parse(bytes: &[u8]) -> Result<BatchHeader, HeaderError> {
        // The magic first: the old formats share its place, and may be shorter than our header.
        let Some(&magic) = bytes.get(MAGIC_AT) else {
            return Err(HeaderError::TooShort { got_bytes: bytes.len() });
        };
        let encoding = Encoding::from_magic(magic).ok_or(HeaderError::Magic { got: magic })?;
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::TooShort { got_bytes: bytes.len() });
        };
        let header = Self::decode(bytes, encoding);
        header.check()?;
        Ok(header)
    }

    fn decode(b: &[u8; HEADER_BYTES], encoding: Encoding) -> BatchHeader {
        BatchHeader {
            base_offset: Offset(i64::from_be_bytes(field::<BASE_OFFSET_AT, _>(b))),
            length_bytes: i32::from_be_bytes(field::<LENGTH_AT, _>(b)),
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field::<LEADER_EPOCH_AT, _>(b))),
            encoding,
            checksum: u32::from_be_bytes(field::<CHECKSUM_AT, _>(b)),
            attributes: Attributes(i16::from_be_bytes(field::<ATTRIBUTES_AT, _>(b))),
            last_offset_delta: i32::from_be_bytes(field::<LAST_OFFSET_DELTA_AT, _>(b)),
            base_timestamp: Timestamp(i64::from_be_bytes(field::<BASE_TIMESTAMP_AT, _>(b))),
            max_timestamp: Timestamp(i64::from_be_bytes(field::<MAX_TIMESTAMP_AT, _>(b))),
            producer_id: ProducerId(i64::from_be_bytes(field::<PRODUCER_ID_AT, _>(b))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field::<PRODUCER_EPOCH_AT, _>(b))),
            base_sequence: i32::from_be_bytes(field::<BASE_SEQUENCE_AT, _>(b)),
            record_count: i32::from_be_bytes(field::<RECORD_COUNT_AT, _>(b)),
        }
    }

    fn check(&self) -> Result<(), HeaderError> {
        let declared = usize::try_from(self.length_bytes).unwrap_or(0);
        if declared < self.encoding.payload_at() - UNCOUNTED_BYTES {
            return Err(HeaderError::Length { declared_bytes: self.length_bytes });
        }
        let last_offset_delta = self.last_offset_delta;
        let end = self.base_offset.checked_advance(i64::from(last_offset_delta) + 1);
        if self.base_offset < Offset::ZERO || last_offset_delta < 0 || end.is_none() {
            return Err(HeaderError::Offsets { base: self.base_offset, last_offset_delta });
        }
        let record_count = self.record_count;
        if record_count < 0 || i64::from(record_count) > i64::from(last_offset_delta) + 1 {
            return Err(HeaderError::Count { record_count, last_offset_delta });
        }
        Ok(())
    }

    /// The 61 bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut b = [0; HEADER_BYTES];
        put::<BASE_OFFSET_AT, _>(&mut b, self.base_offset.0.to_be_bytes());
        put::<LENGTH_AT, _>(&mut b, self.length_bytes.to_be_bytes());
        put::<LEADER_EPOCH_AT, _>(&mut b, self.leader_epoch.0.to_be_bytes());
        put::<MAGIC_AT, _>(&mut b, self.encoding.magic().to_be_bytes());
        put::<CHECKSUM_AT, _>(&mut b, self.checksum.to_be_bytes());
        put::<ATTRIBUTES_AT, _>(&mut b, self.attributes.0.to_be_bytes());
        put::<LAST_OFFSET_DELTA_AT, _>(&mut b, self.last_offset_delta.to_be_bytes());
        put::<BASE_TIMESTAMP_AT, _>(&mut b, self.base_timestamp.0.to_be_bytes());
        put::<MAX_TIMESTAMP_AT, _>(&mut b, self.max_timestamp.0.to_be_bytes());
        put::<PRODUCER_ID_AT, _>(&mut b, self.producer_id.0.to_be_bytes());
        put::<PRODUCER_EPOCH_AT, _>(&mut b, self.producer_epoch.0.to_be_bytes());
        put::<BASE_SEQUENCE_AT, _>(&mut b, self.base_sequence.to_be_bytes());
        put::<RECORD_COUNT_AT, _>(&mut b, self.record_count.to_be_bytes());
        b
    }

    /// Bytes of the whole batch, header included.
    pub fn total_bytes(&self) -> usize {
        usize::try_from(self.length_bytes).unwrap_or(0) + UNCOUNTED_BYTES
    }

    /// Offset of the last record (inclusive).
    pub fn last_offset(&self) -> Offset {
        self.base_offset.advance(self.last_offset_delta)
    }

    /// First offset behind the batch.
    pub fn end_offset(&self) -> Offset {
        self.base_offset.advance(i64::from(self.last_offset_delta) + 1)
    }

    /// Sequence of the last record, `None` without idempotence. Sequences wrap from 2^31 - 1 to 0.
    pub fn last_sequence(&self) -> Option<i32> {
        if !self.producer_id.is_some() || self.base_sequence < 0 {
            return None;
        }
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(sum % (i64::from(i32::MAX) + 1)).ok()
    }
}

/// The bytes of a batch that enter the digest of its log: [`DIGEST_BYTES`] from the front, so base
/// offset, length, leader epoch, magic and checksum. `None` when there are fewer.
pub fn digest_header_bytes(batch: &[u8]) -> Option<&[u8; DIGEST_BYTES]> {
    batch.first_chunk()
}

/// Writes base offset and leader epoch into a verified batch. Its checksum stays right: both lie
/// outside. Asserts that `batch` has a header.
pub fn stamp(batch: &mut [u8], base: Offset, epoch: LeaderEpoch) {
    let header = header_mut(batch);
    put::<BASE_OFFSET_AT, _>(header, base.0.to_be_bytes());
    put::<LEADER_EPOCH_AT, _>(header, epoch.0.to_be_bytes());
}

/// Marks a verified batch as timed by the broker: attribute bit 3, max timestamp `now`, and the
/// checksum that follows. Base timestamp and deltas stay, as in Kafka; readers ignore them then.
/// Reads the whole batch once. Asserts that `batch` has a header.
pub fn rewrite_log_append_time(batch: &mut [u8], now: Timestamp) {
    let header = header_mut(batch);
    let attributes = Attributes(i16::from_be_bytes(field::<ATTRIBUTES_AT, _>(header)))
        .with_timestamp_type(TimestampType::LogAppendTime);
    put::<ATTRIBUTES_AT, _>(header, attributes.0.to_be_bytes());
    rewrite_max_timestamp(batch, now);
}

/// Corrects the max timestamp of a verified batch and its checksum. Reads the whole batch once.
/// Asserts that `batch` has a header.
pub fn rewrite_max_timestamp(batch: &mut [u8], max_timestamp: Timestamp) {
    put::<MAX_TIMESTAMP_AT, _>(header_mut(batch), max_timestamp.0.to_be_bytes());
    let checksum = batch_checksum(batch);
    put::<CHECKSUM_AT, _>(header_mut(batch), checksum.to_be_bytes());
}

fn header_mut(batch: &mut [u8]) -> &mut [u8; HEADER_BYTES] {
    let got_bytes = batch.len();
    match batch.first_chunk_mut() {
        Some(header) => header,
        None => panic!("{got_bytes} B are no verified batch: the header has {HEADER_BYTES} B"),
    }
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "the const assertion proves the range")]
fn field<const AT: usize, const N: usize>(header: &[u8; HEADER_BYTES]) -> [u8; N] {
    const { assert!(AT + N <= HEADER_BYTES) };
    let mut bytes = [0; N];
    bytes.copy_from_slice(&header[AT..AT + N]);
    bytes
}

#[inline]
#[expect(clippy::indexing_slicing, reason = "the const assertion proves the range")]
fn put<const AT: usize, const N: usize>(header: &mut [u8; HEADER_BYTES], bytes: [u8; N]) {
    const { assert!(AT + N <= HEADER_BYTES) };
    header[AT..AT + N].copy_from_slice(&bytes);
}

#[cfg(test)]
mod tests;
