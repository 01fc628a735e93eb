//! What a client must be able to do to be measured: `levada.rs` is ours, `librdkafka.rs` the judge.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::consume::Sink;
use super::produce::Failures;
use super::{Plan, Recorder};
use crate::check::SentLane;
use crate::error::BenchError;
use crate::recorder::Interval;

/// The producers of one thread, and whoever hears what became of their records.
pub(super) trait Targets: Sized {
    /// One of them.
    type Target: Target;

    /// None yet. Samples of deliveries go to `recorder`, or to another one that tells `out`.
    fn new(plan: &Arc<Plan>, recorder: &Rc<RefCell<Recorder>>, out: &Sender<Interval>) -> Self;

    /// Another one, ready to send.
    async fn connect(&self, number: u32) -> Result<Self::Target, BenchError>;

    /// What failed, once all targets are flushed and gone.
    async fn settle(self) -> Result<Failures, BenchError>;
}

/// A producer under load.
pub(super) trait Target {
    /// Sends the next record. Waits while the client has no room.
    async fn send(&mut self, intended_ns: u64, sent_ns: u64) -> Result<(), BenchError>;

    /// Waits until everything has an outcome.
    async fn flush(&mut self) -> Result<(), BenchError>;

    /// Its number, topic, and what it sent to each partition.
    fn into_lanes(self) -> (usize, usize, Vec<SentLane>);
}

/// A consumer under load.
pub(super) trait Reader: Sized {
    /// One that will read these partitions of every topic from their start.
    async fn connect(plan: &Arc<Plan>, partitions: &[i32]) -> Result<Self, BenchError>;

    /// Gives the records that are there to `sink`; waits a while for some when there are none.
    async fn poll(&mut self, sink: &mut Sink) -> Result<Polled, BenchError>;

    /// Where the partitions of each topic end now, exclusive.
    async fn ends(&mut self) -> Result<Ends, BenchError>;

    /// The offset of the next record that it will give.
    fn position(&self, topic: usize, partition: i32) -> Option<i64>;
}

/// By place of the topic: by partition the offset behind its last record.
pub(super) type Ends = Vec<BTreeMap<i32, i64>>;

/// What a poll gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polled {
    /// At least one record.
    Records,
    /// None for now.
    Nothing,
}
