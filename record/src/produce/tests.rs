//! What a leader refuses, and what it corrects.

use super::*;
use crate::builder::{BatchBuilder, NewRecord};
use crate::epoch::ProducerEpoch;
use crate::header::{Attributes, BatchHeader, HEADER_BYTES};
use crate::id::ProducerId;
use crate::kafka_v2::RecordError;

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const HOUR_MS: i64 = 3_600_000;

fn rules(overrides: &[(&str, &str)]) -> ProduceRules {
    ProduceRules::of(&TopicConfig::parse(overrides.iter().copied()).unwrap(), NOW)
}

fn batch(codec: Compression, timestamps: &[i64]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec);
    for &timestamp in timestamps {
        let record = NewRecord {
            timestamp: Timestamp(timestamp),
            value: Some(b"v"),
            ..NewRecord::default()
        };
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap()
}

/// The batch with another header, and the right checksum for it.
fn changed(bytes: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut header = BatchHeader::parse(bytes).unwrap();
    change(&mut header);
    let mut bytes = bytes.to_vec();
    bytes[..HEADER_BYTES].copy_from_slice(&header.encode());
    rewrite_max_timestamp(&mut bytes, header.max_timestamp);
    bytes
}

#[track_caller]
fn check_refused(bytes: &[u8], rules: &ProduceRules, expected: &ProduceError) {
    assert_eq!(&verify_produced(bytes, rules).unwrap_err(), expected);
}

#[track_caller]
fn check_header_refused(change: impl FnOnce(&mut BatchHeader), expected: &ProduceError) {
    let bytes = changed(&batch(Compression::None, &[NOW.0; 3]), change);
    check_refused(&bytes, &rules(&[]), expected);
}

#[test]
fn a_sound_batch_passes_unchanged() {
    for codec in Compression::ALL {
        for validation in ["header", "full"] {
            let bytes = batch(codec, &[NOW.0, NOW.0 - 5, -1]);
            let check = verify_produced(&bytes, &rules(&[("record.validation", validation)]));
            let check = check.unwrap();
            assert_eq!(check.rewrite, Rewrite::Nothing);
            assert_eq!(check.needs_max_timestamp_fix(), None);
            assert_eq!(check.batch.bytes(), bytes);
        }
    }
}

#[test]
fn headers_that_producers_may_not_send_are_refused_for_what_is_wrong() {
    check_header_refused(
        |h| h.base_offset = Offset(1),
        &ProduceError::BaseOffsetNotZero { got: Offset(1) },
    );
    check_header_refused(
        |h| h.last_offset_delta = 3,
        &ProduceError::CountMismatch { record_count: 3, last_offset_delta: 3 },
    );
    check_header_refused(|h| h.record_count = 0, &ProduceError::NoRecords);
    check_header_refused(|h| h.attributes = Attributes(1 << 5), &ProduceError::Control);
    check_header_refused(
        |h| h.attributes = Attributes(1 << 6),
        &ProduceError::ReservedAttributes { bits: 1 << 6 },
    );
    check_header_refused(|h| h.attributes = Attributes(1 << 3), &ProduceError::LogAppendTime);
    check_header_refused(
        |h| h.attributes = Attributes(1 << 4),
        &ProduceError::TransactionalWithoutProducer,
    );
    check_header_refused(
        |h| h.attributes = Attributes(6),
        &ProduceError::Batch(BatchError::Codec { id: 6 }),
    );
    let incomplete = |producer_epoch, base_sequence| ProduceError::IncompleteProducer {
        producer_id: 7,
        producer_epoch,
        base_sequence,
    };
    check_header_refused(|h| h.producer_id = ProducerId(7), &incomplete(-1, -1));
    check_header_refused(
        |h| {
            h.producer_id = ProducerId(7);
            h.producer_epoch = ProducerEpoch(0);
        },
        &incomplete(0, -1),
    );
    check_header_refused(
        |h| {
            h.producer_id = ProducerId(7);
            h.base_sequence = 0;
        },
        &incomplete(-1, 0),
    );
}

#[test]
fn a_batch_of_nothing_is_refused() {
    let mut bytes = batch(Compression::None, &[NOW.0]);
    bytes.truncate(HEADER_BYTES);
    let bytes = changed(&bytes, |h| {
        h.length_bytes = 49;
        h.record_count = 0;
    });
    check_refused(&bytes, &rules(&[]), &ProduceError::NoRecords);
}

#[test]
fn a_batch_above_max_message_bytes_is_refused_and_one_of_that_size_is_not() {
    let bytes = batch(Compression::None, &[NOW.0]);
    let size = bytes.len().to_string();
    assert!(verify_produced(&bytes, &rules(&[("max.message.bytes", &size)])).is_ok());
    let max_bytes = u32::try_from(bytes.len()).unwrap() - 1;
    let expected = ProduceError::TooLarge { got_bytes: bytes.len(), max_bytes };
    check_refused(&bytes, &rules(&[("max.message.bytes", &max_bytes.to_string())]), &expected);
}

#[test]
fn two_batches_are_refused() {
    let one = batch(Compression::None, &[NOW.0]);
    let expected = BatchError::TrailingBytes { batch_bytes: one.len(), trailing_bytes: one.len() };
    check_refused(&one.repeat(2), &rules(&[]), &ProduceError::Batch(expected));
}

#[test]
fn timestamps_outside_the_range_name_the_first_such_record() {
    let rules = rules(&[
        ("message.timestamp.before.max.ms", "1000"),
        ("message.timestamp.after.max.ms", "2000"),
        ("record.validation", "full"),
    ]);
    let allowed =
        TimestampRange { earliest: Timestamp(NOW.0 - 1000), latest: Timestamp(NOW.0 + 2000) };
    for codec in Compression::ALL {
        let inside = batch(codec, &[NOW.0 - 1000, NOW.0 + 2000, -1]);
        assert!(verify_produced(&inside, &rules).is_ok());
        for outside in [NOW.0 - 1001, NOW.0 + 2001] {
            let bytes = batch(codec, &[NOW.0, NOW.0 + 1, outside, outside + 5000]);
            let expected = ProduceError::Timestamp {
                record_index: Some(2),
                timestamp: Timestamp(outside),
                allowed,
            };
            check_refused(&bytes, &rules, &expected);
        }
    }
}

#[test]
fn timestamps_of_compressed_records_are_judged_by_the_greatest() {
    let rules = rules(&[("message.timestamp.before.max.ms", "1000")]);
    let allowed = rules.timestamps;
    let late = NOW.0 + HOUR_MS + 1;
    check_refused(
        &batch(Compression::Lz4, &[NOW.0, late]),
        &rules,
        &ProduceError::Timestamp { record_index: None, timestamp: Timestamp(late), allowed },
    );
    let old = NOW.0 - 1001;
    check_refused(
        &batch(Compression::Lz4, &[old - 1, old]),
        &rules,
        &ProduceError::Timestamp { record_index: Some(0), timestamp: Timestamp(old), allowed },
    );
}

#[test]
fn by_default_a_record_may_be_as_old_as_it_likes_and_an_hour_ahead() {
    let rules = rules(&[]);
    assert!(verify_produced(&batch(Compression::None, &[0, NOW.0 + HOUR_MS]), &rules).is_ok());
    let bytes = batch(Compression::None, &[NOW.0 + HOUR_MS + 1]);
    assert!(matches!(
        verify_produced(&bytes, &rules),
        Err(ProduceError::Timestamp { record_index: Some(0), .. })
    ));
}

#[test]
fn a_wrong_max_timestamp_is_corrected_not_refused() {
    for codec in Compression::ALL {
        let sound = batch(codec, &[NOW.0, NOW.0 + 10, NOW.0 + 3]);
        let mut bytes = changed(&sound, |h| h.max_timestamp = Timestamp(NOW.0 + 500));
        let rules = rules(&[("record.validation", "full")]);
        let check = verify_produced(&bytes, &rules).unwrap();
        assert_eq!(check.needs_max_timestamp_fix(), Some(Timestamp(NOW.0 + 10)));
        let rewrite = check.rewrite;
        rewrite.apply(&mut bytes);
        assert_eq!(bytes, sound);
    }
}

#[test]
fn where_the_broker_decides_the_producer_may_claim_any_time() {
    let rules = rules(&[("message.timestamp.type", "LogAppendTime")]);
    for codec in Compression::ALL {
        let mut bytes = batch(codec, &[1, NOW.0 + 1000 * HOUR_MS]);
        let rewrite = verify_produced(&bytes, &rules).unwrap().rewrite;
        assert_eq!(rewrite, Rewrite::LogAppendTime(NOW));
        rewrite.apply(&mut bytes);
        let view = BatchView::verify(&bytes, &VerifyLimits::DEFAULT).unwrap();
        let mut scratch = Vec::new();
        for record in view.records(&mut scratch, 1000).unwrap() {
            assert_eq!(record.unwrap().timestamp, NOW);
        }
    }
}

#[test]
fn gaps_between_offsets_are_refused() {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(&NewRecord::default()).unwrap();
    builder.push_at(2, &NewRecord::default()).unwrap();
    let gap = builder.finish().unwrap();
    // Counts agree with the last offset only if the liar says so.
    let lying = changed(&gap, |h| h.last_offset_delta = 1);
    let expected = BatchError::Record {
        index: 1,
        reason: RecordError::OffsetDelta { got: 2, previous: 0, last: 1 },
    };
    check_refused(&lying, &rules(&[]), &ProduceError::Batch(expected));
    let honest = ProduceError::CountMismatch { record_count: 2, last_offset_delta: 2 };
    check_refused(&gap, &rules(&[]), &honest);
}

/// What the header alone cannot show, full validation finds.
#[test]
fn full_validation_finds_what_a_codec_hides() {
    let hide = |payload: &[u8]| {
        let mut bytes = batch(Compression::Zstd, &[NOW.0, NOW.0]);
        bytes.truncate(HEADER_BYTES);
        bytes.extend_from_slice(payload);
        let length_bytes = i32::try_from(bytes.len() - 12).unwrap();
        changed(&bytes, |h| h.length_bytes = length_bytes)
    };
    let full = rules(&[("record.validation", "full")]);
    let garbage = hide(b"no frame at all");
    assert!(verify_produced(&garbage, &rules(&[])).is_ok());
    assert!(matches!(
        verify_produced(&garbage, &full),
        Err(ProduceError::Batch(BatchError::Compression(_)))
    ));
    let mut one_record = Vec::new();
    Compression::Zstd.compress(&[12, 0, 0, 0, 1, 1, 0], &mut one_record);
    let expected = BatchError::Record { index: 1, reason: RecordError::Truncated };
    check_refused(&hide(&one_record), &full, &ProduceError::Batch(expected));
}

#[test]
fn full_validation_stops_a_bomb() {
    let mut builder = BatchBuilder::new(Compression::Gzip);
    let zeros = vec![0; 1 << 20];
    builder
        .push(&NewRecord { timestamp: NOW, value: Some(&zeros), ..NewRecord::default() })
        .unwrap();
    let bytes = builder.finish().unwrap();
    let mut rules = rules(&[("record.validation", "full")]);
    assert!(verify_produced(&bytes, &rules).is_ok());
    rules.max_inflated_bytes = 1 << 20;
    assert!(matches!(
        verify_produced(&bytes, &rules),
        Err(ProduceError::Batch(BatchError::Compression(_)))
    ));
}
