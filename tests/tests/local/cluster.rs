//! A coordinator and a broker in this process, on free ports and an empty directory.

use std::net::SocketAddr;

use levada_broker::{Broker, BrokerConfig, BrokerHandle};
use levada_coordinator::{Coordinator, CoordinatorConfig, Handle};

/// The broker stops before its coordinator.
pub(crate) struct LocalCluster {
    pub(crate) broker: Option<BrokerHandle>,
    /// What the broker was started with.
    pub(crate) config: BrokerConfig,
    _coordinator: Handle,
    _directory: tempfile::TempDir,
}

impl LocalCluster {
    /// Two shards, unless `change` says otherwise.
    pub(crate) fn start(change: impl FnOnce(&mut BrokerConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let coordinator = Coordinator::start(CoordinatorConfig {
            listen: loopback,
            http_enabled: false,
            data_dir: directory.path().join("coordinator"),
            ..CoordinatorConfig::default()
        })
        .unwrap();
        let mut config = BrokerConfig {
            data_dir: directory.path().join("broker"),
            listen: loopback,
            admin_listen: String::new(),
            coordinators: vec![coordinator.address().to_string()],
            shards: 2,
            pin_shards: false,
            io_memory_bytes: 64 << 10,
            journal_file_bytes: 4 << 20,
            ..BrokerConfig::default()
        };
        change(&mut config);
        let broker = Broker::start(config.clone()).unwrap();
        // Clients find the broker at the same port when it starts again.
        config.listen = broker.kafka_address();
        Self { broker: Some(broker), config, _coordinator: coordinator, _directory: directory }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        drop(self.broker.take());
    }
}
