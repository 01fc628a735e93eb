//! What librdkafka's threads tell of records: their times, their failures, and that there is room again.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaErrorCode;
use serde::Deserialize;
use tokio::sync::Notify;

use crate::clock::now_ns;
use crate::error::BenchError;
use crate::number::count;
use crate::payload::Stamp;
use crate::recorder::{Interval, Recorder, Series};
use crate::run::Plan;
use crate::run::produce::Failures;

/// Longest wait for room before it is tried again.
const ROOM_WAIT: Duration = Duration::from_millis(10);

/// The producers of one sending thread share one: their polling threads write, the sender waits for room.
#[expect(clippy::disallowed_types, reason = "librdkafka's threads call back; this is no shard")]
type HeardLock = std::sync::Mutex<Heard>;

/// What was heard.
struct Heard {
    recorder: Recorder,
    failures: Failures,
    /// Bytes of deliveries after which the sender is woken; 0 when it does not wait.
    wanted_bytes: u64,
}

/// Hears of deliveries.
pub(super) struct Deliveries {
    plan: Arc<Plan>,
    /// Whether senders wait for the cluster.
    closed_loop: bool,
    heard: HeardLock,
    room: Notify,
}

impl Deliveries {
    pub(super) fn new(plan: &Arc<Plan>, out: &Sender<Interval>) -> Self {
        let recorder = Recorder::new(plan.start_ns, out.clone());
        let heard = Heard { recorder, failures: Failures::default(), wanted_bytes: 0 };
        Self {
            plan: Arc::clone(plan),
            closed_loop: plan.options.is_closed_loop(),
            heard: HeardLock::new(heard),
            room: Notify::new(),
        }
    }

    /// Held for moments only.
    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Whoever panicked with it left whole samples.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, after a full queue, until about a batch has left it: one record would wake the sender for
    /// one record.
    pub(super) async fn room(&self) {
        let options = &self.plan.options;
        self.heard().wanted_bytes = u64::from(options.batch_bytes.min(options.memory_bytes / 2));
        // What was delivered before that line wakes nobody: hence the limit.
        drop(tokio::time::timeout(ROOM_WAIT, self.room.notified()).await);
    }

    /// Hands on what there is; what failed.
    pub(super) fn settle(&self) -> Failures {
        let mut heard = self.heard();
        heard.recorder.flush();
        std::mem::take(&mut heard.failures)
    }

    fn on_delivery(&self, producer: usize, delivered: &DeliveryResult<'_>, sent_ns: u64) {
        let now_ns = now_ns();
        let (message, error) = match delivered {
            Ok(message) => (message, None),
            Err((error, message)) => (message, Some(error)),
        };
        let payload = message.payload().unwrap_or_default();
        let bytes = count(payload.len() + message.key_len());
        let stamp = Stamp::read(payload);
        let mut heard = self.heard();
        let Heard { recorder, failures, wanted_bytes } = &mut *heard;
        recorder.at(now_ns);
        recorder.record(Series::Service, now_ns.saturating_sub(sent_ns));
        if let Some(stamp) = stamp.filter(|_| !self.closed_loop) {
            recorder.record(Series::Response, now_ns.saturating_sub(stamp.intended_ns));
        }
        if let Some(error) = error {
            recorder.counts().failed += 1;
            if let (Some(stamp), Ok(partition)) = (stamp, usize::try_from(message.partition())) {
                failures.add(producer, partition, stamp.sequence..stamp.sequence + 1);
            }
            failures.first.get_or_insert_with(|| BenchError::from(error.clone()).to_string());
            match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::MessageTimedOut) => self.plan.on_silence(now_ns),
                _ => self.plan.ending.on_answer(now_ns),
            }
        } else {
            self.plan.ending.on_answer(now_ns);
            recorder.counts().acked += 1;
            recorder.counts().acked_bytes += bytes;
        }
        if *wanted_bytes > 0 {
            *wanted_bytes = wanted_bytes.saturating_sub(bytes);
            if *wanted_bytes == 0 {
                self.room.notify_one();
            }
        }
    }

    fn on_batches(&self, batches: u64) {
        let mut heard = self.heard();
        heard.recorder.at(now_ns());
        heard.recorder.counts().batches += batches;
    }

    fn on_fatal(&self, error: &KafkaError, reason: &str) {
        self.heard().failures.first.get_or_insert_with(|| format!("librdkafka: {error}: {reason}"));
        self.plan.stop();
    }
}

/// What one producer's callbacks know.
pub(super) struct Context {
    pub(super) producer: usize,
    pub(super) deliveries: Arc<Deliveries>,
}

impl ClientContext for Context {
    fn error(&self, error: KafkaError, reason: &str) {
        // The others pass, or the records that suffer from them tell.
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
            self.deliveries.on_fatal(&error, reason);
        }
    }

    /// Batches are only told by the statistics. They are a second late, at the begin of the measured time as
    /// at its end.
    fn stats_raw(&self, statistics: &[u8]) {
        if let Ok(statistics) = serde_json::from_slice::<Statistics>(statistics) {
            let batches = statistics.topics.values().map(|topic| topic.batchcnt.cnt).sum();
            self.deliveries.on_batches(batches);
        }
    }
}

impl ProducerContext for Context {
    /// When `send` was called, in ns; the record's payload has the rest.
    type DeliveryOpaque = usize;

    fn delivery(&self, delivered: &DeliveryResult<'_>, sent_ns: usize) {
        self.deliveries.on_delivery(self.producer, delivered, count(sent_ns));
    }
}

/// What is wanted of librdkafka's statistics (its STATISTICS.md).
#[derive(Deserialize)]
struct Statistics {
    topics: BTreeMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct TopicStatistics {
    batchcnt: Window,
}

/// Samples since the report before: one for each batch.
#[derive(Deserialize)]
struct Window {
    cnt: u64,
}
