//! The Rust client: what programs, the command line, the bench and the tests speak to a cluster with.
//!
//! [`Cluster`] knows the brokers and keeps one [`connection::Connection`] to each; [`producer`]
//! writes, [`consumer`] reads, [`admin`] manages. All of it runs on any Tokio runtime; what is decided
//! (which version, which partition, which batch is full, what to try again and when) is in files
//! marked `[P]` that know no runtime at all.
//!
//! Programs to begin with are in `client/examples`; `tests/tests/client_examples.rs` runs them.
//!
//! Every limit has a name and a default in the options of its part. A broker is a stranger: its bytes
//! are verified before anything trusts them.
#![deny(clippy::indexing_slicing)]

mod clock;
pub mod admin;
mod batcher;
pub mod cluster;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod metadata;
pub mod partitioner;
pub mod producer;
pub mod retry;

pub use admin::Admin;
pub use cluster::{AutoCreate, Cluster, ClusterOptions, ShardPorts};
pub use consumer::{Consumer, ConsumerOptions, PartitionRecords, Position};
pub use error::{CallError, ClientError, ConnectError, Refusal};
pub use producer::{
    Acks, Delivery, DeliveryError, Encoding, Producer, ProducerOptions, ProducerRecord,
};
// What the options and records of this crate are made of: its users need no second crate.
pub use levada_record::{Compression, Offset, Record, RecordHeader, Timestamp};
