//! Columnar batches through one broker over real sockets and a real disk: readers that know them get
//! them as they were sent, all others get Kafka's records.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

#[path = "harness/cluster.rs"]
mod cluster;

use cluster::{Client, Cluster, Fetched, batch, fetch_request, fetched, now, values};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use levada_record::batch::BatchView;
use levada_record::header::{rewrite_max_timestamp, stamp};
use levada_record::{
    BatchBuilder, Compression, Encoding, LeaderEpoch, NewRecord, Offset, ProducerEpoch, ProducerId,
    Timestamp, VerifyLimits, next_batch, peek_header,
};

fn code(code: ErrorCode) -> i16 {
    code.to_i16()
}

fn columns_at(at: Timestamp, codec: Compression, values: &[&[u8]]) -> Vec<u8> {
    let mut builder = BatchBuilder::encoded(Encoding::Columnar, codec);
    for (index, value) in (0..).zip(values) {
        let timestamp = Timestamp(at.0 + index);
        let record = NewRecord { timestamp, value: Some(value), ..NewRecord::default() };
        builder.push(&record).unwrap();
    }
    builder.finish().unwrap()
}

fn columns(values: &[&[u8]]) -> Vec<u8> {
    columns_at(now(), Compression::None, values)
}

/// What a reader gets that says it knows columns.
fn fetch_columns(client: &mut Client, partition: i32, offset: i64) -> Fetched {
    let mut request = fetch_request("t", partition, offset, 100, 1 << 20);
    request.levada_columnar = 1;
    client.call(12, &request, |response| fetched(&response))
}

fn encodings(bytes: &[u8]) -> Vec<Encoding> {
    let mut rest = bytes;
    let mut found = Vec::new();
    while let Some((view, behind)) = next_batch(rest, &VerifyLimits::DEFAULT).unwrap() {
        found.push(view.encoding());
        rest = behind;
    }
    found
}

fn offsets(fetched: &Fetched) -> Vec<i64> {
    values(&fetched.records).into_iter().map(|(offset, _)| offset).collect()
}

#[test]
fn who_knows_columns_gets_them_and_who_does_not_gets_the_same_records() {
    use Encoding::{Columnar, KafkaV2};
    let mut cluster = Cluster::start(3);
    cluster.create_topic("t", 3, &[]);
    // Partitions of all shards: some of them are not the one that the connection is on.
    for round in 0..2 {
        let mut client = cluster.client();
        for partition in 0..3 {
            if round == 0 {
                let sent = [
                    batch(&[b"a", b"b"]),
                    columns(&[b"c", b"", b"d"]),
                    columns_at(now(), Compression::Zstd, &[b"e"]),
                    batch(&[b"f"]),
                    columns(&[b"g"]),
                ];
                for batch in &sent {
                    assert_eq!(client.produce("t", partition, -1, batch).error_code, 0);
                }
                let mut second = sent[1].clone();
                let got = fetch_columns(&mut client, partition, 2).records;
                let epoch = peek_header(&got).unwrap().leader_epoch;
                stamp(&mut second, Offset(2), epoch);
                assert!(got.starts_with(&second), "not as it was sent");
            }
            let known = fetch_columns(&mut client, partition, 0);
            let unknown = client.fetch("t", partition, 0, 100);
            let expected = [KafkaV2, Columnar, Columnar, KafkaV2, Columnar];
            assert_eq!(encodings(&known.records), expected);
            assert_eq!(encodings(&unknown.records), [KafkaV2; 5]);
            assert_eq!(offsets(&unknown), (0..8).collect::<Vec<_>>());
            let read: Vec<_> =
                values(&unknown.records).into_iter().map(|(_, value)| value).collect();
            assert_eq!(read, [&b"a"[..], b"b", b"c", b"", b"d", b"e", b"f", b"g"]);
            // From inside of a batch of columns the whole batch comes, for either.
            assert_eq!(offsets(&client.fetch("t", partition, 3, 100))[0], 2);
            assert_eq!(client.fetch("t", partition, 8, 0).records, b"");
        }
        cluster.restart();
    }
}

#[test]
fn translated_answers_keep_their_limits_and_every_record_comes() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    // Empty values more than double when they become Kafka's records.
    let nothing: Vec<&[u8]> = vec![b""; 1_000];
    for _ in 0..10 {
        assert_eq!(client.produce("t", 0, -1, &columns(&nothing)).error_code, 0);
    }
    for max_bytes in [1, 5_000, 30_000, 1 << 20] {
        let mut next = 0;
        while next < 10_000 {
            let request = fetch_request("t", 0, next, 100, max_bytes);
            let got = client.call(11, &request, |response| fetched(&response));
            assert_eq!(got.error_code, 0);
            let batches = encodings(&got.records).len();
            let bytes = i32::try_from(got.records.len()).unwrap();
            assert!(batches == 1 || bytes <= max_bytes, "{bytes} B of {max_bytes}");
            let offsets = offsets(&got);
            assert_eq!((offsets[0], offsets.len()), (next, batches * 1_000));
            next += i64::try_from(offsets.len()).unwrap();
        }
    }
}

#[test]
fn corrupt_columns_are_refused_like_corrupt_records() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[("max.message.bytes", "2000")]);
    let mut client = cluster.client();
    let sound = columns(&[b"abc", b"de", b"f"]);
    let mut flipped = sound.clone();
    flipped[170] ^= 1;
    assert_eq!(client.produce("t", 0, -1, &flipped).error_code, code(ErrorCode::CorruptMessage));
    // A liar makes the checksum right.
    for at in [64, 72, 160, 172, 176] {
        let mut lie = sound.clone();
        lie[at] ^= 0x40;
        rewrite_max_timestamp(&mut lie, peek_header(&sound).unwrap().max_timestamp);
        let refused = client.produce("t", 0, -1, &lie).error_code;
        assert_eq!(refused, code(ErrorCode::InvalidRecord), "byte {at}");
    }
    let large = columns(&[&[0; 2_000]]);
    assert_eq!(client.produce("t", 0, -1, &large).error_code, code(ErrorCode::MessageTooLarge));
    let early = columns_at(Timestamp(now().0 + 7_200_000), Compression::None, &[b"x"]);
    assert_eq!(client.produce("t", 0, -1, &early).error_code, code(ErrorCode::InvalidTimestamp));
    // None of it harmed the partition or the connection.
    assert_eq!(client.produce("t", 0, -1, &sound).base_offset, 0);
}

/// Story: compressed columns are not looked into when they come, unless the topic says so. A reader
/// that needs them translated must learn that it cannot be done, and get everything before and behind.
#[test]
fn what_cannot_be_translated_is_said_and_stops_nobody_else() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    cluster.create_topic("careful", 1, &[("record.validation", "full")]);
    let mut client = cluster.client();
    let sound = columns_at(now(), Compression::Lz4, &[b"x"]);
    let mut header = peek_header(&sound).unwrap();
    let mut garbage = Vec::new();
    Compression::Lz4.compress(b"no columns at all", &mut garbage);
    header.length_bytes = i32::try_from(52 + garbage.len()).unwrap();
    let mut lie = header.encode().to_vec();
    lie.resize(64, 0);
    lie.extend_from_slice(&garbage);
    rewrite_max_timestamp(&mut lie, header.max_timestamp);
    let refused = client.produce("careful", 0, -1, &lie).error_code;
    assert_eq!(refused, code(ErrorCode::InvalidRecord));
    for batch in [&sound, &lie, &sound] {
        assert_eq!(client.produce("t", 0, -1, batch).error_code, 0);
    }
    assert_eq!(offsets(&client.fetch("t", 0, 0, 100)), [0]);
    let refused = client.fetch("t", 0, 1, 100);
    assert_eq!(refused.error_code, code(ErrorCode::CorruptMessage));
    assert_eq!(refused.records, b"");
    assert_eq!(offsets(&client.fetch("t", 0, 2, 100)), [2]);
    assert_eq!(fetch_columns(&mut client, 0, 0).error_code, 0);
}

#[test]
fn idempotence_append_time_and_lookup_by_time_know_no_encoding() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    cluster.create_topic("timed", 1, &[]);
    let mut client = cluster.client();
    let from =
        |sequence| {
            let mut builder = BatchBuilder::encoded(Encoding::Columnar, Compression::None)
                .producer(ProducerId(77), ProducerEpoch(0), sequence);
            let record =
                NewRecord { timestamp: Timestamp(5), value: Some(b"v"), ..Default::default() };
            builder.push(&record).unwrap();
            builder.finish().unwrap()
        };
    let before = now();
    for (sequence, expected) in [(0, Ok(0)), (1, Ok(1)), (0, Ok(0)), (3, Err(()))] {
        let response = client.produce("t", 0, -1, &from(sequence));
        match expected {
            Ok(base) => assert_eq!((response.error_code, response.base_offset), (0, base)),
            Err(()) => {
                let gap = code(ErrorCode::OutOfOrderSequenceNumber);
                assert_eq!(response.error_code, gap);
            }
        }
    }
    for got in [fetch_columns(&mut client, 0, 0), client.fetch("t", 0, 0, 100)] {
        let mut scratch = Vec::new();
        let (view, _) = next_batch(&got.records, &VerifyLimits::DEFAULT).unwrap().unwrap();
        let record = view.records(&mut scratch, 1 << 20).unwrap().next().unwrap().unwrap();
        assert!(before <= record.timestamp && record.timestamp <= now());
        assert_eq!(view.header().producer_id, ProducerId(77));
        assert!(view.header().leader_epoch >= LeaderEpoch(0));
        BatchView::verify(view.bytes(), &VerifyLimits::DEFAULT).unwrap();
    }

    let base = Timestamp(now().0 - 1_000);
    for codec in Compression::ALL {
        let batch = columns_at(base, codec, &[b"0", b"1", b"2"]);
        assert_eq!(client.produce("timed", 0, -1, &batch).error_code, 0);
    }
    let asked = ListOffsetsPartition {
        partition_index: 0,
        current_leader_epoch: -1,
        timestamp: base.0 + 1,
    };
    let topic = ListOffsetsTopic { name: "timed".into(), partitions: vec![asked] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let found = client.call(7, &request, |response| {
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset, found.timestamp)
    });
    assert_eq!(found, (0, 1, base.0 + 1));
}
