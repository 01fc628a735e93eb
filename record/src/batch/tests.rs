//! Tests of [`BatchView`]: what verifies, what does not, and why.

use super::*;
use crate::builder::{BatchBuilder, NewRecord};
use crate::epoch::LeaderEpoch;
use crate::header::stamp;
use crate::time::Timestamp;

fn batch_of(codec: Compression, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for (index, value) in values.iter().enumerate() {
        let timestamp = Timestamp(1_000 + i64::try_from(index).unwrap());
        builder.push(&NewRecord { timestamp, value: Some(value), ..NewRecord::default() }).unwrap();
    }
    builder.finish().unwrap()
}

#[test]
fn stamping_changes_offset_and_epoch_and_nothing_the_checksum_covers() {
    let mut bytes = batch_of(Compression::None, &[b"a", b"b"]);
    stamp(&mut bytes, Offset(77), LeaderEpoch(5));
    let view = BatchView::verify(&bytes, &VerifyLimits::DEFAULT).unwrap();
    assert_eq!(view.base_offset(), Offset(77));
    assert_eq!(view.end_offset(), Offset(79));
    assert_eq!(view.header().leader_epoch, LeaderEpoch(5));
    let offsets: Vec<Offset> =
        view.plain_records().unwrap().map(|record| record.unwrap().offset).collect();
    assert_eq!(offsets, [Offset(77), Offset(78)]);
}
