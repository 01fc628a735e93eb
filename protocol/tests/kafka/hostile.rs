//! Bytes that nobody should send: each gives an error, none a panic, and none much memory.

use levada_protocol::kafka::describe_groups::DescribeGroupsRequest;
use levada_protocol::kafka::metadata::MetadataRequest;
use levada_protocol::kafka::{
    AnyRequest, AnyResponse, ApiKey, Decode as _, DecodeError, HeaderError, Reader, RequestHeader,
};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::random::{self, Role, Sample, every_message, seed};

#[test]
fn every_truncation_is_an_error() {
    let seed = seed();
    every_message(seed, 3, |sample| {
        for cut in 0..sample.with_unknown_tags.len() {
            let bytes = &sample.with_unknown_tags[..cut];
            let result = random::decode(sample, bytes);
            assert!(result.is_err(), "LEVADA_SEED={seed} cut at {cut}: {sample:?}");
        }
    });
}

#[test]
fn every_byte_too_many_is_an_error() {
    let seed = seed();
    every_message(seed, 3, |sample| {
        let mut bytes = sample.bytes.clone();
        bytes.push(0);
        let error = random::decode(sample, &bytes).unwrap_err();
        assert_eq!(error, DecodeError::TrailingBytes { left_bytes: 1 }, "LEVADA_SEED={seed}");
    });
}

/// Decodes whatever it is, and encodes it again if it is a message after all.
fn survive(sample: &Sample, bytes: &[u8]) {
    let Ok(any) = random::decode(sample, bytes) else { return };
    let written = random::encode(&any, sample.version).unwrap();
    assert!(written.len() <= bytes.len(), "{sample:?}");
    assert_eq!(random::decode(sample, &written), Ok(any));
}

#[test]
fn mutated_messages_never_panic() {
    let seed = seed();
    println!("LEVADA_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    every_message(seed, 6, |sample| {
        for _ in 0..24 {
            let mut bytes = sample.with_unknown_tags.clone();
            for _ in 0..rng.random_range(1..4) {
                if bytes.is_empty() {
                    break;
                }
                let at = rng.random_range(0..bytes.len());
                match rng.random_range(0..5) {
                    0 => bytes[at] ^= 1 << rng.random_range(0..8),
                    1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
                    2 => bytes.insert(at, rng.random()),
                    3 => bytes.truncate(at),
                    _ => {
                        for byte in bytes.iter_mut().skip(at).take(4) {
                            *byte = 0xff;
                        }
                    }
                }
            }
            survive(sample, &bytes);
        }
    });
}

#[test]
fn random_bytes_never_panic() {
    let seed = seed();
    println!("LEVADA_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for row in ApiKey::table() {
        for version in row.accepted.min..=row.accepted.max {
            for role in [Role::Request, Role::Response] {
                for _ in 0..60 {
                    let length = rng.random_range(0..80);
                    let small = rng.random_bool(0.5);
                    let byte = |_| if small { rng.random_range(0..4) } else { rng.random() };
                    let bytes: Vec<u8> = (0..length).map(byte).collect();
                    let sample = Sample {
                        key: row.key,
                        role,
                        version,
                        bytes: Vec::new(),
                        with_unknown_tags: Vec::new(),
                    };
                    survive(&sample, &bytes);
                }
            }
        }
    }
}

#[test]
fn count_that_the_bytes_cannot_hold_is_refused_before_memory_is_taken() {
    // Two thousand million topics in four bytes.
    let bytes = [0x7f, 0xff, 0xff, 0xff];
    assert_eq!(
        AnyRequest::decode(ApiKey::Metadata, &bytes, 1),
        Err(DecodeError::CountTooLarge { at: 4, count: 0x7fff_ffff, left_bytes: 0 })
    );
    // The same, compact: 4,294,967,294 brokers.
    let bytes = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(
        AnyResponse::decode(ApiKey::Metadata, &bytes, 9),
        Err(DecodeError::CountTooLarge { at: 9, count: 0xffff_fffe, left_bytes: 0 })
    );
}

/// `count` groups with empty names, the smallest item there is: one byte on the wire, 24 in memory.
fn empty_groups(count: usize) -> Vec<u8> {
    let length = u32::try_from(count + 1).unwrap();
    let mut bytes = Vec::new();
    for shift in [0, 7, 14, 21] {
        bytes.push(u8::try_from(length >> shift & 0x7f).unwrap() | 0x80);
    }
    bytes.push(0);
    bytes.extend(vec![1; count]);
    bytes.extend([0, 0]);
    bytes
}

#[test]
fn memory_of_all_arrays_stays_in_the_budget() {
    const ITEM: usize = size_of::<std::borrow::Cow<'_, str>>();
    let bytes = empty_groups(1000);
    let mut r = Reader::with_heap_bytes_max(&bytes, 1000 * ITEM);
    let request = DescribeGroupsRequest::decode(&mut r, 5).unwrap();
    assert_eq!(request.groups.len(), 1000);
    assert_eq!(r.heap_bytes_left(), 0);
    let error =
        DescribeGroupsRequest::decode_all(Reader::with_heap_bytes_max(&bytes, 1000 * ITEM - 1), 5);
    let (needed_bytes, left_bytes) = (1000 * ITEM, 1000 * ITEM - 1);
    assert_eq!(error, Err(DecodeError::HeapBudget { at: 5, needed_bytes, left_bytes }));
}

#[test]
fn default_budget_is_reached_by_a_frame_that_is_allowed() {
    // 3 MiB of frame that would take 72 MiB of memory.
    let bytes = empty_groups(3 * 1024 * 1024);
    let error = DescribeGroupsRequest::decode_all(Reader::new(&bytes), 5);
    assert!(matches!(error, Err(DecodeError::HeapBudget { .. })), "{error:?}");
}

#[track_caller]
fn check_header(bytes: &[u8], error: HeaderError) {
    assert_eq!(RequestHeader::decode(&mut Reader::new(bytes)), Err(error));
}

#[test]
fn short_header_is_an_error() {
    let whole = [0, 18, 0, 3, 0, 0, 0, 1, 0, 2, b'm', b'e', 0];
    assert!(RequestHeader::decode(&mut Reader::new(&whole)).is_ok());
    for cut in 0..whole.len() {
        let result = RequestHeader::decode(&mut Reader::new(&whole[..cut]));
        assert!(matches!(result, Err(HeaderError::Malformed(_))), "cut at {cut}: {result:?}");
    }
}

#[test]
fn unknown_api_and_version_name_the_request() {
    let unknown = HeaderError::UnknownApi { api_key: 77, api_version: 2, correlation_id: 5 };
    check_header(&[0, 77, 0, 2, 0, 0, 0, 5], unknown);
    let api_key = ApiKey::ApiVersions;
    let newer = HeaderError::UnsupportedVersion { api_key, api_version: 99, correlation_id: 5 };
    // What follows may be anything in a newer version: it is not looked at.
    check_header(&[0, 18, 0, 99, 0, 0, 0, 5], newer);
    check_header(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff, 0xfe], newer);
    let api_key = ApiKey::Produce;
    let older = HeaderError::UnsupportedVersion { api_key, api_version: 2, correlation_id: -1 };
    check_header(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], older);
    let negative = HeaderError::UnsupportedVersion { api_key, api_version: -1, correlation_id: 0 };
    check_header(&[0, 0, 0xff, 0xff, 0, 0, 0, 0], negative);
}

#[test]
fn client_id_that_is_not_utf8_does_not_cost_the_connection() {
    let bytes = [0, 18, 0, 0, 0, 0, 0, 1, 0, 2, 0xff, b'e'];
    let header = RequestHeader::decode(&mut Reader::new(&bytes)).unwrap();
    assert_eq!(header.client_id.as_deref(), Some("\u{fffd}e"));
    let bytes = [0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xfe];
    check_header(&bytes, HeaderError::Malformed(DecodeError::BadLength { at: 10, length: -2 }));
}

#[track_caller]
fn check_metadata(version: i16, bytes: &[u8], error: DecodeError) {
    assert_eq!(MetadataRequest::decode_all(Reader::new(bytes), version), Err(error));
}

#[test]
fn each_kind_of_nonsense_has_its_error() {
    // A null array where version 0 knows none.
    check_metadata(0, &[0xff; 4], DecodeError::UnexpectedNull { at: 4 });
    assert!(MetadataRequest::decode_all(Reader::new(&[0xff; 4]), 1).is_ok());
    check_metadata(1, &[0xff, 0xff, 0xff, 0xfe], DecodeError::BadLength { at: 4, length: -2 });
    let name = |length: [u8; 2], rest: &[u8]| [&[0, 0, 0, 1][..], &length, rest].concat();
    check_metadata(1, &name([0xff, 0xff], &[]), DecodeError::UnexpectedNull { at: 6 });
    check_metadata(1, &name([0x80, 0], &[]), DecodeError::BadLength { at: 6, length: -32768 });
    check_metadata(1, &name([0, 2], &[0xc3, 0x28]), DecodeError::NotUtf8 { at: 6 });
    let truncated = DecodeError::Truncated { at: 6, needed_bytes: 3, left_bytes: 2 };
    check_metadata(1, &name([0, 3], b"ab"), truncated);
    // Lengths of more than 32 bits, and of more than five bytes.
    let varint = DecodeError::VarintTooLong { at: 0 };
    check_metadata(9, &[0xff, 0xff, 0xff, 0xff, 0x1f], varint);
    check_metadata(9, &[0x80, 0x80, 0x80, 0x80, 0x80, 0], varint);
    let unknown = DecodeError::UnknownVersion { message: "MetadataRequest", version: 14 };
    check_metadata(14, &[], unknown);
    let unknown = DecodeError::UnknownVersion { message: "MetadataRequest", version: -1 };
    check_metadata(-1, &[], unknown);
}

#[test]
fn count_of_tagged_fields_is_bounded_by_the_bytes() {
    // No topics, no flags, and 4,294,967,295 tagged fields, of which none is there.
    let bytes = [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let error = DecodeError::Truncated { at: 9, needed_bytes: 1, left_bytes: 0 };
    check_metadata(9, &bytes, error);
    // A tagged field that is longer than the frame.
    let bytes = [1, 0, 0, 0, 1, 99, 0xff, 0xff, 0xff, 0xff, 0x0f];
    let needed_bytes = 0xffff_ffff;
    check_metadata(9, &bytes, DecodeError::Truncated { at: 11, needed_bytes, left_bytes: 0 });
}

#[test]
fn known_tagged_field_has_to_fill_its_size() {
    // Fetch version 12: an empty request with tag 10000 of two bytes instead of one.
    let mut bytes = vec![0; 4 + 4 + 4 + 4 + 1 + 4 + 4];
    bytes.extend([1, 1, 1]);
    let body = bytes.clone();
    bytes.extend([1, 0x90, 0x4e, 1, 1]);
    let AnyRequest::Fetch(fetch) = AnyRequest::decode(ApiKey::Fetch, &bytes, 12).unwrap() else {
        panic!("not a fetch");
    };
    assert_eq!(fetch.levada_columnar, 1);
    let too_long = [&body[..], &[1, 0x90, 0x4e, 2, 1, 1]].concat();
    let error = AnyRequest::decode(ApiKey::Fetch, &too_long, 12);
    assert_eq!(error, Err(DecodeError::TrailingBytes { left_bytes: 1 }));
    let too_short = [&body[..], &[1, 0x90, 0x4e, 0]].concat();
    let error = AnyRequest::decode(ApiKey::Fetch, &too_short, 12);
    assert!(matches!(error, Err(DecodeError::Truncated { .. })), "{error:?}");
}
