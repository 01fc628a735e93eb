//! Records by chance, and batches made of them by hand.

use levada_record::batch::{BatchError, BatchView};
use levada_record::checksum::batch_checksum;
use levada_record::header::{BatchHeader, NO_SEQUENCE};
use levada_record::limits::INFLATED_BYTES_MAX_DEFAULT;
use levada_record::{
    Attributes, BatchBuilder, Compression, Encoding, LeaderEpoch, NewRecord, Offset, ProducerEpoch,
    ProducerId, RecordHeader, Timestamp, VerifyLimits,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// A record that owns its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owned {
    pub(crate) timestamp: Timestamp,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    pub(crate) headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Repetition, so that codecs have something to find.
    prop_oneof![
        vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..3_000usize).prop_map(|(byte, count)| vec![byte; count]),
    ]
}

fn record() -> impl Strategy<Value = Owned> {
    // Half the range each way, so that no difference of two leaves it.
    let timestamp = prop_oneof![-1i64..4_000_000_000_000, i64::MIN / 2..=i64::MAX / 2,];
    let header = ("[ -~äß€]{0,12}", option::of(vec(any::<u8>(), 0..12)));
    (timestamp, option::of(bytes()), option::of(bytes()), vec(header, 0..4)).prop_map(
        |(timestamp, key, value, headers)| Owned {
            timestamp: Timestamp(timestamp),
            key,
            value,
            headers: headers.into_iter().map(|(key, value)| (key.into_bytes(), value)).collect(),
        },
    )
}

pub(crate) fn records() -> impl Strategy<Value = Vec<Owned>> {
    vec(record(), 1..12)
}

pub(crate) fn codec() -> impl Strategy<Value = Compression> {
    proptest::sample::select(&Compression::ALL[..])
}

pub(crate) fn push(builder: &mut BatchBuilder, record: &Owned) {
    let headers: Vec<RecordHeader<'_>> = record
        .headers
        .iter()
        .map(|(key, value)| RecordHeader { key, value: value.as_deref() })
        .collect();
    builder
        .push(&NewRecord {
            timestamp: record.timestamp,
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        })
        .unwrap();
}

pub(crate) const ENCODINGS: [Encoding; 2] = [Encoding::KafkaV2, Encoding::Columnar];

pub(crate) fn encoding() -> impl Strategy<Value = Encoding> {
    proptest::sample::select(&ENCODINGS[..])
}

/// Every encoding with every codec.
pub(crate) fn every_form() -> impl Iterator<Item = (Encoding, Compression)> {
    ENCODINGS.into_iter().flat_map(|encoding| Compression::ALL.map(|codec| (encoding, codec)))
}

pub(crate) fn build(encoding: Encoding, codec: Compression, records: &[Owned]) -> Vec<u8> {
    let mut builder = BatchBuilder::encoded(encoding, codec);
    for record in records {
        push(&mut builder, record);
    }
    builder.finish().unwrap()
}

/// A few plain records: key, value, a header twice, nulls.
pub(crate) fn few() -> Vec<Owned> {
    let record = |at: i64, key: Option<&str>, value: Option<&str>, headers| Owned {
        timestamp: Timestamp(1_700_000_000_000 + at),
        key: key.map(|key| key.as_bytes().to_vec()),
        value: value.map(|value| value.as_bytes().to_vec()),
        headers,
    };
    let twice = vec![
        (b"trace".to_vec(), Some(b"1".to_vec())),
        (b"trace".to_vec(), None),
        (b"".to_vec(), Some(b"".to_vec())),
    ];
    vec![
        record(5, Some("key"), Some("value value value"), vec![]),
        record(0, None, Some(""), twice),
        record(9, Some(""), None, vec![]),
    ]
}

/// All records of the one batch in `bytes`.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<(Offset, Owned)>, BatchError> {
    let view = BatchView::verify(bytes, &VerifyLimits::DEFAULT)?;
    let mut scratch = Vec::new();
    view.records(&mut scratch, INFLATED_BYTES_MAX_DEFAULT)?
        .map(|record| {
            let record = record?;
            let owned = Owned {
                timestamp: record.timestamp,
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                headers: record
                    .headers
                    .iter()
                    .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                    .collect(),
            };
            Ok((record.offset, owned))
        })
        .collect()
}

/// The header of a sound batch of `record_count` records, for tests that then make it unsound.
pub(crate) fn header(codec: Compression, record_count: i32) -> BatchHeader {
    BatchHeader {
        base_offset: Offset::ZERO,
        length_bytes: 0,
        leader_epoch: LeaderEpoch::NONE,
        encoding: Encoding::KafkaV2,
        checksum: 0,
        attributes: Attributes::new(codec),
        last_offset_delta: record_count - 1,
        base_timestamp: Timestamp(1_000),
        max_timestamp: Timestamp(1_000),
        producer_id: ProducerId::NONE,
        producer_epoch: ProducerEpoch::NONE,
        base_sequence: NO_SEQUENCE,
        record_count,
    }
}

/// Puts header and payload together with the right length and checksum: what a liar would do.
pub(crate) fn seal(mut header: BatchHeader, payload: &[u8]) -> Vec<u8> {
    let payload_at = header.encoding.payload_at();
    header.length_bytes = i32::try_from(payload_at - 12 + payload.len()).unwrap();
    let whole = |header: &BatchHeader| {
        let mut bytes = header.encode().to_vec();
        bytes.resize(payload_at, 0);
        bytes.extend_from_slice(payload);
        bytes
    };
    header.checksum = batch_checksum(&whole(&header));
    whole(&header)
}

/// The batch in `bytes` with its header changed and its checksum made right again.
pub(crate) fn reseal(bytes: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader::parse(bytes).unwrap();
    change(&mut header);
    seal(header, &bytes[header.encoding.payload_at()..])
}
