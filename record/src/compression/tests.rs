//! Claims about the codecs that a batch cannot show: dialects, several frames, lies about sizes.

use super::*;

const TEXT: &[u8] = b"a levada carries water, a levada carries water, a levada carries water";

fn inflate(codec: Compression, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let mut out = Vec::new();
    codec.decompress_bounded(input, 1 << 20, &mut out).map(|()| out)
}

#[track_caller]
fn check_corrupt(codec: Compression, input: &[u8]) {
    let refused = inflate(codec, input);
    assert!(matches!(refused, Err(CompressionError::Corrupt { .. })), "{refused:?}");
}

fn deflate(codec: Compression, input: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    codec.compress(input, &mut out);
    out
}

#[test]
fn codecs_keep_their_numbers_and_names() {
    for codec in Compression::ALL {
        assert_eq!(Compression::from_id(codec.id()), Some(codec));
        assert_eq!(Compression::from_name(codec.name()), Some(codec));
    }
    assert_eq!(Compression::from_id(5), None);
    assert_eq!(Compression::Zstd.id(), 4);
}

#[test]
fn compressed_bytes_are_appended() {
    for codec in Compression::ALL {
        let mut out = b"before".to_vec();
        codec.compress(TEXT, &mut out);
        assert_eq!(inflate(codec, out.strip_prefix(b"before").unwrap()).unwrap(), TEXT);
    }
}

#[test]
fn nothing_survives_every_codec() {
    for codec in Compression::ALL {
        assert_eq!(inflate(codec, &deflate(codec, b"")), Ok(Vec::new()), "{codec}");
    }
}

#[test]
fn every_cut_of_a_compressed_stream_is_found() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let whole = deflate(codec, TEXT);
        for cut in 0..whole.len() {
            // Snappy's frames end where a block ends: behind the frame's header is such a place,
            // and no bytes at all are no blocks.
            let between_blocks = codec == Compression::Snappy && cut == 16;
            if between_blocks {
                continue;
            }
            let refused = inflate(codec, whole.get(..cut).unwrap());
            assert!(refused.is_err(), "{codec} cut to {cut} of {} B", whole.len());
        }
    }
}

#[test]
fn lz4_cut_between_two_blocks_is_found() {
    let noise: Vec<u8> =
        (0..200_000u32).map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let whole = deflate(Compression::Lz4, &noise);
    // The first block ends behind the header of 7 bytes, its length and so many bytes.
    let length: [u8; 4] = whole[7..11].try_into().unwrap();
    let block_end = 11 + (u32::from_le_bytes(length) & 0x7fff_ffff) as usize;
    check_corrupt(Compression::Lz4, &whole[..block_end]);
    assert_eq!(inflate(Compression::Lz4, &whole).unwrap(), noise);
}

#[test]
fn raw_snappy_is_read_too() {
    let raw = snap::raw::Encoder::new().compress_vec(TEXT).unwrap();
    assert_eq!(inflate(Compression::Snappy, &raw).unwrap(), TEXT);
}

#[test]
fn snappy_streams_in_a_row_are_read_as_one() {
    let twice = deflate(Compression::Snappy, TEXT).repeat(2);
    assert_eq!(inflate(Compression::Snappy, &twice).unwrap(), TEXT.repeat(2));
}

#[test]
fn snappy_lies_about_sizes_allocate_nothing() {
    // Raw block that claims 4 GiB - 1 and brings one byte.
    let mut out = Vec::new();
    let claims_most = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    let refused = Compression::Snappy.decompress_bounded(&claims_most, usize::MAX, &mut out);
    assert!(matches!(refused, Err(CompressionError::Corrupt { .. })), "{refused:?}");
    assert_eq!(out.capacity(), 0);
    // Frame whose block claims 2 GiB of bytes to come.
    let mut frame = deflate(Compression::Snappy, TEXT);
    frame[16..20].copy_from_slice(&0x7fff_ffffu32.to_be_bytes());
    check_corrupt(Compression::Snappy, &frame);
}

#[test]
fn gzip_members_in_a_row_are_read_as_one() {
    let twice = deflate(Compression::Gzip, TEXT).repeat(2);
    assert_eq!(inflate(Compression::Gzip, &twice).unwrap(), TEXT.repeat(2));
}

#[test]
fn bytes_behind_the_end_are_refused() {
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let mut input = deflate(codec, TEXT);
        input.push(1);
        check_corrupt(codec, &input);
    }
}

#[test]
fn zstd_frames_in_a_row_are_read_as_one_even_behind_an_empty_one() {
    let mut frames = deflate(Compression::Zstd, b"");
    let content = TEXT.repeat(3_000);
    frames.extend(deflate(Compression::Zstd, &content));
    assert_eq!(inflate(Compression::Zstd, &frames).unwrap(), content);
}

#[test]
fn zstd_frames_that_do_not_tell_their_size_are_read_and_bounded() {
    let content = vec![b'x'; 900_000];
    let frame = zstd::stream::encode_all(content.as_slice(), 3).unwrap();
    assert_eq!(zstd::zstd_safe::get_frame_content_size(&frame).unwrap(), None);
    assert_eq!(inflate(Compression::Zstd, &frame).unwrap(), content);
    let mut out = Vec::new();
    let stopped = Compression::Zstd.decompress_bounded(&frame, 899_999, &mut out);
    assert!(matches!(stopped, Err(CompressionError::TooLarge { .. })), "{stopped:?}");
}

/// Level 22 without a known size asks for a window of 128 MiB; we never allocate one.
#[test]
fn zstd_windows_of_any_size_are_read() {
    let content = TEXT.repeat(100);
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&content).unwrap();
    let frame = encoder.finish().unwrap();
    assert_eq!(inflate(Compression::Zstd, &frame).unwrap(), content);
}

#[test]
fn zstd_lies_about_sizes_allocate_nothing() {
    // Magic, a descriptor with an eight-byte content size in a single segment, and 2^60 as the size.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    frame.extend_from_slice(&(1u64 << 60).to_le_bytes());
    let mut out = Vec::new();
    let refused = Compression::Zstd.decompress_bounded(&frame, 1 << 20, &mut out);
    assert!(matches!(refused, Err(CompressionError::TooLarge { .. })), "{refused:?}");
    assert_eq!(out.capacity(), 0);
}

#[test]
fn no_codec_takes_nothing_for_a_stream() {
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        check_corrupt(codec, b"");
    }
}
