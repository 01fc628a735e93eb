//! Records into the bytes of one batch. `[P]`

use crate::checksum::crc32c;
use crate::compression::Compression;
use crate::epoch::{LeaderEpoch, ProducerEpoch};
use crate::header::{
    Attributes, BatchHeader, CHECKED_FROM, HEADER_BYTES, MAGIC_KAFKA_V2, NO_SEQUENCE,
    UNCOUNTED_BYTES,
};
use crate::id::ProducerId;
use crate::kafka_v2::RecordHeader;
use crate::offset::Offset;
use crate::time::Timestamp;
use crate::varint::{put_varint, put_varlong, varlong_bytes};

/// Most bytes of a batch that its length field can tell.
const BATCH_BYTES_MAX: usize = i32::MAX as usize;

/// A record to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRecord<'a> {
    /// Its timestamp.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers, in this order.
    pub headers: &'a [RecordHeader<'a>],
}

/// Why records do not fit a batch. The builder is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// The batch would be longer than its length field can tell.
    #[error("batch of {bytes} B exceeds {BATCH_BYTES_MAX} B")]
    TooLarge {
        /// How long it would be.
        bytes: usize,
    },
    /// The record's offset delta is not above the one before.
    #[error("offset delta {got} is not above the one before, {previous}")]
    OffsetDelta {
        /// The delta.
        got: i32,
        /// The delta of the record before.
        previous: i32,
    },
    /// No offset delta is left.
    #[error("batch has no offset left")]
    Full,
    /// The record's timestamp is too far from the batch's first.
    #[error("timestamp {got} is out of reach of the batch's first, {base}")]
    Timestamp {
        /// Its timestamp.
        got: Timestamp,
        /// Timestamp of the first record.
        base: Timestamp,
    },
    /// A batch of nothing.
    #[error("batch without records")]
    Empty,
}

/// Collects records and writes one batch.
///
/// The header says base offset 0 and no leader epoch, as producers send it, unless told otherwise.
/// An uncompressed batch is built in place: nothing is copied at the end.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    /// Space for the header, then the records.
    bytes: Vec<u8>,
    codec: Compression,
    attributes: Attributes,
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: i32,
    base_timestamp: Timestamp,
    max_timestamp: Timestamp,
    last_offset_delta: i32,
    record_count: i32,
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new(codec: Compression) -> Self {
        BatchBuilder {
            bytes: vec![0; HEADER_BYTES],
            codec,
            attributes: Attributes::new(codec),
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::NONE,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: NO_SEQUENCE,
            base_timestamp: Timestamp::NONE,
            max_timestamp: Timestamp::NONE,
            last_offset_delta: -1,
            record_count: 0,
        }
    }

    /// Reserves room for `bytes` of records.
    #[must_use]
    pub fn with_capacity(mut self, bytes: usize) -> Self {
        self.bytes.reserve(bytes);
        self
    }

    /// Sets who sends it; `base_sequence` is that of the first record.
    #[must_use]
    pub fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.producer_id = id;
        self.producer_epoch = epoch;
        self.base_sequence = base_sequence;
        self
    }

    /// Makes it part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.attributes = self.attributes.transactional();
        self
    }

    /// Makes it a batch of transaction markers: brokers only.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.attributes = self.attributes.control();
        self
    }

    /// Sets where it goes in the log, for those who know: brokers.
    #[must_use]
    pub fn at(mut self, base: Offset, epoch: LeaderEpoch) -> Self {
        self.base_offset = base;
        self.leader_epoch = epoch;
        self
    }

    /// Appends a record at the next offset.
    ///
    /// # Errors
    /// [`BuildError`]; the batch stays as it was.
    pub fn push(&mut self, record: &NewRecord<'_>) -> Result<(), BuildError> {
        let offset_delta = self.last_offset_delta.checked_add(1).ok_or(BuildError::Full)?;
        self.push_at(offset_delta, record)
    }

    /// Appends a record `offset_delta` offsets behind the base: compacted batches have gaps.
    ///
    /// # Errors
    /// [`BuildError`]; the batch stays as it was.
    pub fn push_at(&mut self, offset_delta: i32, record: &NewRecord<'_>) -> Result<(), BuildError> {
        if offset_delta <= self.last_offset_delta {
            let previous = self.last_offset_delta;
            return Err(BuildError::OffsetDelta { got: offset_delta, previous });
        }
        let base = if self.record_count == 0 { record.timestamp } else { self.base_timestamp };
        let timestamp_delta = record
            .timestamp
            .0
            .checked_sub(base.0)
            .ok_or(BuildError::Timestamp { got: record.timestamp, base })?;
        let body_bytes = body_bytes(offset_delta, timestamp_delta, record);
        let prefix_bytes = length_bytes(Some(body_bytes));
        let bytes = self.bytes.len().saturating_add(prefix_bytes).saturating_add(body_bytes);
        if bytes > BATCH_BYTES_MAX {
            return Err(BuildError::TooLarge { bytes });
        }
        self.bytes.reserve(prefix_bytes + body_bytes);
        write_record(&mut self.bytes, body_bytes, offset_delta, timestamp_delta, record);
        debug_assert_eq!(self.bytes.len(), bytes, "a record was announced with another length");
        self.base_timestamp = base;
        self.max_timestamp = match self.record_count {
            0 => record.timestamp,
            _ => self.max_timestamp.max(record.timestamp),
        };
        self.last_offset_delta = offset_delta;
        self.record_count += 1;
        Ok(())
    }

    /// How many records it holds.
    pub fn record_count(&self) -> u32 {
        self.record_count.unsigned_abs()
    }

    /// Bytes of the batch without compression, header included.
    pub fn uncompressed_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The finished batch.
    ///
    /// # Errors
    /// [`BuildError::Empty`] without records; [`BuildError::TooLarge`] when compression made it grow
    /// past what a batch can be.
    pub fn finish(self) -> Result<Vec<u8>, BuildError> {
        if self.record_count == 0 {
            return Err(BuildError::Empty);
        }
        let mut bytes = if self.codec == Compression::None {
            self.bytes
        } else {
            let records = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
            let mut compressed = Vec::with_capacity(HEADER_BYTES + records.len() / 2);
            compressed.resize(HEADER_BYTES, 0);
            self.codec.compress(records, &mut compressed);
            compressed
        };
        let length_bytes = i32::try_from(bytes.len() - UNCOUNTED_BYTES)
            .map_err(|_| BuildError::TooLarge { bytes: bytes.len() })?;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            length_bytes,
            leader_epoch: self.leader_epoch,
            magic: MAGIC_KAFKA_V2,
            checksum: 0,
            attributes: self.attributes,
            last_offset_delta: self.last_offset_delta,
            base_timestamp: self.base_timestamp,
            max_timestamp: self.max_timestamp,
            producer_id: self.producer_id,
            producer_epoch: self.producer_epoch,
            base_sequence: self.base_sequence,
            record_count: self.record_count,
        };
        write_header(&mut bytes, &header);
        header.checksum = crc32c(bytes.get(CHECKED_FROM..).unwrap_or_default());
        write_header(&mut bytes, &header);
        Ok(bytes)
    }
}

fn write_header(bytes: &mut [u8], header: &BatchHeader) {
    for (byte, encoded) in bytes.iter_mut().zip(header.encode()) {
        *byte = encoded;
    }
}

/// Bytes of a length in front of something `bytes` long, or of the -1 for nothing.
fn length_bytes(bytes: Option<usize>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    length_bytes(bytes.map(<[u8]>::len)) + bytes.map_or(0, <[u8]>::len)
}

fn body_bytes(offset_delta: i32, timestamp_delta: i64, record: &NewRecord<'_>) -> usize {
    let headers: usize = record
        .headers
        .iter()
        .map(|header| nullable_bytes(Some(header.key)) + nullable_bytes(header.value))
        .fold(length_bytes(Some(record.headers.len())), usize::saturating_add);
    [
        1,
        varlong_bytes(timestamp_delta),
        varlong_bytes(i64::from(offset_delta)),
        nullable_bytes(record.key),
        nullable_bytes(record.value),
        headers,
    ]
    .into_iter()
    .fold(0, usize::saturating_add)
}

fn write_record(
    out: &mut Vec<u8>,
    body_bytes: usize,
    offset_delta: i32,
    timestamp_delta: i64,
    record: &NewRecord<'_>,
) {
    put_length(out, body_bytes);
    out.push(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, record.key);
    put_nullable(out, record.value);
    put_length(out, record.headers.len());
    for header in record.headers {
        put_nullable(out, Some(header.key));
        put_nullable(out, header.value);
    }
}

/// `push_at` has held the sum of all lengths against [`BATCH_BYTES_MAX`].
fn put_length(out: &mut Vec<u8>, bytes: usize) {
    put_varlong(out, i64::try_from(bytes).unwrap_or(i64::MAX));
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}
