//! What the recovery leaves of one log for its shard: plain data that may cross threads.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use levada_record::{LeaderEpoch, Offset, PartitionId, PartitionUid};
use smallvec::SmallVec;

use crate::checkpoint::LogCheckpoint;
use crate::digest::Digest;
use crate::epochs::EpochStarts;
use crate::journal::layout::Place;
use crate::log::{Boundary, Log, LogConfig, ReadEnds, State, Suspicion};
use crate::manifest::{SealedSegment, directory_name};
use crate::owed::Owed;
use crate::producers::Producers;
use crate::segment::Segment;
use crate::segment::index::Index;
use crate::segment::layout::SegmentName;
use crate::signal::Signal;
use crate::store::{Shared, partitions_directory};
use crate::tail::Tail;

/// The active segment of a recovered log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveSeed {
    /// Which file.
    pub name: SegmentName,
    /// Bytes of batches in it, all in the file.
    pub length_bytes: u64,
    /// Newest record timestamp, -1 when none.
    pub max_timestamp: i64,
    /// Wall time of its first append in milliseconds, 0 when unknown.
    pub since_ms: i64,
}

/// One log, everything of it in its segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSeed {
    /// Which partition.
    pub partition: PartitionId,
    /// Its uid.
    pub uid: PartitionUid,
    /// First offset kept.
    pub log_start: Offset,
    /// Exclusive end.
    pub end: Offset,
    /// Digest at the end.
    pub digest: Digest,
    /// Digest at the base of the oldest segment.
    pub base_digest: Digest,
    /// Lower bound of the high watermark.
    pub high_watermark: Offset,
    /// In order of their bases.
    pub sealed: Vec<SealedSegment>,
    /// The one to go on in.
    pub active: Option<ActiveSeed>,
    /// What the recovery walked of the active segment.
    pub active_index: Index,
    /// For the next segment.
    pub next_generation: u32,
    /// Sequence of the newest manifest.
    pub manifest_sequence: u64,
    /// Where leader epochs start.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// The producers at the end.
    pub producers: Producers,
    /// Damage.
    pub suspicion: Option<Suspicion>,
}

impl LogSeed {
    /// Of a log that was just created.
    pub(crate) fn empty(partition: PartitionId, uid: PartitionUid) -> Self {
        Self {
            partition,
            uid,
            log_start: Offset::ZERO,
            end: Offset::ZERO,
            digest: Digest::EMPTY,
            base_digest: Digest::EMPTY,
            high_watermark: Offset::ZERO,
            sealed: Vec::new(),
            active: None,
            active_index: Index::default(),
            next_generation: 0,
            manifest_sequence: 1,
            epochs: Vec::new(),
            producers: Producers::default(),
            suspicion: None,
        }
    }

    pub(crate) fn place(&self) -> Option<Place> {
        self.active.as_ref().map(|a| Place { segment: a.name, byte: a.length_bytes })
    }

    /// What the first checkpoint of the new incarnation says.
    pub(crate) fn as_checkpoint(&self) -> LogCheckpoint {
        LogCheckpoint {
            partition: self.partition,
            uid: self.uid,
            place: self.place(),
            offset: self.end,
            digest: self.digest,
            durable_end: self.suspicion.as_ref().map_or(self.end, |s| s.expected_end),
            high_watermark: self.high_watermark.min(self.end),
            max_timestamp: self.active.as_ref().map_or(-1, |active| active.max_timestamp),
            producers: self.producers.clone(),
        }
    }
}

impl Log {
    /// The running log that a seed describes.
    pub(crate) fn from_seed(shared: &Rc<Shared>, seed: LogSeed) -> Self {
        let block = shared.disk.block_bytes();
        let mut segments = SmallVec::with_capacity(seed.sealed.len() + 1);
        let next_start = |segments: &[Segment]| {
            segments.last().map_or(0, |segment| segment.next_start(block as u64))
        };
        for sealed in &seed.sealed {
            let start = next_start(&segments);
            segments.push(Segment::from_sealed(sealed, start));
        }
        if let Some(active) = &seed.active {
            let start = next_start(&segments);
            let sealed = SealedSegment {
                name: active.name,
                length_bytes: active.length_bytes,
                end: seed.end,
                digest: seed.digest,
                max_timestamp: active.max_timestamp,
            };
            let mut segment = Segment::from_sealed(&sealed, start);
            segment.since_ms = active.since_ms;
            segment.allocated = 0;
            segment.index = seed.active_index;
            segments.push(segment);
        }
        let position = segments.last().map_or(0, Segment::position_end);
        let mut tail = Tail::new(0, block);
        tail.clear(position);
        let max_timestamp = seed.active.as_ref().map_or(-1, |active| active.max_timestamp);
        let end = Boundary { position, offset: seed.end, digest: seed.digest, max_timestamp };
        let state = State {
            config: LogConfig::default(),
            log_start: seed.log_start,
            log_end: seed.end,
            written_end: seed.end,
            high_watermark: seed.high_watermark,
            durable: end,
            digest: seed.digest,
            segments,
            next_generation: seed.next_generation,
            prepared: None,
            tail,
            epochs: EpochStarts::from_pairs(&seed.epochs),
            durable_producers: seed.producers.clone(),
            producers: seed.producers,
            pending: VecDeque::new(),
            rounded: end,
            in_round: 0,
            end_block_on_disk: !position.is_multiple_of(block as u64),
            owed: Owed::default(),
            history: VecDeque::new(),
            checkpointed: end,
            is_first_segment_new: false,
            doomed: Vec::new(),
            unfolded_round: None,
            facts_in_flight: 0,
            manifest_sequence: seed.manifest_sequence,
            suspicion: seed.suspicion,
            is_busy_cutting: false,
            is_busy: false,
            is_removed: false,
            is_writing: false,
            read_ends: ReadEnds::default(),
        };
        Self {
            partition: seed.partition,
            uid: seed.uid,
            directory: partitions_directory(&shared.root).join(directory_name(seed.partition)),
            shared: Rc::clone(shared),
            state: RefCell::new(state),
            base_digest: Cell::new(seed.base_digest),
            is_queued: Cell::new(false),
            moved: Signal::default(),
        }
    }
}
