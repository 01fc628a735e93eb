//! Any bytes, through everything that reads batches: headers, checksums, records, codecs.
//!
//! The first byte chooses what the rest is: bytes as they are; records behind a sound header; or
//! the same compressed by a codec, or already compressed. Otherwise the checksum would keep the fuzzer
//! out of all that lies behind it.
#![no_main]

use levada_record::batch::{BatchView, next_batch, peek_header};
use levada_record::header::{HEADER_BYTES, NO_SEQUENCE};
use levada_record::{
    Attributes, BatchBuilder, BatchHeader, Compression, Encoding, LeaderEpoch, NewRecord, Offset,
    ProduceRules, ProducerEpoch, ProducerId, RecordHeader, Timestamp, TopicConfig, VerifyLimits,
    rewrite_max_timestamp, stamp, verify_produced,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: VerifyLimits = VerifyLimits { max_batch_bytes: 1 << 20, max_inflated_bytes: 1 << 18 };
const NOW: Timestamp = Timestamp(1_700_000_000_000);

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => check(rest),
        1 => inflate(rest),
        2 => check(&seal(rest, Compression::None, false)),
        _ => {
            let codec = Compression::ALL[usize::from(choice / 4) % Compression::ALL.len()];
            check(&seal(rest, codec, choice >= 128));
        }
    }
});

/// All codecs on the same bytes: never more than the limit comes out.
fn inflate(bytes: &[u8]) {
    let mut out = Vec::new();
    for codec in Compression::ALL {
        let max_bytes = LIMITS.max_inflated_bytes as usize;
        match codec.decompress_bounded(bytes, max_bytes, &mut out) {
            Ok(()) => assert!(out.len() <= max_bytes),
            Err(_) => assert!(out.is_empty()),
        }
    }
}

/// A header whose counts come from the first bytes of `data`, the rest as payload, with the right
/// length and checksum: what a liar would send.
fn seal(data: &[u8], codec: Compression, compress: bool) -> Vec<u8> {
    let (head, payload) = data.split_at(data.len().min(12));
    let byte = |at: usize| head.get(at).copied().unwrap_or_default();
    let record_count = i32::from(byte(0));
    let attributes = i16::from(byte(1) & 0b0111_1000) | i16::from(codec.id());
    let mut compressed = Vec::new();
    let payload = if compress {
        codec.compress(payload, &mut compressed);
        &compressed
    } else {
        payload
    };
    let header = BatchHeader {
        base_offset: Offset(i64::from(byte(2) / 64)),
        length_bytes: i32::try_from(HEADER_BYTES - 12 + payload.len()).expect("small input"),
        leader_epoch: LeaderEpoch(i32::from(byte(3))),
        encoding: Encoding::KafkaV2,
        checksum: 0,
        attributes: Attributes(attributes),
        last_offset_delta: record_count - 1 + i32::from(byte(4) / 64),
        base_timestamp: Timestamp(i64::from_be_bytes([
            byte(5),
            byte(6),
            byte(7),
            byte(8),
            byte(9),
            byte(10),
            byte(11),
            byte(0),
        ])),
        max_timestamp: NOW,
        producer_id: ProducerId(i64::from(byte(3)) - 1),
        producer_epoch: ProducerEpoch::ZERO,
        base_sequence: i32::from(byte(4)) + NO_SEQUENCE,
        record_count,
    };
    let mut batch = header.encode().to_vec();
    batch.extend_from_slice(payload);
    rewrite_max_timestamp(&mut batch, NOW);
    batch
}

fn check(bytes: &[u8]) {
    let peeked = peek_header(bytes);
    let verified = BatchView::verify(bytes, &LIMITS);
    if let Ok(view) = &verified {
        assert_eq!(Ok(view.header()), peeked.as_ref());
        assert_eq!(view.bytes(), bytes);
        check_records(view);
        let mut stamped = bytes.to_vec();
        stamp(&mut stamped, Offset(77), LeaderEpoch(3));
        BatchView::verify(&stamped, &LIMITS).expect("stamping keeps a batch sound");
    }
    let mut rest = bytes;
    while let Ok(Some((view, behind))) = next_batch(rest, &LIMITS) {
        assert_eq!(view.bytes().len() + behind.len(), rest.len());
        rest = behind;
    }
    for validation in ["header", "full"] {
        let config = TopicConfig::parse([("record.validation", validation)]).expect("it exists");
        if let Ok(produced) = verify_produced(bytes, &ProduceRules::of(&config, NOW)) {
            assert!(verified.is_ok());
            let rewrite = produced.rewrite;
            let mut rewritten = bytes.to_vec();
            rewrite.apply(&mut rewritten);
            let again = verify_produced(&rewritten, &ProduceRules::of(&config, NOW));
            assert_eq!(again.expect("corrected").needs_max_timestamp_fix(), None);
        }
    }
}

/// Reads every record, and builds the same batch again out of what it read.
fn check_records(view: &BatchView<'_>) {
    let mut scratch = Vec::new();
    let Ok(records) = view.records(&mut scratch, LIMITS.max_inflated_bytes) else { return };
    let mut builder =
        BatchBuilder::encoded(view.encoding(), view.codec()).at(view.base_offset(), LeaderEpoch(1));
    let mut count = 0;
    for record in records {
        let Ok(record) = record else {
            assert_ne!(view.codec(), Compression::None, "verify walks uncompressed records");
            return;
        };
        count += 1;
        let headers: Vec<RecordHeader<'_>> = record.headers.iter().collect();
        let new = NewRecord {
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: &headers,
        };
        let delta = record.offset.since(view.base_offset());
        let delta = i32::try_from(delta).expect("deltas have 32 bits");
        if builder.push_at(delta, &new).is_err() {
            return; // Timestamps further apart than a delta can tell.
        }
    }
    assert_eq!(count, view.record_count());
    if let Ok(built) = builder.finish() {
        let limits = VerifyLimits::DEFAULT;
        let again = BatchView::verify(&built, &limits).expect("what we build is sound");
        assert_eq!(again.record_count(), count);
    }
}
