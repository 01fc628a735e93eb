//! The controller's loop: an event comes in, commands are proposed, what is committed is applied,
//! and only then replies and changes go out.
//!
//! One event is finished before the next begins, so a request is always planned on top of everything
//! that was proposed before it.

pub mod subscribers;
mod answer;
mod requests;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::reply::Reply;
use levada_protocol::cluster::request::Request;
use levada_protocol::cluster::{
    BrokerEpoch, BrokerState, ClusterId, ClusterImage, Committed, Refusal, RefusalCode,
};
use levada_record::id::BrokerId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::config::CoordinatorConfig;
use crate::consensus::Consensus;
use crate::controller::apply::apply;
use crate::controller::lease::Leases;
use crate::controller::policy::Policy;
use crate::metrics::Metrics;
use crate::storage::{Entry, Storage, StorageError};
pub(crate) use answer::stopping;
use answer::{Answer, Pending};
use subscribers::{ConnectionId, PushSender, Subscribers};

/// How often leases are looked at, in ms.
const TICK_MS: u64 = 100;

/// How long until a snapshot is tried again, in ms.
const SNAPSHOT_RETRY_MS: u64 = 10_000;

/// At most one log line about a full disk in so long, in ms.
const COMPLAINT_MS: u64 = 10_000;

/// Events that wait for the loop; connections wait when there are more.
pub const EVENTS_MAX: usize = 256;

/// What the loop reacts to.
#[derive(Debug)]
pub enum Event {
    /// A request came.
    Request {
        /// On which connection; `None` from within the process.
        connection: Option<ConnectionId>,
        /// The request. [`Request::Subscribe`] comes as [`Event::Subscribe`].
        request: Request,
        /// Where the reply goes.
        reply: oneshot::Sender<Reply>,
    },
    /// A connection wants the image and its changes.
    Subscribe {
        /// The connection.
        connection: ConnectionId,
        /// Index of the image it has.
        from_index: u64,
        /// Where they go.
        pushes: PushSender,
        /// Where the reply goes.
        reply: oneshot::Sender<Reply>,
    },
    /// A connection is closed.
    Disconnected {
        /// Which.
        connection: ConnectionId,
    },
}

/// The state of the loop.
#[derive(Debug)]
pub struct Server {
    config: CoordinatorConfig,
    policy: Policy,
    consensus: Consensus,
    image: ClusterImage,
    /// Index of the last command that changed something.
    changed_index: u64,
    leases: Leases,
    subscribers: Subscribers,
    /// Brokers that registered on a connection that is open.
    registered: Vec<(ConnectionId, BrokerId)>,
    pending: Pending,
    metrics: Arc<Metrics>,
    address: String,
    started: Instant,
    /// Since when nothing was appended, for the seal.
    appended_ms: u64,
    /// When the next snapshot may be tried.
    snapshot_from_ms: u64,
    /// When the next complaint about a full disk may be made.
    complain_from_ms: u64,
    now_ms: u64,
}

impl Server {
    /// Opens the data directory and brings the image up to date. `address` is what members are told
    /// about this one.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong with the directory and what to do.
    pub fn open(
        config: CoordinatorConfig,
        address: String,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StorageError> {
        let (storage, recovered) = Storage::open(&config.data_dir, config.id, config.cluster())?;
        for path in &recovered.damaged_snapshots {
            tracing::warn!(path = %path.display(), "snapshot is damaged, an older one was used");
        }
        if 0 < recovered.torn_bytes {
            tracing::info!(
                bytes = recovered.torn_bytes,
                "dropped a last write that was never acknowledged"
            );
        }
        let replayed = recovered.entries.len();
        let leases = Leases::new(config.session_ms, &recovered.image, 0);
        let mut server = Self {
            policy: config.policy(),
            consensus: Consensus::new(storage, recovered.term),
            changed_index: recovered.image.index(),
            image: recovered.image,
            leases,
            subscribers: Subscribers::new(Arc::clone(&metrics)),
            registered: Vec::new(),
            pending: Pending::default(),
            metrics,
            address,
            started: Instant::now(),
            appended_ms: 0,
            snapshot_from_ms: 0,
            complain_from_ms: 0,
            now_ms: 0,
            config,
        };
        for entry in recovered.entries {
            server.apply(&entry);
        }
        // The leases of whoever is alive in the image as it is now.
        server.leases = Leases::new(server.config.session_ms, &server.image, 0);
        server.update_metrics();
        tracing::info!(
            cluster = %server.cluster(),
            index = server.image.index(),
            replayed,
            topics = server.image.topics().len(),
            "coordinator has its image"
        );
        Ok(server)
    }

    /// Which cluster.
    pub fn cluster(&self) -> ClusterId {
        self.image.cluster()
    }

    /// Reacts to events until `stop` completes or storage fails; seals the log at the end.
    ///
    /// # Errors
    /// [`StorageError`] when nobody can tell what is on disk: the process must end.
    pub async fn run(
        mut self,
        mut events: mpsc::Receiver<Event>,
        mut stop: oneshot::Receiver<()>,
    ) -> Result<(), StorageError> {
        let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = &mut stop => break,
                _ = ticks.tick() => {
                    self.set_now();
                    self.on_tick()?;
                }
                event = events.recv() => {
                    let Some(event) = event else { break };
                    self.set_now();
                    self.on_event(event)?;
                }
            }
        }
        let term = self.consensus.term();
        match self.consensus.storage_mut().seal(term) {
            Err(error) if error.is_harmless() => Ok(()),
            outcome => outcome,
        }
    }

    /// Looks at the clock; a long time without a look was a pause of our own.
    fn set_now(&mut self) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.set_now_ms(now_ms);
    }

    fn set_now_ms(&mut self, now_ms: u64) {
        let gap_ms = now_ms.saturating_sub(self.now_ms);
        self.now_ms = now_ms;
        if 5 * TICK_MS < gap_ms {
            tracing::warn!(gap_ms, "coordinator paused, leases are extended by that");
            self.leases.on_pause(gap_ms, now_ms);
        }
    }

    /// Fences whoever was silent for too long; seals and replaces the log when it is time.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    fn on_tick(&mut self) -> Result<(), StorageError> {
        let lapsed: Vec<_> = self.leases.lapsed(&self.image, self.now_ms).collect();
        for (broker, epoch) in lapsed {
            self.fence(broker, epoch)?;
            if self.image.broker(broker).is_some_and(|known| known.state == BrokerState::Fenced) {
                tracing::warn!(%broker, "broker was silent for its session, it is fenced");
                self.metrics.leases_lapsed.count();
            }
        }
        let term = self.consensus.term();
        let storage = self.consensus.storage_mut();
        let is_long = self.config.snapshot_log_bytes <= storage.log_bytes();
        let kept = if is_long && self.snapshot_from_ms <= self.now_ms {
            // Not at every tick, should it fail.
            self.snapshot_from_ms = self.now_ms + SNAPSHOT_RETRY_MS;
            storage.write_snapshot(&self.image, term).inspect(|()| {
                tracing::info!(index = self.image.index(), "coordinator wrote a snapshot");
            })
        } else if self.appended_ms + TICK_MS <= self.now_ms {
            storage.seal(term)
        } else {
            Ok(())
        };
        match kept {
            Err(error) if error.is_harmless() => self.complain(&error),
            outcome => outcome?,
        }
        self.update_metrics();
        Ok(())
    }

    /// # Errors
    /// As [`run`](Self::run).
    fn on_event(&mut self, event: Event) -> Result<(), StorageError> {
        match event {
            Event::Request { connection, request, reply } => {
                self.on_request(connection, request, reply)
            }
            Event::Subscribe { connection, from_index, pushes, reply } => {
                self.metrics.count_request("subscribe");
                // The reply goes first: the connection sends pushes only after it.
                answer::send(reply, Reply::Subscribed { index: self.image.index() });
                self.subscribers.add(connection, from_index, pushes, &self.image);
                Ok(())
            }
            Event::Disconnected { connection } => self.on_disconnected(connection),
        }
    }

    fn on_disconnected(&mut self, connection: ConnectionId) -> Result<(), StorageError> {
        self.subscribers.remove(connection);
        let gone: Vec<BrokerId> = self
            .registered
            .iter()
            .filter(|(on, _)| *on == connection)
            .map(|(_, broker)| *broker)
            .collect();
        self.registered.retain(|(on, _)| *on != connection);
        for broker in gone {
            // It said that it would go. Others may be back before their session ends.
            if let Some(known) = self.image.broker(broker)
                && known.state == BrokerState::Draining
            {
                let epoch = known.epoch;
                tracing::info!(%broker, "broker left");
                self.fence(broker, epoch)?;
            }
        }
        Ok(())
    }

    fn fence(&mut self, broker: BrokerId, epoch: BrokerEpoch) -> Result<(), StorageError> {
        let state = BrokerState::Fenced;
        let commands = vec![(0, Command::SetBrokerState { broker, epoch, state })];
        let (reply, _) = oneshot::channel();
        self.propose(commands, Answer::Confirmed, reply)
    }

    /// Proposes `commands`, each for one item of the answer, and replies once all are applied.
    fn propose(
        &mut self,
        commands: Vec<(usize, Command)>,
        answer: Answer,
        reply: oneshot::Sender<Reply>,
    ) -> Result<(), StorageError> {
        if commands.is_empty() {
            self.finish(answer, reply);
            return Ok(());
        }
        let (items, commands): (Vec<usize>, Vec<Command>) = commands.into_iter().unzip();
        let indexes = self.consensus.propose(commands);
        self.pending.insert(indexes.zip(items), answer, reply);
        self.advance()
    }

    /// Applies whatever is committed now, and lets everybody know.
    fn advance(&mut self) -> Result<(), StorageError> {
        let before = Instant::now();
        let committed = match self.consensus.advance() {
            Err(error) if error.is_harmless() => {
                self.complain(&error);
                let refusal = Refusal::new(RefusalCode::Unavailable, error.to_string());
                for reply in self.pending.drop_all() {
                    self.finish(Answer::Refused(refusal.clone()), reply);
                }
                return Ok(());
            }
            committed => committed?,
        };
        if !committed.is_empty() {
            let took = u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.metrics.commit.record(took);
            self.appended_ms = self.now_ms;
        }
        for entry in &committed {
            let refusal = self.apply(entry);
            if let Some((answer, reply)) = self.pending.on_applied(entry.index, refusal) {
                self.finish(answer, reply);
            }
        }
        Ok(())
    }

    /// Tells that the disk is full, now and then.
    fn complain(&mut self, error: &StorageError) {
        self.metrics.storage_full.count();
        if self.complain_from_ms <= self.now_ms {
            self.complain_from_ms = self.now_ms + COMPLAINT_MS;
            tracing::error!(%error, "coordinator cannot write");
        }
    }

    /// Applies one committed command; gives the refusal if it did not fit.
    fn apply(&mut self, entry: &Entry) -> Option<Refusal> {
        self.metrics.count_command(entry.command.name());
        match apply(&self.image, entry.index, &entry.command) {
            Ok(changes) if !changes.is_empty() => {
                let previous = self.changed_index;
                let committed = Committed { previous, index: entry.index, changes };
                self.image.apply(&committed).expect("changes made from an image fit it");
                self.changed_index = entry.index;
                if let Command::RegisterBroker { broker, .. } = entry.command
                    && let Some(known) = self.image.broker(broker)
                {
                    self.leases.on_heard(broker, known.epoch, 0, self.now_ms);
                }
                self.subscribers.push(self.image.cluster(), committed);
                None
            }
            Ok(_) => {
                self.image.skip_to(entry.index);
                None
            }
            Err(refusal) => {
                self.image.skip_to(entry.index);
                Some(refusal)
            }
        }
    }

    fn finish(&self, answer: Answer, reply: oneshot::Sender<Reply>) {
        for refusal in answer.refusals() {
            self.metrics.count_refusal(refusal.code);
        }
        let made = match answer {
            Answer::Heartbeat { broker, wish } => self.heartbeat_ack(broker, wish),
            other => other.into_reply(&self.image),
        };
        answer::send(reply, made);
    }
}
