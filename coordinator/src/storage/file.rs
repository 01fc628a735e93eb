//! Files that are whole or not there, and directories that remember them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use super::StorageError;

/// Makes names that were created, renamed or removed in `directory` survive power loss.
pub(super) fn sync_directory(directory: &Path) -> Result<(), StorageError> {
    let handle = File::open(directory).map_err(StorageError::io("open", directory))?;
    handle.sync_all().map_err(StorageError::io("sync", directory))
}

/// Writes `bytes` to `name`: afterwards it is there, whole and durable; if interrupted, whatever was
/// there before is.
///
/// # Errors
/// [`StorageError::Full`] when there is no room; nothing has changed then.
pub(super) fn write_whole(directory: &Path, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
    let temporary = directory.join(format!("{name}.tmp"));
    let path = directory.join(name);
    if let Err(source) = write_synced(&temporary, bytes) {
        if is_full(&source) {
            // Whether or not it can be removed: it is in nobody's way but the disk's.
            drop(fs::remove_file(&temporary));
            return Err(StorageError::Full { path });
        }
        return Err(StorageError::Io { action: "write", path: temporary, source });
    }
    fs::rename(&temporary, &path).map_err(StorageError::io("rename", &temporary))?;
    sync_directory(directory)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Whether there was no room.
pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Reads a whole file, after making sure that what is read is what is stored.
pub(super) fn read_synced(path: &Path) -> Result<Vec<u8>, StorageError> {
    let file = File::open(path).map_err(StorageError::io("open", path))?;
    file.sync_all().map_err(StorageError::io("sync", path))?;
    fs::read(path).map_err(StorageError::io("read", path))
}

/// Files named `<prefix><number><suffix>` in `directory`, by number.
pub(super) fn numbered(
    directory: &Path,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<(u64, std::path::PathBuf)>, StorageError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(StorageError::io("list", directory))? {
        let entry = entry.map_err(StorageError::io("list", directory))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|name| name.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}
