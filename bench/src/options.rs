//! What a run is asked to do, and which of it makes sense. `[P]`

use levada_client::{Acks, ClusterOptions, ProducerOptions};
use levada_record::Compression;
use serde::{Deserialize, Serialize};

use crate::error::BenchError;
use crate::payload::STAMP_BYTES;
use crate::schedule::{Arrivals, Rate};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Producers alone; what they wrote is read back and checked afterwards, outside of the measurement.
    Produce,
    /// Consumers alone, on records that were written before.
    Consume,
    /// Both at once, and the way from one to the other.
    EndToEnd,
}

/// Whose code speaks to the broker. Another client is another row here and another one in `run/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// Ours.
    Levada,
    /// The C library that most of Kafka's clients stand on: a judge that is not ours. Only in builds with the
    /// cargo feature `librdkafka`.
    Librdkafka,
}

/// How our own client lays records into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// In columns where the broker takes them, else as Kafka does.
    #[default]
    Auto,
    /// In columns.
    Columnar,
    /// Kafka's record batch v2, which every broker takes.
    Kafka,
}

/// Which records have keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// None: a partition is kept for a batch, then it is the next one's turn.
    #[default]
    None,
    /// All, in turn.
    RoundRobin,
    /// All, by chance.
    Random,
}

/// Who must have a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcksOption {
    /// Nobody.
    #[serde(rename = "0")]
    Zero,
    /// The leader.
    #[serde(rename = "1")]
    One,
    /// All in sync.
    #[serde(rename = "all")]
    All,
}

/// The durability that the topic is created with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// Acknowledged means on stable storage.
    Fsync,
    /// Acknowledged means written by the replicas.
    Replicated,
    /// Whatever the broker does by itself: brokers other than Levada know no such setting.
    Default,
}

/// A run, wholly described: the same options are the same load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// For people, and for file names.
    pub name: String,
    /// What is measured.
    pub mode: Mode,
    /// Whose code speaks.
    pub client: ClientKind,
    /// How batches are written.
    pub encoding: Encoding,
    /// Records a second, of all producers together.
    pub rate: Rate,
    /// How they are spread.
    pub arrivals: Arrivals,
    /// Of everything that is left to chance.
    pub seed: u64,
    /// Bytes of a record's value.
    pub message_bytes: u32,
    /// Share of the value that is noise, 0 to 1.
    pub random_share: f64,
    /// How many different values there are.
    pub payloads: u32,
    /// Which records have keys.
    pub keys: Keys,
    /// How many different keys.
    pub key_count: u32,
    /// Topics that are created.
    pub topics: u32,
    /// Partitions of each.
    pub partitions: u32,
    /// Replicas of each partition.
    pub replicas: u16,
    /// What acknowledged means on disk.
    pub durability: Durability,
    /// Producers, spread over the topics.
    pub producers: u32,
    /// Times that every record is read.
    pub subscriptions: u32,
    /// Readers that share the partitions of one subscription.
    pub consumers: u32,
    /// Threads of producers, and as many of consumers.
    pub workers: u32,
    /// First CPU to pin workers to; they take it and the next ones.
    pub pin: Option<u32>,
    /// Who must have a record before it counts.
    pub acks: AcksOption,
    /// How batches are compressed.
    pub compression: CompressionOption,
    /// How long a batch waits for more records, in ms.
    pub linger_ms: u32,
    /// Most bytes of a batch.
    pub batch_bytes: u32,
    /// Requests of a producer in flight to a broker.
    pub in_flight: u32,
    /// Memory of a producer for records that are not acknowledged.
    pub memory_bytes: u32,
    /// Not measured, at the beginning.
    pub warmup_s: u32,
    /// Measured.
    pub duration_s: u32,
    /// Records that are written before, with [`Mode::Consume`].
    pub backlog_records: u64,
    /// How long a record is tried, and everything waited for at the end.
    pub timeout_s: u32,
    /// Whether what was only produced is read back and checked.
    pub verify: bool,
    /// The 99th percentile of the generator's own lag above which a run is void, in µs.
    pub lag_limit_us: u64,
}

/// The codecs, by their names in run files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CompressionOption {
    /// None.
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

impl CompressionOption {
    /// As the client calls it.
    pub fn codec(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "run".to_owned(),
            mode: Mode::EndToEnd,
            client: ClientKind::Levada,
            encoding: Encoding::default(),
            rate: Rate::Maximum,
            arrivals: Arrivals::default(),
            seed: 1,
            message_bytes: 1024,
            random_share: 1.0,
            payloads: 64,
            keys: Keys::None,
            key_count: 1000,
            topics: 1,
            partitions: 1,
            replicas: 1,
            durability: Durability::Default,
            producers: 1,
            subscriptions: 1,
            consumers: 1,
            workers: 1,
            pin: None,
            acks: AcksOption::All,
            compression: CompressionOption::None,
            linger_ms: 5,
            batch_bytes: 256 << 10,
            in_flight: 5,
            memory_bytes: 64 << 20,
            warmup_s: 5,
            duration_s: 30,
            backlog_records: 1_000_000,
            timeout_s: 30,
            verify: true,
            lag_limit_us: 1000,
        }
    }
}

/// What to do about a build that has no librdkafka.
pub(crate) fn without_librdkafka() -> BenchError {
    let reason = "this build is without librdkafka; one with it: \
                  cargo build --release --features librdkafka";
    BenchError::option("--client", reason)
}

/// Longest run, in s: an histogram's largest value is an hour, too.
const DURATION_S_MAX: u32 = 7 * 24 * 3600;
/// Most bytes that are given to payloads.
const PAYLOADS_BYTES_MAX: u64 = 1 << 30;

impl Options {
    /// Whether what was asked for makes sense.
    ///
    /// # Errors
    /// [`BenchError::Option`] with the first that does not.
    pub fn validate(&self) -> Result<(), BenchError> {
        let least = |option, value: u64, least: u64| {
            let enough = least <= value;
            let refusal = || BenchError::option(option, format!("{value} is less than {least}"));
            enough.then_some(()).ok_or_else(refusal)
        };
        least("--partitions", self.partitions.into(), 1)?;
        least("--topics", self.topics.into(), 1)?;
        least("--producers", self.producers.into(), 1)?;
        least("--consumers", self.consumers.into(), 1)?;
        least("--subscriptions", self.subscriptions.into(), 1)?;
        least("--workers", self.workers.into(), 1)?;
        least("--replicas", self.replicas.into(), 1)?;
        least("--payloads", self.payloads.into(), 1)?;
        least("--key-count", self.key_count.into(), 1)?;
        least("--timeout", self.timeout_s.into(), 1)?;
        least("--in-flight", self.in_flight.into(), 1)?;
        least("--batch-bytes", self.batch_bytes.into(), 1024)?;
        let stamp = crate::number::count(STAMP_BYTES);
        if u64::from(self.message_bytes) < stamp {
            let reason = format!(
                "{} B is too small: a record needs {stamp} B to say which it is and when it left",
                self.message_bytes
            );
            return Err(BenchError::option("--message-bytes", reason));
        }
        if u64::from(self.message_bytes) * u64::from(self.payloads) > PAYLOADS_BYTES_MAX {
            let reason = "so many values of that size need more than 1 GiB";
            return Err(BenchError::option("--payloads", reason));
        }
        if self.memory_bytes < self.batch_bytes.max(self.message_bytes).saturating_add(1024) {
            return Err(BenchError::option("--memory-bytes", "there must be room for a batch"));
        }
        if self.client == ClientKind::Librdkafka && cfg!(not(feature = "librdkafka")) {
            return Err(without_librdkafka());
        }
        if self.client == ClientKind::Librdkafka && self.encoding == Encoding::Columnar {
            let reason = "librdkafka writes Kafka's batches only; columns are our own client's";
            return Err(BenchError::option("--encoding", reason));
        }
        if (self.client == ClientKind::Levada || self.acks == AcksOption::All) && self.in_flight > 5
        {
            let reason = "an idempotent producer has at most 5 requests in flight";
            return Err(BenchError::option("--in-flight", reason));
        }
        if self.mode != Mode::Consume && !(1..=DURATION_S_MAX).contains(&self.duration_s) {
            return Err(BenchError::option("--duration", "from 1 s to a week"));
        }
        if self.warmup_s > DURATION_S_MAX {
            return Err(BenchError::option("--warmup", "at most a week"));
        }
        if !(0.0..=1.0).contains(&self.random_share) {
            return Err(BenchError::option("--random", "a share from 0 to 1"));
        }
        if self.producers < self.topics {
            return Err(BenchError::option("--producers", "every topic needs one"));
        }
        if self.workers > self.producers {
            return Err(BenchError::option("--workers", "more threads than producers"));
        }
        if self.acks == AcksOption::Zero && self.mode == Mode::Produce && self.verify {
            let reason = "with acks 0 nobody knows what arrived; add --no-verify";
            return Err(BenchError::option("--acks", reason));
        }
        match self.mode {
            Mode::Consume if self.rate != Rate::Maximum => {
                Err(BenchError::option("--rate", "consumers alone read as fast as they can"))
            }
            Mode::Consume if self.backlog_records == 0 => {
                Err(BenchError::option("--backlog", "there is nothing to consume"))
            }
            _ => Ok(()),
        }
    }

    /// Whether a sender waits for the system under test: then there is no latency from an intended
    /// moment, only throughput and the time a request took.
    pub fn is_closed_loop(&self) -> bool {
        self.rate == Rate::Maximum
    }

    /// Options of a producer of ours.
    pub fn producer_options(&self) -> ProducerOptions {
        let timeout = tokio::time::Duration::from_secs(self.timeout_s.into());
        ProducerOptions {
            acks: match self.acks {
                AcksOption::Zero => Acks::None,
                AcksOption::One => Acks::Leader,
                AcksOption::All => Acks::All,
            },
            encoding: match self.encoding {
                Encoding::Auto => levada_client::Encoding::Auto,
                Encoding::Columnar => levada_client::Encoding::Columnar,
                Encoding::Kafka => levada_client::Encoding::Kafka,
            },
            compression: self.compression.codec(),
            batch_bytes: self.batch_bytes,
            linger: tokio::time::Duration::from_millis(self.linger_ms.into()),
            memory_bytes: self.memory_bytes,
            in_flight_max: self.in_flight,
            delivery_timeout: timeout,
            ..ProducerOptions::default()
        }
    }

    /// How a cluster is reached.
    pub fn cluster_options(&self) -> ClusterOptions {
        let patience = tokio::time::Duration::from_secs(self.timeout_s.into());
        ClusterOptions { patience, ..ClusterOptions::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Options), option: &str) {
        let mut options = Options::default();
        change(&mut options);
        let error = options.validate().unwrap_err().to_string();
        assert!(error.starts_with(option), "{error}");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        Options::default().validate().unwrap();
        refused(|options| options.message_bytes = 23, "--message-bytes");
        refused(|options| options.partitions = 0, "--partitions");
        refused(|options| options.workers = 2, "--workers");
        refused(|options| options.duration_s = 0, "--duration");
        refused(|options| options.memory_bytes = 1000, "--memory-bytes");
        refused(|options| options.in_flight = 6, "--in-flight");
        refused(|options| options.random_share = f64::NAN, "--random");
        refused(|options| options.topics = 2, "--producers");
        let columns = |options: &mut Options| {
            (options.client, options.encoding) = (ClientKind::Librdkafka, Encoding::Columnar);
        };
        refused(columns, if cfg!(feature = "librdkafka") { "--encoding" } else { "--client" });
        refused(|options| options.payloads = u32::MAX, "--payloads");
        refused(
            |options| (options.mode, options.rate) = (Mode::Consume, Rate::Fixed(1.0)),
            "--rate",
        );
        refused(
            |options| (options.mode, options.acks) = (Mode::Produce, AcksOption::Zero),
            "--acks",
        );
    }

    #[test]
    fn options_come_back_from_a_run_file() {
        let options = Options { rate: Rate::Ramp { from: 1.0, to: 2.0 }, ..Options::default() };
        let text = serde_json::to_string(&options).unwrap();
        assert_eq!(serde_json::from_str::<Options>(&text).unwrap(), options);
    }
}
