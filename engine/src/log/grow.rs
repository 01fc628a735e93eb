//! Making room before an append is accepted (J13): reserves disk space, opens files, loads the last block, prepares
//! the next segment.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use levada_record::Offset;

use crate::digest::Digest;
use crate::disk::{File, OpenMode};
use crate::error::AppendError;
use crate::log::Log;
use crate::segment::Segment;
use crate::segment::index::Index;
use crate::segment::layout::{SegmentName, align_down, growth_end};

/// Part of the file system that appends leave for metadata: 1 %, at most [`METADATA_RESERVE_MAX_BYTES`].
const METADATA_RESERVE_SHARE: u64 = 100;
/// Upper bound of the metadata reserve, in bytes.
const METADATA_RESERVE_MAX_BYTES: u64 = 256 << 20;

impl Log {
    /// Makes room for a batch of `bytes`: after it, [`Log::try_append`] succeeds unless another append was faster.
    ///
    /// # Errors
    /// [`AppendError::DiskFull`] when the file system has no room; it may be tried again later.
    pub async fn grow(self: &Rc<Self>, bytes: u64) -> Result<(), AppendError> {
        self.claim().await;
        let result = match self.check_appendable(bytes) {
            Ok(()) => self.make_room(bytes, Roll::WhenDue).await,
            refused => refused,
        };
        self.release();
        result
    }

    /// Waits until nobody makes room or cuts the log, and keeps others from it until [`Log::release`].
    pub(crate) async fn claim(&self) {
        loop {
            let seen = self.moved.count();
            if !std::mem::replace(&mut self.state.borrow_mut().is_busy, true) {
                return;
            }
            self.moved.after(seen).await;
        }
    }

    /// Ends what [`Log::claim`] began.
    pub(crate) fn release(&self) {
        let mut state = self.state.borrow_mut();
        state.is_busy = false;
        state.is_busy_cutting = false;
        drop(state);
        self.moved.raise();
    }

    /// Seals the active segment now, when it holds anything.
    pub(crate) async fn roll_now(self: &Rc<Self>) -> Result<(), AppendError> {
        self.claim().await;
        let is_empty = self.state.borrow().segments.last().is_none_or(|active| active.length == 0);
        let result = match self.check_appendable(0) {
            Ok(()) if !is_empty => self.make_room(0, Roll::Now).await,
            other => other,
        };
        let has_rolled = !is_empty && result.is_ok() && self.state.borrow_mut().roll(0);
        self.release();
        if has_rolled {
            self.shared.queue(self);
        }
        result
    }

    async fn make_room(self: &Rc<Self>, bytes: u64, roll: Roll) -> Result<(), AppendError> {
        self.open_active().await?;
        let now = self.shared.runtime.now();
        let must_roll = roll == Roll::Now || self.state.borrow().must_roll(bytes, now);
        if must_roll {
            return self.prepare_segment(bytes).await;
        }
        let (file, allocated, needed_end) = {
            let state = self.state.borrow();
            let Some(active) = state.segments.last() else { return Ok(()) };
            (active.file.clone(), active.allocated, active.length + bytes)
        };
        if needed_end <= allocated {
            return Ok(());
        }
        let Some(file) = file else { return Ok(()) };
        let end = self.reserve(file.as_ref(), allocated, needed_end).await?;
        if let Some(active) = self.state.borrow_mut().segments.last_mut() {
            active.allocated = end;
        }
        Ok(())
    }

    /// Opens the active file and loads the log's partial last block.
    async fn open_active(self: &Rc<Self>) -> Result<(), AppendError> {
        let (name, is_open, is_loaded) = {
            let state = self.state.borrow();
            let Some(active) = state.segments.last() else { return Ok(()) };
            (active.name, active.file.is_some(), state.tail.is_loaded())
        };
        if !is_open {
            let file = self.open_segment(name).await.map_err(|e| self.not_read(&e))?;
            if let Some(active) = self.state.borrow_mut().segments.last_mut() {
                active.file = Some(file);
            }
        }
        if is_loaded {
            return Ok(());
        }
        let (file, byte, len) = {
            let state = self.state.borrow();
            let Some(active) = state.segments.last() else { return Ok(()) };
            let block = state.tail.block_bytes();
            let byte = align_down(active.length, block);
            (active.file.clone(), byte, active.length - byte)
        };
        let Some(file) = file else { return Ok(()) };
        let block = self.shared.disk.block_bytes();
        let read = file.read_at(byte, block).await.map_err(|e| self.not_read(&e))?;
        let len = usize::try_from(len).expect("less than a block");
        let Some(bytes_in_block) = read.get(..len) else {
            let cut = io::Error::from(io::ErrorKind::UnexpectedEof);
            return Err(self.not_read(&cut));
        };
        self.state.borrow_mut().tail.load(bytes_in_block);
        Ok(())
    }

    /// Creates the file that the log will go on in, with room for `bytes`.
    async fn prepare_segment(self: &Rc<Self>, bytes: u64) -> Result<(), AppendError> {
        let stale = {
            let mut state = self.state.borrow_mut();
            let base = state.log_end;
            match state.prepared.take() {
                Some(ready) if ready.name.base == base => {
                    if ready.allocated >= bytes {
                        state.prepared = Some(ready);
                        return Ok(());
                    }
                    Some(ready)
                }
                other => other,
            }
        };
        if let Some(stale) = stale {
            self.discard(*stale).await;
        }
        let digest = self.state.borrow().digest;
        let (name, file) = loop {
            let name = {
                let mut state = self.state.borrow_mut();
                let name = SegmentName { base: state.log_end, generation: state.next_generation };
                state.next_generation += 1;
                name
            };
            match self.shared.disk.open(&self.segment_path(name), OpenMode::CreateNew).await {
                Ok(file) => break (name, file),
                // A process that was killed made it just now: nothing speaks of it, the next start removes it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.io_failed(&error, bytes)),
            }
        };
        let locked = file.try_lock();
        let allocated = match self.reserve(file.as_ref(), 0, bytes.max(1)).await {
            Ok(end) => end,
            Err(error) => {
                self.discard(prepared(name, file, 0, digest)).await;
                return Err(error);
            }
        };
        locked.map_err(|e| self.io_failed(&e, bytes))?;
        // The name must be stable before a round speaks of the file.
        self.shared
            .disk
            .sync_directory(&self.directory)
            .await
            .map_err(|e| self.io_failed(&e, bytes))?;
        self.state.borrow_mut().prepared = Some(Box::new(prepared(name, file, allocated, digest)));
        Ok(())
    }

    async fn discard(&self, prepared: Segment) {
        let path = self.segment_path(prepared.name);
        drop(prepared);
        if let Err(error) = self.shared.disk.remove(&path).await {
            // The next start moves it to quarantine: nothing names it.
            tracing::warn!(path = %path.display(), %error, "remove an unused segment file");
        }
    }

    /// Reserves disk space from `allocated` to at least `needed_end`; returns the end reserved.
    async fn reserve(
        &self,
        file: &dyn File,
        allocated: u64,
        needed_end: u64,
    ) -> Result<u64, AppendError> {
        let full = AppendError::DiskFull { bytes: needed_end - allocated };
        let space = self
            .shared
            .disk
            .space(&self.shared.root)
            .await
            .map_err(|e| self.io_failed(&e, needed_end))?;
        let reserve = (space.total_bytes / METADATA_RESERVE_SHARE).min(METADATA_RESERVE_MAX_BYTES);
        let free = space.free_bytes.saturating_sub(reserve);
        let block = self.shared.disk.block_bytes() as u64;
        let limit = self.state.borrow().config.segment_bytes;
        let wished = growth_end(allocated, needed_end, limit, free, block);
        let least = needed_end.next_multiple_of(block);
        for end in [wished, least] {
            if end - allocated > free {
                continue;
            }
            match file.allocate(allocated, end).await {
                Ok(()) => return Ok(end),
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                Err(error) => return Err(self.io_failed(&error, needed_end)),
            }
        }
        self.shared.note_disk_full();
        Err(full)
    }

    /// Opens and locks one of the log's files.
    pub(crate) async fn open_segment(&self, name: SegmentName) -> io::Result<Rc<dyn File>> {
        let file = self.shared.disk.open(&self.segment_path(name), OpenMode::Existing).await?;
        match file.try_lock() {
            // Another descriptor of this very process may hold it, for reading.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(file),
        }
    }

    pub(crate) fn segment_path(&self, name: SegmentName) -> PathBuf {
        self.directory.join(name.file_name())
    }

    /// What cannot be read now may be read later; nothing that was promised is in doubt.
    fn not_read(&self, error: &io::Error) -> AppendError {
        let reason = format!("open the last block in {}: {error}", self.directory.display());
        tracing::warn!(reason, "an append is refused");
        AppendError::Unreadable(reason)
    }

    /// A full disk is the user's to solve; anything else fails the log directory (J33).
    fn io_failed(&self, error: &io::Error, bytes: u64) -> AppendError {
        if error.kind() == io::ErrorKind::StorageFull {
            self.shared.note_disk_full();
            return AppendError::DiskFull { bytes };
        }
        let reason = format!("make room in {}: {error}", self.directory.display());
        self.shared.fail(&reason);
        AppendError::Failed(reason)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Roll {
    WhenDue,
    Now,
}

fn prepared(name: SegmentName, file: Rc<dyn File>, allocated: u64, digest: Digest) -> Segment {
    let end: Offset = name.base;
    Segment {
        name,
        is_born: false,
        start: 0,
        length: 0,
        end,
        digest,
        max_timestamp: -1,
        since_ms: 0,
        allocated,
        index: Index::default(),
        is_index_stored: false,
        file: Some(file),
        needs_sync: false,
    }
}
