//! What a produce request waits for: one slot per batch, filled by the partitions in any order. Lives
//! on one shard.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};

use levada_record::{Offset, Timestamp};

use super::leader::NotEnoughReplicas;

/// Where a batch went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record; for a duplicate, that of the original.
    pub base: Offset,
    /// The time the broker put on its records, where the topic wants that.
    pub log_append_time: Option<Timestamp>,
    /// First offset that the log keeps.
    pub log_start: Offset,
}

/// Why a batch that was fine in itself did not go into its log, or may not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// This broker holds no replica of that partition.
    #[error("no such partition here")]
    UnknownPartition,
    /// This broker does not lead the partition, or no longer does.
    #[error("not the leader of this partition")]
    NotLeader,
    /// Too few replicas are in sync; nothing was appended.
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
    /// The producer's sequence has a gap or goes back.
    #[error("sequence {got} where {expected} must come next")]
    OutOfOrderSequence {
        /// What must come next.
        expected: i32,
        /// What came.
        got: i32,
    },
    /// A newer life of the producer has written.
    #[error("producer epoch is over")]
    StaleProducerEpoch,
    /// Larger than a segment.
    #[error("batch of {got_bytes} B exceeds the segment's {max_bytes} B")]
    LargerThanSegment {
        /// Its length.
        got_bytes: u64,
        /// What fits.
        max_bytes: u64,
    },
    /// The engine found that these bytes are no batch, though they were verified.
    #[error("not a batch: {0}")]
    NotABatch(String),
    /// The file system has no room.
    #[error("no room on the disk for {bytes} B")]
    DiskFull {
        /// How much was needed.
        bytes: u64,
    },
    /// The log directory failed, or this log is damaged or missing.
    #[error("{0}")]
    Storage(String),
    /// It took too long. The batch may be in the log.
    #[error("not acknowledged in time")]
    TimedOut,
    /// The broker is stopping. The batch may be in the log.
    #[error("the broker is stopping")]
    Stopping,
}

/// What became of one batch.
pub type AppendResult = Result<Appended, AppendFailure>;

/// Collects the results of the batches of one request.
#[derive(Debug)]
pub struct AppendJob {
    results: RefCell<Vec<Option<AppendResult>>>,
    open: Cell<usize>,
    waker: RefCell<Option<Waker>>,
}

impl AppendJob {
    /// A job of `batches` batches.
    pub fn new(batches: usize) -> Rc<Self> {
        Rc::new(Self {
            results: RefCell::new(vec![None; batches]),
            open: Cell::new(batches),
            waker: RefCell::default(),
        })
    }

    /// The right, and the duty, to fill slot `slot`.
    pub fn ticket(self: &Rc<Self>, slot: usize) -> Ticket {
        Ticket { job: Some(Rc::clone(self)), slot }
    }

    fn fill(&self, slot: usize, result: AppendResult) {
        let mut results = self.results.borrow_mut();
        let place = results.get_mut(slot).filter(|place| place.is_none());
        let Some(place) = place else { return };
        *place = Some(result);
        drop(results);
        self.open.set(self.open.get() - 1);
        if self.open.get() == 0 {
            let waker = self.waker.borrow_mut().take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    /// Waits until every slot is filled and takes the results out.
    pub async fn done(&self) -> Vec<AppendResult> {
        std::future::poll_fn(|context| {
            if self.open.get() == 0 {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        let results = std::mem::take(&mut *self.results.borrow_mut());
        results.into_iter().map(|result| result.unwrap_or(Err(AppendFailure::Stopping))).collect()
    }
}

/// Fills one slot of an [`AppendJob`]; dropped unused, the slot says that the broker is stopping.
#[derive(Debug)]
pub struct Ticket {
    job: Option<Rc<AppendJob>>,
    slot: usize,
}

impl Ticket {
    /// Fills the slot.
    pub fn resolve(mut self, result: AppendResult) {
        if let Some(job) = self.job.take() {
            job.fill(self.slot, result);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(job) = self.job.take() {
            job.fill(self.slot, Err(AppendFailure::Stopping));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, poll_once};

    #[test]
    fn a_job_is_done_when_every_slot_is_filled_in_whatever_order() {
        let job = AppendJob::new(2);
        let (first, second) = (job.ticket(0), job.ticket(1));
        second.resolve(Err(AppendFailure::TimedOut));
        assert!(block_on(poll_once(Box::pin(job.done()))).is_none());
        let appended = Appended { base: Offset(7), log_append_time: None, log_start: Offset(0) };
        first.resolve(Ok(appended));
        assert_eq!(block_on(job.done()), [Ok(appended), Err(AppendFailure::TimedOut)]);
    }

    #[test]
    fn a_forgotten_ticket_still_answers() {
        let job = AppendJob::new(1);
        drop(job.ticket(0));
        assert_eq!(block_on(job.done()), [Err(AppendFailure::Stopping)]);
    }

    #[test]
    fn a_job_without_batches_is_done_at_once() {
        assert!(block_on(AppendJob::new(0).done()).is_empty());
    }
}
