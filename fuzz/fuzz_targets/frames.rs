//! Any byte stream in any cuts: frames come out as a plain reading of the whole stream gives them, and the buffer never
//! holds much more than what has arrived.
//!
//! The first byte sets the limit, the second how the stream is cut.
#![no_main]

use levada_protocol::frame::{FrameBuffer, FrameError};
use libfuzzer_sys::fuzz_target;

/// A buffer of a few reads that are not filled yet.
const SLACK_BYTES: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let [limit, cut, stream @ ..] = data else { return };
    let max_frame_bytes = u32::from(*limit) * 64;
    let mut buffer = FrameBuffer::new(max_frame_bytes);
    let mut frames = Vec::new();
    let mut end = Ok(());
    let mut step = usize::from(*cut) + 1;
    let mut left = stream;
    while !left.is_empty() && end.is_ok() {
        let spare = buffer.spare();
        assert!(spare.capacity() > spare.len());
        let now = step.min(left.len()).min(spare.capacity() - spare.len());
        spare.extend_from_slice(&left[..now]);
        buffer.note_read(now);
        left = &left[now..];
        step = step * 7 % 509 + 1;
        end = loop {
            match buffer.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        assert!(buffer.capacity_bytes() <= 4 * stream.len() + SLACK_BYTES);
    }
    assert_eq!(plain(stream, max_frame_bytes, frames.len()), (frames_as_vecs(&frames), end));
});

fn frames_as_vecs(frames: &[bytes::Bytes]) -> Vec<Vec<u8>> {
    frames.iter().map(|frame| frame.to_vec()).collect()
}

/// The same with the whole stream at hand.
fn plain(
    mut stream: &[u8],
    max_frame_bytes: u32,
    at_most: usize,
) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut frames = Vec::new();
    loop {
        let Some((length, rest)) = stream.split_first_chunk::<4>() else { return (frames, Ok(())) };
        let claimed_bytes = i32::from_be_bytes(*length);
        let Ok(length) = u32::try_from(claimed_bytes) else {
            return (frames, Err(FrameError::Negative { claimed_bytes }));
        };
        if length > max_frame_bytes {
            let error = FrameError::TooLong { claimed_bytes: length, max_frame_bytes };
            return (frames, Err(error));
        }
        let Some((frame, rest)) = rest.split_at_checked(length as usize) else {
            return (frames, Ok(()));
        };
        assert!(frames.len() < at_most, "a frame is missing");
        frames.push(frame.to_vec());
        stream = rest;
    }
}
