//! Records into the bytes of one batch, in either encoding. `[P]`

use crate::checksum::batch_checksum;
use crate::columnar::Columns;
use crate::compression::Compression;
use crate::epoch::{LeaderEpoch, ProducerEpoch};
use crate::header::{
    Attributes, BatchHeader, Encoding, HEADER_BYTES, NO_SEQUENCE, UNCOUNTED_BYTES,
};
use crate::id::ProducerId;
use crate::kafka_v2::RecordParts;
use crate::offset::Offset;
use crate::records::RecordHeader;
use crate::time::Timestamp;

/// Most bytes of a batch that its length field can tell.
pub(crate) const BATCH_BYTES_MAX: usize = i32::MAX as usize;

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
/// An uncompressed batch is built in place: keys and values are copied once, into the batch or into
/// their column.
#[derive(Debug, Clone)]
pub struct BatchBuilder {
    body: Body,
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

#[derive(Debug, Clone)]
enum Body {
    /// Space for the header, then the records.
    Kafka(Vec<u8>),
    Columnar(Box<Columns>),
}

impl Body {
    fn new(encoding: Encoding) -> Self {
        match encoding {
            Encoding::KafkaV2 => Body::Kafka(vec![0; HEADER_BYTES]),
            Encoding::Columnar => Body::Columnar(Box::new(Columns::new())),
        }
    }

    fn encoding(&self) -> Encoding {
        match self {
            Body::Kafka(_) => Encoding::KafkaV2,
            Body::Columnar(_) => Encoding::Columnar,
        }
    }

    fn push(
        &mut self,
        offset_delta: i32,
        timestamp_delta: i64,
        record: &NewRecord<'_>,
    ) -> Result<(), BuildError> {
        match self {
            Body::Kafka(out) => {
                let headers = record.headers.iter().copied();
                let (key, value) = (record.key, record.value);
                let parts = RecordParts { offset_delta, timestamp_delta, key, value, headers };
                let bytes = parts.bytes();
                check_size(out.len().saturating_add(bytes.total))?;
                parts.write(bytes, out);
            }
            Body::Columnar(columns) => {
                check_size(columns.bytes_with(record))?;
                columns.push(offset_delta, timestamp_delta, record);
            }
        }
        Ok(())
    }
}

fn check_size(bytes: usize) -> Result<(), BuildError> {
    if bytes > BATCH_BYTES_MAX { Err(BuildError::TooLarge { bytes }) } else { Ok(()) }
}

impl BatchBuilder {
    /// An empty batch of Kafka's records.
    pub fn new(codec: Compression) -> Self {
        Self::encoded(Encoding::KafkaV2, codec)
    }

    /// An empty batch in that encoding.
    pub fn encoded(encoding: Encoding, codec: Compression) -> Self {
        BatchBuilder {
            body: Body::new(encoding),
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
        match &mut self.body {
            Body::Kafka(out) => out.reserve(bytes),
            Body::Columnar(columns) => columns.reserve(bytes),
        }
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
        self.body.push(offset_delta, timestamp_delta, record)?;
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

    /// How its records are encoded.
    pub fn encoding(&self) -> Encoding {
        self.body.encoding()
    }

    /// Most bytes of the batch without compression, header included; of Kafka's records exactly so
    /// many.
    pub fn uncompressed_bytes(&self) -> usize {
        match &self.body {
            Body::Kafka(out) => out.len(),
            Body::Columnar(columns) => columns.bytes(),
        }
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
        let encoding = self.body.encoding();
        let plain = match self.body {
            Body::Kafka(out) => out,
            Body::Columnar(columns) => columns.finish(),
        };
        let mut bytes = if self.codec == Compression::None {
            plain
        } else {
            let payload_at = encoding.payload_at();
            let payload = plain.get(payload_at..).unwrap_or_default();
            let mut compressed = Vec::with_capacity(payload_at + payload.len() / 2);
            compressed.resize(payload_at, 0);
            self.codec.compress(payload, &mut compressed);
            compressed
        };
        let length_bytes = i32::try_from(bytes.len() - UNCOUNTED_BYTES)
            .map_err(|_| BuildError::TooLarge { bytes: bytes.len() })?;
        let mut header = BatchHeader {
            base_offset: self.base_offset,
            length_bytes,
            leader_epoch: self.leader_epoch,
            encoding,
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
        header.checksum = batch_checksum(&bytes);
        write_header(&mut bytes, &header);
        Ok(bytes)
    }
}

pub(crate) fn write_header(bytes: &mut [u8], header: &BatchHeader) {
    for (byte, encoded) in bytes.iter_mut().zip(header.encode()) {
        *byte = encoded;
    }
}
