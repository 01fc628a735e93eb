//! Writes records: [`Producer::send`] puts a record into a batch and gives a [`Delivery`], the future
//! of its offset. Batches leave when they are full or have lingered, to the leaders of their
//! partitions, in order, several in flight; what can be tried again is, what cannot is told.
//!
//! The path: `send` → `batcher.rs` (linger and size) → `producer/sender.rs` (the task) →
//! `producer/lane.rs` (order and sequences) → `connection.rs`. Memory is bounded: every batch buys its
//! bytes before it is opened, and `send` waits while there are none.

pub(crate) mod delivery;
mod lane;
mod sender;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};

use levada_record::{BuildError, Compression, Encoding as BatchEncoding, RecordHeader, Timestamp};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::coop::consume_budget;
use tokio::time::Duration;

use crate::batcher::{Batcher, Pushed, batch_bytes_of};
use crate::clock::{Clock, seed, wall_clock};
use crate::cluster::{AutoCreate, Cluster};
use crate::error::ClientError;
use crate::retry::{Backoff, Chance};
pub use delivery::{Ack, Delivery, DeliveryError};
use delivery::{Ticket, settled};
use sender::{Command, Sender};

/// Who must have a record before it counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acks {
    /// Nobody: it was handed to the system.
    None,
    /// The leader.
    Leader,
    /// All replicas in sync.
    #[default]
    All,
}

impl Acks {
    fn to_wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// Whether the broker tells repeated batches from new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Idempotence {
    /// It does: nothing is doubled by a retry. Needs [`Acks::All`].
    #[default]
    On,
    /// It does not; one batch per partition is in flight at a time, so that the order holds.
    Off,
}

/// How a producer encodes the records of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Encoding {
    /// In columns where the broker takes them, else as Kafka does.
    #[default]
    Auto,
    /// In columns; the first record for a topic fails when the broker does not take them.
    Columnar,
    /// As Kafka does.
    Kafka,
}

/// How a producer works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProducerOptions {
    /// Default all.
    pub acks: Acks,
    /// Default on; off whenever `acks` is not [`Acks::All`].
    pub idempotence: Idempotence,
    /// Default the best that the broker takes. Leaders that turn out to take only Kafka's records
    /// get those, whatever was chosen.
    pub encoding: Encoding,
    /// Default none.
    pub compression: Compression,
    /// Most bytes of a batch before compression; a larger record gets a batch of its own. Default
    /// 256 KiB.
    pub batch_bytes: u32,
    /// How long a batch waits for more records. Default 5 ms.
    pub linger: Duration,
    /// Memory for batches that are not acknowledged, in bytes. Default 64 MiB.
    pub memory_bytes: u32,
    /// Most bytes of batches in one request, beyond the first. Default 4 MiB.
    pub request_bytes: u32,
    /// Requests in flight to each broker, 1 to 5. Default 5.
    pub in_flight_max: u32,
    /// How long the broker may wait for replicas. Default 20 s.
    pub ack_timeout: Duration,
    /// How long a batch is tried before its records fail. Default 2 min.
    pub delivery_timeout: Duration,
    /// Pauses between tries. Default 50 ms doubling to 1 s.
    pub backoff: Backoff,
    /// How old metadata may get, for topics that grow. Default 5 min.
    pub metadata_age: Duration,
    /// Whether sending to a missing topic may create it. Default allowed, if the broker is
    /// configured to.
    pub auto_create: AutoCreate,
}

/// Batches of one partition in flight, as many as a broker remembers.
const IN_FLIGHT_MAX: u32 = 5;

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::default(),
            idempotence: Idempotence::default(),
            encoding: Encoding::default(),
            compression: Compression::None,
            batch_bytes: 256 << 10,
            linger: Duration::from_millis(5),
            memory_bytes: 64 << 20,
            request_bytes: 4 << 20,
            in_flight_max: IN_FLIGHT_MAX,
            ack_timeout: Duration::from_secs(20),
            delivery_timeout: Duration::from_mins(2),
            backoff: Backoff::default(),
            metadata_age: Duration::from_mins(5),
            auto_create: AutoCreate::Allowed,
        }
    }
}

impl ProducerOptions {
    fn is_idempotent(&self) -> bool {
        self.idempotence == Idempotence::On && self.acks == Acks::All
    }

    /// Batches of one partition that may be in flight at once.
    fn lane_in_flight_max(&self) -> usize {
        let ordered = self.is_idempotent() || self.acks == Acks::None;
        let max = if ordered { self.in_flight_max.clamp(1, IN_FLIGHT_MAX) } else { 1 };
        usize::try_from(max).unwrap_or(1)
    }
}

/// A record to be sent; its bytes are copied into a batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProducerRecord<'a> {
    /// Its topic.
    pub topic: &'a str,
    /// Its partition; left out, the key decides, and without a key chance, batch by batch.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: &'a [RecordHeader<'a>],
    /// Its time; [`Timestamp::NONE`] takes the present.
    pub timestamp: Timestamp,
}

/// A record was not taken.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SendError {
    /// Its topic cannot be written to.
    #[error(transparent)]
    Topic(#[from] ClientError),
    /// Its topic has no such partition.
    #[error("topic {topic} has no partition {partition}: it has {partitions}")]
    NoPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: i32,
        /// How many there are.
        partitions: usize,
    },
    /// [`Encoding::Columnar`] was asked for, and the broker does not list that it takes it.
    #[error("{address} takes no columnar batches")]
    NoColumns {
        /// The broker.
        address: String,
    },
    /// It needs more memory than the producer has.
    #[error("record of {got_bytes} B exceeds the producer's memory of {max_bytes} B")]
    TooLarge {
        /// What it needs.
        got_bytes: usize,
        /// What there is.
        max_bytes: u32,
    },
    /// No batch can be made of it.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The producer's task has ended.
    #[error("the producer is closed")]
    Closed,
}

/// Handles of a producer are used from several threads.
#[expect(
    clippy::disallowed_types,
    reason = "this is no shard; tokio's lock costs more than a push"
)]
type BatcherLock = std::sync::Mutex<Batcher>;

/// What a producer's handles and its task share.
#[derive(Debug)]
struct Shared {
    batcher: BatcherLock,
    memory: Arc<Semaphore>,
    /// Somebody waits for memory: let no batch linger.
    starved: AtomicBool,
    /// Something for the task to do.
    wake: Notify,
    clock: Clock,
}

impl Shared {
    /// Held for moments only, never while something is waited for.
    fn batcher(&self) -> MutexGuard<'_, Batcher> {
        // Whoever panicked with it left a batch or none: every push is whole.
        self.batcher.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of a record that was to be put into a batch.
enum Put {
    In(Delivery),
    /// Its topic is not known yet.
    NoTopic,
    /// It needs a batch of so many bytes, and they are not there.
    NoMemory {
        bytes: u32,
    },
}

/// What asking for memory came to.
enum Bought {
    Ticket(Ticket),
    /// So many bytes are not there.
    NoMemory {
        bytes: u32,
    },
}

/// Writes records to a cluster; cheap to clone. When the last handle is dropped, what is not
/// acknowledged is given up: call [`Producer::flush`] first.
#[derive(Debug, Clone)]
pub struct Producer {
    cluster: Cluster,
    options: Arc<ProducerOptions>,
    shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

impl Producer {
    /// Starts a producer with its task on the current runtime.
    pub fn start(cluster: Cluster, options: ProducerOptions) -> Self {
        let linger_ms = u64::try_from(options.linger.as_millis()).unwrap_or(u64::MAX);
        let batch_bytes = usize::try_from(options.batch_bytes).unwrap_or(usize::MAX);
        let chance = Chance::new(seed());
        let memory = usize::try_from(options.memory_bytes).unwrap_or(usize::MAX);
        let sizes = (batch_bytes, memory);
        let batcher = Batcher::new(options.compression, sizes, linger_ms, chance.clone());
        let shared = Arc::new(Shared {
            batcher: BatcherLock::new(batcher),
            memory: Arc::new(Semaphore::new(memory)),
            starved: AtomicBool::new(false),
            wake: Notify::new(),
            clock: Clock::start(),
        });
        let options = Arc::new(options);
        let (commands, queue) = mpsc::channel(16);
        let sender =
            Sender::new(cluster.clone(), Arc::clone(&options), Arc::clone(&shared), queue, chance);
        // Owned by its handles: it ends when the last is dropped.
        drop(tokio::spawn(sender.run()));
        Self { cluster, options, shared, commands }
    }

    /// Puts `record` into a batch. Waits while the producer's memory is full, and the first time for
    /// the topic. Records of one partition keep the order of these calls.
    ///
    /// # Errors
    /// [`SendError`] when it was not taken.
    pub async fn send(&self, record: &ProducerRecord<'_>) -> Result<Delivery, SendError> {
        // A loop that only sends would never let the producer's task have its turn.
        consume_budget().await;
        let mut bought: Option<Ticket> = None;
        loop {
            match self.put(record, &mut bought)? {
                Put::In(delivery) => return Ok(delivery),
                Put::NoTopic => self.learn_topic(record.topic).await?,
                Put::NoMemory { bytes } => bought = Some(self.wait_for_memory(bytes).await?),
            }
        }
    }

    /// The same without waiting: `None` while the memory is full, and for a topic that [`Self::send`]
    /// was not yet used for. The record was not taken then; what was taken goes on its way.
    ///
    /// # Errors
    /// [`SendError`] when it was not taken and never will be.
    pub fn try_send(&self, record: &ProducerRecord<'_>) -> Result<Option<Delivery>, SendError> {
        match self.put(record, &mut None)? {
            Put::In(delivery) => Ok(Some(delivery)),
            Put::NoTopic | Put::NoMemory { .. } => Ok(None),
        }
    }

    /// Puts the record into a batch, opening one when there is memory for it.
    fn put(
        &self,
        record: &ProducerRecord<'_>,
        bought: &mut Option<Ticket>,
    ) -> Result<Put, SendError> {
        let timestamp = if record.timestamp.is_some() { record.timestamp } else { wall_clock() };
        let record = ProducerRecord { timestamp, ..*record };
        let mut batcher = self.shared.batcher();
        let had_ready = batcher.has_ready();
        let (put, opened) = self.put_into(&mut batcher, &record, bought);
        // Also when this record was refused: it may have closed a batch.
        if opened || (batcher.has_ready() && !had_ready) {
            self.shared.wake.notify_one();
        }
        put
    }

    /// What became of the record, and whether a batch was opened for it.
    fn put_into(
        &self,
        batcher: &mut Batcher,
        record: &ProducerRecord<'_>,
        bought: &mut Option<Ticket>,
    ) -> (Result<Put, SendError>, bool) {
        loop {
            let had_ticket = bought.is_some();
            let now_ms = if had_ticket { self.shared.clock.now_ms() } else { 0 };
            let put = match batcher.push(record, bought, now_ms) {
                Ok(Pushed::In { partition, ticket, index }) => {
                    Ok(Put::In(Delivery::new(ticket, partition, index)))
                }
                Ok(Pushed::NoPartition { partition, partitions }) => {
                    let topic = record.topic.to_owned();
                    Err(SendError::NoPartition { topic, partition, partitions })
                }
                Ok(Pushed::NoTopic) => Ok(Put::NoTopic),
                Ok(Pushed::NoTicket { bytes }) => match self.try_buy(bytes, record) {
                    Ok(Bought::Ticket(ticket)) => {
                        *bought = Some(ticket);
                        continue;
                    }
                    Ok(Bought::NoMemory { bytes }) => Ok(Put::NoMemory { bytes }),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            };
            return (put, had_ticket && bought.is_none());
        }
    }

    async fn learn_topic(&self, name: &str) -> Result<(), SendError> {
        let topic = self.cluster.topic(name, self.options.auto_create).await?;
        let partitions: Vec<i32> =
            topic.partitions.iter().map(|partition| partition.index).collect();
        if partitions.is_empty() {
            let reason = "a topic without partitions";
            let subject = format!("topic {name}");
            return Err(SendError::Topic(ClientError::Senseless { subject, reason }));
        }
        let encoding = self.encoding().await?;
        let mut batcher = self.shared.batcher();
        batcher.set_encoding(encoding);
        batcher.set_topic(&Arc::from(name), partitions);
        Ok(())
    }

    /// What batches will be, as far as one broker of the cluster can tell.
    async fn encoding(&self) -> Result<BatchEncoding, SendError> {
        if self.options.encoding == Encoding::Kafka {
            return Ok(BatchEncoding::KafkaV2);
        }
        let broker = self.cluster.any().await.map_err(ClientError::from)?;
        let best = broker.best_encoding();
        if self.options.encoding == Encoding::Columnar && best != BatchEncoding::Columnar {
            return Err(SendError::NoColumns { address: broker.address().to_owned() });
        }
        Ok(best)
    }

    /// Memory for a batch of `bytes`, less when the producer has less in all; at least for `record`.
    fn try_buy(&self, bytes: usize, record: &ProducerRecord<'_>) -> Result<Bought, SendError> {
        let max_bytes = self.options.memory_bytes;
        let max = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let got_bytes = batch_bytes_of(record);
        if got_bytes > max {
            return Err(SendError::TooLarge { got_bytes, max_bytes });
        }
        let bytes = u32::try_from(bytes.min(max)).unwrap_or(u32::MAX);
        if let Ok(memory) = Arc::clone(&self.shared.memory).try_acquire_many_owned(bytes) {
            return Ok(Bought::Ticket(Ticket::new(memory)));
        }
        self.shared.starved.store(true, Ordering::Release);
        self.shared.wake.notify_one();
        Ok(Bought::NoMemory { bytes })
    }

    async fn wait_for_memory(&self, bytes: u32) -> Result<Ticket, SendError> {
        let acquired = Arc::clone(&self.shared.memory).acquire_many_owned(bytes).await;
        acquired.map(Ticket::new).map_err(|_| SendError::Closed)
    }

    /// Lets no batch linger any longer and waits until everything sent before is delivered or has
    /// failed; which, the deliveries tell.
    ///
    /// # Errors
    /// [`SendError::Closed`] when the producer's task has ended.
    pub async fn flush(&self) -> Result<(), SendError> {
        let (reply, outcomes) = oneshot::channel();
        self.commands.send(Command::Flush(reply)).await.map_err(|_| SendError::Closed)?;
        for outcome in outcomes.await.map_err(|_| SendError::Closed)? {
            settled(outcome).await;
        }
        Ok(())
    }

    /// The cluster it writes to.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }
}
