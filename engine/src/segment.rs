//! One segment of a log as the log sees it: where it lies, how long it is, what is known of it.

pub mod index;
pub mod layout;

use std::rc::Rc;

use levada_record::Offset;

use crate::digest::Digest;
use crate::disk::File;
use crate::manifest::SealedSegment;
use crate::segment::index::Index;
use crate::segment::layout::SegmentName;

/// A file of consecutive batches. The last one of a log is active, the others are sealed.
pub(crate) struct Segment {
    /// Which file.
    pub(crate) name: SegmentName,
    /// Whether the round that began it is durable; only then a manifest may name it.
    pub(crate) is_born: bool,
    /// Log position of its first byte, a block boundary.
    pub(crate) start: u64,
    /// Bytes of batches in it, those still in memory included.
    pub(crate) length: u64,
    /// Exclusive end of its offsets.
    pub(crate) end: Offset,
    /// The log's digest at its end.
    pub(crate) digest: Digest,
    /// Newest record timestamp in it; -1 when none.
    pub(crate) max_timestamp: i64,
    /// Wall time of its first append, in milliseconds; 0 before it.
    pub(crate) since_ms: i64,
    /// Bytes reserved on the disk.
    pub(crate) allocated: u64,
    /// Where batches begin, sparsely.
    pub(crate) index: Index,
    /// Whether the index file was written.
    pub(crate) is_index_stored: bool,
    /// Open descriptor, when there is one.
    pub(crate) file: Option<Rc<dyn File>>,
    /// Whether blocks were written since the last sync.
    pub(crate) needs_sync: bool,
}

impl Segment {
    pub(crate) fn from_sealed(sealed: &SealedSegment, start: u64) -> Self {
        Self {
            name: sealed.name,
            is_born: true,
            start,
            length: sealed.length_bytes,
            end: sealed.end,
            digest: sealed.digest,
            max_timestamp: sealed.max_timestamp,
            since_ms: 0,
            allocated: sealed.length_bytes,
            index: Index::default(),
            is_index_stored: false,
            file: None,
            needs_sync: false,
        }
    }

    /// Log position behind its last byte.
    pub(crate) fn position_end(&self) -> u64 {
        self.start + self.length
    }

    pub(crate) fn as_sealed(&self) -> SealedSegment {
        SealedSegment {
            name: self.name,
            length_bytes: self.length,
            end: self.end,
            digest: self.digest,
            max_timestamp: self.max_timestamp,
        }
    }

    /// Log position where the segment behind this one begins: a block further than need be, so that runs of bytes
    /// never join across segments.
    pub(crate) fn next_start(&self, block: u64) -> u64 {
        self.position_end().next_multiple_of(block) + block
    }
}
