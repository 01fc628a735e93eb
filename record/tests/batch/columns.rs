//! Claims about columnar batches: they are what flatc's readers expect, damage behind a right checksum
//! is found column by column, and readers of Kafka's records get every record of them.

use levada_record::batch::{BatchError, BatchView};
use levada_record::convert::to_kafka_v2;
use levada_record::limits::INFLATED_BYTES_MAX_DEFAULT;
use levada_record::{
    BatchBuilder, ColumnarError, Compression, Conversion, ConvertError, Encoding, LeaderEpoch,
    NewRecord, Offset, ProduceError, ProduceRules, ProducerEpoch, ProducerId, RecordHeader,
    Rewrite, Timestamp, TopicConfig, VerifyLimits, rewrite_log_append_time, verify_produced,
};
use proptest::prelude::*;

use crate::records::{Owned, build, codec, few, push, read, records, reseal};

const LIMITS: VerifyLimits = VerifyLimits::DEFAULT;
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn columns(records: &[Owned]) -> Vec<u8> {
    build(Encoding::Columnar, Compression::None, records)
}

fn plain(values: &[&str]) -> Vec<Owned> {
    let value = |value: &&str| Some(value.as_bytes().to_vec());
    let record = |v| Owned { timestamp: NOW, key: None, value: value(v), headers: vec![] };
    values.iter().map(record).collect()
}

fn verify(bytes: &[u8]) -> Result<BatchView<'_>, BatchError> {
    BatchView::verify(bytes, &LIMITS)
}

/// The batch with `bytes` at `at` and the right checksum for them.
fn poked(batch: &[u8], at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    let header = levada_record::peek_header(&batch).unwrap();
    levada_record::rewrite_max_timestamp(&mut batch, header.max_timestamp);
    batch
}

#[track_caller]
fn check_poked(batch: &[u8], at: usize, bytes: &[u8], expected: ColumnarError) {
    let error = verify(&poked(batch, at, bytes)).unwrap_err();
    assert_eq!(error, BatchError::Columnar(expected));
}

#[test]
fn a_record_without_key_costs_its_bytes_and_four_more() {
    let bytes_of = |count: usize| columns(&plain(&vec!["0123456789"; count])).len();
    assert_eq!(bytes_of(202) - bytes_of(2), 200 * 14);
}

#[test]
fn any_record_is_one_look_away() {
    let records = few();
    let bytes = columns(&records);
    let view = verify(&bytes).unwrap();
    let mut scratch = Vec::new();
    let columns = view.columns(&mut scratch, INFLATED_BYTES_MAX_DEFAULT).unwrap().unwrap();
    assert_eq!((columns.len(), columns.is_empty()), (3, false));
    for (index, expected) in records.iter().enumerate().rev() {
        let record = columns.record(index).unwrap();
        assert_eq!(record.offset, Offset(i64::try_from(index).unwrap()));
        assert_eq!(record.timestamp, expected.timestamp);
        assert_eq!(record.key, expected.key.as_deref());
        assert_eq!(record.value, expected.value.as_deref());
        assert_eq!(columns.key(index), record.key);
        assert_eq!(columns.value(index), record.value);
        let headers = record.headers.iter().map(|h| (h.key.to_vec(), h.value.map(<[u8]>::to_vec)));
        assert_eq!(headers.collect::<Vec<_>>(), expected.headers);
        assert_eq!(record.headers.len(), expected.headers.len());
    }
    assert!(columns.record(3).is_none());
    assert_eq!((columns.key(3), columns.value(3)), (None, None));
    let values: Vec<_> = records.iter().map(|record| record.value.as_deref()).collect();
    assert_eq!(columns.values().collect::<Vec<_>>(), values);
    assert_eq!(columns.records().count(), 3);
    assert!(
        verify(&build(Encoding::KafkaV2, Compression::None, &records))
            .unwrap()
            .columns(&mut scratch, INFLATED_BYTES_MAX_DEFAULT)
            .unwrap()
            .is_none()
    );
}

/// Records with nothing but values are walked in a shorter way.
#[test]
fn values_alone_are_read_like_all_others() {
    let records = plain(&["abc", "", "f"]);
    let bytes = columns(&records);
    let view = verify(&bytes).unwrap();
    let one_by_one = |skip: usize| {
        let mut steps = view.plain_records().unwrap().skip(skip);
        let next = move || steps.next().map(|record| record.unwrap());
        std::iter::from_fn(next).map(|r| (r.offset, r.value)).collect::<Vec<_>>()
    };
    for skip in 0..4 {
        let mut folded = Vec::new();
        let records = view.plain_records().unwrap().skip(skip);
        records.for_each(|record| folded.push(record.map(|r| (r.offset, r.value)).unwrap()));
        assert_eq!(folded, one_by_one(skip), "{skip}");
    }
    let read: Vec<_> = read(&bytes).unwrap().into_iter().map(|(_, record)| record).collect();
    assert_eq!(read, records);
}

/// Batches lie at any address of a received frame.
#[test]
fn batches_are_read_at_any_alignment() {
    let records = few();
    let bytes = columns(&records);
    for shift in 0..16 {
        let moved = [vec![0xff; shift], bytes.clone()].concat();
        let read: Vec<_> = read(&moved[shift..]).unwrap().into_iter().map(|(_, r)| r).collect();
        assert_eq!(read, records, "{shift}");
    }
}

/// Drawn by hand from `docs/formats/batch.md`, so that the page and the code cannot drift apart.
#[test]
fn the_page_of_the_format_draws_these_columns() {
    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None);
    let record = NewRecord { timestamp: Timestamp(1_000), ..NewRecord::default() };
    builder.push(&NewRecord { value: Some(b"ab"), ..record }).unwrap();
    builder.push(&NewRecord { key: Some(b"k"), ..record }).unwrap();
    let bytes = builder.finish().unwrap();
    let drawn: &[u8] = &[
        0, 0, 0, // zeros behind the header
        0x24, 0, 0, 0, // the table
        0x20, 0, 0x3c, 0, // lengths of vtable and table
        4, 0, 8, 0, 12, 0, // value_ends, values, value_nulls
        16, 0, 20, 0, 24, 0, // key_ends, keys, key_nulls
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // the other eight
        0x20, 0, 0, 0, // back to the vtable
        0x40, 0, 0, 0, // value_ends at 168
        0x34, 0, 0, 0, // values at 160
        0x44, 0, 0, 0, // value_nulls at 180
        0x50, 0, 0, 0, // key_ends at 196
        0x58, 0, 0, 0, // keys at 208
        0x40, 0, 0, 0, // key_nulls at 188
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // the other eight
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // in the table
        2, 0, 0, 0, b'a', b'b', 0, 0, // values, padding
        2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, // value_ends
        1, 0, 0, 0, 2, 0, 0, 0, // value_nulls, padding
        1, 0, 0, 0, 1, 0, 0, 0, // key_nulls, padding
        2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, // key_ends
        1, 0, 0, 0, b'k', // keys
    ];
    assert_eq!(bytes[16], b'L');
    assert_eq!(bytes[8..12], [0, 0, 0, 201]);
    assert_eq!(bytes[61..], *drawn);
}

/// Positions in a batch of three records without keys, as the page of the format draws it.
mod at {
    pub(super) const PADDING: usize = 61;
    pub(super) const TABLE: usize = 64;
    pub(super) const VALUE_ENDS_SLOT: usize = 64 + 4 + 4;
    pub(super) const KEYS_SLOT: usize = 64 + 4 + 4 + 4 * 2;
    pub(super) const KEYS_FIELD: usize = 64 + 36 + 4 + 4 * 4;
    pub(super) const VALUES: usize = 64 + 96;
    pub(super) const VALUE_ENDS: usize = VALUES + 4 + 8;
}

#[test]
fn columns_that_are_none_are_refused_for_what_is_wrong() {
    let sound = columns(&plain(&["abc", "de", "f"]));
    assert!(verify(&sound).is_ok());
    assert_eq!(sound[at::VALUES..at::VALUES + 10], *b"\x06\0\0\0abcdef");
    assert_eq!(sound[at::VALUE_ENDS..], [3, 0, 0, 0, 3, 0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0]);

    check_poked(&sound, at::PADDING, &[0, 1, 0], ColumnarError::Padding);
    let ends = |ends: [u32; 3]| ends.map(u32::to_le_bytes).concat();
    let falls = ColumnarError::EndsFall { column: "value_ends", index: 1 };
    check_poked(&sound, at::VALUE_ENDS + 4, &ends([1, 7, 6]), falls.clone());
    check_poked(&sound, at::VALUE_ENDS + 4, &ends([1, u32::MAX, 6]), falls);
    for got in [5, 7, u32::MAX] {
        let got_bytes = usize::try_from(got).unwrap();
        let last = ColumnarError::LastEnd { column: "value_ends", got: got_bytes, expected: 6 };
        check_poked(&sound, at::VALUE_ENDS + 4, &ends([3, 5, got]), last);
    }
    let count = |got| ColumnarError::Count { column: "value_ends", got, expected: 3 };
    check_poked(&sound, at::VALUE_ENDS, &[2, 0, 0, 0], count(2));
    // A column of keys where there are no ends of keys: it borrows the values' place.
    let field = u16::try_from(at::KEYS_FIELD - 64 - 36).unwrap().to_le_bytes();
    let distance = u32::try_from(at::VALUES - at::KEYS_FIELD).unwrap().to_le_bytes();
    let keys = poked(&poked(&sound, at::KEYS_SLOT, &field), at::KEYS_FIELD, &distance);
    let missing = ColumnarError::Missing { column: "key_ends" };
    assert_eq!(verify(&keys).unwrap_err(), BatchError::Columnar(missing));
    // What FlatBuffers' own verifier finds: positions outside, lengths beyond, columns missing.
    for (at, bytes) in [
        (at::TABLE, &[0xff, 0xff, 0xff, 0x7f][..]),
        (at::VALUE_ENDS_SLOT, &[0, 0]),
        (at::VALUES, &[0xff, 0xff, 0xff, 0xff]),
        (at::VALUE_ENDS, &[4, 0, 0, 0]),
    ] {
        let error = verify(&poked(&sound, at, bytes)).unwrap_err();
        assert!(
            matches!(error, BatchError::Columnar(ColumnarError::Table { .. })),
            "byte {at}: {error}"
        );
    }
}

#[test]
fn the_header_has_the_last_word_on_counts_and_times() {
    let sound = columns(&plain(&["abc", "de", "f"]));
    let error = verify(&reseal(&sound, |header| header.record_count = 2)).unwrap_err();
    let expected = ColumnarError::Count { column: "value_ends", got: 3, expected: 2 };
    assert_eq!(error, BatchError::Columnar(expected));

    let mut timed = plain(&["a", "b"]);
    timed[1].timestamp = Timestamp(NOW.0 + 5);
    let far = reseal(&columns(&timed), |header| header.base_timestamp = Timestamp(i64::MAX - 4));
    let expected = ColumnarError::TimestampDelta { delta: 5 };
    assert_eq!(verify(&far).unwrap_err(), BatchError::Columnar(expected));

    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None);
    builder.push_at(1, &NewRecord::default()).unwrap();
    builder.push_at(7, &NewRecord::default()).unwrap();
    let gaps = reseal(&builder.finish().unwrap(), |header| header.last_offset_delta = 6);
    let expected = ColumnarError::OffsetDeltas { last: 6 };
    assert_eq!(verify(&gaps).unwrap_err(), BatchError::Columnar(expected));
}

/// Goal: whatever one byte of the payload is, with a right checksum, the batch is refused or all of it
/// can be read. Method: every byte, a few values.
#[test]
fn every_poked_byte_is_refused_or_read_to_the_end() {
    let sound = columns(&few());
    for at in 64..sound.len() {
        for byte in [0, 1, 2, 4, 0x7f, 0x80, 0xff, sound[at].wrapping_add(1)] {
            let poked = poked(&sound, at, &[byte]);
            if let Ok(records) = read(&poked) {
                assert_eq!(records.len(), 3);
                let view = verify(&poked).unwrap();
                to_kafka_v2(&view, LIMITS).unwrap().unwrap();
            }
        }
    }
}

#[test]
fn lies_inside_of_compressed_columns_are_found_when_they_are_read() {
    let sound = columns(&plain(&["abc", "de", "f"]));
    let mut payload = sound[64..].to_vec();
    payload[at::VALUE_ENDS - 64 + 4] = 9;
    for codec in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
        let mut header = *verify(&sound).unwrap().header();
        header.attributes = header.attributes.with_codec(codec);
        let mut compressed = Vec::new();
        codec.compress(&payload, &mut compressed);
        let batch = crate::records::seal(header, &compressed);
        let expected =
            BatchError::Columnar(ColumnarError::EndsFall { column: "value_ends", index: 0 });
        assert_eq!(read(&batch).unwrap_err(), expected, "{codec}");
        let view = verify(&batch).unwrap();
        let refused = to_kafka_v2(&view, LIMITS).unwrap_err();
        assert_eq!(refused, ConvertError::Batch(expected.clone()));
        let full = TopicConfig::parse([("record.validation", "full")]).unwrap();
        let refused = verify_produced(&batch, &ProduceRules::of(&full, NOW)).unwrap_err();
        assert_eq!(refused, ProduceError::Batch(expected));
    }
}

fn rules(overrides: &[(&str, &str)]) -> ProduceRules {
    ProduceRules::of(&TopicConfig::parse(overrides.iter().copied()).unwrap(), NOW)
}

#[test]
fn topics_judge_columns_as_they_judge_kafka_records() {
    let mut records = plain(&["a", "b", "c"]);
    let sound = columns(&records);
    assert_eq!(verify_produced(&sound, &rules(&[])).unwrap().rewrite, Rewrite::Nothing);

    let wrong = reseal(&sound, |header| header.max_timestamp = Timestamp(5));
    let check = verify_produced(&wrong, &rules(&[])).unwrap();
    assert_eq!(check.rewrite, Rewrite::MaxTimestamp(NOW));
    let mut mended = wrong.clone();
    check.rewrite.apply(&mut mended);
    assert_eq!(mended, sound);

    let by_broker = [("message.timestamp.type", "LogAppendTime")];
    let check = verify_produced(&sound, &rules(&by_broker)).unwrap();
    assert_eq!(check.rewrite, Rewrite::LogAppendTime(NOW));

    records[1].timestamp = Timestamp::NONE;
    records[2].timestamp = Timestamp(NOW.0 - 10_000);
    let before = [("message.timestamp.before.max.ms", "5000")];
    let refused = verify_produced(&columns(&records), &rules(&before)).unwrap_err();
    let ProduceError::Timestamp { record_index, timestamp, .. } = refused else {
        panic!("{refused}");
    };
    assert_eq!((record_index, timestamp), (Some(2), records[2].timestamp));
    records.truncate(2);
    verify_produced(&columns(&records), &rules(&before)).unwrap();

    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None);
    let record = NewRecord { timestamp: NOW, ..NewRecord::default() };
    builder.push(&record).unwrap();
    builder.push_at(2, &record).unwrap();
    let gap = reseal(&builder.finish().unwrap(), |header| header.last_offset_delta = 2);
    assert!(matches!(
        verify_produced(&gap, &rules(&[])),
        Err(ProduceError::CountMismatch { record_count: 2, last_offset_delta: 2 })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A reader of Kafka's records sees the same batch, the broker's own stamps included.
    #[test]
    fn columns_become_the_same_records_in_kafkas_words(
        records in records(), codec in codec(), base in 0..i64::MAX / 2, step in 1..5u32,
    ) {
        let mut builder = BatchBuilder::encoded(Encoding::Columnar, codec)
            .producer(ProducerId(7), ProducerEpoch(2), 33)
            .at(Offset(base), LeaderEpoch(4));
        let mut kafka = BatchBuilder::new(Compression::None)
            .producer(ProducerId(7), ProducerEpoch(2), 33)
            .at(Offset(base), LeaderEpoch(4));
        for record in &records {
            push(&mut builder, record);
            push(&mut kafka, record);
        }
        let bytes = builder.finish().unwrap();
        let view = verify(&bytes).unwrap();
        let mut scratch = Vec::new();
        let mut conversion = Conversion::begin(&view, &mut scratch, LIMITS).unwrap().unwrap();
        while conversion.advance(step).unwrap() == levada_record::convert::Progress::Working {}
        prop_assert_eq!(conversion.finish().unwrap(), kafka.finish().unwrap());
    }
}

#[test]
fn translation_keeps_the_brokers_time_and_the_gaps_of_compaction() {
    let mut builder =
        BatchBuilder::encoded(Encoding::Columnar, Compression::Lz4).at(Offset(50), LeaderEpoch(1));
    let header = [RecordHeader { key: b"h", value: None }];
    for delta in [1, 4] {
        let record = NewRecord { timestamp: NOW, headers: &header, ..NewRecord::default() };
        builder.push_at(delta, &record).unwrap();
    }
    let mut bytes = builder.finish().unwrap();
    rewrite_log_append_time(&mut bytes, Timestamp(42));
    let kafka = to_kafka_v2(&verify(&bytes).unwrap(), LIMITS).unwrap().unwrap();
    assert_eq!(verify(&kafka).unwrap().encoding(), Encoding::KafkaV2);
    let records = read(&kafka).unwrap();
    assert_eq!(records, read(&bytes).unwrap());
    assert_eq!(records.iter().map(|(offset, _)| offset.0).collect::<Vec<_>>(), [51, 54]);
    assert!(records.iter().all(|(_, record)| record.timestamp == Timestamp(42)));
}

#[test]
fn translation_stops_at_its_limit_and_leaves_kafka_batches_alone() {
    let bytes = columns(&plain(&["value"; 100]));
    let limits = VerifyLimits { max_batch_bytes: 700, ..LIMITS };
    let refused = to_kafka_v2(&verify(&bytes).unwrap(), limits).unwrap_err();
    assert_eq!(refused, ConvertError::TooLarge { base: 0, max_bytes: 700 });
    let kafka = build(Encoding::KafkaV2, Compression::None, &few());
    assert_eq!(to_kafka_v2(&verify(&kafka).unwrap(), LIMITS).unwrap(), None);
    let mut scratch = Vec::new();
    let view = verify(&bytes).unwrap();
    let unfinished = Conversion::begin(&view, &mut scratch, LIMITS).unwrap().unwrap();
    assert_eq!(unfinished.finish(), None);
}
