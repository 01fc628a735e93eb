//! Frames: how messages are cut out of a byte stream. `[P]`
//!
//! All integers little-endian.
//!
//! ```text
//! offset | size | field
//!      0 |    4 | length of everything after this field, in bytes
//!      4 |    4 | magic "LVDC"
//!      8 |    2 | version of frame and messages
//!     10 |    2 | zero
//!     12 |    4 | CRC-32C over bytes 0..12 and everything from 16 on
//!     16 |   16 | cluster id, zero while the sender knows none
//!     32 |    8 | request id: chosen by the asker, repeated in the reply, 0 in pushes
//!     40 |    n | FlatBuffers table `Message`
//! ```

use super::decode::{DecodeError, decode_message};
use super::encode::{EncodeError, encode_message};
use super::id::ClusterId;
use super::image::{ClusterImage, Committed};
use super::reply::Reply;
use super::request::Request;

/// Bytes of a frame before its message.
pub const HEADER_BYTES: usize = 40;

/// What every frame has at byte 4.
pub const MAGIC: [u8; 4] = *b"LVDC";

/// Version of frames and messages that this program speaks.
pub const VERSION: u16 = 1;

/// Sent without being asked for, to subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Push {
    /// Replaces whatever image the receiver has.
    Image(Box<ClusterImage>),
    /// Continues the image sent before.
    Changes(Committed),
}

/// What a frame can carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// From broker to coordinator.
    Request(Request),
    /// From coordinator to broker, in the order of the requests.
    Reply(Reply),
    /// From coordinator to a subscriber.
    Push(Push),
}

/// One frame, decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The cluster of the sender, once it knows it.
    pub cluster: Option<ClusterId>,
    /// Which request this is or answers; 0 for pushes.
    pub request_id: u64,
    /// The message.
    pub message: Message,
}

impl Envelope {
    /// The frame's bytes.
    ///
    /// # Errors
    /// [`EncodeError::TooLarge`] when the frame would exceed `max_bytes`.
    pub fn encode(&self, max_bytes: usize) -> Result<Vec<u8>, EncodeError> {
        let mut frame = vec![0; HEADER_BYTES];
        encode_message(&self.message, &mut frame);
        if frame.len() > max_bytes {
            return Err(EncodeError::TooLarge { got_bytes: frame.len(), max_bytes });
        }
        let length = u32::try_from(frame.len() - 4)
            .map_err(|_| EncodeError::TooLarge { got_bytes: frame.len(), max_bytes })?;
        let mut header = [0u8; HEADER_BYTES];
        put(&mut header, 0, &length.to_le_bytes());
        put(&mut header, 4, &MAGIC);
        put(&mut header, 8, &VERSION.to_le_bytes());
        put(&mut header, 16, &self.cluster.unwrap_or_default().0);
        put(&mut header, 32, &self.request_id.to_le_bytes());
        put(&mut frame, 0, &header);
        let checksum = checksum(&frame);
        put(&mut frame, 12, &checksum.to_le_bytes());
        Ok(frame)
    }

    /// Reads one whole frame: exactly the bytes [`frame_bytes`] measured.
    ///
    /// # Errors
    /// [`DecodeError`] says what is wrong with it; the connection is then to be closed.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let header: &[u8; HEADER_BYTES] = frame
            .first_chunk()
            .ok_or(DecodeError::Length { got_bytes: frame.len(), min_bytes: HEADER_BYTES })?;
        check_start(header)?;
        let length = u32::from_le_bytes(array(header, 0));
        if usize::try_from(length).ok().and_then(|length| length.checked_add(4))
            != Some(frame.len())
        {
            return Err(DecodeError::Length { got_bytes: frame.len(), min_bytes: HEADER_BYTES });
        }
        let stored = u32::from_le_bytes(array(header, 12));
        let computed = checksum(frame);
        if stored != computed {
            return Err(DecodeError::Checksum { stored, computed });
        }
        let cluster = ClusterId(array(header, 16));
        let request_id = u64::from_le_bytes(array(header, 32));
        let message = decode_message(frame.get(HEADER_BYTES..).unwrap_or_default())?;
        let cluster = (!cluster.is_nil()).then_some(cluster);
        Ok(Self { cluster, request_id, message })
    }
}

/// Length of the frame that `received` begins with, in bytes; `None` when that cannot be told yet.
/// Refuses what is no frame of ours as soon as the bytes at hand show it.
///
/// # Errors
/// [`DecodeError`] when the frame is longer than `max_bytes`, or not ours at all.
pub fn frame_bytes(received: &[u8], max_bytes: usize) -> Result<Option<usize>, DecodeError> {
    let Some(prefix) = received.first_chunk::<4>() else { return Ok(None) };
    let length = usize::try_from(u32::from_le_bytes(*prefix)).unwrap_or(usize::MAX);
    let total = length.saturating_add(4);
    if total > max_bytes {
        return Err(DecodeError::TooLarge { got_bytes: total, max_bytes });
    }
    if total < HEADER_BYTES {
        return Err(DecodeError::Length { got_bytes: total, min_bytes: HEADER_BYTES });
    }
    if let Some(start) = received.first_chunk::<HEADER_BYTES>() {
        check_start(start)?;
    }
    Ok(Some(total))
}

fn check_start(header: &[u8; HEADER_BYTES]) -> Result<(), DecodeError> {
    let magic: [u8; 4] = array(header, 4);
    if magic != MAGIC {
        return Err(DecodeError::Magic { got: magic });
    }
    let version = u16::from_le_bytes(array(header, 8));
    if version != VERSION {
        return Err(DecodeError::Version { got: version, known: VERSION });
    }
    Ok(())
}

fn checksum(frame: &[u8]) -> u32 {
    let before = crc32c::crc32c(frame.get(..12).unwrap_or_default());
    crc32c::crc32c_append(before, frame.get(16..).unwrap_or_default())
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    bytes
        .get_mut(at..at + field.len())
        .expect("fields lie within the header that was just made")
        .copy_from_slice(field);
}

fn array<const N: usize>(header: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *header
        .get(at..)
        .and_then(<[u8]>::first_chunk)
        .expect("fields lie within the header, whose length its type tells")
}

/// Collects received bytes and gives the frames in them. Holds at most one frame and what came
/// with its last bytes.
#[derive(Debug)]
pub struct FrameReader {
    received: Vec<u8>,
    taken: usize,
    max_bytes: usize,
}

impl FrameReader {
    /// A reader that refuses frames longer than `max_bytes`, header included.
    pub fn new(max_bytes: usize) -> Self {
        Self { received: Vec::new(), taken: 0, max_bytes }
    }

    /// Takes what a read gave. Call [`next_frame`](Self::next_frame) until it has no more before
    /// feeding again, so that memory stays bounded.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.taken > 0 {
            self.received.drain(..self.taken);
            self.taken = 0;
        }
        self.received.extend_from_slice(bytes);
    }

    /// The next whole frame, decoded; `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`DecodeError`] as soon as the bytes cannot become a frame; the stream is useless then.
    pub fn next_frame(&mut self) -> Result<Option<Envelope>, DecodeError> {
        let rest = self.rest();
        let Some(total) = frame_bytes(rest, self.max_bytes)? else { return Ok(None) };
        let Some(frame) = rest.get(..total) else { return Ok(None) };
        let envelope = Envelope::decode(frame)?;
        self.taken += total;
        if self.taken == self.received.len() {
            self.received.clear();
            self.received.shrink_to(64 << 10);
            self.taken = 0;
        }
        Ok(Some(envelope))
    }

    /// What was fed and is not yet taken: the start of the next frame.
    pub fn rest(&self) -> &[u8] {
        self.received.get(self.taken..).unwrap_or_default()
    }

    /// Whether part of a frame is waiting for its rest.
    pub fn is_within_frame(&self) -> bool {
        self.taken < self.received.len()
    }
}
