//! A consumer of librdkafka under load: assigned, in no group.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::Notify;

use super::{consumer_config, patience};
use crate::error::BenchError;
use crate::run::Plan;
use crate::run::client::{Ends, Polled, Reader};
use crate::run::consume::Sink;

/// Most records of a poll: others on this thread want to read, too.
const POLL_RECORDS_MAX: usize = 1000;
/// Longest wait for librdkafka's word that there is something; it gives none for what came while it dealt with
/// events of its own.
const POLL: Duration = Duration::from_millis(10);

/// A consumer of librdkafka.
pub(in crate::run) struct LibrdkafkaReader {
    plan: Arc<Plan>,
    consumer: BaseConsumer,
    /// There may be records.
    ready: Arc<Notify>,
    partitions: Vec<i32>,
    topics: BTreeMap<String, usize>,
    /// By topic and partition, the offset behind the last record that was read.
    next: BTreeMap<(usize, i32), i64>,
}

impl Reader for LibrdkafkaReader {
    async fn connect(plan: &Arc<Plan>, partitions: &[i32]) -> Result<Self, BenchError> {
        let mut consumer: BaseConsumer = consumer_config(&plan.bootstrap).create()?;
        let ready = Arc::new(Notify::new());
        let told = Arc::clone(&ready);
        consumer.set_nonempty_callback(move || told.notify_one());
        let mut assignment = TopicPartitionList::new();
        for topic in &plan.topics {
            for partition in partitions {
                assignment.add_partition_offset(topic, *partition, Offset::Beginning)?;
            }
        }
        consumer.assign(&assignment)?;
        Ok(Self {
            consumer,
            ready,
            partitions: partitions.to_vec(),
            topics: plan.topics.iter().cloned().zip(0..).collect(),
            next: BTreeMap::new(),
            plan: Arc::clone(plan),
        })
    }

    async fn poll(&mut self, sink: &mut Sink) -> Result<Polled, BenchError> {
        let mut polled = Polled::Nothing;
        for _ in 0..POLL_RECORDS_MAX {
            let message = match self.consumer.poll(Duration::ZERO) {
                None => break,
                Some(Ok(message)) => message,
                Some(Err(error)) if is_passing(&error) => continue,
                Some(Err(error)) => return Err(error.into()),
            };
            polled = Polled::Records;
            let partition = message.partition();
            let Some(topic) = self.topics.get(message.topic()) else { continue };
            if let Some(mut taking) = sink.taking(*topic, partition) {
                taking.on_record(message.key(), message.payload());
            }
            self.next.insert((*topic, partition), message.offset() + 1);
        }
        match polled {
            Polled::Records => tokio::task::yield_now().await,
            Polled::Nothing => drop(tokio::time::timeout(POLL, self.ready.notified()).await),
        }
        Ok(polled)
    }

    async fn ends(&mut self) -> Result<Ends, BenchError> {
        let patience = patience(&self.plan.options);
        let mut ends = Vec::new();
        for (topic, name) in self.plan.topics.iter().enumerate() {
            let mut of_topic = BTreeMap::new();
            for partition in &self.partitions {
                let (start, end) = self.consumer.fetch_watermarks(name, *partition, patience)?;
                // Of an empty partition nothing will ever be read.
                self.next.entry((topic, *partition)).or_insert(start);
                of_topic.insert(*partition, end);
            }
            ends.push(of_topic);
        }
        Ok(ends)
    }

    fn position(&self, topic: usize, partition: i32) -> Option<i64> {
        self.next.get(&(topic, partition)).copied()
    }
}

/// Whether librdkafka goes on by itself: it looks for brokers again, and for the group that nobody joins.
fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    let passing = [
        Code::BrokerTransportFailure,
        Code::AllBrokersDown,
        Code::Resolve,
        Code::OperationTimedOut,
        Code::RequestTimedOut,
        Code::CoordinatorNotAvailable,
        Code::NotLeaderForPartition,
        Code::LeaderNotAvailable,
    ];
    !matches!(error, KafkaError::MessageConsumptionFatal(_))
        && error.rdkafka_error_code().is_some_and(|code| passing.contains(&code))
}
