//! Zstandard frames, inflated in one go into a buffer that is the window itself: what a frame says
//! about its window never allocates anything. `[P]`

use std::io;

use zstd::zstd_safe::{self, DCtx};

use super::Stop;

/// The library's own default, and the Java client's.
const LEVEL: i32 = 3;
/// Smallest first guess at the inflated bytes of a frame that does not tell them.
const FIRST_GUESS_BYTES: usize = 64 * 1024;
/// How many times its compressed bytes such a frame is guessed to hold; doubled until it fits.
const FIRST_GUESS_RATIO: usize = 8;
/// The library's error 70, destination too small, as its functions return it.
const DESTINATION_TOO_SMALL: usize = 0usize.wrapping_sub(70);

pub(super) fn compress(input: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let compressed = zstd::bulk::compress(input, LEVEL)?;
    out.extend_from_slice(&compressed);
    Ok(())
}

pub(super) fn decompress(input: &[u8], max_bytes: usize, out: &mut Vec<u8>) -> Result<(), Stop> {
    if input.is_empty() {
        return Err("no frame".into());
    }
    let mut context = DCtx::try_create().ok_or("no memory for a context")?;
    let mut capacity = first_capacity(input, max_bytes)?;
    loop {
        out.clear();
        out.reserve_exact(capacity);
        // The library may use all that the allocator gave, which can be more than was asked for.
        let room = out.capacity();
        match context.decompress(out, input) {
            Ok(_) if out.len() > max_bytes => return Err(Stop::TooLarge),
            Ok(_) => return Ok(()),
            Err(DESTINATION_TOO_SMALL) if room >= max_bytes => return Err(Stop::TooLarge),
            Err(DESTINATION_TOO_SMALL) => {
                // Several frames, or one that does not tell its size: each pass at least doubles.
                capacity = room.saturating_mul(2).max(FIRST_GUESS_BYTES).min(max_bytes);
            }
            Err(code) => return Err(zstd_safe::get_error_name(code).into()),
        }
    }
}

/// What the first frame says about itself, or a guess; at most `max_bytes`.
fn first_capacity(input: &[u8], max_bytes: usize) -> Result<usize, Stop> {
    match zstd_safe::get_frame_content_size(input) {
        Ok(Some(told)) => match usize::try_from(told) {
            Ok(told) if told <= max_bytes => Ok(told),
            _ => Err(Stop::TooLarge),
        },
        Ok(None) => {
            let guess = input.len().saturating_mul(FIRST_GUESS_RATIO).max(FIRST_GUESS_BYTES);
            Ok(guess.min(max_bytes))
        }
        Err(_) => Err("no frame header".into()),
    }
}
