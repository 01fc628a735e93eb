//! Reads Kafka's primitive types from bytes that a stranger sent. `[P]`
//! Total: any bytes give a value or a [`DecodeError`], never a panic. What a decoder allocates is
//! charged against a heap budget first, so a small frame cannot claim much memory.
//! Source: <https://kafka.apache.org/protocol#protocol_types>, KIP-482 for the flexible versions.
#![deny(clippy::indexing_slicing, clippy::little_endian_bytes)]

use std::borrow::Cow;

use super::records::RecordBytes;
use super::uuid::Uuid;

/// Most memory, in bytes, that the items of all arrays of one message may take, unless
/// [`Reader::with_heap_bytes_max`] says otherwise. A metadata response for 200,000 partitions of
/// three replicas needs half of it.
pub const HEAP_BYTES_MAX_DEFAULT: usize = 64 * 1024 * 1024;

/// Why bytes are not the message they should be. `at` counts bytes from where the reader began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the field does.
    #[error("end before byte {at}+{needed_bytes}, {left_bytes} left")]
    Truncated {
        /// Where the field begins.
        at: usize,
        /// What the field needs.
        needed_bytes: usize,
        /// What is there.
        left_bytes: usize,
    },
    /// Bytes are left after the last field.
    #[error("{left_bytes} bytes left after the last field")]
    TrailingBytes {
        /// How many.
        left_bytes: usize,
    },
    /// A length below -1, or one that no frame can have.
    #[error("impossible length {length} at byte {at}")]
    BadLength {
        /// Where the length ends.
        at: usize,
        /// The length as sent.
        length: i64,
    },
    /// An array claims more items than the bytes left could hold.
    #[error("{count} items at byte {at} cannot fit into {left_bytes} bytes")]
    CountTooLarge {
        /// Where the count ends.
        at: usize,
        /// How many items are claimed.
        count: u32,
        /// What is left.
        left_bytes: usize,
    },
    /// The items of all arrays together would take more memory than allowed.
    #[error("{needed_bytes} bytes of memory for an array at byte {at}, {left_bytes} allowed")]
    HeapBudget {
        /// Where the count ends.
        at: usize,
        /// What the items would take.
        needed_bytes: usize,
        /// What is left of the budget.
        left_bytes: usize,
    },
    /// Null where the version knows no null.
    #[error("unexpected null at byte {at}")]
    UnexpectedNull {
        /// Where the length ends.
        at: usize,
    },
    /// A string that is not UTF-8.
    #[error("string at byte {at} is not utf-8")]
    NotUtf8 {
        /// Where the string begins.
        at: usize,
    },
    /// A variable-length number of more than 32 bits.
    #[error("varint at byte {at} has more than 32 bits")]
    VarintTooLong {
        /// Where it begins.
        at: usize,
    },
    /// The codec does not know that version of the message.
    #[error("version {version} of {message} is unknown")]
    UnknownVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
}

/// A place in a frame, moving forward. Values borrow from the frame, not from the reader.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    left: &'a [u8],
    total_bytes: usize,
    heap_bytes_left: usize,
    flexible: bool,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte, with [`HEAP_BYTES_MAX_DEFAULT`].
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self::with_heap_bytes_max(bytes, HEAP_BYTES_MAX_DEFAULT)
    }

    /// Starts at the first byte; all arrays together may take `heap_bytes_max` bytes of memory.
    pub const fn with_heap_bytes_max(bytes: &'a [u8], heap_bytes_max: usize) -> Self {
        let total_bytes = bytes.len();
        Self { left: bytes, total_bytes, heap_bytes_left: heap_bytes_max, flexible: false }
    }

    /// Bytes read so far.
    pub const fn position(&self) -> usize {
        self.total_bytes.saturating_sub(self.left.len())
    }

    /// Bytes not read yet.
    pub const fn left_bytes(&self) -> usize {
        self.left.len()
    }

    /// Bytes of memory that arrays may still take.
    pub const fn heap_bytes_left(&self) -> usize {
        self.heap_bytes_left
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`] when bytes are left.
    pub const fn finish(self) -> Result<(), DecodeError> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(DecodeError::TrailingBytes { left_bytes: self.left.len() })
        }
    }

    /// Begins a message body: refuses unknown versions, chooses the form of lengths.
    pub(super) const fn begin(
        &mut self,
        message: &'static str,
        version: i16,
        (min, max): (i16, i16),
        flexible_from: i16,
    ) -> Result<(), DecodeError> {
        if version < min || version > max {
            return Err(DecodeError::UnknownVersion { message, version });
        }
        self.flexible = version >= flexible_from;
        Ok(())
    }

    /// Begins a header, whose form does not depend on a body's version.
    pub(super) const fn begin_header(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], DecodeError> {
        let Some((taken, left)) = self.left.split_at_checked(bytes) else {
            return Err(self.truncated(bytes));
        };
        self.left = left;
        Ok(taken)
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((taken, left)) = self.left.split_first_chunk::<N>() else {
            return Err(self.truncated(N));
        };
        self.left = left;
        Ok(*taken)
    }

    #[cold]
    const fn truncated(&self, needed_bytes: usize) -> DecodeError {
        DecodeError::Truncated { at: self.position(), needed_bytes, left_bytes: self.left.len() }
    }

    #[inline]
    pub(super) fn bool(&mut self) -> Result<bool, DecodeError> {
        Ok(self.chunk::<1>()? != [0])
    }

    #[inline]
    pub(super) fn i8(&mut self) -> Result<i8, DecodeError> {
        Ok(i8::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn i16(&mut self) -> Result<i16, DecodeError> {
        Ok(i16::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn i32(&mut self) -> Result<i32, DecodeError> {
        Ok(i32::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn i64(&mut self) -> Result<i64, DecodeError> {
        Ok(i64::from_be_bytes(self.chunk()?))
    }

    #[inline]
    pub(super) fn uuid(&mut self) -> Result<Uuid, DecodeError> {
        Ok(Uuid(self.chunk()?))
    }

    /// An unsigned number of 7 bits per byte, lowest first, five bytes at most.
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        match *self.left {
            // Nearly all of them: lengths of names, counts of partitions, no tagged fields.
            [byte, ref left @ ..] if byte < 0x80 => {
                self.left = left;
                Ok(u32::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u32, DecodeError> {
        let at = self.position();
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.chunk::<1>()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong { at })
    }

    /// A count or length of 4 bytes, or the compact one; `None` is null.
    #[inline]
    fn length32(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let length = self.i32()?;
        match u32::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => {
                Err(DecodeError::BadLength { at: self.position(), length: i64::from(length) })
            }
        }
    }

    /// A length of 2 bytes, or the compact one; `None` is null.
    #[inline]
    fn length16(&mut self) -> Result<Option<u32>, DecodeError> {
        if self.flexible {
            return Ok(self.varint()?.checked_sub(1));
        }
        let length = self.i16()?;
        match u32::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => {
                Err(DecodeError::BadLength { at: self.position(), length: i64::from(length) })
            }
        }
    }

    #[inline]
    fn payload(&mut self, length: u32) -> Result<&'a [u8], DecodeError> {
        // On a machine with 16-bit addresses nothing that long is there either.
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    const fn null(&self) -> DecodeError {
        DecodeError::UnexpectedNull { at: self.position() }
    }

    /// Ok when null is allowed here.
    const fn allow_null(&self, allowed: bool) -> Result<(), DecodeError> {
        if allowed { Ok(()) } else { Err(self.null()) }
    }

    #[inline]
    fn text(&mut self, length: u32) -> Result<Cow<'a, str>, DecodeError> {
        let at = self.position();
        let bytes = self.payload(length)?;
        std::str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| DecodeError::NotUtf8 { at })
    }

    #[inline]
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        let length = self.length16()?.ok_or_else(|| self.null())?;
        self.text(length)
    }

    pub(super) fn optional_string(
        &mut self,
        nullable: bool,
    ) -> Result<Option<Cow<'a, str>>, DecodeError> {
        match self.length16()? {
            Some(length) => self.text(length).map(Some),
            None => self.allow_null(nullable).map(|()| None),
        }
    }

    /// Two bytes of length whatever the version, and any bytes: the client id of a request header.
    /// What is not UTF-8 is replaced, since a name for the log is no reason to refuse a client.
    pub(super) fn client_id(&mut self) -> Result<Option<Cow<'a, str>>, DecodeError> {
        let length = self.i16()?;
        match usize::try_from(length) {
            Ok(length) => Ok(Some(String::from_utf8_lossy(self.take(length)?))),
            Err(_) if length == -1 => Ok(None),
            Err(_) => {
                Err(DecodeError::BadLength { at: self.position(), length: i64::from(length) })
            }
        }
    }

    pub(super) fn bytes(&mut self) -> Result<Cow<'a, [u8]>, DecodeError> {
        let length = self.length32()?.ok_or_else(|| self.null())?;
        self.payload(length).map(Cow::Borrowed)
    }

    #[inline]
    pub(super) fn records(&mut self) -> Result<RecordBytes<'a>, DecodeError> {
        match self.length32()? {
            Some(length) => self.payload(length).map(RecordBytes::Borrowed),
            None => Ok(RecordBytes::Null),
        }
    }

    /// Whether a structure that may be null is there.
    pub(super) fn is_some(&mut self) -> Result<bool, DecodeError> {
        Ok(self.i8()? >= 0)
    }

    /// An array. `item_bytes_min` is the least that an item can take on the wire: a count that the
    /// bytes left cannot hold is refused before anything is allocated.
    pub(super) fn array<T>(
        &mut self,
        item_bytes_min: usize,
        version: i16,
        item: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let count = self.length32()?.ok_or_else(|| self.null())?;
        self.items(count, item_bytes_min, version, item)
    }

    /// An array that may be null.
    pub(super) fn optional_array<T>(
        &mut self,
        nullable: bool,
        item_bytes_min: usize,
        version: i16,
        item: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Option<Vec<T>>, DecodeError> {
        match self.length32()? {
            Some(count) => self.items(count, item_bytes_min, version, item).map(Some),
            None => self.allow_null(nullable).map(|()| None),
        }
    }

    fn items<T>(
        &mut self,
        count: u32,
        item_bytes_min: usize,
        version: i16,
        item: impl Fn(&mut Self, i16) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let mut items = Vec::with_capacity(self.charge(count, item_bytes_min, size_of::<T>())?);
        for _ in 0..count {
            items.push(item(self, version)?);
        }
        Ok(items)
    }

    /// Refuses a count that cannot fit, and takes the memory for it from the budget.
    fn charge(
        &mut self,
        count: u32,
        item_bytes_min: usize,
        item_size: usize,
    ) -> Result<usize, DecodeError> {
        let (at, left_bytes) = (self.position(), self.left.len());
        let items = usize::try_from(count).unwrap_or(usize::MAX);
        if items.saturating_mul(item_bytes_min.max(1)) > left_bytes {
            return Err(DecodeError::CountTooLarge { at, count, left_bytes });
        }
        let needed_bytes = items.saturating_mul(item_size);
        let left_bytes = self.heap_bytes_left;
        self.heap_bytes_left = left_bytes
            .checked_sub(needed_bytes)
            .ok_or(DecodeError::HeapBudget { at, needed_bytes, left_bytes })?;
        Ok(items)
    }

    /// Begins the tagged fields of a structure; there are none before the flexible versions.
    #[inline]
    pub(super) fn tags(&mut self) -> Result<Tags, DecodeError> {
        Ok(Tags { left: if self.flexible { self.varint()? } else { 0 } })
    }

    /// Takes all tagged fields of a structure that knows none of them.
    #[inline]
    pub(super) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        let mut tags = self.tags()?;
        while tags.left > 0 {
            tags.next(self)?;
        }
        Ok(())
    }

    /// Ends a known tagged field.
    pub(super) fn end_tag(&mut self, value: Self) -> Result<(), DecodeError> {
        self.heap_bytes_left = value.heap_bytes_left;
        value.finish()
    }
}

/// The tagged fields of a structure that are still to be read.
#[derive(Debug)]
pub(super) struct Tags {
    left: u32,
}

impl Tags {
    /// Number and value of the next field. Its bytes are taken from `reader` in any case, so an
    /// unknown field is skipped by not looking at it; the loop is bounded by the bytes of the frame.
    pub(super) fn next<'a>(
        &mut self,
        reader: &mut Reader<'a>,
    ) -> Result<Option<(u32, Reader<'a>)>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        let tag = reader.varint()?;
        let size = reader.varint()?;
        let value = reader.payload(size)?;
        let mut value = Reader::with_heap_bytes_max(value, reader.heap_bytes_left);
        value.flexible = reader.flexible;
        Ok(Some((tag, value)))
    }
}
