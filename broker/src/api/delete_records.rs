//! `DeleteRecords`: gives up the oldest records of partitions, each on its shard.

use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt as _;
use futures_util::StreamExt as _;
use levada_engine::StoreError;
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::delete_records::{
    DeleteRecordsPartitionResult, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteRecordsTopicResult,
};
use levada_record::{Offset, PartitionId, PartitionIndex, ShardIndex};

use super::change::{self, Patience};
use super::context::Context;
use super::error_code;
use crate::controller_link::ASK_WITHIN;
use crate::partition::{ReadFailure, Standing, read_failure};
use crate::shard::Shard;
use crate::shard::router::Owner;

/// Partitions of a request that are cut at the same time on one shard; they share rounds of the
/// journal.
const CUT_AT_ONCE: usize = 256;

/// Up to where to cut one partition.
#[derive(Debug, Clone, Copy)]
struct Cut {
    partition: PartitionId,
    /// First offset to keep, or -1 for the high watermark, as the client said it.
    offset: i64,
}

/// The first offset kept, or why nothing was cut.
type Answer = Result<Offset, ErrorCode>;

/// Reads the request at once, and gives the rest of the work.
pub fn handle(
    context: &Rc<Context>,
    request: &DeleteRecordsRequest<'_>,
) -> impl Future<Output = DeleteRecordsResponse<'static>> + use<> {
    let shard = Rc::clone(&context.shard);
    let patience = Patience::new(&shard, request.timeout_ms);
    let image = shard.image.get();
    let asked = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let room = change::check_count(&shard, asked).map_err(|refused| refused.code);
    let mut cuts: BTreeMap<ShardIndex, Vec<(usize, Cut)>> = BTreeMap::new();
    let mut answers: Vec<Answer> = Vec::new();
    let mut names: Vec<(String, Vec<i32>)> = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let view = image.topic_named(&topic.name);
        for asked in &topic.partitions {
            let index = PartitionIndex(asked.partition_index);
            let placed = room.and_then(|()| {
                let view = view
                    .filter(|view| view.image.partition(index).is_some())
                    .ok_or(ErrorCode::UnknownTopicOrPartition)?;
                if view.image.name.is_internal() {
                    return Err(ErrorCode::InvalidTopic);
                }
                let partition = PartitionId::new(view.image.id, index);
                let owner = match shard.router.owner(&image, shard.broker, partition) {
                    Owner::Here => shard.index,
                    Owner::Shard(owner) => owner,
                    Owner::Elsewhere => return Err(ErrorCode::NotLeaderOrFollower),
                };
                Ok((owner, Cut { partition, offset: asked.offset }))
            });
            match placed {
                Ok((owner, cut)) => {
                    cuts.entry(owner).or_default().push((answers.len(), cut));
                    // Stays when the shard is gone: the broker stops.
                    answers.push(Err(ErrorCode::NotLeaderOrFollower));
                }
                Err(code) => answers.push(Err(code)),
            }
        }
        let indexes = topic.partitions.iter().map(|asked| asked.partition_index).collect();
        names.push((topic.name.to_string(), indexes));
    }
    async move {
        for (owner, asked) in cuts {
            let (slots, cuts): (Vec<_>, Vec<_>) = asked.into_iter().unzip();
            let left = patience.left(&shard).unwrap_or(ASK_WITHIN);
            let work = move |there: Rc<Shard>| cut_all(there, cuts, left);
            let cut = shard.router.call(&shard, owner, work).await.unwrap_or_default();
            for (slot, answer) in slots.into_iter().zip(cut) {
                if let Some(place) = answers.get_mut(slot) {
                    *place = answer;
                }
            }
        }
        let mut answers = answers.into_iter();
        let topics = names.into_iter().map(|(name, indexes)| DeleteRecordsTopicResult {
            name: name.into(),
            partitions: indexes
                .into_iter()
                .zip(answers.by_ref())
                .map(|(index, answer)| result(index, answer))
                .collect(),
        });
        DeleteRecordsResponse { throttle_time_ms: 0, topics: topics.collect() }
    }
}

fn result(partition_index: i32, answer: Answer) -> DeleteRecordsPartitionResult {
    DeleteRecordsPartitionResult {
        partition_index,
        low_watermark: answer.map_or(-1, |low_watermark| low_watermark.0),
        error_code: answer.err().unwrap_or(ErrorCode::None).to_i16(),
    }
}

async fn cut_all(shard: Rc<Shard>, cuts: Vec<Cut>, left: Duration) -> Vec<Answer> {
    let timer = shard.runtime.now().monotonic_ns;
    let left_now = |shard: &Shard| {
        let passed_ns = shard.runtime.now().monotonic_ns.saturating_sub(timer);
        left.saturating_sub(Duration::from_nanos(passed_ns))
    };
    let shard = &shard;
    futures_util::stream::iter(cuts)
        .map(|cut| async move {
            let over = async {
                shard.runtime.sleep(left_now(shard)).await;
                Err(ErrorCode::RequestTimedOut)
            };
            let cutting = async {
                cut_one(shard, cut).await.map_err(|failure| error_code::of_read(&failure))
            };
            cutting.or(over).await
        })
        .buffered(CUT_AT_ONCE)
        .collect()
        .await
}

async fn cut_one(shard: &Shard, cut: Cut) -> Result<Offset, ReadFailure> {
    let partition = shard.readable(cut.partition)?;
    let standing = partition.standing(None)?;
    let Some(to) = target(cut.offset, &standing)? else { return Ok(standing.log_start) };
    let log = partition.log();
    // What counts as committed by being written on enough replicas may not be stable yet.
    log.until_durable(to).await.map_err(ReadFailure::Storage)?;
    match log.advance_log_start(to).await {
        Ok(()) => Ok(log.log_start()),
        Err(StoreError::OutOfRange { asked, start, end }) => {
            Err(ReadFailure::OutOfRange { asked, start, end })
        }
        Err(StoreError::Read(error)) => Err(read_failure(error)),
        Err(StoreError::Unknown) => Err(ReadFailure::UnknownPartition),
        Err(error @ (StoreError::Failed(_) | StoreError::Exists | StoreError::DiskFull)) => {
            Err(ReadFailure::Storage(error.to_string()))
        }
    }
}

/// The first offset to keep; `None` when nothing below it is left.
fn target(offset: i64, standing: &Standing) -> Result<Option<Offset>, ReadFailure> {
    let (start, end) = (standing.log_start, standing.high_watermark);
    let to = match offset {
        -1 => end,
        0.. => Offset(offset),
        _ => return Err(ReadFailure::OutOfRange { asked: Offset(offset), start, end }),
    };
    if end < to {
        return Err(ReadFailure::OutOfRange { asked: to, start, end });
    }
    Ok((start < to).then_some(to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use levada_record::LeaderEpoch;

    #[track_caller]
    fn check(offset: i64, expected: Result<Option<i64>, ErrorCode>) {
        let standing =
            Standing { log_start: Offset(10), high_watermark: Offset(20), epoch: LeaderEpoch(0) };
        let got = target(offset, &standing)
            .map(|to| to.map(|to| to.0))
            .map_err(|failure| error_code::of_read(&failure));
        assert_eq!(got, expected, "{offset}");
    }

    #[test]
    fn records_are_cut_up_to_an_offset_that_is_committed() {
        check(15, Ok(Some(15)));
        check(20, Ok(Some(20)));
        check(-1, Ok(Some(20)));
    }

    #[test]
    fn below_the_start_nothing_is_left_to_cut() {
        check(10, Ok(None));
        check(0, Ok(None));
    }

    #[test]
    fn what_is_not_committed_and_what_is_no_offset_is_out_of_range() {
        check(21, Err(ErrorCode::OffsetOutOfRange));
        check(i64::MAX, Err(ErrorCode::OffsetOutOfRange));
        check(-2, Err(ErrorCode::OffsetOutOfRange));
        check(i64::MIN, Err(ErrorCode::OffsetOutOfRange));
    }
}
