//! The disk of production: `O_DIRECT` files through glommio, whose traps end here.
//!
//! * [`DirectDisk::open`] first of all on every shard: glommio probes each device once per thread with a
//!   read of the first file opened on it, and mistakes an empty file for a device that can be polled.
//!   All I/O would then spin. A sentinel file with a really written block is opened before any other.
//! * Lengths come from the descriptor; glommio asks the path, which may be another file by now.
//! * Reads are aligned reads; glommio's unaligned ones return garbage behind the end of the file.
//! * A dropped future does not cancel its operation: it goes on in a task of its own.
//! * Blocking calls go to glommio's blocking threads, where a panic would hang the caller and then kill
//!   the shard: panics are caught there and become errors.
//! * [`DirectDisk::settle`] at shutdown: what is in flight when the executor ends is neither done nor
//!   undone, and its descriptors leak.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_lite::FutureExt;
use glommio::io::{DmaFile, OpenOptions};

use super::{DirectoryEntry, Disk, File, IoFuture, OpenMode, SharedDisk, Space};
use file::DirectFile;
use operation::{Gauge, operation};

mod file;
mod operation;
#[cfg(test)]
pub(crate) mod tests;

/// Name of the sentinel file in every directory tree that holds files; [`Disk::list`] does not show it.
pub const PROBE_FILE_NAME: &str = ".levada-probe";

/// Length of the sentinel file, in bytes.
const PROBE_BYTES: usize = 4096;

/// Smallest unit of alignment, in bytes: what every buffer is aligned to.
const BLOCK_BYTES_MIN: usize = 4096;

/// A directory tree on a real file system, used by one shard. Clones are the same disk.
#[derive(Clone)]
pub struct DirectDisk {
    shared: Rc<Shared>,
}

struct Shared {
    block_bytes: usize,
    /// Devices (`st_dev`) whose probe is behind us.
    guarded: RefCell<BTreeSet<u64>>,
    in_flight: Gauge,
}

impl DirectDisk {
    /// Opens the existing directory `root`. Call it on every shard before anything else touches a file there.
    ///
    /// # Errors
    /// Of the file system: `NotFound`, `PermissionDenied`, no `O_DIRECT` (`InvalidInput`), blocks larger
    /// than buffers are aligned to (`Unsupported`).
    pub async fn open(root: &Path) -> io::Result<Self> {
        let path = root.to_owned();
        let physical_bytes = blocking(move || physical_block_bytes(&path)).await?;
        let shared = Shared {
            block_bytes: physical_bytes.max(BLOCK_BYTES_MIN),
            guarded: RefCell::default(),
            in_flight: Gauge::default(),
        };
        let disk = Self { shared: Rc::new(shared) };
        disk.guard(root).await?;
        Ok(disk)
    }

    /// This disk as the engine holds it.
    pub fn shared(&self) -> SharedDisk {
        Rc::new(self.clone())
    }

    /// Waits until nothing is in flight, operations included whose futures were dropped.
    pub async fn settle(&self) {
        self.shared.in_flight.idle().await;
    }

    /// Operations that have begun and not ended.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.count()
    }

    /// Has glommio probe the device of `directory` with a file that holds a written block.
    async fn guard(&self, directory: &Path) -> io::Result<()> {
        // Not worth a thread: the file in it is opened next, which looks at the directory anyway.
        let device = std::fs::metadata(directory)?.dev();
        if self.shared.guarded.borrow().contains(&device) {
            return Ok(());
        }
        let (path, probe) = (directory.to_owned(), directory.join(PROBE_FILE_NAME));
        blocking(move || write_probe(&path)).await?;
        let file = caught(DmaFile::open(&probe)).await?;
        let alignment = file.alignment();
        file.close().await.map_err(io_error)?;
        if alignment > BLOCK_BYTES_MIN as u64 {
            let message = format!("{}: logical blocks of {alignment} B", directory.display());
            return Err(io::Error::new(io::ErrorKind::Unsupported, message));
        }
        self.shared.guarded.borrow_mut().insert(device);
        Ok(())
    }

    /// An operation that is a blocking call.
    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> IoFuture<T> {
        operation([Some(self.shared.in_flight.clone()), None], Box::pin(blocking(call)))
    }
}

/// Runs `call` on a blocking thread; a panic there becomes an error here.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let contained = move || std::panic::catch_unwind(AssertUnwindSafe(call));
    match glommio::executor().spawn_blocking(contained).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other("blocking call panicked")),
    }
}

/// Opening a `DmaFile` unwraps what it finds in sysfs and statfs; such a panic becomes an error.
async fn caught(
    open: impl Future<Output = Result<DmaFile, glommio::GlommioError<()>>>,
) -> io::Result<DmaFile> {
    match AssertUnwindSafe(open).catch_unwind().await {
        Ok(result) => result.map_err(io_error),
        Err(_) => Err(io::Error::other("opening the file panicked")),
    }
}

/// The kernel's own error, with its number, out of glommio's wrapping.
fn io_error(error: glommio::GlommioError<()>) -> io::Error {
    match error {
        glommio::GlommioError::EnhancedIoError { source, .. } => source,
        other => other.into(),
    }
}

/// Writes the sentinel of `directory` unless it is there. Several shards may do so at once.
fn write_probe(directory: &Path) -> io::Result<()> {
    let probe = directory.join(PROBE_FILE_NAME);
    if std::fs::metadata(&probe).is_ok_and(|metadata| metadata.len() == PROBE_BYTES as u64) {
        return Ok(());
    }
    let thread = format!("{:?}", std::thread::current().id());
    let unique: String = thread.chars().filter(char::is_ascii_digit).collect();
    let temporary = directory.join(format!("{PROBE_FILE_NAME}.{}.{unique}", std::process::id()));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(&[0x5a; PROBE_BYTES])?;
    file.sync_all()?;
    std::fs::rename(&temporary, &probe)?;
    std::fs::File::open(directory)?.sync_all()
}

/// Physical block size of the device under `path`, in bytes; 0 where the kernel does not tell.
fn physical_block_bytes(path: &Path) -> io::Result<usize> {
    let device = std::fs::metadata(path)?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition has no queue of its own; that of its disk is one directory up.
    let known = ["queue", "../queue"].into_iter().find_map(|queue| {
        let told = std::fs::read_to_string(device.join(queue).join("physical_block_size")).ok()?;
        told.trim().parse().ok()
    });
    Ok(known.unwrap_or(0))
}

fn list(path: &Path) -> io::Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().into_string().map_err(|name| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("name {} is not UTF-8", name.display()),
            )
        })?;
        if name.starts_with(PROBE_FILE_NAME) {
            continue;
        }
        let metadata = match std::fs::metadata(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            metadata => metadata?,
        };
        let is_directory = metadata.is_dir();
        let length_bytes = if is_directory { 0 } else { metadata.len() };
        entries.push(DirectoryEntry { name, is_directory, length_bytes });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

impl Disk for DirectDisk {
    fn block_bytes(&self) -> usize {
        self.shared.block_bytes
    }

    fn open(&self, path: &Path, mode: OpenMode) -> IoFuture<Rc<dyn File>> {
        let (disk, path) = (self.clone(), path.to_owned());
        let open = async move {
            disk.guard(path.parent().unwrap_or(Path::new("/"))).await?;
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(mode == OpenMode::CreateNew);
            if mode == OpenMode::Stable {
                options.custom_flags(libc::O_DSYNC);
            }
            let dma = caught(options.dma_open(&path)).await?;
            let in_flight = disk.shared.in_flight.clone();
            let file = DirectFile::new(dma, path, disk.shared.block_bytes, in_flight);
            Ok(Rc::new(file) as Rc<dyn File>)
        };
        operation([Some(self.shared.in_flight.clone()), None], Box::pin(open))
    }

    fn create_directory(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.call(move || std::fs::create_dir_all(path))
    }

    fn list(&self, path: &Path) -> IoFuture<Vec<DirectoryEntry>> {
        let path = path.to_owned();
        self.call(move || list(&path))
    }

    fn rename(&self, from: &Path, to: &Path) -> IoFuture<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        self.call(move || std::fs::rename(from, to))
    }

    fn remove(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.call(move || std::fs::remove_file(path))
    }

    fn remove_directory(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.call(move || std::fs::remove_dir_all(path))
    }

    fn sync_directory(&self, path: &Path) -> IoFuture<()> {
        let path = path.to_owned();
        self.call(move || {
            let directory = std::fs::File::open(&path)?;
            if !directory.metadata()?.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            directory.sync_all()
        })
    }

    fn space(&self, path: &Path) -> IoFuture<Space> {
        let path = path.to_owned();
        self.call(move || {
            let stat = rustix::fs::statvfs(path)?;
            Ok(Space {
                free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
                total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            })
        })
    }
}
