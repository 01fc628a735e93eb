//! An open file of the simulated disk.

use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::task::Poll;

use rand::Rng;
use xxhash_rust::xxh3::xxh3_64;

use super::content::BLOCK_BYTES;
use super::fault::{Fault, OperationKind};
use super::tree::FileNode;
use super::{Completion, EIO, Effect, Inner, SimDisk};
use crate::disk::{File, FrozenBuffer, IoFuture, Slice};

/// A descriptor. Every operation runs to its end, waited for or not.
#[derive(Clone)]
pub(super) struct SimFile {
    descriptor: Rc<Descriptor>,
}

struct Descriptor {
    disk: SimDisk,
    handle: u64,
    path: PathBuf,
    /// Writes are synced as well: as a write and a sync behind it, each with its own chance to fail.
    is_stable: bool,
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // While a crash holds the disk, its descriptors go anyway.
        if let Ok(mut inner) = self.disk.state.inner.try_borrow_mut() {
            inner.close_handle(self.handle);
        }
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(EIO)
}

fn closed() -> io::Error {
    io::Error::other("file is closed")
}

/// Refuses what `O_DIRECT` would refuse.
fn check_aligned(position: u64, len: usize) -> io::Result<()> {
    if position.is_multiple_of(BLOCK_BYTES as u64) && len.is_multiple_of(BLOCK_BYTES) {
        return Ok(());
    }
    let message = format!("unaligned: {len} B at byte {position}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

impl SimFile {
    pub(super) fn new(disk: SimDisk, handle: u64, path: PathBuf, is_stable: bool) -> Self {
        Self { descriptor: Rc::new(Descriptor { disk, handle, path, is_stable }) }
    }

    fn begin<T: 'static>(
        &self,
        kind: OperationKind,
        numbers: [u64; 3],
        prepare: impl FnOnce(&mut Inner, Option<Fault>, u64) -> io::Result<Effect<T>>,
    ) -> io::Result<Completion<T>> {
        let Descriptor { disk, handle, path, .. } = &*self.descriptor;
        if disk.inner().handles.get(handle).is_none_or(|handle| handle.closed) {
            return Err(closed());
        }
        disk.begin(kind, path, Some(*handle), numbers, prepare)
    }

    /// Begins the write of whole blocks; they are in danger from now on.
    fn begin_write(&self, buffer: &FrozenBuffer, position: u64) -> io::Result<Completion<()>> {
        check_aligned(position, buffer.len())?;
        let handle = self.descriptor.handle;
        let (first, len) = (position / BLOCK_BYTES as u64, buffer.len() as u64);
        let end = position.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        let blocks = first..end / BLOCK_BYTES as u64;
        let numbers = [position, len, xxh3_64(buffer)];
        self.begin(OperationKind::Write, numbers, |inner, fault, write| {
            inner.counts.writes += 1;
            inner.counts.written_bytes += len;
            let free_blocks = inner.free_blocks();
            let file = inner.file_mut(handle)?;
            let missing = file.content.missing_blocks(&blocks);
            if missing > free_blocks {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let overlaps = file.content.has_write_in_flight(&blocks);
            file.content.allocate_blocks(blocks.clone());
            match fault {
                Some(Fault::LostWrite) => {}
                Some(Fault::MisdirectedWrite) => {
                    let bytes = buffer.to_vec();
                    inner.used_blocks += missing;
                    return Ok(Box::new(move |inner: &mut Inner| {
                        inner.misdirect(handle, position, &bytes);
                        let moment = inner.moment;
                        inner.file_mut(handle)?.content.extend_to(end, moment);
                        Ok(())
                    }));
                }
                _ => file.content.start_write(write, first, buffer),
            }
            inner.used_blocks += missing;
            inner.counts.overlapping_writes += u64::from(overlaps);
            Ok(Box::new(move |inner: &mut Inner| {
                let (moment, Inner { fault_rng, handles, tree, .. }) = (inner.moment, inner);
                let node = handles.get(&handle).ok_or_else(closed)?.node;
                let file = tree.file_mut(node).ok_or_else(closed)?;
                let fails = fault == Some(Fault::WriteError);
                file.content
                    .finish_write(write, blocks, moment, || !fails || fault_rng.random_bool(0.5));
                if fails {
                    return Err(eio());
                }
                file.content.extend_to(end, moment);
                Ok(())
            }))
        })
    }
}

impl Inner {
    fn file_mut(&mut self, handle: u64) -> io::Result<&mut FileNode> {
        let node = self.handles.get(&handle).ok_or_else(closed)?.node;
        self.tree.file_mut(node).ok_or_else(closed)
    }

    /// Puts a write where it does not belong: over another block, of this or another file.
    fn misdirect(&mut self, handle: u64, position: u64, bytes: &[u8]) {
        let own = self.handles.get(&handle).map(|handle| handle.node);
        let ids = self.tree.file_ids();
        for _ in 0..8 {
            let Some(id) = ids.get(self.fault_rng.random_range(0..ids.len().max(1))) else {
                return;
            };
            let Some(file) = self.tree.file_mut(*id) else { continue };
            let Some(block) = file.content.random_block(&mut self.fault_rng) else { continue };
            let target = block * BLOCK_BYTES as u64;
            if own == Some(*id) && target == position {
                continue;
            }
            let room = usize::try_from(file.content.length().saturating_sub(target)).unwrap_or(0);
            let fitting = bytes.get(..room.min(bytes.len())).unwrap_or_default();
            file.content.set_bytes(target, fitting);
            return;
        }
    }
}

impl File for SimFile {
    fn path(&self) -> PathBuf {
        self.descriptor.path.clone()
    }

    fn write_at(&self, buffer: FrozenBuffer, position: u64) -> IoFuture<()> {
        let file = self.clone();
        Box::pin(async move {
            file.begin_write(&buffer, position)?.await?;
            if file.descriptor.is_stable { file.sync().await } else { Ok(()) }
        })
    }

    fn read_at(&self, position: u64, len: usize) -> IoFuture<Slice> {
        let file = self.clone();
        Box::pin(async move {
            check_aligned(position, len)?;
            let handle = file.descriptor.handle;
            let numbers = [position, len as u64, 0];
            let completion = file.begin(OperationKind::Read, numbers, |inner, fault, _| {
                inner.counts.reads += 1;
                Ok(Box::new(move |inner: &mut Inner| {
                    let node = inner.handles.get(&handle).ok_or_else(closed)?.node;
                    let file = inner.tree.file(node).ok_or_else(closed)?;
                    let bytes = file.content.read(position, len, &mut inner.fault_rng);
                    match (bytes, fault) {
                        (Some(bytes), None) => Ok(Slice::from(bytes)),
                        _ => Err(eio()),
                    }
                }))
            });
            completion?.await
        })
    }

    fn sync(&self) -> IoFuture<()> {
        let handle = self.descriptor.handle;
        // What had completed when it was called counts, not what has when it is first polled.
        let covered = {
            let mut inner = self.descriptor.disk.inner();
            let moment = inner.moment;
            inner.file_mut(handle).map(|file| file.content.cover(moment))
        };
        let file = self.clone();
        Box::pin(async move {
            let covered = covered?;
            let completion = file.begin(OperationKind::Sync, [0; 3], |inner, fault, _| {
                inner.counts.syncs += 1;
                Ok(Box::new(move |inner: &mut Inner| {
                    let content = &mut inner.file_mut(handle)?.content;
                    if fault == Some(Fault::SyncError) {
                        content.doom(&covered);
                        return Err(eio());
                    }
                    content.make_durable(covered);
                    Ok(())
                }))
            });
            completion?.await
        })
    }

    fn allocate(&self, from: u64, end: u64) -> IoFuture<()> {
        let file = self.clone();
        Box::pin(async move {
            if from >= end {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let handle = file.descriptor.handle;
            let blocks = from / BLOCK_BYTES as u64..end.div_ceil(BLOCK_BYTES as u64);
            let completion =
                file.begin(OperationKind::Allocate, [from, end, 0], |inner, fault, _| {
                    let free_blocks = inner.free_blocks();
                    let content = &mut inner.file_mut(handle)?.content;
                    let missing = content.missing_blocks(&blocks);
                    if missing > free_blocks || fault == Some(Fault::AllocateRefused) {
                        return Err(io::ErrorKind::StorageFull.into());
                    }
                    // The room is taken at once, so that two requests cannot both be promised the last of it.
                    content.allocate_blocks(blocks);
                    inner.used_blocks += missing;
                    Ok(Box::new(move |inner: &mut Inner| {
                        let moment = inner.moment;
                        inner.file_mut(handle)?.content.extend_to(end, moment);
                        Ok(())
                    }))
                });
            completion?.await
        })
    }

    fn truncate(&self, length_bytes: u64) -> IoFuture<()> {
        let file = self.clone();
        Box::pin(async move {
            let handle = file.descriptor.handle;
            let numbers = [length_bytes, 0, 0];
            let completion = file.begin(OperationKind::Truncate, numbers, |_, _, cut| {
                Ok(Box::new(move |inner: &mut Inner| {
                    let moment = inner.moment;
                    let content = &mut inner.file_mut(handle)?.content;
                    let before = content.allocated_blocks();
                    content.cut(length_bytes, moment, cut);
                    let freed = before - content.allocated_blocks();
                    inner.used_blocks = inner.used_blocks.saturating_sub(freed);
                    Ok(())
                }))
            });
            completion?.await
        })
    }

    fn length(&self) -> IoFuture<u64> {
        let file = self.clone();
        Box::pin(async move {
            let handle = file.descriptor.handle;
            let completion = file.begin(OperationKind::Inquiry, [0; 3], |_, _, _| {
                Ok(Box::new(move |inner: &mut Inner| Ok(inner.file_mut(handle)?.content.length())))
            });
            completion?.await
        })
    }

    fn try_lock(&self) -> io::Result<()> {
        let handle = self.descriptor.handle;
        let mut inner = self.descriptor.disk.inner();
        let file = inner.file_mut(handle)?;
        match file.lock {
            Some(owner) if owner != handle => Err(io::ErrorKind::WouldBlock.into()),
            _ => {
                file.lock = Some(handle);
                Ok(())
            }
        }
    }

    fn close(self: Rc<Self>) -> IoFuture<()> {
        Box::pin(async move {
            let Descriptor { disk, handle, .. } = &*self.descriptor;
            poll_fn(|context| {
                let mut inner = disk.inner();
                inner.close_handle(*handle);
                match inner.handles.get_mut(handle) {
                    Some(handle) => {
                        handle.waiting_close.push(context.waker().clone());
                        Poll::Pending
                    }
                    None => Poll::Ready(Ok(())),
                }
            })
            .await
        })
    }
}
