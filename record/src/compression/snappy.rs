//! Snappy: read raw or in the frames of the library xerial/snappy-java, written in those frames,
//! because that is what Kafka's Java client demands. `[P]`
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | 0x82, `SNAPPY`, 0x00 |
//! | 8 | 4 | version, big endian |
//! | 12 | 4 | oldest version that can read it, big endian |
//! | 16 | 4 | bytes of the next block, big endian |
//! | 20 | .. | the block in raw Snappy; then the next length and block, until the end |

use std::io;

use super::Stop;

const MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const VERSION: u32 = 1;
/// Magic, version, oldest version.
const FRAME_HEADER_BYTES: usize = 16;
/// Bytes that go into one block when we write: the Java library's default.
const BLOCK_BYTES: usize = 32 * 1024;
/// No element of raw Snappy turns fewer bytes into more than a three-byte copy of 64 bytes.
const RATIO_MAX: usize = 22;
/// Most bytes of the length in front of a raw block.
const LENGTH_BYTES_MAX: usize = 5;

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&VERSION.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(BLOCK_BYTES)];
    for chunk in input.chunks(BLOCK_BYTES) {
        let written = encoder.compress(chunk, &mut block)?;
        let compressed = block.get(..written).unwrap_or_default();
        let bytes = u32::try_from(written).map_err(io::Error::other)?;
        out.extend_from_slice(&bytes.to_be_bytes());
        out.extend_from_slice(compressed);
    }
    Ok(())
}

pub(super) fn decompress(input: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    if !input.starts_with(&MAGIC) {
        return raw_block(input, max_bytes, out);
    }
    let mut rest = input;
    while !rest.is_empty() {
        // A stream may be several streams, one after another, each with its own header.
        if rest.starts_with(&MAGIC) {
            rest = rest.get(FRAME_HEADER_BYTES..).ok_or("frame header cut off")?;
            continue;
        }
        let (length, behind) = rest.split_first_chunk::<4>().ok_or("block length cut off")?;
        let bytes =
            usize::try_from(u32::from_be_bytes(*length)).map_err(|_| "block longer than memory")?;
        let (block, behind) = behind.split_at_checked(bytes).ok_or("block cut off")?;
        raw_block(block, max_bytes, out)?;
        rest = behind;
    }
    Ok(())
}

/// Appends one raw block. What it claims to inflate to is held against the limit, and against what
/// its bytes could possibly make, before a byte is reserved.
fn raw_block(block: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    let claimed = snap::raw::decompress_len(block).map_err(io::Error::from)?;
    if claimed > max_bytes.saturating_sub(out.len()) {
        return Err(Stop::TooLarge);
    }
    if claimed > block.len().saturating_add(LENGTH_BYTES_MAX).saturating_mul(RATIO_MAX) {
        return Err("block claims more than its bytes can make".into());
    }
    let start = out.len();
    out.resize(start + claimed, 0);
    let target = out.get_mut(start..).unwrap_or_default();
    snap::raw::Decoder::new().decompress(block, target).map_err(io::Error::from)?;
    Ok(())
}
