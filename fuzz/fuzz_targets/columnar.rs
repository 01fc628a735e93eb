//! Any columns behind a sound header, through everything that reads columns: the verifier, the records
//! one by one and by index, the broker's checks, the translation into Kafka's records.
//!
//! The first bytes choose counts, codec and times; the rest is the payload, as it is or with a batch
//! built by us underneath, so that the fuzzer changes good columns instead of having to invent them.
#![no_main]

use levada_record::batch::BatchView;
use levada_record::convert::to_kafka_v2;
use levada_record::{
    Attributes, BatchBuilder, BatchHeader, Compression, Encoding, NewRecord, ProduceRules,
    RecordHeader, Timestamp, TopicConfig, VerifyLimits, peek_header, rewrite_max_timestamp,
    verify_produced,
};
use libfuzzer_sys::fuzz_target;

const LIMITS: VerifyLimits = VerifyLimits { max_batch_bytes: 1 << 20, max_inflated_bytes: 1 << 18 };
const NOW: Timestamp = Timestamp(1_700_000_000_000);
/// Bytes of the input that choose.
const CHOICE_BYTES: usize = 16;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first_chunk::<CHOICE_BYTES>() else { return };
    let mut payload = if choice[0] % 2 == 0 { rest.to_vec() } else { changed(choice, rest) };
    let codec = Compression::ALL[usize::from(choice[1]) % Compression::ALL.len()];
    // Compressed lies are found later than others: that way too.
    if codec != Compression::None && choice[0] % 4 < 2 {
        let plain = std::mem::take(&mut payload);
        codec.compress(&plain, &mut payload);
    }
    check(&sealed(choice, codec, &payload));
});

/// Columns of ours, with pairs of the input's bytes written over them: where, and what.
fn changed(choice: &[u8; CHOICE_BYTES], changes: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None);
    for index in 0..choice[2] % 20 {
        let has = |bit: u8| choice[3] >> ((index + bit) % 8) & 1 == 1;
        let header = [RecordHeader { key: b"header", value: has(3).then_some(b"value") }];
        let record = NewRecord {
            timestamp: Timestamp(NOW.0 + i64::from(index) * i64::from(choice[4])),
            key: has(0).then_some(b"a key"),
            value: has(1).then_some(b"some value"),
            headers: if has(2) { &header } else { &[] },
        };
        let offset_delta = i32::from(index) * (1 + i32::from(choice[5] % 2));
        builder.push_at(offset_delta, &record).expect("small records");
    }
    let Ok(batch) = builder.finish() else { return changes.to_vec() };
    let mut payload = batch[Encoding::Columnar.payload_at()..].to_vec();
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % payload.len();
        payload[at] = change[2];
    }
    payload
}

/// A header that fits `payload`, with its length and checksum.
fn sealed(choice: &[u8; CHOICE_BYTES], codec: Compression, payload: &[u8]) -> Vec<u8> {
    let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None);
    builder.push(&NewRecord::default()).expect("an empty record");
    let sound = builder.finish().expect("one record");
    let mut header: BatchHeader = peek_header(&sound).expect("just built");
    let payload_at = Encoding::Columnar.payload_at();
    header.length_bytes = i32::try_from(payload_at - 12 + payload.len()).expect("small input");
    header.record_count = i32::from(choice[2] % 20);
    header.last_offset_delta = (header.record_count - 1 + i32::from(choice[6] % 32)).max(0);
    header.attributes = Attributes(i16::from(choice[7] & 0b0111_1000)).with_codec(codec);
    let base: [u8; 8] = choice[8..].try_into().expect("sixteen bytes");
    header.base_timestamp =
        if choice[7] % 2 == 0 { NOW } else { Timestamp(i64::from_le_bytes(base)) };
    let mut batch = header.encode().to_vec();
    batch.resize(payload_at, 0);
    batch.extend_from_slice(payload);
    rewrite_max_timestamp(&mut batch, NOW);
    batch
}

fn check(bytes: &[u8]) {
    let verified = BatchView::verify(bytes, &LIMITS);
    if let Ok(view) = &verified {
        check_records(view);
    }
    for validation in ["header", "full"] {
        let config = TopicConfig::parse([("record.validation", validation)]).expect("it exists");
        if let Ok(produced) = verify_produced(bytes, &ProduceRules::of(&config, NOW)) {
            assert!(verified.is_ok());
            let mut rewritten = bytes.to_vec();
            produced.rewrite.apply(&mut rewritten);
            let again = verify_produced(&rewritten, &ProduceRules::of(&config, NOW));
            assert_eq!(again.expect("corrected").needs_max_timestamp_fix(), None);
        }
    }
}

/// The records one after another are the records by index, and those of the translation.
fn check_records(view: &BatchView<'_>) {
    let mut scratch = Vec::new();
    let columns = match view.columns(&mut scratch, LIMITS.max_inflated_bytes) {
        Ok(columns) => columns.expect("of magic 76"),
        Err(_) => {
            assert_ne!(view.codec(), Compression::None, "verify looks at uncompressed columns");
            return;
        }
    };
    assert_eq!(columns.records().count(), view.record_count() as usize);
    let kafka = to_kafka_v2(view, LIMITS).map(|kafka| kafka.expect("of magic 76"));
    let kafka = kafka.as_ref().map(|kafka| {
        let view = BatchView::verify(kafka, &VerifyLimits::DEFAULT).expect("we made it");
        assert_eq!(view.encoding(), Encoding::KafkaV2);
        view.plain_records().expect("never compressed")
    });
    let mut translated = kafka.ok();
    for (index, record) in columns.records().enumerate() {
        let same = columns.record(index).expect("within the count");
        let headers: Vec<_> = record.headers.iter().collect();
        assert_eq!(headers.len(), record.headers.len());
        let mut others = vec![same];
        if let Some(records) = &mut translated {
            others.push(records.next().expect("as many").expect("sound"));
        }
        for other in others {
            assert_eq!((record.offset, record.timestamp), (other.offset, other.timestamp));
            assert_eq!((record.key, record.value), (other.key, other.value));
            assert_eq!(headers, other.headers.iter().collect::<Vec<_>>());
        }
        assert_eq!((columns.key(index), columns.value(index)), (record.key, record.value));
    }
}
