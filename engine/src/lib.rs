//! The logs of one shard on its disk: journal, segments, recovery. Knows no network and no replica.
//!
//! The engine's doing is async over two small doors, [`disk::Disk`] and [`runtime::Runtime`]; its
//! decisions are pure. In production the doors lead to glommio, in the simulator to a disk that
//! forgets and a clock that obeys.

pub mod checkpoint;
pub mod copies;
pub mod digest;
pub mod disk;
mod epochs;
pub mod error;
mod fields;
pub mod journal;
mod log;
pub mod manifest;
mod owed;
pub mod planted;
pub mod producers;
mod recovery;
mod retention;
mod round;
pub mod runtime;
pub mod segment;
mod signal;
mod start_record;
mod store;
mod tail;

pub use digest::Digest;
pub use disk::direct::DirectDisk;
pub use disk::{SharedDisk, Slice};
pub use error::{AppendError, OpenError, ReadError, StoreError};
pub use fields::FieldError;
pub use log::{Appended, Log, LogConfig, ReadOutcome, Suspicion};
pub use producers::{Remembered, SequenceVerdict};
pub use recovery::{
    ActiveSeed, DirectoryIdentity, DirectoryOptions, LogSeed, OpenedDirectory, Placement,
    RecoveryReport, mark_clean, open_directory, peek_identity,
};
pub use round::RoundReport;
pub use round::path::{THROUGH_FILES_MAX, THROUGH_MAX_BYTES, THROUGH_MIN_BYTES};
pub use runtime::glommio::GlommioRuntime;
pub use runtime::{Now, Runtime, SharedRuntime};
pub use signal::Signal;
pub use store::{Store, StoreConfig, StoreListener, StoreSeed, StoreStats};
