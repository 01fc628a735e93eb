//! The configuration of one coordinator. Every key has its unit in its name or its description;
//! unknown keys are refused by name.

use std::net::SocketAddr;
use std::path::PathBuf;

use levada_protocol::cluster::{COORDINATOR_PORT, ClusterId};
use serde::Deserialize;

use crate::controller::policy::{Policy, TOPICS_WEIGHT_BYTES};

/// What a coordinator's TOML file may say. [`Default`] is what an empty file means.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorConfig {
    /// `id`: this coordinator's number, from 1. Default 1.
    pub id: i32,
    /// `listen`: address and port for brokers and the command line; port 0 lets the system choose.
    /// Default 127.0.0.1:9190.
    pub listen: SocketAddr,
    /// `http_listen`: address and port for /health, /metrics and /status. Default 127.0.0.1:9191;
    /// `http_enabled = false` does without.
    pub http_listen: SocketAddr,
    /// `http_enabled`: whether to serve HTTP. Default true.
    pub http_enabled: bool,
    /// `data_dir`: directory for the command log and snapshots; made when it is not there. Default
    /// levada-data/coordinator.
    pub data_dir: PathBuf,
    /// `cluster_name`: what people call the cluster; shown, never compared. Default none.
    pub cluster_name: Option<String>,
    /// `cluster_id`: the cluster that the data directory must belong to, or will when it is new.
    /// Default none: whichever it is, a random one when new.
    pub cluster_id: Option<String>,
    /// `session_ms`: a broker that was silent for so long is fenced, in ms. 1000 to 600000. Default
    /// 5000.
    pub session_ms: u64,
    /// `default_partitions`: partitions of topics whose creator did not say. Default 1.
    pub default_partitions: i32,
    /// `default_replication_factor`: replicas of such topics, fewer while fewer brokers are alive.
    /// Default 3.
    pub default_replication_factor: i32,
    /// `max_partitions_per_topic`: default 10000.
    pub max_partitions_per_topic: usize,
    /// `max_partitions`: of all topics. Default 100000.
    pub max_partitions: usize,
    /// `max_topics`: default 50000.
    pub max_topics: usize,
    /// `snapshot_log_bytes`: a command log of so many bytes is replaced by a snapshot. 64 KiB to 1
    /// GiB. Default 8388608.
    pub snapshot_log_bytes: u64,
    /// `max_connections`: further ones are closed at once. Default 1024.
    pub max_connections: usize,
    /// `request_budget_bytes`: bytes of all requests that are being received, beyond 16 KiB each. At
    /// least 1 MiB. Default 67108864.
    pub request_budget_bytes: usize,
    /// `push_budget_bytes`: bytes that one subscriber may lag behind before it is disconnected and
    /// must ask for a full image. At least 1 MiB. Default 33554432.
    pub push_budget_bytes: usize,
    /// `first_frame_ms`: a new connection must send its first request within so many ms. Default
    /// 5000.
    pub first_frame_ms: u64,
    /// `frame_ms`: a request that has begun must be whole within so many ms. Default 10000.
    pub frame_ms: u64,
    /// `idle_ms`: a connection without a request for so many ms is closed. Default 600000.
    pub idle_ms: u64,
    /// `write_ms`: a reader that does not take a frame within so many ms is disconnected. Default
    /// 30000.
    pub write_ms: u64,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        let policy = Policy::default();
        Self {
            id: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], COORDINATOR_PORT)),
            http_listen: SocketAddr::from(([127, 0, 0, 1], COORDINATOR_PORT + 1)),
            http_enabled: true,
            data_dir: PathBuf::from("levada-data/coordinator"),
            cluster_name: None,
            cluster_id: None,
            session_ms: 5000,
            default_partitions: policy.default_partitions,
            default_replication_factor: policy.default_replication_factor,
            max_partitions_per_topic: policy.max_partitions_per_topic,
            max_partitions: policy.max_partitions,
            max_topics: policy.max_topics,
            snapshot_log_bytes: 8 << 20,
            max_connections: 1024,
            request_budget_bytes: 64 << 20,
            push_budget_bytes: 32 << 20,
            first_frame_ms: 5000,
            frame_ms: 10_000,
            idle_ms: 600_000,
            write_ms: 30_000,
        }
    }
}

/// A configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The text is no TOML, or has a key that does not exist or a value of the wrong type.
    #[error("coordinator configuration: {0}")]
    Text(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("coordinator configuration: {key} cannot be {value}: {allowed}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is possible.
        allowed: &'static str,
    },
}

impl CoordinatorConfig {
    /// Reads and checks a TOML text.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)?;
        config.check()?;
        Ok(config)
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the first key whose value makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refuse = |key, value: String, allowed| Err(ConfigError::Value { key, value, allowed });
        if self.id < 1 {
            return refuse("id", self.id.to_string(), "1 or more");
        }
        if let Some(name) = self.cluster_name.as_ref().filter(|name| 128 < name.len()) {
            return refuse("cluster_name", name.clone(), "at most 128 bytes");
        }
        if let Some(id) = &self.cluster_id
            && id.parse::<ClusterId>().map_or(true, ClusterId::is_nil)
        {
            return refuse("cluster_id", id.clone(), "8-4-4-4-12 hexadecimal digits, not all 0");
        }
        if self.default_partitions < 1 {
            let value = self.default_partitions.to_string();
            return refuse("default_partitions", value, "1 or more");
        }
        if !(1..=i32::from(i16::MAX)).contains(&self.default_replication_factor) {
            let value = self.default_replication_factor.to_string();
            return refuse("default_replication_factor", value, "1 to 32767");
        }
        let ranges: [(&'static str, u64, u64, u64, &'static str); 12] = [
            ("session_ms", self.session_ms, 1000, 600_000, "1000 to 600000"),
            (
                "snapshot_log_bytes",
                self.snapshot_log_bytes,
                64 << 10,
                1 << 30,
                "65536 to 1073741824",
            ),
            ("first_frame_ms", self.first_frame_ms, 10, 600_000, "10 to 600000"),
            ("frame_ms", self.frame_ms, 10, 600_000, "10 to 600000"),
            ("idle_ms", self.idle_ms, 10, 86_400_000, "10 to 86400000"),
            ("write_ms", self.write_ms, 10, 600_000, "10 to 600000"),
            ("max_connections", wide(self.max_connections), 1, 1 << 20, "1 to 1048576"),
            (
                "max_partitions_per_topic",
                wide(self.max_partitions_per_topic),
                1,
                100_000,
                "1 to 100000",
            ),
            ("max_partitions", wide(self.max_partitions), 1, 1_000_000, "1 to 1000000"),
            ("max_topics", wide(self.max_topics), 1, 1_000_000, "1 to 1000000"),
            (
                "request_budget_bytes",
                wide(self.request_budget_bytes),
                1 << 20,
                1 << 40,
                "1048576 or more",
            ),
            (
                "push_budget_bytes",
                wide(self.push_budget_bytes),
                1 << 20,
                1 << 40,
                "1048576 or more",
            ),
        ];
        for (key, value, min, max, allowed) in ranges {
            if !(min..=max).contains(&value) {
                return refuse(key, value.to_string(), allowed);
            }
        }
        Ok(())
    }

    /// The limits and defaults that the controller plans by.
    pub fn policy(&self) -> Policy {
        Policy {
            default_partitions: self.default_partitions,
            default_replication_factor: self.default_replication_factor,
            max_partitions_per_topic: self.max_partitions_per_topic,
            max_partitions: self.max_partitions,
            max_topics: self.max_topics,
            producer_id_block: Policy::default().producer_id_block,
            max_topics_weight_bytes: TOPICS_WEIGHT_BYTES,
        }
    }

    /// `cluster_id`, parsed; checked by [`check`](Self::check).
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster_id.as_ref().and_then(|id| id.parse().ok())
    }
}

fn wide(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_the_default_and_that_is_valid() {
        assert_eq!(CoordinatorConfig::from_toml("").unwrap(), CoordinatorConfig::default());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let error = CoordinatorConfig::from_toml("sesion_ms = 5000").unwrap_err();
        assert!(error.to_string().contains("sesion_ms"), "{error}");
    }

    #[test]
    fn senseless_values_are_refused_by_key() {
        for (text, key) in [
            ("id = 0", "id"),
            ("session_ms = 999", "session_ms"),
            ("default_partitions = 0", "default_partitions"),
            ("default_replication_factor = 0", "default_replication_factor"),
            ("cluster_id = 'mine'", "cluster_id"),
            ("max_topics = 0", "max_topics"),
            ("push_budget_bytes = 1", "push_budget_bytes"),
            ("snapshot_log_bytes = 1", "snapshot_log_bytes"),
            ("listen = '127.0.0.1'", "listen"),
        ] {
            let error = CoordinatorConfig::from_toml(text).unwrap_err();
            assert!(error.to_string().contains(key), "{text}: {error}");
        }
    }

    #[test]
    fn values_are_taken() {
        let text = "id = 3\nlisten = '0.0.0.0:0'\ndata_dir = '/tmp/x'\nhttp_enabled = false\n\
                    cluster_id = '00112233-4455-6677-8899-aabbccddeeff'\nsession_ms = 1000";
        let config = CoordinatorConfig::from_toml(text).unwrap();
        assert_eq!((config.id, config.session_ms, config.listen.port()), (3, 1000, 0));
        assert!(config.cluster().is_some());
    }
}
