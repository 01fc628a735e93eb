//! `[P]` Sparse index of one segment: offset and time to byte, every [`INDEX_INTERVAL_BYTES`].

use levada_record::Offset;

use crate::digest::Digest;
use crate::fields::{FieldError, FieldReader, FieldWriter};

/// Bytes of batches between two entries, at least.
pub const INDEX_INTERVAL_BYTES: u64 = 32 << 10;

/// A batch boundary in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexEntry {
    /// Base offset of the batch that begins here.
    pub offset: Offset,
    /// Where it begins.
    pub byte: u64,
    /// The log's digest before it.
    pub digest: Digest,
    /// Newest timestamp of the segment's batches before it; -1 when there is none.
    pub max_timestamp_before: i64,
}

/// Entries in ascending order. It may begin inside the segment, when the front was not walked yet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    entries: Vec<IndexEntry>,
    /// The next batch at or behind this byte is noted.
    due_byte: u64,
}

impl Index {
    /// Notes that a batch begins at `entry`. Keeps it when the last one kept is far enough away.
    pub fn note(&mut self, entry: IndexEntry) {
        if entry.byte >= self.due_byte {
            self.entries.push(entry);
            self.due_byte = entry.byte + INDEX_INTERVAL_BYTES;
        }
    }

    fn of(entries: Vec<IndexEntry>) -> Self {
        let due_byte = entries.last().map_or(0, |last| last.byte + INDEX_INTERVAL_BYTES);
        Self { entries, due_byte }
    }

    /// Whether the segment's first byte is covered.
    pub fn is_complete(&self) -> bool {
        self.entries.first().is_some_and(|first| first.byte == 0)
    }

    /// The first entry.
    pub fn first(&self) -> Option<IndexEntry> {
        self.entries.first().copied()
    }

    /// The last entry.
    pub fn last(&self) -> Option<IndexEntry> {
        self.entries.last().copied()
    }

    /// All entries.
    pub fn entries(&self) -> &[IndexEntry] {
        &self.entries
    }

    /// Puts the entries of `front` that lie before ours in front of them.
    pub fn prepend(&mut self, front: &Self) {
        let mine = self.first().map_or(u64::MAX, |first| first.byte);
        let mut entries: Vec<_> =
            front.entries.iter().copied().filter(|entry| entry.byte < mine).collect();
        entries.append(&mut self.entries);
        *self = Self::of(entries);
    }

    /// The last entry at or before the batch that holds `offset`. `None` when the index begins behind it.
    pub fn floor(&self, offset: Offset) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.offset <= offset);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// The last entry before which no batch has a timestamp at or after `at`.
    pub fn floor_by_time(&self, at: i64) -> Option<IndexEntry> {
        let after = self.entries.partition_point(|entry| entry.max_timestamp_before < at);
        self.entries.get(after.checked_sub(1)?).copied()
    }

    /// Forgets entries at or behind `byte`.
    pub fn truncate(&mut self, byte: u64) {
        self.entries.retain(|entry| entry.byte < byte);
        *self = Self::of(std::mem::take(&mut self.entries));
    }

    /// The bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = FieldWriter::new();
        out.put_u32(u32::try_from(self.entries.len()).expect("a segment has few entries"));
        for entry in &self.entries {
            out.put_offset(entry.offset);
            out.put_u64(entry.byte);
            out.put_u64(entry.digest.raw());
            out.put_i64(entry.max_timestamp_before);
        }
        out.into_bytes()
    }

    /// Reads what [`Index::encode`] wrote. Total.
    ///
    /// # Errors
    /// [`FieldError`] when the bytes are something else, or do not ascend.
    pub fn decode(content: &[u8]) -> Result<Self, FieldError> {
        let mut input = FieldReader::new(content);
        let count = input.count(32, "entry count")?;
        let mut entries: Vec<IndexEntry> = Vec::with_capacity(count);
        for _ in 0..count {
            let entry = IndexEntry {
                offset: input.offset("offset")?,
                byte: input.u64("byte")?,
                digest: Digest::from_raw(input.u64("digest")?),
                max_timestamp_before: input.i64("timestamp")?,
            };
            if entries.last().is_some_and(|last| last.byte >= entry.byte) {
                return Err(FieldError::Value { field: "byte", got: entry.byte });
            }
            entries.push(entry);
        }
        Ok(Self::of(entries))
    }
}
