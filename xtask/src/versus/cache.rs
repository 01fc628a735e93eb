//! Fills the page cache once. On a virtual machine memory that was never used is handed out page by page by the host,
//! which slows whoever writes through the cache; Levada writes past it.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context;

/// Share of the free memory that is written, in percent.
const SHARE: u64 = 80;
const PIECE_BYTES: usize = 1 << 20;

/// Writes most of the free memory's size into a file below `directory`, then removes it. Bytes written.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn fill(directory: &Path) -> anyhow::Result<u64> {
    let memory = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let free_bytes = kib(&memory, "MemFree:").context("no MemFree in /proc/meminfo")? << 10;
    let path = directory.join("fill");
    let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    let piece = vec![0x5a; PIECE_BYTES];
    let mut written = 0;
    while written < free_bytes / 100 * SHARE {
        match file.write_all(&piece) {
            Ok(()) => written += PIECE_BYTES as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error).context("fill the page cache"),
        }
    }
    drop(file);
    fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    Ok(written)
}

/// The number behind `name`.
fn kib(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_found() {
        let memory = "MemTotal:       24677868 kB\nMemFree:         1068420 kB\n";
        assert_eq!(kib(memory, "MemFree:"), Some(1_068_420));
        assert_eq!(kib(memory, "Nothing:"), None);
    }
}
