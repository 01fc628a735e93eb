//! Claims about [`KafkaRecords`] that need its inside: it knows what is left, headers can be read twice.

use super::*;
use crate::batch::BatchView;
use crate::builder::{BatchBuilder, NewRecord};
use crate::compression::Compression;
use crate::limits::VerifyLimits;

#[test]
fn records_count_down_and_headers_can_be_read_again() {
    let mut builder = BatchBuilder::new(Compression::None);
    let headers =
        [RecordHeader { key: b"a", value: Some(b"1") }, RecordHeader { key: b"a", value: None }];
    builder.push(&NewRecord { headers: &headers, ..NewRecord::default() }).unwrap();
    builder.push(&NewRecord::default()).unwrap();
    assert_eq!(builder.record_count(), 2);
    let announced = builder.uncompressed_bytes();
    let bytes = builder.finish().unwrap();
    assert_eq!(bytes.len(), announced);
    let view = BatchView::verify(&bytes, &VerifyLimits::DEFAULT).unwrap();
    let mut records = view.plain_records().unwrap();
    assert_eq!(records.left(), 2);
    let first = records.next().unwrap().unwrap();
    assert_eq!(records.left(), 1);
    assert_eq!(first.headers.len(), 2);
    assert_eq!(first.headers.iter().collect::<Vec<_>>(), headers);
    assert_eq!(first.headers.into_iter().collect::<Vec<_>>(), headers);
    assert!(records.next().unwrap().unwrap().headers.is_empty());
    assert!(records.next().is_none());
}

#[test]
fn a_walk_finds_gaps_and_timestamps() {
    let mut builder = BatchBuilder::new(Compression::None);
    let at = |timestamp| NewRecord { timestamp: Timestamp(timestamp), ..NewRecord::default() };
    builder.push(&at(50)).unwrap();
    builder.push(&at(-1)).unwrap();
    builder.push_at(4, &at(70)).unwrap();
    let bytes = builder.finish().unwrap();
    let view = BatchView::verify(&bytes, &VerifyLimits::DEFAULT).unwrap();
    let records = KafkaRecords::new(view.header(), view.payload());
    let walk = walk(records, |timestamp| timestamp < Timestamp(60)).unwrap();
    let expected = Walk {
        max_timestamp: Timestamp(70),
        first_gap: Some(2),
        out_of_range: Some((2, Timestamp(70))),
    };
    assert_eq!(walk, expected);
}
