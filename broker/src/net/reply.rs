//! A reply on its way out: header bytes and slices of the log, gathered without a copy.

use std::io::IoSlice;

use bytes::Bytes;
use levada_engine::Slice;
use levada_protocol::kafka::Encoded;

use crate::budget::Permit;

/// A run of bytes of a reply.
#[derive(Clone)]
pub enum Chunk {
    /// Plain memory: encoded fields, or records that came from another shard.
    Bytes(Bytes),
    /// Records in the memory of this shard's engine.
    Slice(Slice),
}

impl Chunk {
    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Slice(slice) => slice,
        }
    }
}

/// One whole response frame.
pub struct Reply {
    chunks: Vec<Chunk>,
    bytes: u64,
    /// Keeps the records accounted for until they are sent.
    _held: Vec<Permit>,
}

impl Reply {
    /// A frame that is all in one piece.
    pub fn plain(encoded: Encoded) -> Self {
        let bytes = encoded.bytes.len() as u64;
        Self { chunks: vec![Chunk::Bytes(encoded.bytes.into())], bytes, _held: Vec::new() }
    }

    /// A frame with payloads spliced in: a splice's token is the index of its payload.
    pub fn gathered(encoded: Encoded, payloads: &[Vec<Chunk>], held: Vec<Permit>) -> Self {
        let Encoded { bytes, splices } = encoded;
        let fields = Bytes::from(bytes);
        let mut chunks = Vec::with_capacity(2 * splices.len() + 1);
        let mut from = 0;
        for splice in splices {
            if splice.at > from {
                chunks.push(Chunk::Bytes(fields.slice(from..splice.at)));
                from = splice.at;
            }
            let payload = usize::try_from(splice.token).ok().and_then(|at| payloads.get(at));
            chunks.extend(payload.into_iter().flatten().cloned());
        }
        if from < fields.len() {
            chunks.push(Chunk::Bytes(fields.slice(from..)));
        }
        let bytes = chunks.iter().map(|chunk| chunk.as_slice().len() as u64).sum();
        Self { chunks, bytes, _held: held }
    }

    /// Its length on the wire.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds its pieces to what is sent next.
    pub fn push_slices<'a>(&'a self, slices: &mut Vec<IoSlice<'a>>) {
        slices.extend(self.chunks.iter().map(|chunk| IoSlice::new(chunk.as_slice())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::kafka::Splice;

    #[test]
    fn payloads_are_spliced_in_where_the_encoder_left_room() {
        let splices = vec![
            Splice { at: 2, token: 1, len: 3 },
            Splice { at: 2, token: 0, len: 1 },
            Splice { at: 4, token: 0, len: 1 },
        ];
        let encoded = Encoded { bytes: b"abcd".to_vec(), splices };
        let one = vec![Chunk::Bytes(Bytes::from_static(b"1"))];
        let three =
            vec![Chunk::Bytes(Bytes::from_static(b"xy")), Chunk::Slice(Slice::from(b"z".to_vec()))];
        let reply = Reply::gathered(encoded, &[one, three], Vec::new());
        let mut slices = Vec::new();
        reply.push_slices(&mut slices);
        let sent: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        assert_eq!(sent, b"abxyz1cd1");
        assert_eq!(reply.bytes(), 9);
    }
}
