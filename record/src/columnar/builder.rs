//! Records into columns. `[P]`
//!
//! The FlatBuffers table is laid out here instead of by the crate's builder, which writes from back to
//! front and would copy every value twice more. Its place and size are the same in every batch, so
//! values can go straight to where they stay, behind it; the other columns follow at the end.
//!
//! | byte of the payload | what |
//! |---|---|
//! | 0 | position of the table |
//! | 4 | its vtable: lengths of vtable and table, a slot for each of the 14 columns |
//! | 36 | the table: distance back to the vtable, a position for each column |
//! | 96 | length of the values, then the values |
//! | behind | the other columns that are there, aligned |

use super::fbs::Batch;
use crate::builder::NewRecord;
use crate::header::COLUMNS_AT;
use crate::records::RecordHeader;

/// Bytes of the length in front of a vector, and of a position.
const POSITION_BYTES: usize = size_of::<u32>();
const SLOT_BYTES: usize = size_of::<u16>();
/// The two lengths in front of a vtable's slots.
const VTABLE_HEAD_BYTES: usize = 2 * SLOT_BYTES;
const COLUMN_COUNT: usize = {
    let last = Batch::VT_HEADER_VALUE_NULLS as usize;
    (last - VTABLE_HEAD_BYTES) / SLOT_BYTES + 1
};
const VTABLE_AT: usize = POSITION_BYTES;
const VTABLE_BYTES: usize = VTABLE_HEAD_BYTES + COLUMN_COUNT * SLOT_BYTES;
const TABLE_AT: usize = VTABLE_AT + VTABLE_BYTES;
const TABLE_BYTES: usize = POSITION_BYTES + COLUMN_COUNT * POSITION_BYTES;
const VALUES_AT: usize = TABLE_AT + TABLE_BYTES;
/// Bytes of a batch in front of its values.
const FRONT_BYTES: usize = COLUMNS_AT + VALUES_AT + POSITION_BYTES;
/// Most bytes that alignment and lengths of the columns behind the values take.
const BETWEEN_BYTES_MAX: usize = COLUMN_COUNT * (POSITION_BYTES + size_of::<i64>());

const _: () = {
    assert!(COLUMN_COUNT == 14);
    assert!(TABLE_AT.is_multiple_of(POSITION_BYTES));
    assert!(VALUES_AT.is_multiple_of(POSITION_BYTES));
    assert!(VALUES_AT == 96);
    assert!(VTABLE_BYTES <= u16::MAX as usize);
    assert!(TABLE_BYTES <= u16::MAX as usize);
};

/// A bit per entry, none of them there before the first that is set.
#[derive(Debug, Clone, Default)]
struct Nulls {
    bits: Vec<u8>,
}

impl Nulls {
    /// Marks entry `index`.
    fn set(&mut self, index: usize) {
        if self.bits.len() <= index / 8 {
            self.bits.resize(index / 8 + 1, 0);
        }
        if let Some(byte) = self.bits.get_mut(index / 8) {
            *byte |= 1 << (index % 8);
        }
    }

    /// A bit for each of `count` entries, if there is one at all.
    fn finish(&mut self, count: usize) {
        if !self.bits.is_empty() {
            self.bits.resize(count.div_ceil(8), 0);
        }
    }
}

/// A column that most batches do without: it begins when the first record needs it.
#[derive(Debug, Clone, Default)]
struct Strings {
    ends: Vec<u8>,
    bytes: Vec<u8>,
    nulls: Nulls,
}

impl Strings {
    fn push(&mut self, index: usize, entry: Option<&[u8]>) {
        match entry {
            Some(entry) => self.bytes.extend_from_slice(entry),
            None => self.nulls.set(index),
        }
        put_end(&mut self.ends, self.bytes.len());
    }

    fn len(&self) -> usize {
        self.ends.len() + self.bytes.len() + self.nulls.bits.len()
    }
}

/// The builder holds all lengths against [`crate::builder::BATCH_BYTES_MAX`] before they get here.
fn put_end(ends: &mut Vec<u8>, end: usize) {
    ends.extend_from_slice(&u32::try_from(end).unwrap_or(u32::MAX).to_le_bytes());
}

/// The columns of a batch in the making.
#[derive(Debug, Clone)]
pub(crate) struct Columns {
    /// Room for header and table, then the values.
    front: Vec<u8>,
    value_ends: Vec<u8>,
    value_nulls: Nulls,
    keys: Strings,
    timestamp_deltas: Vec<u8>,
    offset_deltas: Vec<u8>,
    header_ends: Vec<u8>,
    header_keys: Strings,
    header_values: Strings,
    header_count: usize,
    count: usize,
}

impl Columns {
    pub(crate) fn new() -> Self {
        Columns {
            front: vec![0; FRONT_BYTES],
            value_ends: Vec::new(),
            value_nulls: Nulls::default(),
            keys: Strings::default(),
            timestamp_deltas: Vec::new(),
            offset_deltas: Vec::new(),
            header_ends: Vec::new(),
            header_keys: Strings::default(),
            header_values: Strings::default(),
            header_count: 0,
            count: 0,
        }
    }

    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.front.reserve(bytes);
    }

    /// Most bytes of the batch as it is.
    pub(crate) fn bytes(&self) -> usize {
        [
            self.front.len(),
            BETWEEN_BYTES_MAX,
            self.value_ends.len(),
            self.value_nulls.bits.len(),
            self.keys.len(),
            self.timestamp_deltas.len(),
            self.offset_deltas.len(),
            self.header_ends.len(),
            self.header_keys.len(),
            self.header_values.len(),
        ]
        .into_iter()
        .sum()
    }

    /// Most bytes of the batch with `record` in it.
    pub(crate) fn bytes_with(&self, record: &NewRecord<'_>) -> usize {
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let of_header = |header: &RecordHeader<'_>| {
            let ends = 2 * POSITION_BYTES + 1;
            header.key.len().saturating_add(length(header.value)).saturating_add(ends)
        };
        // What each column would have, and all of them begin with this record.
        let every_column = 4 * size_of::<u32>() + size_of::<i64>() + 2;
        let columns = (self.count + 1).saturating_mul(every_column);
        record
            .headers
            .iter()
            .map(of_header)
            .chain([length(record.key), length(record.value), columns])
            .fold(self.bytes(), usize::saturating_add)
    }

    pub(crate) fn push(&mut self, offset_delta: i32, timestamp_delta: i64, record: &NewRecord<'_>) {
        let index = self.count;
        match record.value {
            Some(value) => self.front.extend_from_slice(value),
            None => self.value_nulls.set(index),
        }
        put_end(&mut self.value_ends, self.front.len() - FRONT_BYTES);
        if record.key.is_some() || !self.keys.ends.is_empty() {
            self.push_key(record.key);
        }
        if timestamp_delta != 0 || !self.timestamp_deltas.is_empty() {
            self.timestamp_deltas.resize(index * size_of::<i64>(), 0);
            self.timestamp_deltas.extend_from_slice(&timestamp_delta.to_le_bytes());
        }
        let is_index = usize::try_from(offset_delta).is_ok_and(|delta| delta == index);
        if !is_index || !self.offset_deltas.is_empty() {
            self.push_offset_delta(offset_delta);
        }
        if !record.headers.is_empty() || !self.header_ends.is_empty() {
            self.push_headers(record.headers);
        }
        self.count += 1;
    }

    fn push_key(&mut self, key: Option<&[u8]>) {
        if self.keys.ends.is_empty() {
            (0..self.count).for_each(|index| self.keys.push(index, None));
        }
        self.keys.push(self.count, key);
    }

    fn push_offset_delta(&mut self, offset_delta: i32) {
        if self.offset_deltas.is_empty() {
            let deltas = (0i32..).take(self.count);
            deltas.for_each(|delta| self.offset_deltas.extend_from_slice(&delta.to_le_bytes()));
        }
        self.offset_deltas.extend_from_slice(&offset_delta.to_le_bytes());
    }

    fn push_headers(&mut self, headers: &[RecordHeader<'_>]) {
        self.header_ends.resize(self.count * size_of::<u32>(), 0);
        for header in headers {
            self.header_keys.push(self.header_count, Some(header.key));
            self.header_values.push(self.header_count, header.value);
            self.header_count += 1;
        }
        put_end(&mut self.header_ends, self.header_count);
    }

    /// The batch without compression: room for the header, then the payload.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let mut payload = Payload { batch: self.front, slots: [0; COLUMN_COUNT] };
        let values_bytes = payload.batch.len() - FRONT_BYTES;
        payload.put_at(VALUES_AT, values_bytes);
        payload.place(Batch::VT_VALUES, VALUES_AT);
        self.value_nulls.finish(self.count);
        self.keys.nulls.finish(self.count);
        self.header_values.nulls.finish(self.header_count);
        payload.append(Batch::VT_VALUE_ENDS, &self.value_ends, size_of::<u32>());
        let optional = [
            (Batch::VT_VALUE_NULLS, &self.value_nulls.bits, 1),
            (Batch::VT_KEY_NULLS, &self.keys.nulls.bits, 1),
            (Batch::VT_TIMESTAMP_DELTAS, &self.timestamp_deltas, size_of::<i64>()),
            (Batch::VT_OFFSET_DELTAS, &self.offset_deltas, size_of::<i32>()),
        ];
        for (slot, column, entry_bytes) in optional {
            if !column.is_empty() {
                payload.append(slot, column, entry_bytes);
            }
        }
        if !self.keys.ends.is_empty() {
            payload.append(Batch::VT_KEY_ENDS, &self.keys.ends, size_of::<u32>());
            payload.append(Batch::VT_KEYS, &self.keys.bytes, 1);
        }
        if !self.header_ends.is_empty() {
            let Strings { ends, bytes, .. } = &self.header_keys;
            payload.append(Batch::VT_HEADER_ENDS, &self.header_ends, size_of::<u32>());
            payload.append(Batch::VT_HEADER_KEY_ENDS, ends, size_of::<u32>());
            payload.append(Batch::VT_HEADER_KEYS, bytes, 1);
            let Strings { ends, bytes, nulls } = &self.header_values;
            payload.append(Batch::VT_HEADER_VALUE_ENDS, ends, size_of::<u32>());
            payload.append(Batch::VT_HEADER_VALUES, bytes, 1);
            if !nulls.bits.is_empty() {
                payload.append(Batch::VT_HEADER_VALUE_NULLS, &nulls.bits, 1);
            }
        }
        payload.finish()
    }
}

/// A payload whose columns are being put in place.
struct Payload {
    batch: Vec<u8>,
    /// Where each column begins in the payload; 0 for those left out.
    slots: [usize; COLUMN_COUNT],
}

impl Payload {
    /// Appends a vector of entries of `entry_bytes`, aligned to them.
    fn append(&mut self, slot: u16, column: &[u8], entry_bytes: usize) {
        self.batch.reserve(column.len() + BETWEEN_BYTES_MAX);
        // The length in front is aligned to itself, and what follows it to an entry.
        let alignment = entry_bytes.max(POSITION_BYTES);
        let content_at = (self.batch.len() + POSITION_BYTES).next_multiple_of(alignment);
        self.batch.resize(content_at, 0);
        let position = content_at - POSITION_BYTES - COLUMNS_AT;
        self.put_at(position, column.len() / entry_bytes);
        self.batch.extend_from_slice(column);
        self.place(slot, position);
    }

    fn place(&mut self, slot: u16, position: usize) {
        let index = (usize::from(slot) - VTABLE_HEAD_BYTES) / SLOT_BYTES;
        if let Some(place) = self.slots.get_mut(index) {
            *place = position;
        }
    }

    fn put_at(&mut self, position: usize, number: usize) {
        put(&mut self.batch, position, u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        self.put_at(0, TABLE_AT);
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes();
        put(&mut self.batch, VTABLE_AT, short(VTABLE_BYTES));
        put(&mut self.batch, VTABLE_AT + SLOT_BYTES, short(TABLE_BYTES));
        self.put_at(TABLE_AT, TABLE_AT - VTABLE_AT);
        for (index, position) in self.slots.into_iter().enumerate() {
            if position == 0 {
                continue;
            }
            // Where in the table the column's position is, and that position relative to its own.
            let field_bytes = POSITION_BYTES + index * POSITION_BYTES;
            let field_at = TABLE_AT + field_bytes;
            let slot_at = VTABLE_AT + VTABLE_HEAD_BYTES + index * SLOT_BYTES;
            put(&mut self.batch, slot_at, short(field_bytes));
            self.put_at(field_at, position - field_at);
        }
        self.batch
    }
}

/// Writes `bytes` at `position` of the payload.
fn put<const N: usize>(batch: &mut [u8], position: usize, bytes: [u8; N]) {
    let at = COLUMNS_AT + position;
    let place = batch.get_mut(at..at + N).expect("the front of a batch is there from the start");
    place.copy_from_slice(&bytes);
}
