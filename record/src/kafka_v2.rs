//! Kafka's records, version 2: read out of verified batches, built into new ones. `[P]`
//!
//! A record is: length (varint, of what follows), attributes (1 byte, unused), timestamp delta
//! (varlong), offset delta (varint), key, value (each a varint length, -1 for null, and the bytes),
//! header count (varint), headers (key, value). Varints are zigzag.

use crate::batch::BatchError;
use crate::header::{BatchHeader, TimestampType};
use crate::offset::Offset;
use crate::records::{Record, RecordHeader, Walk};
use crate::time::Timestamp;
use crate::varint::Cursor;

mod writer;

pub(crate) use writer::RecordParts;

/// Fewest bytes of a record: six varints and an attribute byte.
pub const RECORD_BYTES_MIN: usize = 7;
/// Fewest bytes of a header of a record: two lengths.
const RECORD_HEADER_BYTES_MIN: usize = 2;

/// Why bytes are no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It needs more bytes than there are.
    #[error("record runs past the end of its bytes")]
    Truncated,
    /// A varint longer than its type.
    #[error("varint exceeds its type")]
    Varint,
    /// A length below zero where there is no null.
    #[error("length of {declared} B")]
    Length {
        /// The length.
        declared: i32,
    },
    /// A header count below zero, or above what the bytes can hold.
    #[error("count of {declared} headers")]
    HeaderCount {
        /// The count.
        declared: i32,
    },
    /// The record is longer than its parts.
    #[error("{bytes} B left over")]
    LeftOver {
        /// How many bytes belong to nothing.
        bytes: usize,
    },
    /// Offset deltas do not rise, or leave the batch.
    #[error("offset delta {got} after {previous}, last of the batch {last}")]
    OffsetDelta {
        /// The delta.
        got: i32,
        /// The delta of the record before, -1 for the first.
        previous: i32,
        /// Last offset delta of the batch.
        last: i32,
    },
    /// Base timestamp and delta add up to no timestamp.
    #[error("timestamp delta of {delta} ms leaves the range")]
    TimestampDelta {
        /// The delta.
        delta: i64,
    },
}

impl<'a> RecordHeader<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, RecordError> {
        let key = cursor.nullable()?.ok_or(RecordError::Length { declared: -1 })?;
        let value = cursor.nullable()?;
        Ok(RecordHeader { key, value })
    }
}

/// The headers of a record, checked when the record was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KafkaHeaders<'a> {
    bytes: Cursor<'a>,
    count: u32,
}

impl<'a> KafkaHeaders<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, RecordError> {
        let declared = cursor.varint()?;
        let refuse = RecordError::HeaderCount { declared };
        let count = u32::try_from(declared).map_err(|_| refuse)?;
        if usize::try_from(declared).map_err(|_| refuse)?
            > cursor.rest().len() / RECORD_HEADER_BYTES_MIN
        {
            return Err(refuse);
        }
        let headers = KafkaHeaders { bytes: *cursor, count };
        for _ in 0..count {
            RecordHeader::read(cursor)?;
        }
        Ok(headers)
    }
}

impl<'a> KafkaHeaders<'a> {
    pub(crate) const fn len(self) -> usize {
        self.count as usize
    }

    pub(crate) fn iter(self) -> KafkaHeadersIter<'a> {
        KafkaHeadersIter { bytes: self.bytes, left: self.count }
    }
}

/// The headers of a record, one after another.
#[derive(Debug, Clone)]
pub(crate) struct KafkaHeadersIter<'a> {
    bytes: Cursor<'a>,
    left: u32,
}

impl KafkaHeadersIter<'_> {
    pub(crate) fn left(&self) -> usize {
        self.left as usize
    }
}

impl<'a> Iterator for KafkaHeadersIter<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        self.left = self.left.checked_sub(1)?;
        RecordHeader::read(&mut self.bytes).ok()
    }
}

/// The records of a batch, one after another. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct KafkaRecords<'a> {
    cursor: Cursor<'a>,
    base_offset: Offset,
    base_timestamp: Timestamp,
    /// The timestamp of all records, where the broker decides them.
    append_time: Option<Timestamp>,
    last_offset_delta: i32,
    previous_delta: i32,
    index: u32,
    count: u32,
    failed: bool,
}

impl<'a> KafkaRecords<'a> {
    /// The records of the batch with this header, `bytes` being all behind it, inflated.
    pub(crate) fn new(header: &BatchHeader, bytes: &'a [u8]) -> Self {
        let append_time = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        KafkaRecords {
            cursor: Cursor::new(bytes),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
            last_offset_delta: header.last_offset_delta,
            previous_delta: -1,
            index: 0,
            count: u32::try_from(header.record_count).unwrap_or(0),
            failed: false,
        }
    }

    /// How many records the batch counts that have not come yet.
    pub(crate) fn left(&self) -> u32 {
        self.count - self.index
    }

    /// The next record with its offset delta and the producer's own timestamp.
    #[inline]
    fn read(&mut self) -> Result<(i32, Timestamp, Record<'a>), RecordError> {
        let declared = self.cursor.varint()?;
        let bytes = usize::try_from(declared).map_err(|_| RecordError::Length { declared })?;
        let mut body = Cursor::new(self.cursor.take(bytes)?);
        body.byte()?; // Attributes of a record: none are defined, as in Kafka they are not looked at.
        let delta = body.varlong()?;
        let created = self
            .base_timestamp
            .0
            .checked_add(delta)
            .map(Timestamp)
            .ok_or(RecordError::TimestampDelta { delta })?;
        let offset_delta = body.varint()?;
        if offset_delta <= self.previous_delta || offset_delta > self.last_offset_delta {
            return Err(RecordError::OffsetDelta {
                got: offset_delta,
                previous: self.previous_delta,
                last: self.last_offset_delta,
            });
        }
        let key = body.nullable()?;
        let value = body.nullable()?;
        let headers = KafkaHeaders::read(&mut body)?;
        if !body.is_empty() {
            return Err(RecordError::LeftOver { bytes: body.rest().len() });
        }
        let offset = self.base_offset.advance(offset_delta);
        let timestamp = self.append_time.unwrap_or(created);
        Ok((
            offset_delta,
            created,
            Record { offset, timestamp, key, value, headers: headers.into() },
        ))
    }

    /// The next record and the producer's timestamp of it, or the error that ends the batch.
    #[inline]
    fn advance(&mut self) -> Option<Result<(i32, Timestamp, Record<'a>), BatchError>> {
        if self.failed {
            return None;
        }
        let index = self.index;
        let read = if index < self.count {
            self.read()
        } else if self.cursor.is_empty() {
            return None;
        } else {
            Err(RecordError::LeftOver { bytes: self.cursor.rest().len() })
        };
        match read {
            Ok((delta, created, record)) => {
                self.previous_delta = delta;
                self.index += 1;
                Some(Ok((delta, created, record)))
            }
            Err(reason) => {
                self.failed = true;
                Some(Err(BatchError::Record { index, reason }))
            }
        }
    }
}

impl<'a> Iterator for KafkaRecords<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some(self.advance()?.map(|(_, _, record)| record))
    }
}

/// Reads every record once. `in_range` is asked about the producer's timestamp of each, where there
/// is one.
pub(crate) fn walk(
    mut records: KafkaRecords<'_>,
    in_range: impl Fn(Timestamp) -> bool,
) -> Result<Walk, BatchError> {
    let mut found = Walk { max_timestamp: Timestamp::NONE, first_gap: None, out_of_range: None };
    let mut index: u32 = 0;
    while let Some(next) = records.advance() {
        let (delta, created, _) = next?;
        found.max_timestamp = if index == 0 { created } else { found.max_timestamp.max(created) };
        if found.first_gap.is_none() && i64::from(delta) != i64::from(index) {
            found.first_gap = Some(index);
        }
        if found.out_of_range.is_none() && created.is_some() && !in_range(created) {
            found.out_of_range = Some((index, created));
        }
        index += 1;
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
