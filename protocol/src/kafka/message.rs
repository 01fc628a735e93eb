//! What all message bodies have in common, for code that does not care which one it handles. `[P]`

use super::generated::ApiKey;
use super::reader::{DecodeError, Reader};
use super::writer::Writer;

/// A body that can be written.
pub trait Encode {
    /// Writes the body; [`Writer::finish`] tells when `version` cannot carry it.
    fn encode(&self, w: &mut Writer, version: i16);
}

/// A body that can be read from a frame whose bytes live as long as `'a`.
pub trait Decode<'a>: Sized {
    /// Reads the body and leaves the reader behind it.
    ///
    /// # Errors
    /// [`DecodeError`] says where the bytes are not such a body.
    fn decode(r: &mut Reader<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Reads the body, which has to fill what is left of the frame.
    ///
    /// # Errors
    /// As [`Self::decode`], and [`DecodeError::TrailingBytes`].
    fn decode_all(mut r: Reader<'a>, version: i16) -> Result<Self, DecodeError> {
        let body = Self::decode(&mut r, version)?;
        r.finish()?;
        Ok(body)
    }
}

/// The body of a request, and what answers it.
pub trait Request: Encode {
    /// Whose request it is.
    const API: ApiKey;
    /// The body of the answer.
    type Response<'r>: Decode<'r> + Encode;
}
