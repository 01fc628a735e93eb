//! Names that machines use: topics, partitions, brokers, shards, producers. `[P]`

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64;

/// One creation of a topic: a topic deleted and created again under its name has another id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// Kafka's "no id".
    pub const ZERO: TopicId = TopicId([0; 16]);

    /// A version 4 id from 16 random bytes; the caller owns the randomness.
    pub fn from_random_bytes(bytes: [u8; 16]) -> Self {
        TopicId(uuid::Builder::from_random_bytes(bytes).into_uuid().into_bytes())
    }

    /// Whether it is [`TopicId::ZERO`].
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }

    /// The bytes in the order in which Kafka sends them.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 16 bytes are 128 bits: 21 digits of 6 bits and one of 2.
const BASE64_DIGITS: usize = 22;

impl fmt::Display for TopicId {
    /// 22 digits of base64url without padding, as Kafka's tools print it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = u128::from_be_bytes(self.0);
        let mut digits = ['A'; BASE64_DIGITS];
        for digit in &mut digits {
            // The top six bits of what is left; the last digit holds two bits and four zeros.
            let top = usize::try_from(rest >> 122).unwrap_or_default();
            *digit = BASE64_URL.get(top).copied().map_or('A', char::from);
            rest <<= 6;
        }
        for digit in digits {
            write!(f, "{digit}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TopicId({self})")
    }
}

/// The text is neither 22 digits of base64url nor a hyphenated UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {text:?} as topic id: expected 22 base64url digits or a hyphenated uuid")]
pub struct ParseTopicIdError {
    text: String,
}

impl FromStr for TopicId {
    type Err = ParseTopicIdError;

    /// Reads what `Display` writes, and hyphenated hexadecimal.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseTopicIdError { text: text.chars().take(64).collect() };
        if text.len() != BASE64_DIGITS {
            let uuid = uuid::Uuid::try_parse(text).map_err(|_| refuse())?;
            return Ok(TopicId(uuid.into_bytes()));
        }
        let mut bits: u128 = 0;
        for (index, digit) in text.bytes().enumerate() {
            let value = BASE64_URL.iter().position(|&known| known == digit).ok_or_else(refuse)?;
            let value = u128::try_from(value).map_err(|_| refuse())?;
            if index + 1 < BASE64_DIGITS {
                bits = (bits << 6) | value;
            } else if value.trailing_zeros() >= 4 {
                bits = (bits << 2) | (value >> 4);
            } else {
                return Err(refuse()); // A second spelling of the same id.
            }
        }
        Ok(TopicId(bits.to_be_bytes()))
    }
}

/// Which partition of its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PartitionIndex(pub i32);

/// One partition of one creation of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// The partition of it.
    pub index: PartitionIndex,
}

impl PartitionId {
    /// Puts the two together.
    pub const fn new(topic: TopicId, index: PartitionIndex) -> Self {
        PartitionId { topic, index }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

/// Eight bytes that stand for a [`PartitionId`] on disk; they enter every digest of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionUid(pub u64);

impl PartitionUid {
    /// XXH3-64 over the topic id (16 bytes) and the index (4 bytes, big endian). The same on every
    /// replica and for ever: it is part of the on-disk format.
    pub fn derive(partition: PartitionId) -> Self {
        let mut bytes = [0; 20];
        let (topic, index) = bytes.split_at_mut(16);
        topic.copy_from_slice(&partition.topic.0);
        index.copy_from_slice(&partition.index.0.to_be_bytes());
        PartitionUid(xxh3_64(&bytes))
    }
}

impl fmt::Display for PartitionUid {
    /// Sixteen hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A broker process, as configured by its operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BrokerId(pub i32);

impl BrokerId {
    /// Kafka's "no broker": a partition without leader, a request that is not a replica's.
    pub const NONE: BrokerId = BrokerId(-1);
}

/// A core of a broker, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ShardIndex(pub u16);

/// An idempotent or transactional producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProducerId(pub i64);

impl ProducerId {
    /// The producer is not idempotent.
    pub const NONE: ProducerId = ProducerId(-1);

    /// Whether the batch belongs to an idempotent producer. Every negative number says no.
    pub const fn is_some(self) -> bool {
        self.0 >= 0
    }
}

macro_rules! display_as_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
display_as_number!(PartitionIndex, BrokerId, ShardIndex, ProducerId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topic_ids_print_as_kafka_prints_them() {
        // Kafka's Uuid.ONE_UUID and METADATA_TOPIC_ID are this number.
        assert_eq!(TopicId(1u128.to_be_bytes()).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(TopicId([0xff; 16]).to_string(), "_____________________w");
        let hyphenated = "00000000-0000-0000-0000-000000000001";
        assert_eq!(hyphenated.parse(), Ok(TopicId(1u128.to_be_bytes())));
    }

    #[test]
    fn topic_ids_have_one_spelling_in_base64() {
        assert!("AAAAAAAAAAAAAAAAAAAAAR".parse::<TopicId>().is_err());
        assert!("AAAAAAAAAAAAAAAAAAAA+Q".parse::<TopicId>().is_err());
        assert!("é".repeat(11).parse::<TopicId>().is_err());
        assert!("".parse::<TopicId>().is_err());
    }

    #[test]
    fn partition_uid_is_part_of_the_format_and_never_changes() {
        let id = PartitionId::new(TopicId([7; 16]), PartitionIndex(3));
        let uid = PartitionUid::derive(id);
        assert_eq!(uid, PartitionUid::derive(id));
        assert_eq!(uid.to_string(), "b858dcc0b49728e4");
        assert_ne!(uid, PartitionUid::derive(PartitionId::new(id.topic, PartitionIndex(4))));
    }

    proptest! {
        #[test]
        fn topic_ids_survive_printing_and_parsing(bytes: [u8; 16]) {
            let id = TopicId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }
    }
}
