//! `[P]` Fixed-width little-endian fields of our own files: written by [`FieldWriter`], read by the total
//! [`FieldReader`]. Formats are drawn in `docs/formats/storage.md`.

use levada_record::{
    BrokerId, LeaderEpoch, Offset, PartitionId, PartitionIndex, PartitionUid, TopicId,
};
use xxhash_rust::xxh3::xxh3_64;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The bytes end inside a field.
    #[error("end after {at} B, inside {field}")]
    Short {
        /// Name of the field.
        field: &'static str,
        /// Position in the bytes.
        at: usize,
    },
    /// A field holds a value that cannot be.
    #[error("{field} is {got}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// What was found.
        got: u64,
    },
    /// The checksum does not match.
    #[error("checksum {got:#018x}, expected {expected:#018x}")]
    Checksum {
        /// Checksum of the bytes found.
        got: u64,
        /// Checksum that stands beside them.
        expected: u64,
    },
}

/// Checksum of our own files and journal tables: xxh3, 64 bits.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    xxh3_64(bytes)
}

/// Appends fields to a byte vector.
#[derive(Debug, Default)]
pub(crate) struct FieldWriter {
    bytes: Vec<u8>,
}

impl FieldWriter {
    /// An empty writer.
    pub(crate) fn new() -> Self {
        Self::default()
    }
    /// Bytes written so far.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
    /// The bytes.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
    /// One byte.
    pub(crate) fn put_u8(&mut self, value: u8) {
        self.bytes.push(value);
    }
    /// Two bytes.
    pub(crate) fn put_u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Four bytes.
    pub(crate) fn put_u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Eight bytes.
    pub(crate) fn put_u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Eight bytes, signed.
    pub(crate) fn put_i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Four bytes, signed.
    pub(crate) fn put_i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }
    /// Raw bytes, without a length.
    pub(crate) fn put_raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }
    /// An offset.
    pub(crate) fn put_offset(&mut self, value: Offset) {
        self.put_i64(value.get());
    }
    /// A leader epoch.
    pub(crate) fn put_epoch(&mut self, value: LeaderEpoch) {
        self.put_i32(value.get());
    }
    /// A partition uid.
    pub(crate) fn put_uid(&mut self, value: PartitionUid) {
        self.put_u64(value.0);
    }
    /// Topic id and index.
    pub(crate) fn put_partition(&mut self, value: PartitionId) {
        self.put_raw(value.topic.as_bytes());
        self.put_i32(value.index.0);
    }
}

/// Takes fields from bytes; every method fails instead of reading past the end.
#[derive(Debug, Clone)]
pub(crate) struct FieldReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> FieldReader<'a> {
    /// Reads from the front of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    /// Bytes not taken yet.
    pub(crate) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
    /// Bytes taken so far.
    pub(crate) fn position(&self) -> usize {
        self.at
    }
    /// The next `len` bytes.
    ///
    /// # Errors
    /// [`FieldError::Short`] when fewer are left.
    pub(crate) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], FieldError> {
        let end = self.at.checked_add(len).ok_or(FieldError::Short { field, at: self.at })?;
        let taken = self
            .bytes
            .get(self.at..end)
            .ok_or(FieldError::Short { field, at: self.bytes.len() })?;
        self.at = end;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], FieldError> {
        let at = self.at;
        self.take(N, field)?.try_into().map_err(|_| FieldError::Short { field, at })
    }
    /// One byte.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, FieldError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }
    /// Two bytes.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, FieldError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }
    /// Four bytes.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, FieldError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }
    /// Eight bytes.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, FieldError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }
    /// Eight bytes, signed.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, FieldError> {
        Ok(i64::from_le_bytes(self.array(field)?))
    }
    /// Four bytes, signed.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, FieldError> {
        Ok(i32::from_le_bytes(self.array(field)?))
    }
    /// An offset.
    ///
    /// # Errors
    /// [`FieldError::Short`], or [`FieldError::Value`] when negative.
    pub(crate) fn offset(&mut self, field: &'static str) -> Result<Offset, FieldError> {
        let raw = self.i64(field)?;
        if raw < 0 {
            return Err(FieldError::Value { field, got: raw.cast_unsigned() });
        }
        Ok(Offset(raw))
    }
    /// A leader epoch.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn epoch(&mut self, field: &'static str) -> Result<LeaderEpoch, FieldError> {
        Ok(LeaderEpoch(self.i32(field)?))
    }
    /// A partition uid.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn uid(&mut self, field: &'static str) -> Result<PartitionUid, FieldError> {
        Ok(PartitionUid(self.u64(field)?))
    }
    /// A broker id.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn broker(&mut self, field: &'static str) -> Result<BrokerId, FieldError> {
        Ok(BrokerId(self.i32(field)?))
    }
    /// Topic id and index.
    ///
    /// # Errors
    /// [`FieldError::Short`]
    pub(crate) fn partition(&mut self, field: &'static str) -> Result<PartitionId, FieldError> {
        let topic = TopicId(self.array(field)?);
        let index = PartitionIndex(self.i32(field)?);
        Ok(PartitionId { topic, index })
    }
    /// A count of items of at least `item_bytes` each, which must fit in what is left.
    ///
    /// # Errors
    /// [`FieldError::Short`], or [`FieldError::Value`] when more are claimed than could follow.
    pub(crate) fn count(
        &mut self,
        item_bytes: usize,
        field: &'static str,
    ) -> Result<usize, FieldError> {
        let got = self.u32(field)?;
        let count = usize::try_from(got).unwrap_or(usize::MAX);
        if count.saturating_mul(item_bytes) > self.remaining() {
            return Err(FieldError::Value { field, got: u64::from(got) });
        }
        Ok(count)
    }
}
