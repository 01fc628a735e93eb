//! The command log: what is appended is on stable storage before anybody hears of it.
//! One writer, blocking; [`layout`] draws the bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::identity::Identity;
use super::layout::{self, FILE_HEADER_BYTES, FileHeader};
use super::{StorageError, file};

const PREFIX: &str = "commands-";
const SUFFIX: &str = ".log";

/// A log grows by so many bytes at once, written as zeros before they are needed: a command for which
/// there is no room is refused before anything of it is written.
pub const GROWTH_BYTES: u64 = 256 << 10;

/// So many bytes are kept for what must be written even when the disk is full, see [`Room`].
pub const SPARE_BYTES: u64 = 64 << 10;

const _: () = assert!(SPARE_BYTES < GROWTH_BYTES);

/// What a write may use when the disk is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Nothing: it can be refused.
    Common,
    /// What is kept for brokers that come and go, and for seals.
    Spare,
}

/// The log that is written to.
#[derive(Debug)]
pub struct CommandLog {
    path: PathBuf,
    file: File,
    salt: [u8; 16],
    /// Where the next frame goes.
    end: u64,
    /// Where the room that was made ends.
    room_end: u64,
    next_index: u64,
    is_sealed: bool,
    is_poisoned: bool,
    /// Tests: the disk holds no more than so many bytes of this file.
    #[cfg(test)]
    pub(crate) disk_bytes: Option<u64>,
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
            room_end: end,
            next_index: first_index,
            is_sealed: true,
            is_poisoned: false,
            #[cfg(test)]
            disk_bytes: None,
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
        let rest = bytes.get(scan.end..).unwrap_or_default();
        // Zeros are room that was made and not used.
        let torn_bytes = rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if 0 < torn_bytes && !is_last {
            return Err(corrupt(scan.end, "its end is missing, though a later log exists"));
        }
        let file = open_file(path)?;
        let end = u64::try_from(scan.end).unwrap_or(u64::MAX);
        let mut room_end = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if 0 < torn_bytes {
            file.set_len(end).map_err(StorageError::io("truncate", path))?;
            file.sync_all().map_err(StorageError::io("sync", path))?;
            room_end = end;
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
        let log = Self {
            path,
            file,
            salt,
            end,
            room_end,
            next_index,
            is_sealed,
            is_poisoned: false,
            #[cfg(test)]
            disk_bytes: None,
        };
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
    /// [`StorageError::Full`] and [`StorageError::TooLong`] when nothing was written and the log goes
    /// on. [`StorageError::Io`] poisons it: it takes nothing more, for nobody knows what of the frame
    /// is on disk.
    pub fn append(
        &mut self,
        term: u64,
        commands: &[Vec<u8>],
        room: Room,
    ) -> Result<(), StorageError> {
        if self.is_poisoned {
            let source = io::Error::other("an earlier write failed");
            return Err(StorageError::Io { action: "append to", path: self.path.clone(), source });
        }
        let frame = layout::encode_frame(self.salt, self.next_index, term, commands)
            .ok_or_else(|| StorageError::TooLong { path: self.path.clone() })?;
        let frame_bytes = u64::try_from(frame.len()).expect("a frame has a limit");
        self.make_room(frame_bytes, room)?;
        self.is_poisoned = true;
        self.file
            .write_all_at(&frame, self.end)
            .map_err(StorageError::io("append to", &self.path))?;
        self.file.sync_data().map_err(StorageError::io("sync", &self.path))?;
        self.is_poisoned = false;
        self.end += frame_bytes;
        self.next_index += u64::try_from(commands.len()).expect("a frame has a limit");
        self.is_sealed = commands.is_empty();
        Ok(())
    }

    /// Makes sure that `bytes` behind the end are on the disk already, as zeros.
    fn make_room(&mut self, bytes: u64, room: Room) -> Result<(), StorageError> {
        let needed_end = self.end + bytes;
        if needed_end + SPARE_BYTES <= self.room_end {
            return Ok(());
        }
        match self.grow((needed_end + SPARE_BYTES).next_multiple_of(GROWTH_BYTES)) {
            Err(StorageError::Full { .. })
                if room == Room::Spare && needed_end <= self.room_end =>
            {
                Ok(())
            }
            outcome => outcome,
        }
    }

    fn grow(&mut self, room_end: u64) -> Result<(), StorageError> {
        match self.write_zeros(room_end) {
            Ok(()) => {
                self.room_end = room_end;
                Ok(())
            }
            Err(error) if file::is_full(&error) => {
                // Others may need it more; what is left would be taken for torn otherwise.
                self.file
                    .set_len(self.room_end)
                    .map_err(StorageError::io("truncate", &self.path))?;
                Err(StorageError::Full { path: self.path.clone() })
            }
            Err(source) => {
                Err(StorageError::Io { action: "extend", path: self.path.clone(), source })
            }
        }
    }

    fn write_zeros(&self, room_end: u64) -> io::Result<()> {
        #[cfg(test)]
        if self.disk_bytes.is_some_and(|disk_bytes| disk_bytes < room_end) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let zeros = [0; 4096];
        let mut at = self.room_end;
        while at < room_end {
            let length = usize::try_from(room_end - at).unwrap_or(usize::MAX).min(zeros.len());
            self.file.write_all_at(zeros.get(..length).unwrap_or_default(), at)?;
            at += u64::try_from(length).expect("a page is short");
        }
        self.file.sync_data()
    }

    /// Tests: every write fails from now on, as on a disk that died.
    #[cfg(test)]
    pub(crate) fn break_disk(&mut self) {
        self.file = File::open(&self.path).unwrap();
    }
}

fn open_file(path: &Path) -> Result<File, StorageError> {
    File::options().read(true).write(true).open(path).map_err(StorageError::io("open", path))
}

const _: () = assert!(FILE_HEADER_BYTES == 64);
