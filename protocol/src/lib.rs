//! Bytes to typed messages and back, for everything that Levada sends and receives. `[P]`
//! No socket, no clock: [`frame`] cuts a byte stream into frames, [`kafka`] reads and writes what clients put into
//! them, [`cluster`] what brokers and coordinators say to each other.

pub mod frame;
pub mod cluster;
mod generated;
pub mod kafka;
