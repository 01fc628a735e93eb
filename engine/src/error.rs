//! What can go wrong at the engine's door: one enum per operation, each variant saying whose fault it is.

use std::io;
use std::path::PathBuf;

use levada_record::Offset;

/// Why a batch was not appended. Nothing of it is in the log.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// Environment: room for that many bytes must be made first, with `Log::grow`.
    #[error("room for {bytes} B must be made first")]
    NeedsSpace {
        /// How much.
        bytes: u64,
    },
    /// Peer: the batch is larger than a segment may be.
    #[error("batch of {got_bytes} B exceeds the segment's {max_bytes} B")]
    TooLarge {
        /// Its length.
        got_bytes: u64,
        /// What fits.
        max_bytes: u64,
    },
    /// Peer: the bytes are no batch.
    #[error("batch is not one: {0}")]
    NotABatch(String),
    /// Environment: the file system has no room left.
    #[error("no room on the disk for {bytes} B")]
    DiskFull {
        /// How much was asked for.
        bytes: u64,
    },
    /// Disk: the end of the log could not be read; it may be tried again later.
    #[error("{0}")]
    Unreadable(String),
    /// Disk: the log directory failed; only a restart with recovery clears that.
    #[error("the log directory has failed: {0}")]
    Failed(String),
    /// Disk: the log is damaged from some offset on and takes no more.
    #[error("the log is damaged from offset {from} on: {reason}")]
    Suspect {
        /// First offset that cannot be trusted.
        from: Offset,
        /// What was found.
        reason: String,
    },
    /// The log is being removed.
    #[error("the log is being removed")]
    Removed,
}

/// Why records were not read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// Peer: the log does not hold that offset.
    #[error("offset {asked} is outside {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// First offset kept.
        start: Offset,
        /// Exclusive end.
        end: Offset,
    },
    /// Disk: the bytes are not those that were written; they are never served.
    #[error("segment {path} is damaged at byte {byte}: {reason}")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        byte: u64,
        /// What was found.
        reason: String,
    },
    /// Disk: the kernel refused the read.
    #[error("read {path}: {reason}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the kernel said.
        reason: String,
    },
    /// The log is being removed.
    #[error("the log is being removed")]
    Removed,
}

/// Why a change of a log did not become durable.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// Disk: the log directory failed; only a restart with recovery clears that.
    #[error("the log directory has failed: {0}")]
    Failed(String),
    /// The offset is not in the log.
    #[error("offset {asked} is outside {start}..{end}")]
    OutOfRange {
        /// What was asked for.
        asked: Offset,
        /// First offset kept.
        start: Offset,
        /// Exclusive end.
        end: Offset,
    },
    /// No such log here.
    #[error("no such log on this shard")]
    Unknown,
    /// There is one already.
    #[error("the log exists already")]
    Exists,
    /// Environment: the file system has no room left.
    #[error("no room on the disk")]
    DiskFull,
    /// The bytes needed for it could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}

/// Why a log directory does not open. Every message says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It belongs to another cluster.
    #[error(
        "{path} belongs to cluster {found}, this broker to {expected}: point data_dir elsewhere, or start the broker of that cluster"
    )]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its cluster.
        found: String,
        /// Ours.
        expected: String,
    },
    /// It belongs to another broker.
    #[error(
        "{path} belongs to broker {found}, this is broker {expected}: point data_dir elsewhere"
    )]
    OtherBroker {
        /// The directory.
        path: PathBuf,
        /// Its broker.
        found: i32,
        /// Ours.
        expected: i32,
    },
    /// A newer Levada wrote it.
    #[error("{path} was written in format {version} by a newer Levada: start that version")]
    NewerFormat {
        /// The directory.
        path: PathBuf,
        /// Its format.
        version: u16,
    },
    /// There are partitions but no start record to say whose.
    #[error(
        "{path} holds partitions but its start record is gone or damaged ({reason}): restore start.0 and start.1, or move the directory away to start empty"
    )]
    NoStartRecord {
        /// The directory.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// A process that is going away still holds a file.
    #[error("{path} is still held by another process: wait until it has ended")]
    Held {
        /// Which file.
        path: PathBuf,
    },
    /// The kernel refused.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}
