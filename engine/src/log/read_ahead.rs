//! Reading ahead (J34): a log that is read on from where a read ended has its next bytes on their way from the disk
//! while the reader is still busy with the ones before.
//!
//! Bytes of a segment below the tail's first position are never written again, except behind a truncation, which
//! forgets what was read ahead of its log.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use levada_record::{Offset, PartitionUid};

use crate::disk::Slice;
use crate::log::Log;
use crate::segment::layout::SegmentName;
use crate::signal::Signal;

/// Share of `cache_bytes` that reading ahead may take, as a divisor.
const CACHE_SHARE: usize = 2;
/// What nobody came for within this time may be given up for others, in nanoseconds.
const STALE_NS: u64 = 2_000_000_000;
/// Readers of one log that are told apart.
const READERS: usize = 4;

/// Where the last few reads of a log from the disk ended: whoever goes on from there is reading in order.
#[derive(Debug)]
pub(crate) struct ReadEnds {
    ends: [Offset; READERS],
    next: usize,
}

impl Default for ReadEnds {
    fn default() -> Self {
        // No read begins below the first offset.
        Self { ends: [Offset(-1); READERS], next: 0 }
    }
}

impl ReadEnds {
    /// A read went from `from` up to `end`. Whether another had ended at `from`.
    fn note(&mut self, from: Offset, end: Offset) -> bool {
        if let Some(known) = self.ends.iter_mut().find(|known| **known == from) {
            *known = end;
            return true;
        }
        if let Some(oldest) = self.ends.get_mut(self.next) {
            *oldest = end;
        }
        self.next = (self.next + 1) % READERS;
        false
    }
}

/// Which bytes: of a log's segment, from a byte on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    uid: PartitionUid,
    segment: SegmentName,
    byte: u64,
}

/// Bytes that are on their way, or there.
#[derive(Default)]
struct Window {
    bytes: RefCell<Option<Slice>>,
    is_over: Cell<bool>,
    over: Signal,
}

/// Says that a window is over however the read ends, a cancelled task included.
struct Filling(Rc<Window>);

impl Drop for Filling {
    fn drop(&mut self) {
        self.0.is_over.set(true);
        self.0.over.raise();
    }
}

struct Entry {
    place: Place,
    len: usize,
    begun_ns: u64,
    is_used: bool,
    window: Rc<Window>,
}

impl Entry {
    fn is_stale(&self, now_ns: u64) -> bool {
        now_ns >= self.begun_ns.saturating_add(STALE_NS)
    }
}

/// What the shard has read ahead, oldest first.
#[derive(Default)]
pub(crate) struct ReadAhead {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl ReadAhead {
    /// Bytes of memory held or on their way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The window that begins at `place`, if it has at least `len` bytes.
    fn find(&mut self, place: Place, len: usize) -> Option<Rc<Window>> {
        let suits = |entry: &&mut Entry| entry.place == place && entry.len >= len;
        let entry = self.entries.iter_mut().find(suits)?;
        entry.is_used = true;
        Some(Rc::clone(&entry.window))
    }

    /// Makes room for a window in `budget` bytes, giving up what was used already or is stale. `None` when there is
    /// none, or the window is there already.
    fn begin(&mut self, place: Place, len: usize, budget: usize, now_ns: u64) -> Option<Filling> {
        if self.entries.iter().any(|entry| entry.place == place && entry.len >= len) {
            return None;
        }
        while self.bytes + len > budget {
            let is_idle = |entry: &Entry| entry.is_used || entry.is_stale(now_ns);
            let idle = self.entries.iter().position(is_idle)?;
            self.remove(idle);
        }
        let window = Rc::new(Window::default());
        let filling = Filling(Rc::clone(&window));
        self.entries.push_back(Entry { place, len, begun_ns: now_ns, is_used: false, window });
        self.bytes += len;
        Some(filling)
    }

    /// Gives up what has been there for long: whoever wanted it has it, or went away.
    pub(crate) fn expire(&mut self, now_ns: u64) {
        while self.entries.front().is_some_and(|oldest| oldest.is_stale(now_ns)) {
            self.remove(0);
        }
    }

    /// Gives up everything of one log.
    pub(crate) fn forget(&mut self, uid: PartitionUid) {
        while let Some(index) = self.entries.iter().position(|entry| entry.place.uid == uid) {
            self.remove(index);
        }
    }

    fn remove(&mut self, index: usize) {
        if let Some(entry) = self.entries.remove(index) {
            self.bytes -= entry.len;
        }
    }
}

impl Log {
    /// What was read ahead from `byte` on, if it was meant for a read of `len` bytes; waits until it is there.
    pub(super) async fn read_ahead(
        &self,
        segment: SegmentName,
        byte: u64,
        len: usize,
    ) -> Option<Slice> {
        let place = Place { uid: self.uid, segment, byte };
        let window = self.shared.read_ahead.borrow_mut().find(place, len)?;
        while !window.is_over.get() {
            window.over.after(0).await;
        }
        let bytes = window.bytes.borrow().clone();
        let bytes = bytes.filter(|bytes| !bytes.is_empty())?;
        let mut stats = self.shared.stats.get();
        stats.read_ahead_used_bytes += bytes.len() as u64;
        self.shared.stats.set(stats);
        Some(bytes)
    }

    /// After a read of `from..next` with a window of `len` bytes: reads the next one ahead when the log is read in
    /// order, and it lies in the same segment and not in memory.
    pub(super) fn look_ahead(
        self: &Rc<Self>,
        segment: SegmentName,
        (from, next): (Offset, Offset),
        len: usize,
    ) {
        let byte = {
            let mut state = self.state.borrow_mut();
            if !state.read_ends.note(from, next) {
                return;
            }
            let Some(known) = state.segments.iter().find(|known| known.name == segment) else {
                return;
            };
            let Some(entry) = known.index.floor(next).filter(|_| next < known.end) else { return };
            if state.tail.start() <= known.start + entry.byte {
                return;
            }
            entry.byte
        };
        let shared = &self.shared;
        let budget = shared.config.cache_bytes / CACHE_SHARE;
        let place = Place { uid: self.uid, segment, byte };
        let now_ns = shared.runtime.now().monotonic_ns;
        let begun = shared.read_ahead.borrow_mut().begin(place, len, budget, now_ns);
        let Some(filling) = begun else { return };
        let log = Rc::clone(self);
        let fill = async move {
            // Whoever needs the bytes reads them again after an error, and is told of it.
            *filling.0.bytes.borrow_mut() = log.fetch(segment, byte, len).await.ok();
        };
        shared.runtime.spawn("read-ahead", Box::pin(fill));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uid: u64, byte: u64) -> Place {
        let segment = SegmentName { base: Offset(0), generation: 1 };
        Place { uid: PartitionUid(uid), segment, byte }
    }

    #[test]
    fn reading_in_order_is_told_from_reading_about() {
        let mut ends = ReadEnds::default();
        assert!(!ends.note(Offset(0), Offset(10)));
        assert!(ends.note(Offset(10), Offset(20)));
        for other in 1..READERS {
            let at = i64::try_from(other).unwrap() * 1000;
            assert!(!ends.note(Offset(at), Offset(at + 1)));
        }
        assert!(ends.note(Offset(20), Offset(30)), "others read elsewhere");
        assert!(!ends.note(Offset(10), Offset(20)));
    }

    #[test]
    fn a_window_that_is_too_short_does_not_hide_one_that_suits() {
        let mut ahead = ReadAhead::default();
        assert!(ahead.begin(place(1, 0), 10, 100, 0).is_some());
        assert!(ahead.begin(place(1, 0), 60, 100, 0).is_some());
        assert!(ahead.find(place(1, 0), 60).is_some());
    }

    #[test]
    fn room_is_taken_from_what_was_used_or_is_stale_and_else_refused() {
        let mut ahead = ReadAhead::default();
        assert!(ahead.begin(place(1, 0), 60, 100, 0).is_some());
        assert!(ahead.begin(place(1, 0), 60, 100, 0).is_none(), "it is on its way");
        assert!(ahead.begin(place(2, 0), 60, 100, 0).is_none(), "fresh windows stay");
        assert!(ahead.find(place(1, 0), 61).is_none(), "shorter than wanted");
        assert!(ahead.find(place(1, 0), 60).is_some());
        assert!(ahead.begin(place(2, 0), 60, 100, 0).is_some(), "a used one goes");
        assert_eq!(ahead.bytes(), 60);
        assert!(ahead.begin(place(3, 0), 60, 100, STALE_NS - 1).is_none());
        assert!(ahead.begin(place(3, 0), 60, 100, STALE_NS).is_some(), "a stale one goes");
        ahead.forget(place(3, 0).uid);
        assert_eq!(ahead.bytes(), 0);
        assert!(ahead.begin(place(1, 0), 60, 100, 0).is_some());
        ahead.expire(STALE_NS - 1);
        assert_eq!(ahead.bytes(), 60);
        ahead.expire(STALE_NS);
        assert_eq!(ahead.bytes(), 0);
        assert!(ahead.begin(place(1, 0), 101, 100, 0).is_none(), "larger than all room");
    }
}
