//! What a test does to the disk behind everybody's back: look, copy, overwrite, rot.

use std::io;
use std::path::{Path, PathBuf};

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64;

use super::content::{BLOCK_BYTES, FileContent};
use super::tree::{NodeId, Tree};
use super::{Fate, SimDisk, View};

/// A copy of everything that would surely survive a power cut, or of everything visible.
#[derive(Clone)]
pub struct Image {
    tree: Tree,
}

impl SimDisk {
    /// All bytes of a file.
    ///
    /// # Errors
    /// `NotFound` when there is none, visibly.
    pub fn file_bytes(&self, path: &Path, view: View) -> io::Result<Vec<u8>> {
        let inner = self.inner();
        let id = inner.tree.file_id(path)?;
        let file = inner.tree.file(id).ok_or(io::ErrorKind::NotFound)?;
        Ok(file.content.bytes(view))
    }

    /// Paths of all files, sorted.
    pub fn files(&self, view: View) -> Vec<PathBuf> {
        let inner = self.inner();
        let paths = inner.tree.paths(view).into_iter();
        paths.filter(|(_, id)| inner.tree.file(*id).is_some()).map(|(path, _)| path).collect()
    }

    /// Puts a durable file of these bytes at `path`, past every cache; its directories are made, and every
    /// name change still pending becomes durable too.
    ///
    /// # Errors
    /// When a name on the way is taken by something else.
    pub fn put_file(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        inner.tree.put_durable_file(path, FileContent::of_bytes(bytes))?;
        inner.recount();
        Ok(())
    }

    /// Overwrites bytes of a file at any position, visible and durable at once, past every cache.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn overwrite(&self, path: &Path, position: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let id = inner.tree.file_id(path)?;
        let file = inner.tree.file_mut(id).ok_or(io::ErrorKind::NotFound)?;
        file.content.set_bytes(position, bytes);
        inner.recount();
        Ok(())
    }

    /// Turns one bit (0 is the lowest) of the byte at `position`, visible and durable: bit rot.
    ///
    /// # Errors
    /// `NotFound` when there is no such file, `InvalidInput` when it is not that long.
    pub fn flip_bit(&self, path: &Path, position: u64, bit: u8) -> io::Result<()> {
        let bytes = self.file_bytes(path, View::Visible)?;
        let byte = usize::try_from(position).ok().and_then(|at| bytes.get(at)).copied();
        let byte = byte.ok_or(io::ErrorKind::InvalidInput)?;
        self.overwrite(path, position, &[byte ^ (1 << (bit % 8))])
    }

    /// Turns a random bit in a written block of a random file whose path contains `path_contains`; says where.
    pub fn rot_random(&self, path_contains: &str) -> Option<(PathBuf, u64)> {
        let mut guard = self.inner();
        let inner = &mut *guard;
        let files: Vec<(PathBuf, NodeId)> = inner
            .tree
            .paths(View::Visible)
            .into_iter()
            .filter(|(path, id)| {
                inner.tree.file(*id).is_some() && path.to_string_lossy().contains(path_contains)
            })
            .collect();
        let (path, id) = files.get(inner.fault_rng.random_range(0..files.len().max(1)))?.clone();
        let block = inner.tree.file(id)?.content.random_block(&mut inner.fault_rng)?;
        let length = inner.tree.file(id)?.content.length();
        let within = inner.fault_rng.random_range(0..BLOCK_BYTES as u64);
        let position = (block * BLOCK_BYTES as u64 + within).min(length.checked_sub(1)?);
        let bit = inner.fault_rng.random_range(0..8);
        drop(guard);
        self.flip_bit(&path, position, bit).ok()?;
        Some((path, position))
    }

    /// Makes reads of the block at `position` fail with EIO until it is written again.
    ///
    /// # Errors
    /// `NotFound` when there is no such file.
    pub fn break_block(&self, path: &Path, position: u64) -> io::Result<()> {
        let mut inner = self.inner();
        let id = inner.tree.file_id(path)?;
        let file = inner.tree.file_mut(id).ok_or(io::ErrorKind::NotFound)?;
        file.content.break_block(position);
        Ok(())
    }

    /// A copy of the whole disk.
    pub fn snapshot(&self, view: View) -> Image {
        let mut tree = self.inner().tree.clone();
        match view {
            View::Durable => tree = tree.durable(),
            View::Visible => tree.crash(Fate::Kept, &mut Pcg64::seed_from_u64(0)),
        }
        Image { tree }
    }

    /// Replaces the whole disk by `image`; descriptors and operations of before are void.
    pub fn restore(&self, image: &Image) {
        let mut inner = self.inner();
        inner.tree = image.tree.clone();
        let pending = std::mem::take(&mut inner.pending);
        let handles = std::mem::take(&mut inner.handles);
        (inner.frozen, inner.crash_at) = (false, None);
        inner.recount();
        drop(inner);
        drop((pending, handles));
    }
}
