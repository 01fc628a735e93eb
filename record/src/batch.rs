//! A batch that has been verified, and the only way to get one. `[P]`
//!
//! [`BatchView::verify`] is the gate between bytes and trust: whatever came from a socket or a disk
//! is a [`BatchView`] afterwards or an error that names the reason.

use crate::checksum::batch_checksum;
use crate::columnar::{COLUMNAR_RECORD_BYTES_MIN, ColumnarError, ColumnarView};
use crate::compression::{Compression, CompressionError};
use crate::header::{
    BatchHeader, DIGEST_BYTES, Encoding, HEADER_BYTES, HeaderError, digest_header_bytes,
};
use crate::kafka_v2::{self, KafkaRecords, RECORD_BYTES_MIN, RecordError};
use crate::limits::VerifyLimits;
use crate::offset::Offset;
use crate::records::{Records, Walk};
use crate::time::TimestampRange;

/// Why bytes are no batch. Every variant is the fault of who sent or kept them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Fewer bytes than a header has.
    #[error("batch of {got_bytes} B is shorter than a header of {HEADER_BYTES} B")]
    TooShort {
        /// How many there are.
        got_bytes: usize,
    },
    /// The header says there are more bytes than there are.
    #[error("batch of {batch_bytes} B is cut off after {got_bytes} B")]
    Truncated {
        /// How many the header says.
        batch_bytes: usize,
        /// How many there are.
        got_bytes: usize,
    },
    /// Something follows the batch, a second one perhaps.
    #[error("{trailing_bytes} B follow the batch of {batch_bytes} B")]
    TrailingBytes {
        /// Bytes of the batch.
        batch_bytes: usize,
        /// Bytes behind it.
        trailing_bytes: usize,
    },
    /// Longer than the limit.
    #[error("batch of {got_bytes} B exceeds {max_bytes} B")]
    TooLarge {
        /// Its length.
        got_bytes: usize,
        /// The limit.
        max_bytes: u32,
    },
    /// Not an encoding that Levada keeps.
    #[error("batch has magic {got}, expected 2 or 76")]
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
    /// The bytes are not those the checksum was made of.
    #[error("batch has checksum {got:#010x}, its header says {expected:#010x}")]
    Checksum {
        /// The checksum in the header.
        expected: u32,
        /// The checksum of the bytes.
        got: u32,
    },
    /// A base offset or last offset delta below 0, or an end that is no offset.
    #[error("batch spans offsets from {base} on with a last offset delta of {last_offset_delta}")]
    Offsets {
        /// The base offset.
        base: Offset,
        /// The last offset delta.
        last_offset_delta: i32,
    },
    /// A count below 0, more records than offsets, or more than their bytes can hold.
    #[error("batch counts {record_count} records with a last offset delta of {last_offset_delta}")]
    Count {
        /// The record count.
        record_count: i32,
        /// The last offset delta.
        last_offset_delta: i32,
    },
    /// A codec that nobody has defined.
    #[error("batch has unknown codec {id}")]
    Codec {
        /// Its number.
        id: u8,
    },
    /// A record is not one.
    #[error("record {index}: {reason}")]
    Record {
        /// Which one, from 0.
        index: u32,
        /// What is wrong with it.
        reason: RecordError,
    },
    /// The columns are not what they must be.
    #[error(transparent)]
    Columnar(#[from] ColumnarError),
    /// The records cannot be inflated.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

impl BatchError {
    /// Whether the bytes may be the beginning of a good batch: a fetch that was cut off at its size
    /// limit ends like this, and so does a torn write.
    pub fn is_cut_off(&self) -> bool {
        matches!(self, BatchError::TooShort { .. } | BatchError::Truncated { .. })
    }
}

impl From<HeaderError> for BatchError {
    fn from(error: HeaderError) -> Self {
        match error {
            HeaderError::TooShort { got_bytes } => BatchError::TooShort { got_bytes },
            HeaderError::Magic { got } => BatchError::Magic { got },
            HeaderError::Length { declared_bytes } => BatchError::Length { declared_bytes },
            HeaderError::Offsets { base, last_offset_delta } => {
                BatchError::Offsets { base, last_offset_delta }
            }
            HeaderError::Count { record_count, last_offset_delta } => {
                BatchError::Count { record_count, last_offset_delta }
            }
        }
    }
}

/// One whole batch whose checksum is right, whose header makes sense and whose records, unless they
/// are compressed, have all been walked.
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    header: BatchHeader,
    codec: Compression,
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Verifies that `bytes` are exactly one batch. Cost: one pass for the checksum and, without
    /// compression, one over the records, of columns one over their ends. Allocates nothing.
    ///
    /// # Errors
    /// [`BatchError`], one variant per reason.
    pub fn verify(bytes: &'a [u8], limits: &VerifyLimits) -> Result<BatchView<'a>, BatchError> {
        let view = Self::verify_frame(bytes, *limits)?;
        view.walk(TimestampRange::ALL)?;
        Ok(view)
    }

    /// All of [`BatchView::verify`] but the records.
    pub(crate) fn verify_frame(
        bytes: &'a [u8],
        limits: VerifyLimits,
    ) -> Result<BatchView<'a>, BatchError> {
        let (view, rest) = Self::split(bytes, limits)?;
        if !rest.is_empty() {
            return Err(BatchError::TrailingBytes {
                batch_bytes: view.bytes.len(),
                trailing_bytes: rest.len(),
            });
        }
        Ok(view)
    }

    /// The batch at the front of `bytes`, its records not looked at, and what follows.
    fn split(
        bytes: &'a [u8],
        limits: VerifyLimits,
    ) -> Result<(BatchView<'a>, &'a [u8]), BatchError> {
        let header = peek_header(bytes)?;
        let batch_bytes = header.total_bytes();
        if batch_bytes > limits.max_batch_bytes as usize {
            let max_bytes = limits.max_batch_bytes;
            return Err(BatchError::TooLarge { got_bytes: batch_bytes, max_bytes });
        }
        let (batch, rest) = bytes
            .split_at_checked(batch_bytes)
            .ok_or(BatchError::Truncated { batch_bytes, got_bytes: bytes.len() })?;
        let got = batch_checksum(batch);
        if got != header.checksum {
            return Err(BatchError::Checksum { expected: header.checksum, got });
        }
        let id = header.attributes.codec_id();
        let codec = header.attributes.codec().ok_or(BatchError::Codec { id })?;
        let view = BatchView { header, codec, bytes: batch };
        view.check_padding()?;
        view.check_count(limits)?;
        Ok((view, rest))
    }

    /// What parts the header from the payload says nothing, and must not.
    fn check_padding(&self) -> Result<(), ColumnarError> {
        let padding = self.bytes.get(HEADER_BYTES..self.header.encoding.payload_at());
        if padding.is_some_and(|padding| padding.iter().all(|byte| *byte == 0)) {
            Ok(())
        } else {
            Err(ColumnarError::Padding)
        }
    }

    /// A count beyond what the bytes can hold is a lie, for compressed batches beyond what they may
    /// inflate to.
    fn check_count(&self, limits: VerifyLimits) -> Result<(), BatchError> {
        let room = match self.codec {
            Compression::None => self.payload().len(),
            _ => limits.max_inflated_bytes as usize,
        };
        let record_bytes_min = match self.header.encoding {
            Encoding::KafkaV2 => RECORD_BYTES_MIN,
            Encoding::Columnar => COLUMNAR_RECORD_BYTES_MIN,
        };
        if self.record_count() as usize > room / record_bytes_min {
            return Err(BatchError::Count {
                record_count: self.header.record_count,
                last_offset_delta: self.header.last_offset_delta,
            });
        }
        Ok(())
    }

    /// Walks the records; `None` when they are compressed.
    pub(crate) fn walk(&self, allowed: TimestampRange) -> Result<Option<Walk>, BatchError> {
        if self.codec != Compression::None {
            return Ok(None);
        }
        self.walk_payload(self.payload(), allowed).map(Some)
    }

    /// Walks the records even when they are compressed.
    pub(crate) fn walk_inflated(
        &self,
        scratch: &mut Vec<u8>,
        max_inflated_bytes: u32,
        allowed: TimestampRange,
    ) -> Result<Walk, BatchError> {
        self.walk_payload(self.inflated(scratch, max_inflated_bytes)?, allowed)
    }

    fn walk_payload(&self, payload: &[u8], allowed: TimestampRange) -> Result<Walk, BatchError> {
        match self.header.encoding {
            Encoding::KafkaV2 => {
                let records = KafkaRecords::new(&self.header, payload);
                kafka_v2::walk(records, |timestamp| allowed.contains(timestamp))
            }
            Encoding::Columnar => Ok(ColumnarView::new(&self.header, payload)?.walk(allowed)?),
        }
    }

    /// The payload without compression: where it is, or inflated into `scratch`.
    fn inflated<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        max_inflated_bytes: u32,
    ) -> Result<&'s [u8], CompressionError>
    where
        'a: 's,
    {
        if self.codec == Compression::None {
            return Ok(self.payload());
        }
        self.codec.decompress_bounded(self.payload(), max_inflated_bytes as usize, scratch)?;
        Ok(scratch)
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: records or columns, or what a codec made of them.
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header.encoding.payload_at()..).unwrap_or_default()
    }

    /// How its records are encoded.
    pub fn encoding(&self) -> Encoding {
        self.header.encoding
    }

    /// How its records are compressed.
    pub fn codec(&self) -> Compression {
        self.codec
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> Offset {
        self.header.base_offset
    }

    /// Offset of the last record (inclusive).
    pub fn last_offset(&self) -> Offset {
        self.header.last_offset()
    }

    /// First offset behind the batch.
    pub fn end_offset(&self) -> Offset {
        self.header.end_offset()
    }

    /// How many records it counts.
    pub fn record_count(&self) -> u32 {
        self.header.record_count.unsigned_abs()
    }

    /// The bytes that enter the digest of its log.
    pub fn digest_input(&self) -> &'a [u8; DIGEST_BYTES] {
        digest_header_bytes(self.bytes).expect("a verified batch begins with a whole header")
    }

    /// The records of an uncompressed batch, `None` of a compressed one.
    pub fn plain_records(&self) -> Option<Records<'a>> {
        if self.codec != Compression::None {
            return None;
        }
        match self.header.encoding {
            Encoding::KafkaV2 => Some(KafkaRecords::new(&self.header, self.payload()).into()),
            // Every way to a view of an uncompressed batch goes through the columns' verification.
            Encoding::Columnar => {
                Some(ColumnarView::new(&self.header, self.payload()).ok()?.records().into())
            }
        }
    }

    /// The records. Those of a compressed batch are inflated into `scratch`, whose old content goes;
    /// those of an uncompressed one are read where they are.
    ///
    /// # Errors
    /// [`BatchError::Compression`] when they cannot be inflated or exceed `max_inflated_bytes`;
    /// [`BatchError::Columnar`] when compressed columns are none.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        max_inflated_bytes: u32,
    ) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        let payload = self.inflated(scratch, max_inflated_bytes)?;
        match self.header.encoding {
            Encoding::KafkaV2 => Ok(KafkaRecords::new(&self.header, payload).into()),
            Encoding::Columnar => Ok(self.columns_of(payload)?.records().into()),
        }
    }

    /// The columns, for a look at any record without the ones before it; `None` of Kafka's records.
    /// Those of a compressed batch are inflated into `scratch`, whose old content goes, and verified.
    ///
    /// # Errors
    /// As [`BatchView::records`].
    pub fn columns<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        max_inflated_bytes: u32,
    ) -> Result<Option<ColumnarView<'s>>, BatchError>
    where
        'a: 's,
    {
        if self.header.encoding != Encoding::Columnar {
            return Ok(None);
        }
        self.columns_of(self.inflated(scratch, max_inflated_bytes)?).map(Some)
    }

    /// The columns in `payload`, which have been looked at before unless they were compressed.
    fn columns_of<'s>(&self, payload: &'s [u8]) -> Result<ColumnarView<'s>, BatchError> {
        let columns = ColumnarView::new(&self.header, payload)?;
        if self.codec != Compression::None {
            columns.walk(TimestampRange::ALL)?;
        }
        Ok(columns)
    }
}

/// The header of the batch at the front of `bytes`: its numbers make sense with each other, but no
/// checksum has been looked at, and the batch need not be whole. For finding one's way through
/// bytes that are verified elsewhere.
///
/// # Errors
/// [`BatchError`]: too short, another magic, or numbers that no batch has.
pub fn peek_header(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
    Ok(BatchHeader::parse(bytes)?)
}

/// Verifies the first of several batches and gives the rest; `None` when `bytes` is empty.
///
/// # Errors
/// As [`BatchView::verify`]. [`BatchError::is_cut_off`] tells the tail of a limited fetch.
pub fn next_batch<'a>(
    bytes: &'a [u8],
    limits: &VerifyLimits,
) -> Result<Option<(BatchView<'a>, &'a [u8])>, BatchError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (view, rest) = BatchView::split(bytes, *limits)?;
    view.walk(TimestampRange::ALL)?;
    Ok(Some((view, rest)))
}

#[cfg(test)]
mod tests;
