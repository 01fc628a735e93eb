//! Records that stay where they are: only their length is written, and where they go is noted.

use levada_protocol::kafka::fetch::{FetchResponse, FetchableTopicResponse, PartitionData};
use levada_protocol::kafka::metadata::{MetadataRequest, MetadataRequestTopic};
use levada_protocol::kafka::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use levada_protocol::kafka::{
    ApiKey, Decode as _, EncodeError, Encoded, Reader, RecordBytes, RequestHeader, Uuid,
    decode_response_header, encode_request, encode_response, encode_response_into,
};

fn response(records: [RecordBytes<'_>; 3]) -> FetchResponse<'_> {
    let partition = |(index, records)| PartitionData {
        partition_index: index,
        high_watermark: 7,
        aborted_transactions: None,
        records,
        ..PartitionData::default()
    };
    FetchResponse {
        session_id: 9,
        responses: vec![FetchableTopicResponse {
            topic: "orders".into(),
            topic_id: Uuid([3; 16]),
            partitions: (0..).zip(records).map(partition).collect(),
        }],
        ..FetchResponse::default()
    }
}

/// The frame as it goes over the wire.
fn gather(encoded: &Encoded, payloads: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = 0;
    for splice in &encoded.splices {
        let payload = payloads[splice.token as usize];
        assert_eq!(payload.len(), splice.len as usize);
        out.extend(&encoded.bytes[at..splice.at]);
        out.extend(payload);
        at = splice.at;
    }
    out.extend(&encoded.bytes[at..]);
    out
}

#[test]
fn spliced_records_give_the_same_frame_as_copied_ones() {
    let (first, second) = ([1; 300], [2; 5]);
    for version in 4..=18 {
        let copied = response([(&first[..]).into(), RecordBytes::Null, (&second[..]).into()]);
        let spliced = response([
            RecordBytes::External { len: 300, token: 0 },
            RecordBytes::Null,
            RecordBytes::External { len: 5, token: 1 },
        ]);
        let copied = encode_response(ApiKey::Fetch, version, 42, &copied).unwrap();
        let spliced = encode_response(ApiKey::Fetch, version, 42, &spliced).unwrap();
        assert_eq!(copied.splices, []);
        assert_eq!(spliced.splices.len(), 2);
        assert_eq!(spliced.bytes.len() + 305, copied.bytes.len());
        assert_eq!(spliced.total_bytes(), copied.total_bytes());
        let frame = gather(&spliced, &[&first, &second]);
        assert_eq!(frame, copied.bytes, "version {version}");
        assert_eq!(frame[..4], u32::try_from(frame.len() - 4).unwrap().to_be_bytes());
        let mut r = Reader::new(&frame[4..]);
        assert_eq!(decode_response_header(&mut r, ApiKey::Fetch, version), Ok(42));
        let read = FetchResponse::decode_all(r, version).unwrap();
        assert_eq!(read.responses[0].partitions[0].records, RecordBytes::Borrowed(&first));
    }
}

#[test]
fn frame_may_follow_others_in_one_buffer() {
    let body = response([
        RecordBytes::External { len: 6, token: 0 },
        RecordBytes::Null,
        RecordBytes::Null,
    ]);
    let alone = encode_response(ApiKey::Fetch, 12, 1, &body).unwrap();
    let after = encode_response_into(vec![9; 10], ApiKey::Fetch, 12, 1, &body).unwrap();
    assert_eq!(after.bytes[..10], [9; 10]);
    assert_eq!(after.bytes[10..], alone.bytes[..]);
    assert_eq!(after.splices[0].at, alone.splices[0].at + 10);
}

#[test]
fn decoded_request_borrows_from_the_frame() {
    let records = [5; 1000];
    let request = ProduceRequest {
        acks: -1,
        topic_data: vec![TopicProduceData {
            name: "orders".into(),
            partition_data: vec![PartitionProduceData { index: 3, records: (&records[..]).into() }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let frame = encode_request(9, 1, Some("test"), &request).unwrap().bytes;
    let mut r = Reader::new(&frame[4..]);
    assert_eq!(RequestHeader::decode(&mut r).unwrap().api_key, ApiKey::Produce);
    let read = ProduceRequest::decode_all(r, 9).unwrap();
    assert_eq!(read, request);
    let inside = |part: &[u8]| frame.as_ptr_range().contains(&part.as_ptr());
    let topic = &read.topic_data[0];
    assert!(matches!(topic.name, std::borrow::Cow::Borrowed(name) if inside(name.as_bytes())));
    assert!(inside(topic.partition_data[0].records.as_slice().unwrap()));
}

#[track_caller]
fn check_refused(version: i16, request: &MetadataRequest<'_>, error: EncodeError) {
    assert_eq!(encode_request(version, 1, None, request), Err(error));
}

#[test]
fn what_a_version_cannot_carry_is_refused_not_dropped() {
    let topic = |name: Option<&'static str>| MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: name.map(Into::into),
            ..MetadataRequestTopic::default()
        }]),
        ..MetadataRequest::default()
    };
    let all = MetadataRequest::default();
    check_refused(0, &all, EncodeError::UnexpectedNull { version: 0 });
    check_refused(9, &topic(None), EncodeError::UnexpectedNull { version: 9 });
    check_refused(
        14,
        &all,
        EncodeError::UnknownVersion { message: "MetadataRequest", version: 14 },
    );
    let no_creation = MetadataRequest { allow_auto_topic_creation: false, ..topic(Some("a")) };
    let field = "MetadataRequest.allow_auto_topic_creation";
    check_refused(3, &no_creation, EncodeError::FieldNotInVersion { field, version: 3 });
    assert!(encode_request(4, 1, None, &no_creation).is_ok());
    let long: &'static str = "x".repeat(32_768).leak();
    check_refused(8, &topic(Some(long)), EncodeError::TooLong { length: 32_768 });
    assert!(encode_request(9, 1, None, &topic(Some(long))).is_ok());
}

#[test]
fn frame_longer_than_its_length_field_is_refused() {
    let half = RecordBytes::External { len: 1 << 30, token: 0 };
    let fits = response([half, RecordBytes::Null, RecordBytes::Null]);
    assert!(encode_response(ApiKey::Fetch, 12, 1, &fits).is_ok());
    let error = encode_response(ApiKey::Fetch, 12, 1, &response([half, half, RecordBytes::Null]));
    assert!(matches!(error, Err(EncodeError::TooLong { .. })), "{error:?}");
    let huge = RecordBytes::External { len: u32::MAX, token: 0 };
    let error = encode_response(
        ApiKey::Fetch,
        12,
        1,
        &response([huge, RecordBytes::Null, RecordBytes::Null]),
    );
    assert!(matches!(error, Err(EncodeError::TooLong { .. })), "{error:?}");
}
