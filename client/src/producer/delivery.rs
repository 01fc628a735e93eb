//! What becomes of a record: one outcome per batch, shared by all its records, and the memory that the
//! batch holds until then.

use std::sync::Arc;

use levada_record::{BuildError, Offset, Timestamp};
use tokio::sync::{OwnedSemaphorePermit, SetOnce};

use crate::error::Refusal;

/// Where a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Its partition.
    pub partition: i32,
    /// Its offset; `None` when the broker does not tell: with acks 0, and for a batch it had already.
    pub offset: Option<Offset>,
    /// The time the broker gave it, where the topic wants the broker's.
    pub append_time: Option<Timestamp>,
}

/// A record was not delivered.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeliveryError {
    /// The broker refused its batch for good. Nothing of it was appended.
    #[error("{topic}-{partition}: {refusal}")]
    Refused {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Why.
        #[source]
        refusal: Refusal,
    },
    /// No try succeeded in time.
    #[error("{topic}-{partition}: not acknowledged within {after_ms} ms{}; the last error: {last}",
            if *.in_doubt { " (it may have been appended)" } else { "" })]
    Expired {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// How long was tried, in ms.
        after_ms: u64,
        /// Whether it may have been appended nevertheless.
        in_doubt: bool,
        /// What went wrong last.
        last: Arc<str>,
    },
    /// No batch can be made of it.
    #[error("{topic}-{partition}: {source}")]
    Build {
        /// Its topic.
        topic: Arc<str>,
        /// Its partition.
        partition: i32,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// The producer was dropped before it was sent, or before the answer.
    #[error("the producer was closed before the record was acknowledged")]
    Closed,
}

/// What became of a batch.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It is in the log; the offset of its first record.
    Delivered { base: Option<Offset>, append_time: Option<Timestamp> },
    /// It is not, as far as is known.
    Failed(DeliveryError),
    /// It was cut in two before the record with index `at`.
    Split { at: u32, low: Arc<SetOnce<Outcome>>, high: Arc<SetOnce<Outcome>> },
}

/// What a batch carries with it: where its outcome is told, and its share of the producer's memory.
#[derive(Debug)]
pub(crate) struct Ticket {
    outcome: Arc<SetOnce<Outcome>>,
    memory: Option<OwnedSemaphorePermit>,
}

impl Ticket {
    pub(crate) fn new(memory: OwnedSemaphorePermit) -> Self {
        Self { outcome: Arc::default(), memory: Some(memory) }
    }

    #[cfg(test)]
    pub(crate) fn for_test() -> Self {
        Self { outcome: Arc::default(), memory: None }
    }

    /// Where the outcome will be told.
    pub(crate) fn outcome(&self) -> &Arc<SetOnce<Outcome>> {
        &self.outcome
    }

    /// Gives back what the batch does not need.
    pub(crate) fn shrink(&mut self, needed_bytes: usize) {
        if let Some(memory) = &mut self.memory {
            drop(memory.split(memory.num_permits().saturating_sub(needed_bytes)));
        }
    }

    /// Tells the outcome and gives the memory back.
    pub(crate) fn resolve(self, outcome: Outcome) {
        self.tell(outcome);
    }

    fn tell(&self, outcome: Outcome) {
        // Told already: only by a drop after it was resolved.
        drop(self.outcome.set(outcome));
    }

    /// Two tickets for the two parts of a batch that is cut before the record `at`.
    pub(crate) fn split(mut self, at: u32) -> (Ticket, Ticket) {
        let mut memory = self.memory.take();
        let half = memory.as_mut().and_then(|memory| memory.split(memory.num_permits() / 2));
        let low = Ticket { outcome: Arc::default(), memory };
        let high = Ticket { outcome: Arc::default(), memory: half };
        let (low_outcome, high_outcome) = (Arc::clone(&low.outcome), Arc::clone(&high.outcome));
        self.tell(Outcome::Split { at, low: low_outcome, high: high_outcome });
        (low, high)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.outcome.initialized() {
            self.tell(Outcome::Failed(DeliveryError::Closed));
        }
    }
}

/// A record that is on its way. Dropping it changes nothing about the record.
#[derive(Debug, Clone)]
pub struct Delivery {
    outcome: Arc<SetOnce<Outcome>>,
    partition: i32,
    index: u32,
}

impl Delivery {
    pub(crate) fn new(ticket: &Ticket, partition: i32, index: u32) -> Self {
        Self { outcome: Arc::clone(&ticket.outcome), partition, index }
    }

    /// The partition it goes to.
    pub fn partition(&self) -> i32 {
        self.partition
    }

    /// Whether both records travel in one batch, and so share one outcome.
    pub fn is_of_same_batch(&self, other: &Delivery) -> bool {
        Arc::ptr_eq(&self.outcome, &other.outcome)
    }

    /// Waits until the record is acknowledged, or until it never will be.
    ///
    /// # Errors
    /// [`DeliveryError`].
    pub async fn wait(&self) -> Result<Ack, DeliveryError> {
        let (mut batch, mut index) = (Arc::clone(&self.outcome), self.index);
        loop {
            match self.follow(batch.wait().await, index) {
                Step::There(outcome) => return outcome,
                Step::On(next, at) => (batch, index) = (next, at),
            }
        }
    }

    /// The outcome, if there is one already.
    pub fn outcome(&self) -> Option<Result<Ack, DeliveryError>> {
        let (mut batch, mut index) = (Arc::clone(&self.outcome), self.index);
        loop {
            match self.follow(batch.get()?, index) {
                Step::There(outcome) => return Some(outcome),
                Step::On(next, at) => (batch, index) = (next, at),
            }
        }
    }

    /// The record's own outcome, or where to ask further.
    fn follow(&self, outcome: &Outcome, index: u32) -> Step {
        match outcome {
            Outcome::Failed(error) => Step::There(Err(error.clone())),
            Outcome::Delivered { base, append_time } => {
                let offset = base.map(|base| base.advance(index));
                let append_time = *append_time;
                Step::There(Ok(Ack { partition: self.partition, offset, append_time }))
            }
            Outcome::Split { at, low, .. } if index < *at => Step::On(Arc::clone(low), index),
            Outcome::Split { at, high, .. } => Step::On(Arc::clone(high), index - at),
        }
    }
}

/// A step on the way to a record's outcome.
enum Step {
    There(Result<Ack, DeliveryError>),
    On(Arc<SetOnce<Outcome>>, u32),
}

/// Waits until all records of a batch have an outcome.
pub(crate) async fn settled(outcome: Arc<SetOnce<Outcome>>) {
    let mut open = vec![outcome];
    while let Some(outcome) = open.pop() {
        if let Outcome::Split { low, high, .. } = outcome.wait().await {
            open.extend([Arc::clone(low), Arc::clone(high)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_record_follows_its_batch_through_every_split() {
        let ticket = Ticket::for_test();
        let deliveries: Vec<_> = (0..6).map(|index| Delivery::new(&ticket, 3, index)).collect();
        let (low, high) = ticket.split(2);
        let (middle, top) = high.split(3);
        assert!(deliveries.iter().all(|delivery| delivery.outcome().is_none()));
        let delivered = |base| Outcome::Delivered { base: Some(Offset(base)), append_time: None };
        low.resolve(delivered(10));
        middle.resolve(delivered(20));
        drop(top);
        let mut got = Vec::new();
        for delivery in &deliveries {
            got.push(delivery.wait().await.ok().and_then(|ack| ack.offset).map(|offset| offset.0));
        }
        assert_eq!(got, [Some(10), Some(11), Some(20), Some(21), Some(22), None]);
    }
}
