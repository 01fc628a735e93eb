//! `OffsetForLeaderEpoch`: where an epoch ended; how a reader finds out that a log was cut.

use std::collections::BTreeMap;
use std::rc::Rc;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
};
use levada_record::{LeaderEpoch, PartitionId, PartitionIndex, ShardIndex};

use super::context::{Context, owned};
use super::error_code;
use crate::partition::ReadFailure;
use crate::shard::Shard;
use crate::shard::router::Owner;

/// One question.
#[derive(Debug, Clone, Copy)]
struct Query {
    partition: PartitionId,
    /// The reign the reader believes in.
    current: Option<LeaderEpoch>,
    /// The epoch whose end it wants.
    asked: LeaderEpoch,
}

type Answer = Result<(i32, i64), ReadFailure>;

/// Asks every partition on its shard.
pub async fn handle(
    context: &Context,
    request: &OffsetForLeaderEpochRequest<'_>,
) -> OffsetForLeaderEpochResponse<'static> {
    let shard = &context.shard;
    let image = shard.image.get();
    let mut questions: BTreeMap<ShardIndex, Vec<(usize, Query)>> = BTreeMap::new();
    let mut answers: Vec<Answer> = Vec::new();
    for topic in &request.topics {
        let view = image.topic_named(&topic.topic);
        for asked in &topic.partitions {
            let slot = answers.len();
            let index = PartitionIndex(asked.partition);
            let known = view.filter(|view| view.image.partition(index).is_some());
            let Some(view) = known else {
                answers.push(Err(ReadFailure::UnknownPartition));
                continue;
            };
            let current = asked.current_leader_epoch;
            let query = Query {
                partition: PartitionId::new(view.image.id, index),
                current: (current >= 0).then_some(LeaderEpoch(current)),
                asked: LeaderEpoch(asked.leader_epoch),
            };
            let owner = match shard.router.owner(&image, shard.broker, query.partition) {
                Owner::Here => shard.index,
                Owner::Shard(index) => index,
                Owner::Elsewhere => {
                    answers.push(Err(ReadFailure::NotLeader));
                    continue;
                }
            };
            questions.entry(owner).or_default().push((slot, query));
            answers.push(Err(ReadFailure::NotLeader));
        }
    }
    for (owner, asked) in questions {
        let (slots, queries): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let work = |shard: Rc<Shard>| async move {
            queries.into_iter().map(|query| look_up(&shard, query)).collect::<Vec<_>>()
        };
        let found = shard.router.call(shard, owner, work).await.unwrap_or_default();
        for (slot, found) in slots.into_iter().zip(found) {
            if let Some(place) = answers.get_mut(slot) {
                *place = found;
            }
        }
    }
    let mut answers = answers.into_iter();
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetForLeaderTopicResult {
            topic: owned(&topic.topic),
            partitions: topic
                .partitions
                .iter()
                .zip(answers.by_ref())
                .map(|(asked, answer)| response(asked.partition, answer))
                .collect(),
        })
        .collect();
    OffsetForLeaderEpochResponse { throttle_time_ms: 0, topics }
}

fn response(partition: i32, answer: Answer) -> EpochEndOffset {
    let (code, (leader_epoch, end_offset)) = match answer {
        Ok(found) => (ErrorCode::None, found),
        Err(failure) => (error_code::of_read(&failure), (-1, -1)),
    };
    EpochEndOffset { error_code: code.to_i16(), partition, leader_epoch, end_offset }
}

fn look_up(shard: &Shard, query: Query) -> Answer {
    let partition = shard.readable(query.partition)?;
    let standing = partition.standing(query.current)?;
    let log = partition.log();
    if query.asked == standing.epoch {
        return Ok((query.asked.0, log.log_end().0));
    }
    // An epoch that is yet to come has no end.
    let known = (query.asked < standing.epoch).then(|| log.epoch_end(query.asked)).flatten();
    Ok(known.map_or((-1, -1), |(epoch, end)| (epoch.0, end.0)))
}
