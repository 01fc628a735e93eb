//! Limits and defaults that a controller plans by. `[P]`
//! They may change from start to start: nothing that is applied depends on them.

use levada_protocol::cluster::MAX_FRAME_BYTES;
use levada_protocol::cluster::frame::HEADER_BYTES;

/// Longest host name in a broker's address, in bytes. DNS allows no longer ones.
pub const HOST_BYTES_MAX: usize = 255;
/// Longest listener name, in bytes.
pub const LISTENER_BYTES_MAX: usize = 64;
/// Longest rack name, in bytes.
pub const RACK_BYTES_MAX: usize = 128;
/// Most addresses of one broker.
pub const ADDRESSES_MAX: usize = 8;
/// Most shards of one broker.
pub const SHARDS_MAX: u16 = 1024;
/// Most brokers of one cluster.
pub const BROKERS_MAX: usize = 256;
/// Most items (topics, resources, partitions to confirm) in one request.
pub const ITEMS_MAX: usize = 20_000;

/// Bytes of an image that topics leave to brokers.
pub const BROKERS_WEIGHT_BYTES: usize = 1 << 20;
/// Bytes that all topics may add to an image.
pub const TOPICS_WEIGHT_BYTES: usize = MAX_FRAME_BYTES - HEADER_BYTES - BROKERS_WEIGHT_BYTES;

const _: () = {
    let address = 56 + HOST_BYTES_MAX + LISTENER_BYTES_MAX;
    let broker = 112 + RACK_BYTES_MAX + ADDRESSES_MAX * address;
    // An image always fits a frame: brokers cannot outgrow what topics leave them.
    assert!(BROKERS_MAX * broker + 8192 <= BROKERS_WEIGHT_BYTES);
};

/// What the operator may configure. See `CoordinatorConfig` for the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Partitions of a topic whose creator did not say.
    pub default_partitions: i32,
    /// Replicas of each partition of such a topic; fewer when fewer brokers are alive.
    pub default_replication_factor: i32,
    /// Most partitions of one topic.
    pub max_partitions_per_topic: usize,
    /// Most partitions of all topics.
    pub max_partitions: usize,
    /// Most topics.
    pub max_topics: usize,
    /// Producer ids handed out at once.
    pub producer_id_block: i32,
    /// Bytes that all topics may add to an image; at most [`TOPICS_WEIGHT_BYTES`].
    pub max_topics_weight_bytes: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            default_partitions: 1,
            default_replication_factor: 3,
            max_partitions_per_topic: 10_000,
            max_partitions: 100_000,
            max_topics: 50_000,
            producer_id_block: 1000,
            max_topics_weight_bytes: TOPICS_WEIGHT_BYTES,
        }
    }
}
