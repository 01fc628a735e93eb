//! Frames come out whole, whatever the cuts; claims of length move no memory.

use super::{
    EXPECTED_BYTES_MAX, FrameBuffer, FrameError, LENGTH_BYTES, READ_BYTES_MAX, READ_BYTES_MIN,
};

fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend(i32::try_from(frame.len()).unwrap().to_be_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn sample() -> Vec<Vec<u8>> {
    vec![vec![1], vec![], vec![2; 7], vec![3; 300], vec![4, 5]]
}

/// Bytes that the next read may bring.
fn room(buffer: &mut FrameBuffer) -> usize {
    let spare = buffer.spare();
    spare.capacity() - spare.len()
}

fn drain(buffer: &mut FrameBuffer, into: &mut Vec<Vec<u8>>) {
    while let Some(frame) = buffer.next_frame().unwrap() {
        into.push(frame.to_vec());
    }
}

#[test]
fn frames_come_out_whole_at_every_cut() {
    let bytes = stream(&sample());
    for first in 0..=bytes.len() {
        for second in first..=bytes.len() {
            let mut buffer = FrameBuffer::new(300);
            let mut frames = Vec::new();
            for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                buffer.feed(part);
                drain(&mut buffer, &mut frames);
            }
            assert_eq!(frames, sample(), "cut at {first} and {second}");
            assert_eq!(buffer.buffered_bytes(), 0);
        }
    }
}

#[test]
fn frames_come_out_whole_byte_by_byte() {
    let mut buffer = FrameBuffer::new(300);
    let mut frames = Vec::new();
    for byte in stream(&sample()) {
        buffer.spare().push(byte);
        buffer.note_read(1);
        drain(&mut buffer, &mut frames);
    }
    assert_eq!(frames, sample());
}

#[test]
fn leftover_stays_for_the_next_owner() {
    let mut buffer = FrameBuffer::default();
    let bytes = stream(&sample());
    buffer.feed(&bytes[..bytes.len() - 1]);
    while buffer.next_frame().unwrap().is_some() {}
    assert_eq!(buffer.buffered(), &[0, 0, 0, 2, 4]);
    assert_eq!(buffer.missing_bytes(), Ok(Some(1)));
}

#[test]
fn length_at_the_limit_passes_and_one_more_does_not() {
    let mut buffer = FrameBuffer::new(10);
    buffer.feed(&stream(&[vec![7; 10]]));
    assert_eq!(buffer.next_frame().unwrap().unwrap().len(), 10);
    assert_eq!(buffer.missing_bytes(), Ok(None));
    buffer.feed(&[0, 0, 0, 11]);
    let error = FrameError::TooLong { claimed_bytes: 11, max_frame_bytes: 10 };
    assert_eq!(buffer.next_frame(), Err(error));
    assert_eq!(buffer.next_frame(), Err(error), "the stream stays lost");
}

#[test]
fn negative_length_is_refused() {
    let mut buffer = FrameBuffer::default();
    buffer.feed(&[0xff, 0xff, 0xff, 0xfe]);
    assert_eq!(buffer.next_frame(), Err(FrameError::Negative { claimed_bytes: -2 }));
}

#[test]
fn claimed_length_moves_no_memory() {
    let mut buffer = FrameBuffer::default();
    // 100 MiB, the longest that is allowed, and three bytes of it.
    buffer.feed(&(100 * 1024 * 1024i32).to_be_bytes());
    buffer.feed(&[1, 2, 3]);
    assert_eq!(buffer.next_frame(), Ok(None));
    assert!(room(&mut buffer) <= READ_BYTES_MIN);
    assert!(buffer.capacity_bytes() <= 4 * READ_BYTES_MIN, "{}", buffer.capacity_bytes());
    // A length that is refused moves none either, even if the caller reads on.
    let mut buffer = FrameBuffer::default();
    buffer.feed(&i32::MAX.to_be_bytes());
    assert!(room(&mut buffer) <= READ_BYTES_MAX);
}

#[test]
fn memory_follows_the_bytes_that_arrive() {
    let length = 3_000_000;
    let bytes = stream(&[vec![9; length]]);
    let mut buffer = FrameBuffer::default();
    let mut left = &bytes[..];
    while !left.is_empty() {
        let now = room(&mut buffer).min(left.len());
        buffer.spare().extend_from_slice(&left[..now]);
        buffer.note_read(now);
        left = &left[now..];
        let arrived = buffer.buffered_bytes();
        assert!(buffer.capacity_bytes() <= (4 * arrived).max(4 * READ_BYTES_MIN));
    }
    let frame = buffer.next_frame().unwrap().unwrap();
    assert_eq!(frame.len(), length);
    drop(frame);
    assert!(buffer.capacity_bytes() < READ_BYTES_MIN, "the frame took its memory along");
}

#[test]
fn whole_frame_is_not_copied() {
    let mut buffer = FrameBuffer::default();
    let bytes = stream(&[vec![1; 100], vec![2; 100]]);
    let spare = buffer.spare();
    spare.extend_from_slice(&bytes);
    let read_into = spare.as_ptr() as usize;
    buffer.note_read(bytes.len());
    let first = buffer.next_frame().unwrap().unwrap();
    let second = buffer.next_frame().unwrap().unwrap();
    assert_eq!(first.as_ptr() as usize, read_into + 4);
    assert_eq!(second.as_ptr() as usize, read_into + 108);
}

#[test]
fn room_for_reads_follows_the_reader() {
    let mut buffer = FrameBuffer::default();
    let small = stream(&[vec![0; 50]]);
    assert_eq!(room(&mut buffer), READ_BYTES_MIN);
    for _ in 0..20 {
        let length = room(&mut buffer);
        assert!(length <= READ_BYTES_MAX);
        let body = vec![0; length - 4];
        buffer.feed(&stream(&[body]));
        while buffer.next_frame().unwrap().is_some() {}
    }
    assert!(room(&mut buffer) > READ_BYTES_MIN);
    for _ in 0..20 {
        buffer.feed(&small);
        while buffer.next_frame().unwrap().is_some() {}
    }
    assert_eq!(room(&mut buffer), READ_BYTES_MIN);
}

#[test]
fn a_frame_as_long_as_the_one_before_is_read_without_growing() {
    let mut buffer = FrameBuffer::default();
    buffer.feed(&stream(&[vec![1; 300_000]]));
    buffer.next_frame().unwrap().unwrap();
    assert!(room(&mut buffer) >= 300_004);
    // Until something arrives, an idle connection gives that back.
    buffer.rest();
    assert_eq!(buffer.capacity_bytes(), 0);
    buffer.feed(&stream(&[vec![1; 10]]));
    buffer.next_frame().unwrap().unwrap();
    assert!(room(&mut buffer) <= READ_BYTES_MAX);
}

#[test]
fn no_frame_has_more_room_made_for_the_next_than_the_limit() {
    let mut buffer = FrameBuffer::default();
    for (length, expected) in [
        (EXPECTED_BYTES_MAX - LENGTH_BYTES, EXPECTED_BYTES_MAX),
        (EXPECTED_BYTES_MAX, EXPECTED_BYTES_MAX),
        (3 * EXPECTED_BYTES_MAX, EXPECTED_BYTES_MAX),
    ] {
        buffer.feed(&stream(&[vec![1; length]]));
        buffer.next_frame().unwrap().unwrap();
        buffer.rest();
        assert_eq!(room(&mut buffer), expected, "behind a frame of {length} B");
    }
}
