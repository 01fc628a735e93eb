//! Bytes of single records, Kafka's version 2. `[P]`

use crate::records::RecordHeader;
use crate::varint::{put_varint, put_varlong, varlong_bytes};

/// A record as it will be written; its headers may be asked for more than once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RecordParts<'a, H> {
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: H,
}

impl<'a, H> RecordParts<'a, H>
where
    H: ExactSizeIterator<Item = RecordHeader<'a>> + Clone,
{
    /// Bytes behind the record's length, and with it.
    pub(crate) fn bytes(&self) -> RecordBytes {
        let headers = self
            .headers
            .clone()
            .map(|header| nullable_bytes(Some(header.key)) + nullable_bytes(header.value))
            .fold(length_bytes(Some(self.headers.len())), usize::saturating_add);
        let body = [
            1,
            varlong_bytes(self.timestamp_delta),
            varlong_bytes(i64::from(self.offset_delta)),
            nullable_bytes(self.key),
            nullable_bytes(self.value),
            headers,
        ]
        .into_iter()
        .fold(0, usize::saturating_add);
        RecordBytes { body, total: length_bytes(Some(body)).saturating_add(body) }
    }

    /// Appends the record; `bytes` is what [`RecordParts::bytes`] said.
    pub(crate) fn write(&self, bytes: RecordBytes, out: &mut Vec<u8>) {
        out.reserve(bytes.total);
        let end = out.len() + bytes.total;
        put_length(out, bytes.body);
        out.push(0);
        put_varlong(out, self.timestamp_delta);
        put_varint(out, self.offset_delta);
        put_nullable(out, self.key);
        put_nullable(out, self.value);
        put_length(out, self.headers.len());
        for header in self.headers.clone() {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
        debug_assert_eq!(out.len(), end, "a record was announced with another length");
    }
}

/// How long a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordBytes {
    body: usize,
    pub(crate) total: usize,
}

/// Bytes of a length in front of something `bytes` long, or of the -1 for nothing.
fn length_bytes(bytes: Option<usize>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(i64::try_from(bytes).unwrap_or(i64::MAX)))
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    length_bytes(bytes.map(<[u8]>::len)) + bytes.map_or(0, <[u8]>::len)
}

/// Whoever writes has held the sum of all lengths against a limit of 31 bits.
fn put_length(out: &mut Vec<u8>, bytes: usize) {
    put_varlong(out, i64::try_from(bytes).unwrap_or(i64::MAX));
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varint(out, -1),
        Some(bytes) => {
            put_length(out, bytes.len());
            out.extend_from_slice(bytes);
        }
    }
}
