//! The rows of the matrix: what a client is asked to do, and what the broker must serve for it. `[P]`

use std::collections::BTreeMap;
use std::time::Duration;

/// Partitions of the topic in which the places of keys are compared.
pub(crate) const KEY_PARTITIONS: i32 = 6;
/// Records of the operation `order_100k`.
pub(crate) const ORDER_RECORDS: usize = 100_000;
/// Records of the operation `restart`.
pub(crate) const RESTART_RECORDS: usize = 30_000;
/// Value of the operation `large_batch`: fits the default limit of a batch.
pub(crate) const LARGE_BYTES: usize = 900_000;
/// Value of the operation `too_large`: beyond the default limit of a batch.
pub(crate) const TOO_LARGE_BYTES: usize = 1_200_000;

/// What an operation needs beyond topics and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    Nothing,
    /// A broker that may be killed.
    OwnBroker,
    ConsumerGroups,
    Transactions,
    Acls,
    Sasl,
}

impl Needs {
    /// Why a broker that serves these APIs is not asked, if so.
    pub(crate) fn missing(self, served: &BTreeMap<i16, (i16, i16)>) -> Option<&'static str> {
        const JOIN_GROUP: i16 = 11;
        const SASL_HANDSHAKE: i16 = 17;
        const END_TXN: i16 = 26;
        const DESCRIBE_ACLS: i16 = 29;
        let (key, reason, served_reason) = match self {
            Self::Nothing | Self::OwnBroker => return None,
            Self::ConsumerGroups => (JOIN_GROUP, "needs consumer groups", None),
            Self::Transactions => (END_TXN, "needs transactions", None),
            Self::Acls => (DESCRIBE_ACLS, "needs ACLs", Some("the suite does not check ACLs")),
            Self::Sasl => (SASL_HANDSHAKE, "needs SASL", Some("the suite does not check SASL")),
        };
        if served.contains_key(&key) { served_reason } else { Some(reason) }
    }
}

/// One row.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation {
    /// As the drivers and `--operations` call it.
    pub(crate) name: &'static str,
    /// As the matrix shows it.
    pub(crate) title: &'static str,
    pub(crate) needs: Needs,
    /// The driver is ended when it takes longer.
    pub(crate) limit: Duration,
    /// The codec (Kafka's number) that the topic's batches must have afterwards.
    pub(crate) stored_codec: Option<i16>,
}

const LIMIT: Duration = Duration::from_secs(45);
const LONG_LIMIT: Duration = Duration::from_mins(2);

const fn row(name: &'static str, title: &'static str) -> Operation {
    Operation { name, title, needs: Needs::Nothing, limit: LIMIT, stored_codec: None }
}

const fn long(name: &'static str, title: &'static str, needs: Needs) -> Operation {
    Operation { name, title, needs, limit: LONG_LIMIT, stored_codec: None }
}

const fn codec(name: &'static str, title: &'static str, stored_codec: i16) -> Operation {
    let stored_codec = Some(stored_codec);
    Operation { name, title, needs: Needs::Nothing, limit: LIMIT, stored_codec }
}

const fn needing(name: &'static str, title: &'static str, needs: Needs) -> Operation {
    Operation { name, title, needs, limit: LIMIT, stored_codec: None }
}

/// All rows, in the order in which each client performs them.
pub(crate) static OPERATIONS: &[Operation] = &[
    row("create_topic", "create a topic"),
    row("create_topic_configured", "create with 6 partitions, settings"),
    row("create_topic_twice", "create twice: refused"),
    row("invalid_topic_name", "invalid topic name: refused"),
    row("invalid_partition_count", "no partitions: refused"),
    row("unknown_config", "unknown setting: refused"),
    row("list_topics", "list topics"),
    row("describe_topic", "describe a topic"),
    row("unknown_topic", "unknown topic: its error"),
    row("auto_create", "automatic creation"),
    row("create_partitions", "add partitions"),
    row("delete_topic", "delete a topic"),
    row("recreate_topic", "delete and create again"),
    row("describe_configs", "describe settings"),
    row("alter_configs", "alter settings"),
    row("alter_configs_legacy", "alter settings, the old way"),
    row("describe_cluster", "describe the cluster"),
    row("describe_log_dirs", "describe log directories"),
    row("delete_records", "delete records"),
    row("acks_0", "produce, acks=0"),
    row("acks_1", "produce, acks=1"),
    row("acks_all", "produce, acks=all"),
    row("murmur2", "partition by key as Java does"),
    row("headers", "headers"),
    row("null_key_value", "null and empty keys and values"),
    row("explicit_partition", "produce to a partition"),
    row("create_time", "the producer's timestamps"),
    row("log_append_time", "time of append"),
    codec("gzip", "gzip", 1),
    codec("snappy", "snappy", 2),
    codec("lz4", "lz4", 3),
    codec("zstd", "zstd", 4),
    row("large_batch", "a batch of 900 kB"),
    row("too_large", "a batch too large: refused"),
    row("idempotent", "idempotent producer"),
    long("order_100k", "order of 100,000 records", Needs::Nothing),
    row("from_earliest", "consume from the start"),
    row("from_latest", "consume from the end"),
    row("from_offset", "consume from an offset"),
    row("from_timestamp", "consume from a timestamp"),
    row("offsets_for_times", "offsets for times"),
    row("max_timestamp", "offset of the newest timestamp"),
    row("watermarks", "start and end of a partition"),
    row("out_of_range", "offset out of range"),
    row("long_poll", "a waiting fetch wakes up"),
    long("restart", "kill -9, restart, go on", Needs::OwnBroker),
    needing("subscribe", "subscribe in a group", Needs::ConsumerGroups),
    needing("commit_resume", "commit and resume", Needs::ConsumerGroups),
    needing("list_groups", "list groups", Needs::ConsumerGroups),
    needing("transaction", "transactions", Needs::Transactions),
    needing("acls", "ACLs", Needs::Acls),
    needing("sasl", "SASL", Needs::Sasl),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_into_topic_names() {
        for (index, operation) in OPERATIONS.iter().enumerate() {
            assert!(OPERATIONS[..index].iter().all(|other| other.name != operation.name));
            let legal = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            assert!(operation.name.chars().all(legal), "{}", operation.name);
        }
    }

    #[test]
    fn groups_are_skipped_exactly_while_the_broker_does_not_serve_them() {
        let mut served = BTreeMap::from([(0, (0, 13)), (1, (4, 18))]);
        assert_eq!(Needs::ConsumerGroups.missing(&served), Some("needs consumer groups"));
        served.insert(11, (0, 9));
        assert_eq!(Needs::ConsumerGroups.missing(&served), None);
        assert_eq!(Needs::Nothing.missing(&BTreeMap::new()), None);
    }
}
