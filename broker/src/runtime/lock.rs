//! The lock of the data directory: one broker process at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

/// Name of the lock file in the data directory.
pub const LOCK_FILE: &str = "levada.lock";

/// The data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The directory or the file in it cannot be made.
    #[error("create {path}")]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// Why it was not.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error(
        "data directory {path} is in use by another broker process: stop that one, or give this one a data_dir of its own"
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// The file system cannot lock.
    #[error("lock {path}")]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Held for as long as the broker runs; the kernel drops it with the process.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates `directory` if needed and locks it.
    ///
    /// # Errors
    /// [`LockError`], among them that another process has it.
    pub fn take(directory: &Path) -> Result<Self, LockError> {
        std::fs::create_dir_all(directory)
            .map_err(|source| LockError::Create { path: directory.to_owned(), source })?;
        let path = directory.join(LOCK_FILE);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(|source| LockError::Create { path: path.clone(), source })?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(LockError::Taken { path: directory.to_owned() })
            }
            Err(errno) => Err(LockError::Lock { path, source: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_locked_once_and_free_again_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b");
        let lock = DirectoryLock::take(&path).unwrap();
        let error = DirectoryLock::take(&path).unwrap_err();
        assert!(matches!(error, LockError::Taken { .. }), "{error}");
        drop(lock);
        DirectoryLock::take(&path).unwrap();
    }
}
