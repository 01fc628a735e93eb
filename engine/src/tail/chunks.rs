//! The chunks of a tail, ascending. The last one, which is appended to, stands in the log itself: with many logs on a
//! shard every pointer that an append has to follow is a wait for memory.

use std::collections::VecDeque;

use crate::disk::Buffer;

pub(super) struct Chunk {
    pub(super) start: u64,
    pub(super) buffer: Buffer,
}

impl Chunk {
    pub(super) fn end(&self) -> u64 {
        self.start + self.buffer.len() as u64
    }
}

/// A queue of chunks; `older` is empty when there is no `last`.
#[derive(Default)]
pub(super) struct Chunks {
    last: Option<Chunk>,
    older: VecDeque<Chunk>,
}

impl Chunks {
    pub(super) fn front(&self) -> Option<&Chunk> {
        self.older.front().or(self.last.as_ref())
    }

    pub(super) fn last(&self) -> Option<&Chunk> {
        self.last.as_ref()
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut Chunk> {
        self.last.as_mut()
    }

    pub(super) fn push(&mut self, chunk: Chunk) {
        self.older.extend(self.last.replace(chunk));
    }

    pub(super) fn pop(&mut self) -> Option<Chunk> {
        std::mem::replace(&mut self.last, self.older.pop_back())
    }

    pub(super) fn pop_front(&mut self) -> Option<Chunk> {
        self.older.pop_front().or_else(|| self.last.take())
    }

    pub(super) fn clear(&mut self) {
        self.older.clear();
        self.last = None;
    }

    pub(super) fn is_one(&self) -> bool {
        self.older.is_empty()
    }

    /// The chunk that holds `position`.
    pub(super) fn at(&self, position: u64) -> Option<&Chunk> {
        let last = self.last.as_ref()?;
        if last.start <= position {
            return (position < last.end()).then_some(last);
        }
        let after = self.older.partition_point(|chunk| chunk.start <= position);
        self.older.get(after.checked_sub(1)?).filter(|chunk| position < chunk.end())
    }

    /// Capacity of all, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.older.iter().chain(&self.last).map(|chunk| chunk.buffer.capacity()).sum()
    }
}
