//! What reading and writing the messages of the hot path costs.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use levada_protocol::frame::FrameBuffer;
use levada_protocol::kafka::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use levada_protocol::kafka::metadata::{
    MetadataResponse, MetadataResponsePartition, MetadataResponseTopic,
};
use levada_protocol::kafka::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use levada_protocol::kafka::{
    ApiKey, Decode as _, Reader, RecordBytes, RequestHeader, encode_request, encode_response,
};

/// A frame of Produce 9 without its length.
fn produce_frame(topics: usize, partitions: usize, records: &[u8]) -> Vec<u8> {
    let partition_data: Vec<_> = (0i32..)
        .take(partitions)
        .map(|index| PartitionProduceData { index, records: records.into() })
        .collect();
    let topic = |index| TopicProduceData {
        name: format!("topic-{index}").into(),
        partition_data: partition_data.clone(),
        ..TopicProduceData::default()
    };
    let topic_data = (0..topics).map(topic).collect();
    let request = ProduceRequest { acks: -1, topic_data, ..ProduceRequest::default() };
    encode_request(9, 1, Some("bench"), &request)
        .expect("version 9 has all of it")
        .bytes
        .split_off(4)
}

fn read(frame: &[u8]) -> usize {
    let mut r = Reader::new(frame);
    let header = RequestHeader::decode(&mut r).expect("a sound frame");
    let request = ProduceRequest::decode_all(r, header.api_version).expect("a sound frame");
    request.topic_data.len()
}

fn benches(c: &mut Criterion) {
    let large = produce_frame(1, 1, &vec![1; 1 << 20]);
    c.bench_function("read produce, 1 partition of 1 MiB", |b| b.iter(|| read(black_box(&large))));
    let many = produce_frame(10, 10, &[1; 1000]);
    c.bench_function("read produce, 10 x 10 partitions of 1 kB", |b| {
        b.iter(|| read(black_box(&many)));
    });

    let partition = |index| PartitionData {
        partition_index: index,
        high_watermark: 1 << 40,
        aborted_transactions: None,
        records: RecordBytes::External { len: 1 << 20, token: 0 },
        ..PartitionData::default()
    };
    let fetch = |partitions| FetchResponse {
        responses: vec![FetchableTopicResponse {
            topic: "topic".into(),
            partitions: (0..partitions).map(partition).collect(),
            ..FetchableTopicResponse::default()
        }],
        ..FetchResponse::default()
    };
    for partitions in [1, 100] {
        let response = fetch(partitions);
        c.bench_function(&format!("write fetch, {partitions} partitions of 1 MiB"), |b| {
            b.iter(|| encode_response(ApiKey::Fetch, 12, 1, black_box(&response)));
        });
    }

    let partition = |index| MetadataResponsePartition {
        partition_index: index,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..MetadataResponsePartition::default()
    };
    let topic = MetadataResponseTopic {
        name: Some("topic".into()),
        partitions: (0..1000).map(partition).collect(),
        ..MetadataResponseTopic::default()
    };
    let metadata = MetadataResponse { topics: vec![topic], ..MetadataResponse::default() };
    c.bench_function("write metadata, 1000 partitions", |b| {
        b.iter(|| encode_response(ApiKey::Metadata, 12, 1, black_box(&metadata)));
    });

    let mut stream = Vec::new();
    for _ in 0..64 {
        stream.extend(1000u32.to_be_bytes());
        stream.extend([7; 1000]);
    }
    c.bench_function("cut 64 frames of 1 kB", |b| {
        let mut buffer = FrameBuffer::default();
        b.iter(|| {
            buffer.feed(black_box(&stream));
            let mut frames = 0;
            while let Ok(Some(frame)) = buffer.next_frame() {
                frames += frame.len();
            }
            frames
        });
    });
}

criterion_group!(codec, benches);
criterion_main!(codec);
