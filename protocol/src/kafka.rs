//! The Kafka wire protocol: bytes of strangers to typed messages and back. `[P]`
//! Produce path 3/9: frame to typed request, records stay slices; from `protocol/frame.rs`; to `broker/api/produce.rs`.
//!
//! `schema/` holds one compact definition per API, `generated/` the types, total decoders and gathering encoders made
//! from them by `cargo xtask codegen`. A frame is read like this: [`RequestHeader::decode`] on a [`Reader`], then the
//! request's own `decode_all` with the header's version. Decoded values borrow from the frame; strings are `Cow`, so
//! that a response can also own them. An answer is written by [`encode_response`].
//!
//! Limits: the frame ([`crate::frame`]), memory of all arrays of a message ([`HEAP_BYTES_MAX_DEFAULT`]), items of an
//! array (what the bytes left could hold), nesting (what the definitions have).

mod error_code;
mod generated;
mod header;
pub mod levada;
mod message;
mod reader;
mod records;
mod table;
mod uuid;
mod writer;

pub use error_code::ErrorCode;
pub use generated::*;
pub use header::{
    HeaderError, RequestHeader, decode_response_header, encode_any_request, encode_request,
    encode_response, encode_response_into,
};
pub use message::{Decode, Encode, Request};
pub use reader::{DecodeError, HEAP_BYTES_MAX_DEFAULT, Reader};
pub use records::RecordBytes;
pub use table::{ApiRow, Versions};
pub use uuid::Uuid;
pub use writer::{EncodeError, Encoded, Splice, Writer};
