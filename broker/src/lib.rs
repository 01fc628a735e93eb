//! The broker: shards with their partitions, the network, Kafka's APIs.
//!
//! [`Broker::start`] makes one in this process, on threads of its own. The path of a produced batch:
//! `net/connection.rs` → `api/produce.rs` → `shard/router.rs` → `partition.rs` → the engine, and back
//! through `partition/ack.rs` to the connection.

pub mod config;
pub mod server;
pub mod runtime;
pub mod net;
pub mod api;
pub mod shard;
pub mod partition;
pub mod controller_link;
pub mod image;
pub mod budget;
pub mod metrics;
pub mod admin;

pub use config::{BrokerConfig, ConfigError, SETTINGS, Setting};
pub use server::{Broker, BrokerHandle, StartError};
