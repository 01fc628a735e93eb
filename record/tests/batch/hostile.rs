//! Damage is found, lies are refused, nothing panics, nothing swallows memory.

use levada_record::batch::{BatchError, BatchView, next_batch, peek_header};
use levada_record::header::HEADER_BYTES;
use levada_record::{
    Attributes, BatchHeader, Compression, CompressionError, Encoding, Offset, ProduceRules,
    RecordError, Timestamp, TopicConfig, VerifyLimits, verify_produced,
};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::records::{ENCODINGS, build, encoding, every_form, few, header, read, reseal, seal};

fn verify(bytes: &[u8]) -> Result<BatchView<'_>, BatchError> {
    BatchView::verify(bytes, &VerifyLimits::DEFAULT)
}

/// Everything that reads bytes, on the same bytes.
fn read_every_way(bytes: &[u8]) {
    let limits = VerifyLimits { max_batch_bytes: 1 << 20, max_inflated_bytes: 1 << 16 };
    drop(peek_header(bytes));
    let mut rest = bytes;
    while let Ok(Some((view, behind))) = next_batch(rest, &limits) {
        let mut scratch = Vec::new();
        if let Ok(records) = view.records(&mut scratch, limits.max_inflated_bytes) {
            assert!(records.count() <= view.record_count() as usize + 1);
        }
        assert!(behind.len() < rest.len());
        rest = behind;
    }
    let config = TopicConfig::parse([("record.validation", "full")]).unwrap();
    drop(verify_produced(bytes, &ProduceRules::of(&config, Timestamp(1_000))));
    for codec in Compression::ALL {
        let mut out = Vec::new();
        if codec.decompress_bounded(bytes, 1 << 16, &mut out).is_ok() {
            assert!(out.len() <= 1 << 16);
        }
    }
}

#[test]
fn every_flipped_bit_is_found_but_those_of_base_offset_and_leader_epoch() {
    for (encoding, codec) in every_form() {
        let sound = build(encoding, codec, &few());
        for bit in 0..sound.len() * 8 {
            let mut bytes = sound.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let stamped = matches!(bit / 8, 0..8 | 12..16);
            // The sign of the base offset is the one stamped bit that makes no sense.
            let expected = stamped && bit != 7;
            assert_eq!(verify(&bytes).is_ok(), expected, "{encoding}, {codec}, bit {bit}");
        }
    }
}

#[test]
fn every_cut_is_found() {
    for (encoding, codec) in every_form() {
        let sound = build(encoding, codec, &few());
        for cut in 0..sound.len() {
            let error = verify(&sound[..cut]).unwrap_err();
            let expected = if cut < HEADER_BYTES {
                BatchError::TooShort { got_bytes: cut }
            } else {
                BatchError::Truncated { batch_bytes: sound.len(), got_bytes: cut }
            };
            assert_eq!(error, expected);
        }
    }
}

#[test]
fn a_second_batch_and_a_stray_byte_are_found() {
    let one = build(Encoding::Columnar, Compression::None, &few());
    let two = [one.clone(), one.clone()].concat();
    let error = verify(&two).unwrap_err();
    let batch_bytes = one.len();
    assert_eq!(error, BatchError::TrailingBytes { batch_bytes, trailing_bytes: batch_bytes });
    let stray = [one, vec![0]].concat();
    let error = verify(&stray).unwrap_err();
    assert_eq!(error, BatchError::TrailingBytes { batch_bytes, trailing_bytes: 1 });
}

#[test]
fn headers_that_make_no_sense_are_refused_for_what_is_wrong() {
    for encoding in ENCODINGS {
        check_senseless_headers(encoding);
    }
}

fn check_senseless_headers(encoding: Encoding) {
    let sound = build(encoding, Compression::None, &few());
    let check = |change: fn(&mut BatchHeader), expected: BatchError| {
        let bytes = reseal(&sound, change);
        assert_eq!(verify(&bytes).unwrap_err(), expected);
    };
    let mut other = sound.clone();
    other[16] = 3;
    assert_eq!(verify(&other).unwrap_err(), BatchError::Magic { got: 3 });
    check(|h| h.base_offset = Offset(-1), offsets(-1, 2));
    check(|h| h.base_offset = Offset(i64::MAX - 2), offsets(i64::MAX - 2, 2));
    check(|h| h.last_offset_delta = -1, offsets(0, -1));
    check(|h| h.record_count = -1, count(-1, 2));
    check(|h| h.record_count = 4, count(4, 2));
    check(|h| h.attributes = Attributes(5), BatchError::Codec { id: 5 });
    check(|h| h.attributes = Attributes(7), BatchError::Codec { id: 7 });
    let claims = |h: &mut BatchHeader| {
        h.record_count = i32::MAX;
        h.last_offset_delta = i32::MAX - 1;
    };
    check(claims, count(i32::MAX, i32::MAX - 1));
    let compressed = reseal(&build(encoding, Compression::Zstd, &few()), claims);
    assert_eq!(verify(&compressed).unwrap_err(), count(i32::MAX, i32::MAX - 1));
    for declared_bytes in [48, 0, -1, i32::MIN] {
        let mut bytes = sound.clone();
        bytes[8..12].copy_from_slice(&i32::to_be_bytes(declared_bytes));
        assert_eq!(verify(&bytes).unwrap_err(), BatchError::Length { declared_bytes });
    }
}

fn offsets(base: i64, last_offset_delta: i32) -> BatchError {
    BatchError::Offsets { base: Offset(base), last_offset_delta }
}

fn count(record_count: i32, last_offset_delta: i32) -> BatchError {
    BatchError::Count { record_count, last_offset_delta }
}

#[test]
fn old_message_sets_are_named_by_their_magic_however_short() {
    let mut bytes = vec![0; 34];
    bytes[16] = 1;
    assert_eq!(verify(&bytes).unwrap_err(), BatchError::Magic { got: 1 });
    assert_eq!(verify(&[0; 16]).unwrap_err(), BatchError::TooShort { got_bytes: 16 });
}

#[test]
fn a_batch_above_the_limit_is_refused_before_its_bytes_are_there() {
    let bytes = build(Encoding::KafkaV2, Compression::None, &few());
    let limits = VerifyLimits { max_batch_bytes: 100, ..VerifyLimits::DEFAULT };
    let expected = BatchError::TooLarge { got_bytes: bytes.len(), max_bytes: 100 };
    assert_eq!(BatchView::verify(&bytes[..70], &limits).unwrap_err(), expected);
}

/// One record in a batch that counts `record_count`.
#[track_caller]
fn check_record(record_count: i32, payload: &[u8], index: u32, reason: RecordError) {
    let expected = BatchError::Record { index, reason };
    let bytes = seal(header(Compression::None, record_count), payload);
    assert_eq!(verify(&bytes).unwrap_err(), expected);
    // The same, hidden in every codec: found when somebody reads it.
    for codec in Compression::ALL {
        let mut compressed = Vec::new();
        codec.compress(payload, &mut compressed);
        let bytes = seal(header(codec, record_count), &compressed);
        assert_eq!(read(&bytes).unwrap_err(), expected, "{codec}");
    }
}

/// The smallest record: length 6, attributes, deltas 0, null key, null value, no headers.
const SMALLEST: [u8; 7] = [12, 0, 0, 0, 1, 1, 0];

#[test]
fn records_that_are_none_are_refused_for_what_is_wrong() {
    assert!(verify(&seal(header(Compression::None, 1), &SMALLEST)).is_ok());
    check_record(1, &[14, 0, 0, 0, 1, 1, 0], 0, RecordError::Truncated);
    check_record(1, &[10, 0, 0, 0, 1, 1, 0], 0, RecordError::Truncated);
    check_record(1, &[1, 0, 0, 0, 1, 1, 0], 0, RecordError::Length { declared: -1 });
    check_record(1, &[14, 0, 0, 0, 1, 1, 0, 9], 0, RecordError::LeftOver { bytes: 1 });
    check_record(1, &[12, 0, 0, 0, 1, 1, 0, 9], 1, RecordError::LeftOver { bytes: 1 });
    check_record(1, &[12, 0, 0, 0, 3, 1, 0], 0, RecordError::Length { declared: -2 });
    check_record(1, &[12, 0, 0, 0, 1, 1, 1], 0, RecordError::HeaderCount { declared: -1 });
    check_record(1, &[12, 0, 0, 0, 1, 1, 2], 0, RecordError::HeaderCount { declared: 1 });
    let null_key = [16, 0, 0, 0, 1, 1, 2, 1, 1];
    check_record(1, &null_key, 0, RecordError::Length { declared: -1 });
    let second = [12, 0, 0, 0, 1, 1, 0, 12, 0, 0, 0, 1, 1, 0];
    check_record(2, &second, 1, RecordError::OffsetDelta { got: 0, previous: 0, last: 1 });
    let beyond = [12, 0, 0, 2, 1, 1, 0];
    check_record(1, &beyond, 0, RecordError::OffsetDelta { got: 1, previous: -1, last: 0 });
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    check_record(1, &endless, 0, RecordError::Varint);
    let far = [30, 0, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 1, 1, 0];
    check_record(1, &far, 0, RecordError::TimestampDelta { delta: i64::MAX });
}

#[test]
fn a_count_above_the_records_is_found_while_walking() {
    let padded = [&SMALLEST[..], &[0; 8]].concat();
    check_record(2, &padded, 1, RecordError::Truncated);
}

#[test]
fn a_million_headers_in_a_few_bytes_are_refused_before_the_first() {
    // Header count 1,000,000 with nothing behind it.
    let payload = [16, 0, 0, 0, 1, 1, 0x80, 0x89, 0x7a];
    check_record(1, &payload, 0, RecordError::HeaderCount { declared: 1_000_000 });
}

#[test]
fn reading_stops_after_the_first_error() {
    let bytes = seal(header(Compression::Gzip, 3), &{
        let mut out = Vec::new();
        Compression::Gzip.compress(&[12, 0, 0, 0, 1, 1, 0, 3, 3, 3], &mut out);
        out
    });
    let view = verify(&bytes).unwrap();
    let mut scratch = Vec::new();
    let read: Vec<bool> =
        view.records(&mut scratch, 1_000).unwrap().map(|record| record.is_ok()).collect();
    assert_eq!(read, [true, false]);
}

/// Goal: a small batch cannot make a large buffer. Method: 16 MiB of zeros in each codec's words,
/// inflated with a limit of 256 KiB; the buffer may double on its way, no more.
#[test]
fn bombs_are_stopped_at_the_limit() {
    const LIMIT: usize = 256 * 1024;
    let zeros = vec![0; 16 << 20];
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut bomb = Vec::new();
        codec.compress(&zeros, &mut bomb);
        assert!(bomb.len() < 1 << 20, "{codec}: {} B", bomb.len());
        let mut out = Vec::new();
        let stopped = codec.decompress_bounded(&bomb, LIMIT, &mut out);
        assert_eq!(stopped, Err(CompressionError::TooLarge { codec, max_bytes: LIMIT }));
        assert!(out.is_empty());
        assert!(out.capacity() <= 2 * LIMIT + 64, "{codec}: {} B", out.capacity());

        let batch = seal(header(codec, 1), &bomb);
        let view = verify(&batch).unwrap();
        let limit = u32::try_from(LIMIT).unwrap();
        assert!(matches!(
            view.records(&mut out, limit),
            Err(BatchError::Compression(CompressionError::TooLarge { .. }))
        ));
    }
}

#[test]
fn exactly_the_limit_fits_and_one_byte_more_does_not() {
    let content: Vec<u8> =
        (0..100_000u32).map(|i| i.to_le_bytes()[usize::from(i % 3 == 0)]).collect();
    for codec in Compression::ALL {
        let mut compressed = Vec::new();
        codec.compress(&content, &mut compressed);
        let mut out = vec![1; 10];
        codec.decompress_bounded(&compressed, content.len(), &mut out).unwrap();
        assert_eq!(out, content, "{codec}");
        let stopped = codec.decompress_bounded(&compressed, content.len() - 1, &mut out);
        let max_bytes = content.len() - 1;
        assert_eq!(stopped, Err(CompressionError::TooLarge { codec, max_bytes }));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
        read_every_way(&bytes);
    }

    #[test]
    fn random_records_behind_a_sound_header_never_panic(
        payload in vec(any::<u8>(), 0..200), count in 0..40i32, delta: i32, attributes in 0..64i16,
        base: i64, base_timestamp: i64, encoding in encoding(),
    ) {
        let mut header = header(Compression::None, count);
        header.encoding = encoding;
        header.last_offset_delta = delta;
        header.attributes = Attributes(attributes);
        header.base_offset = Offset(base);
        header.base_timestamp = Timestamp(base_timestamp);
        read_every_way(&seal(header, &payload));
    }

    #[test]
    fn damaged_compressed_bytes_never_panic(
        at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>(),
    ) {
        for codec in Compression::ALL {
            let mut compressed = Vec::new();
            codec.compress(&[7; 500], &mut compressed);
            let at = at.index(compressed.len());
            compressed[at] = byte;
            read_every_way(&compressed);
            compressed.truncate(cut.index(compressed.len()));
            read_every_way(&compressed);
        }
    }
}
