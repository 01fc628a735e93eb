//! What a broker pays per batch: verify, judge, stamp, build, iterate, translate, on batches of about
//! 64 KiB, in both encodings.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use levada_record::batch::BatchView;
use levada_record::convert::to_kafka_v2;
use levada_record::limits::INFLATED_BYTES_MAX_DEFAULT;
use levada_record::{
    BatchBuilder, Compression, Encoding, LeaderEpoch, NewRecord, Offset, ProduceRules, Timestamp,
    TopicConfig, VerifyLimits, stamp, verify_produced,
};

const BATCH_BYTES: usize = 64 * 1024;
/// Bytes of a value; a record of it is some ten bytes longer.
const VALUE_BYTES: [usize; 2] = [1024, 100];

/// Text-like noise: digits of a simple generator, so that codecs find something but not all.
fn value(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'0' + state.to_be_bytes()[0] % 10
        })
        .collect()
}

fn values(value_bytes: usize) -> Vec<Vec<u8>> {
    let count = u32::try_from(BATCH_BYTES / value_bytes).expect("64 KiB over at least one byte");
    (0..count).map(|seed| value(value_bytes, seed)).collect()
}

const ENCODINGS: [Encoding; 2] = [Encoding::KafkaV2, Encoding::Columnar];

fn build(encoding: Encoding, codec: Compression, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::encoded(encoding, codec).with_capacity(BATCH_BYTES * 2);
    for value in values {
        let record = NewRecord {
            timestamp: Timestamp(1_700_000_000_000),
            value: Some(value),
            ..NewRecord::default()
        };
        builder.push(&record).expect("64 KiB fit a batch");
    }
    builder.finish().expect("there are records")
}

fn throughput(batch: &[u8]) -> Throughput {
    Throughput::Bytes(u64::try_from(batch.len()).expect("64 KiB"))
}

fn produce_path(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("produce");
    let rules = ProduceRules::of(&TopicConfig::default(), Timestamp(1_700_000_000_000));
    let forms =
        VALUE_BYTES.into_iter().flat_map(|bytes| ENCODINGS.map(|encoding| (bytes, encoding)));
    for (value_bytes, encoding) in forms {
        let batch = build(encoding, Compression::None, &values(value_bytes));
        group.throughput(throughput(&batch));
        let name = |what: &str| BenchmarkId::new(format!("{what}/{encoding}"), value_bytes);
        group.bench_function(name("checksum"), |bencher| {
            bencher.iter(|| levada_record::checksum::batch_checksum(black_box(&batch)));
        });
        group.bench_function(name("verify"), |bencher| {
            bencher.iter(|| {
                BatchView::verify(black_box(&batch), &VerifyLimits::DEFAULT).expect("it is sound")
            });
        });
        group.bench_function(name("verify_produced_and_stamp"), |bencher| {
            let mut batch = batch.clone();
            bencher.iter(|| {
                stamp(&mut batch, Offset::ZERO, LeaderEpoch(7));
                verify_produced(black_box(&batch), &rules).expect("it is sound").rewrite
            });
        });
    }
    group.finish();
}

fn build_and_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    for value_bytes in VALUE_BYTES {
        let values = values(value_bytes);
        for codec in Compression::ALL {
            let batch = build(Encoding::KafkaV2, codec, &values);
            group.throughput(throughput(&build(Encoding::KafkaV2, Compression::None, &values)));
            let name = |what: &str| BenchmarkId::new(format!("{what}/{codec}"), value_bytes);
            group.bench_function(name("build"), |bencher| {
                bencher.iter(|| build(Encoding::KafkaV2, codec, black_box(&values)));
            });
            let view = BatchView::verify(&batch, &VerifyLimits::DEFAULT).expect("it is sound");
            let mut scratch = Vec::new();
            group.bench_function(name("iterate"), |bencher| {
                bencher.iter(|| {
                    let records = black_box(&view)
                        .records(&mut scratch, INFLATED_BYTES_MAX_DEFAULT)
                        .expect("it inflates");
                    let lengths = records
                        .map(|record| record.expect("it is a record").value.map_or(0, <[u8]>::len));
                    lengths.sum::<usize>()
                });
            });
        }
    }
    group.finish();
}

/// One record of 100 B: its way into a batch, through the broker's checks, and out again, per encoding.
/// Throughput is in records.
fn per_record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("per_record");
    let values = values(100);
    let rules = ProduceRules::of(&TopicConfig::default(), Timestamp(1_700_000_000_000));
    group.throughput(Throughput::Elements(u64::try_from(values.len()).expect("a few hundred")));
    for encoding in ENCODINGS {
        let batch = build(encoding, Compression::None, &values);
        let view = BatchView::verify(&batch, &VerifyLimits::DEFAULT).expect("it is sound");
        let mut scratch = Vec::new();
        group.bench_function(BenchmarkId::new("encode", encoding), |bencher| {
            bencher.iter(|| build(encoding, Compression::None, black_box(&values)));
        });
        group.bench_function(BenchmarkId::new("broker_verify", encoding), |bencher| {
            bencher.iter(|| verify_produced(black_box(&batch), &rules).expect("sound").rewrite);
        });
        group.bench_function(BenchmarkId::new("decode", encoding), |bencher| {
            bencher.iter(|| {
                let records = black_box(&view).records(&mut scratch, INFLATED_BYTES_MAX_DEFAULT);
                let mut bytes = 0;
                // All that a consumer looks at.
                records.expect("plain").for_each(|record| {
                    let record = record.expect("it is a record");
                    bytes +=
                        record.value.map_or(0, <[u8]>::len) + record.key.map_or(0, <[u8]>::len);
                    black_box((record.offset, record.timestamp, record.headers.len()));
                });
                bytes
            });
        });
        group.bench_function(BenchmarkId::new("decode_values", encoding), |bencher| {
            bencher.iter(|| {
                let view = black_box(&view);
                let columns = view.columns(&mut scratch, INFLATED_BYTES_MAX_DEFAULT);
                match columns.expect("plain") {
                    Some(columns) => {
                        columns.values().map(|value| value.map_or(0, <[u8]>::len)).sum::<usize>()
                    }
                    None => view
                        .plain_records()
                        .expect("plain")
                        .map(|record| record.map_or(0, |r| r.value.map_or(0, <[u8]>::len)))
                        .sum(),
                }
            });
        });
    }
    let columns = build(Encoding::Columnar, Compression::None, &values);
    let view = BatchView::verify(&columns, &VerifyLimits::DEFAULT).expect("it is sound");
    // What decoding pays once per batch, whatever is in it.
    group.bench_function("open_columns", |bencher| {
        let mut scratch = Vec::new();
        bencher.iter(|| black_box(&view).columns(&mut scratch, INFLATED_BYTES_MAX_DEFAULT).is_ok());
    });
    group.bench_function("translate", |bencher| {
        bencher.iter(|| to_kafka_v2(black_box(&view), VerifyLimits::DEFAULT).expect("it fits"));
    });
    group.finish();
}

criterion_group!(benches, produce_path, build_and_read, per_record);
criterion_main!(benches);
