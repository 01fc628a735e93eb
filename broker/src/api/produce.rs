//! Produce path 4/9: verifies the batches of a request and hands each to its partition; from
//! `protocol/kafka.rs`; to `shard/router.rs`.
//!
//! Everything up to the append runs while the connection is being read, in the order of its requests;
//! what is left is waiting for acknowledgements.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use levada_protocol::kafka::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use levada_protocol::kafka::{Decode as _, ErrorCode, Reader, Uuid};
use levada_record::{
    BatchHeader, Compression, PartitionId, PartitionIndex, ProduceError, ProduceRules, Rewrite,
    ShardIndex, Timestamp, verify_produced,
};

use super::context::{Asked, Context, Frame, topic_id};
use super::{BegunState, Outcome, error_code, malformed};
use crate::image::{ImageView, TopicView};
use crate::metrics::add;
use crate::net::connection::CloseReason;
use crate::partition::append_job::{AppendFailure, AppendJob, AppendResult, Appended};
use crate::partition::leader::Acks;
use crate::partition::{AppendRequest, deadline_ns};
use crate::shard::mailbox::{AppendMail, MailedBatch};
use crate::shard::router::Owner;

/// First version in which a client may send zstd.
const ZSTD_FROM: i16 = 7;

/// Why a batch was refused before it reached its partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("no such topic")]
    UnknownTopic,
    #[error("no topic has this id")]
    UnknownTopicId,
    #[error("no such partition")]
    UnknownPartition,
    #[error("acks is {acks}, expected -1, 0 or 1")]
    Acks { acks: i16 },
    #[error("the partition is more than once in this request")]
    Twice,
    #[error("transactions are not supported")]
    Transaction,
    #[error("zstd needs version {ZSTD_FROM} of Produce")]
    Zstd,
    #[error(transparent)]
    Batch(#[from] ProduceError),
    #[error(transparent)]
    Append(#[from] AppendFailure),
}

impl Refusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopic | Self::UnknownPartition => ErrorCode::UnknownTopicOrPartition,
            Self::UnknownTopicId => ErrorCode::UnknownTopicId,
            Self::Acks { .. } => ErrorCode::InvalidRequiredAcks,
            Self::Twice => ErrorCode::InvalidRequest,
            Self::Transaction => ErrorCode::InvalidTxnState,
            Self::Zstd => ErrorCode::UnsupportedCompressionType,
            Self::Batch(error) => error_code::of_produce(error),
            Self::Append(failure) => error_code::of_append(failure),
        }
    }
}

/// A batch that passed.
struct Verified {
    partition: PartitionId,
    batch: Bytes,
    header: BatchHeader,
    log_append_time: Option<Timestamp>,
}

/// Where the outcome of one batch will be.
enum Place {
    Refused(Refusal),
    /// In slot `n` of the job on this shard.
    Here(usize),
    /// In slot `n` of what another shard answers.
    There(ShardIndex, usize),
}

struct Entry {
    index: i32,
    partition: Option<PartitionId>,
    place: Place,
}

struct TopicEntries {
    name: String,
    id: Uuid,
    entries: Vec<Entry>,
}

/// A produce request whose batches are on their way.
struct Begun {
    acks: Option<Acks>,
    topics: Vec<TopicEntries>,
    job: Rc<AppendJob>,
    mailed: BTreeMap<ShardIndex, flume::Receiver<Vec<AppendResult>>>,
    since_ns: u64,
}

/// Appends what can be appended and gives the rest of the work: waiting for acknowledgements.
pub(super) async fn begin(
    context: &Rc<Context>,
    asked: Asked,
    reader: Reader<'_>,
    frame: Frame,
) -> Result<BegunState, CloseReason> {
    let request = ProduceRequest::decode_all(reader, asked.version)
        .map_err(|error| malformed(asked, &error))?;
    let shard = &context.shard;
    let received_ns = shard.runtime.now().monotonic_ns;
    let image = shard.image.get();
    let judge = Judge::new(context, &image, &request, asked.version, &frame);
    let timeout_ms = u64::try_from(request.timeout_ms).unwrap_or(0);
    let timeout_ms = timeout_ms.min(shard.config.produce_timeout_max_ms);

    let mut topics = Vec::with_capacity(request.topic_data.len());
    let mut here = Vec::new();
    let mut there: BTreeMap<ShardIndex, Vec<MailedBatch>> = BTreeMap::new();
    for topic in &request.topic_data {
        let found = topic_of(&image, topic, asked.version);
        let mut entries = Vec::with_capacity(topic.partition_data.len());
        for data in &topic.partition_data {
            let records = data.records.as_slice().unwrap_or_default();
            let verdict = judge.judge(&found, data.index, records);
            let partition = partition_of(&found, data.index);
            let place = match verdict {
                Err(refusal) => {
                    add(&shard.metrics.produce_refused_total, 1);
                    Place::Refused(refusal)
                }
                Ok(batch) => match shard.router.owner(&image, shard.broker, batch.partition) {
                    Owner::Here => {
                        here.push(batch);
                        Place::Here(here.len() - 1)
                    }
                    Owner::Shard(to) => {
                        let mail = there.entry(to).or_default();
                        mail.push(batch.into());
                        Place::There(to, mail.len() - 1)
                    }
                    Owner::Elsewhere => Place::Refused(AppendFailure::NotLeader.into()),
                },
            };
            entries.push(Entry { index: data.index, partition, place });
        }
        topics.push(TopicEntries {
            name: topic.name.clone().into_owned(),
            id: topic.topic_id,
            entries,
        });
    }

    // What is refused here was not even verified with other acks.
    let acks = Acks::from_wire(request.acks);
    let wanted = acks.unwrap_or(Acks::None);
    let job = AppendJob::new(here.len());
    let deadline_ns = deadline_ns(shard.runtime.now(), timeout_ms);
    for (slot, batch) in here.into_iter().enumerate() {
        let Verified { partition, batch, header, log_append_time } = batch;
        let held = Some(frame.held.clone());
        let request =
            AppendRequest { batch, header, acks: wanted, deadline_ns, log_append_time, held };
        shard.append(partition, request, job.ticket(slot));
    }
    let mut mailed = BTreeMap::new();
    for (to, batches) in there {
        let (reply, answer) = flume::bounded(1);
        let held = frame.held.clone();
        let mail = AppendMail { batches, acks: wanted, timeout_ms, held, reply };
        if shard.router.append(to, mail).await.is_ok() {
            mailed.insert(to, answer);
        }
    }
    let since_ns = shard.runtime.now().monotonic_ns;
    shard.metrics.stage_append.record_between_ns(received_ns, since_ns);
    let begun = Begun { acks, topics, job, mailed, since_ns };
    let context = Rc::clone(context);
    Ok(BegunState::Waiting(Box::pin(async move { finish(&context, asked, begun).await })))
}

impl From<Verified> for MailedBatch {
    fn from(batch: Verified) -> Self {
        let Verified { partition, batch, header, log_append_time } = batch;
        Self { partition, batch, header, log_append_time }
    }
}

/// Judges the batches of one request.
struct Judge<'a> {
    version: i16,
    acks: i16,
    is_transactional: bool,
    /// Partitions that the request names more than once.
    twice: BTreeSet<PartitionId>,
    now: Timestamp,
    frame: &'a Frame,
}

impl<'a> Judge<'a> {
    fn new(
        context: &Context,
        image: &ImageView,
        request: &ProduceRequest<'_>,
        version: i16,
        frame: &'a Frame,
    ) -> Self {
        Self {
            version,
            acks: request.acks,
            is_transactional: request.transactional_id.is_some(),
            twice: named_twice(image, request, version),
            now: Timestamp(context.shard.runtime.now().wall_ms),
            frame,
        }
    }

    fn judge(
        &self,
        topic: &Result<&TopicView, Refusal>,
        index: i32,
        records: &[u8],
    ) -> Result<Verified, Refusal> {
        if Acks::from_wire(self.acks).is_none() {
            return Err(Refusal::Acks { acks: self.acks });
        }
        if self.is_transactional {
            return Err(Refusal::Transaction);
        }
        let topic = topic.as_ref().map_err(Clone::clone)?;
        let partition = PartitionId::new(topic.image.id, PartitionIndex(index));
        if topic.image.partition(partition.index).is_none() {
            return Err(Refusal::UnknownPartition);
        }
        if self.twice.contains(&partition) {
            return Err(Refusal::Twice);
        }
        let rules = ProduceRules::of(&topic.config, self.now);
        let check = verify_produced(records, &rules)?;
        if check.batch.codec() == Compression::Zstd && self.version < ZSTD_FROM {
            return Err(Refusal::Zstd);
        }
        if check.batch.header().attributes.is_transactional() {
            return Err(Refusal::Transaction);
        }
        let log_append_time = match check.rewrite {
            Rewrite::LogAppendTime(time) => Some(time),
            Rewrite::Nothing | Rewrite::MaxTimestamp(_) => None,
        };
        let (batch, header) = if check.rewrite == Rewrite::Nothing {
            (self.frame.bytes.slice_ref(records), *check.batch.header())
        } else {
            let mut rewritten = records.to_vec();
            check.rewrite.apply(&mut rewritten);
            let header = BatchHeader::parse(&rewritten).expect(
                "a rewrite changes attributes, a timestamp and the checksum of a whole header",
            );
            (rewritten.into(), header)
        };
        Ok(Verified { partition, batch, header, log_append_time })
    }
}

/// The topic that a part of a request means.
fn topic_of<'a>(
    image: &'a ImageView,
    topic: &TopicProduceData<'_>,
    version: i16,
) -> Result<&'a TopicView, Refusal> {
    let found = if version >= 13 {
        image.topic(topic_id(topic.topic_id)).ok_or(Refusal::UnknownTopicId)
    } else {
        image.topic_named(&topic.name).ok_or(Refusal::UnknownTopic)
    };
    found.map(|topic| &**topic)
}

fn partition_of(topic: &Result<&TopicView, Refusal>, index: i32) -> Option<PartitionId> {
    let topic = topic.as_ref().ok()?;
    Some(PartitionId::new(topic.image.id, PartitionIndex(index)))
}

/// The partitions that a request names more than once.
fn named_twice(
    image: &ImageView,
    request: &ProduceRequest<'_>,
    version: i16,
) -> BTreeSet<PartitionId> {
    let (mut once, mut twice) = (BTreeSet::new(), BTreeSet::new());
    // Most requests name one.
    if let [topic] = &request.topic_data[..]
        && topic.partition_data.len() < 2
    {
        return twice;
    }
    for topic in &request.topic_data {
        let found = topic_of(image, topic, version);
        for data in &topic.partition_data {
            if let Some(partition) = partition_of(&found, data.index)
                && !once.insert(partition)
            {
                twice.insert(partition);
            }
        }
    }
    twice
}

/// Waits for all batches and answers.
async fn finish(context: &Context, asked: Asked, begun: Begun) -> Outcome {
    let Begun { acks, topics, job, mailed, since_ns } = begun;
    let here = job.done().await;
    let mut there = BTreeMap::new();
    for (shard, answer) in mailed {
        if let Ok(results) = answer.recv_async().await {
            there.insert(shard, results);
        }
    }
    let now_ns = context.shard.runtime.now().monotonic_ns;
    context.shard.metrics.stage_durable.record_between_ns(since_ns, now_ns);
    let result_of = |place: &Place| -> Result<Appended, Refusal> {
        let result = match place {
            Place::Refused(refusal) => return Err(refusal.clone()),
            Place::Here(slot) => here.get(*slot),
            Place::There(shard, slot) => there.get(shard).and_then(|results| results.get(*slot)),
        };
        result.cloned().unwrap_or(Err(AppendFailure::Stopping)).map_err(Refusal::from)
    };
    if acks == Some(Acks::None) {
        let failure = topics
            .iter()
            .flat_map(|topic| &topic.entries)
            .find_map(|entry| result_of(&entry.place).err());
        return match failure {
            None => Outcome::Silent,
            Some(failure) => Outcome::Close(CloseReason::SilentFailure(failure.to_string())),
        };
    }
    let image = context.shard.image.get();
    let mut leaders = BTreeSet::new();
    let responses = topics
        .into_iter()
        .map(|topic| TopicProduceResponse {
            name: Cow::Owned(topic.name),
            topic_id: topic.id,
            partition_responses: topic
                .entries
                .iter()
                .map(|entry| {
                    let mut response = partition_response(entry.index, &result_of(&entry.place));
                    if response.error_code == ErrorCode::NotLeaderOrFollower.to_i16()
                        && let Some(state) = entry.partition.and_then(|id| image.partition(id))
                        && let Some(leader) = state.leader
                    {
                        leaders.insert(leader);
                        response.current_leader = LeaderIdAndEpoch {
                            leader_id: leader.0,
                            leader_epoch: state.leader_epoch.0,
                        };
                    }
                    response
                })
                .collect(),
        })
        .collect();
    let nodes = if leaders.is_empty() { Vec::new() } else { context.nodes(&image) };
    let node_endpoints = nodes
        .into_iter()
        .filter(|node| leaders.contains(&node.id))
        .map(|node| NodeEndpoint {
            node_id: node.id.0,
            host: Cow::Owned(node.host),
            port: node.port,
            rack: node.rack.map(Cow::Owned),
        })
        .collect();
    asked.answer(&ProduceResponse { responses, throttle_time_ms: 0, node_endpoints })
}

fn partition_response(
    index: i32,
    result: &Result<Appended, Refusal>,
) -> PartitionProduceResponse<'static> {
    let mut response = PartitionProduceResponse { index, ..PartitionProduceResponse::default() };
    match result {
        Ok(appended) => {
            response.base_offset = appended.base.0;
            response.log_append_time_ms = appended.log_append_time.unwrap_or(Timestamp::NONE).0;
            response.log_start_offset = appended.log_start.0;
        }
        Err(refusal) => {
            response.error_code = refusal.code().to_i16();
            response.base_offset = -1;
            response.error_message = Some(Cow::Owned(refusal.to_string()));
            if let Refusal::Batch(ProduceError::Timestamp { record_index: Some(record), .. }) =
                refusal
            {
                response.record_errors = vec![BatchIndexAndErrorMessage {
                    batch_index: i32::try_from(*record).unwrap_or(i32::MAX),
                    batch_index_error_message: Some(Cow::Owned(refusal.to_string())),
                }];
            }
        }
    }
    response
}
