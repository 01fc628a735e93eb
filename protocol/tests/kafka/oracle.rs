//! Every API in every version: our codec and the crate kafka-protocol read the same values from the same bytes and write
//! the same bytes from them. The bytes come from a third reading of the definitions (`random.rs`).

use std::fmt::Write as _;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{self, RequestHeader as TheirRequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use levada_protocol::kafka::{
    ApiKey, Encode, ErrorCode, Reader, RequestHeader, Versions, Writer, decode_response_header,
    encode_any_request, encode_response,
};

use super::random::{self, Any, Role, Sample, every_message, seed};

/// Bodies per API, role and version.
const PER_VERSION: usize = 24;

#[test]
fn both_codecs_read_and_write_the_same() {
    let seed = seed();
    let mut messages = 0u32;
    every_message(seed, PER_VERSION, |sample| {
        let context = || format!("LEVADA_SEED={seed} {sample:?}");
        let ours = random::decode(sample, &sample.bytes)
            .unwrap_or_else(|why| panic!("{why}\n{}", context()));
        let theirs =
            their_round(sample, &sample.bytes).unwrap_or_else(|why| panic!("{why}\n{}", context()));
        assert_eq!(theirs.bytes, sample.bytes, "theirs writes other bytes\n{}", context());
        let written = random::encode(&ours, sample.version);
        assert_eq!(written.as_ref(), Ok(&sample.bytes), "ours writes other bytes\n{}", context());
        assert_eq!(our_words(&ours), their_words(&theirs.debug), "{}", context());
        messages += 1;
    });
    assert!(messages > 5000, "{messages}");
}

#[test]
fn unknown_tagged_fields_are_skipped() {
    let seed = seed();
    let mut with_tags = 0u32;
    every_message(seed, PER_VERSION, |sample| {
        let context = || format!("LEVADA_SEED={seed} {sample:?}");
        let clean = random::decode(sample, &sample.bytes).unwrap();
        let dirty = random::decode(sample, &sample.with_unknown_tags)
            .unwrap_or_else(|why| panic!("{why}\n{}", context()));
        assert_eq!(clean, dirty, "{}", context());
        if sample.bytes != sample.with_unknown_tags {
            with_tags += 1;
            // Theirs keeps them: this proves that the fields are where such fields may be.
            let theirs = their_round(sample, &sample.with_unknown_tags)
                .unwrap_or_else(|why| panic!("{why}\n{}", context()));
            assert_eq!(theirs.bytes, sample.with_unknown_tags, "{}", context());
        }
    });
    assert!(with_tags > 500, "{with_tags}");
}

#[test]
fn headers_are_the_same() {
    for row in ApiKey::table() {
        let theirs = messages::ApiKey::try_from(row.key.to_i16()).unwrap();
        for version in row.accepted.min..=row.accepted.max {
            let request = theirs.request_header_version(version);
            let response = theirs.response_header_version(version);
            assert_eq!(row.key.request_header_version(version), request, "{} {version}", row.name);
            assert_eq!(
                row.key.response_header_version(version),
                response,
                "{} {version}",
                row.name
            );
            for client_id in [None, Some(""), Some("a client")] {
                let header = TheirRequestHeader::default()
                    .with_request_api_key(row.key.to_i16())
                    .with_request_api_version(version)
                    .with_correlation_id(-77)
                    .with_client_id(client_id.map(StrBytes::from_static_str));
                let mut theirs = BytesMut::new();
                header.encode(&mut theirs, request).unwrap();
                let ours = encode_any_request(row.key, version, -77, client_id, &Nothing).unwrap();
                assert_eq!(ours.bytes[4..], theirs[..]);
                let mut r = Reader::new(&theirs);
                let read = RequestHeader::decode(&mut r).unwrap();
                assert_eq!(r.finish(), Ok(()));
                assert_eq!((read.api_key, read.api_version), (row.key, version));
                assert_eq!((read.correlation_id, read.client_id.as_deref()), (-77, client_id));
            }
            let header = ResponseHeader::default().with_correlation_id(1234);
            let mut theirs = BytesMut::new();
            header.encode(&mut theirs, response).unwrap();
            let ours = encode_response(row.key, version, 1234, &Nothing).unwrap();
            assert_eq!(ours.bytes[4..], theirs[..]);
            let mut r = Reader::new(&theirs);
            assert_eq!(decode_response_header(&mut r, row.key, version), Ok(1234));
            assert_eq!(r.finish(), Ok(()));
        }
    }
}

/// Where the ranges differ, on purpose: versions that are not stable, and topic ids in group offsets.
const OURS_END_EARLIER: [(ApiKey, i16); 3] =
    [(ApiKey::OffsetCommit, 10), (ApiKey::OffsetFetch, 10), (ApiKey::InitProducerId, 6)];

#[test]
fn version_ranges_are_the_same_but_for_what_is_listed() {
    for row in ApiKey::table() {
        let range = messages::ApiKey::try_from(row.key.to_i16()).unwrap().valid_versions();
        let mut theirs = Versions { min: range.min, max: range.max };
        if let Some((_, max)) = OURS_END_EARLIER.iter().find(|(key, _)| *key == row.key) {
            assert_eq!(theirs.max, *max, "{}: the list is old", row.name);
            theirs.max -= 1;
        }
        assert_eq!(row.accepted, theirs, "{}", row.name);
    }
}

#[test]
fn error_codes_are_the_same() {
    for code in ErrorCode::ALL {
        let theirs = ResponseError::try_from_code(code.to_i16());
        let Some(theirs) = theirs else {
            assert_eq!(*code, ErrorCode::None);
            continue;
        };
        // The Java client tries again while another operation on the transaction is under way.
        let retriable = theirs.is_retriable() || *code == ErrorCode::ConcurrentTransactions;
        assert_eq!(code.is_retriable(), retriable, "{code}");
        let name: String = code.name().to_lowercase().split('_').collect();
        assert_eq!(name, format!("{theirs:?}").to_lowercase(), "{code}");
    }
    for code in -10..1000 {
        let theirs = ResponseError::try_from_code(code);
        let known = !matches!(theirs, Some(ResponseError::Unknown(_)));
        assert_eq!(ErrorCode::from_i16(code).is_some(), known, "{code}");
    }
}

/// A body of no bytes, to look at headers alone.
struct Nothing;

impl Encode for Nothing {
    fn encode(&self, _w: &mut Writer, _version: i16) {}
}

/// What kafka-protocol makes of a body.
struct Theirs {
    debug: String,
    bytes: Vec<u8>,
}

fn round<T: Decodable + Encodable + std::fmt::Debug>(
    bytes: &[u8],
    version: i16,
) -> Result<Theirs, String> {
    let mut left = Bytes::copy_from_slice(bytes);
    let body = T::decode(&mut left, version).map_err(|why| format!("theirs: {why}"))?;
    if !left.is_empty() {
        return Err(format!("theirs leaves {} bytes", left.len()));
    }
    let mut written = BytesMut::new();
    body.encode(&mut written, version).map_err(|why| format!("theirs: {why}"))?;
    Ok(Theirs { debug: format!("{body:?}"), bytes: written.to_vec() })
}

/// One row per API: a new one does not compile without it.
macro_rules! their_messages {
    ($($key:ident $request:ident $response:ident)*) => {
        fn their_round(sample: &Sample, bytes: &[u8]) -> Result<Theirs, String> {
            match (sample.key, sample.role) {
                $(
                    (ApiKey::$key, Role::Request) => {
                        round::<messages::$request>(bytes, sample.version)
                    }
                    (ApiKey::$key, _) => round::<messages::$response>(bytes, sample.version),
                )*
            }
        }
    };
}

their_messages! {
    Produce ProduceRequest ProduceResponse
    Fetch FetchRequest FetchResponse
    ListOffsets ListOffsetsRequest ListOffsetsResponse
    Metadata MetadataRequest MetadataResponse
    OffsetCommit OffsetCommitRequest OffsetCommitResponse
    OffsetFetch OffsetFetchRequest OffsetFetchResponse
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse
    JoinGroup JoinGroupRequest JoinGroupResponse
    Heartbeat HeartbeatRequest HeartbeatResponse
    LeaveGroup LeaveGroupRequest LeaveGroupResponse
    SyncGroup SyncGroupRequest SyncGroupResponse
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse
    ListGroups ListGroupsRequest ListGroupsResponse
    ApiVersions ApiVersionsRequest ApiVersionsResponse
    CreateTopics CreateTopicsRequest CreateTopicsResponse
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse
    InitProducerId InitProducerIdRequest InitProducerIdResponse
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse
    AlterConfigs AlterConfigsRequest AlterConfigsResponse
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse
    DescribeCluster DescribeClusterRequest DescribeClusterResponse
    DescribeTopicPartitions DescribeTopicPartitionsRequest DescribeTopicPartitionsResponse
}

/// Our value in words, field by field, so that a mix-up of two fields of one type shows.
fn our_words(any: &Any<'_>) -> String {
    let text = match any {
        Any::Request(body) => inner(&format!("{body:?}")),
        Any::Response(body) => inner(&format!("{body:?}")),
    };
    // Levada's own fields are numbers, and unknown tags to others.
    let text = without(&text, ", levada_", &[',', ' ']);
    // Theirs has an empty value where ours has null: by default, in versions without the field.
    text.replace("Some(\"\")", "None").replace("Some([])", "None")
}

/// Without the parts that begin with `begin`, each up to the first of `ends` behind its `: `.
fn without(text: &str, begin: &str, ends: &[char]) -> String {
    let mut parts = text.split(begin);
    let mut left = parts.next().unwrap().to_owned();
    for part in parts {
        let (_, value) = part.split_once(": ").unwrap();
        left.push_str(&value[value.find(ends).unwrap()..]);
    }
    left
}

/// Without the variant of `AnyRequest` around it.
fn inner(text: &str) -> String {
    let (_, text) = text.split_once('(').unwrap();
    text.strip_suffix(')').unwrap().to_owned()
}

/// Fields that kafka-protocol has for versions that we do not have.
const NOT_OURS: [&str; 5] = [
    ", enable_2_pc: false",
    ", keep_prepared_txn: false",
    ", ongoing_txn_producer_id: -1",
    ", ongoing_txn_producer_epoch: -1",
    " topic_id: 00000000-0000-0000-0000-000000000000,",
];

/// Their value in our words.
fn their_words(text: &str) -> String {
    let mut text = without_tags(text);
    for field in NOT_OURS {
        let group_offsets = ["OffsetCommit", "OffsetFetch"];
        if !field.contains("topic_id") || group_offsets.iter().any(|name| text.starts_with(name)) {
            text = text.replace(field, "");
        }
    }
    byte_strings(&text).replace("Some(\"\")", "None").replace("Some([])", "None")
}

/// Without the lists of tagged fields that they do not know: none, or one of ours.
fn without_tags(text: &str) -> String {
    let mut parts = text.split("unknown_tagged_fields: {");
    let mut left = parts.next().unwrap().to_owned();
    for part in parts {
        // In a string of bytes a backslash stands before every quote.
        let value = part.strip_prefix("10000: b\"").map(|string| {
            let mut escaped = false;
            let end = string.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            &string[end.unwrap() + 1..]
        });
        left.truncate(left.strip_suffix(", ").map_or(left.len(), str::len));
        left.push_str(value.unwrap_or(part).strip_prefix('}').unwrap());
    }
    left
}

/// `b"ab"` as numbers, or, for records, as their length.
fn byte_strings(text: &str) -> String {
    let mut out = String::new();
    let mut left = text;
    while let Some((before, after)) = left.split_once("b\"") {
        let (bytes, after) = after.split_once('"').unwrap();
        let numbers = format!("{:?}", bytes.as_bytes());
        if let Some(before) = before.strip_suffix("records: Some(") {
            out += before;
            write!(out, "records: Borrowed({} B)", bytes.len()).unwrap();
            left = after.strip_prefix(')').unwrap();
        } else {
            out += before;
            out += &numbers;
            left = after;
        }
    }
    out += left;
    out.replace("records: None", "records: Null")
}
