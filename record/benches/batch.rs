//! What a broker pays per batch: verify, judge, stamp, build, iterate, on batches of about 64 KiB.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use levada_record::batch::BatchView;
use levada_record::limits::INFLATED_BYTES_MAX_DEFAULT;
use levada_record::{
    BatchBuilder, Compression, LeaderEpoch, NewRecord, Offset, ProduceRules, Timestamp,
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

fn build(codec: Compression, values: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(codec).with_capacity(BATCH_BYTES * 2);
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
    for value_bytes in VALUE_BYTES {
        let batch = build(Compression::None, &values(value_bytes));
        group.throughput(throughput(&batch));
        group.bench_function(BenchmarkId::new("checksum", value_bytes), |bencher| {
            bencher.iter(|| levada_record::checksum::batch_checksum(black_box(&batch)));
        });
        group.bench_function(BenchmarkId::new("verify", value_bytes), |bencher| {
            bencher.iter(|| {
                BatchView::verify(black_box(&batch), &VerifyLimits::DEFAULT).expect("it is sound")
            });
        });
        group.bench_function(
            BenchmarkId::new("verify_produced_and_stamp", value_bytes),
            |bencher| {
                let mut batch = batch.clone();
                bencher.iter(|| {
                    stamp(&mut batch, Offset::ZERO, LeaderEpoch(7));
                    verify_produced(black_box(&batch), &rules).expect("it is sound").rewrite
                });
            },
        );
    }
    group.finish();
}

fn build_and_read(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("records");
    for value_bytes in VALUE_BYTES {
        let values = values(value_bytes);
        for codec in Compression::ALL {
            let batch = build(codec, &values);
            group.throughput(throughput(&build(Compression::None, &values)));
            let name = |what: &str| BenchmarkId::new(format!("{what}/{codec}"), value_bytes);
            group.bench_function(name("build"), |bencher| {
                bencher.iter(|| build(codec, black_box(&values)));
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

criterion_group!(benches, produce_path, build_and_read);
criterion_main!(benches);
