//! Claims about single fields of the header.

use super::*;
use proptest::prelude::*;

#[test]
fn attribute_bits_are_where_kafka_put_them() {
    let attributes = Attributes::new(Compression::Zstd).transactional().control();
    assert_eq!(attributes.0, 0b11_0100);
    assert!(attributes.is_transactional());
    assert!(attributes.is_control());
    let timed = attributes.with_timestamp_type(TimestampType::LogAppendTime);
    assert_eq!(timed.0, 0b11_1100);
    assert_eq!(timed.with_timestamp_type(TimestampType::CreateTime), attributes);
    assert!(Attributes(1 << 6).has_delete_horizon());
    assert_eq!(Attributes(-1).reserved_bits(), !0b11_1111);
    assert_eq!(Attributes(0b0000_0101).codec(), None);
    assert_eq!(Attributes(-1).codec_id(), 7);
}

#[test]
#[should_panic(expected = "60 B are no verified batch")]
fn stamping_less_than_a_header_is_our_own_fault() {
    stamp(&mut [0; 60], Offset(1), LeaderEpoch(1));
}

#[test]
fn digest_bytes_end_with_the_checksum() {
    assert_eq!(DIGEST_BYTES, 21);
    assert_eq!(digest_header_bytes(&[0; 20]), None);
    assert_eq!(digest_header_bytes(&[7; 30]), Some(&[7; 21]));
}

#[test]
fn sequences_wrap_behind_the_greatest() {
    let mut header = BatchHeader::decode(&[0; HEADER_BYTES], Encoding::KafkaV2);
    header.base_sequence = i32::MAX;
    assert_eq!(header.last_sequence(), Some(i32::MAX));
    header.last_offset_delta = 1;
    assert_eq!(header.last_sequence(), Some(0));
    header.producer_id = ProducerId::NONE;
    assert_eq!(header.last_sequence(), None);
}

proptest! {
    #[test]
    fn any_61_bytes_survive_decoding_and_encoding(head: [u8; 32], tail: [u8; 29]) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..32].copy_from_slice(&head);
        bytes[32..].copy_from_slice(&tail);
        for encoding in [Encoding::KafkaV2, Encoding::Columnar] {
            bytes[MAGIC_AT] = encoding.magic();
            prop_assert_eq!(BatchHeader::decode(&bytes, encoding).encode(), bytes);
        }
    }

    #[test]
    fn a_parsed_header_never_panics_whatever_it_says(head: [u8; 32], tail: [u8; 29]) {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..32].copy_from_slice(&head);
        bytes[32..].copy_from_slice(&tail);
        bytes[MAGIC_AT] = MAGIC_KAFKA_V2;
        // Small values, so that some of them make sense.
        for at in [BASE_OFFSET_AT, LENGTH_AT, LAST_OFFSET_DELTA_AT, RECORD_COUNT_AT] {
            bytes[at] &= 0x80;
        }
        if let Ok(header) = BatchHeader::parse(&bytes) {
            prop_assert!(header.base_offset <= header.last_offset());
            prop_assert!(header.last_offset() < header.end_offset());
            prop_assert!(header.total_bytes() >= HEADER_BYTES);
            header.last_sequence();
        }
    }
}
