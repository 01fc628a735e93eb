//! Cuts a byte stream into frames: 4 bytes of length, then as many bytes. `[P]`
//! Produce path 2/9: bytes to frames; from `broker/net/connection.rs`; to `protocol/kafka.rs`.
//!
//! The length is a stranger's claim. It is checked against the limit before anything acts on it, and the buffer grows
//! with the bytes that arrive, at most to twice of what is there. The caller reads from its socket straight into the
//! buffer ([`FrameBuffer::spare_mut`], [`FrameBuffer::advance`]); a whole frame is split off without a copy.
#![deny(clippy::indexing_slicing)]

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest frame by default, in bytes without its length field; Kafka's `socket.request.max.bytes`.
pub const MAX_FRAME_BYTES_DEFAULT: u32 = 100 * 1024 * 1024;

/// First and least room for a read, in bytes: what an idle connection costs.
const READ_BYTES_MIN: usize = 4 * 1024;

/// Most room for a read when no long frame is under way, in bytes.
const READ_BYTES_MAX: usize = 256 * 1024;

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
    /// Received bytes, then zeroes for the next read.
    bytes: BytesMut,
    /// How many bytes are received.
    received: usize,
    /// How much room to offer to the next read.
    read_bytes: usize,
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
        Self { bytes: BytesMut::new(), received: 0, read_bytes: READ_BYTES_MIN, max_frame_bytes }
    }

    /// Bytes received and not handed out.
    pub const fn buffered_bytes(&self) -> usize {
        self.received
    }

    /// Memory held, in bytes; frames that were handed out keep their own.
    pub fn capacity_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Bytes received and not handed out: part of a frame, or frames not yet asked for.
    pub fn buffered(&self) -> &[u8] {
        self.bytes.get(..self.received).unwrap_or_default()
    }

    /// Room for the next read, never empty. Take all whole frames with [`Self::next_frame`] first, or the buffer
    /// grows by what is not taken.
    pub fn spare_mut(&mut self) -> &mut [u8] {
        let end = self.received + self.room();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.received..end).unwrap_or_default()
    }

    /// How many bytes the next read may bring.
    fn room(&self) -> usize {
        match self.claimed() {
            // To the end of the frame, but not by more than what has arrived of it.
            Some(Ok(length)) if length + LENGTH_BYTES > self.received => {
                let missing = length + LENGTH_BYTES - self.received;
                missing.min(self.received.max(self.read_bytes)).max(READ_BYTES_MIN.min(missing))
            }
            _ => self.read_bytes,
        }
    }

    /// Notes that `read_bytes` bytes were read into [`Self::spare_mut`].
    ///
    /// # Panics
    /// When that is more than the room that was offered.
    pub fn advance(&mut self, read_bytes: usize) {
        let room = self.bytes.len() - self.received;
        assert!(read_bytes <= room, "read {read_bytes} B into {room} B");
        self.received += read_bytes;
        // A reader that fills its room gets more, one that does not gets less.
        self.read_bytes = if read_bytes >= self.read_bytes {
            (self.read_bytes * 2).min(READ_BYTES_MAX)
        } else if read_bytes < self.read_bytes / 4 {
            (self.read_bytes / 2).max(READ_BYTES_MIN)
        } else {
            self.read_bytes
        };
    }

    /// Appends bytes that were read elsewhere.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let spare = self.spare_mut();
            let length = spare.len().min(bytes.len());
            let (now, later) = bytes.split_at(length);
            spare.split_at_mut(length).0.copy_from_slice(now);
            self.advance(length);
            bytes = later;
        }
    }

    /// The length before the first frame, once it is there.
    fn claimed(&self) -> Option<Result<usize, FrameError>> {
        let claimed_bytes = i32::from_be_bytes(*self.buffered().first_chunk()?);
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
        let Some(length) = self.claimed().transpose()? else { return Ok(None) };
        Ok(Some((length + LENGTH_BYTES).saturating_sub(self.received)))
    }

    /// Hands out the first frame, without its length, once it is whole. Its bytes are shared with the buffer, not
    /// copied: a frame that is kept keeps the memory of the read it came with.
    ///
    /// # Errors
    /// [`FrameError`] when the length is impossible. It stays so: close the connection.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.claimed().transpose()? else { return Ok(None) };
        let end = length + LENGTH_BYTES;
        if end > self.received {
            return Ok(None);
        }
        let mut frame = self.bytes.split_to(end).freeze();
        frame.advance(LENGTH_BYTES);
        self.received -= end;
        if self.received == 0 && self.bytes.len() < READ_BYTES_MIN {
            // Nothing is left here: let go of the frame's memory, so that it is freed with the frame.
            self.bytes = BytesMut::new();
        }
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests;
