//! The shard's journal: a ring of files that rounds are written into, one after the other (J15, J16).

pub mod layout;
pub mod replay;

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::disk::{Buffer, Disk, File, OpenMode};

/// Most files of a ring.
pub const JOURNAL_FILES_MAX: usize = 16;
/// Length of a journal file on a large file system, in bytes.
pub const JOURNAL_FILE_BYTES: u64 = 16 << 20;
/// Length of a journal file on the smallest file system, in bytes.
pub const JOURNAL_FILE_BYTES_MIN: u64 = 1 << 20;
/// A round takes at most this part of a journal file: a quarter (J5).
pub const ROUND_SHARE: u64 = 4;
/// Zeros written at a time when a file is made, in bytes.
const ZERO_PIECE_BYTES: u64 = 1 << 20;

/// A journal file's two descriptors.
#[derive(Clone)]
pub(crate) struct Descriptors {
    /// For writes that a sync follows; holds the lock.
    pub(crate) plain: Rc<dyn File>,
    /// For writes that are stable when they have completed.
    pub(crate) stable: Rc<dyn File>,
}

impl Descriptors {
    async fn open(disk: &dyn Disk, path: &Path) -> io::Result<Self> {
        Self::beside(disk, path, disk.open(path, OpenMode::Existing).await?).await
    }

    async fn beside(disk: &dyn Disk, path: &Path, plain: Rc<dyn File>) -> io::Result<Self> {
        plain.try_lock()?;
        Ok(Self { plain, stable: disk.open(path, OpenMode::Stable).await? })
    }
}

struct JournalFile {
    path: PathBuf,
    file: Descriptors,
    length_bytes: u64,
    /// Highest round in it; 0 when there is none of this start.
    last_round: u64,
}

/// The ring. Files are used front to back; a file goes back to the free ones when the checkpoint needs none of its
/// rounds.
pub(crate) struct Journal {
    directory: PathBuf,
    file_bytes: u64,
    used: VecDeque<JournalFile>,
    free: Vec<JournalFile>,
    /// Next byte in the last used file.
    position: u64,
    next_number: u64,
}

/// Length of journal files on a file system of `total_bytes`: 1/64 of it, within the bounds, whole MiB.
pub fn journal_file_bytes(total_bytes: u64, wished: u64) -> u64 {
    let share = (total_bytes / 64) >> 20 << 20;
    wished.min(share).max(JOURNAL_FILE_BYTES_MIN)
}

/// The number in the name of a journal file; `None` when it is none.
pub fn journal_number(file_name: &str) -> Option<u64> {
    file_name.strip_prefix("journal-")?.strip_suffix(".ring")?.parse().ok()
}

impl Journal {
    /// Opens the ring in `directory`, whose old content is void; makes files until there are two.
    pub(crate) async fn open(
        disk: &dyn Disk,
        directory: &Path,
        file_bytes: u64,
    ) -> io::Result<Self> {
        let mut journal = Self {
            directory: directory.to_path_buf(),
            file_bytes,
            used: VecDeque::new(),
            free: Vec::new(),
            position: 0,
            next_number: 0,
        };
        for entry in disk.list(directory).await? {
            let Some(number) = journal_number(&entry.name) else { continue };
            journal.next_number = journal.next_number.max(number + 1);
            let path = directory.join(&entry.name);
            if entry.length_bytes != file_bytes || journal.free.len() >= JOURNAL_FILES_MAX {
                disk.remove(&path).await?;
                continue;
            }
            let file = Descriptors::open(disk, &path).await?;
            journal.free.push(JournalFile { path, file, length_bytes: file_bytes, last_round: 0 });
        }
        while journal.free.len() < 2 {
            journal.add_file(disk).await?;
        }
        Ok(journal)
    }

    /// Largest round, in bytes.
    pub(crate) fn round_bytes_max(&self) -> u64 {
        self.file_bytes / ROUND_SHARE
    }

    /// Files of the ring.
    pub(crate) fn file_count(&self) -> usize {
        self.used.len() + self.free.len()
    }

    /// Files that may be entered at once.
    pub(crate) fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Files that hold rounds.
    pub(crate) fn used_count(&self) -> usize {
        self.used.len()
    }

    /// The last round in the older half of the used files: what a checkpoint should free.
    pub(crate) fn half_round(&self) -> u64 {
        let middle = self.used.len().saturating_sub(1) / 2;
        self.used.get(middle).map_or(0, |file| file.last_round)
    }

    /// Bytes of rounds in used files, and bytes of all files.
    pub(crate) fn fill(&self) -> (u64, u64) {
        let behind = self.used.len().saturating_sub(1) as u64 * self.file_bytes;
        (behind + self.position, self.file_count() as u64 * self.file_bytes)
    }

    /// The place for a round of `length` bytes; `None` when every file is still needed.
    pub(crate) fn place(&mut self, length: u64, round: u64) -> Option<(Descriptors, u64)> {
        assert!(length <= self.round_bytes_max(), "round of {length} B");
        let fits =
            self.used.back().is_some_and(|current| self.position + length <= current.length_bytes);
        if !fits {
            let next = self.free.pop()?;
            self.used.push_back(next);
            self.position = 0;
        }
        let current = self.used.back_mut()?;
        current.last_round = round;
        let at = self.position;
        self.position += length;
        Some((current.file.clone(), at))
    }

    /// Whether a round of `length` bytes has a place.
    pub(crate) fn has_room(&self, length: u64) -> bool {
        let in_current =
            self.used.back().is_some_and(|current| self.position + length <= current.length_bytes);
        in_current || !self.free.is_empty()
    }

    /// Gives back the files whose rounds all lie below `first_needed`. Whether any did.
    pub(crate) fn release(&mut self, first_needed: u64) -> bool {
        let mut released = false;
        while self.used.len() > 1
            && self.used.front().is_some_and(|oldest| oldest.last_round < first_needed)
        {
            if let Some(file) = self.used.pop_front() {
                self.free.push(JournalFile { last_round: 0, ..file });
                released = true;
            }
        }
        released
    }

    /// What [`Journal::make_file`] needs, and the number is taken.
    pub(crate) fn next_file(&mut self) -> (PathBuf, u64) {
        let path = self.directory.join(format!("journal-{}.ring", self.next_number));
        self.next_number += 1;
        (path, self.file_bytes)
    }

    /// Adds a file made by [`Journal::make_file`].
    pub(crate) fn adopt(&mut self, path: PathBuf, file: Descriptors) {
        let length_bytes = self.file_bytes;
        self.free.push(JournalFile { path, file, length_bytes, last_round: 0 });
    }

    async fn add_file(&mut self, disk: &dyn Disk) -> io::Result<()> {
        let (path, bytes) = self.next_file();
        let file = Self::make_file(disk, &path, bytes).await?;
        self.adopt(path, file);
        Ok(())
    }

    /// Creates a file of zeros, stable with its name: writing into it later needs no metadata.
    pub(crate) async fn make_file(
        disk: &dyn Disk,
        path: &Path,
        bytes: u64,
    ) -> io::Result<Descriptors> {
        let file = disk.open(path, OpenMode::CreateNew).await?;
        let made = Self::zero_file(file.as_ref(), bytes).await;
        if let Err(error) = made {
            file.close().await?;
            disk.remove(path).await?;
            return Err(error);
        }
        disk.sync_directory(path.parent().unwrap_or(Path::new("."))).await?;
        Descriptors::beside(disk, path, file).await
    }

    async fn zero_file(file: &dyn File, bytes: u64) -> io::Result<()> {
        file.allocate(0, bytes).await?;
        let piece = usize::try_from(ZERO_PIECE_BYTES.min(bytes)).expect("a MiB");
        let mut zeros = Buffer::with_capacity(piece);
        zeros.fill_with_zeros();
        let mut at = 0;
        while at < bytes {
            file.write_at(zeros.freeze(), at).await?;
            at += piece as u64;
        }
        file.sync().await
    }

    /// Paths of all files; for messages.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.used.iter().chain(&self.free).map(|file| file.path.clone()).collect()
    }
}
