//! The logs of one shard on its disk: journal, segments, recovery. Knows no network and no replica.
//!
//! The engine's doing is async over two small doors, [`disk::Disk`] and [`runtime::Runtime`]; its
//! decisions are pure. In production the doors lead to glommio, in the simulator to a disk that
//! forgets and a clock that obeys.

pub mod disk;
pub mod runtime;
