//! The bench: loads a cluster as real clients do and tells how fast it was, and whether to believe it.
//!
//! [`run`] sends records on a schedule that is decided beforehand, so that a stalled broker is not
//! asked less (no coordinated omission), checks on the way that none is lost, doubled or out of order,
//! and gives histograms. `limits` asks the bare disk and the bare loopback the same, so that every
//! figure is also a share of what the machine can do.
//!
//! Decisions are in files marked `[P]`: schedule, payload, checks, statistics, drawing. The others do.

/// Adds formatted text to a string.
macro_rules! add {
    ($text:expr, $($part:tt)*) => { $crate::add(&mut $text, format_args!($($part)*)) };
}

pub mod check;
pub mod clock;
pub mod compare;
pub mod environment;
pub mod error;
pub mod files;
pub mod limits;
pub mod number;
pub mod options;
pub mod payload;
pub mod process;
pub mod recorder;
pub mod report;
pub mod result;
pub mod run;
pub mod schedule;
pub mod search;
pub mod title;
pub mod verdict;
pub mod workload;

pub use error::BenchError;
pub use options::Options;

/// Behind the macro of the same name.
fn add(text: &mut String, parts: std::fmt::Arguments<'_>) {
    std::fmt::Write::write_fmt(text, parts).expect("a string takes everything");
}
