//! One broker over real sockets and a real disk: what clients send and what they get.

#[path = "harness/cluster.rs"]
mod cluster;

use std::io::Write as _;

use cluster::{
    Client, Cluster, Fetched, batch, fetch_request, fetched, now, produce_request, producer_batch,
    read_response, values,
};
use levada_protocol::kafka::api_versions::ApiVersionsRequest;
use levada_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchTopic};
use levada_protocol::kafka::init_producer_id::InitProducerIdRequest;
use levada_protocol::kafka::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use levada_protocol::kafka::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use levada_protocol::kafka::produce::ProduceRequest;
use levada_protocol::kafka::{ErrorCode, Uuid};
use levada_record::header::stamp;
use levada_record::{BatchHeader, HEADER_BYTES, Offset};

fn code(code: ErrorCode) -> i16 {
    code.to_i16()
}

#[test]
fn every_version_of_api_versions_is_answered_and_a_newer_one_in_version_0() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    for version in 0..=4 {
        let request = ApiVersionsRequest {
            client_software_name: if version >= 3 { "test".into() } else { "".into() },
            client_software_version: if version >= 3 { "1".into() } else { "".into() },
        };
        let keys = client.call(version, &request, |response| {
            assert_eq!(response.error_code, 0);
            response.api_keys.iter().map(|row| row.api_key).collect::<Vec<_>>()
        });
        assert!([0, 1, 2, 3, 18, 22, 23].iter().all(|key| keys.contains(key)), "{keys:?}");
    }
    // Header of version 99 of ApiVersions, with whatever behind it.
    let frame = [0, 0, 0, 12, 0, 18, 0, 99, 0, 0, 0, 7, 0, 0, 1, 2];
    client.stream.write_all(&frame).unwrap();
    let answer = client.next_frame().unwrap();
    read_response::<ApiVersionsRequest, ()>(&answer, 0, 7, |response| {
        assert_eq!(response.error_code, code(ErrorCode::UnsupportedVersion));
        assert_eq!(response.api_keys[0].api_key, 18);
    });
}

#[test]
fn a_missing_topic_is_created_only_when_the_client_allows_it() {
    let cluster = Cluster::start(1);
    let mut client = cluster.client();
    let unknown = code(ErrorCode::UnknownTopicOrPartition);
    assert_eq!(client.metadata("fresh", false).error_code, unknown);
    let topic = client.metadata("fresh", true);
    assert_eq!((topic.error_code, topic.partitions), (0, 1));
    assert_eq!(topic.leader, Some(cluster.broker().broker_id().0));
    assert_ne!(topic.id, [0; 16]);
    let address = cluster.broker().kafka_address();
    assert_eq!((topic.host.as_str(), topic.port), ("127.0.0.1", i32::from(address.port())));
    assert_eq!(client.metadata("no/name", true).error_code, code(ErrorCode::InvalidTopic));
    // It can be written at once.
    assert_eq!(client.produce("fresh", 0, -1, &batch(&[b"x"])).error_code, 0);
}

#[test]
fn records_come_back_byte_for_byte_but_for_offset_and_epoch() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let batches = [batch(&[b"a", b"b"]), batch(&[b"c"]), batch(&[&vec![7; 100_000]])];
    let mut expected = Vec::new();
    let mut base = 0;
    for sent in &batches {
        let response = client.produce("t", 0, -1, sent);
        assert_eq!((response.error_code, response.base_offset), (0, base));
        let mut stored = sent.clone();
        let header = BatchHeader::parse(sent).unwrap();
        stamp(&mut stored, Offset(base), levada_record::LeaderEpoch(0));
        base += i64::from(header.record_count);
        expected.push(stored);
    }
    let got = client.fetch("t", 0, 0, 100);
    assert_eq!((got.error_code, got.high_watermark, got.log_start), (0, 4, 0));
    // The epoch is the cluster's to choose; all else is as sent.
    let mut records = got.records;
    let mut at = 0;
    for stored in &expected {
        records[at + 12..at + 16].copy_from_slice(&stored[12..16]);
        at += stored.len();
    }
    assert!(records == expected.concat());
    // From inside a batch the whole batch comes; at the end nothing does.
    let middle = client.fetch("t", 0, 1, 100);
    assert_eq!(values(&middle.records)[0].0, 0);
    assert_eq!(client.fetch("t", 0, 4, 0).records, b"");
    let beyond = code(ErrorCode::OffsetOutOfRange);
    let got = client.fetch("t", 0, 5, 0);
    assert_eq!((got.error_code, got.high_watermark, got.log_start), (beyond, -1, -1));
}

#[test]
fn acknowledged_records_survive_a_restart() {
    let mut cluster = Cluster::start(2);
    cluster.create_topic("t", 4, &[]);
    for partition in 0..4 {
        let response = cluster.client().produce("t", partition, -1, &batch(&[b"one", b"two"]));
        assert_eq!(response.error_code, 0);
    }
    cluster.restart();
    for partition in 0..4 {
        let mut client = cluster.client();
        assert_eq!(values(&client.fetch("t", partition, 0, 100).records).len(), 2);
        let response = client.produce("t", partition, 1, &batch(&[b"three"]));
        assert_eq!((response.error_code, response.base_offset), (0, 2));
        let all = values(&client.fetch("t", partition, 0, 100).records);
        assert_eq!(all[2], (2, b"three".to_vec()));
    }
}

#[test]
fn partitions_of_all_shards_are_reached_over_one_connection() {
    let cluster = Cluster::start(3);
    cluster.create_topic("t", 6, &[]);
    let mut client = cluster.client();
    let sent = batch(&[b"v"]);
    // One request for all of them.
    let mut request = produce_request("t", 0, -1, &sent);
    let one = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data = (0..6)
        .map(|index| {
            let mut data = one.clone();
            data.index = index;
            data
        })
        .collect();
    client.call(9, &request, |response| {
        for (index, partition) in response.responses[0].partition_responses.iter().enumerate() {
            assert_eq!(usize::try_from(partition.index).unwrap(), index);
            assert_eq!((partition.error_code, partition.base_offset), (0, 0));
        }
    });
    let mut request = fetch_request("t", 0, 0, 500, 1 << 20);
    let one = request.topics[0].partitions[0].clone();
    request.topics[0].partitions =
        (0..6).map(|partition| FetchPartition { partition, ..one.clone() }).collect();
    client.call(11, &request, |response| {
        assert_eq!(response.responses[0].partitions.len(), 6);
        for partition in &response.responses[0].partitions {
            assert_eq!(values(partition.records.as_slice().unwrap()).len(), 1);
        }
    });
}

#[test]
fn pipelined_produces_are_appended_and_answered_in_order() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    let mut client = cluster.client();
    let batches: Vec<_> = (0..100u32).map(|n| batch(&[&n.to_be_bytes()])).collect();
    let mut ids = Vec::new();
    for (n, batch) in batches.iter().enumerate() {
        let partition = i32::from(n % 2 == 1);
        let acks = if n % 3 == 0 { 1 } else { -1 };
        ids.push(client.send(9, &produce_request("t", partition, acks, batch)));
    }
    for (n, id) in ids.into_iter().enumerate() {
        let frame = client.next_frame().unwrap();
        read_response::<ProduceRequest<'_>, ()>(&frame, 9, id, |response| {
            let partition = &response.responses[0].partition_responses[0];
            let expected = i64::try_from(n / 2).unwrap();
            assert_eq!((partition.error_code, partition.base_offset), (0, expected));
        });
    }
}

#[test]
fn nothing_is_answered_to_acks_0_and_a_failure_closes_the_connection() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    client.send(9, &produce_request("t", 0, 0, &batch(&[b"quiet"])));
    // The next answer is that to the next request.
    let response = client.produce("t", 0, -1, &batch(&[b"loud"]));
    assert_eq!((response.error_code, response.base_offset), (0, 1));
    client.send(9, &produce_request("t", 9, 0, &batch(&[b"nowhere"])));
    assert!(client.next_frame().is_none());
}

#[test]
fn a_fetch_at_the_end_waits_and_is_woken_by_a_produce() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    for partition in 0..2 {
        let mut reader = cluster.client();
        let request = fetch_request("t", partition, 0, 15_000, 1 << 20);
        let id = reader.send(11, &request);
        cluster.client().produce("t", partition, -1, &batch(&[b"news"]));
        let frame = reader.next_frame().unwrap();
        let got = read_response::<FetchRequest<'_>, _>(&frame, 11, id, |r| fetched(&r));
        assert_eq!(values(&got.records), [(0, b"news".to_vec())]);
    }
}

#[test]
fn a_fetch_gives_up_waiting_when_its_time_is_over() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let got = cluster.client().fetch("t", 0, 0, 50);
    assert_eq!((got.error_code, got.records.len()), (0, 0));
}

#[test]
fn the_first_batch_comes_whole_however_small_the_limit() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let sent = batch(&[&[1; 5000]]);
    for _ in 0..3 {
        client.produce("t", 0, -1, &sent);
    }
    let limited = |client: &mut Client, max_bytes| -> usize {
        let request = fetch_request("t", 0, 0, 100, max_bytes);
        client.call(11, &request, |response| fetched(&response).records.len())
    };
    assert_eq!(limited(&mut client, 1), sent.len());
    let two = i32::try_from(2 * sent.len()).unwrap();
    assert_eq!(limited(&mut client, two), 2 * sent.len());
    assert_eq!(limited(&mut client, two + 1), 2 * sent.len());
}

#[test]
fn an_idempotent_producer_gets_the_original_offset_for_a_repeated_batch_even_after_a_restart() {
    let mut cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let producer = client.call(4, &InitProducerIdRequest::default(), |response| {
        assert_eq!(response.error_code, 0);
        (response.producer_id, response.producer_epoch)
    });
    let other = client.call(4, &InitProducerIdRequest::default(), |r| r.producer_id);
    assert_ne!(producer.0, other);
    let numbered = |sequence| producer_batch(&[b"v"], Some((producer.0, producer.1, sequence)));
    for sequence in 0..5 {
        let response = client.produce("t", 0, -1, &numbered(sequence));
        assert_eq!((response.error_code, response.base_offset), (0, i64::from(sequence)));
    }
    let again = client.produce("t", 0, -1, &numbered(2));
    assert_eq!((again.error_code, again.base_offset), (0, 2));
    let gap = client.produce("t", 0, -1, &numbered(7));
    assert_eq!(gap.error_code, code(ErrorCode::OutOfOrderSequenceNumber));
    cluster.restart();
    let mut client = cluster.client();
    let again = client.produce("t", 0, -1, &numbered(4));
    assert_eq!((again.error_code, again.base_offset), (0, 4));
    let next = client.produce("t", 0, -1, &numbered(5));
    assert_eq!((next.error_code, next.base_offset), (0, 5));
    let old =
        client.produce("t", 0, -1, &producer_batch(&[b"v"], Some((producer.0, producer.1 + 1, 0))));
    assert_eq!(old.error_code, 0);
    let stale = client.produce("t", 0, -1, &numbered(6));
    assert_eq!(stale.error_code, code(ErrorCode::InvalidProducerEpoch));
}

#[test]
fn transactions_are_refused_with_a_clear_code() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let request = InitProducerIdRequest {
        transactional_id: Some("mine".into()),
        transaction_timeout_ms: 1000,
        ..InitProducerIdRequest::default()
    };
    let refused = client.call(4, &request, |response| response.error_code);
    assert_eq!(refused, code(ErrorCode::UnsupportedVersion));
}

#[test]
fn offsets_are_found_by_end_start_and_time() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    let mut client = cluster.client();
    let before = now();
    for partition in 0..2 {
        for _ in 0..3 {
            client.produce("t", partition, -1, &batch(&[b"a", b"b"]));
        }
        let mut look_up = |timestamp, version| {
            let asked = ListOffsetsPartition {
                partition_index: partition,
                current_leader_epoch: -1,
                timestamp,
            };
            let topic = ListOffsetsTopic { name: "t".into(), partitions: vec![asked] };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..ListOffsetsRequest::default()
            };
            client.call(version, &request, |response| {
                let found = &response.topics[0].partitions[0];
                (found.error_code, found.offset, found.timestamp)
            })
        };
        assert_eq!(look_up(-1, 7), (0, 6, -1));
        assert_eq!(look_up(-2, 1), (0, 0, -1));
        let (error, offset, timestamp) = look_up(before.0, 7);
        assert_eq!((error, offset), (0, 0));
        assert!(timestamp >= before.0);
        assert_eq!(look_up(now().0 + 60_000, 7), (0, -1, -1));
        let (error, offset, _) = look_up(-3, 7);
        assert!(error == 0 && (0..6).contains(&offset));
        assert_eq!(look_up(-3, 6).0, code(ErrorCode::UnsupportedVersion));
    }
}

#[test]
fn readers_of_another_reign_are_told_so() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    client.produce("t", 0, -1, &batch(&[b"v"]));
    let epoch_of = |client: &mut Client, current, asked| {
        let partition = OffsetForLeaderPartition {
            partition: 0,
            current_leader_epoch: current,
            leader_epoch: asked,
        };
        let topic = OffsetForLeaderTopic { topic: "t".into(), partitions: vec![partition] };
        let request = OffsetForLeaderEpochRequest { topics: vec![topic], replica_id: -1 };
        client.call(4, &request, |response| {
            let end = &response.topics[0].partitions[0];
            (end.error_code, end.leader_epoch, end.end_offset)
        })
    };
    let batch_epoch =
        BatchHeader::parse(&client.fetch("t", 0, 0, 100).records).unwrap().leader_epoch.0;
    assert_eq!(epoch_of(&mut client, -1, batch_epoch), (0, batch_epoch, 1));
    assert_eq!(epoch_of(&mut client, -1, batch_epoch + 5), (0, -1, -1));
    let unknown = code(ErrorCode::UnknownLeaderEpoch);
    assert_eq!(epoch_of(&mut client, batch_epoch + 5, batch_epoch).0, unknown);
    let mut request = fetch_request("t", 0, 0, 100, 1 << 20);
    request.topics[0].partitions[0].current_leader_epoch = batch_epoch + 1;
    let got = client.call(11, &request, |response| fetched(&response));
    assert_eq!(got.error_code, unknown);
}

#[test]
fn what_is_wrong_with_a_batch_has_kafkas_code() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[("max.message.bytes", "10000")]);
    cluster.create_topic("careful", 1, &[("min.insync.replicas", "1")]);
    let mut client = cluster.client();
    let good = batch(&[b"v"]);
    let mut check = |what: &str, records: &[u8], expected: ErrorCode| {
        let got = client.produce("t", 0, -1, records).error_code;
        assert_eq!(got, code(expected), "{what}");
    };
    let mut bad = good.clone();
    bad[HEADER_BYTES] ^= 1;
    check("checksum", &bad, ErrorCode::CorruptMessage);
    check("nothing", b"", ErrorCode::InvalidRecord);
    check("two batches", &[good.clone(), good.clone()].concat(), ErrorCode::InvalidRecord);
    check("short", &good[..good.len() - 1], ErrorCode::InvalidRecord);
    let mut bad = good.clone();
    bad[16] = 1;
    check("magic", &bad, ErrorCode::InvalidRecord);
    let mut bad = good.clone();
    bad[7] = 1;
    check("base offset", &bad, ErrorCode::InvalidRecord);
    check("size", &batch(&[&vec![0; 20_000]]), ErrorCode::MessageTooLarge);
    assert_eq!(
        client.produce("t", 1, -1, &good).error_code,
        code(ErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(
        client.produce("x", 0, -1, &good).error_code,
        code(ErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(client.produce("t", 0, 2, &good).error_code, code(ErrorCode::InvalidRequiredAcks));
    let mut request = produce_request("t", 0, -1, &good);
    let again = request.topic_data[0].partition_data[0].clone();
    request.topic_data[0].partition_data.push(again);
    client.call(9, &request, |response| {
        for partition in &response.responses[0].partition_responses {
            assert_eq!(partition.error_code, code(ErrorCode::InvalidRequest));
        }
    });
    // Nothing of all that is in the log.
    assert_eq!(client.produce("t", 0, -1, &good).base_offset, 0);
}

#[test]
fn the_broker_times_records_where_the_topic_says_so() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let mut client = cluster.client();
    let before = now();
    let response = client.produce("t", 0, -1, &batch(&[b"v"]));
    assert!(response.log_append_time_ms >= before.0);
    let got = client.fetch("t", 0, 0, 100);
    // The checksum was made anew, too: `values` verifies it.
    assert_eq!(values(&got.records).len(), 1);
    let header = BatchHeader::parse(&got.records).unwrap();
    assert_eq!(header.max_timestamp.0, response.log_append_time_ms);
}

#[test]
fn topics_are_produced_to_and_fetched_from_by_id() {
    let cluster = Cluster::start(1);
    cluster.create_topic("t", 1, &[]);
    let mut client = cluster.client();
    let id = Uuid(client.metadata("t", false).id);
    let sent = batch(&[b"v"]);
    let mut request = produce_request("", 0, -1, &sent);
    request.topic_data[0].topic_id = id;
    let error = client.call(13, &request, |r| r.responses[0].partition_responses[0].error_code);
    assert_eq!(error, 0);
    request.topic_data[0].topic_id = Uuid([9; 16]);
    let error = client.call(13, &request, |r| r.responses[0].partition_responses[0].error_code);
    assert_eq!(error, code(ErrorCode::UnknownTopicId));
    let mut request = fetch_request("", 0, 0, 100, 1 << 20);
    request.topics[0].topic_id = id;
    let got = client.call(17, &request, |response| fetched(&response));
    assert_eq!(values(&got.records).len(), 1);
}

#[test]
fn a_fetch_session_tells_only_what_changed() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    let mut client = cluster.client();
    let with_session = |id, epoch, offsets: &[(i32, i64)]| {
        let mut request = fetch_request("t", 0, 0, 0, 1 << 20);
        let one = request.topics[0].partitions[0].clone();
        let partitions: Vec<_> = offsets
            .iter()
            .map(|(partition, fetch_offset)| FetchPartition {
                partition: *partition,
                fetch_offset: *fetch_offset,
                ..one.clone()
            })
            .collect();
        request.topics = if partitions.is_empty() {
            Vec::new()
        } else {
            vec![FetchTopic { topic: "t".into(), partitions, ..FetchTopic::default() }]
        };
        request.session_id = id;
        request.session_epoch = epoch;
        request
    };
    let partitions = |client: &mut Client, request: &FetchRequest<'_>| {
        client.call(11, request, |response| {
            let indexes = response
                .responses
                .iter()
                .flat_map(|topic| &topic.partitions)
                .map(|partition| partition.partition_index)
                .collect::<Vec<_>>();
            (response.error_code, response.session_id, indexes)
        })
    };
    let (error, id, all) = partitions(&mut client, &with_session(0, 0, &[(0, 0), (1, 0)]));
    assert_eq!((error, all), (0, vec![0, 1]));
    assert!(id > 0);
    assert_eq!(partitions(&mut client, &with_session(id, 1, &[])), (0, id, vec![]));
    client.produce("t", 1, -1, &batch(&[b"v"]));
    assert_eq!(partitions(&mut client, &with_session(id, 2, &[])), (0, id, vec![1]));
    assert_eq!(partitions(&mut client, &with_session(id, 3, &[(1, 1)])), (0, id, vec![]));
    let wrong = code(ErrorCode::InvalidFetchSessionEpoch);
    assert_eq!(partitions(&mut client, &with_session(id, 9, &[])).0, wrong);
    let unknown = code(ErrorCode::FetchSessionIdNotFound);
    assert_eq!(partitions(&mut client, &with_session(id + 100, 1, &[])).0, unknown);
}

#[test]
fn an_empty_broker_tells_of_its_figures_and_its_health() {
    let cluster = Cluster::start(2);
    cluster.create_topic("t", 2, &[]);
    let mut client = cluster.client();
    client.produce("t", 0, -1, &batch(&[b"v"]));
    let (status, text) = cluster::get(cluster.broker().admin_address().unwrap(), "/metrics");
    assert_eq!(status, 200);
    for line in
        ["levada_shards 2", "levada_partitions 2", "levada_requests_total{api=\"Produce\"} 1"]
    {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    let (status, text) = cluster::get(cluster.broker().admin_address().unwrap(), "/health");
    assert_eq!(status, 200, "{text}");
    assert!(text.contains("\"status\":\"ok\""), "{text}");
    let _: Fetched = client.fetch("t", 0, 0, 100);
}
