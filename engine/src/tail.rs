//! The bytes of a log that are in memory: what is not in its segments yet, and what was appended lately.
//!
//! Positions here are *log positions*: bytes counted over the life of the open log. Every segment begins at a
//! block boundary, with a gap of at least one block behind the one before, so runs never join across segments.

mod chunks;

use crate::disk::{Buffer, FrozenBuffer, Slice};
use crate::segment::layout::align_down;
use crate::tail::chunks::{Chunk, Chunks};

/// Smallest chunk, in bytes.
const CHUNK_MIN_BYTES: usize = 4 << 10;
/// Largest chunk of a log that is written in small pieces, in bytes.
const CHUNK_GROWN_BYTES: usize = 256 << 10;
/// An append with as many bytes of whole blocks gets a chunk of its own, in bytes.
const CHUNK_OF_ITS_OWN_BYTES: usize = 64 << 10;
/// Largest chunk, in bytes: one large append gets memory of its own size.
const CHUNK_MAX_BYTES: usize = 1 << 20;

/// Chunks of aligned memory, ascending; the last one is being filled.
pub(crate) struct Tail {
    chunks: Chunks,
    /// First position in memory.
    start: u64,
    end: u64,
    /// Capacity of all chunks, in bytes.
    memory_bytes: usize,
    block_bytes: usize,
    /// The last chunk that small appends shared, in bytes; 0 behind a large append.
    grown_bytes: usize,
    /// Largest chunk for appends smaller than it; less where many logs share the memory.
    chunk_cap_bytes: usize,
}

impl Tail {
    /// Empty, at a block boundary.
    pub(crate) fn new(start: u64, block_bytes: usize) -> Self {
        assert!(start.is_multiple_of(block_bytes as u64));
        Self {
            chunks: Chunks::default(),
            start,
            end: start,
            memory_bytes: 0,
            block_bytes,
            grown_bytes: 0,
            chunk_cap_bytes: CHUNK_GROWN_BYTES,
        }
    }

    /// First position in memory.
    pub(crate) fn start(&self) -> u64 {
        self.start
    }

    /// To be called whenever chunks came or went, or the end of a tail without chunks moved.
    fn note_chunks(&mut self) {
        self.start = self.chunks.front().map_or(self.end, |chunk| chunk.start);
        self.memory_bytes = self.chunks.memory_bytes();
    }

    /// Exclusive end of what was appended.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Unit of alignment, in bytes.
    pub(crate) fn block_bytes(&self) -> u64 {
        self.block_bytes as u64
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    /// Bounds the chunks to come, for a log that may hold about `share_bytes` of memory.
    pub(crate) fn set_share(&mut self, share_bytes: usize) {
        let cap = (share_bytes / 2).clamp(CHUNK_MIN_BYTES, CHUNK_GROWN_BYTES);
        self.chunk_cap_bytes = cap - cap % self.block_bytes;
    }

    /// Goes on at `start`, the first byte of a new segment.
    pub(crate) fn skip_to(&mut self, start: u64) {
        assert!(start >= self.end);
        assert!(start.is_multiple_of(self.block_bytes as u64));
        self.end = start;
        self.note_chunks();
    }

    /// Appends bytes. Copies them once; allocates a chunk now and then.
    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let goes_on = |chunk: &Chunk| chunk.end() == self.end && chunk.buffer.room() > 0;
            let fits = self.chunks.last().is_some_and(goes_on);
            if !fits {
                assert!(self.end.is_multiple_of(self.block_bytes as u64), "chunks begin at blocks");
                let capacity = self.next_capacity(bytes.len());
                let buffer = Buffer::with_capacity(capacity);
                self.chunks.push(Chunk { start: self.end, buffer });
                self.note_chunks();
            }
            let chunk = self.chunks.last_mut().expect("pushed above");
            let (now, later) = bytes.split_at(bytes.len().min(chunk.buffer.room()));
            chunk.buffer.push(now);
            self.end += now.len() as u64;
            bytes = later;
        }
    }

    /// Capacity of the next chunk when `bytes` are still to be appended. The whole blocks of a large append get a chunk
    /// that they fill, so that it can be written as it is; small appends share chunks that grow.
    fn next_capacity(&mut self, bytes: usize) -> usize {
        let whole = bytes - bytes % self.block_bytes;
        if whole >= CHUNK_OF_ITS_OWN_BYTES {
            // Small appends begin anew behind it: what comes next may be large again.
            self.grown_bytes = 0;
            return whole.min(CHUNK_MAX_BYTES);
        }
        self.grown_bytes = (2 * self.grown_bytes).clamp(CHUNK_MIN_BYTES, self.chunk_cap_bytes);
        self.grown_bytes.max(bytes).next_multiple_of(self.block_bytes)
    }

    /// Calls `each` with the pieces of `from..end` in order; `false` when some of it is not in memory.
    pub(crate) fn visit(&self, from: u64, end: u64, mut each: impl FnMut(&[u8])) -> bool {
        let mut at = from;
        while at < end {
            let Some(chunk) = self.chunks.at(at) else {
                return false;
            };
            let (low, high) = (offset_in(chunk.start, at), offset_in(chunk.start, end));
            let piece = chunk.buffer.bytes();
            let high = high.min(piece.len());
            each(piece.get(low..high).unwrap_or(&[]));
            at = chunk.start + high as u64;
        }
        true
    }

    /// Copies `from..end`; `None` when some of it is not in memory.
    pub(crate) fn copy(&self, from: u64, end: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(offset_in(from, end));
        self.visit(from, end, |piece| bytes.extend_from_slice(piece)).then_some(bytes)
    }

    /// Fills `target` from `from` on; `false` when some of it is not in memory.
    pub(crate) fn read_exact(&self, from: u64, target: &mut [u8]) -> bool {
        let mut done = 0;
        self.visit(from, from + target.len() as u64, |piece| {
            if let Some(part) = target.get_mut(done..done + piece.len()) {
                part.copy_from_slice(piece);
            }
            done += piece.len();
        })
    }

    /// Shared views of `from..end`; `None` when some of it is not in memory.
    pub(crate) fn slices(&self, from: u64, end: u64) -> Option<Vec<Slice>> {
        let mut slices = Vec::new();
        let mut at = from;
        while at < end {
            let chunk = self.chunks.at(at)?;
            let high = offset_in(chunk.start, end).min(chunk.buffer.len());
            slices.push(chunk.buffer.slice(offset_in(chunk.start, at), high));
            at = chunk.start + high as u64;
        }
        Some(slices)
    }

    /// The whole blocks of `from..end` (both aligned) as buffers to write, each with its position. Full chunks are
    /// shared, parts of chunks are copied. `None` when some of it is not in memory.
    pub(crate) fn blocks(&self, from: u64, end: u64) -> Option<Vec<(u64, FrozenBuffer)>> {
        let mut out = Vec::new();
        let mut at = from;
        while at < end {
            let chunk = self.chunks.at(at)?;
            let full = chunk.buffer.room() == 0;
            let chunk_end = chunk.start + chunk.buffer.capacity() as u64;
            if full && at == chunk.start && chunk_end <= end {
                out.push((at, chunk.buffer.freeze()));
                at = chunk_end;
            } else {
                let to = end.min(align_down(chunk.end(), self.block_bytes as u64)).max(at);
                if to == at {
                    return None;
                }
                let mut copy = Buffer::with_capacity(offset_in(at, to));
                self.visit(at, to, |piece| copy.push(piece));
                out.push((at, copy.freeze()));
                at = to;
            }
        }
        Some(out)
    }

    /// The block that begins at `from` and ends inside, at `end`, with zeros behind.
    pub(crate) fn padded_block(&self, from: u64, end: u64) -> Option<FrozenBuffer> {
        let bytes = self.copy(from, end)?;
        Some(Buffer::padded_copy(&bytes, self.block_bytes).freeze())
    }

    /// Forgets whole chunks below `position`. Returns the memory freed in bytes.
    pub(crate) fn drop_before(&mut self, position: u64) -> usize {
        let mut freed = 0;
        while self.chunks.front().is_some_and(|c| c.end() <= position && c.end() < self.end) {
            freed += self.chunks.pop_front().map_or(0, |chunk| chunk.buffer.capacity());
        }
        if freed > 0 {
            self.note_chunks();
        }
        freed
    }

    /// Gives back the last chunk too, but for the block of the end: everything below `safe` may go. Only when the
    /// chunk is large; returns the memory freed in bytes.
    pub(crate) fn shrink_last(&mut self, safe: u64) -> usize {
        let block_start = align_down(self.end.min(safe), self.block_bytes as u64);
        let Some(last) = self.chunks.last() else { return 0 };
        let capacity = last.buffer.capacity();
        if !self.chunks.is_one() || capacity <= self.chunk_cap_bytes || block_start <= last.start {
            return 0;
        }
        let Some(kept) = self.copy(block_start, self.end) else { return 0 };
        let room = kept.len().next_multiple_of(self.block_bytes).max(CHUNK_MIN_BYTES);
        let mut buffer = Buffer::with_capacity(room);
        buffer.push(&kept);
        self.chunks.clear();
        if !kept.is_empty() {
            self.chunks.push(Chunk { start: block_start, buffer });
        }
        self.note_chunks();
        capacity.saturating_sub(room)
    }

    /// Forgets everything, the partial last block too; the log goes on at `end`, whose block must be loaded with
    /// [`Tail::load`] before the next append when `end` is not aligned.
    pub(crate) fn clear(&mut self, end: u64) {
        self.chunks.clear();
        self.end = end;
        self.note_chunks();
    }

    /// Whether the next append can go on here: the partial last block is in memory, or there is none.
    pub(crate) fn is_loaded(&self) -> bool {
        self.end.is_multiple_of(self.block_bytes as u64)
            || self.chunks.last().is_some_and(|chunk| chunk.end() == self.end)
    }

    /// Puts the bytes of the partial last block into memory: from the block's first byte to the end.
    pub(crate) fn load(&mut self, block: &[u8]) {
        let start = align_down(self.end, self.block_bytes as u64);
        assert!(
            block.len() as u64 == self.end - start,
            "{} B for {start}..{}",
            block.len(),
            self.end
        );
        assert!(!self.is_loaded());
        let mut buffer = Buffer::with_capacity(CHUNK_MIN_BYTES.max(self.block_bytes));
        buffer.push(block);
        self.chunks.push(Chunk { start, buffer });
        self.note_chunks();
    }

    /// Cuts the log at `end`. Bytes above are forgotten; the block of `end` is copied when others may still read
    /// what was behind it.
    pub(crate) fn truncate(&mut self, end: u64) {
        let block_start = align_down(end, self.block_bytes as u64);
        let kept = self.copy(block_start, end);
        while self.chunks.last().is_some_and(|chunk| chunk.start >= block_start) {
            self.chunks.pop();
        }
        // A chunk that spans the cut keeps its bytes below the block: copy them, chunks only grow.
        if let Some(last) = self.chunks.last()
            && last.end() > block_start
        {
            let start = last.start;
            let below = self.copy(start, block_start);
            self.chunks.pop();
            if let Some(below) = below {
                let mut buffer = Buffer::with_capacity(below.len());
                buffer.push(&below);
                self.chunks.push(Chunk { start, buffer });
            }
        }
        self.end = end;
        self.note_chunks();
        match kept {
            Some(bytes) if !bytes.is_empty() => self.load(&bytes),
            _ => {}
        }
    }
}

fn offset_in(start: u64, position: u64) -> usize {
    usize::try_from(position - start).expect("positions in memory are near each other")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(from: usize, len: usize) -> Vec<u8> {
        (from..from + len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn tail_of(lens: &[usize]) -> Tail {
        let mut tail = Tail::new(0, 4096);
        let mut at = 0;
        for len in lens {
            tail.push(&bytes(at, *len));
            at += len;
        }
        tail
    }

    #[test]
    fn what_went_in_comes_out_across_chunks() {
        let tail = tail_of(&[100, 5000, 70_000, 1, 2_000_000]);
        let total = 2_075_101;
        assert_eq!(tail.copy(0, total as u64), Some(bytes(0, total)));
        assert_eq!(tail.copy(4000, 9000), Some(bytes(4000, 5000)));
        let joined: Vec<u8> =
            tail.slices(4000, 900_000).unwrap().iter().flat_map(|s| s.to_vec()).collect();
        assert_eq!(joined, bytes(4000, 896_000));
        assert_eq!(tail.copy(0, total as u64 + 1), None);
    }

    #[test]
    fn blocks_cover_exactly_what_was_asked() {
        let tail = tail_of(&[100, 5000, 70_000, 500_000]);
        let mut at = 4096;
        for (position, buffer) in tail.blocks(4096, 4096 * 100).unwrap() {
            assert_eq!(position, at);
            assert_eq!(&buffer[..], &bytes(usize::try_from(at).unwrap(), buffer.len())[..]);
            at += buffer.len() as u64;
        }
        assert_eq!(at, 4096 * 100);
    }

    #[test]
    fn large_appends_are_written_without_a_copy() {
        let mut tail = Tail::new(0, 4096);
        for _ in 0..5 {
            tail.push(&bytes(0, 61));
            tail.push(&bytes(61, 250_000));
        }
        let end = align_down(tail.end(), 4096);
        let shared = |(at, buffer): &(u64, FrozenBuffer)| {
            let chunk = tail.chunks.at(*at).unwrap();
            chunk.buffer.bytes().as_ptr() == buffer.as_ptr()
        };
        let (whole, copied): (Vec<_>, Vec<_>) =
            tail.blocks(0, end).unwrap().into_iter().partition(shared);
        let bytes_of = |blocks: &[(u64, FrozenBuffer)]| -> usize {
            blocks.iter().map(|(_, buffer)| buffer.len()).sum()
        };
        assert!(bytes_of(&copied) <= 4096, "{} B were copied", bytes_of(&copied));
        assert!(bytes_of(&whole) > 1_200_000);
    }

    #[test]
    fn truncation_keeps_what_is_below_and_appends_go_on_there() {
        for cut in [0u64, 1, 4095, 4096, 4097, 70_000, 75_099] {
            let mut tail = tail_of(&[100, 5000, 70_000]);
            let view = tail.slices(4096, 75_100).unwrap();
            tail.truncate(cut);
            assert_eq!(tail.end(), cut);
            assert!(tail.is_loaded());
            tail.push(&[7; 10_000]);
            let cut = usize::try_from(cut).unwrap();
            let mut expected = bytes(0, cut);
            expected.extend_from_slice(&[7; 10_000]);
            assert_eq!(tail.copy(0, cut as u64 + 10_000), Some(expected), "cut at {cut}");
            let seen: Vec<u8> = view.iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(seen, bytes(4096, 75_100 - 4096), "readers keep what they saw");
        }
    }

    #[test]
    fn dropped_chunks_are_gone_and_the_last_one_stays() {
        let mut tail = tail_of(&[100, 5000, 70_000]);
        assert!(tail.drop_before(75_100) > 0);
        assert!(tail.start() > 0);
        assert!(tail.is_loaded());
        assert_eq!(tail.copy(0, 10), None);
    }
}
