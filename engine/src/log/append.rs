//! Appending: assigns offsets, stamps them, copies the batch into the tail.

use std::rc::Rc;

use levada_record::{BatchHeader, HEADER_BYTES, LeaderEpoch, Offset, stamp};

use crate::digest::Digest;
use crate::error::AppendError;
use crate::log::{BatchMark, Boundary, Log, Pending, State, produced_batch};
use crate::runtime::Now;
use crate::segment::Segment;
use crate::segment::index::IndexEntry;

/// Where a batch stands now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first record.
    pub base: Offset,
    /// Exclusive end.
    pub end: Offset,
}

impl Log {
    /// Copies one verified batch to the log's end, base offset and leader epoch stamped. Never waits, never touches
    /// the disk; the batch is durable when [`Log::durable_end`] has passed its end.
    ///
    /// # Errors
    /// [`AppendError::NeedsSpace`] when [`Log::grow`] must be awaited first; the others are final.
    pub fn try_append(
        self: &Rc<Self>,
        batch: &[u8],
        epoch: LeaderEpoch,
        now: Now,
    ) -> Result<Appended, AppendError> {
        let header =
            BatchHeader::parse(batch).map_err(|e| AppendError::NotABatch(e.to_string()))?;
        if header.total_bytes() != batch.len() {
            return Err(AppendError::NotABatch(format!("{} B given", batch.len())));
        }
        let bytes = batch.len() as u64;
        self.check_appendable(bytes)?;
        let mut state = self.state.borrow_mut();
        if !state.is_writable() || !state.make_active(bytes, now) {
            return Err(AppendError::NeedsSpace { bytes });
        }
        let base = state.log_end;
        let Some(end) = base.checked_advance(i64::from(header.last_offset_delta) + 1) else {
            return Err(AppendError::NotABatch("its offsets leave the range".to_owned()));
        };
        let (head, rest) = batch.split_at(HEADER_BYTES);
        let mut head: [u8; HEADER_BYTES] = head.try_into().expect("split at that length");
        stamp(&mut head, base, epoch);
        let digest_before = state.digest;
        let digest = digest_before.after(self.uid, &head);
        state.tail.push(&head);
        state.tail.push(rest);
        let tail_end = state.tail.end();
        let active = state.segments.last_mut().expect("made active above");
        note_batch(active, &header, base, digest_before, bytes, now);
        active.end = end;
        active.digest = digest;
        let max_timestamp = active.max_timestamp;
        state.digest = digest;
        state.log_end = end;
        let starts_epoch = state.epochs.note(epoch, base);
        let produced = produced_batch(&header);
        if let Some(batch) = &produced {
            state.producers.note(batch, base, end, now.wall_ms);
        }
        let boundary = Boundary { position: tail_end, offset: end, digest, max_timestamp };
        state.pending.push_back(Pending::Batch(BatchMark {
            end: boundary,
            base,
            produced,
            starts_epoch,
            appended_ms: now.wall_ms,
            round: 0,
        }));
        drop(state);
        self.shared.queue(self);
        let place = Appended { base, end };
        self.shared.listener.appended(self, batch, place);
        Ok(place)
    }

    pub(crate) fn check_appendable(&self, bytes: u64) -> Result<(), AppendError> {
        if let Some(reason) = self.shared.failure() {
            return Err(AppendError::Failed(reason));
        }
        let state = self.state.borrow();
        if let Some(suspicion) = &state.suspicion {
            let (from, reason) = (suspicion.from, suspicion.reason.clone());
            return Err(AppendError::Suspect { from, reason });
        }
        if state.is_removed {
            return Err(AppendError::Removed);
        }
        let max_bytes = state.config.segment_bytes;
        if bytes > max_bytes {
            return Err(AppendError::TooLarge { got_bytes: bytes, max_bytes });
        }
        Ok(())
    }
}

/// Enters a batch into its segment's index and times.
pub(crate) fn note_batch(
    segment: &mut Segment,
    header: &BatchHeader,
    base: Offset,
    digest_before: Digest,
    bytes: u64,
    now: Now,
) {
    segment.index.note(IndexEntry {
        offset: base,
        byte: segment.length,
        digest: digest_before,
        max_timestamp_before: segment.max_timestamp,
    });
    if segment.since_ms == 0 {
        segment.since_ms = now.wall_ms;
    }
    segment.length += bytes;
    segment.max_timestamp = segment.max_timestamp.max(header.max_timestamp.as_ms());
}

impl State {
    /// Whether bytes can be put behind the end right now: nobody is cutting, the last block is in memory, the
    /// active file is open.
    pub(crate) fn is_writable(&self) -> bool {
        !self.is_busy
            && self.tail.is_loaded()
            && self.segments.last().is_none_or(|active| active.file.is_some())
    }

    /// Whether the next append of `bytes` belongs into a new segment.
    pub(crate) fn must_roll(&self, bytes: u64, now: Now) -> bool {
        let Some(active) = self.segments.last() else {
            return true;
        };
        if active.length == 0 {
            return false;
        }
        let age = u64::try_from(now.wall_ms.saturating_sub(active.since_ms)).unwrap_or(0);
        let is_old = active.since_ms != 0 && age >= self.config.segment_ms;
        active.length + bytes > self.config.segment_bytes || is_old
    }

    /// Makes sure that the active segment has room for `bytes`, rolling to a prepared one when that is due.
    fn make_active(&mut self, bytes: u64, now: Now) -> bool {
        if self.must_roll(bytes, now) {
            self.roll(bytes)
        } else {
            self.segments.last().is_some_and(|active| active.length + bytes <= active.allocated)
        }
    }

    /// Seals the active segment and goes on in the prepared one, if it fits here and has room for `bytes`.
    pub(crate) fn roll(&mut self, bytes: u64) -> bool {
        let fits = self.prepared.as_ref().is_some_and(|prepared| {
            prepared.name.base == self.log_end && prepared.allocated >= bytes
        });
        if !fits {
            return false;
        }
        let Some(mut next) = self.prepared.take() else {
            return false;
        };
        if let Some(active) = self.segments.last() {
            next.start = active.next_start(self.tail_block());
            let sealed =
                crate::journal::layout::Place { segment: active.name, byte: active.length };
            self.pending.push_back(Pending::Roll {
                sealed,
                digest: active.digest,
                next: next.name,
                next_start: next.start,
            });
            self.facts_in_flight += 1;
        } else {
            next.start = self.tail.end();
            next.is_born = true;
            self.is_first_segment_new = true;
        }
        self.tail.skip_to(next.start);
        self.segments.push(*next);
        true
    }

    fn tail_block(&self) -> u64 {
        self.tail.block_bytes()
    }
}
