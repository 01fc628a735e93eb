//! `ListOffsets`: first, last, by time, or of the record with the highest time.

use std::collections::BTreeMap;
use std::rc::Rc;

use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::list_offsets::{
    ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopicResponse,
};
use levada_record::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ShardIndex, Timestamp};

use super::context::{Context, owned};
use super::error_code;
use crate::partition::{ReadFailure, read_failure};
use crate::shard::Shard;
use crate::shard::router::Owner;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// The first offset not committed.
    End,
    /// The first offset kept.
    Start,
    /// The record with the highest timestamp.
    MaxTimestamp,
    /// The last offset in tiered storage: there is none.
    Tiered,
    /// The first record at or after this time.
    At(Timestamp),
}

/// One question.
#[derive(Debug, Clone, Copy)]
struct Query {
    partition: PartitionId,
    epoch: Option<LeaderEpoch>,
    wanted: Wanted,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Found {
    timestamp: i64,
    offset: i64,
    epoch: i32,
}

const NOTHING: Found = Found { timestamp: -1, offset: -1, epoch: -1 };

/// Asks every partition on its shard.
pub async fn handle(
    context: &Context,
    request: &ListOffsetsRequest<'_>,
    version: i16,
) -> ListOffsetsResponse<'static> {
    let shard = &context.shard;
    let image = shard.image.get();
    let mut questions: BTreeMap<ShardIndex, Vec<(usize, Query)>> = BTreeMap::new();
    let mut answers: Vec<Result<Found, ErrorCode>> = Vec::new();
    for topic in &request.topics {
        let view = image.topic_named(&topic.name);
        for asked in &topic.partitions {
            let slot = answers.len();
            let query = view
                .filter(|view| {
                    view.image.partition(PartitionIndex(asked.partition_index)).is_some()
                })
                .ok_or(ErrorCode::UnknownTopicOrPartition)
                .and_then(|view| {
                    let wanted =
                        wanted(asked.timestamp, version).ok_or(ErrorCode::UnsupportedVersion)?;
                    let index = PartitionIndex(asked.partition_index);
                    let epoch = asked.current_leader_epoch;
                    Ok(Query {
                        partition: PartitionId::new(view.image.id, index),
                        epoch: (epoch >= 0).then_some(LeaderEpoch(epoch)),
                        wanted,
                    })
                });
            let placed = query.and_then(|query| {
                match shard.router.owner(&image, shard.broker, query.partition) {
                    Owner::Here => Ok((shard.index, query)),
                    Owner::Shard(index) => Ok((index, query)),
                    Owner::Elsewhere => Err(ErrorCode::NotLeaderOrFollower),
                }
            });
            match placed {
                Ok((owner, query)) => {
                    questions.entry(owner).or_default().push((slot, query));
                    answers.push(Ok(NOTHING));
                }
                Err(code) => answers.push(Err(code)),
            }
        }
    }
    for (owner, asked) in questions {
        let (slots, queries): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
        let found = shard.router.call(shard, owner, |shard| look_up_all(shard, queries)).await;
        let found = found.unwrap_or_default().into_iter().map(Some).chain(std::iter::repeat(None));
        for (slot, found) in slots.into_iter().zip(found) {
            let answer = found.unwrap_or(Err(ReadFailure::NotLeader));
            if let Some(place) = answers.get_mut(slot) {
                *place = answer.map_err(|failure| error_code::of_read(&failure));
            }
        }
    }
    let mut answers = answers.into_iter();
    let topics = request
        .topics
        .iter()
        .map(|topic| ListOffsetsTopicResponse {
            name: owned(&topic.name),
            partitions: topic
                .partitions
                .iter()
                .zip(answers.by_ref())
                .map(|(asked, answer)| response(asked.partition_index, answer))
                .collect(),
        })
        .collect();
    ListOffsetsResponse { throttle_time_ms: 0, topics }
}

fn response(index: i32, answer: Result<Found, ErrorCode>) -> ListOffsetsPartitionResponse {
    let (code, found) = match answer {
        Ok(found) => (ErrorCode::None, found),
        Err(code) => (code, NOTHING),
    };
    ListOffsetsPartitionResponse {
        partition_index: index,
        error_code: code.to_i16(),
        timestamp: found.timestamp,
        offset: found.offset,
        leader_epoch: found.epoch,
    }
}

/// What a timestamp means in `version`; `None` when it means nothing there.
fn wanted(timestamp: i64, version: i16) -> Option<Wanted> {
    match timestamp {
        0.. => Some(Wanted::At(Timestamp(timestamp))),
        -1 => Some(Wanted::End),
        -2 => Some(Wanted::Start),
        -3 if version >= 7 => Some(Wanted::MaxTimestamp),
        // Everything is on local disk.
        -4 if version >= 8 => Some(Wanted::Start),
        -5 if version >= 9 => Some(Wanted::Tiered),
        _ => None,
    }
}

async fn look_up_all(shard: Rc<Shard>, queries: Vec<Query>) -> Vec<Result<Found, ReadFailure>> {
    let mut answers = Vec::with_capacity(queries.len());
    for query in queries {
        answers.push(look_up(&shard, query).await);
        shard.runtime.yield_if_needed().await;
    }
    answers
}

async fn look_up(shard: &Shard, query: Query) -> Result<Found, ReadFailure> {
    let partition = shard.readable(query.partition)?;
    let standing = partition.standing(query.epoch)?;
    let end = standing.high_watermark;
    // Of an offset inside the log the epoch it was written in: what clients check a cut by.
    let found = |timestamp: Timestamp, offset: Offset| {
        let epoch = partition.log().epoch_at(offset).unwrap_or(standing.epoch);
        Found { timestamp: timestamp.0, offset: offset.0, epoch: epoch.0 }
    };
    let record = match query.wanted {
        Wanted::End => {
            let epoch = standing.epoch.0;
            return Ok(Found { offset: end.0, epoch, ..NOTHING });
        }
        Wanted::Start => return Ok(found(Timestamp::NONE, standing.log_start)),
        Wanted::Tiered => return Ok(NOTHING),
        Wanted::MaxTimestamp => partition.log().max_timestamp(end).await,
        Wanted::At(at) => partition.log().find_time(at, end).await,
    };
    let record = record.map_err(read_failure)?;
    Ok(record.map_or(NOTHING, |(timestamp, offset)| found(timestamp, offset)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_times_mean_something_from_their_version_on() {
        assert_eq!(wanted(0, 1), Some(Wanted::At(Timestamp(0))));
        assert_eq!(wanted(-1, 1), Some(Wanted::End));
        assert_eq!(wanted(-2, 1), Some(Wanted::Start));
        for (timestamp, from) in [(-3, 7), (-4, 8), (-5, 9)] {
            assert_eq!(wanted(timestamp, from - 1), None, "{timestamp}");
            assert!(wanted(timestamp, from).is_some(), "{timestamp}");
        }
        assert_eq!(wanted(-6, 10), None);
    }
}
