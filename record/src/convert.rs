//! Columns into Kafka's records: the only translation there is, for readers that know no columns. `[P]`
//!
//! Offsets, timestamps, headers and the producer's fields stay. The records come uncompressed: who
//! translates pays for inflating once, never for compressing again. Record by record into one buffer,
//! in steps as long as the caller wants to be busy; the checksum grows along.

use crate::batch::{BatchError, BatchView};
use crate::builder::{BATCH_BYTES_MAX, write_header};
use crate::checksum::crc32c_append;
use crate::columnar::ColumnarRecords;
use crate::compression::Compression;
use crate::header::{BatchHeader, CHECKED_FROM, Encoding, HEADER_BYTES, UNCOUNTED_BYTES};
use crate::kafka_v2::RecordParts;
use crate::limits::VerifyLimits;

/// Why a batch cannot be translated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// Its columns cannot be read: compressed columns that nobody looked at when they came.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// It would be longer than the limit.
    #[error("batch of columns at offset {base} exceeds {max_bytes} B as Kafka's records")]
    TooLarge {
        /// Its base offset.
        base: i64,
        /// The limit.
        max_bytes: u32,
    },
}

/// Whether a translation has come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There are more records.
    Working,
    /// All records are translated.
    Done,
}

/// A batch on its way from columns to Kafka's records.
#[derive(Debug)]
pub struct Conversion<'a> {
    header: BatchHeader,
    records: ColumnarRecords<'a>,
    out: Vec<u8>,
    /// Bytes of `out` that `checksum` covers, and those in front of them.
    summed: usize,
    checksum: u32,
    max_bytes: usize,
}

impl<'a> Conversion<'a> {
    /// Begins to translate `batch`, inflated into `scratch` when it is compressed; `None` when it is
    /// in Kafka's records already. The result is held to `max_batch_bytes`.
    ///
    /// # Errors
    /// [`ConvertError::Batch`].
    pub fn begin(
        batch: &BatchView<'a>,
        scratch: &'a mut Vec<u8>,
        limits: VerifyLimits,
    ) -> Result<Option<Conversion<'a>>, ConvertError> {
        let Some(columns) = batch.columns(scratch, limits.max_inflated_bytes)? else {
            return Ok(None);
        };
        let header = BatchHeader {
            encoding: Encoding::KafkaV2,
            attributes: batch.header().attributes.with_codec(Compression::None),
            ..*batch.header()
        };
        let mut out = Vec::with_capacity(batch.bytes().len() + columns.len() * 8);
        out.extend_from_slice(&header.encode());
        Ok(Some(Conversion {
            header,
            records: columns.records(),
            out,
            summed: CHECKED_FROM,
            checksum: 0,
            max_bytes: BATCH_BYTES_MAX.min(limits.max_batch_bytes as usize),
        }))
    }

    /// Translates the next `records`, or those that are left.
    ///
    /// # Errors
    /// [`ConvertError::TooLarge`]; what there is so far is no batch.
    pub fn advance(&mut self, records: u32) -> Result<Progress, ConvertError> {
        for _ in 0..records {
            let Some(raw) = self.records.next_raw() else { break };
            let parts = RecordParts {
                offset_delta: raw.offset_delta,
                timestamp_delta: raw.timestamp_delta,
                key: raw.record.key,
                value: raw.record.value,
                headers: raw.record.headers.iter(),
            };
            let bytes = parts.bytes();
            if self.out.len().saturating_add(bytes.total) > self.max_bytes {
                let max_bytes = u32::try_from(self.max_bytes).unwrap_or(u32::MAX);
                return Err(ConvertError::TooLarge { base: self.header.base_offset.0, max_bytes });
            }
            parts.write(bytes, &mut self.out);
        }
        let new = self.out.get(self.summed..).unwrap_or_default();
        self.checksum = crc32c_append(self.checksum, new);
        self.summed = self.out.len();
        Ok(if self.records.left() == 0 { Progress::Done } else { Progress::Working })
    }

    /// Bytes of the translation so far.
    pub fn bytes(&self) -> usize {
        self.out.len()
    }

    /// The batch in Kafka's records; `None` while [`Conversion::advance`] has not said that it is
    /// done.
    pub fn finish(mut self) -> Option<Vec<u8>> {
        if self.records.left() > 0 || self.summed < HEADER_BYTES {
            return None;
        }
        self.header.length_bytes = i32::try_from(self.out.len() - UNCOUNTED_BYTES).ok()?;
        self.header.checksum = self.checksum;
        write_header(&mut self.out, &self.header);
        Some(self.out)
    }
}

/// The batch in Kafka's records, in one go; `None` when it is in them already.
///
/// # Errors
/// [`ConvertError`].
pub fn to_kafka_v2(
    batch: &BatchView<'_>,
    limits: VerifyLimits,
) -> Result<Option<Vec<u8>>, ConvertError> {
    let mut scratch = Vec::new();
    let Some(mut conversion) = Conversion::begin(batch, &mut scratch, limits)? else {
        return Ok(None);
    };
    while conversion.advance(u32::MAX)? == Progress::Working {}
    Ok(conversion.finish())
}
