//! `Fetch`: whole stored batches from any number of partitions, waiting for them when there are too
//! few. Records go from the engine's memory to the socket without a copy; from another shard with
//! one. Only a reader that does not say it knows columns gets them translated.

pub mod session;
pub mod translate;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::select_all;
use levada_engine::Slice;
use levada_protocol::kafka::fetch::{
    EpochEndOffset, FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse,
    LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use levada_protocol::kafka::{ErrorCode, RecordBytes, Uuid};
use levada_record::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ShardIndex};

use super::context::{Asked, Context, topic_id, wire_id};
use super::{Outcome, error_code};
use crate::budget::Permit;
use crate::image::ImageView;
use crate::metrics::add;
use crate::net::reply::Chunk;
use crate::partition::watch::Watch;
use crate::partition::{FirstBatch, ReadFailure, Standing};
use crate::shard::Shard;
use crate::shard::router::Owner;
use session::{Kind, Mention, PartitionKey, SessionRequest, Told, TopicKey, Wanted};
use translate::Reads;

/// First version that names topics by id.
const IDS_FROM: i16 = 13;

/// First version that has sessions.
const SESSIONS_FROM: i16 = 7;

/// A fetch request that keeps nothing of its frame.
#[derive(Debug)]
pub struct Request {
    max_wait_ms: i32,
    min_bytes: i32,
    max_bytes: i32,
    isolation: i8,
    reads: Reads,
    session: SessionRequest,
}

impl Request {
    /// Takes what matters out of a decoded request.
    pub fn read(request: &FetchRequest<'_>, version: i16) -> Self {
        let uses_ids = version >= IDS_FROM;
        let key = |name: &str, id: Uuid| {
            if uses_ids { TopicKey::Id(topic_id(id)) } else { TopicKey::Name(name.into()) }
        };
        let mut wanted = Vec::new();
        for topic in &request.topics {
            let topic_key = key(&topic.topic, topic.topic_id);
            wanted.extend(topic.partitions.iter().map(|how| Wanted {
                key: PartitionKey { topic: topic_key.clone(), index: how.partition },
                how: how.clone(),
            }));
        }
        let mut forgotten = Vec::new();
        for topic in &request.forgotten_topics_data {
            let topic_key = key(&topic.topic, topic.topic_id);
            let keys = topic.partitions.iter();
            forgotten
                .extend(keys.map(|index| PartitionKey { topic: topic_key.clone(), index: *index }));
        }
        let epoch = if version >= SESSIONS_FROM { request.session_epoch } else { -1 };
        let session = SessionRequest { id: request.session_id, epoch, wanted, forgotten, uses_ids };
        Self {
            max_wait_ms: request.max_wait_ms,
            min_bytes: request.min_bytes,
            max_bytes: request.max_bytes,
            isolation: request.isolation_level,
            reads: if request.levada_columnar == 1 {
                Reads::Everything
            } else {
                Reads::KafkaRecords
            },
            session,
        }
    }
}

/// Reads, waits if there is too little, and answers.
pub async fn handle(context: &Rc<Context>, asked: Asked, request: Request) -> Outcome {
    let shard = &context.shard;
    let now_ns = shard.runtime.now().monotonic_ns;
    let uses_ids = request.session.uses_ids;
    let plan = shard.sessions.borrow_mut().on_request(request.session, now_ns);
    let plan = match plan {
        Ok(plan) => plan,
        Err(code) => {
            let error_code = code.to_i16();
            return asked.answer(&FetchResponse { error_code, ..FetchResponse::default() });
        }
    };
    let limits = Limits {
        min_bytes: u64::try_from(request.min_bytes).unwrap_or(0),
        max_bytes: u64::try_from(request.max_bytes).unwrap_or(0).min(shard.config.fetch_max_bytes),
        deadline_ns: deadline_ns(context, request.max_wait_ms, now_ns),
        reads: request.reads,
    };
    let pass = read_and_wait(context, &plan.wanted, limits).await;
    answer(context, asked, plan, pass, uses_ids, request.isolation)
}

/// What bounds one fetch.
#[derive(Debug, Clone, Copy)]
struct Limits {
    min_bytes: u64,
    max_bytes: u64,
    deadline_ns: u64,
    reads: Reads,
}

fn deadline_ns(context: &Context, max_wait_ms: i32, now_ns: u64) -> u64 {
    let wait_ms = u64::try_from(max_wait_ms).unwrap_or(0);
    let wait_ms = wait_ms.min(context.shard.config.fetch_max_wait_ms);
    now_ns.saturating_add(wait_ms * 1_000_000)
}

/// What was read of one partition.
struct Read {
    outcome: Result<ReadData, Refusal>,
    partition: Option<PartitionId>,
}

struct ReadData {
    records: Records,
    bytes: u64,
    standing: Standing,
    /// Where the reader's log leaves ours.
    diverging: Option<(LeaderEpoch, Offset)>,
}

enum Records {
    Here(Vec<Slice>),
    There(Bytes),
}

/// Why nothing was read.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    UnknownTopicId,
    Read(ReadFailure),
}

impl Refusal {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownTopicId => ErrorCode::UnknownTopicId,
            Self::Read(failure) => error_code::of_read(failure),
        }
    }
}

/// One pass over all partitions of a fetch.
#[derive(Default)]
struct Pass {
    reads: Vec<Option<Read>>,
    bytes: u64,
    held: Vec<Permit>,
}

impl Pass {
    /// Whether there is something that cannot wait: an error, or a reader whose log is not ours.
    fn is_urgent(&self) -> bool {
        self.reads
            .iter()
            .flatten()
            .any(|read| read.outcome.as_ref().map_or(true, |data| data.diverging.is_some()))
    }
}

async fn read_and_wait(context: &Rc<Context>, wanted: &[Wanted], limits: Limits) -> Pass {
    let shard = &context.shard;
    let mut is_first = true;
    loop {
        let pass = read_all(context, wanted, limits).await;
        let now_ns = shard.runtime.now().monotonic_ns;
        let is_enough = pass.bytes >= limits.min_bytes || pass.bytes >= limits.max_bytes;
        let is_over = now_ns >= limits.deadline_ns || shard.stopping.is_raised();
        if is_enough || is_over || wanted.is_empty() || pass.is_urgent() {
            return pass;
        }
        if std::mem::take(&mut is_first) {
            add(&shard.metrics.fetch_waits_total, 1);
        }
        let missing_bytes = limits.min_bytes - pass.bytes;
        let left = Duration::from_nanos(limits.deadline_ns - now_ns);
        let watched = watched(context, &pass);
        // What was read so far is read again: nothing is held while waiting.
        drop(pass);
        wait(context, watched, missing_bytes, left).await;
    }
}

/// A part of a fetch: what one shard reads.
struct Part {
    owner: ShardIndex,
    /// Position in the request, and what to read.
    items: Vec<(usize, PartitionId, FetchPartition)>,
}

/// Reads everything once. Shards are visited in the order in which their partitions come first, so
/// that the client's order decides who is read first.
async fn read_all(context: &Rc<Context>, wanted: &[Wanted], limits: Limits) -> Pass {
    let shard = &context.shard;
    let image = shard.image.get();
    let mut pass = Pass::default();
    let mut parts: Vec<Part> = Vec::new();
    for (at, wanted) in wanted.iter().enumerate() {
        match place(shard, &image, &wanted.key) {
            Ok((owner, partition)) => {
                let item = (at, partition, wanted.how.clone());
                match parts.iter_mut().find(|part| part.owner == owner) {
                    Some(part) => part.items.push(item),
                    None => parts.push(Part { owner, items: vec![item] }),
                }
                pass.reads.push(None);
            }
            Err((refusal, partition)) => {
                pass.reads.push(Some(Read { outcome: Err(refusal), partition }));
            }
        }
    }
    for part in parts {
        if part.owner == shard.index {
            read_here(shard, part, limits, &mut pass).await;
        } else {
            read_there(shard, part, limits, &mut pass).await;
        }
    }
    pass
}

/// The shard of a partition, or why nothing can be read.
fn place(
    shard: &Shard,
    image: &ImageView,
    key: &PartitionKey,
) -> Result<(ShardIndex, PartitionId), (Refusal, Option<PartitionId>)> {
    let unknown = Refusal::Read(ReadFailure::UnknownPartition);
    let topic = match &key.topic {
        TopicKey::Name(name) => image.topic_named(name).ok_or((unknown.clone(), None))?,
        TopicKey::Id(id) => image.topic(*id).ok_or((Refusal::UnknownTopicId, None))?,
    };
    let partition = PartitionId::new(topic.image.id, PartitionIndex(key.index));
    if topic.image.partition(partition.index).is_none() {
        return Err((unknown, None));
    }
    match shard.router.owner(image, shard.broker, partition) {
        Owner::Here => Ok((shard.index, partition)),
        Owner::Shard(owner) => Ok((owner, partition)),
        Owner::Elsewhere => Err((Refusal::Read(ReadFailure::NotLeader), Some(partition))),
    }
}

async fn read_here(shard: &Rc<Shard>, part: Part, limits: Limits, pass: &mut Pass) {
    for (at, partition, how) in part.items {
        let allowed = allowed_bytes(&how, limits.max_bytes, pass.bytes);
        // The first to be read waits for memory; what comes after takes what is free, so that two
        // fetches cannot wait for each other.
        let permit = if pass.bytes == 0 {
            Some(shard.responses.acquire(allowed).await)
        } else {
            shard.responses.try_acquire(allowed)
        };
        let first = first_batch(pass.bytes);
        let allowed = if permit.is_some() { allowed } else { 0 };
        let outcome = read_one(shard, partition, &how, allowed, first, limits.reads).await;
        if let (Ok(data), Some(mut permit)) = (&outcome, permit) {
            permit.shrink_to(data.bytes);
            // One large batch may hold more than was asked for, a translated one most of all.
            if let Some(more) = data.bytes.checked_sub(permit.bytes()).filter(|more| *more > 0)
                && let Some(more) = shard.responses.try_acquire(more)
            {
                permit.absorb(more);
            }
            pass.bytes += data.bytes;
            if data.bytes > 0 {
                pass.held.push(permit);
            }
        }
        let read = Read { outcome: outcome.map_err(Refusal::Read), partition: Some(partition) };
        if let Some(place) = pass.reads.get_mut(at) {
            *place = Some(read);
        }
    }
}

/// What another shard sends back for one partition.
type SentRead = Result<(Bytes, Standing, Option<(LeaderEpoch, Offset)>), ReadFailure>;

async fn read_there(shard: &Rc<Shard>, part: Part, limits: Limits, pass: &mut Pass) {
    let Limits { max_bytes, reads, .. } = limits;
    let left = max_bytes.saturating_sub(pass.bytes);
    let wanted: u64 =
        part.items.iter().map(|(_, _, how)| allowed_bytes(how, max_bytes, pass.bytes)).sum();
    let wanted = wanted.min(left);
    let permit = if pass.bytes == 0 {
        Some(shard.responses.acquire(wanted).await)
    } else {
        shard.responses.try_acquire(wanted)
    };
    let budget = if permit.is_some() { left } else { 0 };
    let already = pass.bytes;
    let (places, items): (Vec<_>, Vec<_>) = part
        .items
        .into_iter()
        .map(|(at, partition, how)| ((at, partition), (partition, how)))
        .unzip();
    let work = move |there: Rc<Shard>| async move {
        let mut sent: Vec<SentRead> = Vec::with_capacity(items.len());
        let mut bytes = 0;
        for (partition, how) in items {
            let allowed = allowed_bytes(&how, budget, bytes);
            let first = first_batch(already + bytes);
            let read = read_one(&there, partition, &how, allowed, first, reads).await;
            sent.push(read.map(|data| {
                bytes += data.bytes;
                let copied = match data.records {
                    Records::Here(slices) => {
                        let mut copy = Vec::with_capacity(slices.iter().map(|s| s.len()).sum());
                        for slice in &slices {
                            copy.extend_from_slice(slice);
                        }
                        Bytes::from(copy)
                    }
                    Records::There(bytes) => bytes,
                };
                (copied, data.standing, data.diverging)
            }));
            there.runtime.yield_if_needed().await;
        }
        sent
    };
    let sent = shard.router.call(shard, part.owner, work).await.unwrap_or_default();
    let mut bytes = 0;
    let sent = sent.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    for ((at, partition), sent) in places.into_iter().zip(sent) {
        let outcome = match sent {
            Some(Ok((copied, standing, diverging))) => {
                let length = copied.len() as u64;
                bytes += length;
                let records = Records::There(copied);
                Ok(ReadData { records, bytes: length, standing, diverging })
            }
            Some(Err(failure)) => Err(Refusal::Read(failure)),
            None => Err(Refusal::Read(ReadFailure::NotLeader)),
        };
        if let Some(place) = pass.reads.get_mut(at) {
            *place = Some(Read { outcome, partition: Some(partition) });
        }
    }
    pass.bytes += bytes;
    if let Some(mut permit) = permit {
        permit.shrink_to(bytes);
        pass.held.push(permit);
    }
}

/// What may be read of one partition when `bytes` were read before.
fn allowed_bytes(how: &FetchPartition, max_bytes: u64, bytes: u64) -> u64 {
    let of_partition = u64::try_from(how.partition_max_bytes).unwrap_or(0);
    of_partition.min(max_bytes.saturating_sub(bytes))
}

/// The first batch of a fetch comes whole even if it is larger than allowed.
fn first_batch(bytes: u64) -> FirstBatch {
    if bytes == 0 { FirstBatch::Whole } else { FirstBatch::OnlyIfItFits }
}

/// Reads one partition of this shard.
async fn read_one(
    shard: &Shard,
    partition: PartitionId,
    how: &FetchPartition,
    allowed_bytes: u64,
    first: FirstBatch,
    reads: Reads,
) -> Result<ReadData, ReadFailure> {
    let partition = shard.readable(partition)?;
    let epoch = (how.current_leader_epoch >= 0).then_some(LeaderEpoch(how.current_leader_epoch));
    let from = Offset(how.fetch_offset);
    if how.last_fetched_epoch >= 0 {
        let standing = partition.standing(epoch)?;
        let last = LeaderEpoch(how.last_fetched_epoch);
        let (ours, end) =
            partition.log().epoch_end(last).unwrap_or((LeaderEpoch::NONE, standing.log_start));
        if ours < last || end < from {
            let diverging = Some((ours, end));
            return Ok(ReadData {
                records: Records::Here(Vec::new()),
                bytes: 0,
                standing,
                diverging,
            });
        }
    }
    let allowed = usize::try_from(allowed_bytes).unwrap_or(usize::MAX);
    let read = partition.read(from, epoch, allowed, first).await?;
    let (slices, bytes) = match reads {
        Reads::Everything => (read.slices, read.bytes as u64),
        Reads::KafkaRecords => {
            let kafka = translate::for_kafka(shard, &read.slices, allowed_bytes, first).await?;
            (kafka.slices, kafka.bytes)
        }
    };
    add(&shard.metrics.fetched_bytes_total, bytes);
    Ok(ReadData { records: Records::Here(slices), bytes, standing: read.standing, diverging: None })
}

type Watched = BTreeMap<ShardIndex, Vec<(PartitionId, Offset)>>;

/// What to watch: every partition, with the high watermark up to which it was seen.
fn watched(context: &Context, pass: &Pass) -> Watched {
    let image = context.shard.image.get();
    let mut watched = Watched::new();
    for read in pass.reads.iter().flatten() {
        if let (Some(partition), Ok(data)) = (read.partition, &read.outcome)
            && let Some(owner) = image.shard_of(partition, context.shard.broker)
        {
            watched.entry(owner).or_default().push((partition, data.standing.high_watermark));
        }
    }
    watched
}

/// Waits until enough was committed on some shard, or `left` is over, or the broker stops.
async fn wait(context: &Context, watched: Watched, missing_bytes: u64, left: Duration) {
    let shard = &context.shard;
    let watches = watched.into_iter().map(|(owner, partitions)| {
        let watching = shard.router.call(shard, owner, move |shard| async move {
            wait_here(shard, partitions, missing_bytes, left).await;
        });
        Box::pin(async move { watching.await.is_ok() })
    });
    let watches: Vec<_> = watches.collect();
    if watches.is_empty() {
        shard.runtime.sleep(left).await;
    } else {
        select_all(watches).await;
    }
}

async fn wait_here(
    shard: Rc<Shard>,
    partitions: Vec<(PartitionId, Offset)>,
    missing_bytes: u64,
    left: Duration,
) {
    use futures_lite::FutureExt as _;
    let watch = Watch::new(missing_bytes);
    for (id, seen) in partitions {
        let Some(partition) = shard.partition(id) else { return };
        partition.watch(&watch);
        // Moved between the look and now.
        if partition.standing(None).map_or(true, |standing| standing.high_watermark != seen) {
            return;
        }
    }
    let timer = shard.runtime.sleep(left);
    watch.enough().or(shard.stopping.raised()).or(timer).await;
}

/// The response to what was read.
fn answer(
    context: &Context,
    asked: Asked,
    plan: session::Plan,
    pass: Pass,
    uses_ids: bool,
    isolation: i8,
) -> Outcome {
    let shard = &context.shard;
    let image = shard.image.get();
    let mut builder = ResponseBuilder::default();
    let mut told_all = Vec::new();
    for (wanted, read) in plan.wanted.into_iter().zip(pass.reads) {
        let refusal = || Err(Refusal::Read(ReadFailure::NotLeader));
        let (outcome, partition) =
            read.map_or((refusal(), None), |read| (read.outcome, read.partition));
        let mut data = PartitionData {
            partition_index: wanted.key.index,
            aborted_transactions: (isolation == 1).then(Vec::new),
            preferred_read_replica: -1,
            records: RecordBytes::Borrowed(&[]),
            ..PartitionData::default()
        };
        let mut records = None;
        match outcome {
            Ok(read) => {
                data.high_watermark = read.standing.high_watermark.0;
                data.last_stable_offset = read.standing.high_watermark.0;
                data.log_start_offset = read.standing.log_start.0;
                if let Some((epoch, end)) = read.diverging {
                    data.diverging_epoch = EpochEndOffset { epoch: epoch.0, end_offset: end.0 };
                }
                records = (read.bytes > 0).then_some((read.bytes, read.records));
            }
            Err(refusal) => {
                data.error_code = refusal.code().to_i16();
                data.high_watermark = -1;
                data.last_stable_offset = -1;
                data.log_start_offset = -1;
                let state = partition.and_then(|partition| image.partition(partition));
                if refusal.code() == ErrorCode::NotLeaderOrFollower
                    && let Some((leader, state)) =
                        state.and_then(|state| Some((state.leader?, state)))
                {
                    builder.leaders.insert(leader);
                    data.current_leader = LeaderIdAndEpoch {
                        leader_id: leader.0,
                        leader_epoch: state.leader_epoch.0,
                    };
                }
            }
        }
        let told = Told {
            high_watermark: data.high_watermark,
            log_start: data.log_start_offset,
            error_code: data.error_code,
        };
        let mention = match plan.kind {
            Kind::Incremental { id } => {
                let mut sessions = shard.sessions.borrow_mut();
                sessions.on_answer(id, &wanted.key, told, records.is_some())
            }
            Kind::Opening | Kind::Sessionless => Mention::Yes,
        };
        if mention == Mention::Yes {
            builder.add(&wanted.key, data, records);
        }
        if plan.kind == Kind::Opening {
            told_all.push((wanted, told));
        }
    }
    let session_id = match plan.kind {
        Kind::Sessionless => 0,
        Kind::Incremental { id } => id,
        Kind::Opening => {
            let shards = u16::try_from(shard.router.shards().count()).unwrap_or(u16::MAX);
            let now_ns = shard.runtime.now().monotonic_ns;
            let place = (shard.index.0, shards);
            shard.sessions.borrow_mut().open(told_all, uses_ids, place, now_ns)
        }
    };
    builder.answer(context, &image, asked, session_id, pass.held)
}

#[derive(Default)]
struct ResponseBuilder {
    topics: Vec<FetchableTopicResponse<'static>>,
    payloads: Vec<Vec<Chunk>>,
    leaders: HashSet<levada_record::BrokerId>,
}

impl ResponseBuilder {
    /// Adds a partition to its topic, if that is the last one; a topic may come more than once.
    fn add(
        &mut self,
        key: &PartitionKey,
        mut data: PartitionData<'static>,
        records: Option<(u64, Records)>,
    ) {
        if let Some((bytes, records)) = records {
            data.records = RecordBytes::External {
                len: u32::try_from(bytes).unwrap_or(u32::MAX),
                token: u32::try_from(self.payloads.len()).unwrap_or(u32::MAX),
            };
            self.payloads.push(match records {
                Records::Here(slices) => slices.into_iter().map(Chunk::Slice).collect(),
                Records::There(bytes) => vec![Chunk::Bytes(bytes)],
            });
        }
        let is_same = |topic: &&mut FetchableTopicResponse<'static>| match &key.topic {
            TopicKey::Name(name) => topic.topic == **name,
            TopicKey::Id(id) => topic.topic_id == wire_id(*id),
        };
        if let Some(topic) = self.topics.last_mut().filter(is_same) {
            topic.partitions.push(data);
            return;
        }
        let (topic, topic_id) = match &key.topic {
            TopicKey::Name(name) => (Cow::Owned(name.to_string()), Uuid::ZERO),
            TopicKey::Id(id) => (Cow::Borrowed(""), wire_id(*id)),
        };
        self.topics.push(FetchableTopicResponse { topic, topic_id, partitions: vec![data] });
    }

    fn answer(
        self,
        context: &Context,
        image: &ImageView,
        asked: Asked,
        session_id: i32,
        held: Vec<Permit>,
    ) -> Outcome {
        let nodes = context.nodes(image).into_iter().filter(|node| self.leaders.contains(&node.id));
        let node_endpoints = nodes
            .map(|node| NodeEndpoint {
                node_id: node.id.0,
                host: Cow::Owned(node.host),
                port: node.port,
                rack: node.rack.map(Cow::Owned),
            })
            .collect();
        let response = FetchResponse {
            throttle_time_ms: 0,
            error_code: 0,
            session_id,
            responses: self.topics,
            node_endpoints,
        };
        asked.answer_gathered(&response, &self.payloads, held)
    }
}
