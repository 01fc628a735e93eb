//! `DescribeTopicPartitions`: topics and partitions, page by page, ordered by name. `[P]`

use std::collections::BTreeSet;
use std::ops::Bound;

use levada_protocol::cluster::{BrokerState, PartitionImage};
use levada_protocol::kafka::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use levada_protocol::kafka::{ErrorCode, Uuid};
use levada_record::TopicName;

use super::context::{owned, wire_id};
use crate::image::{ImageView, TopicView};

/// Most partitions on a page, whatever the client asks for.
pub const PAGE_PARTITIONS_MAX: usize = 2_000;

/// What anybody may do with a topic while there are no users: read (3), write (4), create (5),
/// delete (6), alter (7), describe (8), describe (10) and alter (11) its settings.
const ALLOWED: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;

/// One page of `view`; at most `names_max` topics may be asked for by name.
pub fn handle(
    view: &ImageView,
    request: &DescribeTopicPartitionsRequest<'_>,
    names_max: u64,
) -> DescribeTopicPartitionsResponse<'static> {
    let has_too_many = request.topics.len() as u64 > names_max;
    let is_misplaced = request.cursor.as_ref().is_some_and(|cursor| cursor.partition_index < 0);
    if has_too_many || is_misplaced {
        // There is no other place for an error than each topic.
        let topics = request.topics.iter();
        let topics = topics.map(|topic| absent(&topic.name, ErrorCode::InvalidRequest)).collect();
        return DescribeTopicPartitionsResponse {
            topics,
            ..DescribeTopicPartitionsResponse::default()
        };
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(1);
    let mut page = Page::new(view, limit.clamp(1, PAGE_PARTITIONS_MAX));
    let first = request.cursor.as_ref().map(|cursor| &*cursor.topic_name);
    let first_partition = |name: &str| match &request.cursor {
        Some(cursor) if cursor.topic_name == name => {
            usize::try_from(cursor.partition_index).unwrap_or_default()
        }
        _ => 0,
    };
    if request.topics.is_empty() {
        let from_first = |name: &str| first.is_none_or(|first| first <= name);
        for topic in view.image.topics_by_name() {
            let name = topic.name.as_str();
            // A cursor may name what has been deleted since: the page goes on behind it.
            if from_first(name) && page.add(name, first_partition(name)) == Room::No {
                break;
            }
        }
    } else {
        let names: BTreeSet<&str> = request.topics.iter().map(|topic| &*topic.name).collect();
        let from = first.map_or(Bound::Unbounded, Bound::Included);
        for name in names.range::<str, _>((from, Bound::Unbounded)) {
            if page.add(name, first_partition(name)) == Room::No {
                break;
            }
        }
    }
    DescribeTopicPartitionsResponse {
        throttle_time_ms: 0,
        topics: page.topics,
        next_cursor: page.next,
    }
}

/// Whether there is room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Yes,
    No,
}

struct Page<'a> {
    view: &'a ImageView,
    /// Partitions that still fit.
    left: usize,
    topics: Vec<DescribeTopicPartitionsResponseTopic<'static>>,
    next: Option<Cursor<'static>>,
}

impl<'a> Page<'a> {
    fn new(view: &'a ImageView, left: usize) -> Self {
        Self { view, left, topics: Vec::new(), next: None }
    }

    /// Adds a topic from `first` on; what does not fit begins the next page.
    fn add(&mut self, name: &str, first: usize) -> Room {
        let Some(topic) = self.view.topic_named(name) else {
            let code = match TopicName::new(name) {
                Ok(_) => ErrorCode::UnknownTopicOrPartition,
                Err(_) => ErrorCode::InvalidTopic,
            };
            self.topics.push(absent(name, code));
            return Room::Yes;
        };
        if self.left == 0 {
            self.next = Some(cursor(name, first));
            return Room::No;
        }
        let partitions = topic.image.partitions.get(first..).unwrap_or_default();
        let shown = partitions.get(..self.left).unwrap_or(partitions);
        self.left -= shown.len();
        self.topics.push(self.present(topic, shown));
        if shown.len() < partitions.len() {
            self.next = Some(cursor(name, first + shown.len()));
            return Room::No;
        }
        Room::Yes
    }

    fn present(
        &self,
        topic: &TopicView,
        partitions: &[PartitionImage],
    ) -> DescribeTopicPartitionsResponseTopic<'static> {
        DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::None.to_i16(),
            name: Some(owned(topic.image.name.as_str())),
            topic_id: wire_id(topic.image.id),
            is_internal: topic.image.name.is_internal(),
            partitions: partitions.iter().map(|state| self.partition(state)).collect(),
            topic_authorized_operations: ALLOWED,
        }
    }

    fn partition(&self, state: &PartitionImage) -> DescribeTopicPartitionsResponsePartition {
        let is_alive = |broker| {
            let broker = self.view.image.broker(broker);
            broker.is_some_and(|broker| broker.state != BrokerState::Fenced)
        };
        let offline = state.replicas.iter().filter(|replica| !is_alive(replica.broker));
        DescribeTopicPartitionsResponsePartition {
            error_code: match state.leader {
                Some(_) => ErrorCode::None,
                None => ErrorCode::LeaderNotAvailable,
            }
            .to_i16(),
            partition_index: state.index.0,
            leader_id: state.leader.map_or(-1, |leader| leader.0),
            leader_epoch: state.leader_epoch.0,
            replica_nodes: state.replicas.iter().map(|replica| replica.broker.0).collect(),
            isr_nodes: state.isr.iter().map(|broker| broker.0).collect(),
            // Empty, never null: that breaks Java clients.
            eligible_leader_replicas: Some(state.elr.iter().map(|broker| broker.0).collect()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: offline.map(|replica| replica.broker.0).collect(),
        }
    }
}

fn cursor(name: &str, partition: usize) -> Cursor<'static> {
    let partition_index = i32::try_from(partition).unwrap_or(i32::MAX);
    Cursor { topic_name: owned(name), partition_index }
}

fn absent(name: &str, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic<'static> {
    DescribeTopicPartitionsResponseTopic {
        error_code: code.to_i16(),
        name: Some(owned(name)),
        topic_id: Uuid::ZERO,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_protocol::cluster::{
        Change, ClusterId, ClusterImage, Committed, PartitionEpoch, ReplicaImage, TopicImage,
    };
    use levada_protocol::kafka::describe_topic_partitions::TopicRequest;
    use levada_record::{BrokerId, LeaderEpoch, PartitionIndex, ShardIndex, TopicId};
    use std::collections::BTreeMap;
    use std::sync::Arc;

    fn view(topics: &[(&str, i32)]) -> ImageView {
        let mut image = ClusterImage::empty(ClusterId([1; 16]));
        let topics = topics.iter().zip(1..).map(|((name, partitions), id)| {
            let partition = |index| PartitionImage {
                index: PartitionIndex(index),
                replicas: vec![ReplicaImage {
                    broker: BrokerId(1),
                    shard: ShardIndex(0),
                    confirmed: true,
                }],
                leader: (index != 3).then_some(BrokerId(1)),
                leader_epoch: LeaderEpoch(4),
                partition_epoch: PartitionEpoch(1),
                isr: vec![BrokerId(1)],
                elr: Vec::new(),
            };
            Change::TopicCreated(TopicImage {
                id: TopicId([id; 16]),
                name: TopicName::new(name).unwrap(),
                configs: BTreeMap::new(),
                partitions: (0..*partitions).map(partition).collect(),
            })
        });
        let changes = topics.collect();
        image.apply(&Committed { previous: 0, index: 1, changes }).unwrap();
        ImageView::derive(Arc::new(image), None)
    }

    type Shown = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    fn page(view: &ImageView, names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Shown {
        let request = DescribeTopicPartitionsRequest {
            topics: names.iter().map(|name| TopicRequest { name: (*name).into() }).collect(),
            response_partition_limit: limit,
            cursor: cursor
                .map(|(name, partition_index)| Cursor { topic_name: name.into(), partition_index }),
        };
        let response = handle(view, &request, 3);
        let topics = response.topics.iter().map(|topic| {
            let indexes = topic.partitions.iter().map(|state| state.partition_index).collect();
            (topic.name.as_deref().unwrap().to_owned(), topic.error_code, indexes)
        });
        let next = response.next_cursor.as_ref();
        let next = next.map(|next| (next.topic_name.to_string(), next.partition_index));
        (topics.collect(), next)
    }

    fn of(topics: &[(&str, &[i32])]) -> Vec<(String, i16, Vec<i32>)> {
        topics.iter().map(|(name, indexes)| ((*name).to_owned(), 0, indexes.to_vec())).collect()
    }

    fn at(name: &str, index: i32) -> (String, i32) {
        (name.to_owned(), index)
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_overlap() {
        let view = view(&[("c", 1), ("a", 3), ("b", 2)]);
        assert_eq!(page(&view, &[], 2, None), (of(&[("a", &[0, 1])]), Some(at("a", 2))));
        let second = page(&view, &[], 2, Some(("a", 2)));
        assert_eq!(second, (of(&[("a", &[2]), ("b", &[0])]), Some(at("b", 1))));
        let third = page(&view, &[], 2, Some(("b", 1)));
        assert_eq!(third, (of(&[("b", &[1]), ("c", &[0])]), None));
        // A page that ends with a topic leads to the next one.
        assert_eq!(page(&view, &[], 3, None), (of(&[("a", &[0, 1, 2])]), Some(at("b", 0))));
        // The topic of a cursor may be gone by then.
        assert_eq!(page(&view, &[], 9, Some(("bb", 1))), (of(&[("c", &[0])]), None));
    }

    #[test]
    fn named_topics_come_sorted_and_once_with_a_code_for_those_that_are_not_there() {
        let view = view(&[("a", 1), ("b", 1)]);
        let (topics, next) = page(&view, &["x/", "b", "b"], 9, None);
        let invalid = ErrorCode::InvalidTopic.to_i16();
        assert_eq!(topics, [("b".into(), 0, vec![0]), ("x/".into(), invalid, vec![])]);
        assert_eq!(next, None);
        let (topics, _) = page(&view, &["nope"], 9, None);
        assert_eq!(topics[0].1, ErrorCode::UnknownTopicOrPartition.to_i16());
        let (topics, _) = page(&view, &["a", "b"], 9, Some(("b", 0)));
        assert_eq!(topics, of(&[("b", &[0])]));
    }

    #[test]
    fn a_senseless_limit_is_taken_as_one_and_a_large_one_is_cut() {
        let view = view(&[("a", 2_500)]);
        for limit in [0, -5, i32::MIN] {
            assert_eq!(page(&view, &[], limit, None).1, Some(at("a", 1)), "{limit}");
        }
        let (topics, next) = page(&view, &[], i32::MAX, None);
        assert_eq!((topics[0].2.len(), next), (PAGE_PARTITIONS_MAX, Some(at("a", 2_000))));
        let far = page(&view, &[], 10, Some(("a", i32::MAX)));
        assert_eq!(far, (of(&[("a", &[])]), None));
    }

    #[test]
    fn too_many_names_and_a_negative_cursor_are_refused() {
        let view = view(&[("a", 1)]);
        let invalid = ErrorCode::InvalidRequest.to_i16();
        let (topics, _) = page(&view, &["a", "b", "c", "d"], 9, None);
        assert!(topics.len() == 4 && topics.iter().all(|topic| topic.1 == invalid), "{topics:?}");
        assert_eq!(page(&view, &["a"], 9, Some(("a", -1))).0[0].1, invalid);
    }

    #[test]
    fn lists_are_empty_and_never_null_and_a_partition_without_a_leader_says_so() {
        let view = view(&[("a", 4)]);
        let request = DescribeTopicPartitionsRequest::default();
        let response = handle(&view, &request, 3);
        let partitions = &response.topics[0].partitions;
        for state in partitions {
            assert_eq!(state.eligible_leader_replicas, Some(Vec::new()));
            assert_eq!(state.last_known_elr, Some(Vec::new()));
            // The only broker is not registered.
            assert_eq!(state.offline_replicas, [1]);
        }
        assert_eq!((partitions[0].leader_id, partitions[0].leader_epoch), (1, 4));
        let none = ErrorCode::LeaderNotAvailable.to_i16();
        assert_eq!((partitions[3].leader_id, partitions[3].error_code), (-1, none));
    }
}
