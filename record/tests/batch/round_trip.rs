//! What goes in comes out, whatever the codec; what the leader writes into a batch keeps it sound.

use levada_record::batch::{BatchView, next_batch};
use levada_record::header::{
    digest_header_bytes, rewrite_log_append_time, rewrite_max_timestamp, stamp,
};
use levada_record::{
    BatchBuilder, BuildError, Compression, Encoding, LeaderEpoch, NewRecord, Offset, ProducerEpoch,
    ProducerId, Timestamp, TimestampType, VerifyLimits,
};
use proptest::prelude::*;

use crate::records::{ENCODINGS, build, codec, encoding, every_form, few, push, read, records};

fn verify(bytes: &[u8]) -> BatchView<'_> {
    BatchView::verify(bytes, &VerifyLimits::DEFAULT).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_survive_every_encoding_and_codec(
        records in records(), encoding in encoding(), codec in codec(),
    ) {
        let bytes = build(encoding, codec, &records);
        let read = read(&bytes).unwrap();
        for (index, (offset, _)) in read.iter().enumerate() {
            prop_assert_eq!(*offset, Offset(i64::try_from(index).unwrap()));
        }
        let read: Vec<_> = read.into_iter().map(|(_, record)| record).collect();
        prop_assert_eq!(&read, &records);
        let header = *verify(&bytes).header();
        prop_assert_eq!(header.max_timestamp, records.iter().map(|r| r.timestamp).max().unwrap());
        prop_assert_eq!(header.base_timestamp, records[0].timestamp);
        prop_assert_eq!(header.total_bytes(), bytes.len());
    }

    #[test]
    fn stamping_keeps_the_checksum_right(
        records in records(), encoding in encoding(), codec in codec(), base in 0..i64::MAX / 2,
        epoch: i32,
    ) {
        let mut bytes = build(encoding, codec, &records);
        let before = *verify(&bytes).header();
        stamp(&mut bytes, Offset(base), LeaderEpoch(epoch));
        let view = verify(&bytes);
        prop_assert_eq!(view.base_offset(), Offset(base));
        prop_assert_eq!(view.end_offset().since(Offset(base)), i64::try_from(records.len()).unwrap());
        prop_assert_eq!(view.header().leader_epoch, LeaderEpoch(epoch));
        prop_assert_eq!(view.header().checksum, before.checksum);
        prop_assert_eq!(read(&bytes).unwrap()[0].0, Offset(base));
    }
}

#[test]
fn append_time_replaces_every_timestamp_and_keeps_the_checksum_right() {
    for (encoding, codec) in every_form() {
        let mut bytes = build(encoding, codec, &few());
        rewrite_log_append_time(&mut bytes, Timestamp(42));
        let header = *verify(&bytes).header();
        assert_eq!(header.attributes.timestamp_type(), TimestampType::LogAppendTime);
        assert_eq!(header.attributes.codec(), Some(codec));
        assert_eq!(header.max_timestamp, Timestamp(42));
        for (_, record) in read(&bytes).unwrap() {
            assert_eq!(record.timestamp, Timestamp(42));
        }
    }
}

#[test]
fn a_corrected_max_timestamp_keeps_the_checksum_right() {
    for encoding in ENCODINGS {
        let mut bytes = build(encoding, Compression::None, &few());
        rewrite_max_timestamp(&mut bytes, Timestamp(7));
        assert_eq!(verify(&bytes).header().max_timestamp, Timestamp(7));
    }
}

#[test]
fn batches_follow_one_another_and_a_cut_off_tail_is_told_apart() {
    let one = build(Encoding::KafkaV2, Compression::Zstd, &few());
    let two = build(Encoding::Columnar, Compression::None, &few());
    let both = [one.clone(), two.clone()].concat();
    let (first, rest) = next_batch(&both, &VerifyLimits::DEFAULT).unwrap().unwrap();
    assert_eq!(first.bytes(), one);
    let (second, rest) = next_batch(rest, &VerifyLimits::DEFAULT).unwrap().unwrap();
    assert_eq!(second.bytes(), two);
    assert!(next_batch(rest, &VerifyLimits::DEFAULT).unwrap().is_none());
    for cut in 1..two.len() {
        let tail = &both[one.len()..one.len() + cut];
        let error = next_batch(tail, &VerifyLimits::DEFAULT).unwrap_err();
        assert!(error.is_cut_off(), "{cut} bytes: {error}");
    }
}

#[test]
fn the_header_holds_what_the_builder_was_told() {
    let mut builder = BatchBuilder::new(Compression::Lz4)
        .producer(ProducerId(9), ProducerEpoch(3), i32::MAX - 1)
        .transactional()
        .at(Offset(1_000), LeaderEpoch(4));
    for record in few() {
        push(&mut builder, &record);
    }
    let bytes = builder.finish().unwrap();
    let view = verify(&bytes);
    let header = view.header();
    assert_eq!((header.producer_id, header.producer_epoch), (ProducerId(9), ProducerEpoch(3)));
    assert_eq!(header.base_sequence, i32::MAX - 1);
    assert_eq!(header.last_sequence(), Some(0), "sequences wrap to 0");
    assert!(header.attributes.is_transactional());
    assert!(!header.attributes.is_control());
    assert_eq!((view.base_offset(), view.last_offset()), (Offset(1_000), Offset(1_002)));
    assert_eq!(header.leader_epoch, LeaderEpoch(4));
    assert_eq!(view.digest_input(), digest_header_bytes(&bytes).unwrap());
    assert_eq!(view.digest_input()[..], bytes[..21]);
}

#[test]
fn compacted_batches_keep_their_gaps() {
    for encoding in ENCODINGS {
        let mut builder =
            BatchBuilder::encoded(encoding, Compression::None).at(Offset(100), LeaderEpoch(1));
        builder.push(&NewRecord::default()).unwrap();
        builder.push_at(2, &NewRecord::default()).unwrap();
        builder.push_at(7, &NewRecord::default()).unwrap();
        let refused = builder.push_at(7, &NewRecord::default());
        assert_eq!(refused, Err(BuildError::OffsetDelta { got: 7, previous: 7 }));
        let read = read(&builder.finish().unwrap()).unwrap();
        let offsets: Vec<Offset> = read.into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(offsets, [Offset(100), Offset(102), Offset(107)]);
    }
}

#[test]
fn the_builder_refuses_what_no_batch_can_hold() {
    assert_eq!(BatchBuilder::new(Compression::None).finish(), Err(BuildError::Empty));
    let mut builder = BatchBuilder::new(Compression::None);
    let at = |timestamp| NewRecord { timestamp: Timestamp(timestamp), ..NewRecord::default() };
    builder.push(&at(i64::MAX)).unwrap();
    let refused = builder.push(&at(-2)).unwrap_err();
    assert_eq!(refused, BuildError::Timestamp { got: Timestamp(-2), base: Timestamp(i64::MAX) });
    builder.push_at(i32::MAX, &at(0)).unwrap();
    assert_eq!(builder.push(&at(0)), Err(BuildError::Full));
    assert_eq!(builder.record_count(), 2);
    read(&builder.finish().unwrap()).unwrap();
}

/// Drawn by hand from `docs/formats/batch.md`, so that the page and the code cannot drift apart.
#[test]
fn the_page_of_the_format_draws_these_bytes() {
    let mut builder = BatchBuilder::new(Compression::None);
    let header = [levada_record::RecordHeader { key: b"h", value: None }];
    let record = NewRecord {
        timestamp: Timestamp(1_000),
        key: Some(b"k"),
        value: Some(b"vw"),
        headers: &header,
    };
    builder.push(&record).unwrap();
    builder.push(&NewRecord { timestamp: Timestamp(999), ..NewRecord::default() }).unwrap();
    let bytes = builder.finish().unwrap();
    let drawn: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 0, // base offset
        0, 0, 0, 69, // length: 49 of the header, 20 of records
        0xff, 0xff, 0xff, 0xff, // leader epoch -1
        2,    // magic
        0, 0, 0, 0, // checksum, compared below
        0, 0, // attributes
        0, 0, 0, 1, // last offset delta
        0, 0, 0, 0, 0, 0, 0x03, 0xe8, // base timestamp 1000
        0, 0, 0, 0, 0, 0, 0x03, 0xe8, // max timestamp 1000
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id -1
        0xff, 0xff, // producer epoch -1
        0xff, 0xff, 0xff, 0xff, // base sequence -1
        0, 0, 0, 2,  // record count
        24, // length 12
        0, 0, 0, // attributes, timestamp delta 0, offset delta 0
        2, b'k', 4, b'v', b'w', // key, value
        2, 2, b'h', 1,  // one header: key, null
        12, // length 6
        0, 1, 2, // attributes, timestamp delta -1, offset delta 1
        1, 1, 0, // null key, null value, no headers
    ];
    let checksum = verify(&bytes).header().checksum.to_be_bytes();
    assert_eq!(bytes[..17], drawn[..17]);
    assert_eq!(bytes[17..21], checksum);
    assert_eq!(bytes[21..], drawn[21..]);
}
