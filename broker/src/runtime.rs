//! The glommio shell: what stands between the broker and the executor. Everything of the executor
//! that bites is met here, once; the rest of the broker knows only `levada_engine::Runtime`.

pub mod event;
pub mod executors;
pub mod lock;
pub mod placement;
pub mod preflight;
pub mod socket;
pub mod space;
