//! One shard: its partitions, its view of the cluster, its budgets, its ways to the other shards.
//! Lives on one executor; nothing of it crosses threads but mail.

pub mod mailbox;
pub mod router;
pub mod logs;
pub mod producer_ids;
pub mod removals;

use std::cell::{OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use levada_engine::{Log, RoundReport, SharedRuntime, Store, StoreListener};
use levada_protocol::cluster::ClusterImage;
use levada_record::{BrokerId, PartitionId, ShardIndex};

use crate::api::fetch::session::Sessions;
use crate::budget::Budget;
use crate::config::BrokerConfig;
use crate::controller_link::ControllerHandle;
use crate::image::ImageCell;
use crate::metrics::{ShardMetrics, Snapshot, add};
use crate::net::connections::Connections;
use crate::partition::append_job::{AppendFailure, AppendJob};
use crate::partition::pressure::AppendPressure;
use crate::partition::{AppendRequest, Partition, ReadFailure, deadline_ns};
use crate::runtime::event::Flag;
use mailbox::{AppendMail, Mail, Mailbox};
use producer_ids::ProducerIds;
use removals::Removals;
use router::Router;

/// How often a shard looks at deadlines.
const TICK: Duration = Duration::from_millis(100);

/// What a shard is made of.
pub struct ShardParts {
    /// Its number.
    pub index: ShardIndex,
    /// The broker's number.
    pub broker: BrokerId,
    /// The configuration.
    pub config: Arc<BrokerConfig>,
    /// The executor.
    pub runtime: SharedRuntime,
    /// The image to begin with.
    pub image: Arc<ClusterImage>,
    /// The ways to all shards.
    pub router: Router,
    /// The way to the controller.
    pub controller: ControllerHandle,
    /// Raised when the broker stops.
    pub stopping: Flag,
}

/// See the top of this file.
pub struct Shard {
    /// Its number.
    pub index: ShardIndex,
    /// The broker's number.
    pub broker: BrokerId,
    /// The configuration.
    pub config: Arc<BrokerConfig>,
    /// The executor.
    pub runtime: SharedRuntime,
    /// The cluster.
    pub image: ImageCell,
    /// The other shards.
    pub router: Router,
    /// The controller.
    pub controller: ControllerHandle,
    /// Its figures.
    pub metrics: Rc<ShardMetrics>,
    /// Its client connections.
    pub connections: Connections,
    /// Bytes of requests read and not yet handled.
    pub requests: Rc<Budget>,
    /// Bytes of fetched batches held for replies.
    pub responses: Rc<Budget>,
    /// Bytes held to translate columnar batches.
    pub translations: Budget,
    /// Bytes appended and not yet committed.
    pub pressure: Rc<AppendPressure>,
    /// Fetch sessions of its connections.
    pub sessions: RefCell<Sessions>,
    /// Producer ids it may give out.
    pub producer_ids: ProducerIds,
    /// Logs that are being removed.
    pub removals: Removals,
    /// Raised when the broker stops.
    pub stopping: Flag,
    store: OnceCell<Rc<Store>>,
    partitions: RefCell<HashMap<PartitionId, Rc<Partition>>>,
    /// Partitions whose files should be here and are not.
    missing: RefCell<HashSet<PartitionId>>,
}

impl Shard {
    /// A shard without a store.
    pub fn new(parts: ShardParts) -> Rc<Self> {
        let ShardParts { index, broker, config, runtime, image, router, controller, stopping } =
            parts;
        let sessions = Sessions::new(
            config.fetch_sessions_max,
            config.fetch_session_partitions_max,
            config.fetch_session_idle_ms,
        );
        Rc::new(Self {
            index,
            broker,
            runtime,
            image: ImageCell::new(image),
            router,
            controller,
            metrics: Rc::default(),
            connections: Connections::default(),
            requests: Rc::new(Budget::new(config.shard_request_bytes)),
            responses: Rc::new(Budget::new(config.shard_response_bytes)),
            translations: Budget::new(config.shard_translation_bytes),
            pressure: Rc::new(AppendPressure::new(config.shard_append_bytes)),
            sessions: RefCell::new(sessions),
            producer_ids: ProducerIds::default(),
            removals: Removals::default(),
            stopping,
            store: OnceCell::new(),
            partitions: RefCell::default(),
            missing: RefCell::default(),
            config,
        })
    }

    /// What the store has to tell goes to the partitions.
    pub fn listener(self: &Rc<Self>) -> Rc<dyn StoreListener> {
        Rc::new(Listener { shard: Rc::downgrade(self) })
    }

    /// Takes the store and the logs in it.
    pub fn take_store(self: &Rc<Self>, store: Rc<Store>) {
        for log in store.logs() {
            self.enter(log);
        }
        assert!(self.store.set(store).is_ok(), "a shard has one store");
    }

    /// The store; there once the shard is ready.
    pub fn store(&self) -> Option<&Rc<Store>> {
        self.store.get()
    }

    fn enter(&self, log: Rc<Log>) -> Rc<Partition> {
        let id = log.id();
        let (runtime, pressure) = (Rc::clone(&self.runtime), Rc::clone(&self.pressure));
        let partition = Partition::new(log, runtime, pressure);
        self.partitions.borrow_mut().insert(id, Rc::clone(&partition));
        partition
    }

    /// The partition `id`, when it is on this shard.
    pub fn partition(&self, id: PartitionId) -> Option<Rc<Partition>> {
        self.partitions.borrow().get(&id).cloned()
    }

    /// All partitions on this shard.
    pub fn partitions(&self) -> Vec<Rc<Partition>> {
        self.partitions.borrow().values().cloned().collect()
    }

    /// Whether the partition should be here and its files are gone.
    pub fn is_missing(&self, id: PartitionId) -> bool {
        self.missing.borrow().contains(&id)
    }

    /// The partition `id` for a reader.
    ///
    /// # Errors
    /// [`ReadFailure`] when there is none here.
    pub fn readable(&self, id: PartitionId) -> Result<Rc<Partition>, ReadFailure> {
        self.partition(id).ok_or_else(|| {
            if self.is_missing(id) {
                ReadFailure::Storage("the files of this partition are missing".into())
            } else {
                ReadFailure::UnknownPartition
            }
        })
    }

    /// Why an append to a partition that is not in the map fails.
    pub fn append_failure_without_partition(&self, id: PartitionId) -> AppendFailure {
        if self.is_missing(id) {
            AppendFailure::Storage("the files of this partition are missing".into())
        } else {
            AppendFailure::UnknownPartition
        }
    }

    /// Handles mail until the broker stops. Never waits for anything but mail.
    pub async fn run_mail(self: Rc<Self>, mailbox: Mailbox) {
        while let Ok(mail) = mailbox.recv_async().await {
            add(&self.metrics.mails_total, 1);
            match mail {
                Mail::Append(mail) => self.on_append_mail(mail),
                Mail::Call(work) => self.runtime.spawn("mail", work(Rc::clone(&self))),
            }
            self.metrics.mailbox_depth.set(mailbox.len() as u64);
            self.runtime.yield_if_needed().await;
        }
    }

    fn on_append_mail(self: &Rc<Self>, mail: AppendMail) {
        let AppendMail { batches, acks, timeout_ms, held, reply } = mail;
        let job = AppendJob::new(batches.len());
        let deadline_ns = deadline_ns(self.runtime.now(), timeout_ms);
        for (slot, mailed) in batches.into_iter().enumerate() {
            let request = AppendRequest {
                batch: mailed.batch,
                header: mailed.header,
                acks,
                deadline_ns,
                log_append_time: mailed.log_append_time,
                held: Some(Arc::clone(&held)),
            };
            self.append(mailed.partition, request, job.ticket(slot));
        }
        drop(held);
        self.runtime.spawn(
            "append-reply",
            Box::pin(async move {
                // Its connection may be gone; then nobody misses the answer.
                reply.try_send(job.done().await).ok();
            }),
        );
    }

    /// Appends to a partition of this shard.
    pub fn append(
        &self,
        id: PartitionId,
        request: AppendRequest,
        ticket: crate::partition::append_job::Ticket,
    ) {
        match self.partition(id) {
            Some(partition) => {
                add(&self.metrics.produced_batches_total, 1);
                add(&self.metrics.produced_bytes_total, request.batch.len() as u64);
                partition.append(request, ticket);
            }
            None => ticket.resolve(Err(self.append_failure_without_partition(id))),
        }
    }

    /// Looks at deadlines until the broker stops.
    pub async fn run_ticks(self: Rc<Self>) {
        loop {
            self.runtime.sleep(TICK).await;
            let now = self.runtime.now();
            for partition in self.partitions() {
                if partition.waiting_acks() > 0 || partition.queued_appends() > 0 {
                    partition.on_tick(now.monotonic_ns);
                }
            }
            self.connections.on_tick(&self, now.monotonic_ns);
        }
    }

    /// Drops what retention no longer keeps, until the broker stops.
    pub async fn run_retention(self: Rc<Self>) {
        loop {
            self.runtime.sleep(Duration::from_millis(self.config.retention_check_ms)).await;
            for partition in self.partitions() {
                let now = self.runtime.now();
                let Ok(standing) = partition.standing(None) else { continue };
                match partition.log().retain(now, standing.high_watermark).await {
                    Ok(0) => {}
                    Ok(dropped) => {
                        add(&self.metrics.segments_dropped_total, dropped as u64);
                        tracing::info!(partition = %partition.id(), dropped, "retention dropped segments");
                    }
                    Err(error) => {
                        tracing::warn!(partition = %partition.id(), %error, "retention failed");
                    }
                }
                self.runtime.yield_if_needed().await;
            }
        }
    }

    /// All figures as of now.
    pub fn snapshot(&self) -> Snapshot {
        let metrics = &self.metrics;
        metrics.shards.set(1);
        metrics.fetch_sessions.set(self.sessions.borrow().len() as u64);
        metrics.request_budget_bytes.set(self.requests.used_bytes());
        metrics.request_budget_limit_bytes.set(self.requests.limit_bytes());
        metrics.request_budget_waiting.set(self.requests.waiting() as u64);
        metrics.response_budget_bytes.set(self.responses.used_bytes());
        metrics.response_budget_limit_bytes.set(self.responses.limit_bytes());
        metrics.append_budget_bytes.set(self.pressure.held_bytes());
        metrics.append_budget_limit_bytes.set(self.config.shard_append_bytes);
        // Figures of the whole broker: told by one shard, so that they are not added up.
        if self.index.0 == 0 {
            metrics.image_index.set(self.image.get().image.index());
            metrics.controller_connected.set(u64::from(self.controller.is_connected()));
        }
        let partitions = self.partitions();
        let sum = |figure: &dyn Fn(&Partition) -> u64| -> u64 {
            partitions.iter().map(|partition| figure(partition)).sum()
        };
        metrics.partitions.set(partitions.len() as u64);
        metrics.partitions_led.set(sum(&|p| u64::from(p.standing(None).is_ok())));
        let damaged = sum(&|p| u64::from(p.log().suspicion().is_some()));
        metrics.partitions_suspect.set(damaged + self.missing.borrow().len() as u64);
        metrics.acks_waiting.set(sum(&|p| p.waiting_acks() as u64));
        metrics.appends_queued.set(sum(&|p| p.queued_appends() as u64));
        metrics
            .durable_lag_records
            .set(sum(&|p| p.log().log_end().since(p.log().durable_end()).unsigned_abs()));
        metrics.durable_lag_bytes.set(sum(&|p| p.log().undurable_bytes()));
        metrics.log_size_bytes.set(sum(&|p| p.log().size_bytes()));
        if let Some(store) = self.store() {
            let stats = store.stats();
            metrics.rounds_total.set(stats.rounds);
            metrics.journal_bytes_total.set(stats.journal_bytes);
            metrics.through_bytes_total.set(stats.through_bytes);
            metrics.write_behind_bytes_total.set(stats.write_behind_bytes);
            metrics.checkpoints_total.set(stats.checkpoints);
            metrics.journal_used_bytes.set(stats.journal_used_bytes);
            metrics.journal_size_bytes.set(stats.journal_size_bytes);
            metrics.journal_room_waits_total.set(stats.room_waits);
            metrics.disk_full_total.set(stats.disk_full);
            metrics.tail_bytes.set(stats.tail_bytes);
            metrics.read_ahead_bytes.set(stats.read_ahead_bytes);
            metrics.read_ahead_used_bytes_total.set(stats.read_ahead_used_bytes);
            metrics.store_failed.set(u64::from(store.failure().is_some()));
        }
        metrics.snapshot()
    }
}

/// Carries what the store tells to the partitions.
struct Listener {
    shard: Weak<Shard>,
}

impl StoreListener for Listener {
    fn advanced(&self, log: &Rc<Log>) {
        let partition = self.shard.upgrade().and_then(|shard| shard.partition(log.id()));
        if let Some(partition) = partition {
            partition.on_log_advanced();
        }
    }

    fn failed(&self, reason: &str) {
        let Some(shard) = self.shard.upgrade() else { return };
        let failure = AppendFailure::Storage(format!("the log directory has failed: {reason}"));
        for partition in shard.partitions() {
            partition.fail_everyone(&failure);
        }
    }

    fn round_done(&self, report: &RoundReport) {
        if let Some(shard) = self.shard.upgrade() {
            shard.metrics.round.record_us(report.duration_ns / 1_000);
        }
    }
}
