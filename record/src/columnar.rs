//! Records as columns: what a batch of magic 76 holds behind its header. `[P]`
//!
//! The payload is one FlatBuffers table, `schema/batch.fbs`. It is verified once, column by column,
//! and never decoded: a record is a few slices of the received bytes. Looking into a column costs
//! bounds that are checked again, so bytes that nobody verified give wrong records, never a panic.
//!
//! Numbers are little endian and lie wherever the batch was received, aligned or not: columns are
//! read as `[u8; N]`, which costs nothing on the machines we run on.

use crate::generated::batch::levada::record as fbs;
use crate::header::{BatchHeader, TimestampType};
use crate::offset::Offset;
use crate::records::{Record, RecordHeader, Walk};
use crate::time::{Timestamp, TimestampRange};

mod builder;

pub(crate) use builder::Columns;

/// Fewest bytes of a record: the end of its value.
pub const COLUMNAR_RECORD_BYTES_MIN: usize = size_of::<u32>();

/// Why bytes are no columns. Every variant is the fault of who sent or kept them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ColumnarError {
    /// Something other than zeros between header and columns, or nothing at all.
    #[error("header and columns are not parted by zeros")]
    Padding,
    /// Not a table of the schema.
    #[error("columns are no FlatBuffers table: {reason}")]
    Table {
        /// What the verifier says.
        reason: String,
    },
    /// A column that makes no sense without another one.
    #[error("column {column} is missing")]
    Missing {
        /// Its name in the schema.
        column: &'static str,
    },
    /// A column with more or fewer entries than it must have.
    #[error("column {column} has {got} entries, expected {expected}")]
    Count {
        /// Its name in the schema.
        column: &'static str,
        /// How many there are.
        got: usize,
        /// One per record, per header, or per eight of them in a bitmap.
        expected: usize,
    },
    /// An end before the one in front of it.
    #[error("column {column} falls behind entry {index}")]
    EndsFall {
        /// Its name in the schema.
        column: &'static str,
        /// The entry whose successor is smaller.
        index: usize,
    },
    /// The last end is not the end of the bytes.
    #[error("column {column} ends at {got}, its bytes at {expected}")]
    LastEnd {
        /// Its name in the schema.
        column: &'static str,
        /// The last end.
        got: usize,
        /// How many bytes, or headers, there are.
        expected: usize,
    },
    /// A null that has bytes, or a bit behind the last entry.
    #[error("column {column} marks entry {index}, which is no null")]
    Null {
        /// Its name in the schema.
        column: &'static str,
        /// The entry.
        index: usize,
    },
    /// Offset deltas that do not rise, or leave the batch.
    #[error("offset deltas do not rise from 0 to {last}")]
    OffsetDeltas {
        /// Last offset delta of the batch.
        last: i32,
    },
    /// Base timestamp and a delta add up to no timestamp.
    #[error("timestamp delta of {delta} ms leaves the range")]
    TimestampDelta {
        /// The delta.
        delta: i64,
    },
}

/// Byte strings in a row, cut by their ends.
#[derive(Debug, Clone, Copy)]
struct Column<'a> {
    ends: &'a [[u8; 4]],
    bytes: &'a [u8],
    nulls: Option<&'a [u8]>,
}

/// Names of the three parts of a [`Column`], for errors.
struct Names {
    ends: &'static str,
    bytes: &'static str,
    nulls: &'static str,
}

const VALUES: Names = Names { ends: "value_ends", bytes: "values", nulls: "value_nulls" };
const KEYS: Names = Names { ends: "key_ends", bytes: "keys", nulls: "key_nulls" };
const HEADER_KEYS: Names = Names { ends: "header_key_ends", bytes: "header_keys", nulls: "" };
const HEADER_VALUES: Names =
    Names { ends: "header_value_ends", bytes: "header_values", nulls: "header_value_nulls" };

/// A FlatBuffers vector of numbers, as bytes.
type Numbers<'a, T> = flatbuffers::Vector<'a, T>;

fn wide<const N: usize, T>(vector: Numbers<'_, T>) -> &[[u8; N]] {
    vector.bytes().as_chunks().0
}

impl<'a> Column<'a> {
    fn new(
        ends: Numbers<'a, u32>,
        bytes: Numbers<'a, u8>,
        nulls: Option<Numbers<'a, u8>>,
    ) -> Column<'a> {
        Column { ends: wide(ends), bytes: bytes.bytes(), nulls: nulls.map(|nulls| nulls.bytes()) }
    }

    /// Entry `index`, which begins at `start`, and where it ends.
    #[inline]
    fn cut(&self, index: usize, start: usize) -> (Option<&'a [u8]>, usize) {
        let end = self.ends.get(index).map_or(start, |end| u32::from_le_bytes(*end) as usize);
        let entry = match self.nulls {
            Some(nulls) if is_set(nulls, index) => None,
            _ => Some(self.bytes.get(start..end).unwrap_or_default()),
        };
        (entry, end)
    }

    /// Where entry `index` begins.
    #[inline]
    fn start(&self, index: usize) -> usize {
        let before = index.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |end| u32::from_le_bytes(*end) as usize)
    }

    #[inline]
    fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.cut(index, self.start(index)).0
    }

    /// One comparison per entry, without a branch in it, and one look at each bit of the nulls.
    fn check(&self, count: usize, names: &Names) -> Result<(), ColumnarError> {
        check_count(self.ends.len(), count, names.ends)?;
        check_ends(self.ends, self.bytes.len(), names.ends)?;
        let Some(nulls) = self.nulls else { return Ok(()) };
        check_count(nulls.len(), count.div_ceil(8), names.nulls)?;
        let has_bytes = |index: &usize| self.start(*index) != self.cut(*index, 0).1;
        let is_wrong =
            |index: &usize| is_set(nulls, *index) && (*index >= count || has_bytes(index));
        match (0..nulls.len() * 8).find(is_wrong) {
            Some(index) => Err(ColumnarError::Null { column: names.nulls, index }),
            None => Ok(()),
        }
    }
}

#[inline]
fn is_set(bits: &[u8], index: usize) -> bool {
    bits.get(index / 8).is_some_and(|byte| byte >> (index % 8) & 1 == 1)
}

fn check_count(got: usize, expected: usize, column: &'static str) -> Result<(), ColumnarError> {
    if got == expected { Ok(()) } else { Err(ColumnarError::Count { column, got, expected }) }
}

fn check_ends(
    ends: &[[u8; 4]],
    expected: usize,
    column: &'static str,
) -> Result<(), ColumnarError> {
    let number = |end: &[u8; 4]| u32::from_le_bytes(*end);
    let pairs = || ends.iter().zip(ends.get(1..).unwrap_or_default());
    // All pairs are looked at, so that the compiler may take many at a time.
    let falls = pairs().fold(0, |falls, (end, next)| falls | u32::from(number(next) < number(end)));
    if falls != 0 {
        let index = pairs().position(|(end, next)| number(next) < number(end)).unwrap_or(0);
        return Err(ColumnarError::EndsFall { column, index });
    }
    let got = ends.last().map_or(0, number) as usize;
    if got == expected { Ok(()) } else { Err(ColumnarError::LastEnd { column, got, expected }) }
}

/// The records of one columnar batch, in place: all of them are one look away.
#[derive(Debug, Clone, Copy)]
pub struct ColumnarView<'a> {
    table: fbs::Batch<'a>,
    values: Column<'a>,
    keys: Option<Column<'a>>,
    timestamp_deltas: Option<&'a [[u8; 8]]>,
    offset_deltas: Option<&'a [[u8; 4]]>,
    header_ends: Option<&'a [[u8; 4]]>,
    base_offset: Offset,
    base_timestamp: Timestamp,
    /// The timestamp of all records, where the broker decides them.
    append_time: Option<Timestamp>,
    last_offset_delta: i32,
    count: u32,
}

impl<'a> ColumnarView<'a> {
    /// The columns in `payload`, inflated. Verifies the table, not what is in its columns.
    pub(crate) fn new(
        header: &BatchHeader,
        payload: &'a [u8],
    ) -> Result<ColumnarView<'a>, ColumnarError> {
        // One table without strings: depth and number of tables cannot be exceeded.
        let table = flatbuffers::root::<fbs::Batch<'_>>(payload)
            .map_err(|error| ColumnarError::Table { reason: error.to_string() })?;
        let keys = match (table.key_ends(), table.keys()) {
            (Some(ends), Some(keys)) => Some(Column::new(ends, keys, table.key_nulls())),
            (None, None) => None,
            (None, Some(_)) => return Err(ColumnarError::Missing { column: KEYS.ends }),
            (Some(_), None) => return Err(ColumnarError::Missing { column: KEYS.bytes }),
        };
        let append_time = match header.attributes.timestamp_type() {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(header.max_timestamp),
        };
        Ok(ColumnarView {
            table,
            values: Column::new(table.value_ends(), table.values(), table.value_nulls()),
            keys,
            timestamp_deltas: table.timestamp_deltas().map(wide),
            offset_deltas: table.offset_deltas().map(wide),
            header_ends: table.header_ends().map(wide),
            base_offset: header.base_offset,
            base_timestamp: header.base_timestamp,
            append_time,
            last_offset_delta: header.last_offset_delta,
            count: header.record_count.unsigned_abs(),
        })
    }

    /// How many records.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Value of record `index`; `None` when it is null, or not there.
    #[inline]
    pub fn value(&self, index: usize) -> Option<&'a [u8]> {
        if index < self.len() { self.values.get(index) } else { None }
    }

    /// Key of record `index`; `None` when it is null, or not there.
    #[inline]
    pub fn key(&self, index: usize) -> Option<&'a [u8]> {
        if index < self.len() { self.keys?.get(index) } else { None }
    }

    /// All values, one after another; a null is `None`.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Option<&'a [u8]>> + use<'a> {
        let Column { ends, bytes, nulls } = self.values;
        let mut start = 0;
        let ends = ends.get(..self.len()).unwrap_or(ends).iter().enumerate();
        ends.map(move |(index, end)| {
            let end = u32::from_le_bytes(*end) as usize;
            let value = bytes.get(start..end).unwrap_or_default();
            start = end;
            match nulls {
                Some(nulls) if is_set(nulls, index) => None,
                _ => Some(value),
            }
        })
    }

    /// Record `index`, from 0, whatever its offset; `None` behind the last.
    pub fn record(&self, index: usize) -> Option<Record<'a>> {
        let index = u32::try_from(index).ok()?;
        self.records_from(index).next()
    }

    /// All records, one after another.
    pub fn records(&self) -> ColumnarRecords<'a> {
        self.records_from(0)
    }

    fn records_from(&self, first: u32) -> ColumnarRecords<'a> {
        let index = first as usize;
        let header_start = index.checked_sub(1).and_then(|before| self.header_ends?.get(before));
        ColumnarRecords {
            view: *self,
            index: first.min(self.count),
            value_start: self.values.start(index),
            key_start: self.keys.map_or(0, |keys| keys.start(index)),
            header_start: header_start.map_or(0, |end| u32::from_le_bytes(*end)),
        }
    }

    /// Whether records differ in nothing but offset and value.
    fn has_values_only(&self) -> bool {
        self.values.nulls.is_none()
            && self.keys.is_none()
            && self.timestamp_deltas.is_none()
            && self.offset_deltas.is_none()
            && self.header_ends.is_none()
    }

    #[inline]
    fn timestamp_delta(&self, index: usize) -> i64 {
        let delta = self.timestamp_deltas.and_then(|deltas| deltas.get(index));
        delta.map_or(0, |delta| i64::from_le_bytes(*delta))
    }

    #[inline]
    fn offset_delta(&self, index: u32) -> i32 {
        match self.offset_deltas {
            None => index.cast_signed(),
            Some(deltas) => {
                deltas.get(index as usize).map_or(0, |delta| i32::from_le_bytes(*delta))
            }
        }
    }

    /// Verifies every column. Cost: a few comparisons per record, most of them many at a time.
    pub(crate) fn walk(&self, allowed: TimestampRange) -> Result<Walk, ColumnarError> {
        let count = self.len();
        self.values.check(count, &VALUES)?;
        match &self.keys {
            Some(keys) => keys.check(count, &KEYS)?,
            None if self.table.key_nulls().is_some() => {
                return Err(ColumnarError::Missing { column: KEYS.ends });
            }
            None => {}
        }
        self.check_headers()?;
        let first_gap = self.check_offsets()?;
        let (max_timestamp, out_of_range) = self.check_timestamps(allowed)?;
        Ok(Walk { max_timestamp, first_gap, out_of_range })
    }

    fn check_headers(&self) -> Result<(), ColumnarError> {
        let table = &self.table;
        let parts = [
            ("header_ends", table.header_ends().is_some()),
            (HEADER_KEYS.ends, table.header_key_ends().is_some()),
            (HEADER_KEYS.bytes, table.header_keys().is_some()),
            (HEADER_VALUES.ends, table.header_value_ends().is_some()),
            (HEADER_VALUES.bytes, table.header_values().is_some()),
        ];
        if parts.iter().all(|(_, is_there)| !is_there) && table.header_value_nulls().is_none() {
            return Ok(());
        }
        if let Some((column, _)) = parts.into_iter().find(|(_, is_there)| !is_there) {
            return Err(ColumnarError::Missing { column });
        }
        let Some((ends, HeaderColumns { keys, values })) =
            self.header_ends.zip(HeaderColumns::of(table))
        else {
            return Ok(());
        };
        check_count(ends.len(), self.len(), "header_ends")?;
        check_ends(ends, keys.ends.len(), "header_ends")?;
        keys.check(keys.ends.len(), &HEADER_KEYS)?;
        values.check(keys.ends.len(), &HEADER_VALUES)
    }

    /// The first record whose delta is not its index.
    fn check_offsets(&self) -> Result<Option<u32>, ColumnarError> {
        let Some(deltas) = self.offset_deltas else { return Ok(None) };
        check_count(deltas.len(), self.len(), "offset_deltas")?;
        let number = |delta: &[u8; 4]| i32::from_le_bytes(*delta);
        let pairs = deltas.iter().zip(deltas.get(1..).unwrap_or_default());
        let rise = pairs.fold(true, |rise, (delta, next)| rise & (number(delta) < number(next)));
        let inside = deltas.first().is_none_or(|first| number(first) >= 0)
            && deltas.last().is_none_or(|last| number(last) <= self.last_offset_delta);
        if !rise || !inside {
            return Err(ColumnarError::OffsetDeltas { last: self.last_offset_delta });
        }
        let gap = (0u32..).zip(deltas).find(|(index, delta)| index.cast_signed() != number(delta));
        Ok(gap.map(|(index, _)| index))
    }

    /// The greatest timestamp, and the first record whose timestamp is not allowed.
    fn check_timestamps(
        &self,
        allowed: TimestampRange,
    ) -> Result<(Timestamp, Option<(u32, Timestamp)>), ColumnarError> {
        let base = self.base_timestamp;
        let mut max = base;
        let mut min = base;
        if let Some(deltas) = self.timestamp_deltas {
            check_count(deltas.len(), self.len(), "timestamp_deltas")?;
            let numbers = deltas.iter().map(|delta| i64::from_le_bytes(*delta));
            let (least, most) = numbers.fold((i64::MAX, i64::MIN), |(least, most), delta| {
                (least.min(delta), most.max(delta))
            });
            if !deltas.is_empty() {
                let at = |delta: i64| {
                    let sum = base.0.checked_add(delta).map(Timestamp);
                    sum.ok_or(ColumnarError::TimestampDelta { delta })
                };
                (min, max) = (at(least)?, at(most)?);
            }
        }
        if self.is_empty() {
            return Ok((Timestamp::NONE, None));
        }
        if allowed.contains(min) && allowed.contains(max) {
            return Ok((max, None));
        }
        let created = (0..self.count)
            .map(|index| (index, Timestamp(base.0 + self.timestamp_delta(index as usize))));
        let is_wrong = |(_, at): &(u32, Timestamp)| at.is_some() && !allowed.contains(*at);
        Ok((max, created.into_iter().find(is_wrong)))
    }
}

/// The records of a columnar batch, one after another.
#[derive(Debug, Clone)]
pub struct ColumnarRecords<'a> {
    view: ColumnarView<'a>,
    index: u32,
    value_start: usize,
    key_start: usize,
    header_start: u32,
}

/// A record with what only its encoding knows of it.
pub(crate) struct RawRecord<'a> {
    pub(crate) offset_delta: i32,
    /// The producer's timestamp minus the batch's base.
    pub(crate) timestamp_delta: i64,
    pub(crate) record: Record<'a>,
}

impl<'a> ColumnarRecords<'a> {
    /// How many are still to come.
    pub fn left(&self) -> u32 {
        self.view.count - self.index
    }

    #[inline]
    pub(crate) fn next_raw(&mut self) -> Option<RawRecord<'a>> {
        let view = &self.view;
        if self.index >= view.count {
            return None;
        }
        let at = self.index as usize;
        let (value, value_end) = view.values.cut(at, self.value_start);
        self.value_start = value_end;
        let mut key = None;
        if let Some(keys) = &view.keys {
            (key, self.key_start) = keys.cut(at, self.key_start);
        }
        let first = self.header_start;
        if let Some(end) = view.header_ends.and_then(|ends| ends.get(at)) {
            self.header_start = u32::from_le_bytes(*end);
        }
        let headers = ColumnarHeaders { table: view.table, first, end: self.header_start };
        let offset_delta = view.offset_delta(self.index);
        let timestamp_delta = view.timestamp_delta(at);
        let created = Timestamp(view.base_timestamp.0.wrapping_add(timestamp_delta));
        self.index += 1;
        let record = Record {
            offset: Offset(view.base_offset.0.wrapping_add(i64::from(offset_delta))),
            timestamp: view.append_time.unwrap_or(created),
            key,
            value,
            headers: headers.into(),
        };
        Some(RawRecord { offset_delta, timestamp_delta, record })
    }
}

impl<'a> Iterator for ColumnarRecords<'a> {
    type Item = Record<'a>;

    #[inline]
    fn next(&mut self) -> Option<Record<'a>> {
        self.next_raw().map(|raw| raw.record)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left() as usize, Some(self.left() as usize))
    }

    /// Which columns are there is asked once, not record by record: most batches have values only.
    #[inline]
    fn fold<B, F>(mut self, init: B, mut f: F) -> B
    where
        F: FnMut(B, Self::Item) -> B,
    {
        let mut so_far = init;
        if !self.view.has_values_only() {
            for record in self.by_ref() {
                so_far = f(so_far, record);
            }
            return so_far;
        }
        let view = &self.view;
        let Column { ends, bytes, .. } = view.values;
        let timestamp = view.append_time.unwrap_or(view.base_timestamp);
        let headers = ColumnarHeaders { table: view.table, first: 0, end: 0 }.into();
        let range = self.index as usize..view.count as usize;
        let mut offset = view.base_offset.0.wrapping_add(i64::from(self.index));
        let mut start = self.value_start;
        for end in ends.get(range).unwrap_or_default() {
            let end = u32::from_le_bytes(*end) as usize;
            let value = Some(bytes.get(start..end).unwrap_or_default());
            let record = Record { offset: Offset(offset), timestamp, key: None, value, headers };
            so_far = f(so_far, record);
            start = end;
            offset = offset.wrapping_add(1);
        }
        so_far
    }
}

impl ExactSizeIterator for ColumnarRecords<'_> {}

/// Keys and values of all headers of a batch.
#[derive(Debug, Clone, Copy)]
struct HeaderColumns<'a> {
    keys: Column<'a>,
    values: Column<'a>,
}

impl<'a> HeaderColumns<'a> {
    fn of(table: &fbs::Batch<'a>) -> Option<Self> {
        let keys = Column::new(table.header_key_ends()?, table.header_keys()?, None);
        let nulls = table.header_value_nulls();
        let values = Column::new(table.header_value_ends()?, table.header_values()?, nulls);
        Some(HeaderColumns { keys, values })
    }
}

/// The headers of one record: a range of the batch's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ColumnarHeaders<'a> {
    table: fbs::Batch<'a>,
    first: u32,
    end: u32,
}

impl<'a> ColumnarHeaders<'a> {
    pub(crate) const fn len(self) -> usize {
        self.end.saturating_sub(self.first) as usize
    }

    pub(crate) fn iter(self) -> ColumnarHeadersIter<'a> {
        // Most records have none; the table is not asked for them then.
        let columns = if self.len() == 0 { None } else { HeaderColumns::of(&self.table) };
        let (first, end) = (self.first as usize, self.end as usize);
        let end = end.min(columns.map_or(0, |columns| columns.keys.ends.len()));
        ColumnarHeadersIter { columns, index: first.min(end), end }
    }
}

/// The headers of one record, one after another.
#[derive(Debug, Clone)]
pub(crate) struct ColumnarHeadersIter<'a> {
    columns: Option<HeaderColumns<'a>>,
    index: usize,
    end: usize,
}

impl ColumnarHeadersIter<'_> {
    pub(crate) fn left(&self) -> usize {
        self.end - self.index
    }
}

impl<'a> Iterator for ColumnarHeadersIter<'a> {
    type Item = RecordHeader<'a>;

    fn next(&mut self) -> Option<RecordHeader<'a>> {
        if self.index >= self.end {
            return None;
        }
        let HeaderColumns { keys, values } = self.columns.as_ref()?;
        let at = self.index;
        self.index += 1;
        Some(RecordHeader { key: keys.get(at).unwrap_or_default(), value: values.get(at) })
    }
}
