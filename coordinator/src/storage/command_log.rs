//! The command log: what is appended is on stable storage before anybody hears of it.
//! One writer, blocking; the bytes are [`layout`](super::layout)'s.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::layout::{self, FILE_HEADER_BYTES, FileHeader};
use super::{StorageError, file};

const PREFIX: &str = "commands-";
const SUFFIX: &str = ".log";

/// The log that is written to.
#[derive(Debug)]
pub struct CommandLog {
    path: PathBuf,
    file: File,
    salt: [u8; 16],
    /// Where the next frame goes.
    end: u64,
    next_index: u64,
    is_sealed: bool,
    is_poisoned: bool,
}

/// An opened log and what is in it.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready to be appended to.
    pub log: CommandLog,
    /// Every command: index, term, position in the file in bytes, bytes.
    pub commands: Vec<(u64, u64, u64, Vec<u8>)>,
    /// The term of its last frame; 0 without one.
    pub last_term: u64,
    /// Bytes behind the last whole frame. They are cut off.
    pub torn_bytes: u64,
}

/// All logs in `directory`: first index and path, ascending.
///
/// # Errors
/// [`StorageError::Io`].
pub fn list(directory: &Path) -> Result<Vec<(u64, PathBuf)>, StorageError> {
    file::numbered(directory, PREFIX, SUFFIX)
}

impl CommandLog {
    /// Makes an empty log whose first command will have `first_index`. Durable when this returns.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub fn create(
        directory: &Path,
        identity: Identity,
        first_index: u64,
    ) -> Result<Self, StorageError> {
        let salt = uuid::Uuid::new_v4().into_bytes();
        let name = format!("{PREFIX}{first_index:020}{SUFFIX}");
        let header = FileHeader { identity, salt, first_index }.encode();
        file::write_whole(directory, &name, &header)?;
        let path = directory.join(name);
        let file = open_file(&path)?;
        let end = u64::try_from(header.len()).expect("a header is short");
        Ok(Self {
            path,
            file,
            salt,
            end,
            next_index: first_index,
            is_sealed: true,
            is_poisoned: false,
        })
    }

    /// Opens a log and reads all of it. Only the last log may end in a torn write, which is cut off.
    ///
    /// # Errors
    /// [`StorageError`] when it is damaged, or not `identity`'s.
    pub fn open(
        path: &Path,
        identity: Identity,
        first_index: u64,
        is_last: bool,
    ) -> Result<Opened, StorageError> {
        let bytes = file::read_synced(path)?;
        let scan = layout::scan(&bytes).map_err(|error| StorageError::layout(path, error))?;
        let corrupt = |position: usize, reason: &str| StorageError::Corrupt {
            path: path.to_owned(),
            position: u64::try_from(position).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
        };
        if scan.header.identity != identity {
            return Err(corrupt(12, "it is another coordinator's or another cluster's"));
        }
        if scan.header.first_index != first_index {
            return Err(corrupt(48, "its first index is not the one of its name"));
        }
        let torn_bytes = bytes.len() - scan.end;
        if 0 < torn_bytes && !is_last {
            return Err(corrupt(scan.end, "its end is missing, though a later log exists"));
        }
        let file = open_file(path)?;
        let end = u64::try_from(scan.end).unwrap_or(u64::MAX);
        if 0 < torn_bytes {
            file.set_len(end).map_err(StorageError::io("truncate", path))?;
            file.sync_all().map_err(StorageError::io("sync", path))?;
        }
        let is_sealed = scan.frames.last().is_none_or(|frame| frame.commands.is_empty());
        let last_term = scan.frames.last().map_or(0, |frame| frame.term);
        let next_index = scan.next_index;
        let mut commands = Vec::new();
        for frame in &scan.frames {
            for (index, (position, command)) in (frame.first_index..).zip(&frame.commands) {
                commands.push((index, frame.term, *position, command.to_vec()));
            }
        }
        let path = path.to_owned();
        let salt = scan.header.salt;
        let log = Self { path, file, salt, end, next_index, is_sealed, is_poisoned: false };
        let torn_bytes = u64::try_from(torn_bytes).unwrap_or(u64::MAX);
        Ok(Opened { log, commands, last_term, torn_bytes })
    }

    /// Index of the next command.
    pub fn next_index(&self) -> u64 {
        self.next_index
    }

    /// Length, in bytes.
    pub fn length_bytes(&self) -> u64 {
        self.end
    }

    /// Whether later starts can tell damage to the last command from a torn write.
    pub fn is_sealed(&self) -> bool {
        self.is_sealed
    }

    /// Writes one frame and syncs it. No commands make a seal.
    ///
    /// # Errors
    /// [`StorageError::Io`]. The log is poisoned then: it takes nothing more, for nobody knows what
    /// of it is on disk.
    pub fn append(&mut self, term: u64, commands: &[Vec<u8>]) -> Result<(), StorageError> {
        if self.is_poisoned {
            let source = io::Error::other("an earlier write failed");
            return Err(StorageError::Io { action: "append to", path: self.path.clone(), source });
        }
        let frame = layout::encode_frame(self.salt, self.next_index, term, commands)
            .ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))
            .map_err(StorageError::io("append to", &self.path))?;
        self.is_poisoned = true;
        self.file
            .write_all_at(&frame, self.end)
            .map_err(StorageError::io("append to", &self.path))?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))?;
        self.is_poisoned = false;
        self.end += u64::try_from(frame.len()).expect("a frame has a limit");
        self.next_index += u64::try_from(commands.len()).expect("a frame has a limit");
        self.is_sealed = commands.is_empty();
        Ok(())
    }
}

fn open_file(path: &Path) -> Result<File, StorageError> {
    File::options().read(true).write(true).open(path).map_err(StorageError::io("open", path))
}

const _: () = assert!(FILE_HEADER_BYTES == 64);
