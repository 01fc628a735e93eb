//! The task of a producer: takes batches from the batcher, groups them by leader into requests, and
//! tells the lanes what became of them. It waits for nothing but events; connecting, asking for
//! metadata and for an identity are events too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use levada_protocol::kafka::RecordBytes;
use levada_protocol::kafka::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use levada_protocol::kafka::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use levada_record::{Encoding, Offset, ProducerEpoch, ProducerId, Timestamp};
use tokio::sync::{SetOnce, mpsc, oneshot};
use tokio::time::{Duration, sleep_until};

use super::delivery::Outcome;
use super::lane::{Answer, Identity, Lane};
use super::{Acks, ProducerOptions, Shared};
use crate::cluster::{AutoCreate, Cluster};
use crate::connection::{Connection, Reply};
use crate::error::{CallError, ClientError, ConnectError, Refusal};
use crate::metadata::{Asked, ClusterView, Home, TopicView};
use crate::retry::Chance;

/// Longest pause that a broker can ask for, in ms.
const THROTTLE_MS_MAX: u64 = 60_000;

/// Topic and partition.
type LaneId = (Arc<str>, i32);
/// A topic and its partitions.
type TopicPartitions = (Arc<str>, Vec<i32>);
type Outcomes = Vec<Arc<SetOnce<Outcome>>>;
type Answered = Pin<Box<dyn Future<Output = Result<Option<Reply>, CallError>> + Send>>;
type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    /// Send everything; the reply tells where the outcomes of all batches will be told.
    Flush(oneshot::Sender<Outcomes>),
}

/// What some work ended with.
enum Done {
    Connected {
        home: Home,
        outcome: Result<Connection, ConnectError>,
    },
    Produced {
        home: Home,
        sent: Vec<(LaneId, u64)>,
        outcome: Result<Option<Reply>, CallError>,
    },
    /// The partitions of the topics asked for.
    Refreshed {
        outcome: Result<Vec<TopicPartitions>, ClientError>,
    },
    Identified {
        outcome: Result<Identity, ClientError>,
    },
}

/// Something that is asked for at most once at a time, with pauses after failures.
#[derive(Debug, Default)]
struct Errand {
    running: bool,
    not_before_ms: u64,
    failed: u32,
}

#[derive(Debug, Default)]
struct Node {
    connection: Option<Connection>,
    connecting: Errand,
    in_flight: usize,
    throttled_until_ms: u64,
    /// The lane after which the next request begins.
    served: Option<LaneId>,
}

/// Lanes that would send, by what they wait for. A lane that waits for an answer stands nowhere: the answer rouses it.
/// With many lanes, a look at each of them at every turn would cost more than the records do.
#[derive(Debug, Default)]
struct Ready {
    /// For their turn at the leader.
    at: BTreeMap<Home, BTreeSet<LaneId>>,
    /// For the end of a pause, in ms.
    paused: BTreeSet<(u64, LaneId)>,
    /// For a producer id.
    unidentified: BTreeSet<LaneId>,
    /// For the news that they have a leader.
    leaderless: BTreeSet<LaneId>,
}

pub(super) struct Sender {
    cluster: Cluster,
    options: Arc<ProducerOptions>,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    chance: Chance,
    lanes: BTreeMap<LaneId, Lane>,
    ready: Ready,
    /// What the homes in `ready` were taken from.
    view: Arc<ClusterView>,
    expire_due_ms: u64,
    nodes: HashMap<Home, Node>,
    works: FuturesUnordered<Work>,
    identity: Option<Identity>,
    identifying: Errand,
    refreshing: Errand,
    stale_topics: BTreeSet<Arc<str>>,
    refresh_due_ms: u64,
}

impl Sender {
    pub(super) fn new(
        cluster: Cluster,
        options: Arc<ProducerOptions>,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        chance: Chance,
    ) -> Self {
        let refresh_due_ms = ms(options.metadata_age);
        let view = cluster.view();
        Self {
            cluster,
            options,
            shared,
            commands,
            chance,
            lanes: BTreeMap::new(),
            ready: Ready::default(),
            view,
            expire_due_ms: 0,
            nodes: HashMap::new(),
            works: FuturesUnordered::new(),
            identity: None,
            identifying: Errand::default(),
            refreshing: Errand::default(),
            stale_topics: BTreeSet::new(),
            refresh_due_ms,
        }
    }

    /// Works until the last handle is gone. What is left then fails as its tickets are dropped.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        loop {
            let all = shared.starved.swap(false, Ordering::AcqRel);
            let next_due_ms = self.collect(all);
            let now_ms = shared.clock.now_ms();
            self.expire(now_ms);
            self.identify(now_ms);
            self.dispatch(now_ms);
            self.refresh(now_ms);
            let wake_ms = self.next_ms(now_ms).into_iter().chain(next_due_ms).min();
            tokio::select! {
                Some(done) = self.works.next(), if !self.works.is_empty() => self.on_done(done),
                command = self.commands.recv() => match command {
                    Some(Command::Flush(reply)) => {
                        self.collect(true);
                        let tickets = self.lanes.values().flat_map(Lane::tickets);
                        let outcomes = tickets.map(|ticket| Arc::clone(ticket.outcome())).collect();
                        // The flusher may have gone away.
                        drop(reply.send(outcomes));
                    }
                    None => return,
                },
                () = shared.wake.notified() => {}
                () = sleep_until(shared.clock.at(wake_ms.unwrap_or(0))), if wake_ms.is_some() => {}
            }
        }
    }

    /// Moves batches that are ready into their lanes; tells when the next will be.
    fn collect(&mut self, all: bool) -> Option<u64> {
        let mut batcher = self.shared.batcher();
        let lanes = &self.lanes;
        let held_up = |topic: &Arc<str>, partition: i32| {
            lanes.get(&(Arc::clone(topic), partition)).is_some_and(Lane::is_held_up)
        };
        let (ready, next_due_ms) = batcher.take(self.shared.clock.now_ms(), all, held_up);
        drop(batcher);
        for batch in ready {
            let id = (batch.topic, batch.partition);
            let options = &self.options;
            let lane = self.lanes.entry(id.clone()).or_insert_with(|| {
                Lane::new(
                    Arc::clone(&id.0),
                    id.1,
                    options.is_idempotent(),
                    options.lane_in_flight_max(),
                )
            });
            lane.push(batch.builder, batch.ticket, batch.opened_ms);
            self.rouse(id);
        }
        next_due_ms
    }

    /// Puts a lane where it belongs, after anything that may have changed that.
    fn rouse(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.wants_to_send()) else {
            return;
        };
        let now_ms = self.shared.clock.now_ms();
        if lane.needs_identity() {
            self.ready.unidentified.insert(id);
        } else if now_ms < lane.not_before_ms() {
            self.ready.paused.insert((lane.not_before_ms(), id));
        } else if let Some(home) = self.view.home(&id.0, id.1) {
            self.ready.at.entry(home).or_default().insert(id);
        } else {
            lane.note("the partition has no leader");
            self.stale_topics.insert(Arc::clone(&id.0));
            self.ready.leaderless.insert(id);
        }
    }

    /// Asks again for those that have no leader; when there is news, the next dispatch does it.
    fn rouse_leaderless(&mut self) {
        if Arc::ptr_eq(&self.view, &self.cluster.view()) {
            for id in std::mem::take(&mut self.ready.leaderless) {
                self.rouse(id);
            }
        }
    }

    /// Gives up what is too old; looks for it ten times within that time.
    fn expire(&mut self, now_ms: u64) {
        if now_ms < self.expire_due_ms {
            return;
        }
        let timeout_ms = ms(self.options.delivery_timeout);
        self.expire_due_ms = now_ms + (timeout_ms / 10).max(1);
        let mut expired = Vec::new();
        for (id, lane) in self.lanes.iter_mut().filter(|(_, lane)| !lane.is_empty()) {
            lane.expire(now_ms, timeout_ms);
            expired.push(id.clone());
        }
        for id in expired {
            self.rouse(id);
        }
    }

    /// Gives an identity to the lanes that need one; asks for a new one when there is none that will do.
    fn identify(&mut self, now_ms: u64) {
        if !self.options.is_idempotent() {
            return;
        }
        let mut wanting = false;
        for id in std::mem::take(&mut self.ready.unidentified) {
            let Some(lane) = self.lanes.get_mut(&id).filter(|lane| lane.needs_identity()) else {
                self.rouse(id);
                continue;
            };
            wanting |= !self.identity.is_some_and(|identity| lane.set_identity(identity));
            self.rouse(id);
        }
        if wanting && self.identifying.may_start(now_ms) {
            self.identity = None;
            let cluster = self.cluster.clone();
            self.works.push(Box::pin(async move {
                Done::Identified { outcome: new_identity(&cluster).await }
            }));
        }
    }

    /// Sends what can be sent.
    fn dispatch(&mut self, now_ms: u64) {
        let view = self.cluster.view();
        if !Arc::ptr_eq(&view, &self.view) {
            self.view = view;
            let at = std::mem::take(&mut self.ready.at).into_values().flatten();
            for id in at.chain(std::mem::take(&mut self.ready.leaderless)) {
                self.rouse(id);
            }
        }
        while let Some((_, id)) =
            self.ready.paused.first().filter(|(end_ms, _)| *end_ms <= now_ms).cloned()
        {
            self.ready.paused.pop_first();
            self.rouse(id);
        }
        self.ready.at.retain(|_, lanes| !lanes.is_empty());
        let homes: Vec<Home> = self.ready.at.keys().copied().collect();
        for home in homes {
            self.dispatch_to(home, now_ms);
        }
    }

    fn dispatch_to(&mut self, leader: Home, now_ms: u64) {
        let in_flight_max = usize::try_from(self.options.in_flight_max.max(1)).unwrap_or(1);
        let node = self.nodes.entry(leader).or_default();
        if node.connection.as_ref().is_some_and(Connection::is_closed) {
            node.connection = None;
        }
        let Some(connection) = node.connection.clone() else {
            if node.connecting.may_start(now_ms) {
                let cluster = self.cluster.clone();
                self.works.push(Box::pin(async move {
                    Done::Connected { home: leader, outcome: cluster.home(leader).await }
                }));
            }
            return;
        };
        while let Some(node) = self.nodes.get(&leader)
            && node.in_flight < in_flight_max
            && node.throttled_until_ms <= now_ms
        {
            let served = node.served.clone();
            let picked = self.pick(leader, served.as_ref(), now_ms, connection.best_encoding());
            let Some((last, ..)) = picked.last() else { return };
            let served = Some(last.clone());
            if let Some(node) = self.nodes.get_mut(&leader) {
                node.served = served;
                node.in_flight += 1;
            }
            self.produce(leader, &connection, picked);
        }
    }

    /// One batch of each lane that waits there, beginning behind the one that was `served` last, up to the bytes of a
    /// request; in an encoding that whoever takes `best` takes.
    fn pick(
        &mut self,
        leader: Home,
        served: Option<&LaneId>,
        now_ms: u64,
        best: Encoding,
    ) -> Vec<(LaneId, u64, Bytes)> {
        let mut room = usize::try_from(self.options.request_bytes).unwrap_or(usize::MAX);
        let Some(waiting) = self.ready.at.get_mut(&leader) else { return Vec::new() };
        let mut picked = Vec::new();
        // From the served one on first, then the others.
        let mut order = match served {
            Some(served) => {
                let mut behind = waiting.split_off(served);
                let is_served = behind.take(served);
                (behind, std::mem::take(waiting), is_served)
            }
            None => (std::mem::take(waiting), BTreeSet::new(), None),
        };
        let mut roused = Vec::new();
        let next = |order: &mut (BTreeSet<LaneId>, BTreeSet<LaneId>, Option<LaneId>)| {
            order.0.pop_first().or_else(|| order.1.pop_first()).or_else(|| order.2.take())
        };
        while room > 0
            && let Some(id) = next(&mut order)
        {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            if lane.sendable(now_ms)
                && let Some((number, bytes)) = lane.send_next(best)
            {
                room = room.saturating_sub(bytes.len());
                picked.push((id.clone(), number, bytes));
            }
            roused.push(id);
        }
        waiting.append(&mut order.0);
        waiting.append(&mut order.1);
        waiting.extend(order.2);
        for id in roused {
            self.rouse(id);
        }
        picked
    }

    fn produce(
        &mut self,
        leader: Home,
        connection: &Connection,
        picked: Vec<(LaneId, u64, Bytes)>,
    ) {
        let mut topics: BTreeMap<Arc<str>, Vec<PartitionProduceData<'_>>> = BTreeMap::new();
        let mut payloads = Vec::with_capacity(picked.len());
        let mut sent = Vec::with_capacity(picked.len());
        for ((id, number, bytes), token) in picked.into_iter().zip(0..) {
            let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
            let records = RecordBytes::External { len, token };
            let partition = PartitionProduceData { index: id.1, records };
            topics.entry(Arc::clone(&id.0)).or_default().push(partition);
            payloads.push(bytes);
            sent.push((id, number));
        }
        let topic_data = topics.into_iter().map(|(name, partition_data)| TopicProduceData {
            name: String::from(&*name).into(),
            partition_data,
            ..Default::default()
        });
        let ack_timeout = self.options.ack_timeout;
        let request = ProduceRequest {
            acks: self.options.acks.to_wire(),
            timeout_ms: i32::try_from(ack_timeout.as_millis()).unwrap_or(i32::MAX),
            topic_data: topic_data.collect(),
            ..Default::default()
        };
        // Started here, not in the future: requests leave in the order in which batches were taken.
        let home = leader;
        let answered: Answered = if self.options.acks == Acks::None {
            match connection.start_unanswered(&request, &payloads) {
                Ok(written) => Box::pin(async { written.await.map(|()| None) }),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        } else {
            match connection.start(&request, &payloads, ack_timeout) {
                Ok(pending) => Box::pin(async { pending.await.map(Some) }),
                Err(error) => Box::pin(std::future::ready(Err(error))),
            }
        };
        let work: Work =
            Box::pin(async move { Done::Produced { home, sent, outcome: answered.await } });
        self.works.push(work);
    }

    /// Asks for metadata when something suggests that ours is old, and from time to time.
    fn refresh(&mut self, now_ms: u64) {
        if self.refresh_due_ms <= now_ms {
            self.stale_topics.extend(self.lanes.keys().map(|(topic, _)| Arc::clone(topic)));
            self.refresh_due_ms = now_ms + ms(self.options.metadata_age);
        }
        if self.stale_topics.is_empty() || !self.refreshing.may_start(now_ms) {
            return;
        }
        let topics = std::mem::take(&mut self.stale_topics);
        let cluster = self.cluster.clone();
        self.works.push(Box::pin(async move {
            let names: Vec<&str> = topics.iter().map(|topic| &**topic).collect();
            let outcome = cluster.refresh(Asked::Topics(&names), AutoCreate::Never).await;
            let found = outcome.map(|(view, _)| {
                let found = names.iter().filter_map(|name| view.topics.get(*name));
                let partitions_of = |topic: &TopicView| {
                    topic.partitions.iter().map(|partition| partition.index).collect()
                };
                found.map(|topic| (Arc::clone(&topic.name), partitions_of(topic))).collect()
            });
            Done::Refreshed { outcome: found }
        }));
    }

    /// When time alone makes something possible or necessary.
    fn next_ms(&self, now_ms: u64) -> Option<u64> {
        let is_waiting = !self.ready.at.is_empty()
            || !self.ready.unidentified.is_empty()
            || !self.stale_topics.is_empty();
        let errands = self.nodes.values().map(|node| &node.connecting);
        let errands = errands.chain([&self.identifying, &self.refreshing]);
        let errands = errands
            .filter(|errand| is_waiting && !errand.running)
            .map(|errand| errand.not_before_ms);
        let throttles = self.nodes.values().map(|node| node.throttled_until_ms);
        let pause = self.ready.paused.first().map(|(end_ms, _)| *end_ms);
        let later = errands.chain(throttles).filter(|at_ms| now_ms < *at_ms);
        let has_batches = self.lanes.values().any(|lane| !lane.is_empty());
        let expiry = has_batches.then_some(self.expire_due_ms);
        later.chain(pause).chain(expiry).chain([self.refresh_due_ms]).min()
    }

    fn on_done(&mut self, done: Done) {
        let now_ms = self.shared.clock.now_ms();
        let backoff = self.options.backoff;
        match done {
            Done::Connected { home, outcome } => {
                let node = self.nodes.entry(home).or_default();
                match outcome {
                    Ok(connection) => {
                        node.connecting.succeeded(0);
                        node.connection = Some(connection);
                    }
                    Err(error) => {
                        tracing::debug!(broker = home.broker, %error, "cannot reach a leader");
                        node.connecting.failed(
                            now_ms,
                            backoff.delay_ms(node.connecting.failed + 1, &mut self.chance),
                        );
                        self.on_unreachable(home, &error.to_string());
                    }
                }
            }
            Done::Refreshed { outcome: Ok(topics) } => {
                let mut batcher = self.shared.batcher();
                for (topic, partitions) in topics {
                    batcher.set_topic(&topic, partitions);
                }
                drop(batcher);
                // Not more often than this while leaders are being elected.
                self.refreshing.succeeded(now_ms + u64::from(backoff.first_ms));
                self.rouse_leaderless();
            }
            Done::Refreshed { outcome: Err(error) } => {
                tracing::debug!(%error, "cannot get metadata");
                let delay_ms = backoff.delay_ms(self.refreshing.failed + 1, &mut self.chance);
                self.refreshing.failed(now_ms, delay_ms);
                self.rouse_leaderless();
                self.note_all(&error.to_string());
            }
            Done::Identified { outcome: Ok(identity) } => {
                self.identifying.succeeded(0);
                self.identity = Some(identity);
            }
            Done::Identified { outcome: Err(error) } => {
                tracing::debug!(%error, "cannot get a producer id");
                let delay_ms = backoff.delay_ms(self.identifying.failed + 1, &mut self.chance);
                self.identifying.failed(now_ms, delay_ms);
                self.note_all(&format!("get a producer id: {error}"));
            }
            Done::Produced { home, sent, outcome } => {
                self.on_produced(home, &sent, &outcome, now_ms);
            }
        }
    }

    fn on_unreachable(&mut self, home: Home, reason: &str) {
        let view = self.cluster.view();
        for (id, lane) in self.lanes.iter_mut().filter(|(_, lane)| !lane.is_empty()) {
            if view.home(&id.0, id.1) == Some(home) {
                lane.note(reason);
                self.stale_topics.insert(Arc::clone(&id.0));
            }
        }
    }

    fn note_all(&mut self, reason: &str) {
        for lane in self.lanes.values_mut().filter(|lane| !lane.is_empty()) {
            lane.note(reason);
        }
    }

    fn on_produced(
        &mut self,
        home: Home,
        sent: &[(LaneId, u64)],
        outcome: &Result<Option<Reply>, CallError>,
        now_ms: u64,
    ) {
        let mut throttle_ms = 0;
        let lost = |error: &CallError| {
            let reason: Arc<str> = error.to_string().into();
            sent.iter().map(|_| Answer::Lost(Arc::clone(&reason))).collect()
        };
        let answers: Vec<Answer> = match outcome {
            Ok(None) => {
                sent.iter().map(|_| Answer::Appended { base: None, append_time: None }).collect()
            }
            Ok(Some(reply)) => match reply.body::<ProduceResponse<'_>>() {
                Ok(response) => {
                    throttle_ms = u64::try_from(response.throttle_time_ms).unwrap_or(0);
                    answers(sent, &response)
                }
                Err(error) => lost(&error),
            },
            Err(error) => lost(error),
        };
        if let Some(node) = self.nodes.get_mut(&home) {
            node.in_flight -= 1;
            node.throttled_until_ms = now_ms + throttle_ms.min(THROTTLE_MS_MAX);
            if outcome.is_err() {
                node.connection = None;
            }
        }
        for ((id, number), answer) in sent.iter().zip(answers) {
            let Some(lane) = self.lanes.get_mut(id) else { continue };
            let consequence =
                lane.on_answer(*number, answer, now_ms, self.options.backoff, &mut self.chance);
            if consequence.refresh {
                self.stale_topics.insert(Arc::clone(&id.0));
            }
            if let Some(bytes) = consequence.too_large_bytes {
                self.shared.batcher().shrink(&id.0, bytes);
            }
            self.rouse(id.clone());
        }
    }
}

impl Errand {
    /// Begins it, unless it is under way or pausing.
    fn may_start(&mut self, now_ms: u64) -> bool {
        let may = !self.running && self.not_before_ms <= now_ms;
        self.running |= may;
        may
    }

    fn succeeded(&mut self, not_before_ms: u64) {
        *self = Self { running: false, not_before_ms, failed: 0 };
    }

    fn failed(&mut self, now_ms: u64, delay_ms: u64) {
        *self = Self { running: false, not_before_ms: now_ms + delay_ms, failed: self.failed + 1 };
    }
}

/// What the response says of each batch that was sent, in their order.
fn answers(sent: &[(LaneId, u64)], response: &ProduceResponse<'_>) -> Vec<Answer> {
    let mut by_lane: HashMap<(&str, i32), &PartitionProduceResponse<'_>> = HashMap::new();
    for topic in &response.responses {
        for partition in &topic.partition_responses {
            by_lane.insert((&topic.name, partition.index), partition);
        }
    }
    let answer =
        |((topic, partition), _): &(LaneId, u64)| match by_lane.get(&(&**topic, *partition)) {
            None => Answer::Lost(Arc::from("the broker's answer leaves the partition out")),
            Some(partition) => answer_of(partition),
        };
    sent.iter().map(answer).collect()
}

fn answer_of(partition: &PartitionProduceResponse<'_>) -> Answer {
    let detail =
        partition.record_errors.first().and_then(|e| e.batch_index_error_message.as_deref());
    match Refusal::check(partition.error_code, partition.error_message.as_deref().or(detail)) {
        Err(refusal) => Answer::Refused(refusal),
        Ok(()) => Answer::Appended {
            base: (0 <= partition.base_offset).then_some(Offset(partition.base_offset)),
            append_time: Some(Timestamp(partition.log_append_time_ms))
                .filter(|time| time.is_some()),
        },
    }
}

async fn new_identity(cluster: &Cluster) -> Result<Identity, ClientError> {
    let connection = cluster.any().await?;
    let request = InitProducerIdRequest {
        transactional_id: None,
        // Means nothing without transactions; Kafka wants a positive number all the same.
        transaction_timeout_ms: 60_000,
        ..Default::default()
    };
    let reply = connection.call(&request).await?;
    let response: InitProducerIdResponse = reply.body()?;
    Refusal::check(response.error_code, None)
        .map_err(|refusal| ClientError::refused("producer id", refusal))?;
    if response.producer_id < 0 || response.producer_epoch < 0 {
        let reason = "a producer id below 0";
        return Err(ClientError::Senseless { subject: "producer id".to_owned(), reason });
    }
    Ok(Identity {
        id: ProducerId(response.producer_id),
        epoch: ProducerEpoch(response.producer_epoch),
    })
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
