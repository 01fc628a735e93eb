//! Room on a file system. Asked on a thread of its own: the kernel may take its time.

use std::io;
use std::path::PathBuf;

/// Room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What this process may still allocate, in bytes.
    pub free_bytes: u64,
    /// Size of the whole file system, in bytes.
    pub total_bytes: u64,
}

/// Room on the file system that holds `path`. To be called on a shard.
///
/// # Errors
/// What the kernel said.
pub async fn of(path: PathBuf) -> io::Result<Space> {
    let measure = move || {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Space {
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
            total_bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
        })
    };
    glommio::executor().spawn_blocking(measure).await
}
