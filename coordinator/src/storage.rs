//! What a coordinator keeps on disk, and how it gets it back. Blocking: the controller does nothing
//! else while a command becomes durable.
//!
//! ```text
//! <data_dir>/lock                        held while a process runs
//! <data_dir>/identity                    which cluster, which member; written last at the first start
//! <data_dir>/commands-<first index>.log  the commands from that index on
//! <data_dir>/snapshot-<index>            the image up to and including that index
//! ```
//!
//! The last two snapshots are kept, with all commands since the older one: if the newer rots, the
//! older gives the very same image. Bytes are drawn in `docs/formats/coordinator.md`.

pub mod layout;
pub mod command_log;
pub mod snapshot;
pub mod identity;
mod file;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use levada_protocol::cluster::command::Command;
use levada_protocol::cluster::{ClusterId, ClusterImage, DecodeError};

use command_log::{CommandLog, Room};
use identity::Identity;
use layout::LayoutError;

/// The data directory cannot be used. Every message says what to do, or what was damaged where.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The operating system refused.
    #[error("{action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Its answer.
        source: io::Error,
    },
    /// There is no room. Nothing was changed, and it goes on when there is some again.
    #[error("no room for {}: free some space", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// More than one write of the log can hold. Nothing was changed.
    #[error("too much for one write to {}", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// Another process runs on the directory.
    #[error("{} is in use by another process: stop it first, or use another data_dir", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// The directory is another cluster's.
    #[error(
        "{} belongs to cluster {found}, the configuration says {expected}: correct cluster_id or data_dir",
        path.display()
    )]
    OtherCluster {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: ClusterId,
        /// Who we are.
        expected: ClusterId,
    },
    /// The directory is another coordinator's.
    #[error(
        "{} belongs to coordinator {found}, the configuration says {expected}: correct id or data_dir",
        path.display()
    )]
    OtherMember {
        /// The data directory.
        path: PathBuf,
        /// Whose it is.
        found: i32,
        /// Who we are.
        expected: i32,
    },
    /// A newer program wrote here.
    #[error(
        "{} has format {found}, this program knows {known}: start it with the newer program again",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// There is data, but the file that says whose is not.
    #[error(
        "{} has commands or snapshots but no identity: it was copied in part; \
         restore the identity file from a backup, or use an empty data_dir",
        path.display()
    )]
    NoIdentity {
        /// The data directory.
        path: PathBuf,
    },
    /// There is an identity, but no history.
    #[error(
        "{} has an identity but no commands: it was deleted in part; \
         restore it from a backup, or remove it to begin a new cluster",
        path.display()
    )]
    NoHistory {
        /// The data directory.
        path: PathBuf,
    },
    /// Bytes that were durable are not as they were written.
    #[error(
        "{} is damaged at byte {position}: {reason}; \
         restore the data directory from a backup, nothing was changed",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        position: u64,
        /// How that shows.
        reason: String,
    },
    /// Commands are missing between what is there.
    #[error(
        "{}: commands from {from} on are missing, a file was removed; \
         restore the data directory from a backup, nothing was changed",
        path.display()
    )]
    Hole {
        /// The data directory.
        path: PathBuf,
        /// First missing index.
        from: u64,
    },
}

impl StorageError {
    /// Whether nothing was changed and the coordinator can go on.
    pub fn is_harmless(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::TooLong { .. })
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn layout(path: &Path, error: LayoutError) -> Self {
        match error {
            LayoutError::Version { found, known } => {
                Self::NewerFormat { path: path.to_owned(), found, known }
            }
            LayoutError::Corrupt { position, reason } => {
                Self::Corrupt { path: path.to_owned(), position, reason: reason.to_owned() }
            }
        }
    }
}

/// One committed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place in the cluster's history, from 1.
    pub index: u64,
    /// The reign in which it was written.
    pub term: u64,
    /// The command.
    pub command: Command,
}

/// What a data directory held.
#[derive(Debug)]
pub struct Recovered {
    /// The image of the last good snapshot, or the empty one.
    pub image: ClusterImage,
    /// Every command after it, in order.
    pub entries: Vec<Entry>,
    /// The last reign that wrote; 0 for none.
    pub term: u64,
    /// Bytes of a last write that was never acknowledged, dropped.
    pub torn_bytes: u64,
    /// Snapshots that were passed over because they are damaged.
    pub damaged_snapshots: Vec<PathBuf>,
}

/// An open, locked data directory.
#[derive(Debug)]
pub struct Storage {
    directory: PathBuf,
    identity: Identity,
    log: CommandLog,
    snapshot_index: u64,
    /// Held until the process ends or this is dropped.
    _lock: File,
}

impl Storage {
    /// Opens `directory` for coordinator `member`, creating it if it is not there or empty. A new
    /// one becomes `cluster`'s, or a new cluster's.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong and what to do; nothing was changed then.
    pub fn open(
        directory: &Path,
        member: i32,
        cluster: Option<ClusterId>,
    ) -> Result<(Self, Recovered), StorageError> {
        fs::create_dir_all(directory).map_err(StorageError::io("create", directory))?;
        let lock = lock(directory)?;
        let identity = match Identity::read(directory)? {
            Some(identity) => identity,
            None => begin(directory, member, cluster)?,
        };
        if let Some(expected) = cluster.filter(|expected| *expected != identity.cluster) {
            let (path, found) = (directory.to_owned(), identity.cluster);
            return Err(StorageError::OtherCluster { path, found, expected });
        }
        if identity.member != member {
            let (path, found) = (directory.to_owned(), identity.member);
            return Err(StorageError::OtherMember { path, found, expected: member });
        }
        let (log, recovered) = recover(directory, identity)?;
        let snapshot_index = recovered.image.index();
        let storage =
            Self { directory: directory.to_owned(), identity, log, snapshot_index, _lock: lock };
        Ok((storage, recovered))
    }

    /// Which cluster the directory belongs to.
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// Index of the next command.
    pub fn next_index(&self) -> u64 {
        self.log.next_index()
    }

    /// Length of the current command log, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.log.length_bytes()
    }

    /// Index that the last snapshot covers (inclusive); 0 without one.
    pub fn snapshot_index(&self) -> u64 {
        self.snapshot_index
    }

    /// Writes `commands` behind the last one. They are on stable storage when this returns.
    ///
    /// # Errors
    /// [Harmless](StorageError::is_harmless) ones when nothing was written. Otherwise what is on disk
    /// is unknown, and only opening it again tells.
    pub fn append(
        &mut self,
        term: u64,
        commands: &[Vec<u8>],
        room: Room,
    ) -> Result<(), StorageError> {
        self.log.append(term, commands, room)
    }

    /// Proves to later starts that everything appended so far was durable, so that damage to the
    /// last command is told from a torn write. Does nothing when that is proved already.
    ///
    /// # Errors
    /// As [`append`](Self::append).
    pub fn seal(&mut self, term: u64) -> Result<(), StorageError> {
        if self.log.is_sealed() { Ok(()) } else { self.log.append(term, &[], Room::Spare) }
    }

    /// Writes a snapshot of `image`, which must show every command appended, starts a new log behind
    /// it and removes what no recovery needs any more.
    ///
    /// # Errors
    /// [Harmless](StorageError::is_harmless) when there is no room: everything goes on, without a
    /// snapshot. Otherwise only opening the directory again tells what is in use.
    pub fn write_snapshot(&mut self, image: &ClusterImage, term: u64) -> Result<(), StorageError> {
        assert_eq!(image.index() + 1, self.log.next_index(), "a snapshot covers the whole log");
        // In this order a snapshot without the log behind it is never left by a crash, so it shows
        // that a file was removed.
        self.log = CommandLog::create(&self.directory, self.identity, image.index() + 1)?;
        snapshot::write(&self.directory, self.identity, image, term)?;
        let kept = self.snapshot_index;
        self.snapshot_index = image.index();
        self.remove_before(kept)
    }

    /// Tests: the log itself, to fill or break its disk.
    #[cfg(test)]
    pub(crate) fn log_mut(&mut self) -> &mut CommandLog {
        &mut self.log
    }

    /// Removes snapshots before `kept` and logs that only hold commands up to `kept`.
    fn remove_before(&self, kept: u64) -> Result<(), StorageError> {
        for (index, path) in snapshot::list(&self.directory)? {
            if index < kept {
                fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        let logs = command_log::list(&self.directory)?;
        for pair in logs.windows(2) {
            if let [(_, path), (next_first, _)] = pair
                && *next_first <= kept + 1
            {
                fs::remove_file(path).map_err(StorageError::io("remove", path))?;
            }
        }
        file::sync_directory(&self.directory)
    }
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(StorageError::io("open", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            Err(StorageError::Locked { path: directory.to_owned() })
        }
        Err(fs::TryLockError::Error(source)) => {
            Err(StorageError::Io { action: "lock", path, source })
        }
    }
}

/// The first start: the log, then the identity. Whatever was interrupted before the identity was
/// there begins anew.
fn begin(
    directory: &Path,
    member: i32,
    cluster: Option<ClusterId>,
) -> Result<Identity, StorageError> {
    let no_identity = || StorageError::NoIdentity { path: directory.to_owned() };
    if !snapshot::list(directory)?.is_empty() {
        return Err(no_identity());
    }
    for (_, path) in command_log::list(directory)? {
        let bytes = file::read_synced(&path)?;
        if !layout::scan(&bytes).is_ok_and(|scan| scan.frames.is_empty()) {
            return Err(no_identity());
        }
        fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
    }
    let cluster = cluster.unwrap_or_else(|| ClusterId(uuid::Uuid::new_v4().into_bytes()));
    let identity = Identity { cluster, member };
    CommandLog::create(directory, identity, 1)?;
    identity.write(directory)?;
    Ok(identity)
}

fn recover(directory: &Path, identity: Identity) -> Result<(CommandLog, Recovered), StorageError> {
    let logs = command_log::list(directory)?;
    let mut damaged_snapshots = Vec::new();
    let mut base = None;
    for (index, path) in snapshot::list(directory)?.into_iter().rev() {
        match snapshot::read(&path, identity, index) {
            Ok(snapshot) => {
                base = Some(snapshot);
                break;
            }
            Err(StorageError::Corrupt { .. }) => damaged_snapshots.push(path),
            Err(error) => return Err(error),
        }
    }
    let (image, mut term) = match base {
        Some(snapshot) => (snapshot.image, snapshot.term),
        None => (ClusterImage::empty(identity.cluster), 0),
    };
    // The log that holds the first command after the image, and everything after it.
    let needed = logs.iter().rposition(|(first, _)| *first <= image.index() + 1);
    let Some(logs) = needed.and_then(|position| logs.get(position..)) else {
        let path = directory.to_owned();
        return Err(if logs.is_empty() {
            StorageError::NoHistory { path }
        } else {
            StorageError::Hole { path, from: image.index() + 1 }
        });
    };
    // The log behind a snapshot is made before the snapshot.
    if 0 < image.index() && !logs.iter().any(|(first, _)| *first == image.index() + 1) {
        return Err(StorageError::Hole { path: directory.to_owned(), from: image.index() + 1 });
    }
    let mut entries = Vec::new();
    let mut open: Option<CommandLog> = None;
    let mut torn_bytes = 0;
    for (position, (first, path)) in logs.iter().enumerate() {
        if let Some(next) = open.as_ref().map(CommandLog::next_index)
            && next != *first
        {
            let path = directory.to_owned();
            return Err(StorageError::Hole { path, from: next });
        }
        let is_last = position + 1 == logs.len();
        let opened = CommandLog::open(path, identity, *first, is_last)?;
        torn_bytes += opened.torn_bytes;
        term = term.max(opened.last_term);
        for (index, written_term, position, bytes) in opened.commands {
            if index <= image.index() {
                continue;
            }
            let command =
                Command::decode(&bytes).map_err(|error| undecodable(path, position, &error))?;
            entries.push(Entry { index, term: written_term, command });
        }
        open = Some(opened.log);
    }
    let log = open.expect("at least the log that is needed was opened");
    Ok((log, Recovered { image, entries, term, torn_bytes, damaged_snapshots }))
}

fn undecodable(path: &Path, position: u64, error: &DecodeError) -> StorageError {
    match error {
        DecodeError::Version { got, known } => {
            StorageError::NewerFormat { path: path.to_owned(), found: *got, known: *known }
        }
        other => StorageError::Corrupt {
            path: path.to_owned(),
            position,
            reason: format!("its checksum is right but its command is not readable: {other}"),
        },
    }
}
