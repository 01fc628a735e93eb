//! Cutting a log at its end or at its start, and letting go of it.

use std::rc::Rc;

use levada_record::Offset;

use crate::error::{ReadError, StoreError};
use crate::log::{Log, Pending};
use crate::planted::{PlantedBug, is_planted};
use crate::retention::{SegmentAge, segments_to_drop};
use crate::runtime::Now;
use crate::segment::layout::align_down;

impl Log {
    /// Cuts the log so that it ends at `to`, or at the last batch boundary below it; returns the new end. Durable
    /// before it returns; producers, epochs and index go back in the same step.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] when `to` is below the log start; the log is unchanged then.
    pub async fn truncate(self: &Rc<Self>, to: Offset) -> Result<Offset, StoreError> {
        self.claim().await;
        let result = match self.prepare_cut().await {
            Ok(()) => self.cut(to).await,
            Err(error) => Err(error),
        };
        self.release();
        result
    }

    /// Waits until nothing of the log is under way and no round of the journal is needed for it, then keeps
    /// write-behind away. The journal can then never wait for this log while the log waits for the journal.
    async fn prepare_cut(self: &Rc<Self>) -> Result<(), StoreError> {
        loop {
            self.until_idle().await?;
            {
                let mut state = self.state.borrow_mut();
                let needs_rounds = state.first_needed_round(state.checkpointed).is_some();
                if state.owed.is_empty() && !needs_rounds && !state.is_writing {
                    state.is_busy_cutting = true;
                    return Ok(());
                }
            }
            self.shared.force_checkpoint().await?;
        }
    }

    /// Waits until no append or fact of the log is on its way to a round.
    pub(crate) async fn until_idle(self: &Rc<Self>) -> Result<(), StoreError> {
        loop {
            let seen = self.moved.count();
            if self.is_idle() {
                return Ok(());
            }
            if let Some(reason) = self.shared.failure() {
                return Err(StoreError::Failed(reason));
            }
            self.moved.after(seen).await;
        }
    }

    async fn cut(self: &Rc<Self>, to: Offset) -> Result<Offset, StoreError> {
        {
            let state = self.state.borrow();
            if to >= state.log_end {
                return Ok(state.log_end);
            }
            if to < state.log_start {
                let (start, end) = (state.log_start, state.log_end);
                return Err(StoreError::OutOfRange { asked: to, start, end });
            }
        }
        let (name, end) = self.boundary_below(to).await?;
        {
            // The log start may lie inside the batch that would be cut off.
            let state = self.state.borrow();
            if end.offset < state.log_start {
                let (start, end) = (state.log_start, state.log_end);
                return Err(StoreError::OutOfRange { asked: to, start, end });
            }
        }
        let producers = self.producers_at(name, end.offset).await?;
        {
            let mut guard = self.state.borrow_mut();
            let state = &mut *guard;
            let Some(index) = state.segments.iter().position(|segment| segment.name == name) else {
                return Err(ReadError::Removed.into());
            };
            for dead in state.segments.drain(index + 1..) {
                state.doomed.push(dead.name);
            }
            if let Some(unused) = state.prepared.take() {
                state.doomed.push(unused.name);
            }
            let active = state.segments.last_mut().expect("the segment that was found");
            self.shared.read_ahead.borrow_mut().forget(self.uid);
            active.length = end.position - active.start;
            active.end = end.offset;
            active.digest = end.digest;
            active.max_timestamp = end.max_timestamp;
            active.index.truncate(active.length);
            active.is_index_stored = false;
            let block = state.tail.block_bytes();
            if state.tail.start() <= align_down(end.position, block) {
                state.tail.truncate(end.position);
            } else {
                state.tail.clear(end.position);
            }
            state.log_end = end.offset;
            state.digest = end.digest;
            state.written_end = end.offset;
            state.high_watermark = state.high_watermark.min(end.offset);
            state.epochs.truncate(end.offset);
            if !is_planted(PlantedBug::KeepProducersOnTruncate) {
                state.producers = producers.clone();
                state.durable_producers = producers;
            }
            // A block that was ever written may not be written again before its bytes are in the journal.
            let is_owed = state
                .owed
                .runs()
                .any(|(from, to)| from <= align_down(end.position, block) && to >= end.position);
            state.end_block_on_disk = !is_owed && !end.position.is_multiple_of(block);
            state.owed.truncate(end.position);
            while state.history.back().is_some_and(|mark| mark.end.position > end.position) {
                state.history.pop_back();
            }
            if state.checkpointed.position > end.position {
                state.checkpointed = end;
            }
            state.rounded = end;
            state.durable = end;
            let place = state.place_of(end.position).expect("in the segment that was found");
            state.pending.push_back(Pending::Truncate { end, place });
            state.facts_in_flight += 1;
        }
        self.shared.queue(self);
        self.until_facts_are_durable().await?;
        // Until a checkpoint knows of it, a recovery has to walk the whole log for its producers.
        self.shared.ask_checkpoint();
        Ok(end.offset)
    }

    async fn until_facts_are_durable(&self) -> Result<(), StoreError> {
        loop {
            let seen = self.moved.count();
            if self.state.borrow().facts_in_flight == 0 {
                return Ok(());
            }
            if let Some(reason) = self.shared.failure() {
                return Err(StoreError::Failed(reason));
            }
            self.moved.after(seen).await;
        }
    }

    /// Gives up everything below `to`: durable first, then segments go. A `to` below the log start changes nothing.
    ///
    /// # Errors
    /// [`StoreError::OutOfRange`] when `to` is behind the durable end.
    pub async fn advance_log_start(self: &Rc<Self>, to: Offset) -> Result<(), StoreError> {
        // Producers of batches that go must be in a checkpoint: nothing else will know of them.
        while self.drops_more_than_the_checkpoint_knows(to) {
            self.shared.force_checkpoint().await?;
        }
        // Never while the log is being cut: its end might come to lie below the new start.
        self.claim().await;
        let asked = self.ask_log_start(to);
        self.release();
        if !asked? {
            return Ok(());
        }
        self.shared.queue(self);
        loop {
            let seen = self.moved.count();
            if self.log_start() >= to {
                self.shared.write_behind_wanted.raise();
                return Ok(());
            }
            if let Some(reason) = self.shared.failure() {
                return Err(StoreError::Failed(reason));
            }
            self.moved.after(seen).await;
        }
    }

    fn drops_more_than_the_checkpoint_knows(&self, to: Offset) -> bool {
        let state = self.state.borrow();
        let sealed = state.segments.len().saturating_sub(1);
        let dropped = state.segments.iter().take(sealed).take_while(|segment| segment.end <= to);
        !state.is_removed
            && dropped.last().is_some_and(|segment| segment.end > state.checkpointed.offset)
    }

    /// Lets the next round move the log start; `false` when it lies there already.
    fn ask_log_start(&self, to: Offset) -> Result<bool, StoreError> {
        let mut state = self.state.borrow_mut();
        if to <= state.log_start {
            return Ok(false);
        }
        if to > state.durable.offset {
            let (start, end) = (state.log_start, state.durable.offset);
            return Err(StoreError::OutOfRange { asked: to, start, end });
        }
        state.pending.push_back(Pending::LogStart { start: to });
        state.facts_in_flight += 1;
        Ok(true)
    }

    /// Drops segments by age and size, never above `high_watermark` (J35); an active segment whose records are all
    /// too old is sealed first. How many segments went.
    ///
    /// # Errors
    /// [`StoreError`]
    pub async fn retain(
        self: &Rc<Self>,
        now: Now,
        high_watermark: Offset,
    ) -> Result<usize, StoreError> {
        self.expire_producers(now);
        let is_active_old = {
            let state = self.state.borrow();
            state.segments.last().is_some_and(|active| {
                active.length > 0
                    && active.end <= high_watermark
                    && active.max_timestamp >= 0
                    && state.config.retention_ms.is_some_and(|keep| {
                        now.wall_ms.saturating_sub(active.max_timestamp)
                            > i64::try_from(keep).unwrap_or(i64::MAX)
                    })
            })
        };
        if is_active_old && let Err(error) = self.roll_now().await {
            tracing::debug!(%error, "seal an old segment");
        }
        let (target, dropped) = {
            let state = self.state.borrow();
            let sealed = state.segments.len().saturating_sub(1);
            let total: u64 = state.segments.iter().map(|segment| segment.length).sum();
            let ages: Vec<SegmentAge> = state
                .segments
                .iter()
                .take(sealed)
                .take_while(|segment| segment.end <= high_watermark)
                .map(|segment| SegmentAge {
                    length_bytes: segment.length,
                    max_timestamp: segment.max_timestamp,
                })
                .collect();
            let count = segments_to_drop(
                &ages,
                total,
                state.config.retention_ms,
                state.config.retention_bytes,
                now.wall_ms,
            );
            let last = count.checked_sub(1).and_then(|last| state.segments.get(last));
            (last.map(|segment| segment.end), count)
        };
        if let Some(to) = target {
            self.advance_log_start(to.min(self.durable_end())).await?;
        }
        Ok(dropped)
    }

    /// Lets go of every descriptor.
    pub(crate) fn close_files(&self) {
        let mut state = self.state.borrow_mut();
        for segment in &mut state.segments {
            segment.file = None;
        }
        state.prepared = None;
    }
}
