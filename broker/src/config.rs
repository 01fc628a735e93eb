//! What a broker can be told: one table of keys with unit, default and meaning. Validated once,
//! before anything starts; a key that is not in the table is an error that names it.
//!
//! The command line merges file, `LEVADA_<KEY>` variables and flags into one TOML table and hands
//! it to [`BrokerConfig::from_table`]. `docs/configuration.md` is printed from [`SETTINGS`].

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One key, for documentation and for the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The key in the file. As a variable: `LEVADA_` and the key in capitals.
    pub key: &'static str,
    /// The unit of its value, or what kind of value it is.
    pub unit: &'static str,
    /// What it does.
    pub doc: &'static str,
}

macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:expr, $unit:literal;)*) => {
        /// The configuration of one broker. Keys that are left out have their defaults.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct BrokerConfig {
            $($(#[doc = $doc])+ pub $key: $type,)*
        }

        impl Default for BrokerConfig {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }

        /// Every key of [`BrokerConfig`], in its order.
        pub const SETTINGS: &[Setting] = &[
            $(Setting { key: stringify!($key), unit: $unit, doc: concat!($($doc, "\n"),+) },)*
        ];
    };
}

settings! {
    /// Number of this broker in its cluster. Left out, the coordinator gives one, the same again
    /// for the same data directory.
    broker_id: Option<i32> = None, "number";
    /// Directory of the log. One process at a time may use it.
    data_dir: PathBuf = PathBuf::from("levada-data/broker"), "path";
    /// Where Kafka clients connect. Port 0 takes any free port.
    listen: SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9092)), "address:port";
    /// What clients and other brokers are told to connect to. Left out, each client is told the
    /// address on which it reached this broker.
    advertised: Option<String> = None, "host:port";
    /// Port on which shard 0 takes connections to its own partitions; shard n takes them n ports
    /// behind it. Levada's clients use these ports when they can, and `listen` otherwise. 0 opens
    /// none. Left out: any free ports when `listen` is a loopback address and there are several
    /// shards, else none.
    shard_port: Option<u16> = None, "port";
    /// The coordinators of the cluster; the first that answers is used.
    coordinators: Vec<String> = vec![format!("127.0.0.1:{}", levada_protocol::cluster::COORDINATOR_PORT)], "list of host:port";
    /// Where this broker stands; replicas of a partition are spread over racks.
    rack: Option<String> = None, "text";
    /// Where `/metrics` and `/health` are served. An empty text turns them off.
    admin_listen: String = "127.0.0.1:9644".into(), "address:port";
    /// Number of shards: threads, each with its own partitions. 0 takes one per CPU that the
    /// process may use.
    shards: u16 = 0, "shards";
    /// Whether each shard is bound to one CPU. Ignored with more shards than CPUs.
    pin_shards: bool = true, "true or false";
    /// Memory that each shard registers with the kernel for its disk operations. Costs three times
    /// as much of the limit of locked memory; made smaller when that is low.
    io_memory_bytes: u64 = 1 << 20, "bytes";

    /// Whether Metadata for a missing topic, by a client that allows it, creates the topic.
    auto_create_topics: bool = true, "true or false";

    /// Largest request frame. A longer one closes its connection.
    max_frame_bytes: u64 = 100 << 20, "bytes";
    /// Bytes of requests that one connection may have read and not yet handled. A single larger
    /// frame is taken when nothing else is in flight.
    connection_inflight_bytes: u64 = 16 << 20, "bytes";
    /// Replies that one connection may owe. When reached, the broker stops reading from it.
    connection_replies_max: u64 = 1024, "replies";
    /// Bytes of requests that all connections of a shard may have read and not yet handled.
    shard_request_bytes: u64 = 128 << 20, "bytes";
    /// Bytes of fetched records that a shard may hold for replies that are not yet sent.
    shard_response_bytes: u64 = 128 << 20, "bytes";
    /// Bytes that a shard may hold to translate columnar batches for Kafka clients. A batch that needs
    /// more, or is compressed, is translated when no other is.
    shard_translation_bytes: u64 = 64 << 20, "bytes";
    /// Bytes of batches that a shard may have appended and not yet committed.
    shard_append_bytes: u64 = 64 << 20, "bytes";
    /// Mails that may wait in the mailbox of a shard.
    mailbox_capacity: u64 = 4096, "mails";
    /// Open client connections per shard. Beyond it a new one is closed at once.
    connections_max: u64 = 10_000, "connections";
    /// How long a new connection may take to send its first whole request.
    first_frame_deadline_ms: u64 = 5_000, "ms";
    /// How long a connection may be silent.
    idle_deadline_ms: u64 = 600_000, "ms";
    /// Slowest pace at which a request may arrive once it has begun.
    body_min_rate_bytes_per_s: u64 = 16 << 10, "bytes per second";
    /// How long the peer may take no byte of a reply that is being sent.
    reply_write_deadline_ms: u64 = 30_000, "ms";
    /// How long a stopping broker waits for the replies it owes.
    stop_grace_ms: u64 = 5_000, "ms";

    /// Most bytes of records in one answer to Fetch, whatever the client asks for.
    fetch_max_bytes: u64 = 55 << 20, "bytes";
    /// Longest time a Fetch may wait for records, whatever the client asks for.
    fetch_max_wait_ms: u64 = 60_000, "ms";
    /// Fetch sessions kept per shard. 0 turns sessions off.
    fetch_sessions_max: u64 = 1_000, "sessions";
    /// Partitions that all fetch sessions of a shard may hold together.
    fetch_session_partitions_max: u64 = 100_000, "partitions";
    /// How long a fetch session must be unused before another may take its place.
    fetch_session_idle_ms: u64 = 120_000, "ms";
    /// Longest time a Produce may wait for its acknowledgement, whatever the client asks for.
    produce_timeout_max_ms: u64 = 300_000, "ms";

    /// How often segments are checked against retention.ms and retention.bytes.
    retention_check_ms: u64 = 60_000, "ms";
    /// Size of one journal file; a round of the journal takes at most a quarter.
    journal_file_bytes: u64 = 16 << 20, "bytes";
    /// Most journal files per shard.
    journal_files_max: u64 = 16, "files";
    /// Bytes of records that each shard keeps in memory for fetches: recent ones, and up to half of it what it reads ahead of consumers that go through old ones.
    cache_bytes: u64 = 64 << 20, "bytes";
    /// Most topics that may be asked for in one Metadata request.
    metadata_topics_max: u64 = 100_000, "topics";
    /// Most topics, partitions or resources that one administrative request may name.
    admin_items_max: u64 = 20_000, "items";
    /// Longest time an administrative request may wait until its changes are in effect, whatever
    /// the client asks for.
    admin_timeout_max_ms: u64 = 300_000, "ms";
}

/// A setting that makes no sense; the broker does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, or a value of another type.
    #[error("read the configuration: {message}")]
    Parse {
        /// What the parser said; names the key.
        message: String,
    },
    /// A value outside of what the key takes.
    #[error("{key} is {got}, expected {expected}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        got: String,
        /// What it takes.
        expected: String,
    },
}

/// Lowest and highest value of a key whose value is a number.
const RANGES: &[(&str, u64, u64)] = &[
    ("io_memory_bytes", 64 << 10, 1 << 30),
    ("max_frame_bytes", 1 << 10, (1 << 31) - 1),
    ("connection_inflight_bytes", 1 << 10, 1 << 40),
    ("connection_replies_max", 1, 1 << 20),
    ("shard_request_bytes", 1 << 20, 1 << 40),
    ("shard_response_bytes", 1 << 20, 1 << 40),
    ("shard_translation_bytes", 1 << 20, 1 << 40),
    ("shard_append_bytes", 1 << 20, 1 << 40),
    ("mailbox_capacity", 1, 1 << 20),
    ("connections_max", 1, 1 << 20),
    ("first_frame_deadline_ms", 100, 3_600_000),
    ("idle_deadline_ms", 100, 86_400_000),
    ("body_min_rate_bytes_per_s", 1, 1 << 40),
    ("reply_write_deadline_ms", 100, 3_600_000),
    ("stop_grace_ms", 0, 600_000),
    ("fetch_max_bytes", 1 << 10, (1 << 31) - 1),
    ("fetch_max_wait_ms", 0, 3_600_000),
    ("fetch_sessions_max", 0, 1 << 20),
    ("fetch_session_partitions_max", 0, 1 << 30),
    ("fetch_session_idle_ms", 0, 86_400_000),
    ("produce_timeout_max_ms", 1, 86_400_000),
    ("retention_check_ms", 100, 86_400_000),
    ("journal_file_bytes", 1 << 20, 1 << 30),
    ("journal_files_max", 2, 1024),
    ("cache_bytes", 0, 1 << 40),
    ("metadata_topics_max", 1, 1 << 30),
    ("admin_items_max", 1, 1 << 30),
    ("admin_timeout_max_ms", 1, 86_400_000),
];

impl BrokerConfig {
    /// Reads a configuration from the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let table = text.parse::<toml::Table>().map_err(|error| parse_error(&error))?;
        Self::from_table(table)
    }

    /// Reads a configuration from a table that was merged from file, variables and flags.
    ///
    /// # Errors
    /// [`ConfigError`] that names the key.
    pub fn from_table(table: toml::Table) -> Result<Self, ConfigError> {
        let config: Self = table.try_into().map_err(|error| parse_error(&error))?;
        config.validate()?;
        Ok(config)
    }

    /// Checks every value against the range of its key, and keys against each other.
    ///
    /// # Errors
    /// [`ConfigError::Value`] for the first that does not fit.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let table = toml::Table::try_from(self).map_err(|error| parse_error(&error))?;
        for (key, lowest, highest) in RANGES {
            let Some(value) = table.get(*key).and_then(toml::Value::as_integer) else { continue };
            let fits =
                u64::try_from(value).is_ok_and(|value| (*lowest..=*highest).contains(&value));
            if !fits {
                return Err(ConfigError::Value {
                    key,
                    got: value.to_string(),
                    expected: format!("{lowest} to {highest}"),
                });
            }
        }
        if self.shard_request_bytes < self.max_frame_bytes {
            let expected = format!("at least max_frame_bytes, {}", self.max_frame_bytes);
            return Err(wrong("shard_request_bytes", self.shard_request_bytes, &expected));
        }
        if let Some(id) = self.broker_id
            && id < 0
        {
            return Err(wrong("broker_id", id, "0 or more"));
        }
        if self.coordinators.is_empty() {
            return Err(wrong("coordinators", "empty", "at least one host:port"));
        }
        for address in &self.coordinators {
            if split_host_port(address).is_none() {
                return Err(wrong("coordinators", address, "host:port"));
            }
        }
        if let Some(address) = &self.advertised
            && split_host_port(address).is_none_or(|(_, port)| port == 0)
        {
            return Err(wrong("advertised", address, "host:port"));
        }
        if !self.admin_listen.is_empty() && self.admin_listen.parse::<SocketAddr>().is_err() {
            return Err(wrong("admin_listen", &self.admin_listen, "address:port or empty"));
        }
        Ok(())
    }

    /// The address of the admin listener, when it is on.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin_listen.parse().ok()
    }
}

/// Every key with unit, default and meaning, as a Markdown table.
pub fn settings_markdown() -> String {
    let defaults = toml::Table::try_from(BrokerConfig::default()).unwrap_or_default();
    let mut text = String::from("| key | unit | default | meaning |\n|---|---|---|---|\n");
    for Setting { key, unit, doc } in SETTINGS {
        let default = defaults.get(*key).map_or_else(|| "none".to_owned(), |v| format!("`{v}`"));
        let doc = doc.split_whitespace().collect::<Vec<_>>().join(" ");
        let row = format!("| `{key}` | {unit} | {default} | {doc} |\n");
        text.push_str(&row);
    }
    text
}

/// Splits `host:port`, with an IPv6 host in brackets.
pub fn split_host_port(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok()?;
    (!host.is_empty()).then_some((host, port))
}

fn parse_error(error: &dyn std::fmt::Display) -> ConfigError {
    ConfigError::Parse { message: error.to_string().trim().to_owned() }
}

fn wrong(key: &'static str, got: impl std::fmt::Display, expected: &str) -> ConfigError {
    ConfigError::Value { key, got: got.to_string(), expected: expected.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_gives_the_defaults_and_they_are_valid() {
        assert_eq!(BrokerConfig::parse(""), Ok(BrokerConfig::default()));
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = BrokerConfig::parse("max_frame_byte = 5").unwrap_err().to_string();
        assert!(error.contains("max_frame_byte"), "{error}");
    }

    #[test]
    fn a_value_out_of_range_is_refused_by_name() {
        for (key, lowest, highest) in RANGES {
            let refusal = |value: u64| match BrokerConfig::parse(&format!("{key} = {value}")) {
                Err(ConfigError::Value { key: named, expected, .. }) => {
                    (named == *key && expected.contains(" to ")).then_some(expected)
                }
                _ => None,
            };
            assert!(refusal(highest + 1).is_some(), "{key}");
            assert!(*lowest == 0 || refusal(lowest - 1).is_some(), "{key}");
            assert_eq!((refusal(*lowest), refusal(*highest)), (None, None), "{key}");
        }
    }

    #[test]
    fn every_range_belongs_to_a_key() {
        for (key, ..) in RANGES {
            assert!(SETTINGS.iter().any(|setting| setting.key == *key), "{key}");
        }
    }

    #[test]
    fn addresses_without_a_port_are_refused() {
        for text in ["advertised = \"somewhere\"", "coordinators = [\"x\"]", "coordinators = []"] {
            assert!(BrokerConfig::parse(text).is_err(), "{text}");
        }
        assert_eq!(split_host_port("[::1]:9092"), Some(("::1", 9092)));
        assert_eq!(split_host_port("kafka.example:1"), Some(("kafka.example", 1)));
        assert_eq!(split_host_port(":1"), None);
    }

    #[test]
    fn the_table_has_a_row_for_every_key() {
        let table = settings_markdown();
        assert_eq!(table.lines().count(), SETTINGS.len() + 2);
        assert!(table.contains("| `max_frame_bytes` | bytes | `104857600` |"), "{table}");
        assert!(table.contains("| `rack` | text | none |"), "{table}");
    }

    #[test]
    fn every_setting_is_documented() {
        for setting in SETTINGS {
            assert!(setting.doc.trim().ends_with('.'), "{}", setting.key);
            assert!(!setting.unit.is_empty(), "{}", setting.key);
        }
    }
}
