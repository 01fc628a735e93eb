//! The records field of Produce and Fetch: bytes in the frame, or a promise of bytes elsewhere. `[P]`

use std::fmt;

/// Record batches as one run of bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordBytes<'a> {
    /// None at all.
    #[default]
    Null,
    /// Bytes in memory; what decoders give.
    Borrowed(&'a [u8]),
    /// Bytes that the caller splices in when it sends the message, so that they are not copied.
    External {
        /// How many bytes.
        len: u32,
        /// The caller's name for them, handed back in [`super::Splice`].
        token: u32,
    },
}

impl<'a> RecordBytes<'a> {
    /// The bytes, unless they are elsewhere; null gives none.
    pub const fn as_slice(&self) -> Option<&'a [u8]> {
        match *self {
            Self::Null => Some(&[]),
            Self::Borrowed(bytes) => Some(bytes),
            Self::External { .. } => None,
        }
    }

    /// Length in bytes; null has none.
    pub const fn len(&self) -> usize {
        match *self {
            Self::Null => 0,
            Self::Borrowed(bytes) => bytes.len(),
            Self::External { len, .. } => len as usize,
        }
    }

    /// Whether there are no bytes.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [u8]> for RecordBytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Borrowed(bytes)
    }
}

/// Prints the length, not the megabyte.
impl fmt::Debug for RecordBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Borrowed(bytes) => write!(f, "Borrowed({} B)", bytes.len()),
            Self::External { len, token } => write!(f, "External({len} B, token {token})"),
        }
    }
}
