//! A consumer of ours under load.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use levada_client::{Cluster, Consumer, ConsumerOptions, Position};

use crate::error::BenchError;
use crate::run::Plan;
use crate::run::client::{Ends, Polled, Reader};
use crate::run::consume::{POLL, Sink};

/// A consumer of ours.
pub(in crate::run) struct LevadaReader {
    plan: Arc<Plan>,
    consumer: Consumer,
    partitions: Vec<i32>,
    scratch: Vec<u8>,
}

impl Reader for LevadaReader {
    async fn connect(plan: &Arc<Plan>, partitions: &[i32]) -> Result<Self, BenchError> {
        let options = &plan.options;
        let cluster = Cluster::connect(&plan.bootstrap, options.cluster_options()).await?;
        let patience = Duration::from_secs(options.timeout_s.into());
        let consumer_options = ConsumerOptions { patience, ..ConsumerOptions::default() };
        let mut consumer = Consumer::new(cluster, consumer_options);
        for topic in &plan.topics {
            consumer.assign_all(topic, partitions, Position::Start).await?;
        }
        let (plan, partitions) = (Arc::clone(plan), partitions.to_vec());
        Ok(Self { plan, consumer, partitions, scratch: Vec::new() })
    }

    async fn poll(&mut self, sink: &mut Sink) -> Result<Polled, BenchError> {
        let fetched = self.consumer.poll(POLL).await?;
        let polled = if fetched.is_empty() { Polled::Nothing } else { Polled::Records };
        for records in fetched {
            let place = self.plan.topics.iter().position(|topic| **topic == *records.topic);
            let taking = place.and_then(|place| sink.taking(place, records.partition));
            let Some(mut taking) = taking else { continue };
            let visited = records.visit(&mut self.scratch, |record| {
                taking.on_record(record.key, record.value);
                Ok::<(), Infallible>(())
            });
            visited.map_err(|error| {
                let source = std::io::Error::other(error.to_string());
                BenchError::System { what: format!("read {}", records.topic), source }
            })?;
        }
        Ok(polled)
    }

    async fn ends(&mut self) -> Result<Ends, BenchError> {
        let mut ends = Vec::new();
        for topic in &self.plan.topics {
            let found = self.consumer.offsets(topic, &self.partitions, Position::End).await?;
            ends.push(found.into_iter().map(|(partition, end)| (partition, end.0)).collect());
        }
        Ok(ends)
    }

    fn position(&self, topic: usize, partition: i32) -> Option<i64> {
        let topic = self.plan.topics.get(topic)?;
        self.consumer.position(topic, partition).map(|offset| offset.0)
    }
}
