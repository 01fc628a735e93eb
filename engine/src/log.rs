//! One partition's log: append, read, truncate, roll; the partition's public door. Lives on one shard.
//!
//! Produce path: `try_append` copies a batch into the tail with its offset and epoch stamped and marks the log
//! dirty; the shard's next round ([`crate::round`]) makes it durable and moves `durable_end`.

mod append;
mod commit;
mod grow;
mod indexes;
mod read;
mod read_ahead;
mod search;
mod truncate;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;

use levada_record::{BatchHeader, LeaderEpoch, Offset, PartitionId, PartitionUid};
use smallvec::SmallVec;

use crate::checkpoint::LogCheckpoint;
use crate::digest::Digest;
use crate::epochs::EpochStarts;
use crate::journal::layout::Place;
use crate::manifest::Manifest;
use crate::owed::Owed;
use crate::producers::{ProducedBatch, Producers, SequenceVerdict};
use crate::runtime::Now;
use crate::segment::Segment;
use crate::segment::layout::SegmentName;
use crate::signal::Signal;
use crate::store::Shared;
use crate::tail::Tail;

pub use append::Appended;
pub(crate) use commit::{RoundBudget, RoundPart};
pub use read::ReadOutcome;
pub(crate) use read_ahead::{ReadAhead, ReadEnds};

/// The topic settings that act in the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogConfig {
    /// A segment rolls before it grows beyond this many bytes.
    pub segment_bytes: u64,
    /// A segment rolls when its first append is this old, in milliseconds.
    pub segment_ms: u64,
    /// Sealed segments whose newest record is older are dropped, in milliseconds; `None` keeps them.
    pub retention_ms: Option<u64>,
    /// The oldest sealed segments are dropped while the log is larger, in bytes; `None` keeps them.
    pub retention_bytes: Option<u64>,
    /// Whether the listener is also told when bytes were written but not synced yet.
    pub tell_written: bool,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            tell_written: false,
        }
    }
}

/// Damage found in a log: it serves nothing from `from` on and takes no appends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspicion {
    /// First offset that cannot be trusted.
    pub from: Offset,
    /// Exclusive end that the log should have had, as far as that is known.
    pub expected_end: Offset,
    /// What was found.
    pub reason: String,
}

/// A batch boundary: where it lies, and what the log was up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Boundary {
    pub(crate) position: u64,
    pub(crate) offset: Offset,
    pub(crate) digest: Digest,
    /// Newest timestamp of its segment's batches before it; -1 when there is none.
    pub(crate) max_timestamp: i64,
}

/// One appended batch on its way through a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchMark {
    /// Boundary behind the batch.
    pub(crate) end: Boundary,
    pub(crate) base: Offset,
    pub(crate) produced: Option<ProducedBatch>,
    /// Whether a leader epoch starts with it: a fact that the next manifest must have.
    pub(crate) starts_epoch: bool,
    pub(crate) appended_ms: i64,
    /// The round that holds it, once it has one.
    pub(crate) round: u64,
}

/// A durable batch on its way to the checkpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DurableMark {
    /// Boundary behind the batch.
    pub(crate) end: Boundary,
    /// The round that holds it.
    pub(crate) round: u64,
}

/// What waits for a round, or is in the one that is being written, in order.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pending {
    Batch(BatchMark),
    Roll { sealed: Place, digest: Digest, next: SegmentName, next_start: u64 },
    Truncate { end: Boundary, place: Place },
    LogStart { start: Offset },
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, not one state machine")]
pub(crate) struct State {
    pub(crate) config: LogConfig,
    pub(crate) log_start: Offset,
    pub(crate) log_end: Offset,
    pub(crate) written_end: Offset,
    pub(crate) high_watermark: Offset,
    /// The boundary behind the last batch of the last completed round.
    pub(crate) durable: Boundary,
    pub(crate) digest: Digest,
    /// Most often only the active one.
    pub(crate) segments: SmallVec<[Segment; 1]>,
    pub(crate) next_generation: u32,
    /// A segment file that exists, with room, but is not in the log yet.
    pub(crate) prepared: Option<Box<Segment>>,
    pub(crate) tail: Tail,
    pub(crate) epochs: EpochStarts,
    pub(crate) producers: Producers,
    pub(crate) durable_producers: Producers,
    pub(crate) pending: VecDeque<Pending>,
    /// The boundary behind what the last built round took.
    pub(crate) rounded: Boundary,
    /// How many batches at the front of `pending` are in the round that is being written.
    pub(crate) in_round: usize,
    /// Whether the block of the log's end was written to the segment already, so that the next append entry must
    /// begin at its first byte (J11).
    pub(crate) end_block_on_disk: bool,
    /// Durable bytes that stand only in the journal.
    pub(crate) owed: Owed,
    /// Durable batches behind the checkpointed boundary.
    pub(crate) history: VecDeque<DurableMark>,
    /// Up to here the segments are synced and both checkpoint copies say so.
    pub(crate) checkpointed: Boundary,
    /// Whether the log got its first segment since the last manifest.
    pub(crate) is_first_segment_new: bool,
    /// Files of segments that are no longer in the log; deleted once manifest and checkpoint know that.
    pub(crate) doomed: Vec<SegmentName>,
    /// Lowest round with a fact that the manifest does not have.
    pub(crate) unfolded_round: Option<u64>,
    /// Facts pending or in the round that is being written.
    pub(crate) facts_in_flight: u32,
    pub(crate) manifest_sequence: u64,
    pub(crate) suspicion: Option<Suspicion>,
    /// Somebody cuts the log: write-behind keeps away.
    pub(crate) is_busy_cutting: bool,
    /// Somebody is making room, or cutting the log.
    pub(crate) is_busy: bool,
    pub(crate) is_removed: bool,
    /// Whether write-behind has writes under way.
    pub(crate) is_writing: bool,
    pub(crate) read_ends: ReadEnds,
}

/// One partition's log on this shard.
pub struct Log {
    pub(crate) partition: PartitionId,
    pub(crate) uid: PartitionUid,
    pub(crate) directory: PathBuf,
    pub(crate) shared: Rc<Shared>,
    pub(crate) state: RefCell<State>,
    /// The digest at the base of the oldest segment.
    pub(crate) base_digest: Cell<Digest>,
    /// Whether it stands in the shard's queue for the next round.
    pub(crate) is_queued: Cell<bool>,
    /// Raised after every round it took part in, and when room was made.
    pub(crate) moved: Signal,
}

impl Log {
    /// Which partition.
    pub fn id(&self) -> PartitionId {
        self.partition
    }

    /// Its uid in digests and in the journal.
    pub fn uid(&self) -> PartitionUid {
        self.uid
    }

    /// First offset kept.
    pub fn log_start(&self) -> Offset {
        self.state.borrow().log_start
    }

    /// Next offset to assign.
    pub fn log_end(&self) -> Offset {
        self.state.borrow().log_end
    }

    /// Exclusive end of what was written, synced or not.
    pub fn written_end(&self) -> Offset {
        self.state.borrow().written_end
    }

    /// Exclusive end of what is on stable storage.
    pub fn durable_end(&self) -> Offset {
        self.state.borrow().durable.offset
    }

    /// The digest of the log up to its end.
    pub fn digest(&self) -> Digest {
        self.state.borrow().digest
    }

    /// Damage, when there is any.
    pub fn suspicion(&self) -> Option<Suspicion> {
        self.state.borrow().suspicion.clone()
    }

    /// The high watermark to keep in checkpoints; the lower of it and the durable end is kept.
    pub fn note_high_watermark(&self, high_watermark: Offset) {
        self.state.borrow_mut().high_watermark = high_watermark;
    }

    /// The high watermark that the last checkpoint knew, right after the start; later what was noted.
    pub fn high_watermark(&self) -> Offset {
        self.state.borrow().high_watermark
    }

    /// The newest leader epoch in the log.
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.state.borrow().epochs.last()
    }

    /// The leader epoch that the batch at `offset` was written in; `None` below the log's start and in an empty log.
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.state.borrow().epochs.at(offset)
    }

    /// The largest epoch that is at most `epoch`, and its exclusive end.
    pub fn epoch_end(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        let state = self.state.borrow();
        state.epochs.end_of(epoch, state.log_end)
    }

    /// Decides about an idempotent producer's batch; `None` when the batch has no producer.
    pub fn check_sequence(&self, header: &BatchHeader) -> Option<SequenceVerdict> {
        produced_batch(header).map(|batch| self.state.borrow().producers.check(&batch))
    }

    /// Forgets producers that were silent for a day.
    pub fn expire_producers(&self, now: Now) {
        let mut state = self.state.borrow_mut();
        state.producers.expire(now.wall_ms);
        state.durable_producers.expire(now.wall_ms);
    }

    /// Changes the settings; they act from the next append or retention on.
    pub fn set_config(&self, config: LogConfig) {
        self.state.borrow_mut().config = config;
    }

    /// Bytes of batches in all segments.
    pub fn size_bytes(&self) -> u64 {
        self.state.borrow().segments.iter().map(|segment| segment.length).sum()
    }

    /// Segments, the active one included.
    pub fn segment_count(&self) -> usize {
        self.state.borrow().segments.len()
    }

    /// Bytes appended that are not durable yet.
    pub fn undurable_bytes(&self) -> u64 {
        let state = self.state.borrow();
        state.tail.end().saturating_sub(state.durable.position)
    }

    /// Waits until everything below `end` is durable.
    ///
    /// # Errors
    /// The reason for which the log directory failed.
    pub async fn until_durable(&self, end: Offset) -> Result<(), String> {
        loop {
            let seen = self.moved.count();
            if self.durable_end() >= end {
                return Ok(());
            }
            if let Some(reason) = self.shared.failure() {
                return Err(reason);
            }
            self.moved.after(seen).await;
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state.borrow();
        state.pending.is_empty() && state.facts_in_flight == 0
    }
}

/// The producer's part of a header, when there is one.
pub(crate) fn produced_batch(header: &BatchHeader) -> Option<ProducedBatch> {
    (header.producer_id.is_some() && header.base_sequence >= 0).then(|| ProducedBatch {
        producer: header.producer_id,
        epoch: header.producer_epoch,
        first_sequence: header.base_sequence,
        count: header.last_offset_delta + 1,
    })
}

impl State {
    /// The segment that holds the log position, or ends there.
    pub(crate) fn segment_index_at(&self, position: u64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.start <= position).checked_sub(1)
    }

    pub(crate) fn place_of(&self, position: u64) -> Option<Place> {
        let segment = self.segments.get(self.segment_index_at(position)?)?;
        Some(Place { segment: segment.name, byte: position - segment.start })
    }

    /// What a manifest written now says: durable facts only, so nothing of a roll that is still on its way. Wrong
    /// while a truncation is on its way.
    pub(crate) fn manifest(
        &self,
        incarnation: u64,
        through_round: u64,
        base_digest: Digest,
    ) -> Manifest {
        let born = self.segments.iter().take_while(|segment| segment.is_born).count();
        let sealed = born.saturating_sub(1);
        let active = self.segments.get(sealed).filter(|segment| segment.is_born);
        Manifest {
            incarnation,
            through_round,
            log_start: self.log_start,
            base_digest,
            next_generation: self.next_generation,
            sealed: self.segments.iter().take(sealed).map(Segment::as_sealed).collect(),
            active: active.map(|segment| segment.name),
            active_since_ms: active.map_or(0, |segment| segment.since_ms),
            epochs: self.epochs.below(self.durable.offset),
        }
    }

    /// What a checkpoint says of this log when its segments are synced up to `synced` (a boundary).
    pub(crate) fn checkpoint(
        &self,
        partition: PartitionId,
        uid: PartitionUid,
        synced: Boundary,
    ) -> LogCheckpoint {
        // A damaged log keeps the end it should have had, so that the damage is found again at every start.
        let durable_end = self.suspicion.as_ref().map_or(self.durable.offset, |s| s.expected_end);
        LogCheckpoint {
            partition,
            uid,
            place: self.place_of(synced.position),
            offset: synced.offset,
            digest: synced.digest,
            durable_end,
            high_watermark: self.high_watermark.min(self.durable.offset),
            max_timestamp: synced.max_timestamp,
            producers: self.durable_producers.clone(),
        }
    }

    /// Bytes of memory that nothing but readers needs.
    pub(crate) fn cached_bytes(&self) -> usize {
        let owed_bytes = usize::try_from(self.owed.bytes()).unwrap_or(usize::MAX);
        self.tail.memory_bytes().saturating_sub(owed_bytes)
    }

    /// The lowest round that must stay in the journal when the segments are synced up to `synced`.
    pub(crate) fn first_needed_round(&self, synced: Boundary) -> Option<u64> {
        let durable = self.history.iter().find(|mark| mark.end.position > synced.position);
        let in_round = self.pending.iter().take(self.in_round).find_map(|pending| match pending {
            Pending::Batch(mark) => Some(mark.round),
            _ => None,
        });
        let bytes = durable.map(|mark| mark.round).or(in_round);
        [bytes, self.unfolded_round].into_iter().flatten().min()
    }

    /// The last batch boundary at or below `position`, among those that are durable.
    pub(crate) fn boundary_at_or_below(&self, position: u64) -> Boundary {
        let known = self.history.partition_point(|mark| mark.end.position <= position);
        known
            .checked_sub(1)
            .and_then(|index| self.history.get(index))
            .map_or(self.checkpointed, |mark| mark.end)
    }
}
