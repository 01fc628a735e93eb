//! Writes Kafka's primitive types; records may stay where they are. `[P]`
//! A field that cannot be written in the version at hand spoils the message as a whole:
//! [`Writer::finish`] tells, so that encoders stay plain sequences of writes.
//! Source: <https://kafka.apache.org/protocol#protocol_types>, KIP-482 for the flexible versions.
#![deny(clippy::indexing_slicing, clippy::little_endian_bytes)]

use super::records::RecordBytes;
use super::uuid::Uuid;

/// Why a message cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The codec does not know that version of the message.
    #[error("version {version} of {message} is unknown")]
    UnknownVersion {
        /// Name of the message.
        message: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// A field has a value that matters, and the version cannot carry it.
    #[error("field {field} cannot be sent in version {version}")]
    FieldNotInVersion {
        /// Structure and field.
        field: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Null where the version knows no null.
    #[error("null where version {version} knows no null")]
    UnexpectedNull {
        /// The version asked for.
        version: i16,
    },
    /// A string, array, payload or frame is longer than its length field can tell.
    #[error("length {length} does not fit into its field")]
    TooLong {
        /// The length: bytes or items.
        length: usize,
    },
}

/// Where the caller has to put bytes that it kept outside of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Splice {
    /// Place in [`Encoded::bytes`] before which they go.
    pub at: usize,
    /// The caller's name for them, from [`RecordBytes::External`].
    pub token: u32,
    /// How many bytes they are.
    pub len: u32,
}

/// A written message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Everything but the spliced bytes.
    pub bytes: Vec<u8>,
    /// What is to be spliced in, by rising place.
    pub splices: Vec<Splice>,
}

impl Encoded {
    /// Length on the wire: own bytes and spliced ones.
    pub fn total_bytes(&self) -> u64 {
        let spliced: u64 = self.splices.iter().map(|splice| u64::from(splice.len)).sum();
        u64::try_from(self.bytes.len()).unwrap_or(u64::MAX).saturating_add(spliced)
    }
}

/// Collects a message.
#[derive(Debug)]
pub struct Writer {
    bytes: Vec<u8>,
    splices: Vec<Splice>,
    error: Option<EncodeError>,
    version: i16,
    flexible: bool,
}

impl Default for Writer {
    fn default() -> Self {
        Self::new()
    }
}

impl Writer {
    /// Starts with an empty buffer.
    pub const fn new() -> Self {
        Self::with_buffer(Vec::new())
    }

    /// Appends to `bytes`; to reuse an allocation, clear it first.
    pub const fn with_buffer(bytes: Vec<u8>) -> Self {
        Self { bytes, splices: Vec::new(), error: None, version: 0, flexible: false }
    }

    /// Ends the message.
    ///
    /// # Errors
    /// The first [`EncodeError`] met on the way.
    pub fn finish(self) -> Result<Encoded, EncodeError> {
        match self.error {
            None => Ok(Encoded { bytes: self.bytes, splices: self.splices }),
            Some(error) => Err(error),
        }
    }

    /// Leaves room for the length of a frame, to be filled by [`Self::finish_frame`].
    pub(super) fn begin_frame(&mut self) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        at
    }

    /// Ends the message and fills the length of its frame, spliced bytes included.
    pub(super) fn finish_frame(self, at: usize) -> Result<Encoded, EncodeError> {
        let mut encoded = self.finish()?;
        let total_bytes = encoded.total_bytes().saturating_sub((at + 4) as u64);
        let length = i32::try_from(total_bytes).map_err(|_| EncodeError::TooLong {
            length: usize::try_from(total_bytes).unwrap_or(usize::MAX),
        })?;
        if let Some(prefix) = encoded.bytes.get_mut(at..at + 4) {
            prefix.copy_from_slice(&length.to_be_bytes());
        }
        Ok(encoded)
    }

    /// Begins a message body: refuses unknown versions, chooses the form of lengths.
    pub(super) fn begin(
        &mut self,
        message: &'static str,
        version: i16,
        (min, max): (i16, i16),
        flexible_from: i16,
    ) {
        if version < min || version > max {
            self.fail(EncodeError::UnknownVersion { message, version });
        }
        self.version = version;
        self.flexible = version >= flexible_from;
    }

    /// Begins a header, whose form does not depend on a body's version.
    pub(super) const fn begin_header(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    /// Whether lengths are compact and structures end in tagged fields.
    pub(super) const fn is_flexible(&self) -> bool {
        self.flexible
    }

    fn fail(&mut self, error: EncodeError) {
        self.error.get_or_insert(error);
    }

    /// Notes that `field` has a value that the version would drop.
    pub(super) fn refuse(&mut self, field: &'static str) {
        self.fail(EncodeError::FieldNotInVersion { field, version: self.version });
    }

    fn too_long(&mut self, length: usize) {
        self.fail(EncodeError::TooLong { length });
    }

    fn null(&mut self, nullable: bool) {
        if !nullable {
            self.fail(EncodeError::UnexpectedNull { version: self.version });
        }
    }

    #[inline]
    pub(super) fn bool(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    #[inline]
    pub(super) fn i8(&mut self, value: i8) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    #[inline]
    pub(super) fn uuid(&mut self, value: Uuid) {
        self.bytes.extend_from_slice(&value.0);
    }

    #[inline]
    pub(super) fn varint(&mut self, value: u32) {
        match u8::try_from(value) {
            // Nearly all of them: lengths of names, counts of partitions, no tagged fields.
            Ok(byte) if byte < 0x80 => self.bytes.push(byte),
            _ => {
                let (buffer, length) = varint(value);
                self.bytes.extend(buffer.iter().take(length));
            }
        }
    }

    /// A length of 4 bytes, or the compact one.
    fn length32(&mut self, length: usize) {
        match (self.flexible, i32::try_from(length)) {
            (true, Ok(length)) => self.varint(length.unsigned_abs() + 1),
            (false, Ok(length)) => self.i32(length),
            (_, Err(_)) => self.too_long(length),
        }
    }

    /// A length of 2 bytes, or the compact one.
    fn length16(&mut self, length: usize) {
        if self.flexible {
            self.length32(length);
        } else if let Ok(length) = i16::try_from(length) {
            self.i16(length);
        } else {
            self.too_long(length);
        }
    }

    pub(super) fn string(&mut self, value: &str) {
        self.length16(value.len());
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(super) fn optional_string(&mut self, value: Option<&str>, nullable: bool) {
        if let Some(value) = value {
            self.string(value);
        } else {
            self.null(nullable);
            if self.flexible { self.varint(0) } else { self.i16(-1) }
        }
    }

    /// Two bytes of length whatever the version: the client id of a request header.
    pub(super) fn client_id(&mut self, value: Option<&str>) {
        match value.map(|value| (value, i16::try_from(value.len()))) {
            None => self.i16(-1),
            Some((value, Ok(length))) => {
                self.i16(length);
                self.bytes.extend_from_slice(value.as_bytes());
            }
            Some((value, Err(_))) => self.too_long(value.len()),
        }
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.length32(value.len());
        self.bytes.extend_from_slice(value);
    }

    pub(super) fn records(&mut self, value: RecordBytes<'_>) {
        match value {
            RecordBytes::Null => self.null32(),
            RecordBytes::Borrowed(bytes) => self.bytes(bytes),
            RecordBytes::External { len, token } => {
                self.length32(usize::try_from(len).unwrap_or(usize::MAX));
                if len > 0 {
                    self.splices.push(Splice { at: self.bytes.len(), token, len });
                }
            }
        }
    }

    fn null32(&mut self) {
        if self.flexible { self.varint(0) } else { self.i32(-1) }
    }

    /// Whether a structure that may be null follows.
    pub(super) fn is_some(&mut self, some: bool) {
        self.i8(if some { 1 } else { -1 });
    }

    /// The number of items of an array.
    #[inline]
    pub(super) fn count(&mut self, count: usize) {
        self.length32(count);
    }

    /// The number of items of an array that may be null.
    pub(super) fn optional_count(&mut self, count: Option<usize>, nullable: bool) {
        if let Some(count) = count {
            self.length32(count);
        } else {
            self.null(nullable);
            self.null32();
        }
    }

    /// Says that a structure has no tagged fields; nothing before the flexible versions.
    #[inline]
    pub(super) fn no_tags(&mut self) {
        if self.flexible {
            self.bytes.push(0);
        }
    }

    /// Begins the tagged fields of a structure: their count, one byte, is raised by each.
    #[inline]
    pub(super) fn begin_tags(&mut self) -> TagsMark {
        self.bytes.push(0);
        TagsMark(self.bytes.len() - 1)
    }

    /// Begins a tagged field. Structures have far fewer than 128 of them.
    pub(super) fn begin_tag(&mut self, tags: &TagsMark, tag: u32) -> TagMark {
        if let Some(count) = self.bytes.get_mut(tags.0) {
            *count += 1;
        }
        self.varint(tag);
        TagMark(self.bytes.len())
    }

    /// Ends a tagged field: puts its size before it. Tagged fields are small, so they are moved.
    #[expect(clippy::needless_pass_by_value, reason = "a field ends once")]
    pub(super) fn end_tag(&mut self, tag: TagMark) {
        let size = self.bytes.len() - tag.0;
        match u32::try_from(size) {
            Ok(size) => {
                let (buffer, length) = varint(size);
                let prefix = buffer.iter().take(length).copied();
                self.bytes.splice(tag.0..tag.0, prefix);
            }
            Err(_) => self.too_long(size),
        }
    }
}

/// Where the count of tagged fields stands.
#[derive(Debug)]
pub(super) struct TagsMark(usize);

/// Where the value of a tagged field begins.
#[derive(Debug)]
pub(super) struct TagMark(usize);

/// Seven bits per byte, lowest first, and how many of the five bytes count.
fn varint(mut value: u32) -> ([u8; 5], usize) {
    let mut buffer = [0; 5];
    let mut length = 0;
    for byte in &mut buffer {
        length += 1;
        let [.., low] = value.to_be_bytes();
        value >>= 7;
        if value == 0 {
            *byte = low;
            break;
        }
        *byte = low | 0x80;
    }
    (buffer, length)
}
