//! The bare disk: `O_DIRECT` on a file that was made for it, blocks in order, several threads for depth.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, OFlags, fallocate};
use serde::{Deserialize, Serialize};

use super::Direction;
use crate::clock::now_ns;
use crate::error::BenchError;
use crate::number::{count, float, share, size, whole};
use crate::recorder::histogram;

/// What every device accepts as the alignment of direct I/O.
const ALIGNMENT: usize = 4096;
/// Block in which a file is filled.
const FILL_BYTES: u32 = 1 << 20;

/// What a file is written over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// Space that was reserved and never written: the filesystem notes with every write that it was.
    Fresh,
    /// Written before: nothing but the data moves.
    Overwritten,
}

impl std::fmt::Display for FileState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fresh => "fresh",
            Self::Overwritten => "overwritten",
        })
    }
}

/// A file to be measured; removed when dropped.
#[derive(Debug)]
pub struct TestFile {
    file: File,
    path: PathBuf,
    bytes: u64,
    state: FileState,
}

impl TestFile {
    /// Makes one of `bytes` in `directory`.
    ///
    /// # Errors
    /// [`BenchError::System`].
    pub fn create(directory: &Path, bytes: u64, state: FileState) -> Result<Self, BenchError> {
        let path = directory.join(format!("levada-bench-{}.tmp", std::process::id()));
        std::fs::create_dir_all(directory)
            .map_err(BenchError::system(format!("make {}", directory.display())))?;
        let failed = |what: &str| BenchError::system(format!("{what} {}", path.display()));
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).custom_flags(flags);
        let file = options.open(&path).map_err(failed("open with O_DIRECT"))?;
        let made = Self { file, path: path.clone(), bytes, state };
        fallocate(&made.file, FallocateFlags::empty(), 0, bytes)
            .map_err(|error| failed("reserve space for")(error.into()))?;
        if state == FileState::Overwritten {
            let mut block = Aligned::new(FILL_BYTES);
            let blocks = bytes / u64::from(FILL_BYTES);
            for number in 0..blocks {
                let at = number * u64::from(FILL_BYTES);
                made.file.write_all_at(block.bytes(), at).map_err(failed("write"))?;
            }
        }
        made.file.sync_all().map_err(failed("sync"))?;
        Ok(made)
    }

    /// What it is written over.
    pub fn state(&self) -> FileState {
        self.state
    }

    fn failed(&self, what: &str) -> impl FnOnce(std::io::Error) -> BenchError + use<> {
        BenchError::system(format!("{what} {}", self.path.display()))
    }

    /// Blocks in order for `seconds`, `depth` of them at once; a fresh file at most once through. In
    /// 10^6 bytes a second.
    ///
    /// # Errors
    /// [`BenchError::System`].
    pub fn throughput(
        &self,
        direction: Direction,
        block_bytes: u32,
        depth: u32,
        seconds: f64,
    ) -> Result<f64, BenchError> {
        let blocks = (self.bytes / u64::from(block_bytes)).max(1);
        let most = if self.state == FileState::Fresh { blocks } else { u64::MAX };
        let next = AtomicU64::new(0);
        let start_ns = now_ns();
        let end_ns = start_ns + whole(seconds * 1e9);
        let work = || -> Result<u64, BenchError> {
            let mut block = Aligned::new(block_bytes);
            let mut done = 0;
            // At least one, however late the thread came to its turn.
            while done == 0 || now_ns() < end_ns {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if most <= number {
                    break;
                }
                let at = number % blocks * u64::from(block_bytes);
                match direction {
                    Direction::Write => {
                        self.file.write_all_at(block.bytes(), at).map_err(self.failed("write"))?;
                    }
                    Direction::Read => {
                        self.file.read_exact_at(block.bytes(), at).map_err(self.failed("read"))?;
                    }
                }
                done += u64::from(block_bytes);
            }
            Ok(done)
        };
        let moved = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..depth).map(|_| scope.spawn(work)).collect();
            let joined = threads.into_iter().map(|t| t.join().unwrap_or(Err(BenchError::Panicked)));
            joined.sum::<Result<u64, BenchError>>()
        })?;
        Ok(share(float(moved) * 1e3, float(now_ns() - start_ns)))
    }

    /// Writes of `bytes`, each followed by fdatasync, one after the other for `seconds`; how long both
    /// took.
    ///
    /// # Errors
    /// [`BenchError::System`].
    pub fn sync_times(&self, bytes: u32, seconds: f64) -> Result<Histogram<u64>, BenchError> {
        let mut samples = histogram();
        let mut block = Aligned::new(bytes);
        let blocks = (self.bytes / u64::from(bytes)).max(1);
        let most = if self.state == FileState::Fresh { blocks } else { u64::MAX };
        let end_ns = now_ns() + whole(seconds * 1e9);
        for number in 0..most {
            let start_ns = now_ns();
            if end_ns <= start_ns && number > 0 {
                break;
            }
            let at = number % blocks * u64::from(bytes);
            self.file.write_all_at(block.bytes(), at).map_err(self.failed("write"))?;
            self.file.sync_data().map_err(self.failed("sync"))?;
            samples.saturating_record(now_ns() - start_ns);
        }
        Ok(samples)
    }
}

impl Drop for TestFile {
    fn drop(&mut self) {
        // Gone already, or somebody else's matter now.
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}

/// A block at an address that direct I/O accepts.
struct Aligned {
    buffer: Vec<u8>,
    from: usize,
    length: usize,
}

impl Aligned {
    fn new(length: u32) -> Self {
        let length = size(length.into());
        // Not zeros: some devices are quicker with those than with anything else.
        let pattern =
            (0..length + ALIGNMENT).map(|place| u8::try_from(count(place) * 31 % 251).unwrap_or(1));
        let buffer: Vec<u8> = pattern.collect();
        let from = buffer.as_ptr().align_offset(ALIGNMENT);
        Self { buffer, from, length }
    }

    fn bytes(&mut self) -> &mut [u8] {
        let (from, end) = (self.from, self.from + self.length);
        self.buffer.get_mut(from..end).expect("there is room for the alignment")
    }
}
