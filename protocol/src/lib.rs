//! Bytes to typed messages and back, for everything that Levada sends and receives. `[P]`
//! No socket, no clock: [`frame`] cuts a byte stream into frames, [`kafka`] reads and writes what is in them.

pub mod frame;
pub mod cluster;
mod generated;
pub mod kafka;
