//! Client connections: accepted on any shard, frames in, replies out in request order.

pub mod listener;
pub mod connections;
pub mod connection;
pub mod reply;
