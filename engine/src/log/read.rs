//! Reading: from memory what is there, else from the segment, verified (J34).

use std::io;
use std::rc::Rc;

use levada_record::checksum::batch_checksum;
use levada_record::{BatchHeader, HEADER_BYTES, Offset};

use crate::digest::Digest;
use crate::disk::{File, Slice};
use crate::error::ReadError;
use crate::log::{Log, State};
use crate::segment::index::IndexEntry;
use crate::segment::layout::{SegmentName, align_down, align_up};

/// Least bytes of one read from the disk.
const READ_MIN_BYTES: usize = 256 << 10;
/// Bytes of one step when a segment is walked from front to back.
const WALK_BYTES: usize = 1 << 20;

/// Whole batches, as stored.
#[derive(Debug, Clone, Default)]
pub struct ReadOutcome {
    /// The bytes, in order; batches may cross from one slice to the next.
    pub slices: Vec<Slice>,
    /// Length of all slices.
    pub bytes: usize,
    /// Offset behind the last batch; the offset asked for when there is none.
    pub next: Offset,
}

/// A batch boundary in a segment, known well enough to walk on from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WalkPoint {
    pub(crate) byte: u64,
    pub(crate) offset: Offset,
    pub(crate) digest: Digest,
    pub(crate) max_timestamp: i64,
}

impl From<IndexEntry> for WalkPoint {
    fn from(entry: IndexEntry) -> Self {
        Self {
            byte: entry.byte,
            offset: entry.offset,
            digest: entry.digest,
            max_timestamp: entry.max_timestamp_before,
        }
    }
}

/// What a read is for.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    from: Offset,
    end: Offset,
    max_bytes: usize,
    at_least_one: bool,
}

/// What was found in bytes that a read fetched.
struct Scanned {
    /// Where the batches to give lie in them.
    taken: Option<(usize, usize)>,
    /// Offset behind those.
    next: Offset,
    /// The boundary up to which whole batches were met.
    at: WalkPoint,
    /// The first batch wanted, or one before it, is cut off: so many bytes it has, as far as that is known.
    missing: Option<usize>,
    /// Whether the first batch wanted was met.
    has_reached: bool,
}

/// A batch met on a walk.
pub(crate) struct Met<'a> {
    pub(crate) header: BatchHeader,
    pub(crate) bytes: &'a [u8],
    /// The boundary before it.
    pub(crate) at: WalkPoint,
}

impl Log {
    /// Whole batches from the one that holds `from` on, all below `end`, at most `max_bytes` of them; the first one
    /// even if it is larger, when `at_least_one`. Stops at the end of a segment, and where memory begins.
    ///
    /// # Errors
    /// [`ReadError`]
    pub async fn read(
        self: &Rc<Self>,
        from: Offset,
        end: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReadOutcome, ReadError> {
        loop {
            let (name, start) = {
                let state = self.state.borrow();
                let limit = check_range(&state, from)?;
                let end = end.min(limit);
                if from >= end {
                    return Ok(ReadOutcome { next: from, ..ReadOutcome::default() });
                }
                let Some(segment) = state.segments.iter().rev().find(|s| s.name.base <= from)
                else {
                    return Err(out_of_range(&state, from));
                };
                match segment.index.floor(from) {
                    None => (segment.name, None),
                    Some(entry) => {
                        if state.tail.start() <= segment.start + entry.byte {
                            return Ok(read_memory(
                                &state,
                                segment.start,
                                entry,
                                from,
                                end,
                                max_bytes,
                                at_least_one,
                            ));
                        }
                        (segment.name, Some(entry))
                    }
                }
            };
            let Some(entry) = start else {
                self.load_index(name).await?;
                continue;
            };
            let wanted = Wanted { from, end, max_bytes, at_least_one };
            if let Some(outcome) = self.read_disk(name, entry, wanted).await? {
                return Ok(outcome);
            }
        }
    }

    /// Reads from the segment's file; `None` when the log was cut meanwhile and the range must be looked at anew.
    async fn read_disk(
        self: &Rc<Self>,
        name: SegmentName,
        entry: IndexEntry,
        wanted: Wanted,
    ) -> Result<Option<ReadOutcome>, ReadError> {
        let usual = (wanted.max_bytes + READ_MIN_BYTES / 4).max(READ_MIN_BYTES);
        let mut window = usual;
        let mut at = WalkPoint::from(entry);
        let mut ahead = self.read_ahead(name, at.byte, window).await;
        loop {
            let is_ahead = ahead.is_some();
            let bytes = match ahead.take() {
                Some(bytes) => bytes,
                None => self.fetch(name, at.byte, window).await?,
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let seen = self.scan(name, at, &bytes, wanted)?;
            if let Some((start, end)) = seen.taken {
                self.look_ahead(name, (wanted.from, seen.next), usual);
                let slice = bytes.slice(start, end);
                let bytes = slice.len();
                return Ok(Some(ReadOutcome { bytes, slices: vec![slice], next: seen.next }));
            }
            match seen.missing {
                // What was read ahead ended where memory began then; that may be further now.
                Some(_) if is_ahead => {}
                Some(_) if bytes.len() < window => {
                    return Err(self.damaged(name, seen.at.byte, "a batch is cut off"));
                }
                // The batch asked for does not lie wholly in the window.
                Some(total) => window = window.max(total),
                // The window ended with the last batch below it.
                None if !seen.has_reached
                    && seen.at.offset < wanted.end
                    && seen.at.byte > at.byte => {}
                None => {
                    return Ok(Some(ReadOutcome { next: wanted.from, ..ReadOutcome::default() }));
                }
            }
            at = seen.at;
        }
    }

    /// Finds the batches that are wanted in `bytes`, read at `at`; every batch on the way is checked.
    fn scan(
        &self,
        name: SegmentName,
        mut at: WalkPoint,
        bytes: &[u8],
        wanted: Wanted,
    ) -> Result<Scanned, ReadError> {
        let (mut used, mut start, mut taken) = (0, None, 0);
        let mut next = wanted.from;
        let mut missing = None;
        while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
            let (header, batch) = match self.split(name, at, rest)? {
                Split::Batch(header, batch) => (header, batch),
                Split::Partial(total) => {
                    missing = Some(total);
                    break;
                }
            };
            let behind = header.end_offset();
            if behind > wanted.end {
                break;
            }
            if behind > wanted.from {
                let first = *start.get_or_insert(used);
                let is_too_much = used + batch.len() - first > wanted.max_bytes;
                if is_too_much && !(taken == 0 && wanted.at_least_one) {
                    break;
                }
                taken = used + batch.len();
                next = behind;
            }
            at = self.step(name, at, &header, batch)?;
            used += batch.len();
        }
        let has_reached = start.is_some();
        let taken = start.filter(|start| taken > *start).map(|start| (start, taken));
        Ok(Scanned { taken, next, at, missing: missing.filter(|_| !has_reached), has_reached })
    }

    /// Cuts the first batch from bytes read at `at`, checksum and offset checked.
    fn split<'a>(
        &self,
        name: SegmentName,
        at: WalkPoint,
        rest: &'a [u8],
    ) -> Result<Split<'a>, ReadError> {
        if rest.len() < HEADER_BYTES {
            return Ok(Split::Partial(HEADER_BYTES));
        }
        let header = BatchHeader::parse(rest)
            .map_err(|error| self.damaged(name, at.byte, &error.to_string()))?;
        if header.base_offset != at.offset {
            let reason = format!("batch {} where {} belongs", header.base_offset, at.offset);
            return Err(self.damaged(name, at.byte, &reason));
        }
        let Some(batch) = rest.get(..header.total_bytes()) else {
            return Ok(Split::Partial(header.total_bytes()));
        };
        let got = batch_checksum(batch);
        if got != header.checksum {
            let reason = format!("checksum {got:#010x}, header says {:#010x}", header.checksum);
            return Err(self.damaged(name, at.byte, &reason));
        }
        Ok(Split::Batch(header, batch))
    }

    /// The boundary behind a batch; checked against the index where it has an entry.
    fn step(
        &self,
        name: SegmentName,
        at: WalkPoint,
        header: &BatchHeader,
        batch: &[u8],
    ) -> Result<WalkPoint, ReadError> {
        let next = WalkPoint {
            byte: at.byte + batch.len() as u64,
            offset: header.end_offset(),
            digest: at.digest.after(self.uid, batch),
            max_timestamp: at.max_timestamp.max(header.max_timestamp.as_ms()),
        };
        let state = self.state.borrow();
        let known = state
            .segments
            .iter()
            .find(|segment| segment.name == name)
            .and_then(|segment| segment.index.floor(next.offset))
            .filter(|entry| entry.offset == next.offset);
        if known.is_some_and(|entry| entry.byte != next.byte || entry.digest != next.digest) {
            let reason = format!("digest differs at offset {}", next.offset);
            return Err(self.damaged(name, next.byte, &reason));
        }
        Ok(next)
    }

    /// Up to `len` contiguous bytes of a segment from `byte` on; fewer at its end and where memory begins.
    pub(crate) async fn fetch(
        self: &Rc<Self>,
        name: SegmentName,
        byte: u64,
        len: usize,
    ) -> Result<Slice, ReadError> {
        loop {
            // Bytes of the segment that are read from the disk end at `disk_end`, where memory begins.
            let (segment_start, end, disk_end, block) = {
                let state = self.state.borrow();
                let Some(segment) = state.segments.iter().find(|segment| segment.name == name)
                else {
                    return Err(out_of_range(&state, name.base));
                };
                let position = segment.start + byte;
                let end = segment.position_end().min(position.saturating_add(len as u64));
                if position >= end {
                    return Ok(Slice::from(Vec::new()));
                }
                if let Some(bytes) = state.tail.copy(position, end) {
                    return Ok(Slice::from(bytes));
                }
                let memory = state.tail.start().max(position);
                (segment.start, end, end.min(memory), state.tail.block_bytes())
            };
            let file = match self.file_of(name).await {
                Ok(Some(file)) => file,
                Ok(None) => return Err(self.damaged(name, byte, "the segment is gone")),
                Err(error) => return Err(self.io_error(name, &error)),
            };
            let low = align_down(byte, block);
            let high = align_up(disk_end - segment_start, block);
            let aligned = usize::try_from(high - low).expect("a read is small");
            let read =
                file.read_at(low, aligned).await.map_err(|error| self.io_error(name, &error))?;
            let skip = usize::try_from(byte - low).expect("less than a block");
            let have = usize::try_from(disk_end - segment_start - low).expect("a read is small");
            if read.len() < have {
                return Err(self.damaged(name, byte, "the file ends here"));
            }
            if disk_end == end {
                return Ok(read.slice(skip, have));
            }
            // Memory may have been given back while we read; then all of it is on the disk now.
            let memory = self.state.borrow().tail.copy(disk_end, end);
            if let Some(memory) = memory {
                let mut bytes = read.slice(skip, have).to_vec();
                bytes.extend_from_slice(&memory);
                return Ok(Slice::from(bytes));
            }
        }
    }

    /// Walks whole batches of a segment from `at` on until `each` says stop, or the segment ends.
    pub(crate) async fn walk(
        self: &Rc<Self>,
        name: SegmentName,
        mut at: WalkPoint,
        mut each: impl FnMut(Met<'_>) -> Walk,
    ) -> Result<WalkPoint, ReadError> {
        let mut window = WALK_BYTES;
        loop {
            let bytes = self.fetch(name, at.byte, window).await?;
            if bytes.is_empty() {
                return Ok(at);
            }
            let mut used = 0;
            let mut needed = 0;
            while let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                let (header, batch) = match self.split(name, at, rest)? {
                    Split::Batch(header, batch) => (header, batch),
                    Split::Partial(total) => {
                        needed = total;
                        break;
                    }
                };
                if each(Met { header, bytes: batch, at }) == Walk::Stop {
                    return Ok(at);
                }
                at = self.step(name, at, &header, batch)?;
                used += batch.len();
            }
            self.shared.runtime.yield_if_needed().await;
            if needed > 0 && bytes.len() < window {
                return Err(self.damaged(name, at.byte, "a batch is cut off"));
            }
            window = window.max(needed);
        }
    }

    /// An open descriptor of one of the log's segments; `None` when it is no longer in the log.
    pub(crate) async fn file_of(&self, name: SegmentName) -> io::Result<Option<Rc<dyn File>>> {
        {
            let state = self.state.borrow();
            let Some(segment) = state.segments.iter().find(|s| s.name == name) else {
                return Ok(None);
            };
            if let Some(file) = &segment.file {
                return Ok(Some(Rc::clone(file)));
            }
        }
        let file = self.open_segment(name).await?;
        let mut state = self.state.borrow_mut();
        let Some(segment) = state.segments.iter_mut().find(|s| s.name == name) else {
            return Ok(None);
        };
        Ok(Some(Rc::clone(segment.file.get_or_insert(file))))
    }

    pub(crate) fn damaged(&self, name: SegmentName, byte: u64, reason: &str) -> ReadError {
        let path = self.segment_path(name);
        tracing::error!(path = %path.display(), byte, reason, "a segment is damaged");
        ReadError::Damaged { path, byte, reason: reason.to_owned() }
    }

    fn io_error(&self, name: SegmentName, error: &io::Error) -> ReadError {
        ReadError::Io { path: self.segment_path(name), reason: error.to_string() }
    }
}

enum Split<'a> {
    Batch(BatchHeader, &'a [u8]),
    /// More bytes are needed: so many in all.
    Partial(usize),
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Walk {
    On,
    Stop,
}

/// The exclusive end of what may be read, when `asked` may be.
fn check_range(state: &State, asked: Offset) -> Result<Offset, ReadError> {
    if state.is_removed {
        return Err(ReadError::Removed);
    }
    let end = state.suspicion.as_ref().map_or(state.log_end, |s| s.from.min(state.log_end));
    if asked < state.log_start || asked > end {
        return Err(out_of_range(state, asked));
    }
    Ok(end)
}

pub(crate) fn out_of_range(state: &State, asked: Offset) -> ReadError {
    ReadError::OutOfRange { asked, start: state.log_start, end: state.log_end }
}

/// The hot path: headers are stepped over in memory, the bytes are shared.
fn read_memory(
    state: &State,
    segment_start: u64,
    entry: IndexEntry,
    from: Offset,
    end: Offset,
    max_bytes: usize,
    at_least_one: bool,
) -> ReadOutcome {
    let mut at = segment_start + entry.byte;
    let limit = state
        .segment_index_at(segment_start)
        .and_then(|index| state.segments.get(index))
        .map_or(at, crate::segment::Segment::position_end);
    let mut first = None;
    let mut taken_end = at;
    let mut next = from;
    let mut head = [0; HEADER_BYTES];
    while at < limit && state.tail.read_exact(at, &mut head) {
        let Ok(header) = BatchHeader::parse(&head) else {
            // What is in memory was verified when it came; this would be our own bug.
            panic!("no batch at {at} in the tail")
        };
        let behind = header.end_offset();
        let batch_end = at + header.total_bytes() as u64;
        if behind > end {
            break;
        }
        if behind > from {
            let start = *first.get_or_insert(at);
            let is_first = taken_end <= start;
            if batch_end - start > max_bytes as u64 && !(is_first && at_least_one) {
                break;
            }
            taken_end = batch_end;
            next = behind;
        }
        at = batch_end;
    }
    let empty = ReadOutcome { next: from, ..ReadOutcome::default() };
    let Some(start) = first.filter(|start| *start < taken_end) else { return empty };
    let Some(slices) = state.tail.slices(start, taken_end) else { return empty };
    let bytes = slices.iter().map(|slice| slice.len()).sum();
    ReadOutcome { slices, bytes, next }
}
