//! The nouns every crate shares (offsets, epochs, ids, names, limits, topic settings) and the bytes
//! of one batch: header, checksum, Kafka v2 records, columns, compression. `[P]` No clock, socket or file.
//!
//! Bytes from a socket or a disk become a [`batch::BatchView`] through [`batch::BatchView::verify`]
//! and nothing else; the layout is drawn in `docs/formats/batch.md`.
#![deny(clippy::indexing_slicing)]

pub mod batch;
pub mod builder;
pub mod checksum;
pub mod columnar;
pub mod compression;
pub mod convert;
pub mod epoch;
mod generated;
pub mod header;
pub mod id;
pub mod kafka_v2;
pub mod limits;
pub mod name;
pub mod offset;
pub mod produce;
pub mod records;
pub mod size;
pub mod time;
pub mod topic_config;
mod varint;

pub use batch::{BatchError, BatchView, next_batch, peek_header};
pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use columnar::{ColumnarError, ColumnarView};
pub use compression::{Compression, CompressionError};
pub use convert::{Conversion, ConvertError};
pub use epoch::{LeaderEpoch, ProducerEpoch};
pub use header::{
    Attributes, BatchHeader, DIGEST_BYTES, Encoding, HEADER_BYTES, HeaderError, TimestampType,
    digest_header_bytes, rewrite_log_append_time, rewrite_max_timestamp, stamp,
};
pub use id::{
    BrokerId, PartitionId, PartitionIndex, PartitionUid, ProducerId, ShardIndex, TopicId,
};
pub use kafka_v2::RecordError;
pub use limits::VerifyLimits;
pub use name::TopicName;
pub use offset::{Offset, OffsetRange};
pub use produce::{ProduceCheck, ProduceError, ProduceRules, Rewrite, verify_produced};
pub use records::{Record, RecordHeader, RecordHeaders, Records};
pub use size::ByteSize;
pub use time::{Timestamp, TimestampRange};
pub use topic_config::{ConfigError, Durability, RecordValidation, TopicConfig};
