//! A producer of librdkafka under load, with its own polling thread to hear of deliveries at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::deliveries::{Context, Deliveries};
use super::{patience, producer_config};
use crate::check::SentLane;
use crate::error::BenchError;
use crate::number::size;
use crate::recorder::Interval;
use crate::run::client::{Target, Targets};
use crate::run::produce::Failures;
use crate::run::source::{Filling, Source};
use crate::run::{Plan, Recorder};

/// How much longer than its records a producer is waited for.
const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// Producers of librdkafka that tell the same recorder of their deliveries.
pub(in crate::run) struct LibrdkafkaTargets {
    plan: Arc<Plan>,
    deliveries: Arc<Deliveries>,
}

impl Targets for LibrdkafkaTargets {
    type Target = LibrdkafkaTarget;

    fn new(plan: &Arc<Plan>, _: &Rc<RefCell<Recorder>>, out: &Sender<Interval>) -> Self {
        Self { plan: Arc::clone(plan), deliveries: Arc::new(Deliveries::new(plan, out)) }
    }

    async fn connect(&self, number: u32) -> Result<LibrdkafkaTarget, BenchError> {
        let options = &self.plan.options;
        let source = Source::new(&self.plan, number);
        let deliveries = Arc::clone(&self.deliveries);
        let context = Context { producer: source.number(), deliveries };
        let config = producer_config(&self.plan.bootstrap, options);
        let producer: ThreadedProducer<Context> = config.create_with_context(context)?;
        // Connects and learns the leaders now, not with the first records.
        producer.client().fetch_metadata(Some(source.topic_name()), patience(options))?;
        Ok(LibrdkafkaTarget {
            patience: patience(options) + FLUSH_GRACE,
            fillings: vec![None; size(options.partitions.into())],
            source,
            producer,
            deliveries: Arc::clone(&self.deliveries),
        })
    }

    async fn settle(self) -> Result<Failures, BenchError> {
        Ok(self.deliveries.settle())
    }
}

/// A producer of librdkafka.
pub(in crate::run) struct LibrdkafkaTarget {
    producer: ThreadedProducer<Context>,
    deliveries: Arc<Deliveries>,
    source: Source,
    /// By partition, what its batch should be like by now: librdkafka tells nothing of open batches.
    fillings: Vec<Option<Filling>>,
    patience: Duration,
}

impl Target for LibrdkafkaTarget {
    async fn send(&mut self, intended_ns: u64, sent_ns: u64) -> Result<(), BenchError> {
        let Self { producer, deliveries, source, fillings, .. } = self;
        let fresh = source.next(intended_ns, |place| *fillings.get(place)?);
        let (place, bytes) = (fresh.place, fresh.bytes());
        let mut record = BaseRecord::with_opaque_to(fresh.topic, size(sent_ns));
        record.partition = i32::try_from(place).ok();
        record.key = fresh.key;
        record.payload = Some(fresh.value);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            deliveries.room().await;
            record = refused;
        }
        source.sent(place);
        let slot = fillings.get_mut(place).expect("partitioners give places that are there");
        let open = slot.filter(|filling| !source.is_done(*filling, sent_ns));
        let mut filling = open.unwrap_or(Filling { opened_ns: sent_ns, ..Filling::default() });
        filling.records += 1;
        filling.bytes += bytes;
        *slot = Some(filling);
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), BenchError> {
        Ok(self.producer.flush(self.patience)?)
    }

    fn into_lanes(self) -> (usize, usize, Vec<SentLane>) {
        // With its last handle the producer is gone, and so are its callbacks.
        self.source.into_lanes()
    }
}
