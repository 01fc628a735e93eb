//! What stands before a body: request and response headers, and the length before both. `[P]`
//!
//! | offset | size | request header | | offset | size | response header |
//! |---|---|---|---|---|---|---|
//! | 0 | 2 | API key | | 0 | 4 | correlation id |
//! | 2 | 2 | API version | | 4 | - | tagged fields (version 1) |
//! | 4 | 4 | correlation id | | | | |
//! | 8 | 2 + n | client id, -1 is null | | | | |
//! | - | - | tagged fields (version 2) | | | | |
//!
//! Before either: 4 bytes, length of what follows. Numbers are big endian.

use std::borrow::Cow;

use super::generated::ApiKey;
use super::message::{Encode, Request};
use super::reader::{DecodeError, Reader};
use super::writer::{EncodeError, Encoded, Writer};

/// Who asks what, in which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// The API; the codec knows it.
    pub api_key: ApiKey,
    /// Version of the body; the codec accepts it.
    pub api_version: i16,
    /// Number the answer has to carry.
    pub correlation_id: i32,
    /// Name the client gave itself.
    pub client_id: Option<Cow<'a, str>>,
}

/// Why a request cannot be read on. Nothing but an `ApiVersions` request of an unknown version has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The bytes are no header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] DecodeError),
    /// The codec has no such API.
    #[error("unknown api key {api_key} version {api_version}")]
    UnknownApi {
        /// The key as sent.
        api_key: i16,
        /// The version as sent.
        api_version: i16,
        /// Number an answer would carry.
        correlation_id: i32,
    },
    /// The codec has the API, but not this version. For `ApiVersions` the answer is a body of version 0 with
    /// `UNSUPPORTED_VERSION` and the row of `ApiVersions`; else the connection is closed.
    #[error("unsupported version {api_version} of {api_key}")]
    UnsupportedVersion {
        /// The API.
        api_key: ApiKey,
        /// The version as sent.
        api_version: i16,
        /// Number the answer has to carry.
        correlation_id: i32,
    },
}

impl<'a> RequestHeader<'a> {
    /// Reads the header of a frame (without its length) and leaves `r` at the body.
    ///
    /// # Errors
    /// [`HeaderError`]; total on any bytes.
    pub fn decode(r: &mut Reader<'a>) -> Result<Self, HeaderError> {
        r.begin_header(false);
        let (key, api_version, correlation_id) = (r.i16()?, r.i16()?, r.i32()?);
        let Some(api_key) = ApiKey::from_i16(key) else {
            return Err(HeaderError::UnknownApi { api_key: key, api_version, correlation_id });
        };
        if !api_key.accepted().contains(api_version) {
            return Err(HeaderError::UnsupportedVersion { api_key, api_version, correlation_id });
        }
        let client_id = r.client_id()?;
        r.begin_header(api_key.is_flexible(api_version));
        r.skip_tags()?;
        Ok(Self { api_key, api_version, correlation_id, client_id })
    }
}

/// Reads the header of a response frame (without its length) and leaves `r` at the body; gives the correlation id.
///
/// # Errors
/// [`DecodeError`] when the bytes are no such header.
pub fn decode_response_header(
    r: &mut Reader<'_>,
    api: ApiKey,
    version: i16,
) -> Result<i32, DecodeError> {
    r.begin_header(false);
    let correlation_id = r.i32()?;
    r.begin_header(api.response_header_version(version) >= 1);
    r.skip_tags()?;
    Ok(correlation_id)
}

/// Writes a whole response frame: length, header, body. The length counts spliced bytes.
///
/// # Errors
/// [`EncodeError`] when `version` cannot carry the body.
pub fn encode_response(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &dyn Encode,
) -> Result<Encoded, EncodeError> {
    encode_response_into(Vec::new(), api, version, correlation_id, body)
}

/// The same, appended to a buffer whose allocation is to be reused. The frame begins where the buffer ended.
///
/// # Errors
/// As [`encode_response`].
pub fn encode_response_into(
    buffer: Vec<u8>,
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &dyn Encode,
) -> Result<Encoded, EncodeError> {
    let mut w = Writer::with_buffer(buffer);
    let frame = w.begin_frame();
    w.i32(correlation_id);
    w.begin_header(api.response_header_version(version) >= 1);
    w.no_tags();
    body.encode(&mut w, version);
    w.finish_frame(frame)
}

/// Writes a whole request frame: length, header, body. The length counts spliced bytes.
///
/// # Errors
/// [`EncodeError`] when `version` cannot carry the body.
pub fn encode_request<R: Request>(
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: &R,
) -> Result<Encoded, EncodeError> {
    encode_any_request(R::API, version, correlation_id, client_id, body)
}

/// The same for a body whose type is known at run time only.
///
/// # Errors
/// As [`encode_request`].
pub fn encode_any_request(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    client_id: Option<&str>,
    body: &dyn Encode,
) -> Result<Encoded, EncodeError> {
    let mut w = Writer::new();
    let frame = w.begin_frame();
    w.i16(api.to_i16());
    w.i16(version);
    w.i32(correlation_id);
    w.client_id(client_id);
    w.begin_header(api.is_flexible(version));
    w.no_tags();
    body.encode(&mut w, version);
    w.finish_frame(frame)
}
