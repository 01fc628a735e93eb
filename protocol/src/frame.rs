//! Cuts a byte stream into frames: 4 bytes of length, then as many bytes. `[P]`
//! Produce path 2/9: bytes to frames; from `broker/net/connection.rs`; to `protocol/kafka.rs`.
//!
//! The length is a stranger's claim. It is checked against the limit before anything acts on it, and the buffer grows
//! with the bytes that arrive, at most to twice of what is there, or to what the frame before had. The caller reads from
//! its socket straight behind the bytes that are there ([`FrameBuffer::spare`], [`FrameBuffer::note_read`]); a whole
//! frame is split off without a copy.
#![deny(clippy::indexing_slicing)]

use std::mem;

use bytes::{Buf as _, Bytes};

/// Longest frame by default, in bytes without its length field; Kafka's `socket.request.max.bytes`.
pub const MAX_FRAME_BYTES_DEFAULT: u32 = 100 * 1024 * 1024;

/// First and least room for a read, in bytes: what an idle connection costs.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Most room for a read when no long frame is under way, in bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

/// Most room that is made because the frame before had needed it, in bytes: a request with large batches for several
/// partitions. Memory that nothing was read into yet costs addresses only.
const EXPECTED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the length before a frame.
const LENGTH_BYTES: usize = 4;

/// Why the stream cannot be cut any further: the connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The claimed length is over the limit.
    #[error("frame of {claimed_bytes} B exceeds {max_frame_bytes} B")]
    TooLong {
        /// The length as sent.
        claimed_bytes: u32,
        /// The limit.
        max_frame_bytes: u32,
    },
    /// The claimed length is below zero: these bytes are not Kafka's.
    #[error("frame of {claimed_bytes} B")]
    Negative {
        /// The length as sent.
        claimed_bytes: i32,
    },
}

/// Bytes of one connection that are not yet frames.
#[derive(Debug)]
pub struct FrameBuffer {
    /// Whole frames that were not yet asked for.
    whole: Bytes,
    /// What was received behind them.
    open: Vec<u8>,
    /// How much room to offer to the next read.
    read_bytes: usize,
    /// What the last frame took: the next one may be as long.
    expected_bytes: usize,
    max_frame_bytes: u32,
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new(MAX_FRAME_BYTES_DEFAULT)
    }
}

impl FrameBuffer {
    /// An empty buffer without memory; frames up to `max_frame_bytes`, length field not counted.
    pub fn new(max_frame_bytes: u32) -> Self {
        Self {
            whole: Bytes::new(),
            open: Vec::new(),
            read_bytes: READ_BYTES_MIN,
            expected_bytes: 0,
            max_frame_bytes,
        }
    }

    /// Bytes received and not handed out.
    pub fn buffered_bytes(&self) -> usize {
        self.whole.len() + self.open.len()
    }

    /// Memory held, in bytes; frames that were handed out keep their own.
    pub fn capacity_bytes(&self) -> usize {
        self.whole.len() + self.open.capacity()
    }

    /// The first bytes not handed out: whole frames, or else all there is of the next.
    pub fn buffered(&self) -> &[u8] {
        if self.whole.is_empty() { &self.open } else { &self.whole }
    }

    /// Where the next read puts its bytes: behind those that are there, within the capacity. Take all whole frames with
    /// [`Self::next_frame`] first, or the buffer grows by what is not taken.
    pub fn spare(&mut self) -> &mut Vec<u8> {
        let room = self.room();
        if self.open.capacity() - self.open.len() < room {
            self.open.reserve_exact(room);
        }
        &mut self.open
    }

    /// How many bytes the next read may bring.
    fn room(&self) -> usize {
        let likely = self.expected_bytes.saturating_sub(self.open.len());
        match self.claimed(&self.open) {
            // To the end of the frame, but not by more than what has arrived of it.
            Some(Ok(length)) if length + LENGTH_BYTES > self.open.len() => {
                let missing = length + LENGTH_BYTES - self.open.len();
                missing.min(self.open.len().max(self.read_bytes).max(likely))
            }
            _ => self.read_bytes.max(likely),
        }
    }

    /// Notes that `read_bytes` bytes were read behind what was in [`Self::spare`].
    pub fn note_read(&mut self, read_bytes: usize) {
        // A reader that fills its room gets more, one that does not gets less.
        self.read_bytes = if read_bytes >= self.read_bytes {
            (self.read_bytes * 2).min(READ_BYTES_MAX)
        } else if read_bytes < self.read_bytes / 4 {
            (self.read_bytes / 2).max(READ_BYTES_MIN)
        } else {
            self.read_bytes
        };
    }

    /// Gives memory back that no received byte is in: nothing will be read for a while.
    pub fn rest(&mut self) {
        if self.open.is_empty() {
            self.open = Vec::new();
        }
    }

    /// Appends bytes that were read elsewhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare();
            let (now, later) = bytes.split_at(bytes.len().min(spare.capacity() - spare.len()));
            spare.extend_from_slice(now);
            self.note_read(now.len());
            bytes = later;
        }
    }

    /// The length before the first frame of `bytes`, once it is there.
    fn claimed(&self, bytes: &[u8]) -> Option<Result<usize, FrameError>> {
        let claimed_bytes = i32::from_be_bytes(*bytes.first_chunk()?);
        let max_frame_bytes = self.max_frame_bytes;
        Some(match u32::try_from(claimed_bytes) {
            Err(_) => Err(FrameError::Negative { claimed_bytes }),
            Ok(claimed_bytes) if claimed_bytes > max_frame_bytes => {
                Err(FrameError::TooLong { claimed_bytes, max_frame_bytes })
            }
            Ok(length) => Ok(usize::try_from(length).unwrap_or(usize::MAX)),
        })
    }

    /// How many more bytes the first frame needs; `None` when not even its length is there, 0 when it is whole.
    ///
    /// # Errors
    /// [`FrameError`] when the length is impossible. It stays so: close the connection.
    pub fn missing_bytes(&self) -> Result<Option<usize>, FrameError> {
        let bytes = self.buffered();
        let Some(length) = self.claimed(bytes).transpose()? else { return Ok(None) };
        Ok(Some((length + LENGTH_BYTES).saturating_sub(bytes.len())))
    }

    /// Hands out the first frame, without its length, once it is whole. Its bytes are shared with the buffer, not
    /// copied: a frame that is kept keeps the memory of the read it came with.
    ///
    /// # Errors
    /// [`FrameError`] when the length is impossible. It stays so: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        if self.missing_bytes()? != Some(0) {
            return Ok(None);
        }
        if self.whole.is_empty() {
            let end = self.whole_frames_end();
            let behind = self.open.get(end..).unwrap_or_default().to_vec();
            let mut whole = mem::replace(&mut self.open, behind);
            whole.truncate(end);
            self.whole = Bytes::from(whole);
        }
        let Some(length) = self.claimed(&self.whole).transpose()? else { return Ok(None) };
        let end = length + LENGTH_BYTES;
        let mut frame = self.whole.split_to(end);
        frame.advance(LENGTH_BYTES);
        self.expected_bytes = end.min(EXPECTED_BYTES_MAX);
        Ok(Some(frame))
    }

    /// Exclusive end of the whole frames at the front of `open`.
    fn whole_frames_end(&self) -> usize {
        let mut end = 0;
        while let Some(Ok(length)) = self.open.get(end..).and_then(|rest| self.claimed(rest)) {
            let next = end + LENGTH_BYTES + length;
            if next > self.open.len() {
                break;
            }
            end = next;
        }
        end
    }
}

#[cfg(test)]
mod tests;
