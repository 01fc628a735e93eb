//! Messages survive the wire; strangers' bytes do no harm.

mod any;

use std::collections::BTreeMap;

use levada_record::epoch::LeaderEpoch;
use levada_record::id::{BrokerId, PartitionIndex, ProducerId, ShardIndex, TopicId};
use levada_record::name::TopicName;
use proptest::prelude::*;

use super::command::Command;
use super::decode::decode_message;
use super::encode::encode_message;
use super::frame::{HEADER_BYTES, frame_bytes};
use super::image::Applied;
use super::*;

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_message(message, &mut bytes);
    bytes
}

fn heartbeat() -> Envelope {
    let heartbeat = request::Heartbeat {
        broker: BrokerId(1),
        epoch: BrokerEpoch(7),
        seen_index: 9,
        wish: request::Wish::Serve,
    };
    Envelope {
        cluster: Some(ClusterId([7; 16])),
        request_id: 42,
        message: Message::Request(Request::Heartbeat(heartbeat)),
    }
}

proptest! {
    #[test]
    fn every_message_survives_the_wire(envelope in any::envelope()) {
        let frame = envelope.encode(MAX_FRAME_BYTES).unwrap();
        prop_assert_eq!(frame_bytes(&frame, MAX_FRAME_BYTES), Ok(Some(frame.len())));
        prop_assert_eq!(Envelope::decode(&frame).unwrap(), envelope);
    }

    #[test]
    fn every_command_survives_the_log(command in any::command()) {
        prop_assert_eq!(Command::decode(&command.encode()).unwrap(), command);
    }

    #[test]
    fn an_image_survives_and_is_no_longer_than_its_weight(image in any::image()) {
        let bytes = encode_image(&image);
        prop_assert!(bytes.len() <= image.weight_bytes(), "{} B, weight {}", bytes.len(), image.weight_bytes());
        prop_assert_eq!(decode_image(&bytes).unwrap(), image);
    }

    #[test]
    fn random_bytes_are_refused_or_read_but_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _verdict = decode_message(&bytes);
        let _verdict = decode_image(&bytes);
        let _verdict = Command::decode(&bytes);
        let _verdict = Envelope::decode(&bytes);
        let _verdict = frame_bytes(&bytes, MAX_REQUEST_BYTES);
    }

    // Random bytes rarely get past the verifier's first look; damaged messages do.
    #[test]
    fn damaged_messages_are_refused_or_read_but_never_panic(
        message in any::message(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = encoded(&message);
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _verdict = decode_message(&bytes);
        let _verdict = decode_message(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn damaged_commands_are_refused_or_read_but_never_panic(
        command in any::command(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = command.encode();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        let _verdict = Command::decode(&bytes);
    }

    #[test]
    fn frames_are_found_however_the_bytes_arrive(
        envelopes in proptest::collection::vec(any::envelope(), 1..4),
        pieces in proptest::collection::vec(1usize..200, 1..50),
    ) {
        let stream: Vec<u8> =
            envelopes.iter().flat_map(|envelope| envelope.encode(MAX_FRAME_BYTES).unwrap()).collect();
        let mut reader = FrameReader::new(MAX_FRAME_BYTES);
        let mut found = Vec::new();
        let mut rest = &stream[..];
        let mut pieces = pieces.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
            rest = after;
            reader.feed(piece);
            while let Some(envelope) = reader.next_frame().unwrap() {
                found.push(envelope);
            }
        }
        prop_assert!(!reader.is_within_frame());
        prop_assert_eq!(found, envelopes);
    }
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let frame = heartbeat().encode(MAX_REQUEST_BYTES).unwrap();
    for bit in 0..frame.len() * 8 {
        let mut damaged = frame.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(Envelope::decode(&damaged).is_err(), "bit {bit}");
    }
    for end in 0..frame.len() {
        assert!(Envelope::decode(&frame[..end]).is_err(), "cut at {end}");
    }
}

#[test]
fn a_frame_over_the_limit_is_refused_by_its_length_alone() {
    let longest = u32::try_from(MAX_REQUEST_BYTES - 4).unwrap();
    assert_eq!(frame_bytes(&longest.to_le_bytes(), MAX_REQUEST_BYTES), Ok(Some(MAX_REQUEST_BYTES)));
    let longer = (longest + 1).to_le_bytes();
    assert_eq!(
        frame_bytes(&longer, MAX_REQUEST_BYTES),
        Err(DecodeError::TooLarge {
            got_bytes: MAX_REQUEST_BYTES + 1,
            max_bytes: MAX_REQUEST_BYTES
        })
    );
    assert!(frame_bytes(&u32::MAX.to_le_bytes(), usize::MAX).is_ok());
    let frame = heartbeat().encode(MAX_REQUEST_BYTES).unwrap();
    assert_eq!(heartbeat().encode(frame.len()).unwrap(), frame);
    assert_eq!(
        heartbeat().encode(frame.len() - 1),
        Err(EncodeError::TooLarge { got_bytes: frame.len(), max_bytes: frame.len() - 1 })
    );
}

#[test]
fn a_peer_that_speaks_something_else_is_told_from_one_that_is_newer() {
    let http = b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9190\r\n\r\n";
    assert!(matches!(frame_bytes(http, MAX_FRAME_BYTES), Err(DecodeError::TooLarge { .. })));
    let mut frame = heartbeat().encode(MAX_REQUEST_BYTES).unwrap();
    frame[8] = 2;
    assert_eq!(
        frame_bytes(&frame[..HEADER_BYTES], MAX_REQUEST_BYTES),
        Err(DecodeError::Version { got: 2, known: 1 })
    );
    frame[4] = b'X';
    assert_eq!(
        frame_bytes(&frame[..HEADER_BYTES], MAX_REQUEST_BYTES),
        Err(DecodeError::Magic { got: *b"XVDC" })
    );
}

// A vector may name one table many times: 1 MiB of offsets to a topic of 1 MiB would become a
// terabyte of owned topics. The verifier's budget of visited bytes must end that.
#[test]
fn a_message_cannot_grow_when_it_is_decoded() {
    use crate::generated::cluster::levada::cluster as fb;
    let mut b = flatbuffers::FlatBufferBuilder::new();
    let name = b.create_string(&"x".repeat(10_000));
    let topic = fb::NewTopic::create(
        &mut b,
        &fb::NewTopicArgs { name: Some(name), ..fb::NewTopicArgs::default() },
    );
    let topics = b.create_vector(&vec![topic; 10_000]);
    let create = fb::CreateTopics::create(
        &mut b,
        &fb::CreateTopicsArgs { topics: Some(topics), validate_only: false },
    );
    let root = fb::Message::create(
        &mut b,
        &fb::MessageArgs { body_type: fb::Body::CreateTopics, body: Some(create.as_union_value()) },
    );
    b.finish_minimal(root);
    assert!(matches!(decode_message(b.finished_data()), Err(DecodeError::Malformed(_))));
}

#[test]
fn a_message_of_an_unknown_kind_names_its_number() {
    use crate::generated::cluster::levada::cluster as fb;
    let mut b = flatbuffers::FlatBufferBuilder::new();
    let confirmed = fb::Confirmed::create(&mut b, &fb::ConfirmedArgs { index: 1 });
    let body = Some(confirmed.as_union_value());
    let root = fb::Message::create(&mut b, &fb::MessageArgs { body_type: fb::Body(200), body });
    b.finish_minimal(root);
    assert_eq!(
        decode_message(b.finished_data()),
        Err(DecodeError::UnknownKind { what: "message", kind: 200 })
    );
}

#[test]
fn refusal_codes_keep_their_numbers() {
    for code in RefusalCode::ALL {
        assert_eq!(RefusalCode::from_number(code.number()), Some(*code));
    }
    assert_eq!(RefusalCode::from_number(0), None);
    assert_eq!(RefusalCode::TopicExists.number(), 10);
}

// ---- the image ----

fn partition(index: i32, leader: i32) -> PartitionImage {
    PartitionImage {
        index: PartitionIndex(index),
        replicas: vec![ReplicaImage {
            broker: BrokerId(leader),
            shard: ShardIndex(0),
            confirmed: false,
        }],
        leader: Some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
        isr: vec![BrokerId(leader)],
        elr: Vec::new(),
    }
}

fn topic(id: u8, name: &str, partitions: i32) -> TopicImage {
    TopicImage {
        id: TopicId([id; 16]),
        name: TopicName::new(name).unwrap(),
        configs: BTreeMap::new(),
        partitions: (0..partitions).map(|index| partition(index, 1)).collect(),
    }
}

fn step(image: &ClusterImage, changes: Vec<Change>) -> Committed {
    Committed { previous: image.index(), index: image.index() + 2, changes }
}

#[test]
fn changes_apply_once_in_order_and_only_without_a_gap() {
    let mut image = ClusterImage::empty(ClusterId([1; 16]));
    let first = step(&image, vec![Change::TopicCreated(topic(1, "orders", 2))]);
    assert_eq!(image.apply(&first), Ok(Applied::Now));
    assert_eq!(image.index(), 2);
    assert_eq!(image.apply(&first), Ok(Applied::Before));
    let later = Committed { previous: 3, index: 4, changes: Vec::new() };
    assert_eq!(image.apply(&later), Err(ApplyError::Gap { have: 2, previous: 3 }));
    let more = vec![Change::Partitions {
        topic: TopicId([1; 16]),
        partitions: vec![partition(1, 2), partition(2, 3)],
    }];
    assert_eq!(image.apply(&step(&image, more)), Ok(Applied::Now));
    assert_eq!(image.partition_count(), 3);
    let orders = image.topic_named("orders").unwrap();
    assert_eq!(orders.partition(PartitionIndex(1)).unwrap().leader, Some(BrokerId(2)));
    assert_eq!(orders.partition(PartitionIndex(3)), None);
    assert_eq!(orders.partition(PartitionIndex(-1)), None);
    assert_eq!(image.replicas_on(BrokerId(1)).count(), 1);
}

#[test]
fn changes_that_contradict_the_image_are_refused() {
    let mut image = ClusterImage::empty(ClusterId([1; 16]));
    let create = step(&image, vec![Change::TopicCreated(topic(1, "orders", 1))]);
    image.apply(&create).unwrap();
    let check = |change: Change, error: ApplyError| {
        assert_eq!(image.clone().apply(&step(&image, vec![change])), Err(error));
    };
    let orders = TopicId([1; 16]);
    let absent = TopicId([9; 16]);
    let exists = ApplyError::TopicExists { name: TopicName::new("orders").unwrap() };
    check(Change::TopicCreated(topic(2, "orders", 1)), exists);
    check(Change::TopicDeleted(absent), ApplyError::UnknownTopic { topic: absent });
    let gap = ApplyError::PartitionGap { topic: orders, index: PartitionIndex(5) };
    check(Change::Partitions { topic: orders, partitions: vec![partition(5, 1)] }, gap);
    let mut holey = topic(3, "holey", 2);
    holey.partitions.remove(0);
    let gap = ApplyError::PartitionGap { topic: holey.id, index: PartitionIndex(1) };
    check(Change::TopicCreated(holey), gap);
}

#[test]
fn a_clone_of_an_image_does_not_see_later_changes() {
    let mut image = ClusterImage::empty(ClusterId([1; 16]));
    image.apply(&step(&image.clone(), vec![Change::TopicCreated(topic(1, "orders", 1))])).unwrap();
    let before = image.clone();
    let configs = BTreeMap::from([("retention.ms".to_owned(), "1".to_owned())]);
    let change = Change::TopicConfigured { topic: TopicId([1; 16]), configs: configs.clone() };
    image.apply(&step(&image.clone(), vec![change])).unwrap();
    let gone = Change::TopicDeleted(TopicId([1; 16]));
    assert_eq!(image.topic_named("orders").unwrap().configs, configs);
    image.apply(&step(&image.clone(), vec![gone])).unwrap();
    assert!(image.topic_named("orders").is_none());
    assert!(before.topic_named("orders").unwrap().configs.is_empty());
    assert_eq!(image.weight_bytes(), ClusterImage::empty(ClusterId([1; 16])).weight_bytes());
}

#[test]
fn producer_ids_never_go_back() {
    let mut image = ClusterImage::empty(ClusterId([1; 16]));
    for next in [1000, 500] {
        let change = Change::ProducerIds { next: ProducerId(next) };
        image.apply(&step(&image.clone(), vec![change])).unwrap();
    }
    assert_eq!(image.next_producer_id(), ProducerId(1000));
}
