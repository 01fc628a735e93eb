//! Reads records: assigned partitions are fetched from their leaders, one request per leader in
//! flight while the caller works on what came before. Every batch is verified before anything of it
//! is handed out.
//!
//! No group membership here: who reads what is the caller's choice.

mod fetched;
mod position;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use levada_protocol::kafka::ErrorCode;
use levada_protocol::kafka::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use levada_record::{BatchError, Encoding, Offset, VerifyLimits};
use tokio::time::{Duration, Instant, sleep_until, timeout_at};

use crate::clock::{Clock, seed};
use crate::cluster::{AutoCreate, Cluster};
use crate::connection::Reply;
use crate::error::{ClientError, Refusal};
use crate::metadata::{Asked, Home};
use crate::retry::{Advice, Backoff, Chance, advice};
pub use fetched::{PartitionRecords, VisitError};
pub use position::Position;
use position::{Resolved, list_offsets};

/// What to do when the position lies outside of what the log holds: records were deleted by
/// retention, or the log was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OutOfRange {
    /// Tell: [`ConsumeError::OutOfRange`].
    #[default]
    Fail,
    /// Go on with the first record that is kept.
    Start,
    /// Go on with the next record that comes.
    End,
}

/// How a consumer works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// Most bytes of one answer. Default 16 MiB.
    pub fetch_bytes: u32,
    /// Most bytes of one partition in an answer; a larger batch comes alone. Default 4 MiB.
    pub partition_bytes: u32,
    /// How long a broker waits for records when there are none. Default 500 ms.
    pub wait: Duration,
    /// Default to tell.
    pub out_of_range: OutOfRange,
    /// What a batch may be, so that its records fit into memory. Default 100 MiB, inflated 64 MiB.
    pub limits: VerifyLimits,
    /// How long errors that may pass are put up with before they are told. Default 1 min.
    pub patience: Duration,
    /// Pauses between tries. Default 50 ms doubling to 1 s.
    pub backoff: Backoff,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            fetch_bytes: 16 << 20,
            partition_bytes: 4 << 20,
            wait: Duration::from_millis(500),
            out_of_range: OutOfRange::default(),
            limits: VerifyLimits::DEFAULT,
            patience: Duration::from_mins(1),
            backoff: Backoff::default(),
        }
    }
}

/// Reading cannot go on. The positions stay where they were.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConsumeError {
    /// The cluster does not answer, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The position is not in the log.
    #[error(
        "{topic}-{partition}: offset {offset} is not in the log; read from the start or the end"
    )]
    OutOfRange {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The position.
        offset: Offset,
    },
    /// The broker sent bytes that are no batch, or not the next.
    #[error("{topic}-{partition}: damaged at offset {offset}: {source}")]
    Damaged {
        /// The topic.
        topic: Arc<str>,
        /// The partition.
        partition: i32,
        /// The position.
        offset: Offset,
        /// What is wrong.
        #[source]
        source: DamageError,
    },
    /// Nothing is assigned.
    #[error("no partition is assigned")]
    NothingAssigned,
}

/// What is wrong with fetched bytes.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DamageError {
    /// They are no batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// A batch does not follow the one before.
    #[error("a batch of offsets {base} to {last} does not follow")]
    Order {
        /// Its first offset.
        base: Offset,
        /// Its last offset.
        last: Offset,
    },
    /// There are bytes, but no batch that ends behind the position.
    #[error("{bytes} B without a whole batch")]
    NoBatch {
        /// How many.
        bytes: usize,
    },
}

/// Topic and partition.
type PartitionKey = (Arc<str>, i32);
type Fetch = Pin<Box<dyn Future<Output = Fetched> + Send>>;

/// The end of a request to one leader.
struct Fetched {
    leader: Home,
    /// What was asked for, with the position then and its assignment.
    asked: Vec<(PartitionKey, Offset, u64)>,
    outcome: Result<Reply, ClientError>,
}

#[derive(Debug)]
struct Assigned {
    /// The next offset to fetch.
    next: Offset,
    /// Tells requests of an earlier assignment from those of this one.
    assignment: u64,
    high_watermark: Option<Offset>,
    in_flight: bool,
}

/// Reads partitions of a cluster.
pub struct Consumer {
    cluster: Cluster,
    options: ConsumerOptions,
    assigned: BTreeMap<PartitionKey, Assigned>,
    /// Taken in turn: the partition that an answer began with goes to the end.
    turn: Vec<PartitionKey>,
    fetches: FuturesUnordered<Fetch>,
    /// Leaders with a request in flight.
    busy: BTreeSet<Home>,
    assignments: u64,
    clock: Clock,
    chance: Chance,
    /// Since when nothing but errors came, and how many.
    failing: Option<(u64, u32)>,
    not_before_ms: u64,
    stale: bool,
}

impl std::fmt::Debug for Consumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Consumer").field("assigned", &self.assigned).finish_non_exhaustive()
    }
}

impl Consumer {
    /// A consumer of nothing yet.
    pub fn new(cluster: Cluster, options: ConsumerOptions) -> Self {
        Self {
            cluster,
            options,
            assigned: BTreeMap::new(),
            turn: Vec::new(),
            fetches: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            assignments: 0,
            clock: Clock::start(),
            chance: Chance::new(seed()),
            failing: None,
            not_before_ms: 0,
            stale: false,
        }
    }

    /// Reads `partition` of `topic` from `position` on, or moves there.
    ///
    /// # Errors
    /// [`ClientError`] when the topic or partition does not exist or the position cannot be found.
    pub async fn assign(
        &mut self,
        topic: &str,
        partition: i32,
        position: Position,
    ) -> Result<(), ClientError> {
        self.assign_all(topic, &[partition], position).await
    }

    /// The same for several partitions of a topic, with one question per leader.
    ///
    /// # Errors
    /// As [`Self::assign`]; nothing is assigned then.
    pub async fn assign_all(
        &mut self,
        topic: &str,
        partitions: &[i32],
        position: Position,
    ) -> Result<(), ClientError> {
        let view = self.cluster.topic(topic, AutoCreate::Never).await?;
        for partition in partitions {
            if view.partition(*partition).is_none() {
                let refusal = ErrorCode::UnknownTopicOrPartition.into();
                return Err(ClientError::refused(format!("{topic}-{partition}"), refusal));
            }
        }
        let found: Vec<Resolved> = match position {
            Position::Offset(offset) => {
                let at = |partition: &i32| Resolved { partition: *partition, offset };
                partitions.iter().map(at).collect()
            }
            _ => list_offsets(&self.cluster, topic, partitions, position).await?,
        };
        for Resolved { partition, offset } in found {
            let key = (Arc::clone(&view.name), partition);
            self.assignments += 1;
            let assigned = Assigned {
                next: offset,
                assignment: self.assignments,
                high_watermark: None,
                in_flight: false,
            };
            if self.assigned.insert(key.clone(), assigned).is_none() {
                self.turn.push(key);
            }
        }
        Ok(())
    }

    /// Reads `partition` of `topic` no more.
    pub fn unassign(&mut self, topic: &str, partition: i32) {
        self.assigned.retain(|key, _| (&*key.0, key.1) != (topic, partition));
        self.turn.retain(|key| (&*key.0, key.1) != (topic, partition));
    }

    /// The next offset that [`Self::poll`] will give, of an assigned partition.
    pub fn position(&self, topic: &str, partition: i32) -> Option<Offset> {
        let found = self.assigned.iter().find(|(key, _)| (&*key.0, key.1) == (topic, partition));
        found.map(|(_, assigned)| assigned.next)
    }

    /// First offset that was not yet readable when the broker last answered.
    pub fn high_watermark(&self, topic: &str, partition: i32) -> Option<Offset> {
        let found = self.assigned.iter().find(|(key, _)| (&*key.0, key.1) == (topic, partition));
        found.and_then(|(_, assigned)| assigned.high_watermark)
    }

    /// The offsets at a position, without assigning anything: the end tells where to stop.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        position: Position,
    ) -> Result<BTreeMap<i32, Offset>, ClientError> {
        let found = list_offsets(&self.cluster, topic, partitions, position).await?;
        Ok(found.into_iter().map(|found| (found.partition, found.offset)).collect())
    }

    /// What came since the last call; waits for at most `wait` when nothing did. An empty answer
    /// means that there was nothing in time.
    ///
    /// # Errors
    /// [`ConsumeError`]. Errors that may pass are tried again within the consumer's patience.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<PartitionRecords>, ConsumeError> {
        if self.assigned.is_empty() {
            return Err(ConsumeError::NothingAssigned);
        }
        let deadline = Instant::now() + wait;
        loop {
            self.start_fetches().await?;
            let pause = self.clock.at(self.not_before_ms).min(deadline);
            let fetched = if self.fetches.is_empty() {
                sleep_until(pause).await;
                None
            } else {
                timeout_at(deadline, self.fetches.next()).await.ok().flatten()
            };
            let records = match fetched {
                Some(fetched) => self.on_fetched(fetched).await?,
                None => Vec::new(),
            };
            if !records.is_empty() {
                // The next answer is on its way while the caller works on this one.
                self.start_fetches().await?;
                return Ok(records);
            }
            if deadline <= Instant::now() {
                return Ok(Vec::new());
            }
        }
    }

    /// Asks every leader that is not asked yet.
    async fn start_fetches(&mut self) -> Result<(), ConsumeError> {
        let now_ms = self.clock.now_ms();
        if now_ms < self.not_before_ms {
            return Ok(());
        }
        if self.stale {
            let names: Vec<Arc<str>> =
                self.assigned.keys().map(|(topic, _)| Arc::clone(topic)).collect();
            let mut names: Vec<&str> = names.iter().map(|name| &**name).collect();
            names.dedup();
            match self.cluster.refresh(Asked::Topics(&names), AutoCreate::Never).await {
                Ok(_) => self.stale = false,
                Err(error) => return self.on_trouble(error),
            }
        }
        let view = self.cluster.view();
        let mut by_leader: BTreeMap<Home, Vec<PartitionKey>> = BTreeMap::new();
        let mut leaderless = None;
        for key in &self.turn {
            let free = self.assigned.get(key).is_some_and(|assigned| !assigned.in_flight);
            match view.home(&key.0, key.1) {
                Some(leader) if free && !self.busy.contains(&leader) => {
                    by_leader.entry(leader).or_default().push(key.clone());
                }
                Some(_) => {}
                None => leaderless = Some(key.clone()),
            }
        }
        for (leader, keys) in by_leader {
            self.start_fetch(leader, &keys);
        }
        match leaderless {
            Some((topic, partition)) if self.fetches.is_empty() => {
                let refusal = ErrorCode::LeaderNotAvailable.into();
                self.stale = true;
                self.on_trouble(ClientError::refused(format!("{topic}-{partition}"), refusal))
            }
            _ => Ok(()),
        }
    }

    fn start_fetch(&mut self, leader: Home, keys: &[PartitionKey]) {
        let view = self.cluster.view();
        let mut topics: Vec<FetchTopic<'static>> = Vec::new();
        let mut asked = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(assigned) = self.assigned.get_mut(key) else { continue };
            assigned.in_flight = true;
            asked.push((key.clone(), assigned.next, assigned.assignment));
            let known = view.topics.get(&key.0).and_then(|topic| topic.partition(key.1));
            let partition = FetchPartition {
                partition: key.1,
                current_leader_epoch: known.map_or(-1, |partition| partition.leader_epoch),
                fetch_offset: assigned.next.0,
                partition_max_bytes: i32::try_from(self.options.partition_bytes)
                    .unwrap_or(i32::MAX),
                ..Default::default()
            };
            match topics.iter_mut().find(|topic| *topic.topic == *key.0) {
                Some(topic) => topic.partitions.push(partition),
                None => topics.push(FetchTopic {
                    topic: String::from(&*key.0).into(),
                    partitions: vec![partition],
                    ..Default::default()
                }),
            }
        }
        let wait = self.options.wait;
        let mut request = FetchRequest {
            max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
            min_bytes: 1,
            max_bytes: i32::try_from(self.options.fetch_bytes).unwrap_or(i32::MAX),
            topics,
            ..Default::default()
        };
        let cluster = self.cluster.clone();
        self.busy.insert(leader);
        let call = async move {
            let connection = cluster.home(leader).await?;
            // Batches come as they lie in the log, in whatever encoding.
            let knows_us = connection.best_encoding() == Encoding::Columnar;
            request.levada_columnar = i8::from(knows_us);
            Ok(connection.call_waiting(&request, wait).await?)
        };
        // On a task of its own, so that it goes on while the caller does not poll.
        let task = tokio::spawn(call);
        self.fetches.push(Box::pin(async move {
            let outcome = task.await.unwrap_or_else(|_| {
                let (subject, reason) = ("fetch".to_owned(), "the runtime stopped it");
                Err(ClientError::Senseless { subject, reason })
            });
            Fetched { leader, asked, outcome }
        }));
    }

    async fn on_fetched(
        &mut self,
        fetched: Fetched,
    ) -> Result<Vec<PartitionRecords>, ConsumeError> {
        self.busy.remove(&fetched.leader);
        for (key, _, assignment) in &fetched.asked {
            if let Some(assigned) = self.assigned.get_mut(key) {
                assigned.in_flight &= assigned.assignment != *assignment;
            }
        }
        let reply = match fetched.outcome {
            Ok(reply) => reply,
            Err(error) => {
                self.stale = true;
                return self.on_trouble(error).map(|()| Vec::new());
            }
        };
        let response: FetchResponse<'_> = reply.body().map_err(ClientError::from)?;
        if let Err(refusal) = Refusal::check(response.error_code, None) {
            return self.on_trouble(ClientError::refused("fetch", refusal)).map(|()| Vec::new());
        }
        let mut records = Vec::new();
        let mut trouble = None;
        for topic in &response.responses {
            for partition in &topic.partitions {
                let asked = fetched.asked.iter().find(|((name, index), ..)| {
                    **name == *topic.topic && *index == partition.partition_index
                });
                // What was not asked for, or not any more, is nothing to us.
                let Some((key, from, assignment)) = asked else { continue };
                let Some(assigned) = self.assigned.get_mut(key) else { continue };
                if assigned.assignment != *assignment || assigned.next != *from {
                    continue;
                }
                if let Err(refusal) = Refusal::check(partition.error_code, None) {
                    if let Err(error) = self.on_partition_refusal(key, *from, refusal).await? {
                        trouble = Some(error);
                    }
                    continue;
                }
                assigned.high_watermark = Some(Offset(partition.high_watermark));
                let bytes = partition.records.as_slice().unwrap_or_default();
                if bytes.is_empty() {
                    continue;
                }
                let end =
                    fetched::verified_end(bytes, *from, self.options.limits).map_err(|source| {
                        let (topic, partition) = (Arc::clone(&key.0), key.1);
                        ConsumeError::Damaged { topic, partition, offset: *from, source }
                    })?;
                assigned.next = end;
                records.push(PartitionRecords {
                    topic: Arc::clone(&key.0),
                    partition: key.1,
                    from: *from,
                    end,
                    high_watermark: Offset(partition.high_watermark),
                    bytes: reply.slice_of(bytes),
                    limits: self.options.limits,
                });
            }
        }
        if let Some(first) = records.first() {
            let served = (Arc::clone(&first.topic), first.partition);
            self.turn.retain(|key| *key != served);
            self.turn.push(served);
        }
        match trouble {
            Some(error) => self.on_trouble(error)?,
            None => self.failing = None,
        }
        Ok(records)
    }

    /// A partition was refused: `Ok(Err)` when that may pass, `Ok(Ok)` when it was cured.
    async fn on_partition_refusal(
        &mut self,
        key: &PartitionKey,
        offset: Offset,
        refusal: Refusal,
    ) -> Result<Result<(), ClientError>, ConsumeError> {
        let (topic, partition) = (Arc::clone(&key.0), key.1);
        if refusal.code == ErrorCode::OffsetOutOfRange {
            let position = match self.options.out_of_range {
                OutOfRange::Fail => {
                    return Err(ConsumeError::OutOfRange { topic, partition, offset });
                }
                OutOfRange::Start => Position::Start,
                OutOfRange::End => Position::End,
            };
            tracing::warn!(topic = &*topic, partition, %offset, ?position, "the position is not in the log");
            self.assign(&topic, partition, position).await?;
            return Ok(Ok(()));
        }
        let error = ClientError::refused(format!("{topic}-{partition}"), refusal.clone());
        match advice(refusal.code) {
            Advice::Fail if refusal.code != ErrorCode::OffsetNotAvailable => Err(error.into()),
            decided => {
                self.stale |= decided == Advice::Refresh;
                Ok(Err(error))
            }
        }
    }

    /// Something that may pass went wrong: pause, and tell when it has lasted too long.
    fn on_trouble(&mut self, error: ClientError) -> Result<(), ConsumeError> {
        let now_ms = self.clock.now_ms();
        let (since_ms, failed) = self.failing.unwrap_or((now_ms, 0));
        let patience_ms = u64::try_from(self.options.patience.as_millis()).unwrap_or(u64::MAX);
        if patience_ms <= now_ms - since_ms {
            return Err(error.into());
        }
        tracing::debug!(%error, "reading pauses");
        self.failing = Some((since_ms, failed + 1));
        self.not_before_ms = now_ms + self.options.backoff.delay_ms(failed + 1, &mut self.chance);
        Ok(())
    }
}
