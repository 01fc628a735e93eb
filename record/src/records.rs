//! One record, and the records of a batch one after another, whatever their encoding. `[P]`

use crate::batch::BatchError;
use crate::columnar::{ColumnarHeaders, ColumnarHeadersIter, ColumnarRecords};
use crate::kafka_v2::{KafkaHeaders, KafkaHeadersIter, KafkaRecords};
use crate::offset::Offset;
use crate::time::Timestamp;

/// One record; everything borrowed from the batch or from the buffer it was inflated into.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp: the producer's, or the batch's where the broker decides them.
    pub timestamp: Timestamp,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` deletes the key on compacted topics.
    pub value: Option<&'a [u8]>,
    /// Its headers, in the producer's order, keys possibly more than once.
    pub headers: RecordHeaders<'a>,
}

/// One header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader<'a> {
    /// Its key: UTF-8 by agreement, not checked.
    pub key: &'a [u8],
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, checked when the record was read or the batch verified.
#[derive(Debug, Clone, Copy)]
pub struct RecordHeaders<'a>(HeaderSource<'a>);

#[derive(Debug, Clone, Copy)]
enum HeaderSource<'a> {
    Kafka(KafkaHeaders<'a>),
    Columnar(ColumnarHeaders<'a>),
}

impl<'a> From<KafkaHeaders<'a>> for RecordHeaders<'a> {
    #[inline]
    fn from(headers: KafkaHeaders<'a>) -> Self {
        RecordHeaders(HeaderSource::Kafka(headers))
    }
}

impl<'a> From<ColumnarHeaders<'a>> for RecordHeaders<'a> {
    #[inline]
    fn from(headers: ColumnarHeaders<'a>) -> Self {
        RecordHeaders(HeaderSource::Columnar(headers))
    }
}

impl<'a> RecordHeaders<'a> {
    /// How many there are.
    pub const fn len(self) -> usize {
        match self.0 {
            HeaderSource::Kafka(headers) => headers.len(),
            HeaderSource::Columnar(headers) => headers.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// One after another, in the producer's order.
    pub fn iter(self) -> RecordHeadersIter<'a> {
        RecordHeadersIter(match self.0 {
            HeaderSource::Kafka(headers) => HeaderSteps::Kafka(headers.iter()),
            HeaderSource::Columnar(headers) => HeaderSteps::Columnar(headers.iter()),
        })
    }
}

impl<'a> IntoIterator for RecordHeaders<'a> {
    type Item = RecordHeader<'a>;
    type IntoIter = RecordHeadersIter<'a>;

    fn into_iter(self) -> RecordHeadersIter<'a> {
        self.iter()
    }
}

/// The headers of a record, one after another.
#[derive(Debug, Clone)]
pub struct RecordHeadersIter<'a>(HeaderSteps<'a>);

#[derive(Debug, Clone)]
enum HeaderSteps<'a> {
    Kafka(KafkaHeadersIter<'a>),
    Columnar(ColumnarHeadersIter<'a>),
}

impl<'a> Iterator for RecordHeadersIter<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        match &mut self.0 {
            HeaderSteps::Kafka(headers) => headers.next(),
            HeaderSteps::Columnar(headers) => headers.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.0 {
            HeaderSteps::Kafka(headers) => headers.left(),
            HeaderSteps::Columnar(headers) => headers.left(),
        };
        (left, Some(left))
    }
}

impl ExactSizeIterator for RecordHeadersIter<'_> {}

/// The records of a batch, one after another. Ends after the first error; columns have none, they
/// were checked as a whole.
#[derive(Debug, Clone)]
pub struct Records<'a>(Steps<'a>);

#[derive(Debug, Clone)]
enum Steps<'a> {
    Kafka(KafkaRecords<'a>),
    Columnar(ColumnarRecords<'a>),
}

impl<'a> From<KafkaRecords<'a>> for Records<'a> {
    fn from(records: KafkaRecords<'a>) -> Self {
        Records(Steps::Kafka(records))
    }
}

impl<'a> From<ColumnarRecords<'a>> for Records<'a> {
    fn from(records: ColumnarRecords<'a>) -> Self {
        Records(Steps::Columnar(records))
    }
}

impl Records<'_> {
    /// How many records the batch counts that have not come yet.
    pub fn left(&self) -> u32 {
        match &self.0 {
            Steps::Kafka(records) => records.left(),
            Steps::Columnar(records) => records.left(),
        }
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Steps::Kafka(records) => records.next(),
            Steps::Columnar(records) => records.next().map(Ok),
        }
    }

    /// The encoding is looked at once, not record by record.
    #[inline]
    fn fold<B, F>(self, init: B, mut f: F) -> B
    where
        F: FnMut(B, Self::Item) -> B,
    {
        match self.0 {
            Steps::Kafka(records) => records.fold(init, f),
            Steps::Columnar(records) => records.fold(init, |so_far, record| f(so_far, Ok(record))),
        }
    }
}

/// What a look at all records of a batch found, beside that they are whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Walk {
    /// Greatest timestamp of the producer's, [`Timestamp::NONE`] without records.
    pub(crate) max_timestamp: Timestamp,
    /// First record whose offset delta is not its index.
    pub(crate) first_gap: Option<u32>,
    /// First record with a timestamp outside of the range asked about.
    pub(crate) out_of_range: Option<(u32, Timestamp)>,
}
