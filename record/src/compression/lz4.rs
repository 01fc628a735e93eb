//! LZ4 frames: one frame with independent blocks and no checksums, as Kafka's Java client writes
//! and its reader demands. `[P]`

use std::io::{self, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use super::{Stop, read_bounded};

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut frame = FrameEncoder::with_frame_info(info, out);
    frame.write_all(input)?;
    frame.finish()?;
    Ok(())
}

/// The frame header can make the decoder reserve at most two blocks of the greatest size (8 MiB)
/// and a window, untouched until used.
pub(super) fn decompress(input: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    let mut frame = FrameDecoder::new(input);
    read_bounded(&mut frame, max_bytes, out)?;
    if !frame.into_inner().is_empty() {
        return Err("bytes after the end of the frame".into());
    }
    if ends_with_end_mark(input) { Ok(()) } else { Err("frame without its end".into()) }
}

/// The decoder takes a cut between two blocks for the end, so the end mark is looked for here: four
/// zero bytes, before the content checksum when there is one.
fn ends_with_end_mark(input: &[u8]) -> bool {
    const FLAGS_AT: usize = 4;
    const CONTENT_CHECKSUM: u8 = 1 << 2;
    let checksummed = input.get(FLAGS_AT).is_some_and(|flags| flags & CONTENT_CHECKSUM != 0);
    let trailer_bytes = if checksummed { 4 } else { 0 };
    let end = input.len().saturating_sub(trailer_bytes);
    input.get(..end).is_some_and(|frame| frame.ends_with(&[0; 4]))
}
