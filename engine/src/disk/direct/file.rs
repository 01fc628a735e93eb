//! An open `O_DIRECT` file. Short writes and short reads end here.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::rc::Rc;

use glommio::io::DmaFile;
use rustix::fs::{FallocateFlags, FlockOperation};

use super::operation::{Gauge, operation};
use super::{blocking, io_error};
use crate::disk::{File, FrozenBuffer, IoFuture, Slice};

/// Largest single read or write, in bytes; glommio counts them in 32 bits.
const OPERATION_BYTES_MAX: usize = 1 << 30;

pub(super) struct DirectFile {
    /// Taken by the close; every operation holds it until its end.
    dma: RefCell<Option<Rc<DmaFile>>>,
    path: PathBuf,
    block_bytes: usize,
    /// Operations on this file.
    busy: Gauge,
    /// Operations on the whole disk.
    in_flight: Gauge,
}

impl DirectFile {
    pub(super) fn new(dma: DmaFile, path: PathBuf, block_bytes: usize, in_flight: Gauge) -> Self {
        let dma = RefCell::new(Some(Rc::new(dma)));
        Self { dma, path, block_bytes, busy: Gauge::default(), in_flight }
    }

    fn open_file(&self) -> io::Result<Rc<DmaFile>> {
        self.dma.borrow().clone().ok_or_else(|| io::Error::other("file is closed"))
    }

    fn operation<T, W>(&self, work: impl FnOnce(Rc<DmaFile>) -> W) -> IoFuture<T>
    where
        T: 'static,
        W: Future<Output = io::Result<T>> + 'static,
    {
        match self.open_file() {
            Ok(dma) => {
                let gauges = [Some(self.busy.clone()), Some(self.in_flight.clone())];
                operation(gauges, Box::pin(work(dma)))
            }
            Err(error) => Box::pin(async move { Err(error) }),
        }
    }
}

fn check_aligned(position: u64, len: usize, block_bytes: usize) -> io::Result<()> {
    let is_aligned = position.is_multiple_of(block_bytes as u64) && len.is_multiple_of(block_bytes);
    if is_aligned && len <= OPERATION_BYTES_MAX {
        return Ok(());
    }
    let message = format!("unaligned or too large: {len} B at byte {position}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Calls `call` on a blocking thread with the descriptor of `dma`.
async fn on_descriptor<T: Send + 'static>(
    dma: Rc<DmaFile>,
    call: impl FnOnce(BorrowedFd<'_>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let raw = dma.as_raw_fd();
    let result = blocking(move || call(borrowed(raw))).await;
    drop(dma);
    result
}

/// The descriptor for a call to the kernel.
fn borrowed<'a>(raw: RawFd) -> BorrowedFd<'a> {
    // SAFETY: every caller holds the `Rc<DmaFile>` that owns `raw` until its call has returned; an operation
    // that loses its future goes on in a task with all that it holds.
    #[expect(unsafe_code, reason = "glommio gives only the raw number of its descriptor")]
    unsafe {
        BorrowedFd::borrow_raw(raw)
    }
}

fn length_of(dma: &DmaFile) -> io::Result<u64> {
    let stat = rustix::fs::fstat(borrowed(dma.as_raw_fd()))?;
    u64::try_from(stat.st_size).map_err(io::Error::other)
}

/// Has `write` write everything below `len`; it is told where to go on and returns how much it wrote.
pub(super) async fn write_whole(
    len: usize,
    block_bytes: usize,
    mut write: impl AsyncFnMut(usize) -> io::Result<usize>,
) -> io::Result<()> {
    let mut done = 0;
    while done < len {
        let written = write(done).await?;
        // A block written in part is written again as a whole; with O_DIRECT there is no other way.
        let whole =
            if done + written >= len { len - done } else { written - written % block_bytes };
        if whole == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += whole;
    }
    Ok(())
}

/// Grows the file over `from..end`; when that fails, nothing behind the old end stays reserved.
fn reserve(file: BorrowedFd<'_>, from: u64, end: u64) -> io::Result<()> {
    let length = u64::try_from(rustix::fs::fstat(file)?.st_size).map_err(io::Error::other)?;
    // What cannot fit is not tried: ext4 would fill the disk to the last block before it gives up.
    let stat = rustix::fs::fstatvfs(file)?;
    let free_bytes = stat.f_bavail.saturating_mul(stat.f_frsize);
    if end.saturating_sub(from.max(length)) > free_bytes {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let reserved = loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), from, end - from) {
            Err(rustix::io::Errno::INTR) => {}
            reserved => break reserved,
        }
    };
    match reserved {
        Ok(()) => Ok(()),
        Err(error @ (rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT)) => {
            if end > length {
                rustix::fs::ftruncate(file, length)?;
            }
            match error {
                rustix::io::Errno::NOSPC => Err(error.into()),
                _ => Err(io::Error::new(io::ErrorKind::StorageFull, error)),
            }
        }
        Err(error) => Err(error.into()),
    }
}

impl File for DirectFile {
    fn path(&self) -> PathBuf {
        self.path.clone()
    }

    fn write_at(&self, buffer: FrozenBuffer, position: u64) -> IoFuture<()> {
        let block_bytes = self.block_bytes;
        self.operation(async move |dma| {
            check_aligned(position, buffer.len(), block_bytes)?;
            write_whole(buffer.len(), block_bytes, async |done: usize| {
                let result = match buffer.get(done..) {
                    Some(rest) if done > 0 => {
                        let mut copy = glommio::allocate_dma_buffer_global(rest.len());
                        copy.as_bytes_mut().copy_from_slice(rest);
                        dma.write_at(copy, position + done as u64).await
                    }
                    _ => dma.write_rc_at(buffer.dma(), position).await,
                };
                result.map_err(io_error)
            })
            .await
        })
    }

    fn read_at(&self, position: u64, len: usize) -> IoFuture<Slice> {
        let block_bytes = self.block_bytes;
        self.operation(async move |dma| {
            check_aligned(position, len, block_bytes)?;
            if len == 0 {
                return Ok(Slice::from(Vec::new()));
            }
            let first = dma.read_at_aligned(position, len).await.map_err(io_error)?;
            if first.len() == len || position + first.len() as u64 >= length_of(&dma)? {
                return Ok(Slice::of(Rc::new(first)));
            }
            // Short though the file goes on: gather the rest.
            let mut bytes = first.to_vec();
            loop {
                bytes.truncate(bytes.len() - bytes.len() % block_bytes);
                let at = position + bytes.len() as u64;
                let more = dma.read_at_aligned(at, len - bytes.len()).await.map_err(io_error)?;
                bytes.extend_from_slice(&more);
                if bytes.len() == len || position + bytes.len() as u64 >= length_of(&dma)? {
                    return Ok(Slice::from(bytes));
                }
                if more.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        })
    }

    fn sync(&self) -> IoFuture<()> {
        self.operation(async move |dma| dma.fdatasync().await.map_err(io_error))
    }

    fn allocate(&self, from: u64, end: u64) -> IoFuture<()> {
        self.operation(async move |dma| {
            if from >= end {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            on_descriptor(dma, move |file| reserve(file, from, end)).await
        })
    }

    fn truncate(&self, length_bytes: u64) -> IoFuture<()> {
        self.operation(async move |dma| {
            on_descriptor(dma, move |file| Ok(rustix::fs::ftruncate(file, length_bytes)?)).await
        })
    }

    fn length(&self) -> IoFuture<u64> {
        self.operation(async move |dma| length_of(&dma))
    }

    fn try_lock(&self) -> io::Result<()> {
        let dma = self.open_file()?;
        let lock = FlockOperation::NonBlockingLockExclusive;
        Ok(rustix::fs::flock(borrowed(dma.as_raw_fd()), lock)?)
    }

    fn close(self: Rc<Self>) -> IoFuture<()> {
        let in_flight = self.in_flight.clone();
        let close = async move {
            let Some(dma) = self.dma.take() else { return Ok(()) };
            self.busy.idle().await;
            match dma.close_rc().await {
                Ok(_) => Ok(()),
                Err(error) => Err(io_error(error)),
            }
        };
        operation([Some(in_flight), None], Box::pin(close))
    }
}
