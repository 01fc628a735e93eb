//! The only door to the kernel's files: everything the engine does to stable storage goes through
//! [`Disk`] and [`File`].
//!
//! Contract, checked for every implementation by [`conformance`]:
//! * positions and lengths of reads and writes are multiples of [`Disk::block_bytes`];
//! * a write completes whole or with an error (short writes end inside the implementation);
//! * through a descriptor of [`OpenMode::Stable`] a completed write is synced as well;
//! * [`File::sync`] covers exactly the writes that had completed before it was called;
//! * nothing starts before its future is first polled;
//! * dropping a future does not stop its operation, so nobody may: the engine awaits every one;
//! * a created, renamed or removed name is stable only after [`Disk::sync_directory`].

pub mod buffer;
pub mod conformance;
pub mod direct;
pub mod simulated;

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::runtime::LocalFuture;
pub use buffer::{Buffer, FrozenBuffer, Slice};

/// A pending disk operation.
pub type IoFuture<T> = LocalFuture<io::Result<T>>;

/// How [`Disk::open`] treats the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// The file must not exist; it is created empty.
    CreateNew,
    /// The file must exist.
    Existing,
    /// The file must exist; what is written through this descriptor is stable when the write has completed
    /// (`O_DSYNC`).
    Stable,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// Last component of the path.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Length in bytes; 0 for directories.
    pub length_bytes: u64,
}

/// Room on the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What we may still allocate, in bytes.
    pub free_bytes: u64,
    /// Size of the whole file system, in bytes.
    pub total_bytes: u64,
}

/// A directory tree on stable storage, as one shard sees it.
pub trait Disk {
    /// Unit of alignment, and of damage: max(4096, physical block size).
    fn block_bytes(&self) -> usize;

    /// Opens a file for reading and writing past the page cache.
    fn open(&self, path: &Path, mode: OpenMode) -> IoFuture<Rc<dyn File>>;

    /// Creates a directory and its missing parents; an existing one is fine.
    fn create_directory(&self, path: &Path) -> IoFuture<()>;

    /// Lists a directory, sorted by name. A missing directory is `NotFound`.
    fn list(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>>;

    /// Renames a file or directory, replacing a file of that name.
    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> IoFuture<()>;

    /// Removes a directory and everything below it.
    fn remove_directory(&self, path: &Path) -> IoFuture<()>;

    /// Makes creations, renames and removals in `path` stable.
    fn sync_directory(&self, path: &Path) -> IoFuture<()>;

    /// Room on the file system that holds `path`.
    fn space(&self, path: &Path) -> IoFuture<Space>;
}

/// An open file.
pub trait File {
    /// Where it was opened; for messages.
    fn path(&self) -> PathBuf;

    /// Writes the whole buffer at `position`, extending the file if needed.
    fn write_at(&self, buffer: FrozenBuffer, position: u64) -> IoFuture<()>;

    /// Reads up to `len` bytes at `position`; fewer only at the end of the file.
    fn read_at(&self, position: u64, len: usize) -> IoFuture<Slice>;

    /// Makes every write that completed before this call survive a power cut, and the file's length.
    /// After an error nothing may be assumed of any of them, and a second call proves nothing.
    fn sync(&self) -> IoFuture<()>;

    /// Reserves room for the bytes `from..end` and makes the file at least `end` long; reserved bytes read
    /// as zeros until written. Refused with `StorageFull` when the room is not there; nothing is then reserved.
    fn allocate(&self, from: u64, end: u64) -> IoFuture<()>;

    /// Cuts the file to `length_bytes`.
    fn truncate(&self, length_bytes: u64) -> IoFuture<()>;

    /// Current length in bytes, from the descriptor.
    fn length(&self) -> IoFuture<u64>;

    /// Takes the exclusive lock that lasts as long as this descriptor.
    ///
    /// # Errors
    /// `WouldBlock` when another descriptor, of this process or of a dying one, still holds it.
    fn try_lock(&self) -> io::Result<()>;

    /// Closes the descriptor once its last operation is done. A dropped file closes too, later.
    fn close(self: Rc<Self>) -> IoFuture<()>;
}

/// How the engine holds its disk.
pub type SharedDisk = Rc<dyn Disk>;
